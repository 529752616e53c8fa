//! What the planner sees, put together from the catalog and from what daemons last reported. Rates and latencies are
//! measured between two looks.

use crate::control::Control;
use crate::control::registry::{DiskHealth, DiskView};
use crate::csi::params;
use crate::error::Result;
use ashlar_catalog::{Claims, StoredVolume, Volume};
use ashlar_plan::repair::{BytesPerSecond, Copied, DiskSeen, Fate, Felt, Foreground, NodeSeen, Seen, VolumeSeen, Wish};
use ashlar_rpc::NODE_VOLUMES_MAX;
use ashlar_rpc::control::{AttachedVolume, MemberStatus};
use ashlar_types::{BLOCK_BYTES, ByteCount, DiskId, Duration, Instant, MemberState, NodeName, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

const PAGE_MAX: usize = 256;
/// A volume whose guest has done nothing for so long is idle: looks come more often than reports.
const IDLE: Duration = Duration::from_secs(3);
/// Of a volume whose writer has not begun to serve.
const PHASE_OPENING: &str = "opening";
/// Over about so many looks a rate is measured.
const SMOOTH: u64 = 2;

/// What was measured at the last look, to measure by at the next one.
#[derive(Debug, Default)]
pub(in crate::control) struct Measured {
    copies: BTreeMap<(VolumeId, DiskId), Copying>,
    /// Operations of guests by the last report, and when they were last found to have grown.
    operations: BTreeMap<VolumeId, (u64, Instant)>,
    foreground: Foreground,
}

#[derive(Clone, Copy, Debug)]
struct Copying {
    at: Instant,
    done: ByteCount,
    rate: Option<BytesPerSecond>,
}

/// Everything of one look, before the planner's words.
pub(super) struct Look {
    pub(super) seen: Seen,
    pub(super) volumes: BTreeMap<VolumeId, StoredVolume>,
    /// Replicas in-sync that their writer cannot reach.
    pub(super) unreached: BTreeSet<(VolumeId, DiskId)>,
    /// Disks whose chunkservers have time to report still, after a restart of the control plane.
    pub(super) unheard: BTreeSet<DiskId>,
}

impl Control {
    pub(super) async fn look_at_everything(&self, measured: &mut Measured, now: Instant) -> Result<Look> {
        let claims = self.catalog.claims().await?;
        let mut buried: BTreeMap<VolumeId, Vec<DiskId>> = BTreeMap::new();
        for tombstone in self.tombstones().await? {
            buried.entry(tombstone.volume).or_default().push(tombstone.disk);
        }
        let mut seen = self.see_cluster(&claims, now).await;
        let mut volumes = BTreeMap::new();
        let mut reports = Vec::new();
        let mut after = None;
        loop {
            let page = self.catalog.volumes(after, PAGE_MAX).await?;
            for (id, error) in &page.unreadable {
                tracing::error!(volume = %id, %error, "a volume that cannot be read is not repaired");
            }
            for stored in page.volumes {
                let record = &stored.volume.record;
                if record.origin.is_some_and(|origin| !origin.is_made) || stored.volume.data_lost.is_some() {
                    continue;
                }
                let report = self.registry.attached(record.volume, record.holder.as_ref()).await;
                let mut volume = measured.volume(&stored.volume, report.as_ref(), now);
                volume.is_read = !stored.volume.readers.is_empty();
                volume.buried = buried.remove(&record.volume).unwrap_or_default();
                seen.volumes.insert(record.volume, volume);
                reports.extend(report.map(|report| (record.volume, report)));
                volumes.insert(record.volume, stored);
            }
            after = page.last;
            if !page.more {
                break;
            }
        }
        measured.forget_all_but(&volumes);
        measured.latencies(&mut seen, &reports);
        let unreached = unreached(&seen, &reports);
        let is_expected = |view: &DiskView| seen.nodes.get(&view.disk.node).is_some_and(|node| !node.is_silent);
        let unheard = self.registry.disks().await.into_iter().filter(|view| view.heard_ms == 0 && is_expected(view));
        let unheard = unheard.map(|view| view.disk.id).collect();
        Ok(Look { seen, volumes, unreached, unheard })
    }

    /// Nodes and disks, without volumes.
    pub(in crate::control) async fn see_cluster(&self, claims: &Claims, now: Instant) -> Seen {
        let disks = self.registry.disks().await;
        let mut seen = Seen { now, ..Seen::default() };
        for view in self.registry.nodes().await {
            let node = NodeSeen {
                zone: view.node.zone.clone(),
                is_silent: !view.chunkserver_alive,
                is_draining: view.node.is_draining,
                may_attach: view.datapath_alive && view.attached_count < NODE_VOLUMES_MAX,
                foreground: None,
            };
            seen.nodes.insert(view.node.name, node);
        }
        for view in &disks {
            let is_silent = seen.nodes.get(&view.disk.node).is_none_or(|node| node.is_silent);
            let disk = DiskSeen {
                node: view.disk.node.clone(),
                capacity: ByteCount(view.disk.capacity_bytes),
                claimed: claims.of(view.disk.id),
                used: ByteCount(view.disk.capacity_bytes.saturating_sub(view.free.0)),
                fate: fate_of(view, is_silent),
                busy_permille: 0,
            };
            seen.disks.insert(view.disk.id, disk);
        }
        seen
    }
}

fn unreached(seen: &Seen, reports: &[(VolumeId, AttachedVolume)]) -> BTreeSet<(VolumeId, DiskId)> {
    // One that opens has still to connect.
    let serving = reports.iter().filter(|(_, report)| report.phase != PHASE_OPENING);
    let of_volume = |(id, report): &(VolumeId, AttachedVolume)| {
        let is_cut_off =
            |disk: DiskId| report.members.iter().any(|status| status.disk == disk.to_string() && !status.connected);
        let in_sync = seen.volumes[id].held().map(|(_, member)| member).filter(|member| member.state.is_in_sync());
        let cut_off = in_sync.map(|member| member.disk).filter(|disk| is_cut_off(*disk));
        cut_off.map(|disk| (*id, disk)).collect::<Vec<_>>()
    };
    serving.flat_map(of_volume).collect()
}

fn fate_of(view: &DiskView, node_is_silent: bool) -> Fate {
    match view.health {
        DiskHealth::Lost => Fate::Lost,
        DiskHealth::Failed => Fate::Failed,
        DiskHealth::Silent if !node_is_silent => Fate::Missing,
        DiskHealth::Online | DiskHealth::Silent if view.disk.is_draining => Fate::Draining,
        DiskHealth::Online | DiskHealth::Silent => Fate::Usable,
    }
}

/// How many replicas the volume shall have, and where. Parameters were checked when it was made.
fn wish_of(volume: &Volume) -> (u8, Wish) {
    let widest = volume.record.chunks.iter().map(|run| run.members.len()).max().unwrap_or(1) as u8;
    let asked = params::parse(&volume.parameters);
    asked.map_or((widest, Wish::default()), |params| (params.replicas, params.wish()))
}

impl Measured {
    fn volume(&mut self, volume: &Volume, report: Option<&AttachedVolume>, now: Instant) -> VolumeSeen {
        let (replicas, wish) = wish_of(volume);
        let (class, claim) = (volume.settings.class, volume.claim());
        let mut seen =
            VolumeSeen { wish, ..VolumeSeen::of(&volume.record, class, replicas, claim, volume.is_repaired) };
        for status in report.iter().flat_map(|report| &report.members) {
            let member = seen.members.iter_mut().find(|member| member.disk.to_string() == status.disk);
            let Some(member) = member.filter(|member| matches!(member.state, MemberState::Syncing { .. })) else {
                continue;
            };
            if status.resync_blocks_total > 0 {
                member.copy = Some(self.copied((volume.id(), member.disk), status, now));
            }
        }
        seen
    }

    fn copied(&mut self, key: (VolumeId, DiskId), status: &MemberStatus, now: Instant) -> Copied {
        let bytes = |blocks: u64| ByteCount(blocks.saturating_mul(BLOCK_BYTES));
        let (done, total) = (bytes(status.resync_blocks_copied), bytes(status.resync_blocks_total));
        let begun = Copying { at: now, done, rate: None };
        let copying = self.copies.entry(key).or_insert(begun);
        if done < copying.done {
            *copying = begun;
        }
        let elapsed = now.since(copying.at);
        // Reports come once a second: between two of them nothing moves.
        if done > copying.done && elapsed >= Duration::from_millis(500) || elapsed >= Duration::from_secs(3) {
            let moved = u128::from(done.0 - copying.done.0) * 1_000_000_000;
            let fresh = u64::try_from(moved / elapsed.as_nanos().max(1)).unwrap_or(u64::MAX);
            let rate = copying.rate.map_or(fresh, |rate| (rate.0 * (SMOOTH - 1) + fresh) / SMOOTH);
            // One that stands still has no rate: what it had says nothing of what it will have.
            let rate = (moved > 0).then_some(BytesPerSecond(rate));
            *copying = Copying { at: now, done, rate };
        }
        Copied { done, total, rate: copying.rate }
    }

    fn forget_all_but(&mut self, volumes: &BTreeMap<VolumeId, StoredVolume>) {
        self.copies.retain(|(volume, disk), _| {
            let record = volumes.get(volume).map(|stored| &stored.volume.record);
            let member = record.and_then(|record| record.member(*disk));
            member.is_some_and(|member| matches!(member.state, MemberState::Syncing { .. }))
        });
        self.operations.retain(|volume, _| volumes.contains_key(volume));
    }

    /// Latency of guests' requests on the slowest disk of each node, as its volumes' writers see it: now, and while
    /// nothing was copied there.
    fn latencies(&mut self, seen: &mut Seen, reports: &[(VolumeId, AttachedVolume)]) {
        let mut felt: BTreeMap<NodeName, BTreeMap<DiskId, Vec<Felt>>> = BTreeMap::new();
        for (id, report) in reports {
            let operations = report.reads + report.writes;
            let (before, used_at) = self.operations.entry(*id).or_insert((operations, Instant::ZERO));
            if *before != operations {
                (*before, *used_at) = (operations, seen.now);
            }
            if *used_at == Instant::ZERO || seen.now.since(*used_at) >= IDLE {
                continue;
            }
            for member in &seen.volumes[id].members {
                let told = report.members.iter().find(|status| status.disk == member.disk.to_string());
                let Some(told) = told.filter(|told| told.latency_us > 0 && member.state.is_in_sync()) else { continue };
                let p99 = (told.latency_p99_us > 0).then_some(Duration::from_micros(told.latency_p99_us));
                let disks = felt.entry(member.node.clone()).or_default();
                let mean = Duration::from_micros(told.latency_us);
                disks.entry(member.disk).or_default().push(Felt { mean, p99 });
            }
        }
        let copies = seen.volumes.values().filter(|volume| volume.members.iter().any(|member| member.copy.is_some()));
        let busy: Vec<NodeName> = copies.flat_map(|volume| &volume.members).map(|member| member.node.clone()).collect();
        self.foreground.retain(|node| seen.nodes.contains_key(node));
        for (node, by_disk) in felt {
            let felt = Felt::of_node(&by_disk.into_values().collect::<Vec<_>>());
            if let Some(known) = seen.nodes.get_mut(&node) {
                known.foreground = Some(self.foreground.observe(&node, felt, busy.contains(&node)));
            }
        }
    }
}
