//! What a volume is published for, kept from ControllerPublishVolume to ControllerUnpublishVolume: one node that holds
//! it, for writing or for reading only, or many nodes that read it.
//!
//! Whoever publishes compares both values of the volume, and writes both: a writer that is let in by an older reading
//! of the readers, or the other way round, finds another record than the one that it has seen.

use super::{StoredVolume, VOLUME_FORMAT, Volume, VolumeDocument};
use crate::document::decode_as;
use crate::document::record::RecordDocument;
use crate::{Catalog, CatalogError, Event, KeyRange, KeyValue, Transaction, keys};
use ashlar_types::{Epoch, NodeName, VolumeRecord};
use std::collections::BTreeSet;

impl StoredVolume {
    /// Both values of the volume as they become. Who compared either of those that were read finds another.
    pub(crate) fn both(&self, next: &Volume) -> Transaction {
        let id = next.id();
        assert!(id == self.volume.id() && next.record.chunks == self.volume.record.chunks);
        Transaction::default()
            .expect(keys::record(id), self.record_revision)
            .expect(keys::volume(id), self.volume_revision)
            .put(keys::record(id), RecordDocument::of(&next.record).encoded())
            .put(keys::volume(id), next.document())
    }
}

impl Catalog {
    /// Reserves the volume for a node and keeps for what: `next` in the place of the record that `seen` was read with,
    /// and whether it is published for reading only, in one transaction.
    pub async fn publish(
        &self,
        seen: &StoredVolume,
        next: VolumeRecord,
        read_only: bool,
        events: Vec<Event>,
    ) -> Result<StoredVolume, CatalogError> {
        assert!(
            next.volume == seen.volume.id()
                && next.version > seen.volume.record.version
                && next.chunks == seen.volume.record.chunks
        );
        self.put_both(seen, Volume { record: next, published_read_only: read_only, ..seen.volume.clone() }, events)
            .await
    }

    /// The volume is published no more.
    pub async fn unpublish(&self, seen: &StoredVolume) -> Result<StoredVolume, CatalogError> {
        let id = seen.volume.id();
        let volume = Volume { published_read_only: false, ..seen.volume.clone() };
        let transaction = Transaction::default()
            .expect(keys::volume(id), seen.volume_revision)
            .put(keys::volume(id), volume.document());
        let volume_revision = self.commit(transaction, Vec::new()).await?;
        Ok(StoredVolume { volume, volume_revision, ..*seen })
    }

    /// Keeps which nodes the volume is published to for reading by many. The record stays what it is.
    pub async fn change_readers(
        &self,
        seen: &StoredVolume,
        readers: Vec<NodeName>,
        events: Vec<Event>,
    ) -> Result<StoredVolume, CatalogError> {
        self.put_both(seen, Volume { readers, ..seen.volume.clone() }, events).await
    }

    /// Keeps that a reader made the volume ready for the others, under this epoch.
    pub async fn settle(
        &self,
        seen: &StoredVolume,
        settled: Epoch,
        events: Vec<Event>,
    ) -> Result<StoredVolume, CatalogError> {
        self.put_both(seen, Volume { settled, ..seen.volume.clone() }, events).await
    }

    async fn put_both(
        &self,
        seen: &StoredVolume,
        volume: Volume,
        events: Vec<Event>,
    ) -> Result<StoredVolume, CatalogError> {
        let revision = self.commit(seen.both(&volume), events).await?;
        Ok(StoredVolume { volume, volume_revision: revision, record_revision: revision })
    }

    /// How many volumes the node holds or reads. A value that cannot be read names nobody.
    pub async fn used_by(&self, node: &NodeName) -> Result<usize, CatalogError> {
        let ranges = vec![KeyRange::prefix(keys::RECORDS), KeyRange::prefix(keys::VOLUMES)];
        let mut reading = self.store().read(ranges).await?.ranges;
        let (volumes, records) = (reading.remove(1), reading.remove(0));
        let held = |stored: &&KeyValue| RecordDocument::decoded(stored).is_ok_and(|record| record.is_held_by(node));
        let read = |stored: &&KeyValue| {
            decode_as::<VolumeDocument>(VOLUME_FORMAT, stored).is_ok_and(|volume| volume.readers.contains(node))
        };
        let held = records.iter().filter(held).map(|stored| stored.key.trim_start_matches(keys::RECORDS));
        let read = volumes.iter().filter(read).map(|stored| stored.key.trim_start_matches(keys::VOLUMES));
        Ok(held.chain(read).collect::<BTreeSet<_>>().len())
    }
}

#[cfg(test)]
mod tests;
