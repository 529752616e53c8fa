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
//!   4 Fill         chunk 4, slot 2, valid 2, place 4, direct 4, stamp 8, commit 8, n x crc 4
//!   5 Repair       chunk 4, start 4, count 2, slots 1, 0 5, commit 8, slots x {place 4, 0 4}, count x crc 4
//!   6 MarkStale    chunk 4, 0 4, after 8, commit 8, slot set 128
//!   7 BeginSync    after 8, commit 8
//!   8 AdoptPrefix  chunk 4, 0 4, prefix 8, commit 8
//!   9 CompleteChunk  like AdoptPrefix
//!  10 FinishSync   commit 8
//!  11 DeleteVolume epoch 4, 0 4
//!  12 VoidStale    chunk 4, 0 4, commit 8
//! ```
//! Invariants: a record's bytes fit a batch's header page; its payload fits a batch; ranges lie within one chunk;
//! places on the disk.

mod codec;

use crate::place::Place;
use ashlar_types::{
    BLOCKS_PER_SLOT, BlockCount, BlockIndex, ByteCount, ChunkIndex, ChunkRange, Crc32, Epoch, Lsn, SessionId,
    SlotIndex, SlotSet, VolumeId,
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
        stamp: Lsn,
        valid: u16,
        place: Option<Place>,
        direct: bool,
        crcs: Vec<Crc32>,
    },
    Repair {
        range: ChunkRange,
        pieces: Vec<Piece>,
        crcs: Vec<Crc32>,
    },
    MarkStale {
        chunk: ChunkIndex,
        after: Lsn,
        slots: SlotSet,
    },
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
    DeleteVolume {
        epoch: Epoch,
    },
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
            | Body::MarkStale { chunk, .. }
            | Body::AdoptPrefix { chunk, .. }
            | Body::CompleteChunk { chunk, .. }
            | Body::VoidStale { chunk } => Some(*chunk),
            Body::Promise { .. } | Body::BeginSync { .. } | Body::FinishSync | Body::DeleteVolume { .. } => None,
        }
    }

    /// Where each payload block goes and its checksum, in the order of the payload.
    pub(crate) fn payload(&self) -> Vec<(SlotIndex, Place, u32, Crc32)> {
        match &self.body {
            Body::Write { range, pieces, crcs, .. } | Body::Repair { range, pieces, crcs } => {
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
            _ => 0,
        }
    }

    /// The whole slots beside the journal: place and checksums.
    pub(crate) fn directs(&self) -> Vec<(SlotIndex, Place, &[Crc32])> {
        match &self.body {
            Body::Write { range, pieces, crcs, .. } => {
                let direct = slot_parts(*range).zip(pieces).filter(|(_, piece)| piece.direct);
                let crcs_of = |part: SlotPart| &crcs[part.skipped as usize..(part.skipped + part.count) as usize];
                direct.map(|(part, piece)| (part.slot, piece.place, crcs_of(part))).collect()
            }
            Body::Fill { slot, place: Some(place), direct: true, crcs, .. } => vec![(*slot, *place, crcs)],
            _ => Vec::new(),
        }
    }
}

/// A range from its numbers on disk, if it lies within one chunk.
fn checked_range(chunk: u32, start: u32, count: u32) -> Option<ChunkRange> {
    let start = BlockIndex(u64::from(start));
    let range = ChunkRange { chunk: ChunkIndex(chunk), start, count: BlockCount(count) };
    range.is_valid().then_some(range)
}

#[cfg(test)]
mod tests;
