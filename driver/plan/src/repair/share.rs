//! Shares: how the rates of nodes, disks and the cluster are given out to the volumes that have something to copy.
//!
//! A volume's copy takes its rate from everything that it touches: the disk it is read from and those it is written to,
//! their nodes, the node of the writer, through which it goes, and the cluster. In the order of `order.rs` each volume
//! is given all that is left of the scarcest of these; who is left with less than a slice gets nothing, and waits. So
//! the most urgent copies go at full speed, those that touch other disks and nodes go beside them, and who is less
//! urgent than somebody on its disks waits.
//!
//! The source is the replica whose disk has given least in this look, but the one on the node of the volume's pod only
//! if there is no other: that disk serves the database.

use super::grace::View;
use super::moves::{Moves, pod};
use super::order::Case;
use super::temporary::Temporary;
use super::{BytesPerSecond, MemberSeen, VolumeSeen, pace::Pace};
use ashlar_types::{DiskId, Duration, NodeName, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// A rate that is not worth a copy.
const SLICE_SHARE: u64 = 16;

/// What each volume with something to copy was given.
#[derive(Debug, Default)]
pub(super) struct Shares {
    pub(super) given: BTreeMap<VolumeId, Share>,
    pub(super) of_nodes: BTreeMap<NodeName, BytesPerSecond>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) rate: BytesPerSecond,
    pub(super) source: Option<DiskId>,
    /// Something of it came by the volume's own rank, not because it is overdue.
    pub(super) by_rank: bool,
}

/// A volume that has something to copy.
#[derive(Clone)]
pub(super) struct Copying<'a> {
    pub(super) id: VolumeId,
    pub(super) volume: &'a VolumeSeen,
    /// For how long it has been given nothing by its rank.
    pub(super) waited: Duration,
    targets: Vec<&'a MemberSeen>,
}

impl<'a> Copying<'a> {
    /// `None`: nothing can be copied now.
    pub(super) fn of(view: &View<'a>, case: &Case<'a>, moves: &Moves, waited: Duration) -> Option<Copying<'a>> {
        let temporary = Temporary::of(view, case.id, case.volume, moves).map(|one| one.member.disk);
        let returning = case.volume.held().map(|(_, member)| member);
        let targets: Vec<&MemberSeen> = returning
            .filter(|m| !m.state.is_in_sync() && view.seen.is_alive(m.disk) && temporary != Some(m.disk))
            .collect();
        let is_some = case.volume.holder.is_some() && !targets.is_empty();
        is_some.then_some(Copying { id: case.id, volume: case.volume, waited, targets })
    }
}

/// What is left to give.
struct Budget<'a> {
    view: View<'a>,
    pace: &'a Pace,
    nodes: BTreeMap<&'a NodeName, u64>,
    disks: BTreeMap<DiskId, u64>,
    cluster: u64,
    spent_on: BTreeMap<DiskId, u64>,
}

/// `copying`: the most urgent first.
pub(super) fn shares<'a>(view: &View<'a>, copying: &[Copying<'a>], pace: &Pace) -> Shares {
    let (nodes, disks, spent_on) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let cluster = view.bounds.cluster_ceiling.0;
    let mut budget = Budget { view: *view, pace, nodes, disks, cluster, spent_on };
    let mut given: BTreeMap<VolumeId, Share> = copying.iter().map(|copying| (copying.id, Share::default())).collect();
    for overdue in overdue(view, copying) {
        let most = view.bounds.node_floor.0 / 2;
        let (rate, source) = budget.take(overdue, None, most);
        given.insert(overdue.id, Share { rate: BytesPerSecond(rate), source, by_rank: false });
    }
    for copying in copying {
        let share = given.get_mut(&copying.id).expect("each has one");
        let (more, source) = budget.take(copying, share.source, u64::MAX);
        *share = Share { rate: BytesPerSecond(share.rate.0 + more), source, by_rank: more > 0 };
    }
    let of_nodes = budget.nodes.iter().map(|(&node, &left)| {
        let given = pace.rate(node).0.saturating_sub(left);
        (node.clone(), BytesPerSecond(given))
    });
    Shares { of_nodes: of_nodes.collect(), given }
}

/// Those that have waited for too long, longest first, one on each disk.
fn overdue<'a, 'b>(view: &View, copying: &'b [Copying<'a>]) -> Vec<&'b Copying<'a>> {
    let mut waiting: Vec<&Copying> = copying.iter().filter(|copying| copying.waited >= view.bounds.wait_max).collect();
    waiting.sort_by_key(|copying| (std::cmp::Reverse(copying.waited), copying.id));
    let mut taken: BTreeSet<DiskId> = BTreeSet::new();
    waiting.retain(|copying| {
        let is_first = copying.targets.iter().all(|member| !taken.contains(&member.disk));
        taken.extend(copying.targets.iter().map(|member| member.disk).filter(|_| is_first));
        is_first
    });
    waiting
}

impl<'a> Budget<'a> {
    /// All that is left for this volume, `most` at most, from `source` if that was chosen already.
    fn take(&mut self, copying: &Copying<'a>, source: Option<DiskId>, most: u64) -> (u64, Option<DiskId>) {
        let Some(source) = self.source(copying.volume, source) else { return (0, None) };
        let holder = copying.volume.holder.as_ref().map(|holder| &holder.node);
        let nodes: BTreeSet<&NodeName> =
            copying.targets.iter().copied().chain([source]).map(|member| &member.node).chain(holder).collect();
        let disks: Vec<DiskId> = copying.targets.iter().copied().chain([source]).map(|member| member.disk).collect();
        let of_disks = disks.iter().map(|disk| self.left_of_disk(*disk)).min().unwrap_or(0);
        let of_nodes = nodes.iter().map(|node| self.left_of_node(node)).min().unwrap_or(0);
        let rate = of_disks.min(of_nodes).min(self.cluster).min(most);
        if rate < (self.view.bounds.node_floor.0 / SLICE_SHARE).max(1) {
            return (0, Some(source.disk));
        }
        self.cluster -= rate;
        for disk in disks {
            *self.disks.get_mut(&disk).expect("it was looked up") -= rate;
        }
        for node in nodes {
            *self.nodes.get_mut(node).expect("it was looked up") -= rate;
        }
        *self.spent_on.entry(source.disk).or_default() += rate;
        (rate, Some(source.disk))
    }

    fn source(&self, volume: &'a VolumeSeen, chosen: Option<DiskId>) -> Option<&'a MemberSeen> {
        let sources = volume.held().map(|(_, member)| member).filter(|member| self.view.is_safe(member));
        let local = pod(volume);
        let spent = |member: &MemberSeen| self.spent_on.get(&member.disk).copied().unwrap_or(0);
        sources.min_by_key(|member| {
            let is_other = chosen.is_some_and(|chosen| chosen != member.disk);
            (is_other, Some(&member.node) == local, spent(member), member.disk)
        })
    }

    fn left_of_disk(&mut self, disk: DiskId) -> u64 {
        let ceiling = self.view.bounds.disk_ceiling.0;
        *self.disks.entry(disk).or_insert(ceiling)
    }

    fn left_of_node(&mut self, node: &'a NodeName) -> u64 {
        let rate = self.pace.rate(node).0;
        *self.nodes.entry(node).or_insert(rate)
    }
}
