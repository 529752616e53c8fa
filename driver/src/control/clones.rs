//! Clones: volumes that begin with what a snapshot or another volume holds, without a copy of it.
//!
//! ```text
//!   of a volume: a snapshot of its own ─┐
//!   of a snapshot ──────────────────────┴─► begun (source keeps the point, clone has its record: one transaction)
//!       ─► CloneReplica on each in-sync disk of the source ─► made: may be attached ─► (disks copy) ─► flat
//! ```
//! Repeating a creation goes on where the last one ended, and [`watch`] goes on with what nobody asks for any more. The
//! rules are `ashlar_plan::clone`.

pub(crate) mod watch;

use super::daemons::timed;
use super::membership::event;
use super::placement::check_clone_wish;
use super::registry::DiskHealth;
use super::volumes::{NewVolume, same_volume};
use super::{COMMIT_TRIES_MAX, Control, Decision, raced, wall_clock_ms};
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::{
    CatalogErrorKind, Content, ContentSource, Event, SnapshotInfo, StoredSnapshot, StoredVolume, Volume,
};
use ashlar_plan::clone::{self, Refusal};
use ashlar_plan::snapshot;
use ashlar_rpc::control::CloneReplicaRequest;
use ashlar_types::{ByteCount, DiskId, Epoch, Origin, VolumeId, VolumeRecord};
use std::time::Duration;
use tokio::task::JoinSet;

/// A replica is made from an index; but a disk may have much to do.
const CLONE_TIMEOUT: Duration = Duration::from_secs(10);

impl Control {
    /// Makes the clone, or finds the one of this name. The caller has the name's permit.
    pub(super) async fn create_clone(&self, new: &NewVolume, source: ContentSource) -> Result<StoredVolume> {
        for _ in 0..COMMIT_TRIES_MAX {
            if let Some(found) = self.catalog.volume_by_name(&new.name).await? {
                return self.make_clone(same_volume(new, found)?.volume.id()).await;
            }
            let taken = self.source_snapshot(new, source).await?;
            if let Some(begun) = self.begin_clone(new, source, &taken).await? {
                return self.make_clone(begun.volume.id()).await;
            }
        }
        Err(raced(&new.name))
    }

    /// What the clone is to show. Of a volume it is a snapshot for this clone alone; one that comes to nothing is
    /// forgotten by [`watch`].
    async fn source_snapshot(&self, new: &NewVolume, source: ContentSource) -> Result<StoredSnapshot> {
        match source {
            ContentSource::Snapshot(id) => {
                let found = self.catalog.snapshot(id).await?.filter(|found| !found.snapshot.for_clone);
                let found = found.ok_or_else(|| Error::not_found(format_args!("source snapshot {id}")))?;
                if found.snapshot.is_ready {
                    return Ok(found);
                }
                let text = format!("snapshot {} is still being taken: ask again", found.snapshot.name);
                Err(Error::new(ErrorKind::Busy, text))
            }
            ContentSource::Volume(id) => {
                let seen = self.catalog.volume(id).await?;
                let seen = seen.ok_or_else(|| Error::not_found(format_args!("source volume {id}")))?;
                check(new, &seen.volume)?;
                new.size.of_clone(seen.volume.record.size)?;
                self.clones.notify_one();
                self.snapshot_for_clone(&new.name, id).await
            }
        }
    }

    /// `None`: source or space have changed since they were read.
    async fn begin_clone(
        &self,
        new: &NewVolume,
        asked: ContentSource,
        taken: &StoredSnapshot,
    ) -> Result<Option<StoredVolume>> {
        let SnapshotInfo { id, volume: of, size: least, .. } = taken.snapshot;
        let Some(source) = self.catalog.volume(of).await? else { return Ok(None) };
        check(new, &source.volume)?;
        let clone = VolumeId::from_u128(uuid::Uuid::new_v4().as_u128());
        let (size, min_replicas) = (new.size.of_clone(least)?, new.params.min_replicas);
        let (kept, record) = match clone::begin(&source.volume.record, id, clone, size, min_replicas) {
            Err(Refusal::NoSnapshot { .. }) => return Ok(None),
            begun => begun.map_err(explain)?,
        };
        let volume = volume_of(new, asked, content(taken, &source.volume), record);
        let claims = self.catalog.claims().await?;
        self.check_room(&volume, volume.claim(), &claims).await.map_err(|error| {
            Error::new(error.kind, format!("a clone lies where its source lies: {}", error.message))
        })?;
        let (next, spent) = match taken.snapshot.for_clone {
            true => (snapshot::forget(&kept, id), Some(taken)),
            false => (kept, None),
        };
        let text = format!("volume {} begun as a clone of volume {}", new.name, source.volume.name);
        let begun = Event::new(wall_clock_ms(), "clone-begun", text).figure("size_bytes", volume.record.size);
        match self.catalog.create_clone(&volume, &claims, (&source, next), spent, begun).await {
            Err(error) if matches!(error.kind(), CatalogErrorKind::Conflict | CatalogErrorKind::Exists) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(begun) => {
                tracing::info!(volume = %clone, name = %new.name, source = %of, "clone begun");
                self.clones.notify_one();
                Ok(Some(begun))
            }
        }
    }

    /// Has the disks make their replicas, all at once. Those that cannot are out, if enough can. Repeating it changes
    /// nothing.
    pub(super) async fn make_clone(&self, id: VolumeId) -> Result<StoredVolume> {
        let seen = self.volume(id).await?;
        if to_be_made(&seen).is_none() {
            return Ok(seen);
        }
        let _permit = self.in_flight.begin(id)?;
        // Who had the permit before may have made it: then whoever attaches it now must not be kept waiting.
        let seen = self.volume(id).await?;
        let Some(origin) = to_be_made(&seen) else { return Ok(seen) };
        let seen = self.lay_anew(seen, origin).await?;
        let record = &seen.volume.record;
        let (made, failures) = self.clone_replicas(record, origin).await?;
        self.change_record(id, |seen| {
            let record = &seen.volume.record;
            let next = clone::made(record, &made).map_err(|refusal| too_few(&refusal, &failures))?;
            if next == *record {
                return Ok(Decision::Keep);
            }
            let (name, of) = (&seen.volume.name, record.members.len());
            let text = format!("clone {name} can be used: replicas were made on {} of {of} disks", made.len());
            let event = event("clone-made", text, &next);
            Ok(Decision::Change(Box::new(next), vec![event]))
        })
        .await
    }

    /// The source's replicas may have moved since the clone was begun.
    async fn lay_anew(&self, seen: StoredVolume, origin: Origin) -> Result<StoredVolume> {
        let Some(source) = self.catalog.volume(origin.base.volume).await? else { return Ok(seen) };
        let Some(next) = clone::laid_anew(&seen.volume.record, &source.volume.record) else { return Ok(seen) };
        let claims = self.catalog.claims().await?;
        let text = format!("clone {} follows its source, whose replicas lie elsewhere now", seen.volume.name);
        let told = event("clone-laid-anew", text, &next);
        let laid = self.catalog.change_holders(&seen, next, &claims, None, vec![told]).await?;
        self.reap.notify_one();
        Ok(laid)
    }

    /// The disks that have made theirs; and why the others have not.
    async fn clone_replicas(&self, record: &VolumeRecord, origin: Origin) -> Result<(Vec<DiskId>, Vec<String>)> {
        let disks = self.disks_by_id().await;
        let (mut made, mut failures, mut asked) = (Vec::new(), Vec::new(), JoinSet::new());
        for member in record.in_sync() {
            let (disk, whose) = (member.disk, format!("disk {} of node {}", member.disk, member.node));
            let Some(view) = disks.get(&disk).filter(|view| view.health == DiskHealth::Online) else {
                failures.push(format!("{whose} is not online"));
                continue;
            };
            let mut client = self.daemons.chunkserver(&view.chunkserver_rpc)?;
            let request = timed(request(record, origin, disk), CLONE_TIMEOUT);
            asked.spawn(async move { (disk, whose, client.clone_replica(request).await) });
        }
        while let Some(ended) = asked.join_next().await {
            match ended {
                Ok((disk, _, Ok(_))) => made.push(disk),
                Ok((_, whose, Err(status))) => failures.push(format!("{whose}: {}", status.message())),
                Err(error) => failures.push(format!("a call ended without a result: {error}")),
            }
        }
        Ok((made, failures))
    }
}

fn to_be_made(seen: &StoredVolume) -> Option<Origin> {
    seen.volume.record.origin.filter(|origin| !origin.is_made)
}

fn request(record: &VolumeRecord, origin: Origin, disk: DiskId) -> CloneReplicaRequest {
    CloneReplicaRequest {
        disk: disk.to_string(),
        volume: record.volume.to_string(),
        epoch: record.epoch.number(),
        size_bytes: record.size.0,
        base_volume: origin.base.volume.to_string(),
        base_point_lsn: origin.base.point.raw(),
    }
}

/// What cannot be otherwise than at the source.
fn check(new: &NewVolume, source: &Volume) -> Result<()> {
    let has = source.record.chunks.iter().map(|run| run.members.len()).max().unwrap_or(0);
    let asked = new.params.replicas;
    if usize::from(asked) != has {
        let given = if new.parameters.contains_key("replicas") { "" } else { ", the default," };
        let text = format!("parameter replicas is {asked}{given} and a clone has its source's: set it to {has}");
        return Err(Error::invalid(text));
    }
    check_clone_wish(&new.params, &source.record)?;
    let allowed = &new.allowed_nodes;
    if !allowed.is_empty() && source.record.in_sync().all(|member| !allowed.contains(&member.node)) {
        let text = "a clone lies where its source lies, and none of its nodes is among those that are allowed";
        return Err(Error::new(ErrorKind::Exhausted, text));
    }
    Ok(())
}

/// A snapshot from before its content was kept shows no more than what is on its volume now.
fn content(taken: &StoredSnapshot, source: &Volume) -> Content {
    let now = || Content { use_state: source.use_state, fs_type: source.fs_type.clone() };
    taken.snapshot.content.clone().unwrap_or_else(now)
}

fn volume_of(new: &NewVolume, asked: ContentSource, content: Content, record: VolumeRecord) -> Volume {
    Volume {
        name: new.name.clone(),
        parameters: new.parameters.clone(),
        allowed_nodes: new.allowed_nodes.clone(),
        use_state: content.use_state,
        fs_type: content.fs_type,
        created_ms: wall_clock_ms(),
        settings: new.params.settings,
        published_read_only: false,
        readers: Vec::new(),
        settled: Epoch::NONE,
        is_repaired: false,
        source: Some(asked),
        data_lost: None,
        record,
    }
}

fn explain(refusal: Refusal) -> Error {
    let kind = match &refusal {
        Refusal::NoSnapshot { .. } => ErrorKind::NotFound,
        Refusal::TooMany => ErrorKind::Exhausted,
        Refusal::NotMade => ErrorKind::Busy,
        Refusal::Size { .. } => ErrorKind::OutOfRange,
        Refusal::TooFew { .. } => ErrorKind::Unavailable,
    };
    Error::new(kind, refusal.to_string())
}

fn too_few(refusal: &Refusal, failures: &[String]) -> Error {
    let text = format!("{refusal}: {}; it is gone on with, also if nobody asks again", failures.join("; "));
    Error::new(ErrorKind::Unavailable, text)
}

impl super::volumes::SizeRange {
    /// The size of a clone of what has `least` bytes.
    fn of_clone(self, least: ByteCount) -> Result<ByteCount> {
        let size = if self.is_open { least } else { self.size };
        if size < least || size > self.limit {
            let text = format!("the source has {least} bytes, and a clone is not smaller: ask for as many at least");
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        Ok(size)
    }
}
