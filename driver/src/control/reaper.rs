//! The reaper: has chunkservers delete the replicas of deleted volumes, and what disks still have of a volume whose
//! chunks others hold, until each has confirmed. A tombstone in the catalog stands for each replica that is left, so a
//! restart on any side loses none. While too little of a volume can be counted on nothing of it is deleted anywhere.
//!
//! It sleeps until there is a tombstone; one whose chunkserver is silent waits for that chunkserver to come back. What
//! clones on the disk still read stays there, and so do its tombstone and its claim: it is asked for again when a clone
//! has become flat, and now and then.

use super::Control;
use super::daemons::{CALL_TIMEOUT, refused, timed};
use super::registry::{DiskHealth, DiskView};
use crate::error::Result;
use ashlar_catalog::Tombstone;
use ashlar_plan::membership;
use ashlar_rpc::control::DeleteReplicaRequest;
use ashlar_types::{DiskId, VolumeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// Where nothing but clones is waited for.
const KEPT_PAUSE: Duration = Duration::from_secs(60);

/// What became of the tombstones that were tried.
#[derive(Clone, Copy, Debug, Default)]
struct Reaped {
    gone: usize,
    failed: usize,
    /// Clones read what they stand for.
    kept: usize,
}

/// Runs for ever.
pub(crate) async fn run(control: Arc<Control>) {
    let mut pause = RETRY_FIRST;
    loop {
        let woken = control.reap.notified();
        let reaped = match control.reap_all().await {
            Ok(reaped) => reaped,
            Err(error) => {
                tracing::error!(%error, "read tombstones");
                Reaped { failed: 1, ..Reaped::default() }
            }
        };
        if reaped.gone > 0 && reaped.kept > 0 {
            // It may have been the last clone that read what was kept.
            continue;
        }
        if reaped.failed + reaped.kept == 0 {
            pause = RETRY_FIRST;
            woken.await;
            continue;
        }
        let this = if reaped.failed == 0 { KEPT_PAUSE } else { pause };
        if tokio::time::timeout(this, woken).await.is_ok() {
            pause = RETRY_FIRST;
        } else {
            pause = (pause * 2).min(RETRY_LAST);
        }
    }
}

impl Control {
    /// What cannot be read keeps its claim, and nobody else waiting.
    pub(super) async fn tombstones(&self) -> Result<Vec<Tombstone>> {
        let (tombstones, unreadable) = self.catalog.tombstones().await?;
        for (key, error) in unreadable {
            tracing::error!(%key, %error, "a tombstone cannot be read: its replica is not deleted");
        }
        Ok(tombstones)
    }

    /// Tries each tombstone once. Those of silent chunkservers are not counted: their return wakes the reaper.
    async fn reap_all(&self) -> Result<Reaped> {
        let tombstones = self.tombstones().await?;
        let disks = self.registry.disks().await;
        let (mut reaped, mut needed) = (Reaped::default(), BTreeMap::new());
        for tombstone in &tombstones {
            if self.registry.is_removed(tombstone.disk).await {
                // Whatever it has never comes back.
                self.catalog.drop_tombstone(tombstone, Vec::new()).await?;
                reaped.gone += 1;
                continue;
            }
            let reachable = disks.iter().find(|view| view.disk.id == tombstone.disk);
            let reachable = reachable.filter(|view| matches!(view.health, DiskHealth::Online | DiskHealth::Failed));
            let Some(view) = reachable else { continue };
            let (volume, disk) = (tombstone.volume, tombstone.disk);
            if self.is_needed(volume, &disks, &mut needed).await {
                // What makes up for it wakes the reaper: one that comes to be in-sync, a disk that is back.
                continue;
            }
            match self.delete_replica(tombstone, &view.chunkserver_rpc).await {
                Ok(false) => reaped.gone += 1,
                Ok(true) => {
                    tracing::debug!(%volume, %disk, "clones still read from a deleted replica");
                    reaped.kept += 1;
                }
                Err(error) => {
                    tracing::warn!(%volume, %disk, %error, "delete replica, to be retried");
                    reaped.failed += 1;
                }
            }
        }
        Ok(reaped)
    }

    /// Whether too little can be counted on besides what is to be deleted of the volume. One that is deleted needs
    /// nothing; of one that cannot be read nothing is deleted.
    async fn is_needed(&self, volume: VolumeId, disks: &[DiskView], known: &mut BTreeMap<VolumeId, bool>) -> bool {
        if let Some(&is_needed) = known.get(&volume) {
            return is_needed;
        }
        let online = |disk: DiskId| disks.iter().any(|v| v.disk.id == disk && v.health == DiskHealth::Online);
        let is_stuck = self.repair.last().plan.stuck.iter().any(|stuck| stuck.volume == volume);
        let is_needed = match self.catalog.volume(volume).await {
            Ok(Some(seen)) => !membership::may_forget(&seen.volume.record, online, is_stuck),
            Ok(None) => false,
            Err(error) => {
                tracing::error!(%volume, %error, "a volume cannot be read: what replaced disks have of it stays");
                true
            }
        };
        known.insert(volume, is_needed);
        is_needed
    }

    /// Gives back what space can be given back at once, for somebody who waits.
    pub(super) async fn reap_now(&self) -> Result<()> {
        match tokio::time::timeout(CALL_TIMEOUT, self.reap_all()).await {
            Ok(reaped) => reaped.map(drop),
            // The rest goes in the background.
            Err(_) => Ok(()),
        }
    }

    /// Whether its disk keeps what clones read.
    async fn delete_replica(&self, tombstone: &Tombstone, address: &str) -> Result<bool> {
        let request = DeleteReplicaRequest {
            disk: tombstone.disk.to_string(),
            volume: tombstone.volume.to_string(),
            epoch: tombstone.epoch.number(),
        };
        // Only "done" counts: "not found" is about a disk that the chunkserver does not have, and the replica is on
        // the disk.
        let answer = self.daemons.chunkserver(address)?.delete_replica(timed(request, CALL_TIMEOUT)).await;
        if answer.map_err(|status| refused("chunkserver", status))?.into_inner().kept {
            return Ok(true);
        }
        let told = self.space_freed(tombstone).await;
        self.catalog.drop_tombstone(tombstone, told).await?;
        tracing::info!(volume = %tombstone.volume, disk = %tombstone.disk, "replica deleted");
        Ok(false)
    }
}
