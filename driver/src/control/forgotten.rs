//! Tells the replicas of volumes that nobody holds which snapshots' points are needed, so that the space of deleted
//! snapshots comes back without an attach. A key in the catalog stands for each volume of which points were given up,
//! until every member's disk has answered, or somebody holds the volume: the next writer tells all of them.
//!
//! It sleeps until there is one; a disk whose chunkserver is silent waits for that chunkserver to come back.

use super::Control;
use super::condition::Disks;
use super::daemons::{CALL_TIMEOUT, refused, timed};
use super::registry::DiskHealth;
use crate::error::Result;
use ashlar_catalog::Forgotten;
use ashlar_plan::snapshot::kept_detached;
use ashlar_rpc::control::KeepPointsRequest;
use ashlar_types::{DiskId, Kept, VolumeRecord};
use std::sync::Arc;
use std::time::Duration;

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// How far the word about one volume came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Everybody, or nobody needs to be.
    All,
    /// All that can be asked; the others are silent.
    Reachable,
    Failed,
}

/// Runs for ever.
pub(crate) async fn run(control: Arc<Control>) {
    let mut pause = RETRY_FIRST;
    loop {
        let woken = control.forgotten.notified();
        let failed = control.tell_forgotten().await.unwrap_or_else(|error| {
            tracing::error!(%error, "read which points were given up");
            1
        });
        if failed == 0 {
            pause = RETRY_FIRST;
            woken.await;
        } else if tokio::time::timeout(pause, woken).await.is_ok() {
            pause = RETRY_FIRST;
        } else {
            pause = (pause * 2).min(RETRY_LAST);
        }
    }
}

impl Control {
    /// One round; returns how many are to be tried again though nobody comes back.
    pub(in crate::control) async fn tell_forgotten(&self) -> Result<usize> {
        let (forgotten, unreadable) = self.catalog.forgotten().await?;
        for (key, error) in unreadable {
            tracing::error!(%key, %error, "replicas are not told that points were given up");
        }
        if forgotten.is_empty() {
            return Ok(0);
        }
        let disks = self.disks_by_id().await;
        let mut failed = 0;
        for seen in &forgotten {
            let is_done = match self.tell_volume(seen, &disks).await? {
                Told::All => self.catalog.drop_forgotten(seen).await?,
                Told::Reachable => true,
                Told::Failed => false,
            };
            failed += usize::from(!is_done);
        }
        Ok(failed)
    }

    async fn tell_volume(&self, seen: &Forgotten, disks: &Disks) -> Result<Told> {
        let Some(volume) = self.catalog.volume(seen.volume).await? else { return Ok(Told::All) };
        let record = &volume.volume.record;
        let Some(kept) = kept_detached(record) else { return Ok(Told::All) };
        let mut told = Told::All;
        for member in &record.members {
            let view = disks.get(&member.disk).filter(|view| view.health == DiskHealth::Online);
            let Some(view) = view else {
                told = if told == Told::All { Told::Reachable } else { told };
                continue;
            };
            if let Err(error) = self.keep_points(record, &kept, member.disk, &view.chunkserver_rpc).await {
                tracing::warn!(volume = %seen.volume, disk = %member.disk, %error, "tell which points are kept");
                told = Told::Failed;
            }
        }
        Ok(told)
    }

    async fn keep_points(&self, record: &VolumeRecord, kept: &Kept, disk: DiskId, address: &str) -> Result<()> {
        let request = KeepPointsRequest {
            disk: disk.to_string(),
            volume: record.volume.to_string(),
            epoch: record.served.number(),
            point_lsns: kept.live.iter().map(|point| point.raw()).collect(),
            until_lsn: kept.until.raw(),
        };
        let answer = self.daemons.chunkserver(address)?.keep_points(timed(request, CALL_TIMEOUT)).await;
        answer.map(drop).map_err(|status| refused("chunkserver", status))
    }
}
