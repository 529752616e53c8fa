//! Flattening: clones come to have everything themselves, slot by slot, behind everything else, merges too.
//!
//! ```text
//!           a slot lacks what its base shows         read                         journalled, applied
//!   Idle ─────────────────────────────────► Reading ──────► Queued: Flatten ────────────────────────► Idle
//!     │ a whole clone lacks nothing ─────────────────────► Queued: Flattened ───────────────────────►  ▲
//!     ▼ a round is over, or space is short: rests until the next checkpoint
//! ```
//! A slot is begun on ticks only, which come when nothing else is to be done; a disk that is only looked at gets none.
//! Cost of a slot: at most 16 blocks read and journalled once. Bound: one slot at a time. A checkpoint follows changes
//! only, so a clone that waits for something costs nothing until something has changed.

use crate::Action;
use crate::config::LIST_SLOTS_MAX;
use crate::engine::{Engine, Op};
use crate::event::DiskError;
use crate::place::DiskBlock;
use crate::queue::{Waiting, Work};
use crate::store::{Flat, Flatness};
use ashlar_types::{BLOCK_BYTES, ByteCount, ChunkIndex, Crc32, Lsn, SLOTS_PER_CHUNK, SlotIndex, VolumeId};
use bytes::Bytes;
use std::ops::Range;

const PAGE: usize = BLOCK_BYTES as usize;

#[derive(Default)]
pub(crate) struct Flattening {
    state: State,
    /// Where the search goes on; `None` at the beginning of a round.
    cursor: Option<Cursor>,
    /// Something of the clone at the cursor cannot be had yet.
    waits: bool,
    is_awake: bool,
}

/// A place in a clone.
#[derive(Clone, Copy)]
struct Cursor {
    volume: VolumeId,
    chunk: ChunkIndex,
    slot: SlotIndex,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Reading {
        flat: Flat,
        blocks: Vec<Option<Bytes>>,
        left: usize,
    },
    Queued,
}

/// What the search has found.
enum Step {
    Slot(Flat),
    /// Nothing that the clone lacks.
    Whole(VolumeId),
}

impl Cursor {
    fn at(volume: VolumeId) -> Cursor {
        Cursor { volume, chunk: ChunkIndex(0), slot: SlotIndex(0) }
    }
}

impl Engine {
    /// Whether the search may go on now.
    pub(crate) fn may_flatten(&self) -> bool {
        let is_quiet = self.journal.is_quiet() && self.waiting.is_empty() && self.rests_from_merging();
        let is_due = matches!(self.flattening.state, State::Idle) && self.flattening.is_awake;
        is_due && is_quiet && self.recovery.is_none() && self.failed.is_none()
    }

    /// A checkpoint has passed: something has changed.
    pub(crate) fn wake_flattening(&mut self) {
        self.flattening.is_awake = self.store.has_clones();
    }

    pub(crate) fn flatten_step(&mut self, out: &mut Vec<Action>) {
        if !self.may_flatten() {
            return;
        }
        match self.next_step() {
            None => {}
            Some(Step::Slot(flat)) => self.begin_flatten(flat, out),
            Some(Step::Whole(volume)) => {
                self.flattening.state = State::Queued;
                let waiting = Waiting { volume, commit: Lsn::ZERO, to: None, work: Work::Flattened };
                self.waiting.push_back(waiting);
            }
        }
        self.queue_flatten();
    }

    /// Looks at a bounded number of slots, round and round over the clones.
    fn next_step(&mut self) -> Option<Step> {
        let mut looked_at = 0;
        while looked_at < LIST_SLOTS_MAX {
            looked_at += 1;
            let Some(at) = self.clone_at_cursor() else {
                (self.flattening.cursor, self.flattening.is_awake) = (None, false);
                return None;
            };
            let replica = self.store.replica(at.volume).expect("the clone was just found");
            let may_begin = !replica.incomplete && replica.syncing.is_none();
            let Some((&chunk, entry)) = replica.chunks.range(at.chunk..).next().filter(|_| may_begin) else {
                return self.leave_clone(at.volume, may_begin);
            };
            let at = if chunk == at.chunk { at } else { Cursor { chunk, slot: SlotIndex(0), ..at } };
            self.flattening.waits |= !entry.complete;
            let Some(slot) = self.store.next_based(at.volume, chunk, at.slot).filter(|_| entry.complete) else {
                looked_at += SLOTS_PER_CHUNK as usize;
                self.flattening.cursor = Some(Cursor { chunk: ChunkIndex(chunk.0 + 1), slot: SlotIndex(0), ..at });
                continue;
            };
            match self.store.flatness(at.volume, chunk, slot) {
                Flatness::Lacks(flat) => {
                    self.flattening.cursor = Some(Cursor { slot, ..at });
                    // For want of space everything rests until something has changed.
                    self.flattening.is_awake = self.has_place_for(&flat);
                    return self.flattening.is_awake.then_some(Step::Slot(flat));
                }
                flatness => {
                    self.flattening.waits |= flatness == Flatness::Waits;
                    self.flattening.cursor = Some(Cursor { slot: SlotIndex(slot.0 + 1), ..at });
                }
            }
        }
        None
    }

    /// The first clone at or after the cursor, and where to begin in it.
    fn clone_at_cursor(&mut self) -> Option<Cursor> {
        let from = self.flattening.cursor.unwrap_or(Cursor::at(VolumeId::from_u128(0)));
        let mut clones = self.store.volumes.range(from.volume..);
        let (&volume, _) = clones.find(|(_, replica)| !replica.deleted && replica.base().is_some())?;
        if volume == from.volume {
            return Some(from);
        }
        self.flattening.waits = false;
        Some(Cursor::at(volume))
    }

    /// The search has come to the end of a clone, or has not begun with it.
    fn leave_clone(&mut self, volume: VolumeId, is_seen: bool) -> Option<Step> {
        let waits = std::mem::take(&mut self.flattening.waits);
        let next = volume.as_u128().checked_add(1);
        self.flattening.cursor = next.map(|next| Cursor::at(VolumeId::from_u128(next)));
        self.flattening.is_awake = next.is_some();
        (is_seen && !waits).then_some(Step::Whole(volume))
    }

    /// What is copied must leave as much as a first touch.
    pub(crate) fn has_place_for(&self, flat: &Flat) -> bool {
        let needs_one = !flat.from.is_empty() && self.expected_place(flat.target()).is_none();
        !needs_one || self.store.places.free() > self.reserve_slots()
    }

    fn begin_flatten(&mut self, flat: Flat, out: &mut Vec<Action>) {
        let mut blocks: Vec<Option<Bytes>> = Vec::new();
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (index, (_, at, _)) in flat.from.iter().enumerate() {
            blocks.push(self.store.overlay.get(*at).cloned());
            let adjoins = |run: &Range<usize>| run.end == index && flat.from[index - 1].1.next() == *at;
            match runs.last_mut() {
                _ if blocks[index].is_some() => {}
                Some(run) if adjoins(run) => run.end += 1,
                _ => runs.push(index..index + 1),
            }
        }
        let reads: Vec<(Range<usize>, DiskBlock)> =
            runs.into_iter().map(|run| (run.clone(), flat.from[run.start].1)).collect();
        self.flattening.state = State::Reading { flat, blocks, left: reads.len() };
        for (run, at) in reads {
            self.read_for_flattening(run, at, out);
        }
    }

    fn read_for_flattening(&mut self, run: Range<usize>, at: DiskBlock, out: &mut Vec<Action>) {
        let bytes = ByteCount((run.len() * PAGE) as u64);
        let op = self.begin_op(Op::Flatten { run });
        out.push(Action::Read { op, offset: at.offset(self.data_offset()), bytes });
    }

    pub(crate) fn flatten_read_done(
        &mut self,
        run: Range<usize>,
        result: Result<Bytes, DiskError>,
        out: &mut Vec<Action>,
    ) {
        let State::Reading { flat, blocks, left } = &mut self.flattening.state else { panic!("nothing is read") };
        *left -= 1;
        match result {
            Ok(data) => {
                for (page, index) in run.enumerate() {
                    let block = data.slice(page * PAGE..(page + 1) * PAGE);
                    blocks[index] = Some(block).filter(|block| Crc32::of(block) == flat.from[index].2);
                }
            }
            // The medium failed somewhere in the run: block by block it shows where.
            Err(_) if run.len() > 1 => {
                *left += run.len();
                let singles: Vec<(usize, DiskBlock)> = run.map(|index| (index, flat.from[index].1)).collect();
                for (index, at) in singles {
                    self.read_for_flattening(index..index + 1, at, out);
                }
            }
            Err(_) => {}
        }
    }

    /// When all is read.
    pub(crate) fn queue_flatten(&mut self) {
        if !matches!(self.flattening.state, State::Reading { left: 0, .. }) {
            return;
        }
        let State::Reading { flat, blocks, .. } = std::mem::replace(&mut self.flattening.state, State::Queued) else {
            return;
        };
        let (volume, work) = (flat.volume, Work::Flatten { flat, blocks });
        self.waiting.push_back(Waiting { volume, commit: Lsn::ZERO, to: None, work });
    }

    /// Nothing is on its way that marks something in the clone, takes its base away, or deletes it.
    pub(crate) fn may_become_flat(&self, volume: VolumeId) -> bool {
        !self.pending.changes_marks(volume) && !self.deleting.contains(&volume) && self.store.replica(volume).is_some()
    }

    /// The clone has changed, or will have: it is looked at again.
    pub(crate) fn flatten_dropped(&mut self) {
        self.flattening.state = State::Idle;
    }

    pub(crate) fn flatten_ended(&mut self) {
        self.flattening.state = State::Idle;
        self.counters.flattened_slots += 1;
    }
}
