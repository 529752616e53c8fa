//! Replicas that are moved while their volume is used, as a drain, a balance or a pod's own node ask for it: another
//! disk comes to hold the chunks beside the one that shall go, which goes when that one is in-sync. And rates at which
//! returning disks are filled. All of it may be given up half-way, and what the control plane says may get lost.

use crate::catalog::node_name;
use crate::format;
use crate::names::{Disk, MILLIS, Nanos, Node, Vol, Writer};
use crate::trace::Touch;
use crate::world::{Happening, World, disk_of};
use ashlar_plan::membership;
use ashlar_types::{Change, DiskId, Member, MemberState, SLOT_BYTES, VolumeRecord};
use ashlar_volume::{Event, LEAVE_REASON};
use ashlar_wire::Request;

const AGAIN: Nanos = 300 * MILLIS;
/// Words of the control plane that get lost, of a million.
const LOST_PPM: u32 = 150_000;

/// One replica's way.
#[derive(Clone, Copy, Debug)]
pub struct Relocation {
    from: Disk,
    to: Disk,
    given_up: bool,
}

impl Relocation {
    /// Who goes in the end.
    fn goes(&self) -> Disk {
        if self.given_up { self.to } else { self.from }
    }
}

impl World {
    /// A replica begins to move, or one that moves is given up, or copies get another rate.
    pub fn relocation_acts(&mut self, every: Nanos) {
        if self.quiet {
            return;
        }
        let volumes: Vec<Vol> = self.volumes().filter(|&volume| !self.sites[volume.index()].closing).collect();
        if let Some(&volume) = volumes.get(self.relocation_rng.index(volumes.len().max(1))) {
            match self.relocation_rng.below(4) {
                0 => self.pace_copies(volume),
                1 => self.give_up_relocation(volume),
                _ => self.begin_relocation(volume),
            }
        }
        let after = self.relocation_rng.range(every / 2, every * 2);
        self.agenda.add(self.now + after, Happening::RelocationActs { every });
    }

    fn begin_relocation(&mut self, volume: Vol) {
        let record = self.catalog.record(volume);
        let is_made = record.origin.is_none_or(|origin| origin.is_made);
        if self.relocations.contains_key(&volume) || !self.catalog.up || !is_made {
            return;
        }
        let holders = record.members.iter().map(|member| member.disk);
        let holders: Vec<DiskId> = holders.filter(|&disk| crate::finish::holds(record, disk)).collect();
        let Some(to) = self.disks().find(|&disk| self.may_come(volume, disk)) else { return };
        let from = disk_of(*self.relocation_rng.pick(&holders));
        let with =
            Member { disk: format::disk_id(to), node: node_name(Node(to.0)), zone: None, state: MemberState::InSync };
        let widened = |record: &VolumeRecord| membership::widen(record, format::disk_id(from), with).ok();
        if self.catalog.change(volume, widened) {
            self.trace.count("event: relocation begun");
            self.trace.line(self.now, Touch::all(volume), || format!("{to} comes beside {from} in {volume}"));
            self.check_comer(volume, to);
            self.relocations.insert(volume, Relocation { from, to, given_up: false });
            self.agenda.add(self.now + AGAIN, Happening::RelocationStep { volume });
        }
    }

    fn give_up_relocation(&mut self, volume: Vol) {
        if let Some(relocation) = self.relocations.get_mut(&volume).filter(|relocation| !relocation.given_up) {
            relocation.given_up = true;
            self.trace.count("event: relocation given up");
        }
    }

    fn pace_copies(&mut self, volume: Vol) {
        let Some(writer) = self.current(volume) else { return };
        let bytes_per_second = match self.relocation_rng.below(4) {
            0 => None,
            1 => Some(0),
            _ => Some(self.relocation_rng.range(1, 200) * SLOT_BYTES),
        };
        self.trace.count("event: copies get another rate");
        self.tell_writer(writer, Event::Pace { bytes_per_second, source: None });
    }

    /// What the control plane does for it until the one that goes is gone.
    pub fn relocation_step(&mut self, volume: Vol) {
        let Some(&relocation) = self.relocations.get(&volume) else { return };
        let goes = relocation.goes();
        let id = format::disk_id(goes);
        // Another one has its chunks. What it had was buried with that change, under the epoch of that change: under a
        // later one it may be chosen again.
        let is_gone = !crate::finish::holds(self.catalog.record(volume), id);
        if self.clones.gone.contains(&volume) || is_gone {
            self.relocations.remove(&volume);
            return;
        }
        let narrowed = |record: &VolumeRecord| membership::narrow(record, id).or(membership::retire(record, id)).ok();
        if self.catalog.up && self.catalog.change(volume, narrowed) {
            self.relocations.remove(&volume);
            self.trace.count("state: relocation done");
            self.trace.line(self.now, Touch::all(volume), || format!("{goes} holds nothing of {volume} any more"));
            self.leave_behind(volume, goes);
            return;
        }
        let is_lost = !self.quiet && self.relocation_rng.chance(LOST_PPM);
        if let (Some(writer), false) = (self.current(volume), is_lost) {
            self.tell_writer(writer, Event::LetGo { disk: id });
        }
        self.agenda.add(self.now + AGAIN, Happening::RelocationStep { volume });
    }

    /// What has been copied to a replica that returns is read there.
    pub fn count_near_read(&mut self, writer: Writer, disk: Disk, request: &Request) {
        let record = self.catalog.record(self.writers[writer.index()].volume);
        let state = record.member(format::disk_id(disk)).map(|member| member.state);
        if matches!((request, state), (Request::Read { .. }, Some(MemberState::Syncing { .. }))) {
            self.trace.count("state: returning replica read");
        }
    }

    /// Whoever lets go of a replica for another's sake has that other one.
    pub fn check_leave(&mut self, volume: Vol, before: &VolumeRecord, change: &Change) {
        let Change::Eject { disks, reason, .. } = change else { return };
        if reason != LEAVE_REASON {
            return;
        }
        self.trace.count("state: replica let go of");
        let missing = before.chunks.iter().flat_map(|run| {
            let members = || run.members.iter().map(|&index| &before.members[usize::from(index)]);
            let is_concerned = members().any(|member| disks.contains(&member.disk));
            members().filter(move |member| is_concerned && member.state != MemberState::InSync)
        });
        if let Some(missing) = missing.map(|member| disk_of(member.disk)).next() {
            self.violated(format!("{volume} lets go of {disks:?} while {missing} is not in-sync"), None);
        }
    }
}
