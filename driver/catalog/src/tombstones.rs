//! Tombstones: replicas of deleted volumes that a chunkserver has not yet confirmed to be gone. A tombstone keeps the
//! space claimed, so that it is not promised again before it is free.

use crate::document::{decode, text};
use crate::registry::read_claims;
use crate::{Catalog, CatalogError, CatalogErrorKind, Event, KeyRange, KeyValue, Transaction, keys};
use ashlar_types::{ByteCount, DiskId, Epoch, VolumeId};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    pub disk: DiskId,
    pub volume: VolumeId,
    /// After the latest grant: every writer that there was is fenced by the deletion, and can tell by it that the
    /// volume is gone.
    pub epoch: Epoch,
    pub claim: ByteCount,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TombstoneDocument {
    #[serde(with = "text")]
    disk: DiskId,
    #[serde(with = "text")]
    volume: VolumeId,
    epoch: u32,
    claim_bytes: u64,
}

impl TombstoneDocument {
    pub(crate) fn of(tombstone: &Tombstone) -> TombstoneDocument {
        TombstoneDocument {
            disk: tombstone.disk,
            volume: tombstone.volume,
            epoch: tombstone.epoch.number(),
            claim_bytes: tombstone.claim.0,
        }
    }

    fn into_tombstone(self, key: &str) -> Result<Tombstone, CatalogError> {
        let epoch = Epoch::new(self.epoch)
            .ok_or_else(|| CatalogError::new(CatalogErrorKind::Corrupt, format!("epoch of {key} is too large")))?;
        Ok(Tombstone { disk: self.disk, volume: self.volume, epoch, claim: ByteCount(self.claim_bytes) })
    }
}

impl Catalog {
    /// All of them, by disk and volume; and the keys of those whose values cannot be read, and why.
    pub async fn tombstones(&self) -> Result<(Vec<Tombstone>, Vec<(String, CatalogError)>), CatalogError> {
        let found = self.store().read(vec![KeyRange::prefix(keys::TOMBSTONES)]).await?.ranges.remove(0);
        let read = |stored: &KeyValue| decode::<TombstoneDocument>(stored)?.into_tombstone(&stored.key);
        let (mut tombstones, mut unreadable) = (Vec::new(), Vec::new());
        for stored in &found {
            match read(stored) {
                Ok(tombstone) => tombstones.push(tombstone),
                Err(error) => unreadable.push((stored.key.clone(), error)),
            }
        }
        Ok((tombstones, unreadable))
    }

    /// The replica is gone: its space may be promised again. Repeating it changes nothing.
    pub async fn drop_tombstone(&self, tombstone: &Tombstone, events: Vec<Event>) -> Result<(), CatalogError> {
        let key = keys::tombstone(tombstone.disk, tombstone.volume);
        loop {
            let Some(stored) = self.read_one(key.clone()).await? else { return Ok(()) };
            let claims = read_claims(self.store()).await?;
            let transaction = Transaction::default().expect(&key, stored.mod_revision).delete(&key);
            let transaction = claims.subtract(transaction, tombstone.disk, tombstone.claim);
            match self.commit(transaction, events.clone()).await {
                // Another volume was placed on the disk meanwhile.
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                other => return other.map(|_| ()),
            }
        }
    }
}
