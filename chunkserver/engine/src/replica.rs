//! Replica, chunk and slot: what a disk knows of one volume. Changed by records only (see `store`), kept by the
//! index.
//!
//! A slot has a version for each floor under which it was written; what a version says nothing of falls through to
//! the next older one. A snapshot at `s` reads the newest versions below `s`.
//!
//! Invariants of a version: without a place no block is valid but a lost one; what is valid is set; stale and lost
//! blocks are never read out; `stale_slots` of a chunk counts its versions with `stale != 0`, that of a replica the
//! same over all chunks.

use crate::place::Place;
use crate::versions::Versions;
use ashlar_types::{
    BLOCKS_PER_SLOT, Base, ByteCount, ChunkIndex, Crc32, Epoch, FloorRange, Kept, Lsn, SessionId, SlotIndex, SlotSet,
    VolumeId,
};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotAddress {
    pub(crate) volume: VolumeId,
    pub(crate) chunk: ChunkIndex,
    pub(crate) slot: SlotIndex,
    /// Which version.
    pub(crate) floor: Lsn,
}

/// One version of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) place: Option<Place>,
    /// Blocks that this version says something of.
    pub(crate) set: u16,
    /// Those of them that do not read as zeros.
    pub(crate) valid: u16,
    /// Blocks that await a copy.
    pub(crate) stale: u16,
    /// Blocks written since the return began.
    pub(crate) fresh: u16,
    /// Blocks whose content this disk is known not to have.
    pub(crate) lost: u16,
    /// Lsn of the latest write.
    pub(crate) stamp: Lsn,
    pub(crate) crcs: [Crc32; BLOCKS_PER_SLOT as usize],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) prefix: Lsn,
    /// The source's prefix, taken over when the return ends. Kept apart from `prefix`, by which duplicates are told.
    pub(crate) adopted: Lsn,
    pub(crate) complete: bool,
    pub(crate) stale_slots: u32,
    pub(crate) slots: Versions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) promised: Epoch,
    /// In which that was promised, the latest one.
    pub(crate) session: SessionId,
    /// Session before the latest `Open`; not kept on disk.
    pub(crate) session_before: SessionId,
    /// The last epoch in which it was made equal to the others.
    pub(crate) agreed: Epoch,
    pub(crate) size: ByteCount,
    pub(crate) commit: Lsn,
    pub(crate) floor: Lsn,
    /// A return began at this commit point and has not ended.
    pub(crate) syncing: Option<Lsn>,
    /// A chunk that has no entry is incomplete.
    pub(crate) incomplete: bool,
    /// A tombstone: nothing is left but the promise, and what clones on this disk read.
    pub(crate) deleted: bool,
    /// What it was made a clone of.
    pub(crate) origin: Option<Base>,
    /// It has everything itself that it shows.
    pub(crate) is_flat: bool,
    /// Which snapshots are needed, as far as this disk was told.
    pub(crate) kept: Kept,
    /// Places taken, by the floor of the version.
    pub(crate) held: BTreeMap<Lsn, u64>,
    pub(crate) stale_slots: u64,
    pub(crate) chunks: BTreeMap<ChunkIndex, Chunk>,
}

impl Slot {
    pub(crate) fn new() -> Slot {
        let crcs = [Crc32::default(); BLOCKS_PER_SLOT as usize];
        Slot { place: None, set: 0, valid: 0, stale: 0, fresh: 0, lost: 0, stamp: Lsn::ZERO, crcs }
    }

    /// Says no more than an absent slot.
    pub(crate) fn is_blank(&self) -> bool {
        let bits = self.set | self.valid | self.stale | self.fresh | self.lost;
        self.place.is_none() && bits == 0 && self.stamp == Lsn::ZERO
    }
}

impl Chunk {
    pub(crate) fn new(complete: bool) -> Chunk {
        Chunk { prefix: Lsn::ZERO, adopted: Lsn::ZERO, complete, stale_slots: 0, slots: Versions::default() }
    }

    /// The slots with a version among `floors` that is `picked`.
    pub(crate) fn slots_among(&self, floors: FloorRange, picked: impl Fn(&Slot) -> bool) -> SlotSet {
        let among = self.slots.iter().filter(|((_, floor), slot)| floors.contains(*floor) && picked(slot));
        among.map(|((slot, _), _)| slot).collect()
    }

    pub(crate) fn versions(&self, slot: SlotIndex, floors: FloorRange) -> impl DoubleEndedIterator<Item = (Lsn, Slot)> {
        let range = self.slots.range((slot, floors.from)..(slot, floors.below));
        range.map(|((_, floor), version)| (floor, version))
    }
}

impl Replica {
    pub(crate) fn new(promised: Epoch, size: ByteCount) -> Replica {
        Replica {
            promised,
            session: SessionId(0),
            session_before: SessionId(0),
            agreed: Epoch::NONE,
            size,
            commit: Lsn::ZERO,
            floor: Lsn::ZERO,
            syncing: None,
            incomplete: false,
            deleted: false,
            origin: None,
            is_flat: false,
            kept: Kept::default(),
            held: BTreeMap::new(),
            stale_slots: 0,
            chunks: BTreeMap::new(),
        }
    }

    /// What it shows where it has nothing itself.
    pub(crate) fn base(&self) -> Option<Base> {
        self.origin.filter(|_| !self.is_flat)
    }

    /// Its own versions of a slot among `floors`, the oldest first.
    pub(crate) fn versions(
        &self,
        chunk: ChunkIndex,
        slot: SlotIndex,
        floors: FloorRange,
    ) -> impl DoubleEndedIterator<Item = (Lsn, Slot)> {
        self.chunks.get(&chunk).into_iter().flat_map(move |entry| entry.versions(slot, floors))
    }

    /// A version had a place or not, and has one now or not.
    pub(crate) fn count_place(&mut self, floor: Lsn, had: bool, has: bool) {
        if had != has {
            let held = self.held.entry(floor).or_default();
            *held = if has { *held + 1 } else { *held - 1 };
            if *held == 0 {
                self.held.remove(&floor);
            }
        }
    }

    pub(crate) fn placed_slots(&self) -> u64 {
        self.held.values().sum()
    }

    /// It has everything that was written to it, and says so.
    pub(crate) fn is_whole(&self) -> bool {
        !self.incomplete && self.syncing.is_none() && self.chunks.values().all(|chunk| chunk.complete)
    }

    /// The chunk, made when absent.
    pub(crate) fn chunk_mut(&mut self, chunk: ChunkIndex) -> &mut Chunk {
        let complete = !self.incomplete;
        self.chunks.entry(chunk).or_insert_with(|| Chunk::new(complete))
    }

    /// Everything but the chunks.
    pub(crate) fn without_chunks(&self) -> Replica {
        let (kept, held) = (self.kept.clone(), self.held.clone());
        Replica { chunks: BTreeMap::new(), kept, held, ..*self }
    }

    /// Highest lsn of a write. A writer's answers go out in lsn order, so one that it was given before is not above it.
    pub(crate) fn last(&self) -> Lsn {
        self.chunks.values().map(|chunk| chunk.prefix).max().unwrap_or(Lsn::ZERO)
    }

    pub(crate) fn prefix(&self, chunk: ChunkIndex) -> Lsn {
        self.chunks.get(&chunk).map_or(Lsn::ZERO, |chunk| chunk.prefix)
    }
}
