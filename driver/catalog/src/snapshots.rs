//! Snapshots as people and CSI know them: a name, of which volume, when. The point is in the volume's record.
//!
//! ```text
//!   (none) ──begin──► taking ──with the point, into the record──► ready
//!                       └──────────────────► gone ◄────────────────┘ with the point, out of the record
//! ```
//! One transaction each: a record has the points of the snapshots that are ready here, no more and no fewer.

use crate::document::{decode, decode_as, encode, encode_as, text};
use crate::{
    Catalog, CatalogError, CatalogErrorKind, Event, KeyRange, KeyValue, Revision, StoredVolume, Transaction, UseState,
    keys,
};
use ashlar_types::{ByteCount, GroupId, SnapshotId, VolumeId, VolumeName, VolumeRecord};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub id: SnapshotId,
    pub name: VolumeName,
    pub volume: VolumeId,
    /// Which it is one of; then it is deleted with the others.
    pub group: Option<GroupId>,
    /// Of the volume when it was taken; before that, when it was asked for.
    pub size: ByteCount,
    /// When it was taken, or asked for; milliseconds since 1970, UTC.
    pub created_ms: u64,
    pub is_ready: bool,
    /// What it shows. `None`: it is not ready, or was taken before this was kept.
    pub content: Option<Content>,
    /// Taken for a clone that is about to be made, whose name it has: not one of people's, and not among their names.
    pub for_clone: bool,
}

/// What is on a snapshot, as the catalog knows it (P8): its volume's use, read when its point was there already. So it
/// is never less than what was on the volume at the point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    #[serde(rename = "use")]
    pub use_state: UseState,
    pub fs_type: String,
}

/// A snapshot as it was read: a change compares with this revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    pub snapshot: SnapshotInfo,
    revision: Revision,
}

/// Snapshots in the order of their ids.
#[derive(Debug, Default)]
pub struct SnapshotPage {
    pub snapshots: Vec<StoredSnapshot>,
    /// Whose values cannot be read, and why.
    pub unreadable: Vec<(String, CatalogError)>,
    pub last: Option<SnapshotId>,
    pub more: bool,
}

/// 2 has `content` and `for_clone`.
const SNAPSHOT_FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotDocument {
    #[serde(with = "text")]
    name: VolumeName,
    #[serde(with = "text")]
    volume: VolumeId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    size_bytes: u64,
    created_ms: u64,
    ready: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Content>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    for_clone: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameDocument {
    #[serde(with = "text")]
    snapshot: SnapshotId,
}

impl SnapshotInfo {
    fn document(&self) -> Vec<u8> {
        let document = SnapshotDocument {
            name: self.name.clone(),
            volume: self.volume,
            group: self.group.map(|group| group.to_string()),
            size_bytes: self.size.0,
            created_ms: self.created_ms,
            ready: self.is_ready,
            content: self.content.clone(),
            for_clone: self.for_clone,
        };
        encode_as(SNAPSHOT_FORMAT, &document)
    }

    fn name_key(&self) -> String {
        if self.for_clone { keys::clone_snapshot(&self.name) } else { keys::snapshot_name(&self.name) }
    }

    /// Adds what keeps a snapshot that is to be taken.
    pub(crate) fn begun(&self, transaction: Transaction) -> Transaction {
        let (key, name) = (keys::snapshot(self.id), self.name_key());
        transaction
            .expect_absent(&name)
            .expect_absent(&key)
            .put(&name, encode(&NameDocument { snapshot: self.id }))
            .put(&key, self.document())
    }
}

impl StoredSnapshot {
    /// That it is gone, if it is as it was read.
    pub(crate) fn removed(&self) -> Transaction {
        let key = keys::snapshot(self.snapshot.id);
        Transaction::default().expect(&key, self.revision).delete(&key).delete(self.snapshot.name_key())
    }
}

impl Catalog {
    /// Keeps a snapshot that is to be taken, and takes its name. A name that is taken is a
    /// [`CatalogErrorKind::Exists`].
    pub async fn begin_snapshot(&self, snapshot: &SnapshotInfo) -> Result<StoredSnapshot, CatalogError> {
        match self.commit(snapshot.begun(Transaction::default()), Vec::new()).await {
            Ok(revision) => Ok(StoredSnapshot { snapshot: snapshot.clone(), revision }),
            Err(error) if error.kind() == CatalogErrorKind::Conflict => {
                let text = format!("snapshot name {} is taken", snapshot.name);
                Err(CatalogError::new(CatalogErrorKind::Exists, text))
            }
            Err(error) => Err(error),
        }
    }

    /// Puts `next`, which has the snapshot's point, in the place of the record that `of` was read with. With it the
    /// snapshot is ready.
    pub async fn take_snapshot(
        &self,
        seen: &StoredSnapshot,
        of: &StoredVolume,
        next: VolumeRecord,
        created_ms: u64,
        events: Vec<Event>,
    ) -> Result<StoredVolume, CatalogError> {
        let id = seen.snapshot.id;
        assert!(next.volume == seen.snapshot.volume && next.snapshot(id).is_some());
        let content = Content { use_state: of.volume.use_state, fs_type: of.volume.fs_type.clone() };
        let snapshot = SnapshotInfo {
            is_ready: true,
            created_ms,
            size: next.size,
            content: Some(content),
            ..seen.snapshot.clone()
        };
        let key = keys::snapshot(id);
        let transaction = of.record_change(&next).expect(&key, seen.revision).put(&key, snapshot.document());
        let revision = self.commit(transaction, events).await?;
        Ok(of.with_record(next, revision))
    }

    /// Removes the snapshot. `of`: its volume, if that still exists, and the record without its point.
    pub async fn delete_snapshot(
        &self,
        seen: &StoredSnapshot,
        of: Option<(&StoredVolume, VolumeRecord)>,
        event: Event,
    ) -> Result<(), CatalogError> {
        let volume = seen.snapshot.volume;
        let of_volume = match of {
            Some((of, next)) => of.record_becomes(&next),
            None => Transaction::default().expect_absent(keys::record(volume)),
        };
        self.commit(of_volume.and(seen.removed()), vec![event.of_volume(volume)]).await?;
        Ok(())
    }

    pub async fn snapshot(&self, id: SnapshotId) -> Result<Option<StoredSnapshot>, CatalogError> {
        self.read_one(keys::snapshot(id)).await?.map(|stored| assemble(&stored)).transpose()
    }

    pub async fn snapshot_by_name(&self, name: &VolumeName) -> Result<Option<StoredSnapshot>, CatalogError> {
        self.snapshot_at(keys::snapshot_name(name)).await
    }

    /// The one that was taken for the clone of this name.
    pub async fn snapshot_for_clone(&self, name: &VolumeName) -> Result<Option<StoredSnapshot>, CatalogError> {
        self.snapshot_at(keys::clone_snapshot(name)).await
    }

    /// All that were taken for clones that do not exist yet; and the keys of those that cannot be read, and why.
    pub async fn snapshots_for_clones(
        &self,
    ) -> Result<(Vec<StoredSnapshot>, Vec<(String, CatalogError)>), CatalogError> {
        let names = self.store().read(vec![KeyRange::prefix(keys::CLONE_SNAPSHOTS)]).await?.ranges.remove(0);
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        for name in names {
            match self.snapshot_at(name.key.clone()).await {
                Ok(snapshot) => found.extend(snapshot),
                Err(error) => unreadable.push((name.key, error)),
            }
        }
        Ok((found, unreadable))
    }

    async fn snapshot_at(&self, name_key: String) -> Result<Option<StoredSnapshot>, CatalogError> {
        match self.read_one(name_key).await? {
            // One that was deleted between the two readings does not exist.
            Some(stored) => self.snapshot(decode::<NameDocument>(&stored)?.snapshot).await,
            None => Ok(None),
        }
    }

    /// Snapshots whose ids sort after `after`, at most `limit`.
    pub async fn snapshots(&self, after: Option<SnapshotId>, limit: usize) -> Result<SnapshotPage, CatalogError> {
        let range = match after {
            Some(id) => KeyRange::after(keys::SNAPSHOTS, &keys::snapshot(id)),
            None => KeyRange::prefix(keys::SNAPSHOTS),
        };
        let found = self.store().read(vec![range.limited(limit.saturating_add(1))]).await?.ranges.remove(0);
        let mut page = SnapshotPage { more: found.len() > limit, ..SnapshotPage::default() };
        for stored in found.iter().take(limit) {
            if let Ok(id) = id_of(stored) {
                page.last = Some(id);
            }
            match assemble(stored) {
                Ok(snapshot) => page.snapshots.push(snapshot),
                Err(error) => page.unreadable.push((stored.key.clone(), error)),
            }
        }
        Ok(page)
    }
}

fn id_of(stored: &KeyValue) -> Result<SnapshotId, CatalogError> {
    let id = stored.key.trim_start_matches(keys::SNAPSHOTS);
    let corrupt = || CatalogError::new(CatalogErrorKind::Corrupt, format!("{:?} is no snapshot's key", stored.key));
    id.parse().map_err(|_| corrupt())
}

fn assemble(stored: &KeyValue) -> Result<StoredSnapshot, CatalogError> {
    let document: SnapshotDocument = decode_as(SNAPSHOT_FORMAT, stored)?;
    let corrupt = |_| CatalogError::new(CatalogErrorKind::Corrupt, format!("{:?} names no group", stored.key));
    let group = document.group.map(|group| group.parse::<GroupId>().map_err(corrupt)).transpose()?;
    let snapshot = SnapshotInfo {
        id: id_of(stored)?,
        name: document.name,
        volume: document.volume,
        group,
        size: ByteCount(document.size_bytes),
        created_ms: document.created_ms,
        is_ready: document.ready,
        content: document.content,
        for_clone: document.for_clone,
    };
    Ok(StoredSnapshot { snapshot, revision: stored.mod_revision })
}

#[cfg(test)]
mod tests;
