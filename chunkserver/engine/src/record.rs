//! Records: what the journal says. A record tells everything that replay needs, places included, so that replay
//! decides nothing.
//!
//! ```text
//!  offset  bytes  every record
//!       0      1  kind
//!       1      1  flags; Discard: 1 = the first slot's place goes, 2 = the last slot's place goes
//!       2      2  bytes of the record
//!       4      4  zero
//!       8     16  volume id
//!      24      -  body; payload blocks follow in the batch's payload pages
//!
//!  kind            body
//!   1 Write        chunk 4, start 4, count 2, slots 1, 0 5, lsn 8, floor 8, commit 8,
//!                  slots x {place 4, direct 1, 0 3}, count x crc 4
//!   2 Discard      chunk 4, start 4, count 4, 0 4, lsn 8, floor 8, commit 8
//!   3 Promise      epoch 4, served 4, size 8, session 8, commit 8
//!   4 Fill         chunk 4, slot 2, valid 2, place 4, direct 4, stamp 8, commit 8, from 8, below 8, into 8, set 2,
//!                  0 6, n x crc 4
//!   5 Repair       chunk 4, start 4, count 2, slots 1, 0 5, floor 8, commit 8, slots x {place 4, 0 4},
//!                  count x crc 4
//!   6 MarkStale    chunk 4, 0 4, after 8, commit 8, from 8, below 8, into 8, slot set 128
//!   7 BeginSync    after 8, commit 8
//!   8 AdoptPrefix  chunk 4, 0 4, prefix 8, commit 8
//!   9 CompleteChunk  like AdoptPrefix
//!  10 FinishSync   commit 8
//!  11 DeleteVolume epoch 4, 0 4
//!  12 VoidStale    chunk 4, 0 4, commit 8
//!  13 Keep         until 8, commit 8, count 2, 0 6, count x point 8
//!  14 Merge        chunk 4, slot 2, moved 2, place 4, 0 4, older 8, newer 8, commit 8, n x crc 4
//!  15 Clone        epoch 4, 0 4, size 8, base volume 16, base point 8
//!  16 Flatten      chunk 4, slot 2, zeros 2, copied 2, lost 2, place 4, stamp 8, commit 8, n x crc 4
//!  17 Flattened    commit 8
//! ```
//! Invariants: a record's bytes fit a batch's header page; its payload fits a batch; ranges lie within one chunk;
//! places on the disk.

mod codec;

pub(crate) use codec::KEEP_BYTES_MAX;

use crate::codec::checked_chunk;
use crate::place::Place;
use crate::replica::SlotAddress;
use ashlar_types::{
    BLOCKS_PER_SLOT, Base, BlockCount, BlockIndex, ByteCount, ChunkIndex, ChunkRange, Crc32, Epoch, FloorRange, Kept,
    Lsn, SessionId, SlotIndex, SlotSet, VolumeId,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) volume: VolumeId,
    /// The commit point heard of when the record was made.
    pub(crate) commit: Lsn,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Write {
        range: ChunkRange,
        lsn: Lsn,
        floor: Lsn,
        pieces: Vec<Piece>,
        crcs: Vec<Crc32>,
    },
    /// Places of slots that are covered whole always go; those of the two ends where it says so.
    Discard {
        range: ChunkRange,
        lsn: Lsn,
        floor: Lsn,
        release_first: bool,
        release_last: bool,
    },
    /// Of an `Open`, and of a `Grow` with the promise as it was.
    Promise {
        epoch: Epoch,
        size: ByteCount,
        session: SessionId,
        /// In which the replica must have agreed, or it is of the past.
        served: Epoch,
    },
    Fill {
        chunk: ChunkIndex,
        slot: SlotIndex,
        floors: FloorRange,
        into: Lsn,
        stamp: Lsn,
        set: u16,
        valid: u16,
        place: Option<Place>,
        direct: bool,
        crcs: Vec<Crc32>,
    },
    /// Of blocks that live in one version.
    Repair {
        range: ChunkRange,
        floor: Lsn,
        pieces: Vec<Piece>,
        crcs: Vec<Crc32>,
    },
    MarkStale(Mark),
    BeginSync {
        after: Lsn,
    },
    AdoptPrefix {
        chunk: ChunkIndex,
        prefix: Lsn,
    },
    CompleteChunk {
        chunk: ChunkIndex,
        prefix: Lsn,
    },
    VoidStale {
        chunk: ChunkIndex,
    },
    FinishSync,
    Keep(Kept),
    /// Two versions of a slot that nobody needs to tell apart become one, under the newer name, at one of their
    /// places. `moved` are the blocks that come to it from the other's.
    Merge {
        chunk: ChunkIndex,
        slot: SlotIndex,
        older: Lsn,
        newer: Lsn,
        place: Option<Place>,
        moved: u16,
        crcs: Vec<Crc32>,
    },
    DeleteVolume {
        epoch: Epoch,
    },
    /// The replica of a clone, beside that of its source.
    Clone {
        epoch: Epoch,
        size: ByteCount,
        base: Base,
    },
    /// What a clone's base shows of a slot becomes its own: zeros, content, and what this disk does not have.
    Flatten {
        chunk: ChunkIndex,
        slot: SlotIndex,
        zeros: u16,
        copied: u16,
        lost: u16,
        place: Option<Place>,
        stamp: Lsn,
        crcs: Vec<Crc32>,
    },
    /// The clone has everything itself.
    Flattened,
}

/// What is to be marked stale; see `ashlar_wire::Request::MarkStale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) chunk: ChunkIndex,
    pub(crate) after: Lsn,
    pub(crate) floors: FloorRange,
    pub(crate) into: Lsn,
    pub(crate) slots: SlotSet,
}

/// Where the part of a write goes that lies in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) place: Place,
    /// The whole slot was written to its place beside the journal; else the blocks are in the journal.
    pub(crate) direct: bool,
}

/// The blocks of a range that lie in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotPart {
    pub(crate) slot: SlotIndex,
    /// First block, counted within the slot.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// How many blocks of the range lie before.
    pub(crate) skipped: u32,
}

impl SlotPart {
    pub(crate) fn is_whole(&self) -> bool {
        self.count == BLOCKS_PER_SLOT
    }

    pub(crate) fn bits(&self) -> u16 {
        ((((1u32 << self.count) - 1) << self.first) & 0xFFFF) as u16
    }
}

/// Cuts a range at slot borders, in order.
pub(crate) fn slot_parts(range: ChunkRange) -> impl Iterator<Item = SlotPart> {
    assert!(range.is_valid());
    let mut skipped = 0;
    std::iter::from_fn(move || {
        if skipped == range.count.0 {
            return None;
        }
        let block = range.start.offset_by(BlockCount(skipped));
        let count = (BLOCKS_PER_SLOT - block.within_slot()).min(range.count.0 - skipped);
        let part = SlotPart { slot: block.slot(), first: block.within_slot(), count, skipped };
        skipped += count;
        Some(part)
    })
}

/// The set bits of a slot's block bitmap, ascending.
pub(crate) fn bits_of(bitmap: u16) -> impl Iterator<Item = u32> {
    (0..BLOCKS_PER_SLOT).filter(move |&block| bitmap & (1 << block) != 0)
}

impl Record {
    /// The chunk that the record is about; `None` when it is about the whole volume.
    pub(crate) fn chunk(&self) -> Option<ChunkIndex> {
        match &self.body {
            Body::Write { range, .. } | Body::Discard { range, .. } | Body::Repair { range, .. } => Some(range.chunk),
            Body::Fill { chunk, .. }
            | Body::Merge { chunk, .. }
            | Body::Flatten { chunk, .. }
            | Body::MarkStale(Mark { chunk, .. })
            | Body::AdoptPrefix { chunk, .. }
            | Body::CompleteChunk { chunk, .. }
            | Body::VoidStale { chunk } => Some(*chunk),
            Body::Promise { .. }
            | Body::BeginSync { .. }
            | Body::FinishSync
            | Body::Keep(_)
            | Body::Clone { .. }
            | Body::Flattened
            | Body::DeleteVolume { .. } => None,
        }
    }

    /// Whether blocks become stale, fresh or neither by it, other than by new content of their own.
    pub(crate) fn changes_marks(&self) -> bool {
        match &self.body {
            Body::Write { .. }
            | Body::Discard { .. }
            | Body::Repair { .. }
            | Body::Merge { .. }
            | Body::Flatten { .. }
            | Body::Keep(_) => false,
            Body::Promise { .. }
            | Body::DeleteVolume { .. }
            | Body::Fill { .. }
            | Body::MarkStale(_)
            | Body::BeginSync { .. }
            | Body::AdoptPrefix { .. }
            | Body::CompleteChunk { .. }
            | Body::VoidStale { .. }
            | Body::Clone { .. }
            | Body::Flattened
            | Body::FinishSync => true,
        }
    }

    /// Where each payload block goes and its checksum, in the order of the payload.
    pub(crate) fn payload(&self) -> Vec<(SlotIndex, Place, u32, Crc32)> {
        match &self.body {
            Body::Write { range, pieces, crcs, .. } | Body::Repair { range, pieces, crcs, .. } => {
                let journalled = slot_parts(*range).zip(pieces).filter(|(_, piece)| !piece.direct);
                let blocks = |(part, piece): (SlotPart, &Piece)| {
                    let place = piece.place;
                    let crc = move |i: u32| crcs[(part.skipped + i) as usize];
                    (0..part.count).map(move |i| (part.slot, place, part.first + i, crc(i)))
                };
                journalled.flat_map(blocks).collect()
            }
            Body::Fill { slot, valid, place: Some(place), direct: false, crcs, .. } => {
                bits_of(*valid).zip(crcs).map(|(block, &crc)| (*slot, *place, block, crc)).collect()
            }
            Body::Merge { slot, moved, place: Some(place), crcs, .. } => {
                bits_of(*moved).zip(crcs).map(|(block, &crc)| (*slot, *place, block, crc)).collect()
            }
            Body::Flatten { slot, copied, place: Some(place), crcs, .. } => {
                bits_of(*copied).zip(crcs).map(|(block, &crc)| (*slot, *place, block, crc)).collect()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn payload_pages(&self) -> u32 {
        match &self.body {
            Body::Write { range, pieces, .. } | Body::Repair { range, pieces, .. } => {
                let journalled = slot_parts(*range).zip(pieces).filter(|(_, piece)| !piece.direct);
                journalled.map(|(part, _)| part.count).sum()
            }
            Body::Fill { valid, direct: false, .. } => valid.count_ones(),
            Body::Merge { moved: blocks, .. } | Body::Flatten { copied: blocks, .. } => blocks.count_ones(),
            _ => 0,
        }
    }

    /// The whole slots beside the journal, and their places.
    pub(crate) fn directs(&self) -> Vec<(SlotAddress, Place)> {
        let volume = self.volume;
        match &self.body {
            Body::Write { range, floor, pieces, .. } => {
                let direct = slot_parts(*range).zip(pieces).filter(|(_, piece)| piece.direct);
                let address = |slot| SlotAddress { volume, chunk: range.chunk, slot, floor: *floor };
                direct.map(|(part, piece)| (address(part.slot), piece.place)).collect()
            }
            Body::Fill { chunk, slot, into, place: Some(place), direct: true, .. } => {
                vec![(SlotAddress { volume, chunk: *chunk, slot: *slot, floor: *into }, *place)]
            }
            _ => Vec::new(),
        }
    }
}

/// A range from its numbers on disk, if it lies within one chunk.
fn checked_range(chunk: u32, start: u32, count: u32) -> Option<ChunkRange> {
    let start = BlockIndex(u64::from(start));
    let range = ChunkRange { chunk: checked_chunk(chunk).ok()?, start, count: BlockCount(count) };
    range.is_valid().then_some(range)
}

#[cfg(test)]
mod tests;
