//! Volumes: create, find, list, delete, and the use state (P8). The CSI controller and the control API call the same
//! functions.

use super::placement::choice_of;
use super::publication::{about, reading};
use super::{COMMIT_TRIES_MAX, Control, raced, wall_clock_ms};
use crate::csi::params::{self, Params};
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::{CatalogErrorKind, Choice, ContentSource, Event, StoredVolume, UseState, Volume, VolumePage};
use ashlar_plan::clone;
use ashlar_plan::placement::{Candidate, Explanation};
use ashlar_types::{
    BLOCK_BYTES, ByteCount, ChunkIndex, ChunkRun, Epoch, Geometry, Member, MemberState, NodeName, VOLUME_BYTES_MAX,
    VolumeId, VolumeName, VolumeRecord,
};
use std::collections::BTreeMap;

/// Of a volume whose size was left open.
pub(crate) const SIZE_DEFAULT: ByteCount = ByteCount(1 << 30);
const FS_TYPE_BYTES_MAX: usize = 16;

/// A wish for a volume, checked field by field.
#[derive(Clone, Debug)]
pub(crate) struct NewVolume {
    pub(crate) name: VolumeName,
    pub(crate) size: SizeRange,
    pub(crate) params: Params,
    /// As given, the mutable ones with them; kept for people, and to know the same request again.
    pub(crate) parameters: BTreeMap<String, String>,
    /// Nodes for the first replica, best first.
    pub(crate) first_nodes: Vec<NodeName>,
    /// Nodes on which the volume may be used; empty: any.
    pub(crate) allowed_nodes: Vec<NodeName>,
    /// What it begins with; `None`: with nothing.
    pub(crate) source: Option<ContentSource>,
}

/// Sizes that will do: `size` is what a new volume gets, up to `limit` is accepted of one that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeRange {
    pub(crate) size: ByteCount,
    pub(crate) limit: ByteCount,
    /// None was asked for: a clone gets its source's.
    pub(crate) is_open: bool,
}

impl SizeRange {
    /// Exactly this size.
    pub(crate) fn exactly(size: ByteCount) -> Result<SizeRange> {
        Geometry::new(size).map_err(|error| Error::invalid(error.to_string()))?;
        Ok(SizeRange { size, limit: size, is_open: false })
    }

    /// Whatever the source has.
    pub(crate) fn of_source() -> SizeRange {
        SizeRange { size: SIZE_DEFAULT, limit: ByteCount(VOLUME_BYTES_MAX), is_open: true }
    }

    /// CSI's range: zero means "not given".
    pub(crate) fn between(required: i64, limit: i64) -> Result<SizeRange> {
        let (Ok(required), Ok(limit)) = (u64::try_from(required), u64::try_from(limit)) else {
            return Err(Error::invalid("capacity_range is negative"));
        };
        let (limit, is_open) = (if limit == 0 { VOLUME_BYTES_MAX } else { limit }, required == 0);
        let wanted = if is_open { SIZE_DEFAULT.0.min(limit / BLOCK_BYTES * BLOCK_BYTES) } else { required };
        let size = wanted.checked_next_multiple_of(BLOCK_BYTES).filter(|&size| size <= limit && size > 0);
        let Some(size) = size.filter(|&size| size <= VOLUME_BYTES_MAX) else {
            let text = format!(
                "capacity_range from {required} to {limit} bytes holds no size that is possible: \
                 a multiple of {BLOCK_BYTES}, at most {VOLUME_BYTES_MAX}"
            );
            return Err(Error::new(ErrorKind::OutOfRange, text));
        };
        Ok(SizeRange { size: ByteCount(size), limit: ByteCount(limit), is_open })
    }

    fn accepts(self, size: ByteCount) -> bool {
        (self.size..=self.limit).contains(&size)
    }
}

impl Control {
    /// Makes the volume, or finds the one of this name. A volume of the name with other properties is an error.
    pub(crate) async fn create_volume(&self, new: NewVolume) -> Result<StoredVolume> {
        let _permit = self.in_flight.begin(&new.name)?;
        match self.create(&new).await {
            Err(error) if error.kind == ErrorKind::Exhausted => {
                // Deleted volumes may still have space promised.
                self.reap_now().await?;
                self.create(&new).await
            }
            created => created,
        }
    }

    async fn create(&self, new: &NewVolume) -> Result<StoredVolume> {
        match new.source {
            Some(source) => self.create_clone(new, source).await,
            None => self.create_empty(new).await,
        }
    }

    async fn create_empty(&self, new: &NewVolume) -> Result<StoredVolume> {
        for _ in 0..COMMIT_TRIES_MAX {
            if let Some(found) = self.catalog.volume_by_name(&new.name).await? {
                return same_volume(new, found);
            }
            let claims = self.catalog.claims().await?;
            let placed = self.place(new, &claims).await?;
            let volume = self.volume_on(new, &placed)?;
            let occasion = || "the volume was created".to_owned();
            let chosen: Vec<Choice> =
                placed.iter().map(|(candidate, why)| choice_of(candidate.disk, occasion(), why)).collect();
            let event = Event::new(wall_clock_ms(), "created", format!("volume {} created", new.name));
            let event = event.figure("size_bytes", volume.record.size);
            match self.catalog.create_volume(&volume, &claims, &chosen, event).await {
                // The name or the space was taken meanwhile: look again.
                Err(error) if matches!(error.kind(), CatalogErrorKind::Conflict | CatalogErrorKind::Exists) => {}
                Err(error) => return Err(error.into()),
                Ok(created) => {
                    tracing::info!(volume = %created.volume.id(), name = %new.name, "volume created");
                    self.note_placed(&created.volume.record);
                    return Ok(created);
                }
            }
        }
        Err(raced(&new.name))
    }

    fn volume_on(&self, new: &NewVolume, placed: &[(Candidate, Explanation)]) -> Result<Volume> {
        let size = new.size.size;
        let member = |(candidate, _): &(Candidate, Explanation)| Member {
            disk: candidate.disk,
            node: candidate.node.clone(),
            zone: candidate.zone.clone(),
            state: MemberState::InSync,
        };
        let geometry = Geometry::new(size).map_err(|error| Error::invalid(error.to_string()))?;
        let all = (0..u16::from(new.params.replicas)).collect();
        let record = VolumeRecord {
            cluster: self.catalog.cluster(),
            volume: VolumeId::from_u128(uuid::Uuid::new_v4().as_u128()),
            size,
            epoch: Epoch::NONE,
            version: 1,
            holder: None,
            served: Epoch::NONE,
            clean: true,
            min_replicas: new.params.min_replicas,
            members: placed.iter().map(member).collect(),
            chunks: vec![ChunkRun { first: ChunkIndex(0), count: geometry.chunk_count(), members: all }],
            declared_lost: Vec::new(),
            snapshots: Vec::new(),
            clones: Vec::new(),
            origin: None,
            last_change: None,
        };
        Ok(Volume {
            name: new.name.clone(),
            parameters: new.parameters.clone(),
            allowed_nodes: new.allowed_nodes.clone(),
            use_state: UseState::Blank,
            fs_type: String::new(),
            created_ms: wall_clock_ms(),
            settings: new.params.settings,
            published_read_only: false,
            readers: Vec::new(),
            settled: Epoch::NONE,
            is_repaired: false,
            source: None,
            data_lost: None,
            record,
        })
    }

    /// By id or by name, as people write it.
    pub(crate) async fn find_volume(&self, reference: &str) -> Result<StoredVolume> {
        if let Ok(id) = reference.parse::<VolumeId>()
            && let Some(found) = self.catalog.volume(id).await?
        {
            return Ok(found);
        }
        let name: VolumeName = reference.parse().map_err(|error| Error::invalid(format!("volume: {error}")))?;
        let found = self.catalog.volume_by_name(&name).await?;
        found.ok_or_else(|| Error::not_found(format_args!("volume {name}")))
    }

    /// A page of volumes, and the token of the next one. A token is the id of the last volume shown, so that it stays
    /// good when that one is deleted.
    pub(crate) async fn list_volumes(&self, token: &str, limit: usize) -> Result<(VolumePage, Option<VolumeId>)> {
        let after = match token {
            "" => None,
            token => {
                Some(token.parse().map_err(|_| Error::new(ErrorKind::BadToken, "starting_token is not one of ours"))?)
            }
        };
        let page = self.catalog.volumes(after, limit).await?;
        for (id, error) in &page.unreadable {
            tracing::error!(volume = %id, %error, "volume left out of a listing");
        }
        let next = page.last.filter(|_| page.more);
        Ok((page, next))
    }

    /// Frees the name at once; the replicas are deleted in the background. Refused while a node holds the volume.
    pub(crate) async fn delete_volume(&self, id: VolumeId) -> Result<()> {
        let _permit = self.in_flight.begin(id)?;
        self.end_repair(id).await?;
        for _ in 0..COMMIT_TRIES_MAX {
            let seen = self.volume(id).await?;
            reading(&seen).allow_change().map_err(|refusal| about(&seen, &refusal))?;
            if let Some(holder) = &seen.volume.record.holder {
                let text = format!("volume {} is attached on node {holder}: detach it first", seen.volume.name);
                return Err(Error::precondition(text));
            }
            if !seen.volume.record.snapshots.is_empty() {
                self.forget_own_snapshots(&seen).await?;
                continue;
            }
            self.check_clones_made(&seen).await?;
            let source = match seen.volume.record.origin {
                Some(origin) => self.catalog.volume(origin.base.volume).await?,
                None => None,
            };
            let source = source.as_ref().map(|source| (source, clone::release(&source.volume.record, id)));
            let event = Event::new(wall_clock_ms(), "deleted", format!("volume {} deleted", seen.volume.name));
            match self.catalog.delete_volume(&seen, source, event).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                Err(error) => return Err(error.into()),
                Ok(tombstones) => {
                    tracing::info!(volume = %id, replicas = tombstones.len(), "volume deleted");
                    self.reap.notify_one();
                    self.forgotten.notify_one();
                    return Ok(());
                }
            }
        }
        Err(raced(id))
    }

    /// A clone that reads from the volume keeps what it reads on its disks; one that is still to be made there has
    /// nobody else to keep it. One that is begun from now on changes the record that the deletion compares.
    async fn check_clones_made(&self, seen: &StoredVolume) -> Result<()> {
        for point in &seen.volume.record.clones {
            let Some(clone) = self.catalog.volume(point.clone).await? else { continue };
            if clone.volume.record.origin.is_some_and(|origin| !origin.is_made) {
                let (name, of) = (&clone.volume.name, &seen.volume.name);
                let text = format!("{name}, a clone of volume {of}, is still being made: wait, or delete {name}");
                return Err(Error::precondition(text));
            }
        }
        Ok(())
    }

    /// Snapshots that were taken for clones, and are still there, keep nobody from deleting the volume; people's do.
    async fn forget_own_snapshots(&self, seen: &StoredVolume) -> Result<()> {
        let mut own = Vec::new();
        for snapshot in &seen.volume.record.snapshots {
            own.extend(self.catalog.snapshot(snapshot.id).await?.filter(|found| found.snapshot.for_clone));
        }
        let others = seen.volume.record.snapshots.len() - own.len();
        if others > 0 {
            let text = format!("volume {} has {others} snapshots: delete them first", seen.volume.name);
            return Err(Error::precondition(text));
        }
        for snapshot in own {
            self.remove_snapshot(snapshot.snapshot.id).await?;
        }
        Ok(())
    }

    /// A writable device is about to be shown to somebody who says nothing of the volume's use: whatever comes of it,
    /// no filesystem is made there any more.
    pub(crate) async fn use_raw(&self, id: VolumeId) -> Result<()> {
        let seen = self.volume(id).await?;
        match seen.volume.use_state {
            UseState::Used => Ok(()),
            UseState::Blank => self.set_use(id, UseState::Blank, UseState::Used, "").await.map(drop),
            UseState::Formatting => {
                let text =
                    format!("a filesystem was begun on volume {} and not ended: stage it first", seen.volume.name);
                Err(Error::precondition(text))
            }
        }
    }

    /// blank → formatting → used, and blank → used for a volume that gets no filesystem. Repeating a step that was
    /// taken changes nothing.
    pub(crate) async fn set_use(
        &self,
        id: VolumeId,
        from: UseState,
        to: UseState,
        fs_type: &str,
    ) -> Result<StoredVolume> {
        if fs_type.len() > FS_TYPE_BYTES_MAX || !fs_type.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::invalid("fs_type is not the name of a filesystem"));
        }
        let step = (from, to);
        if !matches!(
            step,
            (UseState::Blank, UseState::Formatting | UseState::Used) | (UseState::Formatting, UseState::Used)
        ) {
            return Err(Error::invalid(format!("use goes blank -> formatting -> used, not {from:?} -> {to:?}")));
        }
        for _ in 0..COMMIT_TRIES_MAX {
            let seen = self.volume(id).await?;
            let is = (seen.volume.use_state, seen.volume.fs_type.as_str());
            if is == (to, fs_type) {
                return Ok(seen);
            }
            let of_other_filesystem = is.0 == UseState::Formatting && is.1 != fs_type;
            if is.0 != from || of_other_filesystem {
                let text = format!("volume {} is {:?} {}, not {from:?} {fs_type}", seen.volume.name, is.0, is.1);
                return Err(Error::precondition(text));
            }
            let text = format!("use of volume {} is now {to:?} {fs_type}", seen.volume.name);
            let event = Event::new(wall_clock_ms(), "use", text).of_volume(id);
            match self.catalog.change_use(&seen, to, fs_type, vec![event]).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                other => return Ok(other?),
            }
        }
        Err(raced(id))
    }
}

/// The volume that exists, if it is what is asked for.
pub(super) fn same_volume(new: &NewVolume, found: StoredVolume) -> Result<StoredVolume> {
    let mut differences = Vec::new();
    let size = found.volume.record.size;
    if found.volume.source != new.source {
        differences.push("it began with other content".to_owned());
    }
    let is_of_source = new.size.is_open && new.source.is_some() && size <= new.size.limit;
    if !(is_of_source || new.size.accepts(size)) {
        differences.push(format!("its size is {size} bytes"));
    }
    match params::parse(&found.volume.parameters) {
        Ok(params) if params == new.params => {}
        _ => differences.push("its parameters are different".to_owned()),
    }
    let allowed = &found.volume.allowed_nodes;
    let usable = allowed.is_empty()
        || new.allowed_nodes.is_empty()
        || new.allowed_nodes.iter().any(|node| allowed.contains(node));
    if !usable {
        differences.push("it may be used on other nodes".to_owned());
    }
    if differences.is_empty() {
        return Ok(found);
    }
    let text = format!("a volume named {} exists, but {}", new.name, differences.join(" and "));
    Err(Error::new(ErrorKind::AlreadyExists, text))
}
