//! Disks that were taken out of the cluster for good: `removed/<disk>`. Such a disk never comes back under its id,
//! because what it holds is of volumes that have gone on without it. Formatted anew it has another id.

use crate::document::{decode, encode, text};
use crate::registry::{Claims, Disk};
use crate::volumes::Volume;
use crate::{Catalog, CatalogError, Event, KeyRange, StoredVolume, TRANSACTION_OPS_MAX, Transaction, keys};
use ashlar_types::{DiskId, NodeName};
use serde::{Deserialize, Serialize};

/// Volumes that may be given up with one disk.
pub const GIVEN_UP_MAX: usize = 16;

/// Two values of each volume and an event of it, which pushes out an older one; and what there is of the disk.
const OPS_MAX: usize = 4 * GIVEN_UP_MAX + 8;
const _: () = assert!(OPS_MAX <= TRANSACTION_OPS_MAX);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedDisk {
    #[serde(with = "text")]
    pub id: DiskId,
    /// Where it was last.
    #[serde(with = "text")]
    pub node: NodeName,
    /// Milliseconds since 1970, UTC.
    pub removed_ms: u64,
}

impl Catalog {
    /// Forgets the disk, and remembers that it was removed. `claimed` is as of before what the disk holds was looked
    /// at: space that was promised there meanwhile makes a [`crate::CatalogErrorKind::Conflict`]. `given_up`: volumes
    /// that lose a replica by it, as they were seen and as they become.
    pub async fn remove_disk(
        &self,
        disk: &Disk,
        removed_ms: u64,
        claimed: &Claims,
        given_up: &[(StoredVolume, Volume)],
        events: Vec<Event>,
    ) -> Result<RemovedDisk, CatalogError> {
        assert!(given_up.len() <= GIVEN_UP_MAX && events.len() <= given_up.len() + 1);
        let removed = RemovedDisk { id: disk.id, node: disk.node.clone(), removed_ms };
        // The claim stays, as zero: whoever was about to promise space here, also as the first one, compares it.
        let transaction = claimed
            .clear(Transaction::default(), disk.id)
            .delete(keys::disk(disk.id))
            .put(keys::removed(disk.id), encode(&removed));
        let both = |transaction: Transaction, (seen, next): &(StoredVolume, Volume)| transaction.and(seen.both(next));
        self.commit(given_up.iter().fold(transaction, both), events).await?;
        Ok(removed)
    }

    /// By id.
    pub async fn removed_disks(&self) -> Result<Vec<RemovedDisk>, CatalogError> {
        let found = self.store().read(vec![KeyRange::prefix(keys::REMOVED)]).await?;
        found.ranges[0].iter().map(decode).collect()
    }
}

#[cfg(test)]
mod tests;
