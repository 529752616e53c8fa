//! Stale and fresh marks, completeness: how a replica that lacks something becomes whole again.
//!
//! ```text
//!           BeginSync / MarkStale                    Fill, write, discard of each stale block
//!  complete ─────────────────────► incomplete, stale ──────────────────────────────────────► incomplete, nothing stale
//!      ▲                                                                                          │
//!      ├───────────────────────── CompleteChunk (one chunk) / FinishSync (all) ───────────────────┘
//!      └───────────────────────── VoidStale (one chunk, stale or not)
//! ```

use super::{Outcome, Store};
use crate::record::Mark;
use crate::replica::{Replica, Slot, SlotAddress};
use ashlar_types::{ChunkIndex, Geometry, Kept, Lsn, Mutant, SlotIndex, VolumeId};
use std::collections::BTreeSet;

impl Store {
    pub(super) fn is_syncing(&self, volume: VolumeId) -> bool {
        self.replica(volume).is_some_and(|replica| replica.syncing.is_some())
    }

    pub(super) fn mark_stale(&mut self, volume: VolumeId, mark: &Mark) -> Outcome {
        let Mark { chunk, after, floors, into, slots } = *mark;
        if self.replaying && Mutant::StaleMarksNotDurable.is_on() {
            return Outcome::Done;
        }
        let replica = self.replica_mut(volume);
        let in_a_return = replica.syncing.is_some();
        let entry = replica.chunk_mut(chunk);
        entry.complete = false;
        // Copies may take back what it has beyond. In a return the prefix is that of the new writes.
        if !in_a_return {
            entry.prefix = entry.prefix.min(after);
        }
        // In a return they were marked when it began; what is stamped since is fresh, in versions that no copy covers.
        let is_own = |slot: &Slot| slot.stamp > after && !in_a_return && !Mutant::OwnTailNotStale.is_on();
        let own = entry.slots.iter().filter(|(_, slot)| is_own(slot)).map(|(key, _)| key);
        let named = slots.iter().flat_map(|slot| {
            let versions = entry.versions(slot, floors).map(|(floor, _)| floor);
            versions.chain([into]).map(move |floor| (slot, floor))
        });
        let marked: BTreeSet<(SlotIndex, Lsn)> = own.chain(named).collect();
        self.dirty.chunk(volume, chunk);
        for (slot, floor) in marked {
            self.edit(SlotAddress { volume, chunk, slot, floor }, |slot, _| slot.stale |= !slot.fresh);
        }
        Outcome::Done
    }

    /// Refused when more is missing than what came after `after`: the journal was damaged, or an earlier return that
    /// began further back was not finished.
    pub(super) fn begin_sync(&mut self, volume: VolumeId, after: Lsn) -> Outcome {
        let replica = self.replica_mut(volume);
        let known_from = if replica.incomplete { replica.syncing.unwrap_or(Lsn::ZERO) } else { Lsn::MAX };
        if after > known_from {
            return Outcome::Incomplete;
        }
        replica.syncing = Some(after);
        replica.incomplete = true;
        let based = self.based_after(volume, after);
        let replica = self.replica_mut(volume);
        let mut touched = Vec::new();
        for (&chunk, entry) in &mut replica.chunks {
            entry.complete = false;
            entry.prefix = entry.prefix.min(after);
            entry.adopted = Lsn::ZERO;
            let changed = entry.slots.iter().filter(|(_, slot)| slot.fresh != 0 || slot.stamp > after);
            touched.push((chunk, changed.map(|(key, _)| key).collect::<Vec<(SlotIndex, Lsn)>>()));
        }
        self.dirty.volume(volume);
        // What it shows of a base is no better than what it has itself.
        for address in based {
            let stale = if Mutant::OwnTailNotStale.is_on() { 0 } else { u16::MAX };
            self.edit(address, |slot, _| slot.stale |= stale);
        }
        for (chunk, slots) in touched {
            self.dirty.chunk(volume, chunk);
            for (slot, floor) in slots {
                self.edit(SlotAddress { volume, chunk, slot, floor }, |slot, _| {
                    slot.fresh = 0;
                    let is_tail = slot.stamp > after && !Mutant::OwnTailNotStale.is_on();
                    slot.stale |= if is_tail { u16::MAX } else { 0 };
                });
            }
        }
        Outcome::Done
    }

    /// A new session has begun: what earlier ones wrote during a return is as old as anything else here.
    pub(super) fn void_fresh(&mut self, volume: VolumeId) {
        // Outside of a return nothing is fresh, and there is no need to look.
        if self.is_syncing(volume) {
            self.forget_fresh(volume);
        }
    }

    /// What a return had reached was lost: its end, when that is replayed, must not count.
    pub(crate) fn void_return(&mut self, volume: VolumeId) {
        let replica = self.replica_mut(volume);
        (replica.incomplete, replica.syncing) = (true, None);
        self.dirty.volume(volume);
        self.forget_fresh(volume);
    }

    fn forget_fresh(&mut self, volume: VolumeId) {
        let chunks = self.replica_mut(volume).chunks.iter();
        let slots = chunks.flat_map(|(&chunk, entry)| entry.slots.iter().map(move |(key, state)| (chunk, key, state)));
        let fresh = slots.filter(|(_, _, state)| state.fresh != 0);
        let address = |(chunk, (slot, floor), _)| SlotAddress { volume, chunk, slot, floor };
        let fresh: Vec<SlotAddress> = fresh.map(address).collect();
        for address in fresh {
            self.edit(address, |slot, _| slot.fresh = 0);
        }
    }

    pub(super) fn adopt_prefix(&mut self, volume: VolumeId, chunk: ChunkIndex, prefix: Lsn) -> Outcome {
        let entry = self.replica_mut(volume).chunk_mut(chunk);
        entry.adopted = entry.adopted.max(prefix);
        self.dirty.chunk(volume, chunk);
        Outcome::Done
    }

    pub(super) fn complete_chunk(&mut self, volume: VolumeId, chunk: ChunkIndex, prefix: Lsn) -> Outcome {
        let entry = self.replica_mut(volume).chunk_mut(chunk);
        if entry.stale_slots > 0 {
            return Outcome::Incomplete;
        }
        entry.complete = true;
        entry.prefix = prefix;
        entry.adopted = Lsn::ZERO;
        self.dirty.chunk(volume, chunk);
        self.become_whole_if_every_chunk_is(volume);
        Outcome::Done
    }

    /// Reconcile has mended, chunk by chunk, what damage to the journal left, or a return that was not finished.
    fn become_whole_if_every_chunk_is(&mut self, volume: VolumeId) {
        let replica = self.replica_mut(volume);
        let count = Geometry::new(replica.size).map_or(0, Geometry::chunk_count) as usize;
        let whole = replica.chunks.len() == count && replica.chunks.values().all(|chunk| chunk.complete);
        if replica.incomplete && whole {
            (replica.incomplete, replica.syncing) = (false, None);
            self.dirty.volume(volume);
        }
    }

    /// What is here is declared to be the chunk's content, at its prefix. A replica that returns has nothing to
    /// declare.
    pub(super) fn void_stale(&mut self, volume: VolumeId, chunk: ChunkIndex) -> Outcome {
        if self.is_syncing(volume) {
            return Outcome::Incomplete;
        }
        let entry = self.replica_mut(volume).chunk_mut(chunk);
        entry.complete = true;
        let marked = entry.slots.iter().filter(|(_, slot)| slot.stale != 0).map(|(key, _)| key);
        let marked: Vec<(SlotIndex, Lsn)> = marked.collect();
        self.dirty.chunk(volume, chunk);
        for (slot, floor) in marked {
            self.edit(SlotAddress { volume, chunk, slot, floor }, |slot, _| slot.stale = 0);
        }
        self.become_whole_if_every_chunk_is(volume);
        Outcome::Done
    }

    /// The end of a return; without one, of a reconcile, or the second copy of an answered request.
    pub(super) fn finish_sync(&mut self, volume: VolumeId) -> Outcome {
        let Store { volumes, dirty, has_new_pairs, .. } = self;
        let replica = volumes.get_mut(&volume).expect("the replica exists");
        let whole = !replica.incomplete && replica.chunks.values().all(|chunk| chunk.complete);
        if replica.stale_slots > 0 || replica.syncing.is_none() && !whole {
            return Outcome::Incomplete;
        }
        replica.agreed = replica.promised;
        dirty.volume(volume);
        // What was marked could not be merged.
        *has_new_pairs = true;
        if replica.syncing.is_none() {
            return Outcome::Done;
        }
        replica.syncing = None;
        replica.incomplete = false;
        for (&chunk, entry) in &mut replica.chunks {
            entry.complete = true;
            entry.prefix = entry.prefix.max(entry.adopted);
            entry.adopted = Lsn::ZERO;
            dirty.chunk(volume, chunk);
        }
        self.forget_fresh(volume);
        Outcome::Done
    }

    /// What one writer was told and another was not yet may come late: a point that was given up stays so.
    pub(super) fn keep(&mut self, volume: VolumeId, kept: &Kept) -> Outcome {
        let replica = self.replica_mut(volume);
        if kept.until < replica.kept.until {
            return Outcome::Done;
        }
        let live = kept.live.iter().copied().filter(|&point| !replica.kept.gave_up(point)).collect();
        replica.kept = Kept { live, until: kept.until };
        self.has_new_pairs = true;
        self.dirty.kept(volume);
        Outcome::Done
    }

    fn replica_mut(&mut self, volume: VolumeId) -> &mut Replica {
        self.volumes.get_mut(&volume).expect("the replica exists")
    }
}
