//! Guest requests: cut into pieces of one chunk and one frame, each of which takes its turn; complete when all pieces
//! are.
//!
//! Invariant: `op.pieces_left` = pieces of the op that are queued, waiting for their turn, or in flight.

use crate::overlap::{Access, TurnId};
use crate::read::Reader;
use crate::volume::{Phase, Volume};
use crate::{Action, GuestError, GuestOp, Tag};
use ashlar_types::{BLOCK_BYTES, BlockCount, BlockIndex, ChunkRange, Geometry, Lsn};
use ashlar_wire::limits::BLOCKS_PER_FRAME_MAX;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};

/// Number of a guest request, in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OpId(u64);

struct Op {
    tag: Tag,
    pieces_left: usize,
    /// Of a read, in order of the pieces.
    parts: Vec<Option<Bytes>>,
    error: Option<GuestError>,
}

/// A piece that has not begun to run.
pub(crate) enum Piece {
    Read {
        reader: Reader,
        range: ChunkRange,
        below: Lsn,
    },
    /// No data: a discard.
    Change {
        op: OpId,
        range: ChunkRange,
        data: Option<Bytes>,
    },
}

#[derive(Default)]
pub(crate) struct Guest {
    next: u64,
    ops: BTreeMap<OpId, Op>,
    /// Came before the volume was served.
    waiting: VecDeque<(Tag, GuestOp)>,
    pub(crate) pieces: BTreeMap<TurnId, Piece>,
}

impl Guest {
    pub(crate) fn take_waiting(&mut self) -> VecDeque<(Tag, GuestOp)> {
        std::mem::take(&mut self.waiting)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.ops.is_empty() && self.waiting.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.ops.len() + self.waiting.len()
    }

    pub(crate) fn begin(&mut self, tag: Tag, pieces: usize, reads: bool) -> OpId {
        let id = OpId(self.next);
        self.next += 1;
        let parts = if reads { vec![None; pieces] } else { Vec::new() };
        self.ops.insert(id, Op { tag, pieces_left: pieces, parts, error: None });
        id
    }

    pub(crate) fn piece_done(
        &mut self,
        id: OpId,
        result: Result<Option<(usize, Bytes)>, GuestError>,
        out: &mut Vec<Action>,
    ) {
        let op = self.ops.get_mut(&id).expect("an op lives as long as its pieces");
        match result {
            Ok(Some((part, bytes))) => op.parts[part] = Some(bytes),
            Ok(None) => {}
            Err(error) => op.error = op.error.or(Some(error)),
        }
        op.pieces_left -= 1;
        if op.pieces_left == 0 {
            let op = self.ops.remove(&id).expect("looked up above");
            let result = op.error.map_or_else(|| Ok(join(op.parts)), Err);
            out.push(Action::Complete { tag: op.tag, result });
        }
    }

    pub(crate) fn fail_all(&mut self, error: GuestError, out: &mut Vec<Action>) {
        let tags = self.ops.values().map(|op| op.tag).chain(self.waiting.iter().map(|(tag, _)| *tag));
        out.extend(tags.map(|tag| Action::Complete { tag, result: Err(error) }));
        self.ops.clear();
        self.waiting.clear();
        self.pieces.clear();
    }
}

fn join(mut parts: Vec<Option<Bytes>>) -> Bytes {
    match parts.len() {
        0 => Bytes::new(),
        1 => parts.pop().flatten().expect("a piece that is done has bytes"),
        _ => {
            let parts: Vec<Bytes> =
                parts.into_iter().map(|part| part.expect("a piece that is done has bytes")).collect();
            let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
            parts.iter().for_each(|part| joined.extend_from_slice(part));
            joined.freeze()
        }
    }
}

impl Volume {
    pub(crate) fn guest_arrives(&mut self, tag: Tag, op: GuestOp, out: &mut Vec<Action>) {
        if let Err(error) = self.check_guest_op(&op) {
            out.push(Action::Complete { tag, result: Err(error) });
            return;
        }
        match op {
            // Whatever was completed is durable on every replica in-sync (P1), so there is nothing to wait for.
            GuestOp::Flush => out.push(Action::Complete { tag, result: Ok(Bytes::new()) }),
            op if !matches!(self.phase, Phase::Serving) => self.guest.waiting.push_back((tag, op)),
            GuestOp::Read { start, count, below } => self.admit_read(tag, start, count, below),
            GuestOp::Write { start, data } => self.admit_write(tag, start, data),
            GuestOp::Discard { start, count } => self.admit_discard(tag, start, count),
        }
    }

    fn check_guest_op(&self, op: &GuestOp) -> Result<(), GuestError> {
        let error = if self.draining { Some(GuestError::Closed) } else { range_fault(self.geometry, op) };
        error.map_or(Ok(()), Err)
    }

    fn admit_read(&mut self, tag: Tag, start: BlockIndex, count: BlockCount, below: Lsn) {
        let ranges = cut(self.geometry, start, count);
        let op = self.guest.begin(tag, ranges.len(), true);
        self.counters.reads += 1;
        self.counters.read_bytes += count.bytes().0;
        for (part, range) in ranges.into_iter().enumerate() {
            let reader = Reader::Guest { op, part };
            self.take_turn(range, Access::Shared, Piece::Read { reader, range, below });
        }
    }

    fn admit_write(&mut self, tag: Tag, start: BlockIndex, data: Bytes) {
        let ranges = cut(self.geometry, start, BlockCount((data.len() as u64 / BLOCK_BYTES) as u32));
        let op = self.guest.begin(tag, ranges.len(), false);
        self.counters.writes += 1;
        self.counters.written_bytes += data.len() as u64;
        let mut rest = data;
        for range in ranges {
            let data = Some(rest.split_to(range.count.bytes().0 as usize));
            self.take_turn(range, Access::Exclusive, Piece::Change { op, range, data });
        }
    }

    fn admit_discard(&mut self, tag: Tag, start: BlockIndex, count: BlockCount) {
        let ranges: Vec<ChunkRange> = self.geometry.pieces(start, count).collect();
        let op = self.guest.begin(tag, ranges.len(), false);
        for range in ranges {
            self.take_turn(range, Access::Exclusive, Piece::Change { op, range, data: None });
        }
    }

    pub(crate) fn take_turn(&mut self, range: ChunkRange, access: Access, piece: Piece) {
        let (turn, runs) = self.turns.arrive(range, access);
        self.guest.pieces.insert(turn, piece);
        if runs {
            self.run_turn(turn);
        }
    }

    /// Nothing that it conflicts with is before it any more. It is issued when the event that brought this about has
    /// been handled.
    pub(crate) fn run_turn(&mut self, turn: TurnId) {
        match self.guest.pieces.remove(&turn).expect("a turn runs once") {
            Piece::Read { reader, range, below } => self.queue_read(turn, reader, range, below),
            Piece::Change { op, range, data } => self.writes.queue(turn, op, range, data),
        }
    }
}

/// What is wrong with the range of a request.
pub(crate) fn range_fault(geometry: Geometry, op: &GuestOp) -> Option<GuestError> {
    let (start, count) = match op {
        GuestOp::Flush => return None,
        GuestOp::Read { start, count, .. } | GuestOp::Discard { start, count } => (*start, *count),
        GuestOp::Write { start, data } => {
            let blocks = data.len() as u64 / BLOCK_BYTES;
            if !(data.len() as u64).is_multiple_of(BLOCK_BYTES) || blocks > u64::from(u32::MAX) {
                return Some(GuestError::OutOfRange);
            }
            (*start, BlockCount(blocks as u32))
        }
    };
    (!geometry.contains(start, count)).then_some(GuestError::OutOfRange)
}

/// Pieces within one chunk and one frame.
pub(crate) fn cut(geometry: Geometry, start: BlockIndex, count: BlockCount) -> Vec<ChunkRange> {
    let mut ranges = Vec::with_capacity(1);
    for piece in geometry.pieces(start, count) {
        let mut done = 0;
        while done < piece.count.0 {
            let taken = (piece.count.0 - done).min(BLOCKS_PER_FRAME_MAX);
            let start = piece.start.offset_by(BlockCount(done));
            ranges.push(ChunkRange { chunk: piece.chunk, start, count: BlockCount(taken) });
            done += taken;
        }
    }
    ranges
}
