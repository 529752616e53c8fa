//! Ranges of blocks of a volume, made of what replicas say of slots.
//!
//! Invariants of what [`Spans`] gives: ascending, not empty, no two of one kind adjoin unless a multiple of
//! [`SPAN_BLOCKS_MAX`] is between them. So where ranges end depends on what is set alone, and not on where a walk
//! began.

use ashlar_types::{BLOCK_BYTES, BLOCKS_PER_SLOT, BlockIndex, ByteCount, ByteOffset, ChunkIndex};
use ashlar_wire::SlotBlocks;
use std::collections::VecDeque;

/// 1 GiB: bounds how many chunks are listed before the first range of a full volume is told.
pub const SPAN_BLOCKS_MAX: u64 = (1 << 30) / BLOCK_BYTES;

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Data,
    /// Reads as zeros: it was discarded, or zeros were written.
    Zeros,
}

/// Adjoining blocks of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: BlockIndex,
    pub blocks: u64,
    pub what: What,
}

impl Span {
    pub fn end(self) -> BlockIndex {
        BlockIndex(self.start.0 + self.blocks)
    }

    pub fn offset(self) -> ByteOffset {
        self.start.byte_offset()
    }

    pub fn length(self) -> ByteCount {
        ByteCount(self.blocks * BLOCK_BYTES)
    }

    /// The part of it that lies in `from..until`.
    pub fn within(self, from: BlockIndex, until: BlockIndex) -> Option<Span> {
        let (start, end) = (self.start.max(from), self.end().min(until));
        (start < end).then(|| Span { start, blocks: end.0 - start.0, what: self.what })
    }

    /// Cuts it at multiples of `blocks` of the volume.
    pub fn cut(self, blocks: u64) -> impl Iterator<Item = Span> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let whole = rest?;
            let border = BlockIndex((whole.start.0 / blocks + 1) * blocks);
            rest = whole.within(border, whole.end());
            whole.within(whole.start, border)
        })
    }
}

/// Which blocks become ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Those that do not read as zeros: the content of a snapshot.
    Data,
    /// All of which something is said, data or zeros: what changed.
    Set,
    /// The same as one kind, so that data and zeros become one range.
    SetAsData,
}

/// Joins blocks to ranges.
#[derive(Debug, Default)]
pub struct Spans {
    /// Whole ranges; nothing can join them any more.
    whole: VecDeque<Span>,
    /// The last one, which may become longer.
    open: Option<Span>,
}

impl Spans {
    /// The next whole range.
    pub fn pop(&mut self) -> Option<Span> {
        self.whole.pop_front()
    }

    /// Nothing adjoins what came so far. Whether that made a range whole.
    pub fn close(&mut self) -> bool {
        let last = self.open.take();
        self.whole.extend(last);
        last.is_some()
    }

    /// What is said of a chunk; chunks come in order.
    pub fn add(&mut self, chunk: ChunkIndex, slots: &[SlotBlocks], listed: Listed) {
        for slot in slots {
            let first = chunk.first_block().0 + slot.slot.first_block().0;
            for within in 0..BLOCKS_PER_SLOT {
                let is = |bits: u16| bits >> within & 1 != 0;
                let what = match listed {
                    _ if is(slot.valid) => What::Data,
                    Listed::Set if is(slot.set) => What::Zeros,
                    Listed::SetAsData if is(slot.set) => What::Data,
                    _ => continue,
                };
                self.push(Span { start: BlockIndex(first + u64::from(within)), blocks: 1, what });
            }
        }
    }

    pub fn push(&mut self, span: Span) {
        for span in span.cut(SPAN_BLOCKS_MAX) {
            match &mut self.open {
                Some(open) if joins(*open, span) => open.blocks += span.blocks,
                _ => {
                    self.close();
                    self.open = Some(span);
                }
            }
        }
    }
}

fn joins(open: Span, next: Span) -> bool {
    open.what == next.what && open.end() == next.start && !next.start.0.is_multiple_of(SPAN_BLOCKS_MAX)
}

#[cfg(test)]
mod tests;
