//! Self-healing: the planner of the control plane, on what can be seen of the cluster, its steps carried out on the
//! catalog and told to writers. Some steps get lost, nodes are drained and taken back, the planner is restarted, and
//! disks go while others are being filled in their place. Attachments for repair have no place here: volumes are always
//! in use.

use crate::catalog::node_name;
use crate::format;
use crate::names::{MILLIS, Node, Vol};
use crate::rng::Rng;
use crate::trace::Touch;
use crate::world::{Happening, World, disk_of};
use ashlar_plan::membership::{self, Refusal};
use ashlar_plan::repair::{Bounds, DiskSeen, Fate, NodeSeen, Planner, Seen, Step, VolumeSeen, Why};
use ashlar_types::{ByteCount, Class, DiskId, Duration, Instant, Member, MemberState, VolumeRecord};
use ashlar_volume::Event;
use std::collections::BTreeSet;

/// Steps that get lost, of a million.
const LOST_PPM: u32 = 150_000;
const DISK_CAPACITY: ByteCount = ByteCount(1 << 40);

pub struct Healing {
    planner: Planner,
    drained: BTreeSet<Node>,
    /// The last look found something to do.
    is_busy: bool,
    rng: Rng,
}

impl Healing {
    pub fn new(seed: u64) -> Healing {
        let rng = Rng::named(seed, "healing");
        Healing { planner: Planner::new(bounds()), drained: BTreeSet::new(), is_busy: false, rng }
    }
}

/// Runs are short, and so is patience.
fn bounds() -> Bounds {
    Bounds { grace: Duration::from_millis(1200), follow_after: Duration::from_millis(1500), ..Bounds::default() }
}

impl World {
    /// One look, and the next one later.
    pub fn heal(&mut self) {
        let Some(mut healing) = self.healing.take() else { return };
        if self.catalog.up {
            self.disturb(&mut healing);
            let seen = self.see(&healing.drained);
            let plan = healing.planner.plan(&seen);
            healing.is_busy = !plan.steps.is_empty();
            for step in plan.steps {
                if self.quiet || !healing.rng.chance(LOST_PPM) {
                    self.carry_out(step);
                }
            }
        }
        let after = healing.rng.range(200, 1000) * MILLIS;
        self.healing = Some(healing);
        self.agenda.add(self.now + after, Happening::Heal);
    }

    /// Faults are over, and nothing is left to do.
    pub fn is_healed(&self) -> bool {
        self.healing.as_ref().is_none_or(|healing| !healing.is_busy)
    }

    fn disturb(&mut self, healing: &mut Healing) {
        if self.quiet {
            healing.drained.clear();
        } else if healing.rng.below(16) == 0 {
            let node = Node(healing.rng.below(u64::from(self.scenario.nodes)) as u16);
            if !healing.drained.remove(&node) && healing.drained.is_empty() {
                healing.drained.insert(node);
                self.trace.count("event: node drained");
            }
        } else if healing.rng.below(16) == 0 {
            healing.planner = Planner::new(bounds());
            self.trace.count("event: planner restarted");
        }
    }

    fn see(&self, drained: &BTreeSet<Node>) -> Seen {
        let plane = self.net.control_plane();
        let mut seen = Seen { now: Instant::from_nanos(self.now), ..Seen::default() };
        for disk in self.disks() {
            let server = &self.servers[disk.index()];
            let is_cut = self.net.is_cut(server.node, plane) || self.net.is_cut(plane, server.node);
            let process = server.process.as_ref().filter(|process| process.paused.is_none() && !is_cut);
            let fate = if process.is_some_and(|process| process.failed) { Fate::Failed } else { Fate::Usable };
            let node = NodeSeen {
                zone: None,
                is_silent: process.is_none(),
                is_draining: drained.contains(&server.node),
                may_attach: false,
                foreground: None,
            };
            let name = node_name(server.node);
            seen.nodes.insert(name.clone(), node);
            let (capacity, none) = (DISK_CAPACITY, ByteCount(0));
            let seen_disk = DiskSeen { node: name, capacity, claimed: none, used: none, fate, busy_permille: 0 };
            seen.disks.insert(format::disk_id(disk), seen_disk);
        }
        for volume in self.volumes() {
            let record = self.catalog.record(volume);
            if record.origin.is_none_or(|origin| origin.is_made) {
                seen.volumes.insert(record.volume, self.see_volume(volume, record));
            }
        }
        for volume in seen.volumes.values() {
            for (_, member) in volume.held() {
                let disk = seen.disks.get_mut(&member.disk).expect("every disk is seen");
                disk.claimed.0 += volume.claim.0;
            }
        }
        seen
    }

    fn see_volume(&self, volume: Vol, record: &VolumeRecord) -> VolumeSeen {
        let class = Class::ALL[volume.index() % Class::ALL.len()];
        let mut seen = VolumeSeen::of(record, class, 3, record.size, false);
        let buried = self.clones.tombstones.keys().filter(|(of, _)| *of == volume);
        seen.buried = buried.map(|(_, disk)| format::disk_id(*disk)).collect();
        seen
    }

    fn carry_out(&mut self, step: Step) {
        let volume = format::volume_of(step.volume());
        match step {
            Step::Replace { gone, with, .. } => {
                let changed = |record: &VolumeRecord| membership::replace(record, gone, new_member(with));
                if self.heals(volume, changed, "event: planner replaces a replica") {
                    self.check_comer(volume, disk_of(with));
                    self.leave_behind(volume, disk_of(gone));
                }
            }
            Step::Widen { leaving, with, why, .. } => {
                let changed = |record: &VolumeRecord| membership::widen(record, leaving, new_member(with));
                let what = match why {
                    Why::Away { .. } => "event: planner makes a temporary replica",
                    _ => "event: planner moves a replica",
                };
                if self.heals(volume, changed, what) {
                    self.check_comer(volume, disk_of(with));
                }
            }
            Step::Narrow { disk, why, .. } => self.narrow(volume, disk, &why),
            Step::Copy { rate, source, .. } => {
                if let Some(writer) = self.current(volume) {
                    self.tell_writer(writer, Event::Pace { bytes_per_second: Some(rate.0), source });
                }
            }
            Step::Repair { .. } | Step::StopRepair { .. } => {}
        }
    }

    fn narrow(&mut self, volume: Vol, disk: DiskId, why: &Why) {
        let is_in_sync = |member: &Member| member.state == MemberState::InSync;
        let is_in_sync = self.catalog.record(volume).member(disk).is_some_and(is_in_sync);
        if let (true, Some(writer)) = (is_in_sync, self.current(volume)) {
            self.tell_writer(writer, Event::LetGo { disk });
            return;
        }
        let what = match why {
            Why::Moved { .. } => "event: planner ends a move",
            Why::Cancelled { .. } => "event: planner takes a move back",
            Why::NoLongerAway { .. } => "event: planner ends a temporary replica",
            _ => "event: planner lets another one take the place",
        };
        let narrowed = |record: &VolumeRecord| match is_in_sync {
            true => membership::retire(record, disk),
            false => membership::narrow(record, disk),
        };
        if self.heals(volume, narrowed, what) {
            self.leave_behind(volume, disk_of(disk));
        }
    }

    /// Whether the record has changed.
    fn heals(
        &mut self,
        volume: Vol,
        change: impl FnOnce(&VolumeRecord) -> Result<VolumeRecord, Refusal>,
        what: &'static str,
    ) -> bool {
        let version = self.catalog.record(volume).version;
        let is_changed =
            self.catalog.change(volume, |record| change(record).ok()) && self.catalog.record(volume).version > version;
        if is_changed {
            self.trace.count(what);
            self.trace.line(self.now, Touch::all(volume), || format!("{what}: {volume}"));
        }
        is_changed
    }
}

fn new_member(disk: DiskId) -> Member {
    Member { disk, node: node_name(Node(disk_of(disk).0)), zone: None, state: MemberState::InSync }
}
