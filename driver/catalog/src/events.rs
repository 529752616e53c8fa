//! Events: what happened, in order, the newest [`EVENTS_KEPT`]. An event is committed in the transaction whose change
//! it tells of.

use crate::document::{decode, decode_value, encode, text};
use crate::{Catalog, CatalogError, KeyRange, MetaStore, Revision, Transaction, Watch, keys};
use ashlar_types::{DiskId, NodeName, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Older events are deleted as newer ones come.
pub const EVENTS_KEPT: u64 = 10_000;
/// Most bytes of an event's text, and of a figure's name or value.
const TEXT_BYTES_MAX: usize = 1000;
const FIGURES_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// One word: "ejected", "in-sync", "attached", ...
    pub kind: String,
    #[serde(with = "text::optional")]
    pub volume: Option<VolumeId>,
    #[serde(with = "text::optional")]
    pub disk: Option<DiskId>,
    #[serde(with = "text::optional")]
    pub node: Option<NodeName>,
    pub text: String,
    pub figures: BTreeMap<String, String>,
    /// Given by the catalog; grows by one with each event.
    pub sequence: u64,
}

/// Where the ring of events ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventTail {
    last: u64,
    /// Of the tail's key; `None` before the first event.
    revision: Option<Revision>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TailDocument {
    last: u64,
}

impl Event {
    pub fn new(time_ms: u64, kind: &str, text: impl Into<String>) -> Event {
        let text = shortened(text.into());
        let figures = BTreeMap::new();
        Event { time_ms, kind: kind.to_owned(), volume: None, disk: None, node: None, text, figures, sequence: 0 }
    }

    pub fn of_volume(self, volume: VolumeId) -> Event {
        Event { volume: Some(volume), ..self }
    }

    pub fn of_disk(self, disk: DiskId) -> Event {
        Event { disk: Some(disk), ..self }
    }

    pub fn of_node(self, node: &NodeName) -> Event {
        Event { node: Some(node.clone()), ..self }
    }

    /// Adds a number that belongs to the event. Beyond a bound it is left out.
    pub fn figure(mut self, name: &str, value: impl ToString) -> Event {
        if self.figures.len() < FIGURES_MAX {
            self.figures.insert(shortened(name.to_owned()), shortened(value.to_string()));
        }
        self
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let cut = (0..=TEXT_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(cut);
    }
    text
}

impl EventTail {
    pub(crate) async fn read(store: &MetaStore) -> Result<EventTail, CatalogError> {
        let reading = store.read(vec![KeyRange::one(keys::EVENT_TAIL)]).await?;
        match reading.ranges[0].first() {
            None => Ok(EventTail { last: 0, revision: None }),
            Some(stored) => {
                Ok(EventTail { last: decode::<TailDocument>(stored)?.last, revision: Some(stored.mod_revision) })
            }
        }
    }

    /// The transaction with the events in it, and the tail as it will be.
    pub(crate) fn append(&self, transaction: Transaction, events: Vec<Event>) -> (Transaction, EventTail) {
        let mut transaction = match self.revision {
            Some(revision) => transaction.expect(keys::EVENT_TAIL, revision),
            None => transaction.expect_absent(keys::EVENT_TAIL),
        };
        let mut last = self.last;
        for event in events {
            last += 1;
            transaction = transaction.put(keys::event(last), encode(&Event { sequence: last, ..event }));
            if let Some(oldest) = last.checked_sub(EVENTS_KEPT).filter(|&oldest| oldest > 0) {
                transaction = transaction.delete(keys::event(oldest));
            }
        }
        let transaction = transaction.put(keys::EVENT_TAIL, encode(&TailDocument { last }));
        (transaction, EventTail { last, revision: None })
    }

    pub(crate) fn at(self, revision: Revision) -> EventTail {
        EventTail { revision: Some(revision), ..self }
    }
}

/// Events as they are committed.
#[derive(Debug)]
pub struct EventFeed {
    watch: Watch,
}

impl EventFeed {
    /// The next event; waits for it. `None` when the catalog is closed; an error when the reader is too slow.
    pub async fn next(&mut self) -> Result<Option<Event>, CatalogError> {
        while let Some(change) = self.watch.next().await? {
            if let Some(value) = change.value {
                return decode_value(&change.key, &value).map(Some);
            }
        }
        Ok(None)
    }
}

impl Catalog {
    /// Keeps events that tell of no change of the catalog.
    pub async fn append_events(&self, events: Vec<Event>) -> Result<(), CatalogError> {
        const EVENTS_PER_TRANSACTION: usize = 32;
        const _: () = assert!(2 * EVENTS_PER_TRANSACTION < crate::TRANSACTION_OPS_MAX);
        for some in events.chunks(EVENTS_PER_TRANSACTION) {
            self.commit(Transaction::default(), some.to_vec()).await?;
        }
        Ok(())
    }

    /// The newest `limit` events (of the volume, if one is named), oldest first, and a feed of all that follow them.
    pub async fn events(
        &self,
        volume: Option<VolumeId>,
        limit: usize,
    ) -> Result<(Vec<Event>, EventFeed), CatalogError> {
        // Without a filter the newest are the last of their numbers; with one, all are looked at.
        let last = self.tail.lock().await.last;
        let first = if volume.is_some() { 0 } else { (last + 1).saturating_sub(limit as u64) };
        let kept = KeyRange { start: keys::event(first), ..KeyRange::prefix(keys::EVENTS) };
        let mut reading = self.store().read(vec![kept]).await?;
        let mut newest = Vec::new();
        for stored in reading.ranges.remove(0).iter().rev() {
            let event: Event = decode(stored)?;
            if newest.len() == limit {
                break;
            }
            if volume.is_none() || event.volume == volume {
                newest.push(event);
            }
        }
        newest.reverse();
        let watch = self.store().watch(keys::EVENTS, Revision(reading.revision.0 + 1)).await?;
        Ok((newest, EventFeed { watch }))
    }
}
