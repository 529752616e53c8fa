//! Which disks hold a volume's chunks, and how that changes under its writer: the record, the pages of the chunk table
//! that are different, the claims of disks that come, and tombstones of those that go, in one transaction.

use super::{StoredVolume, Volume};
use crate::document::encode;
use crate::document::record::{RUNS_PER_PAGE, RunDocument};
use crate::registry::Claims;
use crate::tombstones::{Tombstone, TombstoneDocument};
use crate::{Catalog, CatalogError, Choice, Event, Transaction, choices, keys};
use ashlar_types::{ChunkRun, DiskId, VolumeId, VolumeRecord};
use std::collections::BTreeSet;

pub(super) fn put_page(transaction: Transaction, id: VolumeId, page: usize, runs: &[ChunkRun]) -> Transaction {
    let runs: Vec<RunDocument> = runs.iter().map(RunDocument::of).collect();
    transaction.put(keys::chunk_page(id, page), encode(&runs))
}

impl StoredVolume {
    /// Puts the pages that are different; the number of runs stays.
    pub(super) fn chunks_change(&self, transaction: Transaction, next: &VolumeRecord) -> Transaction {
        let (id, before) = (self.volume.id(), &self.volume.record.chunks);
        assert!(next.chunks.len() == before.len(), "runs are neither cut nor joined");
        let pages = before.chunks(RUNS_PER_PAGE).zip(next.chunks.chunks(RUNS_PER_PAGE)).enumerate();
        let changed = pages.filter(|(_, (before, after))| before != after);
        changed.fold(transaction, |transaction, (page, (_, runs))| put_page(transaction, id, page, runs))
    }
}

impl Catalog {
    /// Puts `next`, in which other disks hold chunks, in the place of the record that `seen` was read with. `claimed`
    /// is what the room was judged by: space that was promised to someone else meanwhile makes a
    /// [`crate::CatalogErrorKind::Conflict`]. What a disk that goes still has is deleted as that of a deleted volume
    /// is, and keeps its claim until then. `came`: why the disk that comes was chosen.
    pub async fn change_holders(
        &self,
        seen: &StoredVolume,
        next: VolumeRecord,
        claimed: &Claims,
        came: Option<Choice>,
        events: Vec<Event>,
    ) -> Result<StoredVolume, CatalogError> {
        let holders = |record: &VolumeRecord| record.holders().map(|member| member.disk).collect::<BTreeSet<DiskId>>();
        let (before, after) = (holders(&seen.volume.record), holders(&next));
        let (id, claim) = (seen.volume.id(), seen.volume.claim());
        let chosen = self.choices_after(id, |disk| after.contains(&disk), came).await?;
        let mut transaction = choices::put(seen.record_change(&next), id, &chosen);
        for &disk in after.difference(&before) {
            transaction = claimed.add(transaction, disk, claim).expect_absent(keys::tombstone(disk, id));
        }
        for &disk in before.difference(&after) {
            // The present writer knows that the disk is none of its own before it hears of the deletion, or soon after.
            let tombstone = Tombstone { disk, volume: id, epoch: next.epoch, claim };
            transaction = transaction.put(keys::tombstone(disk, id), encode(&TombstoneDocument::of(&tombstone)));
        }
        let record_revision = self.commit(transaction, events).await?;
        Ok(seen.with_record(next, record_revision))
    }

    /// Reserves the volume, which nobody holds, for a node that shall repair it; or says that this is over. `next` is
    /// the record then.
    pub async fn change_repair(
        &self,
        seen: &StoredVolume,
        next: VolumeRecord,
        is_repaired: bool,
        events: Vec<Event>,
    ) -> Result<StoredVolume, CatalogError> {
        let id = seen.volume.id();
        let volume = Volume { record: next, is_repaired, ..seen.volume.clone() };
        let transaction = seen
            .record_becomes(&volume.record)
            .expect(keys::volume(id), seen.volume_revision)
            .put(keys::volume(id), volume.document());
        let revision = self.commit(transaction, events).await?;
        let is_changed = volume.record != seen.volume.record;
        let record_revision = if is_changed { revision } else { seen.record_revision };
        Ok(StoredVolume { volume, volume_revision: revision, record_revision })
    }
}

#[cfg(test)]
mod tests;
