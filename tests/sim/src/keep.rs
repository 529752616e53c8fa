//! What the control plane tells replicas of a volume that nobody holds: which points of snapshots are needed, until
//! each has answered or a writer will tell. Words get lost and come late, to whoever is there by then.
//!
//! What was merged because of it is seen by who reads what is left of the snapshots (`snapshots`), by replicas that are
//! compared (`audit`), and at the end, when all snapshots are given up and nobody attaches: all of their space returns.

use crate::format;
use crate::names::{Disk, MILLIS, Nanos, SECONDS, Vol};
use crate::world::{Happening, World, disk_of};
use ashlar_engine::{Event, OpToken};
use ashlar_plan::snapshot::kept_detached;
use ashlar_types::{ChunkIndex, SnapshotId};
use std::collections::BTreeMap;

const ASK_AGAIN: Nanos = 300 * MILLIS;
/// Words and answers that get lost, of a million each.
const LOST_PPM: u32 = 150_000;
/// Replicas have heard of it, and what is not needed is merged.
const RETURNED_WITHIN: Nanos = 60 * SECONDS;
/// A word is late if it takes longer than most attaches.
const LATE: Nanos = 300 * MILLIS;

#[derive(Default)]
pub struct Keep {
    /// Replicas that have not heard, and the version of the record that they must hear of.
    waiting: BTreeMap<(Vol, Disk), u64>,
    asked: BTreeMap<(Disk, OpToken), (Vol, u64)>,
    next_op: u64,
}

impl World {
    /// Points have left the record. While a writer is there it tells.
    pub fn points_gone(&mut self, volume: Vol) {
        let record = self.catalog.record(volume);
        if self.clones.gone.contains(&volume) || kept_detached(record).is_none() {
            return;
        }
        let version = record.version;
        let disks: Vec<Disk> = record.members.iter().map(|member| disk_of(member.disk)).collect();
        let is_asked = self.keep.waiting.keys().any(|(of, _)| *of == volume);
        self.keep.waiting.extend(disks.into_iter().map(|disk| ((volume, disk), version)));
        if !is_asked {
            self.agenda.add(self.now, Happening::KeepStep { volume });
        }
    }

    pub fn keep_step(&mut self, volume: Vol) {
        let record = self.catalog.record(volume);
        let kept = kept_detached(record).filter(|_| !self.clones.gone.contains(&volume));
        let (epoch, version) = (record.served, record.version);
        let Some(kept) = kept else {
            self.trace.count("state: points to be kept, a writer tells them");
            return self.keep.waiting.retain(|(of, _), _| *of != volume);
        };
        let waiting = self.waits_for(volume);
        if waiting.is_empty() {
            return;
        }
        let told = if self.catalog.up { waiting } else { Vec::new() };
        for disk in told {
            self.keep.next_op += 1;
            let op = OpToken(1 << 61 | self.keep.next_op);
            let event = Event::KeepPoints { op, volume: format::volume_id(volume), epoch, kept: kept.clone() };
            self.send_word(disk, (volume, version), op, event);
        }
        self.agenda.add(self.now + ASK_AGAIN, Happening::KeepStep { volume });
    }

    fn waits_for(&self, volume: Vol) -> Vec<Disk> {
        self.keep.waiting.keys().filter(|(of, _)| *of == volume).map(|(_, disk)| *disk).collect()
    }

    fn send_word(&mut self, disk: Disk, told: (Vol, u64), op: OpToken, event: Event) {
        let (plane, node) = (self.net.control_plane(), self.servers[disk.index()].node);
        let is_lost = !self.quiet && self.keep_rng.chance(LOST_PPM);
        if is_lost || self.net.is_cut(plane, node) {
            return;
        }
        let after = match self.quiet || self.keep_rng.below(3) > 0 {
            true => self.keep_rng.tail(MILLIS / 10, 20 * MILLIS),
            false => self.keep_rng.tail(MILLIS, 3 * SECONDS),
        };
        if after > LATE {
            self.trace.count("state: points told late");
        }
        self.keep.asked.insert((disk, op), told);
        let incarnation = self.servers[disk.index()].incarnation;
        self.agenda.add(self.now + after, Happening::ToServer { disk, incarnation, event });
    }

    pub fn points_kept(&mut self, disk: Disk, op: OpToken, result: &Result<(), String>) {
        self.trace.line(self.now, None, || format!("{disk} says of points to be kept: {result:?}"));
        let Some((volume, version)) = self.keep.asked.remove(&(disk, op)) else { return };
        self.trace.count(match result {
            Ok(()) => "state: points kept by word of the control plane",
            Err(_) => "state: points not kept, a writer is there",
        });
        let is_lost = !self.quiet && self.keep_rng.chance(LOST_PPM);
        if result.is_err() || is_lost {
            return;
        }
        self.keep.waiting.retain(|of, wanted| *of != (volume, disk) || *wanted > version);
        // People go on while nobody holds the volume: the next point is the one that was given up.
        if !self.quiet && self.current(volume).is_none() && self.keep_rng.below(4) == 0 {
            self.ask_snapshot(volume);
        }
    }

    /// A snapshot of a detached volume may be given up at once.
    pub fn may_regret(&mut self, volume: Vol, id: SnapshotId) {
        if !self.quiet && self.keep_rng.below(3) == 0 {
            let after = self.keep_rng.range(1, 100) * MILLIS;
            self.agenda.add(self.now + after, Happening::ForgetSnapshot { volume, id });
        }
    }

    /// Every snapshot goes while nobody holds its volume, and so does all that was kept for it alone.
    pub fn give_up_everything(&mut self) {
        if self.violation.is_some() {
            return;
        }
        for volume in self.volumes().collect::<Vec<_>>() {
            let ids: Vec<SnapshotId> = self.catalog.record(volume).snapshots.iter().map(|taken| taken.id).collect();
            ids.into_iter().for_each(|id| self.forget_snapshot(volume, id));
            if self.waits_for(volume).is_empty() {
                self.points_gone(volume);
            }
        }
        let told = self.run_while(self.now + RETURNED_WITHIN, |world| !world.keep.waiting.is_empty());
        if self.violation.is_none() && !told {
            let (volume, disk) = self.keep.waiting.keys().next().expect("somebody has not heard");
            return self.violated(format!("{disk} does not hear that snapshots of {volume} are gone"), None);
        }
        let returned = self.run_while(self.now + RETURNED_WITHIN, |world| world.kept_for_nobody().is_some());
        if self.violation.is_none() && !returned {
            let (volume, disk, slots) = self.kept_for_nobody().expect("it is still there");
            self.violated(format!("{disk} keeps {slots} slots of {volume} that nobody needs"), None);
        }
    }

    /// On a disk that may have bad blocks, versions wait until these are repaired; where the last writer was replaced
    /// by a grant that nobody heard of, it could not close, and the next one is waited for.
    fn kept_for_nobody(&self) -> Option<(Vol, Disk, u64)> {
        let replicas = self
            .volumes()
            .filter(|&volume| kept_detached(self.catalog.record(volume)).is_some())
            .flat_map(|volume| self.in_sync(volume).into_iter().map(move |disk| (volume, disk)));
        replicas.filter(|(_, disk)| *disk != self.rotten).find_map(|(volume, disk)| {
            let engine = &self.servers[disk.index()].process.as_ref()?.engine;
            let all = (ChunkIndex(0), ChunkIndex(self.chunks(volume)));
            let (space, _) = engine.space(format::volume_id(volume), all, &[]).ok()?;
            let pending = space.taken.saturating_sub(space.unique + space.shared + space.snapshots);
            (pending > 0).then_some((volume, disk, pending))
        })
    }
}
