//! Clones that people make of snapshots, volumes that they delete, and what the control plane does about both: has
//! chunkservers make and delete replicas until each has answered, and notices what is flat.
//!
//! What a clone shows where nobody has written to it is a read of its source's snapshot, and is checked as one, through
//! any number of clones.

use crate::format;
use crate::names::{Disk, MILLIS, Nanos, SECONDS, Vol, Writer};
use crate::register::{Access, Kind};
use crate::snapshots::Taken;
use crate::stamp::Stamp;
use crate::trace::Touch;
use crate::world::{Happening, World, disk_of};
use ashlar_engine::{CloneRefusal, Deleted, Event, OpToken};
use ashlar_plan::{clone, membership};
use ashlar_types::{BLOCK_BYTES, Base, Epoch, SnapshotId, VolumeRecord};
use std::collections::{BTreeMap, BTreeSet};

/// Volumes at a time; each may need a place for every hot slot.
const VOLUMES_MAX: usize = 4;
/// Whoever has not made its replica by then is out.
const MADE_WITHIN: Nanos = 3 * SECONDS;
const ASK_AGAIN: Nanos = 200 * MILLIS;
/// Requests and answers between control plane and chunkservers that get lost, of a million each.
const LOST_PPM: u32 = 150_000;

/// What a clone shows at first, and how far its replicas are.
#[derive(Clone, Debug)]
pub struct Origin {
    source: Vol,
    snapshot: SnapshotId,
    begun: Nanos,
    made: BTreeSet<Disk>,
    refused: BTreeSet<Disk>,
}

/// What chunkservers were asked for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Clone(Vol),
    Delete(Vol),
}

#[derive(Default)]
pub struct Clones {
    origins: BTreeMap<Vol, Origin>,
    pub gone: BTreeSet<Vol>,
    /// Replicas that may still be there, of deleted volumes and on disks that were to go; and the epoch of their
    /// deletion.
    pub tombstones: BTreeMap<(Vol, Disk), Epoch>,
    /// The same of disks that were to go while their volume stayed, kept after the deletion.
    pub left_behind: BTreeMap<(Vol, Disk), Epoch>,
    asked: BTreeMap<(Disk, OpToken), Asked>,
    next_op: u64,
}

impl World {
    /// A clone is made, or a volume is deleted.
    pub fn clone_acts(&mut self, every: Nanos) {
        if self.quiet {
            return;
        }
        let live: Vec<Vol> = self.volumes().collect();
        let settled: Vec<Vol> = live.iter().copied().filter(|&volume| !self.sites[volume.index()].closing).collect();
        if settled.len() > 1 && (live.len() == VOLUMES_MAX || self.clone_rng.below(4) == 0) {
            let volume = *self.clone_rng.pick(&settled);
            self.begin_deletion(volume);
        } else if live.len() < VOLUMES_MAX {
            let source = *self.clone_rng.pick(&live);
            self.clone_some_snapshot(source);
        }
        let after = self.clone_rng.range(every / 2, every * 2);
        self.agenda.add(self.now + after, Happening::CloneActs { every });
    }

    fn begin_deletion(&mut self, volume: Vol) {
        if self.sites[volume.index()].closing || self.clones.gone.contains(&volume) {
            return;
        }
        self.sites[volume.index()].closing = true;
        self.trace.line(self.now, Touch::all(volume), || format!("{volume} is to be deleted"));
        self.agenda.add(self.now, Happening::DeleteVolume { volume });
    }

    fn clone_some_snapshot(&mut self, source: Vol) {
        let ids: Vec<SnapshotId> = self.catalog.record(source).snapshots.iter().map(|taken| taken.id).collect();
        if ids.is_empty() || !self.catalog.up || self.sites[source.index()].closing {
            return;
        }
        let snapshot = *self.clone_rng.pick(&ids);
        let volume = Vol(self.catalog.count() as u16);
        if !self.catalog.begin_clone(source, snapshot, volume) {
            return;
        }
        self.trace.count("event: clone begun");
        self.trace
            .line(self.now, Touch::all(source), || format!("{volume} is begun as a clone of {snapshot} of {source}"));
        let (made, refused) = (BTreeSet::new(), BTreeSet::new());
        let origin = Origin { source, snapshot, begun: self.now, made, refused };
        self.clones.origins.insert(volume, origin);
        // One of what was never written reads from nobody.
        let is_made = self.catalog.record(volume).origin.is_none();
        self.sites.push(self.sites[source.index()].for_clone());
        self.history.push(Default::default());
        self.snapshots.push(BTreeMap::new());
        let next = if is_made { Happening::Supervise { volume } } else { Happening::CloneStep { volume } };
        self.agenda.add(self.now, next);
    }

    /// What the control plane does for a clone until it is flat.
    pub fn clone_step(&mut self, volume: Vol) {
        if self.clones.gone.contains(&volume) {
            return;
        }
        let state = self.catalog.record(volume).origin;
        match state {
            None => return,
            Some(origin) if self.catalog.up && origin.is_made => self.note_flat(volume),
            Some(_) if self.catalog.up => self.make_replicas(volume),
            Some(_) => {}
        }
        self.agenda.add(self.now + ASK_AGAIN, Happening::CloneStep { volume });
    }

    fn make_replicas(&mut self, volume: Vol) {
        let origin = self.clones.origins[&volume].clone();
        self.lay_anew(volume, origin.source);
        let wanted = self.in_sync(volume);
        let open: Vec<Disk> =
            wanted.into_iter().filter(|disk| !origin.made.contains(disk) && !origin.refused.contains(disk)).collect();
        if !open.is_empty() && self.now < origin.begun + MADE_WITHIN {
            for disk in open {
                self.ask_for_clone(volume, disk);
            }
            return;
        }
        if self.catalog.clone_made(volume, &origin.made) {
            self.trace.count("state: clone made");
            self.trace.line(self.now, Touch::all(volume), || format!("{volume} is made on {:?}", origin.made));
            self.agenda.add(self.now, Happening::Supervise { volume });
            let settled = self.volumes().filter(|&volume| !self.sites[volume.index()].closing).count();
            if settled > 1 && !self.quiet && self.clone_rng.below(3) == 0 {
                self.begin_deletion(origin.source);
            }
            return;
        }
        // Too few: all are asked once more.
        self.trace.count("state: too few replicas of a clone");
        let begun = self.now;
        self.clones.origins.insert(volume, Origin { begun, refused: BTreeSet::new(), ..origin });
    }

    fn lay_anew(&mut self, volume: Vol, source: Vol) {
        let before: BTreeSet<Disk> = self.catalog.record(volume).holders().map(|member| disk_of(member.disk)).collect();
        let source = self.catalog.record(source).clone();
        if !self.catalog.change(volume, |clone| clone::laid_anew(clone, &source)) {
            return;
        }
        self.trace.count("event: clone laid anew");
        let record = self.catalog.record(volume);
        let after: BTreeSet<Disk> = record.holders().map(|member| disk_of(member.disk)).collect();
        let epoch = record.epoch;
        self.clones.tombstones.extend(before.difference(&after).map(|&disk| ((volume, disk), epoch)));
        self.agenda.add(self.now, Happening::Reap { volume });
    }

    fn ask_for_clone(&mut self, volume: Vol, disk: Disk) {
        let VolumeRecord { epoch, size, origin, .. } = *self.catalog.record(volume);
        let Some(origin) = origin else { return };
        let base = origin.base;
        let id = format::volume_id(volume);
        self.ask_server(disk, Asked::Clone(volume), |op| Event::Clone { op, volume: id, epoch, size, base });
    }

    fn ask_server(&mut self, disk: Disk, asked: Asked, event: impl FnOnce(OpToken) -> Event) {
        let node = self.servers[disk.index()].node;
        let plane = self.net.control_plane();
        let is_up = self.servers[disk.index()].process.as_ref().is_some_and(|process| process.paused.is_none());
        let is_lost = !self.quiet && self.clone_rng.chance(LOST_PPM);
        if !is_up || is_lost || self.net.is_cut(plane, node) {
            return;
        }
        self.clones.next_op += 1;
        let op = OpToken(1 << 60 | self.clones.next_op);
        self.clones.asked.insert((disk, op), asked);
        self.tell_server(disk, event(op));
    }

    /// Whether the answer to what the control plane asked is heard.
    fn answer_of(&mut self, disk: Disk, op: OpToken) -> Option<Asked> {
        let asked = self.clones.asked.remove(&(disk, op))?;
        let is_lost = !self.quiet && self.clone_rng.chance(LOST_PPM);
        (!is_lost).then_some(asked)
    }

    pub fn replica_cloned(&mut self, disk: Disk, op: OpToken, result: &Result<(), CloneRefusal>) {
        self.trace.line(self.now, None, || format!("{disk} says of a clone's replica: {result:?}"));
        let Some(Asked::Clone(volume)) = self.answer_of(disk, op) else { return };
        let Some(origin) = self.clones.origins.get_mut(&volume) else { return };
        match result {
            Ok(()) => drop(origin.made.insert(disk)),
            Err(_) => {
                self.trace.count("state: replica of a clone refused");
                origin.refused.insert(disk);
            }
        }
    }

    fn note_flat(&mut self, volume: Vol) {
        let awaited = clone::awaited(self.catalog.record(volume));
        let disks: Vec<Disk> = awaited.map(|member| disk_of(member.disk)).collect();
        if disks.iter().all(|&disk| self.base_of(volume, disk) == Some(None)) {
            let source = self.clones.origins[&volume].source;
            self.catalog.clone_flat(volume, (!self.clones.gone.contains(&source)).then_some(source));
            self.points_gone(source);
            self.trace.count("state: clone flat");
            self.trace.line(self.now, Touch::all(volume), || format!("{volume} is flat"));
        }
    }

    /// `None`: the chunkserver cannot be asked, or has no such replica.
    fn base_of(&self, volume: Vol, disk: Disk) -> Option<Option<Base>> {
        let process = self.servers[disk.index()].process.as_ref()?;
        let status = process.engine.status();
        let replica = status.replicas.iter().find(|replica| replica.volume == format::volume_id(volume))?;
        (status.serving && process.paused.is_none()).then_some(replica.base)
    }

    /// Detached first; refused while a clone of it is still being made.
    pub fn delete_volume(&mut self, volume: Vol) {
        let unmade = |of: &Vol| self.catalog.record(*of).origin.is_some_and(|origin| !origin.is_made);
        let is_needed = self.volumes().any(|of| {
            unmade(&of) && (of == volume || self.clones.origins.get(&of).is_some_and(|origin| origin.source == volume))
        });
        let is_held = self.current(volume).is_some();
        if is_held {
            self.detach(volume);
        }
        if is_held || is_needed || !self.catalog.up {
            if self.quiet {
                // Too late: the run ends with it.
                self.sites[volume.index()].closing = false;
                self.agenda.add(self.now, Happening::Supervise { volume });
            } else {
                self.agenda.add(self.now + ASK_AGAIN, Happening::DeleteVolume { volume });
            }
            return;
        }
        self.bury(volume);
    }

    /// The volume is gone; its replicas go when their chunkservers hear of it.
    pub fn bury(&mut self, volume: Vol) {
        let source = self.clones.origins.get(&volume).map(|origin| origin.source);
        self.catalog.release_clone(volume, source.filter(|source| !self.clones.gone.contains(source)));
        source.into_iter().for_each(|source| self.points_gone(source));
        let record = self.catalog.record(volume);
        let disks: Vec<Disk> = record.members.iter().map(|member| disk_of(member.disk)).collect();
        let epoch = record.epoch.next().unwrap_or(Epoch::NONE);
        self.clones.tombstones.extend(disks.into_iter().map(|disk| ((volume, disk), epoch)));
        self.clones.gone.insert(volume);
        self.trace.count("event: volume deleted");
        self.trace.line(self.now, Touch::all(volume), || format!("{volume} is deleted"));
        self.agenda.add(self.now, Happening::Reap { volume });
    }

    pub fn reap(&mut self, volume: Vol) {
        let tombstones = self.clones.tombstones.iter().filter(|((of, _), _)| *of == volume);
        let left: Vec<(Disk, Epoch)> = tombstones.map(|(&(_, disk), &epoch)| (disk, epoch)).collect();
        if left.is_empty() {
            return;
        }
        let is_needed = !self.clones.gone.contains(&volume)
            && !membership::may_forget(self.catalog.record(volume), |_| true, false);
        let id = format::volume_id(volume);
        for (disk, epoch) in left.into_iter().filter(|_| !is_needed) {
            self.ask_server(disk, Asked::Delete(volume), |op| Event::Delete { op, volume: id, epoch });
        }
        self.agenda.add(self.now + ASK_AGAIN, Happening::Reap { volume });
    }

    pub fn replica_deleted(&mut self, disk: Disk, op: OpToken, result: &Result<Deleted, String>) {
        self.trace.line(self.now, None, || format!("{disk} says of a deletion: {result:?}"));
        let Some(Asked::Delete(volume)) = self.answer_of(disk, op) else { return };
        match result {
            Ok(Deleted::Gone) => {
                self.trace.count("state: replica deleted");
                self.clones.tombstones.remove(&(volume, disk));
                self.forget_promises(disk, volume);
            }
            Ok(Deleted::Kept) => self.trace.count("state: deleted replica kept for clones"),
            Err(_) => {}
        }
    }

    /// What a guest reads of a clone that nobody wrote to it is what its source's snapshot has.
    pub fn note_base(&mut self, volume: Vol, block: u64, stamp: Stamp) {
        let Some(Origin { source, snapshot, .. }) = self.clones.origins.get(&volume).cloned() else { return };
        let own = |access: &&Access| access.kind == Kind::Write && access.stamp == stamp && access.start > 0;
        let history = &mut self.history[volume.index()];
        if history.accesses(block).iter().any(|access| own(&access)) {
            return;
        }
        history.begins_with(block, stamp);
        self.note_content(source, snapshot, block, stamp);
    }

    /// A block of a snapshot as somebody saw it.
    pub fn note_content(&mut self, volume: Vol, id: SnapshotId, block: u64, stamp: Stamp) {
        self.note_base(volume, block, stamp);
        let taken: &mut Taken = self.snapshots[volume.index()].get_mut(&id).expect("it was asked for");
        let Some((from, until)) = taken.note(block, stamp) else {
            let before = taken.content(block);
            self.violated(format!("{id} of {volume} was {before:?} and is {stamp:?}"), Some((volume, block)));
            return;
        };
        self.history[volume.index()].seen_between(block, stamp, from, until);
    }

    /// Blocks that guests touched, of the writer's volume or of what that is a clone of, and that its device has.
    pub fn touched(&self, writer: Writer) -> BTreeSet<u64> {
        let state = &self.writers[writer.index()];
        let volume = state.volume;
        let mut blocks: BTreeSet<u64> = self.history[volume.index()].touched().collect();
        let mut of = volume;
        while let Some(origin) = self.clones.origins.get(&of) {
            of = origin.source;
            blocks.extend(self.history[of.index()].touched());
        }
        // A source may have grown since, and a writer not have heard that its volume has.
        let end = state.core.as_ref().map_or(0, |core| core.size().0 / BLOCK_BYTES);
        blocks.retain(|&block| block < end);
        blocks
    }

    /// Clones that are not flat yet, replicas that are not deleted or are to be elsewhere, for people.
    pub fn unfinished(&self) -> Option<String> {
        if let Some((volume, disk)) = self.clones.tombstones.keys().next() {
            return Some(format!("{disk} still has something of {volume}, which it should not"));
        }
        if let Some((volume, relocation)) = self.relocations.first_key_value() {
            return Some(format!("{volume} is still being moved: {relocation:?}"));
        }
        if !self.is_healed() {
            return Some("the planner has something to do".to_owned());
        }
        let mut volumes = self.volumes();
        let clone = volumes.find(|&volume| self.catalog.record(volume).origin.is_some())?;
        Some(format!("{clone} is not flat: {:?}", self.catalog.record(clone).origin))
    }
}

impl crate::catalog::Catalog {
    fn begin_clone(&mut self, source: Vol, snapshot: SnapshotId, volume: Vol) -> bool {
        let record = self.record(source);
        let (size, min_replicas) = (record.size, record.min_replicas);
        let begun = clone::begin(record, snapshot, format::volume_id(volume), size, min_replicas);
        let Ok((kept, begun)) = begun else { return false };
        self.change(source, |_| Some(kept));
        self.add(begun);
        true
    }

    fn clone_made(&mut self, volume: Vol, disks: &BTreeSet<Disk>) -> bool {
        let ids: Vec<_> = disks.iter().map(|&disk| format::disk_id(disk)).collect();
        self.change(volume, |record| clone::made(record, &ids).ok())
    }

    fn clone_flat(&mut self, volume: Vol, source: Option<Vol>) {
        self.change(volume, |record| Some(clone::flat(record)));
        self.release_clone(volume, source);
    }

    fn release_clone(&mut self, volume: Vol, source: Option<Vol>) {
        if let Some(source) = source {
            self.change(source, |record| Some(clone::release(record, format::volume_id(volume))));
        }
    }
}
