//! A cluster that does what the planner says: copies take time, nodes and disks come and go, writers eject and take in
//! as the rules of membership say, and every step is checked before and after it is carried out.

use super::super::*;
use crate::membership;
use crate::placement::{Ask, Need, Surroundings, place_among};
use ashlar_types::{
    ByteCount, ChunkIndex, ChunkRun, Class, ClusterId, Duration, Epoch, Instant, Lsn, Member, MemberState, NodeName,
    VolumeRecord, ZoneName,
};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
const LOOK_MS: u64 = 1000;
/// Deletions are tried now and then.
const REAP_MS: u64 = 30 * LOOK_MS;

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) nodes: BTreeMap<NodeName, Node>,
    pub(super) disks: BTreeMap<DiskId, Disk>,
    pub(super) volumes: BTreeMap<VolumeId, Volume>,
    /// True time; what the planner is shown is `shift_ms` off.
    pub(super) now_ms: u64,
    pub(super) shift_ms: u64,
    /// Of what is given, how much a copy makes.
    pub(super) yield_percent: u64,
    pub(super) counts: Counts,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) zone: Option<ZoneName>,
    pub(super) down_since_ms: Option<u64>,
    pub(super) started_ms: Option<u64>,
    pub(super) is_draining: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) node: NodeName,
    pub(super) capacity: u64,
    pub(super) fate: Fate,
}

#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub(super) record: VolumeRecord,
    pub(super) class: Class,
    pub(super) claim: u64,
    pub(super) by_repair: bool,
    /// What was copied to members that are syncing.
    copied: BTreeMap<DiskId, u64>,
    rate: u64,
    measured: BTreeMap<DiskId, u64>,
    pub(super) attached_since_ms: u64,
    pub(super) safe_since_ms: Option<u64>,
    /// Disks that still have what they had of it.
    buried: BTreeSet<DiskId>,
    /// Up to which epoch a disk that chunks were taken from refuses writers.
    fenced: BTreeMap<DiskId, Epoch>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) replaces: usize,
    pub(super) widens: usize,
    pub(super) narrows: usize,
    pub(super) copied: u64,
}

pub(super) fn node(number: usize) -> NodeName {
    format!("n{number:03}").parse().unwrap()
}

pub(super) fn disk(number: usize) -> DiskId {
    DiskId::from_u128(number as u128)
}

pub(super) fn volume(number: usize) -> VolumeId {
    VolumeId::from_u128(number as u128)
}

impl World {
    /// Nodes and disks count from 0; disk `i` is on node `i % nodes`.
    pub(super) fn new(nodes: usize, disks: usize, zones: usize, capacity: u64) -> World {
        let zone = |number: usize| (zones > 0).then(|| format!("z{}", number % zones).parse().unwrap());
        let made = |number| (node(number), Node { zone: zone(number), ..Node::default() });
        let on = |number: usize| Disk { node: node(number % nodes), capacity, fate: Fate::Usable };
        World {
            nodes: (0..nodes).map(made).collect(),
            disks: (0..disks).map(|number| (disk(number), on(number))).collect(),
            volumes: BTreeMap::new(),
            now_ms: 0,
            shift_ms: 0,
            yield_percent: 100,
            counts: Counts::default(),
        }
    }

    /// A volume of three replicas where placement puts it, or none if there is no room.
    pub(super) fn add(&mut self, id: VolumeId, class: Class, claim: u64, holder: Option<NodeName>) -> bool {
        self.add_over(id, class, claim, holder, 3)
    }

    /// Three replicas of each chunk, over so many disks.
    pub(super) fn add_over(
        &mut self,
        id: VolumeId,
        class: Class,
        claim: u64,
        holder: Option<NodeName>,
        disks: u8,
    ) -> bool {
        let first_nodes: Vec<NodeName> = holder.iter().cloned().collect();
        let ask = Ask { size: ByteCount(claim), replicas: disks, first_nodes, strict: false };
        let candidates = candidates(&self.see(), Bounds::default().watermark_permille);
        let placed = place_among(&ask, &Need::default(), &candidates, &Surroundings::default());
        let Ok(placed) = placed else { return false };
        let disks: Vec<DiskId> = placed.iter().map(|(candidate, _)| candidate.disk).collect();
        self.add_on(id, class, claim, holder, &disks);
        true
    }

    pub(super) fn add_on(
        &mut self,
        id: VolumeId,
        class: Class,
        claim: u64,
        holder: Option<NodeName>,
        disks: &[DiskId],
    ) {
        let count = claim.div_ceil(64 * MIB) as u32;
        let members: Vec<Member> = disks.iter().map(|disk| self.member(*disk, MemberState::InSync)).collect();
        // Of four disks the first half of the chunks has the first three, the second the last three.
        let half = count / 2;
        let run =
            |first: u32, count, members: &[u16]| ChunkRun { first: ChunkIndex(first), count, members: members.into() };
        let chunks = match members.len() {
            4 => vec![run(0, half, &[0, 1, 2]), run(half, count - half, &[1, 2, 3])],
            _ => vec![run(0, count, &[0, 1, 2])],
        };
        let record = VolumeRecord {
            cluster: ClusterId::from_u128(1),
            volume: id,
            size: ByteCount(claim),
            epoch: Epoch::NONE,
            version: 1,
            holder,
            served: Epoch::NONE,
            clean: true,
            min_replicas: 2,
            members,
            chunks,
            declared_lost: vec![],
            snapshots: vec![],
            clones: vec![],
            origin: None,
            last_change: None,
        };
        let (copied, measured) = (BTreeMap::new(), BTreeMap::new());
        let (attached_since_ms, safe_since_ms) = (self.now_ms, Some(self.now_ms));
        let (by_repair, rate, buried, fenced) = (false, 0, BTreeSet::new(), BTreeMap::new());
        let made = Volume {
            record,
            class,
            claim,
            by_repair,
            copied,
            rate,
            measured,
            attached_since_ms,
            safe_since_ms,
            buried,
            fenced,
        };
        self.volumes.insert(id, made);
    }

    fn member(&self, disk: DiskId, state: MemberState) -> Member {
        let node = self.disks[&disk].node.clone();
        Member { disk, zone: self.nodes[&node].zone.clone(), node, state }
    }

    pub(super) fn is_up(&self, node: &NodeName) -> bool {
        self.nodes[node].down_since_ms.is_none()
    }

    pub(super) fn works(&self, disk: DiskId) -> bool {
        let known = &self.disks[&disk];
        matches!(known.fate, Fate::Usable | Fate::Draining) && self.is_up(&known.node)
    }

    /// Replicas of the weakest chunk that are in-sync, on disks that work.
    pub(super) fn safe(&self, volume: &Volume) -> usize {
        let counts = |index: &&u16| {
            let member = &volume.record.members[usize::from(**index)];
            member.state.is_in_sync() && self.works(member.disk)
        };
        volume.record.chunks.iter().map(|run| run.members.iter().filter(counts).count()).min().unwrap()
    }

    /// Every volume would keep a replica, whatever else happens to these disks.
    pub(super) fn survives_without(&self, gone: impl Fn(&Disk) -> bool) -> bool {
        let mut without = self.clone();
        for disk in without.disks.values_mut().filter(|disk| gone(disk)) {
            disk.fate = Fate::Lost;
        }
        without.volumes.values().all(|volume| without.safe(volume) > 0)
    }

    pub(super) fn see(&self) -> Seen {
        let nodes = self.nodes.iter().map(|(name, node)| {
            let is_silent = node.down_since_ms.is_some();
            let (zone, is_draining) = (node.zone.clone(), node.is_draining);
            (name.clone(), NodeSeen { zone, is_silent, is_draining, may_attach: !is_silent, foreground: None })
        });
        let disks = self.disks.iter().map(|(&id, disk)| {
            let claimed = ByteCount(self.claimed(id));
            let (node, capacity, fate) = (disk.node.clone(), ByteCount(disk.capacity), disk.fate);
            (id, DiskSeen { node, capacity, claimed, used: claimed, fate, busy_permille: 0 })
        });
        Seen {
            now: Instant::from_nanos(self.now_ms.wrapping_add(self.shift_ms).wrapping_mul(1_000_000)),
            nodes: nodes.collect(),
            disks: disks.collect(),
            volumes: self.volumes.iter().map(|(&id, volume)| (id, volume.seen())).collect(),
        }
    }

    fn claimed(&self, disk: DiskId) -> u64 {
        let holds = |volume: &&Volume| volume.held().any(|member| member.disk == disk);
        self.volumes.values().filter(holds).map(|volume| volume.claim).sum()
    }

    /// One look: plans, checks, carries out, and a second passes.
    pub(super) fn look(&mut self, planner: &mut Planner) -> Plan {
        let plan = planner.plan(&self.see());
        for volume in self.volumes.values_mut() {
            volume.rate = 0;
        }
        plan.steps.iter().for_each(|step| super::truth::check(self, step));
        for step in &plan.steps {
            let before = self.safe(&self.volumes[&step.volume()]);
            self.apply(step);
            let changed = &self.volumes[&step.volume()];
            let (after, nodes) = (self.safe(changed), changed.held().map(|member| &member.node));
            assert!(after >= before.min(3), "{before} replicas before, {after} after {step:?}");
            assert_eq!(nodes.collect::<BTreeSet<_>>().len(), changed.held().count(), "two on one node: {step:?}");
        }
        self.pass();
        self.reap(&plan);
        plan
    }

    /// Disks that work delete what they had, where enough is left.
    fn reap(&mut self, plan: &Plan) {
        if !self.now_ms.is_multiple_of(REAP_MS) {
            return;
        }
        for id in self.volumes.keys().copied().collect::<Vec<_>>() {
            let is_stuck = plan.stuck.iter().any(|stuck| stuck.volume == id);
            if membership::may_forget(&self.volumes[&id].record, |disk| self.works(disk), is_stuck) {
                let mut buried = std::mem::take(&mut self.volumes.get_mut(&id).unwrap().buried);
                buried.retain(|disk| !self.works(*disk));
                self.volumes.get_mut(&id).unwrap().buried = buried;
            }
        }
    }

    fn apply(&mut self, step: &Step) {
        let member_of = |disk: DiskId| self.member(disk, MemberState::Out { commit: Lsn::ZERO });
        let with = match step {
            Step::Replace { with, .. } | Step::Widen { with, .. } => Some(member_of(*with)),
            _ => None,
        };
        let volume = self.volumes.get_mut(&step.volume()).expect("a step is about a volume that was seen");
        match step {
            Step::Replace { gone, .. } => {
                volume.record = membership::replace(&volume.record, *gone, with.unwrap()).unwrap();
                volume.leaves(*gone);
                self.counts.replaces += 1;
            }
            Step::Widen { leaving, .. } => {
                volume.widen(*leaving, with.unwrap());
                self.counts.widens += 1;
            }
            Step::Narrow { disk, .. } => {
                self.counts.narrows += usize::from(volume.narrow(*disk));
            }
            Step::Repair { node, .. } => {
                assert!(volume.record.holder.as_ref().is_none_or(|holder| volume.by_repair && holder == node));
                if volume.record.holder.is_none() {
                    volume.attach(node);
                }
                volume.by_repair = true;
            }
            Step::StopRepair { .. } => {
                assert!(volume.by_repair);
                (volume.record.holder, volume.by_repair) = (None, false);
            }
            Step::Copy { rate, .. } => volume.rate = rate.0,
        }
    }

    /// Nodes that are down hold nothing; writers notice, eject, take in and copy.
    fn pass(&mut self) {
        self.now_ms += LOOK_MS;
        let (up, works): (BTreeSet<NodeName>, BTreeSet<DiskId>) = (
            self.nodes.keys().filter(|node| self.is_up(node)).cloned().collect(),
            self.disks.keys().filter(|disk| self.works(**disk)).copied().collect(),
        );
        for volume in self.volumes.values_mut() {
            for disk in volume.record.members.iter().map(|member| member.disk).collect::<Vec<_>>() {
                if self.disks[&disk].fate == Fate::Lost {
                    let declared = membership::declare_lost(&volume.record, disk, true);
                    volume.record = declared.unwrap_or_else(|_| volume.record.clone());
                }
            }
            if volume.record.holder.as_ref().is_some_and(|holder| !up.contains(holder)) {
                (volume.record.holder, volume.by_repair) = (None, false);
            }
            if volume.record.holder.is_some() {
                self.counts.copied += volume.write(&works, self.yield_percent, self.now_ms);
            }
        }
        for id in self.volumes.keys().copied().collect::<Vec<_>>() {
            let is_safe = self.safe(&self.volumes[&id]) >= 3;
            let (now, volume) = (self.now_ms, self.volumes.get_mut(&id).unwrap());
            volume.safe_since_ms = is_safe.then(|| volume.safe_since_ms.unwrap_or(now));
        }
    }

    /// Looks until nothing is left to do, `looks_max` times at most. What writers do after a look shows at the next.
    pub(super) fn settle(&mut self, planner: &mut Planner, looks_max: usize) -> Plan {
        let mut idle = 0;
        for _ in 0..looks_max {
            let plan = self.look(planner);
            idle = if plan.steps.is_empty() && !self.grace_runs(&planner.bounds) { idle + 1 } else { 0 };
            if idle == 2 {
                return plan;
            }
        }
        panic!("not settled after {looks_max} looks: {:?}", planner.plan(&self.see()).steps);
    }

    fn grace_runs(&self, bounds: &Bounds) -> bool {
        let grace_ms = bounds.grace.max(bounds.follow_after).as_millis() as u64 + 2 * LOOK_MS;
        let recent = |since: u64| self.now_ms < since + grace_ms;
        self.nodes.values().any(|node| node.down_since_ms.is_some_and(recent))
            || self.volumes.values().any(|volume| recent(volume.attached_since_ms))
    }
}

impl Volume {
    pub(super) fn held(&self) -> impl Iterator<Item = &Member> {
        let holds = |index: usize| self.record.chunks.iter().any(|run| run.members.contains(&(index as u16)));
        self.record.members.iter().enumerate().filter(move |(index, _)| holds(*index)).map(|(_, member)| member)
    }

    /// The fewest replicas in-sync that any chunk has, not counting this one.
    pub(super) fn in_sync_without(&self, without: DiskId) -> usize {
        let others = |run: &ChunkRun| {
            let members = run.members.iter().map(|index| &self.record.members[usize::from(*index)]);
            members.filter(|member| member.state.is_in_sync() && member.disk != without).count()
        };
        self.record.chunks.iter().map(others).min().unwrap()
    }

    pub(super) fn widest(&self) -> usize {
        self.record.chunks.iter().map(|run| run.members.len()).max().unwrap()
    }

    fn seen(&self) -> VolumeSeen {
        let mut seen = VolumeSeen::of(&self.record, self.class, 3, ByteCount(self.claim), self.by_repair);
        seen.buried = self.buried.iter().copied().collect();
        for member in &mut seen.members {
            if let MemberState::Syncing { commit } = member.state {
                let done = self.copied.get(&member.disk).copied().unwrap_or(0);
                let rate = self.measured.get(&member.disk).map(|&rate| BytesPerSecond(rate));
                member.copy = Some(Copied { done: ByteCount(done), total: self.total(commit), rate });
            }
        }
        seen
    }

    /// A resync brings a tenth.
    fn total(&self, commit: Lsn) -> ByteCount {
        ByteCount(if commit == Lsn::ZERO { self.claim } else { self.claim / 10 })
    }

    /// By the next writer, whoever held it.
    pub(super) fn attach(&mut self, on: &NodeName) {
        self.record = membership::grant(&membership::release_by_force(&self.record), on).unwrap();
        self.by_repair = false;
    }

    /// Nothing of it is left there, and the writer to come is not one that the deletion has fenced.
    pub(super) fn may_take(&self, disk: DiskId) -> bool {
        !self.buried.contains(&disk) && self.fenced.get(&disk).is_none_or(|&fenced| fenced < self.record.epoch)
    }

    fn leaves(&mut self, disk: DiskId) {
        self.buried.insert(disk);
        self.fenced.insert(disk, self.record.epoch);
    }

    fn widen(&mut self, leaving: DiskId, with: Member) {
        self.record = membership::widen(&self.record, leaving, with).unwrap();
    }

    /// A writer lets go of what is in-sync; the replica goes when the planner says so again.
    fn narrow(&mut self, disk: DiskId) -> bool {
        let state = &mut self.record.members.iter_mut().find(|member| member.disk == disk).unwrap().state;
        if *state == MemberState::InSync && self.record.holder.is_some() {
            *state = MemberState::Out { commit: Lsn::start_of(Epoch::new(1).unwrap()) };
            return false;
        }
        let narrowed = membership::narrow(&self.record, disk).or_else(|_| membership::retire(&self.record, disk));
        self.record = narrowed.unwrap_or_else(|refusal| panic!("{refusal}: {:?}", self.record));
        self.leaves(disk);
        true
    }

    /// One second of the volume's writer; returns the bytes that it copied.
    fn write(&mut self, works: &BTreeSet<DiskId>, yield_percent: u64, now_ms: u64) -> u64 {
        for index in 0..self.record.members.len() {
            let member = &self.record.members[index];
            let (disk, is_working) = (member.disk, works.contains(&member.disk));
            let next = match member.state {
                MemberState::InSync if !is_working && self.record.fewest_in_sync_without(&[disk]) >= 2 => {
                    MemberState::Out { commit: Lsn::from_raw(Lsn::start_of(Epoch::new(1).unwrap()).raw() + now_ms) }
                }
                MemberState::Out { commit } if is_working => MemberState::Syncing { commit },
                state => state,
            };
            self.record.members[index].state = next;
            if !matches!(next, MemberState::Syncing { .. }) {
                self.copied.remove(&disk);
            }
        }
        self.copy(works, yield_percent)
    }

    fn copy(&mut self, works: &BTreeSet<DiskId>, yield_percent: u64) -> u64 {
        self.measured.clear();
        let sources = self.held().filter(|member| member.state.is_in_sync() && works.contains(&member.disk)).count();
        let targets: Vec<(DiskId, Lsn)> =
            self.held().filter_map(|member| Some((member.disk, syncing(member)?))).collect();
        if sources == 0 || targets.is_empty() {
            return 0;
        }
        let each = self.rate * yield_percent / 100 / targets.len() as u64;
        let mut all = 0;
        for (disk, commit) in &targets {
            let total = self.total(*commit).0;
            let copied = self.copied.entry(*disk).or_default();
            let fresh = each.min(total - *copied);
            (*copied, all) = (*copied + fresh, all + fresh);
            self.measured.insert(*disk, each);
            if *copied >= total {
                let member = self.record.members.iter_mut().find(|member| member.disk == *disk).unwrap();
                member.state = MemberState::InSync;
            }
        }
        all
    }
}

fn syncing(member: &Member) -> Option<Lsn> {
    match member.state {
        MemberState::Syncing { commit } => Some(commit),
        _ => None,
    }
}

pub(super) fn seconds(duration: Duration) -> u64 {
    duration.as_secs()
}
