//! Overlay: the newest content of blocks that small writes changed, kept in RAM (and in the journal) until it is in
//! place.
//!
//! Keyed by place, so that walking it in order is walking the disk in order. Holds durable content only. Bounded by
//! the ring: every block here stands in the part of the ring that is in use.

use crate::place::{DiskBlock, Place, Sequence};
use ashlar_types::{BLOCK_BYTES, BLOCKS_PER_SLOT};
use bytes::Bytes;
use std::collections::BTreeMap;

pub(crate) struct Kept {
    pub(crate) data: Bytes,
    /// The batch that brought it.
    pub(crate) sequence: Sequence,
}

#[derive(Default)]
pub(crate) struct Overlay {
    blocks: BTreeMap<DiskBlock, Kept>,
}

/// Adjoining blocks to be written in place with one write.
pub(crate) struct Run {
    pub(crate) start: DiskBlock,
    pub(crate) parts: Vec<Bytes>,
    /// The batch that brought each block.
    pub(crate) sequences: Vec<Sequence>,
}

impl Overlay {
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn get(&self, block: DiskBlock) -> Option<&Bytes> {
        self.blocks.get(&block).map(|kept| &kept.data)
    }

    pub(crate) fn put(&mut self, block: DiskBlock, data: Bytes, sequence: Sequence) {
        assert_eq!(data.len() as u64, BLOCK_BYTES);
        self.blocks.insert(block, Kept { data, sequence });
    }

    pub(crate) fn remove(&mut self, block: DiskBlock) {
        self.blocks.remove(&block);
    }

    pub(crate) fn remove_place(&mut self, place: Place) {
        for within in 0..BLOCKS_PER_SLOT {
            self.blocks.remove(&place.block(within));
        }
    }

    /// The first run at or after `from` of blocks brought by batches up to `until`, of at most `blocks_max` blocks.
    pub(crate) fn run_from(&self, from: DiskBlock, until: Sequence, blocks_max: u32) -> Option<Run> {
        let mut due = self.blocks.range(from..).filter(|(_, kept)| kept.sequence <= until);
        let (&start, first) = due.next()?;
        let mut run = Run { start, parts: vec![first.data.clone()], sequences: vec![first.sequence] };
        let mut next = start.next();
        for (&block, kept) in due {
            if block != next || run.parts.len() as u32 == blocks_max {
                break;
            }
            run.parts.push(kept.data.clone());
            run.sequences.push(kept.sequence);
            next = block.next();
        }
        Some(run)
    }

    /// A run is in place: what was not replaced meanwhile need not be kept.
    pub(crate) fn settle(&mut self, start: DiskBlock, sequences: &[Sequence]) {
        let mut block = start;
        for &sequence in sequences {
            if self.blocks.get(&block).is_some_and(|kept| kept.sequence == sequence) {
                self.blocks.remove(&block);
            }
            block = block.next();
        }
    }
}
