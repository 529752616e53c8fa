//! Queue: changes on their way into the journal, in the order in which they came; admission takes them from its
//! front.
//!
//! The front waits for room in the open batch, and for places that the next checkpoint frees. Bounded by what
//! sessions may have unanswered. Nothing of a request that is refused, or dropped with its session, has been written
//! anywhere.

use crate::engine::{Engine, Op};
use crate::record::Mark;
use crate::session::ReplyTo;
use crate::store::{Flat, Move, Pair};
use crate::{Action, CloneRefusal, OpToken};
use ashlar_types::{
    Base, ByteCount, ChunkIndex, ChunkRange, Epoch, FloorRange, Kept, Lsn, Mutant, SessionId, SlotIndex, VolumeId,
};
use ashlar_wire::{BlockData, Reply, Request, SlotContent, Status};
use bytes::Bytes;

pub(crate) struct Waiting {
    pub(crate) volume: VolumeId,
    /// The commit point heard when it came.
    pub(crate) commit: Lsn,
    pub(crate) to: Option<ReplyTo>,
    pub(crate) work: Work,
}

pub(crate) enum Work {
    Open {
        epoch: Epoch,
        size: ByteCount,
        session: SessionId,
        served: Epoch,
    },
    /// Like `Open`, for a link that stands: the same promise, a larger volume.
    Grow {
        epoch: Epoch,
        size: ByteCount,
        session: SessionId,
    },
    Delete {
        op: OpToken,
        epoch: Epoch,
    },
    Write {
        range: ChunkRange,
        lsn: Lsn,
        floor: Lsn,
        blocks: BlockData,
    },
    Discard {
        range: ChunkRange,
        lsn: Lsn,
        floor: Lsn,
    },
    /// `done` blocks of the range are journalled already.
    Repair {
        range: ChunkRange,
        below: Lsn,
        blocks: BlockData,
        done: u32,
    },
    Fill {
        chunk: ChunkIndex,
        slot: SlotIndex,
        floors: FloorRange,
        into: Lsn,
        content: SlotContent,
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
    /// The same from the control plane, of a volume that nobody has open.
    KeepPoints {
        op: OpToken,
        kept: Kept,
    },
    /// What was read for it, in the order of `Move::from`.
    Merge {
        pair: Pair,
        what: Move,
        blocks: Vec<Bytes>,
    },
    Clone {
        op: OpToken,
        epoch: Epoch,
        size: ByteCount,
        base: Base,
    },
    /// What was read for it, in the order of `Flat::from`; none for a block that is bad.
    Flatten {
        flat: Flat,
        blocks: Vec<Option<Bytes>>,
    },
    Flattened,
}

/// What admission makes of the front of the queue.
pub(crate) enum Verdict {
    /// It is in the open batch, whole.
    Admitted,
    /// A part of it is in the open batch; the rest stays at the front.
    More,
    /// There is nothing to journal: answered when everything on its way is durable.
    Nothing,
    /// No room in the open batch.
    Full,
    /// No place until the next checkpoint.
    Blocked,
    NoSpace,
}

impl Work {
    /// From a request that changes something and has been checked.
    pub(crate) fn from(request: Request) -> Work {
        match request {
            Request::Write { range, lsn, floor, blocks } => Work::Write { range, lsn, floor, blocks },
            Request::Discard { range, lsn, floor } => Work::Discard { range, lsn, floor },
            Request::Repair { range, below, blocks } => Work::Repair { range, below, blocks, done: 0 },
            Request::Fill { chunk, slot, floors, into, content } => Work::Fill { chunk, slot, floors, into, content },
            Request::MarkStale { chunk, after, floors, into, slots } => {
                Work::MarkStale(Mark { chunk, after, floors, into, slots })
            }
            Request::Keep(kept) => Work::Keep(kept),
            Request::BeginSync { after } => Work::BeginSync { after },
            Request::AdoptPrefix { chunk, prefix } => Work::AdoptPrefix { chunk, prefix },
            Request::CompleteChunk { chunk, prefix } => Work::CompleteChunk { chunk, prefix },
            Request::VoidStale { chunk } => Work::VoidStale { chunk },
            Request::FinishSync => Work::FinishSync,
            _ => unreachable!("the request changes nothing"),
        }
    }
}

impl Work {
    pub(crate) fn is_flattening(&self) -> bool {
        matches!(self, Work::Flatten { .. } | Work::Flattened)
    }

    /// Where it stands in a chunk's order of writes, if it has a place there.
    fn order(&self) -> Option<(ChunkIndex, Lsn)> {
        match self {
            Work::Write { range, lsn, .. } | Work::Discard { range, lsn, .. } => Some((range.chunk, *lsn)),
            _ => None,
        }
    }
}

impl Engine {
    /// Moves the queue into batches, and the open batch to the disk whenever no other is being written.
    pub(crate) fn admit_waiting(&mut self, out: &mut Vec<Action>) {
        loop {
            let admitted = self.admit_front(out);
            let submitted = self.submit_batch(out);
            if !(admitted || submitted) {
                return;
            }
        }
    }

    /// Admits what there is room for; true if anything moved.
    fn admit_front(&mut self, out: &mut Vec<Action>) -> bool {
        let mut moved = false;
        if Mutant::SmallOvertakesLarge.is_on() && self.small_follows_large() {
            self.waiting.swap(0, 1);
        }
        while let Some(mut front) = self.waiting.pop_front() {
            let verdict = if self.leaves_hole(&front) { Verdict::NoSpace } else { self.admit(&mut front, out) };
            match verdict {
                Verdict::Admitted => self.close_hole(&front),
                Verdict::More => self.waiting.push_front(front),
                Verdict::Nothing if matches!(front.work, Work::Merge { .. }) => self.merge_dropped(),
                Verdict::Nothing if front.work.is_flattening() => self.flatten_dropped(),
                Verdict::Nothing => self.echo(front.to, out),
                Verdict::NoSpace => {
                    let to = front.to.expect("what needs space comes from a peer");
                    if let Some((chunk, lsn)) = front.work.order() {
                        self.sessions.open_hole(to.link, chunk, lsn);
                    }
                    self.refuse(to, Status::NoSpace, "the disk is full", out);
                }
                verdict @ (Verdict::Full | Verdict::Blocked) => {
                    self.checkpoint.wanted |= matches!(verdict, Verdict::Blocked);
                    self.waiting.push_front(front);
                    break;
                }
            }
            moved = true;
        }
        moved
    }

    fn small_follows_large(&self) -> bool {
        let count_at = |index: usize| match self.waiting.get(index).map(|waiting| &waiting.work) {
            Some(Work::Write { range, .. }) => Some(range.count.0),
            _ => None,
        };
        count_at(0).is_some_and(|large| count_at(1).is_some_and(|small| small < large))
    }

    fn leaves_hole(&self, front: &Waiting) -> bool {
        if Mutant::RefusedWriteOvertaken.is_on() {
            return false;
        }
        let (Some(to), Some((chunk, lsn))) = (front.to, front.work.order()) else { return false };
        self.sessions.leaves_hole(to.link, chunk, lsn)
    }

    fn close_hole(&mut self, front: &Waiting) {
        if let (Some(to), Some((chunk, lsn))) = (front.to, front.work.order()) {
            self.sessions.close_hole(to.link, chunk, lsn);
        }
    }

    /// Answers when everything that is on its way is durable.
    fn echo(&mut self, to: Option<ReplyTo>, out: &mut Vec<Action>) {
        self.counters.duplicates += 1;
        if let Some(to) = to.and_then(|to| self.journal.echo(to)) {
            self.reply(to, Reply::Done, out);
        }
    }

    fn submit_batch(&mut self, out: &mut Vec<Action>) -> bool {
        if !self.journal.is_ready() {
            return false;
        }
        if !self.ring.has_room() {
            self.checkpoint.wanted = true;
            return false;
        }
        if !self.ring.is_within_reach() {
            return false;
        }
        let mut beside = Vec::new();
        self.write_held(&mut beside);
        let head = self.ring.head();
        let batch = self.journal.open();
        assert_eq!(batch.sequence, head.next_sequence);
        let seal = crate::batch::Seal {
            sequence: batch.sequence,
            durable: self.journal.durable(),
            previous: head.chain,
            records: batch.entries.len(),
            payload_pages: batch.payload_pages,
        };
        let (header, checksum) = seal.encode(&batch.encoded, self.superblock.disk);
        let bytes = header.len() as u64 + u64::from(batch.payload_pages) * ashlar_types::BLOCK_BYTES;
        let mut parts = vec![header.into()];
        let payload = batch.entries.iter().flat_map(|entry| &entry.payload);
        parts.extend(payload.map(|block| block.clone().expect("a new record has its payload")));
        let start = self.ring.push(bytes, checksum);
        self.counters.batches += 1;
        self.counters.records += seal.records as u64;
        self.counters.journal_bytes += bytes;
        self.journal.submit();
        let op = self.begin_op(Op::Batch(seal.sequence));
        let offset = ashlar_types::ByteOffset(self.superblock.layout.journal_offset.0 + start);
        let durable = !Mutant::JournalNotDurable.is_on();
        out.push(Action::Write { op, offset, parts, durable });
        out.append(&mut beside);
        true
    }

    /// The disk failed: nothing of the queue will be done.
    pub(crate) fn refuse_waiting(&mut self, reason: &str, out: &mut Vec<Action>) {
        for waiting in std::mem::take(&mut self.waiting) {
            if let Some(to) = waiting.to {
                self.refuse(to, Status::DiskFailed, reason, out);
            }
            match waiting.work {
                Work::Delete { op, .. } => out.push(Action::Deleted { op, result: Err(reason.to_owned()) }),
                Work::KeepPoints { op, .. } => out.push(Action::PointsKept { op, result: Err(reason.to_owned()) }),
                Work::Clone { op, .. } => out.push(Action::Cloned { op, result: Err(CloneRefusal::DiskFailed) }),
                _ => {}
            }
        }
    }
}
