//! Volumes: what was asked for, the use, and the membership record. A volume is two values that change apart,
//! `volume/<id>` and `record/<id>`, and a chunk table in pages; all are read at one revision.

mod clones;
mod layout;
mod publication;

use crate::document::record::{RUNS_PER_PAGE, RecordDocument, RunDocument};
use crate::document::{decode, decode_as, encode, encode_as, text};
use crate::forgotten;
use crate::registry::{Claims, read_claims};
use crate::tombstones::{Tombstone, TombstoneDocument};
use crate::{
    Catalog, CatalogError, CatalogErrorKind, Choice, Event, KeyRange, KeyValue, Revision, Settings,
    TRANSACTION_OPS_MAX, Transaction, choices, keys,
};
use ashlar_types::{Base, ByteCount, DiskId, Epoch, NodeName, SLOT_BYTES, VolumeId, VolumeName, VolumeRecord};
use clones::SourceDocument;
pub use clones::{ContentSource, Source};
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
    pub settings: Settings,
    /// ControllerPublishVolume asked for reading only; until the volume is unpublished.
    pub published_read_only: bool,
    /// Nodes that it is published to for reading by many (`ashlar_plan::readers`). Sorted.
    pub readers: Vec<NodeName>,
    /// The epoch under which a reader made it ready for the others; `NONE`: none did.
    pub settled: Epoch,
    /// Whoever holds it does so to repair it, and gives it up to whoever wants to use it. Means nothing while nobody
    /// holds it.
    pub is_repaired: bool,
    /// What it began with; `None`: with nothing.
    pub source: Option<ContentSource>,
    /// Its last replica was given up with a disk that was removed: there is nothing to attach.
    pub data_lost: Option<DataLoss>,
    pub record: VolumeRecord,
}

/// How a volume lost its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataLoss {
    /// That had the last replica.
    #[serde(with = "text")]
    pub disk: DiskId,
    /// Milliseconds since 1970, UTC.
    pub at_ms: u64,
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

/// 2 has `settings`, 3 has `source`, 4 has `readers`, `settled` and `is_repaired`, 5 has `data_lost`.
const VOLUME_FORMAT: u32 = 5;

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
    #[serde(default)]
    settings: Settings,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    published_read_only: bool,
    #[serde(default, with = "text::list", skip_serializing_if = "Vec::is_empty")]
    readers: Vec<NodeName>,
    #[serde(default)]
    settled: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_repaired: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<SourceDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_lost: Option<DataLoss>,
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

    fn document(&self) -> Vec<u8> {
        let document = VolumeDocument {
            name: self.name.clone(),
            parameters: self.parameters.clone(),
            allowed_nodes: self.allowed_nodes.clone(),
            use_state: self.use_state,
            fs_type: self.fs_type.clone(),
            created_ms: self.created_ms,
            settings: self.settings,
            published_read_only: self.published_read_only,
            readers: self.readers.clone(),
            settled: self.settled.number(),
            is_repaired: self.is_repaired,
            source: self.source.map(ContentSource::document),
            data_lost: self.data_lost,
        };
        encode_as(VOLUME_FORMAT, &document)
    }

    /// What keeps a new volume: its values, its name and its claims on the disks' space.
    fn created(&self, claimed: &Claims) -> Transaction {
        let (id, name) = (self.id(), keys::name(&self.name));
        let mut transaction = Transaction::default()
            .expect_absent(&name)
            .expect_absent(keys::volume(id))
            .put(&name, encode(&NameDocument { volume: id }))
            .put(keys::volume(id), self.document())
            .put(keys::record(id), RecordDocument::of(&self.record).encoded());
        for (page, runs) in self.record.chunks.chunks(RUNS_PER_PAGE).enumerate() {
            transaction = layout::put_page(transaction, id, page, runs);
        }
        self.record
            .holders()
            .fold(transaction, |transaction, member| claimed.add(transaction, member.disk, self.claim()))
    }
}

impl StoredVolume {
    /// Puts `next`, with the chunks that there are, in the place of the record that this was read with.
    pub(crate) fn record_change(&self, next: &VolumeRecord) -> Transaction {
        let (id, record) = (self.volume.id(), &self.volume.record);
        assert!(next.volume == id && next.version > record.version && next.epoch >= record.epoch);
        let change = self.unchanged_record().put(keys::record(id), RecordDocument::of(next).encoded());
        self.chunks_change(forgotten::note(change, record, next), next)
    }

    /// Only while the record is what it was when this was read.
    pub(crate) fn unchanged_record(&self) -> Transaction {
        Transaction::default().expect(keys::record(self.volume.id()), self.record_revision)
    }

    pub(crate) fn with_record(&self, record: VolumeRecord, record_revision: Revision) -> StoredVolume {
        StoredVolume { volume: Volume { record, ..self.volume.clone() }, record_revision, ..*self }
    }
}

impl Catalog {
    /// Keeps a new volume, takes its name and claims its space, in one transaction. `claimed` is what the placement
    /// was decided on: a disk that was promised to someone else meanwhile makes a [`CatalogErrorKind::Conflict`]; a
    /// name that is taken, [`CatalogErrorKind::Exists`]. `chosen`: why its disks were.
    pub async fn create_volume(
        &self,
        volume: &Volume,
        claimed: &Claims,
        chosen: &[Choice],
        event: Event,
    ) -> Result<StoredVolume, CatalogError> {
        let transaction = choices::put(volume.created(claimed), volume.id(), chosen);
        self.commit_created(volume, transaction, event).await
    }

    async fn commit_created(
        &self,
        volume: &Volume,
        transaction: Transaction,
        event: Event,
    ) -> Result<StoredVolume, CatalogError> {
        match self.commit(transaction, vec![event.of_volume(volume.id())]).await {
            Ok(revision) => {
                Ok(StoredVolume { volume: volume.clone(), volume_revision: revision, record_revision: revision })
            }
            Err(error) if error.kind() == CatalogErrorKind::Conflict => {
                match self.read_one(keys::name(&volume.name)).await? {
                    None => Err(error),
                    Some(_) => {
                        let text = format!("volume name {} is taken", volume.name);
                        Err(CatalogError::new(CatalogErrorKind::Exists, text))
                    }
                }
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
        let record = &seen.volume.record;
        assert!(next.snapshots == record.snapshots, "points come and go with their snapshots");
        assert!(next.clones == record.clones && base_of(&next) == base_of(record), "and with their clones");
        let record_revision = self.commit(seen.record_change(&next), events).await?;
        Ok(seen.with_record(next, record_revision))
    }

    /// Puts `next`, which is larger, in the place of the record that `seen` was read with, and claims what it is larger
    /// by on each member's disk, in one transaction. `claimed` is what the room was judged by: space that was promised
    /// to someone else meanwhile makes a [`CatalogErrorKind::Conflict`].
    pub async fn grow_volume(
        &self,
        seen: &StoredVolume,
        next: VolumeRecord,
        claimed: &Claims,
        events: Vec<Event>,
    ) -> Result<StoredVolume, CatalogError> {
        let id = seen.volume.id();
        assert!(
            next.volume == id && next.version > seen.volume.record.version && next.epoch == seen.volume.record.epoch
        );
        assert!(next.size > seen.volume.record.size && next.chunks.len() == seen.volume.record.chunks.len());
        let mut transaction = seen.record_change(&next);
        let volume = Volume { record: next, ..seen.volume.clone() };
        let more = ByteCount(volume.claim().0 - seen.volume.claim().0);
        for member in volume.record.holders() {
            transaction = claimed.add(transaction, member.disk, more);
        }
        let record_revision = self.commit(transaction, events).await?;
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
            .put(keys::volume(id), volume.document());
        let volume_revision = self.commit(transaction, events).await?;
        Ok(StoredVolume { volume, volume_revision, ..*seen })
    }

    /// Changes how the volume is served, and with `next` its record: both or none.
    pub async fn change_settings(
        &self,
        seen: &StoredVolume,
        settings: Settings,
        next: Option<VolumeRecord>,
        events: Vec<Event>,
    ) -> Result<StoredVolume, CatalogError> {
        let id = seen.volume.id();
        assert!(settings.version > seen.volume.settings.version);
        let mut changed = StoredVolume { volume: Volume { settings, ..seen.volume.clone() }, ..*seen };
        let mut transaction = Transaction::default()
            .expect(keys::volume(id), seen.volume_revision)
            .put(keys::volume(id), changed.volume.document());
        if let Some(next) = &next {
            assert!(next.volume == id && next.version > seen.volume.record.version);
            transaction = transaction
                .expect(keys::record(id), seen.record_revision)
                .put(keys::record(id), RecordDocument::of(next).encoded());
        }
        let revision = self.commit(transaction, events).await?;
        changed.volume_revision = revision;
        if let Some(next) = next {
            changed.volume.record = next;
            changed.record_revision = revision;
        }
        Ok(changed)
    }

    /// How these volumes are to be served, as far as they are there; one bad value does not hide the others.
    pub async fn settings(
        &self,
        ids: &[VolumeId],
    ) -> Result<Vec<(VolumeId, Result<Settings, CatalogError>)>, CatalogError> {
        let mut found = Vec::new();
        for some in ids.chunks(TRANSACTION_OPS_MAX) {
            let ranges = some.iter().map(|&id| KeyRange::one(keys::volume(id))).collect();
            let read = self.store().read(ranges).await?.ranges;
            let settings = |stored: &KeyValue| Ok(decode_as::<VolumeDocument>(VOLUME_FORMAT, stored)?.settings);
            found.extend(some.iter().zip(read).filter_map(|(&id, values)| Some((id, settings(values.first()?)))));
        }
        Ok(found)
    }

    /// Versions of the records of those of the volumes that exist.
    pub async fn record_versions(
        &self,
        ids: &[VolumeId],
    ) -> Result<Vec<(VolumeId, Result<u64, CatalogError>)>, CatalogError> {
        let mut found = Vec::new();
        for some in ids.chunks(TRANSACTION_OPS_MAX) {
            let ranges = some.iter().map(|&id| KeyRange::one(keys::record(id))).collect();
            let read = self.store().read(ranges).await?.ranges;
            let version = |stored: &KeyValue| Ok(RecordDocument::decoded(stored)?.version());
            found.extend(some.iter().zip(read).filter_map(|(&id, values)| Some((id, version(values.first()?)))));
        }
        Ok(found)
    }

    /// Deletes the volume and frees its name; each replica becomes a tombstone, which keeps its claim until the
    /// replica is gone. `source`: that of a clone which still reads from it, with its record without the clone's point,
    /// if it exists.
    pub async fn delete_volume(
        &self,
        seen: &StoredVolume,
        source: Option<Source<'_>>,
        event: Event,
    ) -> Result<Vec<Tombstone>, CatalogError> {
        let volume = &seen.volume;
        let id = volume.id();
        let mut transaction = seen
            .released(source)
            .expect(keys::volume(id), seen.volume_revision)
            .expect(keys::record(id), seen.record_revision)
            .delete(keys::name(&volume.name))
            .delete(keys::volume(id))
            .delete(keys::record(id))
            .delete(keys::forgotten(id))
            .delete(keys::choices(id));
        for page in 0..volume.record.chunks.chunks(RUNS_PER_PAGE).count() {
            transaction = transaction.delete(keys::chunk_page(id, page));
        }
        // What gave its chunks to another disk has a tombstone already.
        let disks = volume.record.holders().map(|member| member.disk);
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

fn base_of(record: &VolumeRecord) -> Option<Base> {
    record.origin.map(|origin| origin.base)
}

fn tombstone_of(volume: &Volume, disk: DiskId) -> Tombstone {
    let granted = volume.record.epoch;
    Tombstone { disk, volume: volume.id(), epoch: granted.next().unwrap_or(granted), claim: volume.claim() }
}

fn epoch_fault(stored: &KeyValue) -> CatalogError {
    CatalogError::new(CatalogErrorKind::Corrupt, format!("{}: epoch is too large", stored.key))
}

fn assemble(volume: &KeyValue, record: &KeyValue, pages: &[KeyValue]) -> Result<StoredVolume, CatalogError> {
    let mut runs = Vec::new();
    for page in pages {
        runs.extend(decode::<Vec<RunDocument>>(page)?);
    }
    let document: VolumeDocument = decode_as(VOLUME_FORMAT, volume)?;
    let membership = RecordDocument::decoded(record)?.with_chunks(runs)?;
    Ok(StoredVolume {
        volume: Volume {
            name: document.name,
            parameters: document.parameters,
            allowed_nodes: document.allowed_nodes,
            use_state: document.use_state,
            fs_type: document.fs_type,
            created_ms: document.created_ms,
            settings: document.settings,
            published_read_only: document.published_read_only,
            readers: document.readers,
            settled: Epoch::new(document.settled).ok_or_else(|| epoch_fault(volume))?,
            is_repaired: document.is_repaired,
            source: document.source.map(SourceDocument::into_source),
            data_lost: document.data_lost,
            record: membership,
        },
        volume_revision: volume.mod_revision,
        record_revision: record.mod_revision,
    })
}

#[cfg(test)]
pub(crate) mod tests;
