//! Reclaim: gives back the space of versions that no snapshot needs any more, one slot at a time, behind everything
//! else.
//!
//! ```text
//!           a pair may be merged             read, checksums right          journalled, applied
//!   Idle ─────────────────────────► Reading ──────────────────────► Queued ─────────────────────► Idle
//!     ▲ a whole round found nothing: until the next checkpoint
//! ```
//! Cost of a merge: at most 8 blocks read and journalled once more. Bound: one merge at a time.

use crate::Action;
use crate::config::LIST_SLOTS_MAX;
use crate::engine::{Engine, Op};
use crate::event::DiskError;
use crate::place::DiskBlock;
use crate::queue::{Waiting, Work};
use crate::store::{Move, Pair};
use ashlar_types::{BLOCK_BYTES, ByteCount, ChunkIndex, Crc32, Lsn, SLOTS_PER_CHUNK, SlotIndex, VolumeId};
use bytes::Bytes;

/// With less than one in so many places free, merges no longer wait for a quiet moment.
const SCARCE: u32 = 16;

#[derive(Default)]
pub(crate) struct Reclaim {
    state: State,
    /// Where the search goes on; `None` at the beginning of a round.
    cursor: Option<Cursor>,
    /// This round has merged something.
    found: bool,
    /// A round has merged nothing.
    rests: bool,
}

type Cursor = (VolumeId, ChunkIndex, SlotIndex);

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Reading {
        pair: Pair,
        what: Move,
        blocks: Vec<Option<Bytes>>,
        left: usize,
    },
    Queued(Pair),
}

impl Engine {
    /// Whether the search may go on now: behind everything else, unless the disk is about to be full.
    pub(crate) fn may_reclaim(&self) -> bool {
        let is_quiet = self.journal.is_quiet() && self.waiting.is_empty();
        let is_scarce = self.store.places.free() < self.store.places.count() / SCARCE;
        matches!(self.reclaim.state, State::Idle) && !self.reclaim.rests && (is_quiet || is_scarce)
    }

    /// Nothing is to be merged for now.
    pub(crate) fn rests_from_merging(&self) -> bool {
        matches!(self.reclaim.state, State::Idle) && self.reclaim.rests
    }

    /// A checkpoint has passed. Pairs that came to be since then are looked for.
    pub(crate) fn wake_reclaim(&mut self) {
        if std::mem::take(&mut self.store.has_new_pairs) {
            self.reclaim.rests = false;
        }
    }

    pub(crate) fn reclaim_step(&mut self, out: &mut Vec<Action>) {
        if !self.may_reclaim() {
            return;
        }
        let Some(pair) = self.next_pair() else { return };
        let what = self.store.plan_merge(pair).expect("the pair was just found");
        let (blocks, left) = (vec![None; what.from.len()], what.from.len());
        let reads: Vec<(usize, DiskBlock)> = what.from.iter().map(|(block, _)| *block).enumerate().collect();
        self.reclaim.state = State::Reading { pair, what, blocks, left };
        for (index, block) in reads {
            match self.store.overlay.get(block).cloned() {
                Some(data) => self.reclaim_read_done(index, Ok(data)),
                None => {
                    let op = self.begin_op(Op::Reclaim { index });
                    let offset = block.offset(self.data_offset());
                    out.push(Action::Read { op, offset, bytes: ByteCount(BLOCK_BYTES) });
                }
            }
        }
        self.queue_merge();
    }

    /// Looks at a bounded number of slots, round and round over the replicas that ever had a snapshot.
    fn next_pair(&mut self) -> Option<Pair> {
        let mut looked_at = 0;
        while looked_at < LIST_SLOTS_MAX {
            let Some((volume, chunk, slot)) = self.chunk_from(self.reclaim.cursor) else {
                self.reclaim.rests = !self.reclaim.found;
                (self.reclaim.cursor, self.reclaim.found) = (None, false);
                return None;
            };
            if let Some(pair) = self.store.mergeable(volume, chunk, slot) {
                // The slot may have more of them.
                self.reclaim.cursor = Some((volume, chunk, pair.slot));
                return Some(pair);
            }
            let replica = self.store.volumes.get(&volume);
            looked_at += 1 + replica.map_or(0, |replica| replica.chunks[&chunk].slots.len());
            self.reclaim.cursor = Some((volume, ChunkIndex(chunk.0 + 1), SlotIndex(0)));
        }
        None
    }

    /// The first chunk at or after the cursor, and the slot to begin with.
    fn chunk_from(&self, cursor: Option<Cursor>) -> Option<Cursor> {
        let (first, chunk, slot) = cursor.unwrap_or((VolumeId::from_u128(0), ChunkIndex(0), SlotIndex(0)));
        let replicas = self.store.volumes.range(first..).filter(|(_, replica)| replica.floor > Lsn::ZERO);
        replicas.into_iter().find_map(|(&volume, replica)| {
            let from = if volume == first { chunk } else { ChunkIndex(0) };
            let (&found, _) = replica.chunks.range(from..).next()?;
            let is_same = (volume, found) == (first, chunk);
            Some((volume, found, if is_same { slot } else { SlotIndex(0) }))
        })
    }

    pub(crate) fn reclaim_read_done(&mut self, index: usize, result: Result<Bytes, DiskError>) {
        let State::Reading { what, blocks, left, .. } = &mut self.reclaim.state else { panic!("nothing is merged") };
        *left -= 1;
        blocks[index] = result.ok().filter(|data| Crc32::of(data) == what.from[index].1);
    }

    /// When all is read: a block that is bad here is left to be repaired first.
    pub(crate) fn queue_merge(&mut self) {
        if !matches!(self.reclaim.state, State::Reading { left: 0, .. }) {
            return;
        }
        let State::Reading { pair, what, blocks, .. } = std::mem::take(&mut self.reclaim.state) else { return };
        let Some(blocks) = blocks.into_iter().collect::<Option<Vec<Bytes>>>() else {
            self.reclaim.cursor = after(pair);
            return;
        };
        self.reclaim.state = State::Queued(pair);
        let work = Work::Merge { pair, what, blocks };
        self.waiting.push_back(Waiting { volume: pair.volume, commit: Lsn::ZERO, to: None, work });
    }

    /// The slot has changed, or will have: a later round looks at it again.
    pub(crate) fn merge_dropped(&mut self) {
        let State::Queued(pair) = std::mem::take(&mut self.reclaim.state) else { panic!("nothing was queued") };
        self.reclaim.cursor = after(pair);
        self.store.has_new_pairs = true;
    }

    pub(crate) fn merge_ended(&mut self) {
        self.reclaim.state = State::Idle;
        self.reclaim.found = true;
        self.counters.merges += 1;
    }
}

/// Where the search goes on when a pair cannot be merged.
fn after(pair: Pair) -> Option<Cursor> {
    let is_last = u32::from(pair.slot.0) + 1 == SLOTS_PER_CHUNK;
    Some(match is_last {
        true => (pair.volume, ChunkIndex(pair.chunk.0 + 1), SlotIndex(0)),
        false => (pair.volume, pair.chunk, SlotIndex(pair.slot.0 + 1)),
    })
}
