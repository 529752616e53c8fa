//! Store: everything a disk knows, and the one way in which it changes: [`Store::apply`] with a record that is
//! durable.
//!
//! Replay and service call the same function in the same order, so that they reach the same state. Invariants: a
//! place belongs to one slot; every change of an entry marks it dirty, and a checkpoint writes what is dirty.

mod apply;
mod bad;
mod clone;
mod digest;
mod flatten;
mod layers;
mod merge;
mod sync;

pub(crate) use apply::Payload;
pub(crate) use bad::BadBlocks;
pub(crate) use flatten::{Flat, Flatness};
pub(crate) use merge::{Move, Pair};

use crate::CloneRefusal;
use crate::index::Dirty;
use crate::overlay::Overlay;
use crate::place::{Place, Places, Sequence};
use crate::replica::{Replica, Slot, SlotAddress};
use ashlar_types::{ChunkIndex, FloorRange, Lsn, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct Store {
    pub(crate) volumes: BTreeMap<VolumeId, Replica>,
    pub(crate) places: Places,
    pub(crate) overlay: Overlay,
    pub(crate) dirty: Dirty,
    pub(crate) bad: BadBlocks,
    /// Until replay has ended nobody keeps account of the places: `count_places` does it once, from the result.
    replaying: bool,
    /// Which clones read from a volume, and by which point; of clones that are deleted, those that others read from.
    readers: BTreeSet<(VolumeId, Lsn, VolumeId)>,
    /// Since it was last looked at a slot got one more version, or a snapshot was given up.
    pub(crate) has_new_pairs: bool,
    pub(crate) lost_blocks: u64,
    pub(crate) repaired_blocks: u64,
    pub(crate) filled_blocks: u64,
}

/// What came of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Something is stale that must not be; the record had no effect.
    Incomplete,
    /// No clone was made.
    Refused(CloneRefusal),
}

impl Store {
    pub(crate) fn new(volumes: BTreeMap<VolumeId, Replica>, slot_count: u32) -> Store {
        let reads =
            |(&volume, replica): (&VolumeId, &Replica)| replica.base().map(|base| (base.volume, base.point, volume));
        Store {
            readers: volumes.iter().filter_map(reads).collect(),
            volumes,
            places: Places::new(slot_count),
            overlay: Overlay::default(),
            dirty: Dirty::default(),
            bad: BadBlocks::default(),
            replaying: true,
            has_new_pairs: true,
            lost_blocks: 0,
            repaired_blocks: 0,
            filled_blocks: 0,
        }
    }

    /// These chunks alone, to replay what concerns them and look at the result; and of every other replica that it is
    /// there, so that clones are made. Before the end of replay.
    pub(crate) fn excerpt(&self, chunks: &BTreeSet<(VolumeId, ChunkIndex)>) -> Store {
        assert!(self.replaying);
        let concerned: BTreeSet<VolumeId> = chunks.iter().map(|(volume, _)| *volume).collect();
        let part = |(&volume, replica): (&VolumeId, &Replica)| {
            let kept = replica.chunks.iter().filter(|(chunk, _)| chunks.contains(&(volume, **chunk)));
            let kept = kept.map(|(&chunk, entry)| (chunk, entry.clone())).collect();
            (volume, Replica { chunks: kept, ..replica.without_chunks() })
        };
        let is_there = |replica: &Replica| !replica.deleted || !replica.chunks.is_empty();
        let volumes = self.volumes.iter().filter(|(volume, replica)| concerned.contains(volume) || is_there(replica));
        Store::new(volumes.map(part).collect(), 0)
    }

    pub(crate) fn replica(&self, volume: VolumeId) -> Option<&Replica> {
        self.volumes.get(&volume).filter(|replica| !replica.deleted)
    }

    pub(crate) fn slot(&self, address: SlotAddress) -> Option<Slot> {
        let chunk = self.volumes.get(&address.volume)?.chunks.get(&address.chunk)?;
        chunk.slots.get((address.slot, address.floor))
    }

    /// The floors of the versions that the slot has among `floors`, the oldest first.
    pub(crate) fn floors_of(&self, slot: SlotAddress, floors: FloorRange) -> Vec<Lsn> {
        let replica = self.volumes.get(&slot.volume);
        let versions = replica.into_iter().flat_map(|replica| replica.versions(slot.chunk, slot.slot, floors));
        versions.map(|(floor, _)| floor).collect()
    }

    /// Blocks that are stale, and that are fresh, in one of a slot's versions among `floors`.
    pub(crate) fn marks(&self, slot: SlotAddress, floors: FloorRange) -> (u16, u16) {
        let replica = self.volumes.get(&slot.volume);
        let versions = replica.into_iter().flat_map(|replica| replica.versions(slot.chunk, slot.slot, floors));
        versions.fold((0, 0), |(stale, fresh), (_, version)| (stale | version.stale, fresh | version.fresh))
    }

    pub(crate) fn prefix(&self, volume: VolumeId, chunk: ChunkIndex) -> Lsn {
        self.volumes.get(&volume).map_or(Lsn::ZERO, |replica| replica.prefix(chunk))
    }

    /// Replay has ended with batch `newest`: what no slot holds is free, or waits if a slot has held it. A place that
    /// two slots claim (only damage does that) stays with the first; the other's blocks are lost. Returns whether that
    /// was so.
    pub(crate) fn count_places(&mut self, newest: Sequence) -> bool {
        assert!(self.replaying);
        self.replaying = false;
        let mut disputed = Vec::new();
        for (&volume, replica) in &self.volumes {
            for (&chunk, entry) in &replica.chunks {
                for ((slot, floor), state) in entry.slots.iter() {
                    if state.place.is_some_and(|place| !self.places.claim(place)) {
                        disputed.push(SlotAddress { volume, chunk, slot, floor });
                    }
                }
            }
        }
        self.places.replayed(newest);
        let is_disputed = !disputed.is_empty();
        for address in disputed {
            let mut lost = 0;
            self.edit(address, |slot, _| {
                lost = (slot.valid & !slot.lost).count_ones();
                slot.lost |= slot.valid;
                slot.place = None;
            });
            self.lost_blocks += u64::from(lost);
        }
        is_disputed
    }

    /// Part of the journal cannot be read: nobody can say what this disk lacks, so it says that it has nothing for
    /// certain.
    pub(crate) fn distrust_everything(&mut self) {
        let volumes = self.volumes.iter().filter(|(_, replica)| !replica.deleted).map(|(&volume, _)| volume);
        for volume in volumes.collect::<Vec<_>>() {
            self.distrust(volume);
        }
    }

    /// The same for one replica: it says that it has nothing for certain.
    fn distrust(&mut self, volume: VolumeId) {
        let replica = self.volumes.get_mut(&volume).expect("the replica exists");
        replica.incomplete = true;
        // A return that was going on must begin again with everything.
        replica.syncing = replica.syncing.map(|_| Lsn::ZERO);
        self.dirty.volume(volume);
        for (&chunk, entry) in &mut replica.chunks {
            entry.complete = false;
            entry.prefix = Lsn::ZERO;
            entry.adopted = Lsn::ZERO;
            self.dirty.chunk(volume, chunk);
        }
    }

    /// What was found bad on the disk, in no order with records: a repair or a write makes it good again. Says how many
    /// blocks nobody knew of.
    pub(crate) fn note_bad(&mut self, address: SlotAddress, blocks: u16) -> u16 {
        let valid = self.slot(address).map_or(0, |slot| slot.valid);
        self.bad.note(address, blocks & valid)
    }

    /// Changes a slot, made when absent, removed when nothing is left to say of it.
    fn edit(&mut self, address: SlotAddress, change: impl FnOnce(&mut Slot, &mut Ground)) {
        let Store { volumes, places, overlay, bad, replaying, has_new_pairs, .. } = self;
        let replica = volumes.get_mut(&address.volume).expect("a slot is changed in a replica that exists");
        let chunk = replica.chunk_mut(address.chunk);
        let key = (address.slot, address.floor);
        let mut versions = chunk.slots.range((address.slot, Lsn::ZERO)..=(address.slot, Lsn::MAX));
        *has_new_pairs |= versions.next().is_some_and(|(first, _)| first != key) || versions.next().is_some();
        let mut slot = chunk.slots.get(key).unwrap_or_else(Slot::new);
        let before = (slot.place.is_some(), slot.stale != 0);
        let mut ground = Ground { places, overlay, bad: bad.of(address), replaying: *replaying };
        change(&mut slot, &mut ground);
        bad.put(address, ground.bad & slot.valid);
        assert!(slot.place.is_some() || slot.valid & !slot.lost == 0, "a valid block has a place");
        assert!(slot.valid & !slot.set == 0, "what is valid is set");
        let after = (slot.place.is_some(), slot.stale != 0);
        let is_there = !slot.is_blank();
        match is_there {
            true => chunk.slots.put(key, slot),
            false => chunk.slots.remove(key),
        }
        chunk.stale_slots = chunk.stale_slots + u32::from(after.1) - u32::from(before.1);
        replica.stale_slots = replica.stale_slots + u64::from(after.1) - u64::from(before.1);
        replica.count_place(address.floor, before.0, after.0);
        if is_there && replica.floor < address.floor {
            // Whoever writes next writes under no lower floor, or this version would hide it.
            replica.floor = address.floor;
            self.dirty.volume(address.volume);
        }
        self.dirty.chunk(address.volume, address.chunk);
        self.dirty.slot(address);
    }
}

/// What lies under the slots.
struct Ground<'a> {
    places: &'a mut Places,
    overlay: &'a mut Overlay,
    /// Of the slot, the blocks that are known to be bad.
    bad: u16,
    replaying: bool,
}

impl Ground<'_> {
    /// Moves a slot. Blocks that stay valid and are not among `covered` do not come along: that happens after damage
    /// only.
    fn move_to(&mut self, slot: &mut Slot, place: Option<Place>, covered: u16, by: Sequence) {
        if slot.place == place {
            return;
        }
        if let Some(old) = slot.place {
            slot.lost |= slot.valid & !covered;
            self.release(old, by);
        }
        slot.place = place;
    }

    fn release(&mut self, place: Place, by: Sequence) {
        self.overlay.remove_place(place);
        match self.replaying {
            true => self.places.release(place),
            false => self.places.give_back(place, by),
        }
    }
}
