//! Clones: volumes that begin with what another one held, and for a while read it there. Source and clone change
//! together, in one transaction, whenever the source begins or ceases to keep a point for the clone.
//!
//! ```text
//!   source's record: the point ───────────────┐                         ┌─ without the point, unless it is gone
//!   clone: name, volume, record, claims ──────┴─ create ─► ... ─ flat ──┴─ clone/<id> gone
//! ```
//! `clone/<id>` stands for each clone whose record has an origin, so that nobody has to look for them.

use super::{StoredVolume, Volume};
use crate::document::{encode, text};
use crate::registry::Claims;
use crate::{Catalog, CatalogError, CatalogErrorKind, Event, KeyRange, StoredSnapshot, Transaction, keys};
use ashlar_types::{SnapshotId, VolumeId, VolumeRecord};
use serde::{Deserialize, Serialize};

/// What a volume began with, as it was asked for. What is named need not exist any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentSource {
    Snapshot(SnapshotId),
    Volume(VolumeId),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum SourceDocument {
    Snapshot {
        #[serde(with = "text")]
        snapshot: SnapshotId,
    },
    Volume {
        #[serde(with = "text")]
        volume: VolumeId,
    },
}

#[derive(Serialize)]
struct CloneDocument {
    #[serde(with = "text")]
    source: VolumeId,
}

/// A clone's source, and its record as it becomes.
pub type Source<'a> = (&'a StoredVolume, VolumeRecord);

impl ContentSource {
    pub(super) fn document(self) -> SourceDocument {
        match self {
            ContentSource::Snapshot(snapshot) => SourceDocument::Snapshot { snapshot },
            ContentSource::Volume(volume) => SourceDocument::Volume { volume },
        }
    }
}

impl SourceDocument {
    pub(super) fn into_source(self) -> ContentSource {
        match self {
            SourceDocument::Snapshot { snapshot } => ContentSource::Snapshot(snapshot),
            SourceDocument::Volume { volume } => ContentSource::Volume(volume),
        }
    }
}

impl StoredVolume {
    /// `next` in the place of the record, or the record as it is.
    pub(crate) fn record_becomes(&self, next: &VolumeRecord) -> Transaction {
        if *next == self.volume.record { self.unchanged_record() } else { self.record_change(next) }
    }
}

impl Catalog {
    /// Keeps a clone that reads from `source`, as [`Catalog::create_volume`] does a new volume. `spent`: a snapshot
    /// that was taken for this clone alone, and goes.
    pub async fn create_clone(
        &self,
        clone: &Volume,
        claimed: &Claims,
        (source, next): Source<'_>,
        spent: Option<&StoredSnapshot>,
        event: Event,
    ) -> Result<StoredVolume, CatalogError> {
        let origin = clone.record.origin;
        assert!(origin.is_none_or(|origin| origin.base.volume == source.volume.id()));
        assert!(next.clones.iter().any(|point| point.clone == clone.id()) == origin.is_some());
        let mut transaction = clone.created(claimed).and(source.record_becomes(&next));
        if origin.is_some() {
            let document = CloneDocument { source: source.volume.id() };
            transaction = transaction.put(keys::clone(clone.id()), encode(&document));
        }
        if let Some(spent) = spent {
            transaction = transaction.and(spent.removed());
        }
        self.commit_created(clone, transaction, event).await
    }

    /// Puts `next`, which reads from nobody any more, in the place of the clone's record. `source`: with its record
    /// without the clone's point, if it still exists.
    pub async fn flatten_clone(
        &self,
        seen: &StoredVolume,
        next: VolumeRecord,
        source: Option<Source<'_>>,
        event: Event,
    ) -> Result<StoredVolume, CatalogError> {
        assert!(next.origin.is_none() && next.snapshots == seen.volume.record.snapshots);
        let transaction = seen.record_change(&next).and(seen.released(source));
        let record_revision = self.commit(transaction, vec![event.of_volume(seen.volume.id())]).await?;
        Ok(seen.with_record(next, record_revision))
    }

    /// Volumes that read from others, or are being made to; and keys that name none, and why.
    pub async fn clones(&self) -> Result<(Vec<VolumeId>, Vec<(String, CatalogError)>), CatalogError> {
        let found = self.store().read(vec![KeyRange::prefix(keys::CLONES)]).await?.ranges.remove(0);
        let (mut clones, mut unreadable) = (Vec::new(), Vec::new());
        for stored in found {
            match stored.key.trim_start_matches(keys::CLONES).parse() {
                Ok(id) => clones.push(id),
                Err(_) => {
                    let error =
                        CatalogError::new(CatalogErrorKind::Corrupt, format!("{:?} names no clone", stored.key));
                    unreadable.push((stored.key, error));
                }
            }
        }
        Ok((clones, unreadable))
    }
}

impl StoredVolume {
    /// That the volume ceases to read from its source, if it does.
    pub(super) fn released(&self, source: Option<Source<'_>>) -> Transaction {
        let Some(origin) = self.volume.record.origin else {
            assert!(source.is_none(), "only a clone has a source to release");
            return Transaction::default();
        };
        let (id, base) = (self.volume.id(), origin.base.volume);
        let released = match source {
            Some((source, next)) => {
                assert!(source.volume.id() == base && next.clones.iter().all(|point| point.clone != id));
                source.record_becomes(&next)
            }
            None => Transaction::default().expect_absent(keys::record(base)),
        };
        released.delete(keys::clone(id))
    }
}

#[cfg(test)]
mod tests;
