//! Snapshots: taken by the writer where there is one, by the catalog alone where there is none.
//!
//! ```text
//!   begin (name, id) ──► ready? ──► attached: the holder's datapath, whose writer proposes the point
//!                          ▲       └ detached: the point is the next writer's first lsn
//!                          └──────── point into the record and snapshot ready: one transaction
//! ```
//! Repeating a creation goes on where the first one ended, whoever died in between. A deletion takes the snapshot and
//! its point away in one transaction; a point that is proposed after that is refused for good. The writer, if there is
//! one, hears of it in the record and tells the replicas.

use super::daemons::{refused, timed};
use super::membership::event;
use super::{COMMIT_TRIES_MAX, Control, raced, wall_clock_ms};
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::{CatalogErrorKind, Event, SnapshotInfo, SnapshotPage, StoredSnapshot, StoredVolume};
use ashlar_plan::membership;
use ashlar_plan::snapshot::{self, Refusal};
use ashlar_rpc::control::DatapathSnapshotRequest;
use ashlar_types::{Change, ChangeAnswer, Epoch, NodeName, Snapshot, SnapshotId, VolumeId, VolumeName, VolumeRecord};
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::Code;

/// The datapath answers within ten seconds, whatever its replicas do.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(20);

impl Control {
    /// Takes the snapshot, or finds the one of this name. One of the name that is of another volume is an error.
    pub(crate) async fn create_snapshot(&self, name: &VolumeName, volume: VolumeId) -> Result<StoredSnapshot> {
        let _permit = self.in_flight.begin(format!("snapshot {name}"))?;
        self.snapshot_as(name, volume, false).await
    }

    /// The same, for a clone of this name that is about to be made. The caller has the name's permit.
    pub(super) async fn snapshot_for_clone(&self, name: &VolumeName, volume: VolumeId) -> Result<StoredSnapshot> {
        self.snapshot_as(name, volume, true).await
    }

    async fn snapshot_as(&self, name: &VolumeName, volume: VolumeId, for_clone: bool) -> Result<StoredSnapshot> {
        for _ in 0..COMMIT_TRIES_MAX {
            let begun = self.begin_snapshot(name, volume, for_clone).await?;
            if begun.snapshot.is_ready {
                return Ok(begun);
            }
            if let Err(error) = self.take_snapshot(&begun).await {
                return Err(self.give_up(&begun, error).await);
            }
        }
        Err(raced(name))
    }

    async fn begin_snapshot(&self, name: &VolumeName, volume: VolumeId, for_clone: bool) -> Result<StoredSnapshot> {
        for _ in 0..COMMIT_TRIES_MAX {
            let found = match for_clone {
                true => self.catalog.snapshot_for_clone(name).await?,
                false => self.catalog.snapshot_by_name(name).await?,
            };
            if let Some(found) = found {
                if found.snapshot.volume == volume && found.snapshot.group.is_none() {
                    return Ok(found);
                }
                if for_clone {
                    // Of a clone of this name that was asked for before, of another volume, and never begun.
                    self.remove_snapshot(found.snapshot.id).await?;
                    continue;
                }
                let text = format!("a snapshot named {name} exists, of volume {}", found.snapshot.volume);
                return Err(Error::new(ErrorKind::AlreadyExists, text));
            }
            let seen = self.volume(volume).await?;
            let snapshot = SnapshotInfo {
                id: SnapshotId::from_u128(uuid::Uuid::new_v4().as_u128()),
                name: name.clone(),
                volume,
                group: None,
                size: seen.volume.record.size,
                created_ms: wall_clock_ms(),
                is_ready: false,
                content: None,
                for_clone,
            };
            match self.catalog.begin_snapshot(&snapshot).await {
                Err(error) if error.kind() == CatalogErrorKind::Exists => {}
                other => return Ok(other?),
            }
        }
        Err(raced(name))
    }

    /// One step towards it: what became of it, the catalog says.
    async fn take_snapshot(&self, begun: &StoredSnapshot) -> Result<()> {
        let SnapshotInfo { id, volume, .. } = begun.snapshot;
        let seen = self.volume(volume).await?;
        match snapshot::take_detached(&seen.volume.record, id) {
            // Another attempt has taken it since.
            Ok(next) if next == seen.volume.record => Ok(()),
            Ok(next) => self.record_snapshot(begun, &seen, next).await.map(drop),
            Err(Refusal::Held { holder }) => self.take_attached(&seen, &holder, id).await,
            Err(refusal @ Refusal::TooMany) => Err(Error::new(ErrorKind::Exhausted, refusal.to_string())),
            Err(refusal) => Err(Error::precondition(refusal.to_string())),
        }
    }

    /// False if either has changed since it was read.
    pub(super) async fn record_snapshot(
        &self,
        begun: &StoredSnapshot,
        seen: &StoredVolume,
        next: VolumeRecord,
    ) -> Result<bool> {
        let (id, name) = (begun.snapshot.id, &begun.snapshot.name);
        let whose = if begun.snapshot.for_clone { "for the clone " } else { "" };
        let taken = event("snapshot", format!("snapshot {whose}{name} taken"), &next).figure("snapshot", id);
        match self.catalog.take_snapshot(begun, seen, next, wall_clock_ms(), vec![taken]).await {
            Err(error) if error.kind() == CatalogErrorKind::Conflict => Ok(false),
            Err(error) => Err(error.into()),
            Ok(_) => {
                tracing::info!(snapshot = %id, %name, volume = %seen.volume.id(), "snapshot taken");
                Ok(true)
            }
        }
    }

    /// A writer's proposal of a snapshot. One that nobody wants any more is refused for good.
    pub(super) async fn propose_snapshot(
        &self,
        id: VolumeId,
        epoch: Epoch,
        version: u64,
        proposed: Snapshot,
    ) -> Result<ChangeAnswer> {
        for _ in 0..COMMIT_TRIES_MAX {
            let seen = self.volume(id).await?;
            let record = &seen.volume.record;
            let next = match membership::apply(record, epoch, version, &Change::Snapshot(proposed)) {
                ChangeAnswer::Applied { record: next } if next != *record => next,
                answer => return Ok(answer),
            };
            let begun = self.catalog.snapshot(proposed.id).await?.filter(|begun| begun.snapshot.volume == id);
            let Some(begun) = begun else {
                let reason = format!("snapshot {} was given up", proposed.id);
                return Ok(ChangeAnswer::Refused { reason, record: record.clone() });
            };
            if self.record_snapshot(&begun, &seen, next.clone()).await? {
                return Ok(ChangeAnswer::Applied { record: next });
            }
        }
        Err(raced(id))
    }

    async fn take_attached(&self, seen: &StoredVolume, holder: &NodeName, id: SnapshotId) -> Result<()> {
        let (volume, record) = (seen.volume.id(), &seen.volume.record);
        let address = match self.registry.datapath(holder).await {
            Some((address, true)) if !address.is_empty() => address,
            _ => {
                let text = format!("the datapath of node {holder}, which holds the volume, is silent");
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
        };
        let request = DatapathSnapshotRequest { volume: volume.to_string(), snapshot: id.to_string(), held: false };
        match self.daemons.datapath(&address)?.snapshot(timed(request, SNAPSHOT_TIMEOUT)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound && record.clean => {
                let text = format!(
                    "volume {} is reserved for node {holder} and not attached: detach it, or attach it",
                    seen.volume.name
                );
                Err(Error::new(ErrorKind::Busy, text))
            }
            Err(status) if status.code() == Code::NotFound => {
                let text = format!("volume {} is being attached on node {holder}: ask again", seen.volume.name);
                Err(Error::new(ErrorKind::Busy, text))
            }
            Err(status) => Err(refused(&format!("datapath of node {holder}"), status)),
        }
    }

    /// One that cannot be taken leaves no name behind. Where asking again may help it stays.
    async fn give_up(&self, begun: &StoredSnapshot, error: Error) -> Error {
        let is_final = matches!(
            error.kind,
            ErrorKind::NotFound | ErrorKind::FailedPrecondition | ErrorKind::Exhausted | ErrorKind::InvalidArgument
        );
        if is_final && let Err(failure) = self.remove_snapshot(begun.snapshot.id).await {
            tracing::warn!(snapshot = %begun.snapshot.id, error = %failure, "not taken, and not forgotten either");
        }
        error
    }

    /// Gone at once; its space comes back in the background. Deleting what is not there changes nothing. One of a group
    /// goes with the group.
    pub(crate) async fn delete_snapshot(&self, id: SnapshotId) -> Result<()> {
        match self.catalog.snapshot(id).await? {
            Some(found) if found.snapshot.for_clone => Ok(()),
            Some(found) if found.snapshot.group.is_some() => {
                let text = format!("snapshot {} is one of a group: delete the group", found.snapshot.name);
                Err(Error::precondition(text))
            }
            _ => self.remove_snapshot(id).await,
        }
    }

    pub(super) async fn remove_snapshot(&self, id: SnapshotId) -> Result<()> {
        for _ in 0..COMMIT_TRIES_MAX {
            let Some(found) = self.catalog.snapshot(id).await? else { return Ok(()) };
            let SnapshotInfo { name, volume, .. } = &found.snapshot;
            let seen = self.catalog.volume(*volume).await?;
            let of = seen.as_ref().map(|seen| (seen, snapshot::forget(&seen.volume.record, id)));
            let event = Event::new(wall_clock_ms(), "snapshot-deleted", format!("snapshot {name} deleted"));
            match self.catalog.delete_snapshot(&found, of, event.figure("snapshot", id)).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    tracing::info!(snapshot = %id, %name, "snapshot deleted");
                    self.forgotten.notify_one();
                    return Ok(());
                }
            }
        }
        Err(raced(id))
    }

    /// By id or by name, as people write it.
    pub(crate) async fn find_snapshot(&self, reference: &str) -> Result<StoredSnapshot> {
        if let Ok(id) = reference.parse::<SnapshotId>()
            && let Some(found) = self.catalog.snapshot(id).await?.filter(|found| !found.snapshot.for_clone)
        {
            return Ok(found);
        }
        let name: VolumeName = reference.parse().map_err(|error| Error::invalid(format!("snapshot: {error}")))?;
        let found = self.catalog.snapshot_by_name(&name).await?;
        found.ok_or_else(|| Error::not_found(format_args!("snapshot {name}")))
    }

    /// A page of snapshots, and the token of the next one: the id of the last one shown.
    pub(crate) async fn list_snapshots(&self, token: &str, limit: usize) -> Result<(SnapshotPage, Option<SnapshotId>)> {
        let after = after(token)?;
        let mut page = self.catalog.snapshots(after, limit).await?;
        page.snapshots.retain(|seen| !seen.snapshot.for_clone);
        for (key, error) in &page.unreadable {
            tracing::error!(%key, %error, "snapshot left out of a listing");
        }
        let next = page.last.filter(|_| page.more);
        Ok((page, next))
    }

    /// Those of one volume that are ready, by its record, so that the others need not be read.
    pub(crate) async fn list_snapshots_of(
        &self,
        volume: VolumeId,
        token: &str,
        limit: usize,
    ) -> Result<(Vec<StoredSnapshot>, Option<SnapshotId>)> {
        let after = after(token)?;
        let Some(seen) = self.catalog.volume(volume).await? else { return Ok((Vec::new(), None)) };
        let ids: BTreeSet<SnapshotId> = seen.volume.record.snapshots.iter().map(|snapshot| snapshot.id).collect();
        let mut ids = ids.into_iter().filter(|id| after.is_none_or(|after| *id > after));
        let (mut found, mut last) = (Vec::new(), None);
        for id in ids.by_ref().take(limit) {
            found.extend(self.catalog.snapshot(id).await?.filter(|seen| !seen.snapshot.for_clone));
            last = Some(id);
        }
        Ok((found, last.filter(|_| ids.next().is_some())))
    }
}

fn after(token: &str) -> Result<Option<SnapshotId>> {
    let bad = |_| Error::new(ErrorKind::BadToken, "starting_token is not one of ours");
    if token.is_empty() { Ok(None) } else { token.parse().map(Some).map_err(bad) }
}
