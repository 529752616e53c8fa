//! Health of the cluster: figures, and each reason for which it is not healthy.
//!
//! "unavailable": a volume has fewer in-sync replicas on living chunkservers than minReplicas, its writes wait.
//! "degraded": anything else that is not as it should be.

use super::Control;
use super::registry::{DiskHealth, DiskView, NodeView};
use crate::error::Result;
use ashlar_catalog::StoredVolume;
use ashlar_plan::placement::loss;
use ashlar_rpc::control::{ClusterStatus, ThreeFailures};
use ashlar_types::{DiskId, MemberState};
use std::collections::{BTreeMap, BTreeSet};

const PAGE_MAX: usize = 256;
/// Reasons that are listed; the rest is counted.
const REASONS_MAX: usize = 50;

/// Figures of the cluster, for status and metrics.
#[derive(Debug, Default)]
pub(crate) struct Health {
    pub(crate) nodes: usize,
    pub(crate) nodes_alive: usize,
    pub(crate) disks: BTreeMap<DiskHealth, usize>,
    pub(crate) volumes: usize,
    pub(crate) volumes_degraded: usize,
    pub(crate) volumes_unavailable: usize,
    pub(crate) capacity_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) reasons: Vec<String>,
    /// Disks that hold a chunk together, in the order of their ids.
    sets: BTreeSet<Vec<DiskId>>,
    chunks: u64,
}

impl Control {
    pub(crate) async fn health(&self) -> Result<Health> {
        let mut health = Health::default();
        self.registry.nodes().await.iter().for_each(|node| health.add_node(node));
        let disks = self.registry.disks().await;
        disks.iter().for_each(|disk| health.add_disk(disk));
        let online: BTreeSet<DiskId> =
            disks.iter().filter(|view| view.health == DiskHealth::Online).map(|view| view.disk.id).collect();
        health.reasons.extend(self.registry.refused().await);
        let mut after = None;
        loop {
            let page = self.catalog.volumes(after, PAGE_MAX).await?;
            page.volumes.iter().for_each(|seen| health.add_volume(seen, &online));
            for (id, error) in &page.unreadable {
                health.volumes += 1;
                health.volumes_unavailable += 1;
                health.reasons.push(format!("volume {id} cannot be read: {error}"));
            }
            after = page.last;
            if !page.more {
                return Ok(health);
            }
        }
    }
}

impl Health {
    fn add_node(&mut self, view: &NodeView) {
        self.nodes += 1;
        let has_chunkserver = !view.node.chunkserver_rpc.is_empty();
        let has_datapath = !view.node.datapath_rpc.is_empty();
        let alive = (view.chunkserver_alive || !has_chunkserver) && (view.datapath_alive || !has_datapath);
        self.nodes_alive += usize::from(alive);
        if has_chunkserver && !view.chunkserver_alive {
            self.reasons.push(format!("chunkserver of node {} is silent", view.node.name));
        }
        if has_datapath && !view.datapath_alive {
            self.reasons.push(format!("datapath of node {} is silent", view.node.name));
        }
    }

    fn add_disk(&mut self, view: &DiskView) {
        *self.disks.entry(view.health).or_default() += 1;
        match view.health {
            DiskHealth::Online => {
                self.capacity_bytes += view.disk.capacity_bytes;
                self.free_bytes += view.free.0;
            }
            DiskHealth::Failed => self.reasons.push(format!("disk {} of node {} failed", view.disk.id, view.disk.node)),
            // A lost disk counts by the volumes that miss it; a silent one is told of with its chunkserver.
            DiskHealth::Lost | DiskHealth::Silent => {}
        }
    }

    fn add_volume(&mut self, seen: &StoredVolume, online: &BTreeSet<DiskId>) {
        self.volumes += 1;
        let record = &seen.volume.record;
        let name = &seen.volume.name;
        if seen.volume.data_lost.is_some() {
            self.volumes_unavailable += 1;
            self.reasons.push(format!("volume {name} has lost its data with a disk that was removed: delete it"));
            return;
        }
        for run in &record.chunks {
            let mut disks: Vec<DiskId> =
                run.members.iter().map(|&index| record.members[usize::from(index)].disk).collect();
            disks.sort();
            self.sets.insert(disks);
            self.chunks += u64::from(run.count);
        }
        let dead: Vec<DiskId> =
            record.in_sync().map(|member| member.disk).filter(|disk| !online.contains(disk)).collect();
        let live = record.fewest_in_sync_without(&dead);
        let replicas = record.chunks.iter().map(|run| run.members.len()).min().unwrap_or(0);
        if usize::from(live) >= replicas {
            return;
        }
        let syncing =
            record.members.iter().filter(|member| matches!(member.state, MemberState::Syncing { .. })).count();
        let resync = if syncing > 0 { format!(", {syncing} syncing") } else { String::new() };
        if live < record.min_replicas {
            self.volumes_unavailable += 1;
            let min = record.min_replicas;
            self.reasons.push(format!(
                "volume {name} has {live} live in-sync replicas, minReplicas is {min}: writes wait{resync}"
            ));
        } else {
            self.volumes_degraded += 1;
            self.reasons.push(format!("volume {name} has {live} of {replicas} replicas in-sync and alive{resync}"));
        }
    }

    fn word(&self) -> &'static str {
        match (self.volumes_unavailable, self.reasons.is_empty()) {
            (0, true) => "healthy",
            (0, false) => "degraded",
            _ => "unavailable",
        }
    }

    /// How many of all combinations of three disks take every replica of something, as it is and were it at random.
    pub(crate) fn three_failures(&self) -> ThreeFailures {
        let disks = self.disks.values().sum::<usize>() as u64;
        let actual = loss::on_three_failures(self.sets.iter().map(Vec::as_slice), disks);
        ThreeFailures {
            combinations: actual.of,
            losing: actual.losing,
            losing_random_volumes: loss::at_random(self.volumes as u64, disks).losing,
            losing_random_chunks: loss::at_random(self.chunks, disks).losing,
        }
    }

    pub(crate) fn into_status(mut self, cluster: String) -> ClusterStatus {
        let health = self.word().to_owned();
        let more = self.reasons.len().saturating_sub(REASONS_MAX);
        self.reasons.truncate(REASONS_MAX);
        if more > 0 {
            self.reasons.push(format!("and {more} more"));
        }
        let three_failures = self.three_failures();
        ClusterStatus {
            cluster,
            health,
            reasons: self.reasons,
            nodes_alive: self.nodes_alive as u32,
            nodes: self.nodes as u32,
            disks_online: self.disks.get(&DiskHealth::Online).copied().unwrap_or(0) as u32,
            disks: self.disks.values().sum::<usize>() as u32,
            volumes: self.volumes as u32,
            volumes_degraded: (self.volumes_degraded + self.volumes_unavailable) as u32,
            capacity_bytes: self.capacity_bytes,
            free_bytes: self.free_bytes,
            three_failures: Some(three_failures),
        }
    }
}
