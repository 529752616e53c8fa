//! MetaStore on RocksDB: the catalog of a single control plane, embedded.
//!
//! One thread owns the database and takes one request after the other, so that comparing and writing are one step, and
//! no gRPC task ever waits in a system call. The thread sleeps until a request comes or a lease runs out; an idle
//! catalog uses no CPU.
//!
//! Column families: `data` (key → 8 bytes mod_revision, 8 bytes lease, value; little-endian), `leases` (8 bytes id,
//! big-endian → 8 bytes ttl in ms) and `meta` (`format`, `revision`, `lease`). Each transaction is one synced write
//! batch with the new revision in it.

use crate::store::{KeyRange, LeaseId, Outcome, Reading, Revision, Transaction, Watch};
use crate::{CatalogError, CatalogErrorKind};
use owner::Owner;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

mod database;
mod owner;

/// Requests that may wait for the owner; then callers wait.
const QUEUE_MAX: usize = 256;

/// Handle to the owner of the database; the last one dropped closes it.
#[derive(Clone, Debug)]
pub struct RocksStore {
    requests: mpsc::Sender<Request>,
    _thread: Arc<Joined>,
}

type Answer<T> = oneshot::Sender<Result<T, CatalogError>>;

enum Request {
    Commit(Transaction, Answer<Outcome>),
    Read(Vec<KeyRange>, Answer<Reading>),
    Watch(String, Revision, Answer<Watch>),
    GrantLease(Duration, Answer<LeaseId>),
    KeepAlive(LeaseId, Answer<()>),
    RevokeLease(LeaseId, Answer<()>),
}

impl RocksStore {
    /// Opens the database, or makes it. [`CatalogErrorKind::InUse`] when another process has it open.
    pub async fn open(directory: &Path) -> Result<RocksStore, CatalogError> {
        let directory = directory.to_owned();
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let (opened, opening) = oneshot::channel();
        let run = move || match Owner::open(&directory) {
            Ok(owner) => {
                let _gone = opened.send(Ok(()));
                owner.run(queue);
            }
            Err(error) => {
                let _gone = opened.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("ashlar-catalog".to_owned()).spawn(run).map_err(|error| {
            CatalogError::because(CatalogErrorKind::Unavailable, "start the catalog's thread", error)
        })?;
        opening.await.map_err(|_| stopped())??;
        Ok(RocksStore { requests, _thread: Arc::new(Joined(Some(thread))) })
    }

    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<Outcome, CatalogError> {
        self.ask(|answer| Request::Commit(transaction, answer)).await
    }

    pub(crate) async fn read(&self, ranges: Vec<KeyRange>) -> Result<Reading, CatalogError> {
        self.ask(|answer| Request::Read(ranges, answer)).await
    }

    pub(crate) async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, CatalogError> {
        self.ask(|answer| Request::Watch(prefix.to_owned(), from, answer)).await
    }

    pub(crate) async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, CatalogError> {
        self.ask(|answer| Request::GrantLease(ttl, answer)).await
    }

    pub(crate) async fn keep_alive(&self, lease: LeaseId) -> Result<(), CatalogError> {
        self.ask(|answer| Request::KeepAlive(lease, answer)).await
    }

    pub(crate) async fn revoke_lease(&self, lease: LeaseId) -> Result<(), CatalogError> {
        self.ask(|answer| Request::RevokeLease(lease, answer)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, CatalogError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

fn stopped() -> CatalogError {
    CatalogError::new(CatalogErrorKind::Unavailable, "the catalog has stopped")
}

/// The owner's thread. It ends when the last request sender is gone.
#[derive(Debug)]
struct Joined(Option<std::thread::JoinHandle<()>>);

impl Drop for Joined {
    /// Waits until the database is closed, so that it can be opened again at once.
    fn drop(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.join().is_err()
        {
            tracing::error!("the catalog's thread panicked");
        }
    }
}

#[cfg(test)]
mod tests;
