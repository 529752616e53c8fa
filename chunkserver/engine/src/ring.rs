//! Ring: which part of the journal's ring is in use.
//!
//! ```text
//!   0        tail                          head                     ring end
//!   +---------+-----------------------------+------------------+---------+
//!   |  free   | batch q | batch q+1 | ...   |  free            | no start|
//!   +---------+-----------------------------+------------------+---------+
//! ```
//! A batch never crosses the end: it starts only where the largest batch would fit, else at 0. The rest of a lap is
//! wasted and counts as used by the batch before it. Invariant: used <= ring; used = sum of the live batches.
//!
//! The index says how far from the tail batches may lie, so that a start need not look at the whole ring: the reach.
//! A batch is written only within a reach that is durable; when half a step of it is left, the next is on its way.

use crate::config::BATCH_BYTES_MAX;
use crate::index::Position;
use crate::place::Sequence;
use crate::recover::scan::PastBatch;
use ashlar_types::{BLOCK_BYTES, Crc32};
use std::collections::VecDeque;

struct Live {
    sequence: Sequence,
    bytes: u64,
    /// What follows this batch.
    after: Position,
}

pub(crate) struct Ring {
    bytes: u64,
    tail: Position,
    head: Position,
    live: VecDeque<Live>,
    used: u64,
    /// From the tail, as the index says.
    reach: u64,
}

/// Whether a batch may start at an offset.
pub(crate) fn may_start_at(offset: u64, ring_bytes: u64) -> bool {
    offset.is_multiple_of(BLOCK_BYTES) && offset.checked_add(BATCH_BYTES_MAX).is_some_and(|end| end <= ring_bytes)
}

/// How much further the reach goes at once.
pub(crate) fn reach_step(ring_bytes: u64) -> u64 {
    (ring_bytes / 8).next_multiple_of(BLOCK_BYTES).max(4 * BATCH_BYTES_MAX)
}

/// Where the batch after one that ends at `end` starts.
pub(crate) fn next_start(end: u64, ring_bytes: u64) -> u64 {
    if may_start_at(end, ring_bytes) { end } else { 0 }
}

impl Ring {
    /// Nothing is in use, and nothing may be before the index says how far.
    pub(crate) fn new(bytes: u64, head: Position) -> Ring {
        assert!(may_start_at(head.next_offset, bytes));
        Ring { bytes, tail: head, head, live: VecDeque::new(), used: 0, reach: 0 }
    }

    /// A ring that goes on after `batches`, which stand in it from `tail` on; `None` if it would not have put them so.
    pub(crate) fn resume(bytes: u64, tail: Position, batches: &[PastBatch]) -> Option<Ring> {
        let mut ring = Ring::new(bytes, tail);
        for batch in batches {
            let follows = (batch.sequence, batch.offset) == (ring.head.next_sequence, ring.head.next_offset);
            if !follows || !ring.has_room() {
                return None;
            }
            ring.push(batch.bytes, batch.checksum);
        }
        Some(ring)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Where replay begins.
    pub(crate) fn tail(&self) -> Position {
        self.tail
    }

    /// What the next batch will be.
    pub(crate) fn head(&self) -> Position {
        self.head
    }

    /// Whether the largest batch can be written without touching what is in use. Headroom for one more: head never
    /// meets tail.
    pub(crate) fn has_room(&self) -> bool {
        self.used + 3 * BATCH_BYTES_MAX <= self.bytes
    }

    /// Whether the largest batch would lie within the reach.
    pub(crate) fn is_within_reach(&self) -> bool {
        self.used + BATCH_BYTES_MAX <= self.reach
    }

    pub(crate) fn is_near_reach(&self) -> bool {
        self.reach < self.bytes && self.used + reach_step(self.bytes) / 2 > self.reach
    }

    /// Whether less than a step of the reach is left.
    pub(crate) fn is_short_of_reach(&self) -> bool {
        self.reach < self.bytes && self.used + reach_step(self.bytes) > self.reach
    }

    /// The reach that the index shall say with the position after batch `until`; not below the present one.
    pub(crate) fn next_reach(&self, until: Sequence) -> u64 {
        let behind: u64 = self.live.iter().take_while(|live| live.sequence <= until).map(|live| live.bytes).sum();
        (self.used + reach_step(self.bytes)).max(self.reach).min(self.bytes + behind) - behind
    }

    pub(crate) fn reaches(&mut self, reach: u64) {
        self.reach = reach;
    }

    /// Takes the space of the next batch; returns where it goes.
    pub(crate) fn push(&mut self, bytes: u64, checksum: Crc32) -> u64 {
        assert!(self.has_room() && bytes <= BATCH_BYTES_MAX);
        let start = self.head.next_offset;
        let next = next_start(start + bytes, self.bytes);
        let taken = if next == 0 { self.bytes - start } else { bytes };
        let sequence = self.head.next_sequence;
        self.head = Position { next_sequence: sequence.next(), next_offset: next, chain: checksum };
        self.live.push_back(Live { sequence, bytes: taken, after: self.head });
        self.used += taken;
        assert!(self.used <= self.bytes);
        start
    }

    /// The position after batch `sequence`, which is in use.
    pub(crate) fn position_after(&self, sequence: Sequence) -> Position {
        let first = self.live.front().expect("a batch is in use").sequence;
        let live = &self.live[(sequence.0 - first.0) as usize];
        assert_eq!(live.sequence, sequence);
        live.after
    }

    /// Batches up to and including `sequence` are needed no more.
    pub(crate) fn trim(&mut self, sequence: Sequence) {
        while let Some(live) = self.live.front()
            && live.sequence <= sequence
        {
            self.used -= live.bytes;
            self.tail = live.after;
            self.live.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_never_cross_the_end_and_the_rest_of_the_lap_counts_as_used() {
        let bytes = 8 << 20;
        let mut ring = Ring::new(bytes, Position::START);
        let mut last = 0;
        for lap in 0..1000u64 {
            let size = (1 + lap * 7 % 64) * BLOCK_BYTES;
            let start = ring.push(size, Crc32(lap as u32));
            assert!(may_start_at(start, bytes));
            assert!(start > last || start == 0);
            last = start;
            if lap % 3 == 2 {
                let newest = Sequence(ring.head().next_sequence.0 - 1);
                assert_eq!(ring.position_after(newest), ring.head());
                ring.trim(newest);
                assert_eq!(ring.used(), 0);
            }
        }
    }
}
