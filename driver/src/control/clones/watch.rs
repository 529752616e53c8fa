//! What goes on with clones while nobody asks: replicas that are still to be made, clones that have become flat,
//! snapshots that were taken for clones which were never begun.
//!
//! It sleeps while there is none of them. While there are it looks after 2 s, then ever more seldom, and at once when
//! one is begun or a chunkserver comes back; a look is one small call to each chunkserver concerned.

use crate::control::Control;
use crate::control::daemons::{CALL_TIMEOUT, refused, timed};
use crate::control::membership::event;
use crate::control::registry::DiskHealth;
use crate::error::{ErrorKind, Result};
use ashlar_catalog::{CatalogErrorKind, StoredVolume};
use ashlar_plan::clone;
use ashlar_rpc::control::ChunkserverStatusRequest;
use ashlar_types::{DiskId, SnapshotId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const PAUSE_FIRST: Duration = Duration::from_secs(2);
const PAUSE_LAST: Duration = Duration::from_secs(60);
/// A snapshot that was taken for a clone is kept for so long after its creation has failed: asked again, it shows the
/// same instant.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Snapshots for clones that nobody was seen working on, since when.
type Idle = BTreeMap<SnapshotId, Instant>;

/// Runs for ever.
pub(crate) async fn run(control: Arc<Control>) {
    let (mut pause, mut idle) = (PAUSE_FIRST, Idle::new());
    loop {
        let woken = control.clones.notified();
        let left = control.advance_clones(&mut idle).await.unwrap_or_else(|error| {
            tracing::error!(%error, "look after clones");
            1
        });
        if left == 0 {
            pause = PAUSE_FIRST;
            woken.await;
            continue;
        }
        if tokio::time::timeout(pause, woken).await.is_ok() {
            pause = PAUSE_FIRST;
        } else {
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }
}

impl Control {
    /// One look at everything; returns how much is left to be looked at again.
    pub(in crate::control) async fn advance_clones(&self, idle: &mut Idle) -> Result<usize> {
        let snapshots = self.forget_idle_snapshots(idle, Instant::now()).await?;
        let (clones, unreadable) = self.catalog.clones().await?;
        for (key, error) in unreadable {
            tracing::error!(%key, %error, "a clone is not looked after");
        }
        let (mut left, mut made) = (snapshots + clones.len(), Vec::new());
        for id in clones {
            match self.made_clone(id).await {
                Ok(Some(seen)) => made.push(seen),
                // Flat, or gone, since the list was read.
                Ok(None) => left -= 1,
                Err(error) if error.kind == ErrorKind::Busy => {}
                Err(error) => tracing::warn!(volume = %id, %error, "a clone is not made yet, to be tried again"),
            }
        }
        let bases = self.bases(&made).await;
        for seen in &made {
            match self.flatten(seen, &bases).await {
                Ok(is_flat) => left -= usize::from(is_flat),
                Err(error) => tracing::error!(volume = %seen.volume.id(), %error, "record that a clone is flat"),
            }
        }
        Ok(left)
    }

    async fn made_clone(&self, id: VolumeId) -> Result<Option<StoredVolume>> {
        match self.catalog.volume(id).await? {
            None => Ok(None),
            Some(seen) if seen.volume.record.origin.is_some_and(|origin| !origin.is_made) => {
                // Whoever creates it has the name's: it must not find the clone busy with this.
                let _permit = self.in_flight.begin(&seen.volume.name)?;
                self.make_clone(id).await.map(Some)
            }
            seen => Ok(seen.filter(|seen| seen.volume.record.origin.is_some())),
        }
    }

    /// Whether the replicas of these volumes still read from a source, as far as their chunkservers answer.
    async fn bases(&self, clones: &[StoredVolume]) -> BTreeMap<(DiskId, VolumeId), bool> {
        let disks = self.disks_by_id().await;
        let mut wanted: BTreeMap<&str, BTreeSet<VolumeId>> = BTreeMap::new();
        for (volume, disk) in clones.iter().flat_map(concerned) {
            if let Some(view) = disks.get(&disk).filter(|view| view.health == DiskHealth::Online) {
                wanted.entry(&view.chunkserver_rpc).or_default().insert(volume);
            }
        }
        let mut asked = JoinSet::new();
        for (address, volumes) in wanted {
            let volumes = volumes.iter().map(ToString::to_string).collect();
            let Ok(mut client) = self.daemons.chunkserver(address) else { continue };
            asked.spawn(async move { client.status(timed(ChunkserverStatusRequest { volumes }, CALL_TIMEOUT)).await });
        }
        let mut bases = BTreeMap::new();
        while let Some(ended) = asked.join_next().await {
            let replicas = match ended {
                Ok(Ok(answer)) => answer.into_inner().replicas,
                Ok(Err(status)) => {
                    tracing::warn!(error = %refused("chunkserver", status), "ask for clones that are flat");
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "a call ended without a result");
                    continue;
                }
            };
            for replica in replicas {
                if let (Ok(disk), Ok(volume)) = (replica.disk.parse(), replica.volume.parse()) {
                    bases.insert((disk, volume), !replica.base_volume.is_empty());
                }
            }
        }
        bases
    }

    /// Records that the clone is flat, if every replica that counts or is coming back is. Those that are out do not
    /// hold it up: they get everything when they return.
    async fn flatten(&self, seen: &StoredVolume, bases: &BTreeMap<(DiskId, VolumeId), bool>) -> Result<bool> {
        let (id, record) = (seen.volume.id(), &seen.volume.record);
        let Some(origin) = record.origin else { return Ok(false) };
        if !concerned(seen).all(|(volume, disk)| bases.get(&(disk, volume)) == Some(&false)) {
            return Ok(false);
        }
        let source = self.catalog.volume(origin.base.volume).await?;
        let source = source.as_ref().map(|source| (source, clone::release(&source.volume.record, id)));
        let text = format!("clone {} has everything itself, and reads from its source no more", seen.volume.name);
        let (next, event) = (clone::flat(record), event("clone-flat", text, record));
        match self.catalog.flatten_clone(seen, next, source, event).await {
            Err(error) if error.kind() == CatalogErrorKind::Conflict => Ok(false),
            Err(error) => Err(error.into()),
            Ok(_) => {
                tracing::info!(volume = %id, "clone is flat");
                self.reap.notify_one();
                self.forgotten.notify_one();
                Ok(true)
            }
        }
    }

    /// Returns how many are left.
    pub(in crate::control) async fn forget_idle_snapshots(&self, idle: &mut Idle, now: Instant) -> Result<usize> {
        let (snapshots, unreadable) = self.catalog.snapshots_for_clones().await?;
        for (key, error) in unreadable {
            tracing::error!(%key, %error, "a snapshot for a clone is not looked after");
        }
        idle.retain(|id, _| snapshots.iter().any(|seen| seen.snapshot.id == *id));
        let mut left = 0;
        for seen in snapshots {
            let id = seen.snapshot.id;
            let Ok(_permit) = self.in_flight.begin(&seen.snapshot.name) else {
                idle.remove(&id);
                left += 1;
                continue;
            };
            if now.duration_since(*idle.entry(id).or_insert(now)) < FORGOTTEN_AFTER {
                left += 1;
                continue;
            }
            self.remove_snapshot(id).await?;
        }
        Ok(left)
    }
}

/// The replicas by which it is judged whether a clone is flat.
fn concerned(seen: &StoredVolume) -> impl Iterator<Item = (VolumeId, DiskId)> {
    let id = seen.volume.id();
    clone::awaited(&seen.volume.record).map(move |member| (id, member.disk))
}
