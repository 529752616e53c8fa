//! Replica, chunk and slot: what a disk knows of one volume. Changed by records only (see `store`), kept by the
//! index.
//!
//! Invariants of a slot: without a place no block is valid but a lost one; stale and lost blocks are never read out;
//! `stale_slots` of a chunk counts its slots with `stale != 0`, that of a replica the same over all chunks.

use crate::place::Place;
use ashlar_types::{BLOCKS_PER_SLOT, ByteCount, ChunkIndex, Crc32, Epoch, Lsn, SessionId, SlotIndex, VolumeId};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotAddress {
    pub(crate) volume: VolumeId,
    pub(crate) chunk: ChunkIndex,
    pub(crate) slot: SlotIndex,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) place: Option<Place>,
    /// Blocks ever written and not discarded since.
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
    pub(crate) slots: BTreeMap<SlotIndex, Slot>,
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
    /// A tombstone: nothing is left but the promise.
    pub(crate) deleted: bool,
    pub(crate) placed_slots: u64,
    pub(crate) stale_slots: u64,
    pub(crate) chunks: BTreeMap<ChunkIndex, Chunk>,
}

impl Slot {
    pub(crate) fn new() -> Slot {
        let crcs = [Crc32::default(); BLOCKS_PER_SLOT as usize];
        Slot { place: None, valid: 0, stale: 0, fresh: 0, lost: 0, stamp: Lsn::ZERO, crcs }
    }

    /// Says no more than an absent slot.
    pub(crate) fn is_blank(&self) -> bool {
        let bits = self.valid | self.stale | self.fresh | self.lost;
        self.place.is_none() && bits == 0 && self.stamp == Lsn::ZERO
    }
}

impl Chunk {
    pub(crate) fn new(complete: bool) -> Chunk {
        Chunk { prefix: Lsn::ZERO, adopted: Lsn::ZERO, complete, stale_slots: 0, slots: BTreeMap::new() }
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
            placed_slots: 0,
            stale_slots: 0,
            chunks: BTreeMap::new(),
        }
    }

    pub(crate) fn slot(&self, chunk: ChunkIndex, slot: SlotIndex) -> Option<&Slot> {
        self.chunks.get(&chunk)?.slots.get(&slot)
    }

    /// The chunk, made when absent.
    pub(crate) fn chunk_mut(&mut self, chunk: ChunkIndex) -> &mut Chunk {
        let complete = !self.incomplete;
        self.chunks.entry(chunk).or_insert_with(|| Chunk::new(complete))
    }

    /// Everything but the chunks.
    pub(crate) fn without_chunks(&self) -> Replica {
        Replica { chunks: BTreeMap::new(), ..*self }
    }

    /// Highest lsn of a write. A writer's answers go out in lsn order, so one that it was given before is not above it.
    pub(crate) fn last(&self) -> Lsn {
        self.chunks.values().map(|chunk| chunk.prefix).max().unwrap_or(Lsn::ZERO)
    }

    pub(crate) fn prefix(&self, chunk: ChunkIndex) -> Lsn {
        self.chunks.get(&chunk).map_or(Lsn::ZERO, |chunk| chunk.prefix)
    }
}
