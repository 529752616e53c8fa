//! The catalog of one cluster: opening it, and the one way in which its changes are committed.

use crate::document::{decode, encode, text};
use crate::events::{Event, EventTail};
use crate::{CatalogError, CatalogErrorKind, KeyRange, MetaStore, Outcome, Revision, Transaction, keys};
use ashlar_types::ClusterId;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// How often a transaction is tried when only the ring of events had moved on.
const TAIL_TRIES_MAX: usize = 4;

/// Durable state of one cluster. Shared by every service of the control plane.
#[derive(Debug)]
pub struct Catalog {
    store: MetaStore,
    cluster: ClusterId,
    /// Held while a transaction with events is committed: events are numbered in the order of their changes.
    pub(crate) tail: Mutex<EventTail>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterDocument {
    #[serde(with = "text")]
    id: ClusterId,
}

impl Catalog {
    /// Opens the cluster's catalog. A new one becomes the cluster `expected`, or `fresh` if none is expected; one of
    /// another cluster than expected is refused.
    pub async fn open(
        store: MetaStore,
        expected: Option<ClusterId>,
        fresh: ClusterId,
    ) -> Result<Catalog, CatalogError> {
        let wanted = expected.unwrap_or(fresh);
        let found = store.read(vec![KeyRange::one(keys::CLUSTER)]).await?;
        let cluster = match found.ranges[0].first() {
            Some(stored) => decode::<ClusterDocument>(stored)?.id,
            None => {
                let made = Transaction::default()
                    .expect_absent(keys::CLUSTER)
                    .put(keys::CLUSTER, encode(&ClusterDocument { id: wanted }));
                match store.commit(made).await? {
                    Outcome::Committed(_) => wanted,
                    Outcome::Conflict => return Err(conflict("the catalog was made by another process just now")),
                }
            }
        };
        if let Some(expected) = expected.filter(|&expected| expected != cluster) {
            let text = format!("the catalog is of cluster {cluster}, not {expected}");
            return Err(CatalogError::new(CatalogErrorKind::OtherCluster, text));
        }
        let tail = Mutex::new(EventTail::read(&store).await?);
        Ok(Catalog { store, cluster, tail })
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub fn store(&self) -> &MetaStore {
        &self.store
    }

    /// Commits the transaction and, in it, the events that tell of it. [`CatalogErrorKind::Conflict`] when a
    /// comparison fails.
    pub(crate) async fn commit(&self, transaction: Transaction, events: Vec<Event>) -> Result<Revision, CatalogError> {
        if events.is_empty() {
            return committed(self.store.commit(transaction).await?);
        }
        let mut tail = self.tail.lock().await;
        for _ in 0..TAIL_TRIES_MAX {
            let (with_events, next) = tail.append(transaction.clone(), events.clone());
            let outcome = self.store.commit(with_events).await;
            if let Ok(Outcome::Committed(revision)) = outcome {
                *tail = next.at(revision);
                return Ok(revision);
            }
            // The tail may be what has changed: by a caller that went away before it had its answer, or by an answer
            // that was lost. What is stored counts.
            let stored = EventTail::read(&self.store).await?;
            let moved = stored != *tail;
            *tail = stored;
            match outcome {
                Ok(_) if moved => {}
                other => return committed(other?),
            }
        }
        Err(conflict("the ring of events has changed meanwhile"))
    }

    pub(crate) async fn read_one(&self, key: String) -> Result<Option<crate::KeyValue>, CatalogError> {
        let mut reading = self.store.read(vec![KeyRange::one(key)]).await?;
        Ok(reading.ranges[0].pop())
    }
}

fn committed(outcome: Outcome) -> Result<Revision, CatalogError> {
    match outcome {
        Outcome::Committed(revision) => Ok(revision),
        Outcome::Conflict => Err(conflict("the catalog has changed meanwhile")),
    }
}

fn conflict(text: &str) -> CatalogError {
    CatalogError::new(CatalogErrorKind::Conflict, text)
}

#[cfg(test)]
mod tests;
