//! Volumes: what was asked for, the use, and the membership record. A volume is two values that change apart,
//! `volume/<id>` and `record/<id>`, and a chunk table in pages; all are read at one revision.

use crate::document::record::{RUNS_PER_PAGE, RecordDocument, RunDocument};
use crate::document::{decode, encode, text};
use crate::registry::{Claims, read_claims};
use crate::tombstones::{Tombstone, TombstoneDocument};
use crate::{Catalog, CatalogError, CatalogErrorKind, Event, KeyRange, KeyValue, Revision, Transaction, keys};
use ashlar_types::{ByteCount, DiskId, NodeName, SLOT_BYTES, VolumeId, VolumeName, VolumeRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is on a volume, as the catalog knows it (P8): mkfs runs in the first two only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UseState {
    Blank,
    Formatting,
    Used,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: VolumeName,
    /// StorageClass parameters as they were given.
    pub parameters: BTreeMap<String, String>,
    /// Nodes on which the volume may be used; empty: any.
    pub allowed_nodes: Vec<NodeName>,
    pub use_state: UseState,
    /// Filesystem that is being made or was made; empty: none, or a raw block device.
    pub fs_type: String,
    /// Milliseconds since 1970, UTC.
    pub created_ms: u64,
    pub record: VolumeRecord,
}

/// A volume as it was read: a change compares with these revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVolume {
    pub volume: Volume,
    volume_revision: Revision,
    record_revision: Revision,
}

/// Volumes in the order of their ids.
#[derive(Debug, Default)]
pub struct VolumePage {
    pub volumes: Vec<StoredVolume>,
    /// Volumes whose values cannot be read, and why: one bad value does not hide the others.
    pub unreadable: Vec<(String, CatalogError)>,
    /// The last one that was looked at, readable or not: where the next page begins.
    pub last: Option<VolumeId>,
    /// Whether volumes follow.
    pub more: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeDocument {
    #[serde(with = "text")]
    name: VolumeName,
    parameters: BTreeMap<String, String>,
    #[serde(with = "text::list")]
    allowed_nodes: Vec<NodeName>,
    #[serde(rename = "use")]
    use_state: UseState,
    fs_type: String,
    created_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameDocument {
    #[serde(with = "text")]
    volume: VolumeId,
}

impl Volume {
    pub fn id(&self) -> VolumeId {
        self.record.volume
    }

    /// What each member disk promises to the volume: its size in whole slots.
    pub fn claim(&self) -> ByteCount {
        ByteCount(self.record.size.0.next_multiple_of(SLOT_BYTES))
    }

    fn document(&self) -> VolumeDocument {
        VolumeDocument {
            name: self.name.clone(),
            parameters: self.parameters.clone(),
            allowed_nodes: self.allowed_nodes.clone(),
            use_state: self.use_state,
            fs_type: self.fs_type.clone(),
            created_ms: self.created_ms,
        }
    }
}

impl Catalog {
    /// Keeps a new volume, takes its name and claims its space, in one transaction. `claimed` is what the placement
    /// was decided on: a disk that was promised to someone else meanwhile makes a [`CatalogErrorKind::Conflict`]; a
    /// name that is taken, [`CatalogErrorKind::Exists`].
    pub async fn create_volume(
        &self,
        volume: &Volume,
        claimed: &Claims,
        event: Event,
    ) -> Result<StoredVolume, CatalogError> {
        let id = volume.id();
        let name = keys::name(&volume.name);
        let mut transaction = Transaction::default()
            .expect_absent(&name)
            .expect_absent(keys::volume(id))
            .put(&name, encode(&NameDocument { volume: id }))
            .put(keys::volume(id), encode(&volume.document()))
            .put(keys::record(id), encode(&RecordDocument::of(&volume.record)));
        for (page, runs) in volume.record.chunks.chunks(RUNS_PER_PAGE).enumerate() {
            let runs: Vec<RunDocument> = runs.iter().map(RunDocument::of).collect();
            transaction = transaction.put(keys::chunk_page(id, page), encode(&runs));
        }
        for member in &volume.record.members {
            transaction = claimed.add(transaction, member.disk, volume.claim());
        }
        match self.commit(transaction, vec![event.of_volume(id)]).await {
            Ok(revision) => {
                Ok(StoredVolume { volume: volume.clone(), volume_revision: revision, record_revision: revision })
            }
            Err(error) if error.kind() == CatalogErrorKind::Conflict && self.read_one(name).await?.is_some() => {
                let text = format!("volume name {} is taken", volume.name);
                Err(CatalogError::new(CatalogErrorKind::Exists, text))
            }
            Err(error) => Err(error),
        }
    }

    pub async fn volume(&self, id: VolumeId) -> Result<Option<StoredVolume>, CatalogError> {
        let ranges =
            [KeyRange::one(keys::volume(id)), KeyRange::one(keys::record(id)), KeyRange::prefix(&keys::chunks(id))];
        let mut reading = self.store().read(ranges.to_vec()).await?.ranges;
        let (pages, record, volume) = (reading.remove(2), reading.remove(1), reading.remove(0));
        match (volume.first(), record.first()) {
            (None, None) => Ok(None),
            (Some(volume), Some(record)) => assemble(volume, record, &pages).map(Some),
            _ => Err(CatalogError::new(CatalogErrorKind::Corrupt, format!("volume {id} is there in part"))),
        }
    }

    pub async fn volume_by_name(&self, name: &VolumeName) -> Result<Option<StoredVolume>, CatalogError> {
        match self.read_one(keys::name(name)).await? {
            // A volume deleted between the two readings is one that does not exist.
            Some(stored) => self.volume(decode::<NameDocument>(&stored)?.volume).await,
            None => Ok(None),
        }
    }

    /// Volumes whose ids sort after `after`, at most `limit`.
    pub async fn volumes(&self, after: Option<VolumeId>, limit: usize) -> Result<VolumePage, CatalogError> {
        let range = match after {
            Some(id) => KeyRange::after(keys::VOLUMES, &keys::volume(id)),
            None => KeyRange::prefix(keys::VOLUMES),
        };
        let found = self.store().read(vec![range.limited(limit.saturating_add(1))]).await?.ranges.remove(0);
        let mut page = VolumePage { more: found.len() > limit, ..VolumePage::default() };
        for stored in found.into_iter().take(limit) {
            let id = stored.key.trim_start_matches(keys::VOLUMES);
            let read = match id.parse::<VolumeId>() {
                Ok(id) => {
                    page.last = Some(id);
                    self.volume(id).await
                }
                Err(_) => {
                    Err(CatalogError::new(CatalogErrorKind::Corrupt, format!("{:?} is no volume's key", stored.key)))
                }
            };
            match read {
                Ok(Some(volume)) => page.volumes.push(volume),
                Ok(None) => {}
                Err(error) => page.unreadable.push((id.to_owned(), error)),
            }
        }
        Ok(page)
    }

    /// Puts `next` in the place of the record that `seen` was read with (C1), together with the events that tell of
    /// it.
    pub async fn change_record(
        &self,
        seen: &StoredVolume,
        next: VolumeRecord,
        events: Vec<Event>,
    ) -> Result<StoredVolume, CatalogError> {
        let id = seen.volume.id();
        assert!(
            next.volume == id && next.version > seen.volume.record.version && next.epoch >= seen.volume.record.epoch
        );
        assert!(next.chunks == seen.volume.record.chunks, "a change of membership leaves the chunk table as it is");
        let transaction = Transaction::default()
            .expect(keys::record(id), seen.record_revision)
            .put(keys::record(id), encode(&RecordDocument::of(&next)));
        let record_revision = self.commit(transaction, events).await?;
        let volume = Volume { record: next, ..seen.volume.clone() };
        Ok(StoredVolume { volume, record_revision, ..*seen })
    }

    /// Moves the use state by compare-and-swap (P8). The caller has checked that the step is one that may be taken.
    pub async fn change_use(
        &self,
        seen: &StoredVolume,
        to: UseState,
        fs_type: &str,
        events: Vec<Event>,
    ) -> Result<StoredVolume, CatalogError> {
        let id = seen.volume.id();
        let volume = Volume { use_state: to, fs_type: fs_type.to_owned(), ..seen.volume.clone() };
        let transaction = Transaction::default()
            .expect(keys::volume(id), seen.volume_revision)
            .put(keys::volume(id), encode(&volume.document()));
        let volume_revision = self.commit(transaction, events).await?;
        Ok(StoredVolume { volume, volume_revision, ..*seen })
    }

    /// Deletes the volume and frees its name; each replica becomes a tombstone, which keeps its claim until the
    /// replica is gone.
    pub async fn delete_volume(&self, seen: &StoredVolume, event: Event) -> Result<Vec<Tombstone>, CatalogError> {
        let volume = &seen.volume;
        let id = volume.id();
        let mut transaction = Transaction::default()
            .expect(keys::volume(id), seen.volume_revision)
            .expect(keys::record(id), seen.record_revision)
            .delete(keys::name(&volume.name))
            .delete(keys::volume(id))
            .delete(keys::record(id));
        for page in 0..volume.record.chunks.chunks(RUNS_PER_PAGE).count() {
            transaction = transaction.delete(keys::chunk_page(id, page));
        }
        let disks = volume.record.members.iter().map(|member| member.disk);
        let tombstones: Vec<Tombstone> = disks.map(|disk| tombstone_of(volume, disk)).collect();
        for tombstone in &tombstones {
            let key = keys::tombstone(tombstone.disk, id);
            transaction = transaction.put(key, encode(&TombstoneDocument::of(tombstone)));
        }
        self.commit(transaction, vec![event.of_volume(id)]).await?;
        Ok(tombstones)
    }

    /// What is promised on each disk, to decide a placement on.
    pub async fn claims(&self) -> Result<Claims, CatalogError> {
        read_claims(self.store()).await
    }
}

fn tombstone_of(volume: &Volume, disk: DiskId) -> Tombstone {
    Tombstone { disk, volume: volume.id(), epoch: volume.record.epoch, claim: volume.claim() }
}

fn assemble(volume: &KeyValue, record: &KeyValue, pages: &[KeyValue]) -> Result<StoredVolume, CatalogError> {
    let mut runs = Vec::new();
    for page in pages {
        runs.extend(decode::<Vec<RunDocument>>(page)?);
    }
    let document: VolumeDocument = decode(volume)?;
    let membership = decode::<RecordDocument>(record)?.with_chunks(runs)?;
    Ok(StoredVolume {
        volume: Volume {
            name: document.name,
            parameters: document.parameters,
            allowed_nodes: document.allowed_nodes,
            use_state: document.use_state,
            fs_type: document.fs_type,
            created_ms: document.created_ms,
            record: membership,
        },
        volume_revision: volume.mod_revision,
        record_revision: record.mod_revision,
    })
}

#[cfg(test)]
mod tests;
