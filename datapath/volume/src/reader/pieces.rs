//! Life of a read of a reader: cut into pieces of one chunk and one frame, each asked of one replica after the other.
//!
//! A piece that all in-sync replicas have bad is asked once more, block by block: of a long piece different blocks may
//! be bad on different replicas. A single block that is bad on all of them is lost, and its guest gets an error.

use super::Reader;
use crate::Action;
use crate::GuestError;
use crate::Tag;
use crate::guest::{OpId, cut};
use crate::member::{MemberIndex, Purpose};
use crate::overlap::TurnId;
use crate::read::{is_good, join};
use ashlar_types::{BlockCount, BlockIndex, ChunkRange, Duration, Instant, Lsn};
use ashlar_wire::{BlockData, Request};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Nobody could be asked: looked at again after this, or when a link opens.
const AGAIN: Duration = Duration::from_secs(1);

/// One question of one replica. Reads take no turns, for nothing overlaps with them; a number names each piece.
struct Piece {
    op: OpId,
    part: usize,
    range: ChunkRange,
    below: Lsn,
    /// Of a piece that was split: where its bytes belong.
    of: Option<TurnId>,
    asked: Option<MemberIndex>,
    /// Members that gave no good answer, for now.
    tried: u64,
    /// Members whose content is bad.
    bad: u64,
}

/// A piece that is asked block by block.
struct Split {
    op: OpId,
    part: usize,
    first: BlockIndex,
    blocks: Vec<Option<Bytes>>,
}

#[derive(Default)]
pub(super) struct Pieces {
    next: u64,
    pieces: BTreeMap<TurnId, Piece>,
    splits: BTreeMap<TurnId, Split>,
    waiting: VecDeque<TurnId>,
    /// Nobody can be asked now.
    parked: BTreeSet<TurnId>,
    again_at: Option<Instant>,
    asked: usize,
    asked_bytes: usize,
}

impl Pieces {
    pub(super) fn again_at(&self) -> Instant {
        self.again_at.unwrap_or(Instant::FAR)
    }

    fn add(&mut self, piece: Piece) {
        let id = TurnId(self.next);
        self.next += 1;
        self.pieces.insert(id, piece);
        self.waiting.push_back(id);
    }

    /// It is asked of nobody any more.
    fn settle(&mut self, id: TurnId, index: MemberIndex) -> Option<&mut Piece> {
        let piece = self.pieces.get_mut(&id)?;
        assert_eq!(piece.asked.take(), Some(index), "a piece is asked of one replica at a time");
        self.asked -= 1;
        self.asked_bytes -= piece.range.count.bytes().0 as usize;
        Some(piece)
    }
}

impl Reader {
    pub(super) fn admit_read(&mut self, tag: Tag, start: BlockIndex, count: BlockCount, below: Lsn) {
        let ranges = cut(self.geometry, start, count);
        let op = self.guest.begin(tag, ranges.len(), true);
        for (part, range) in ranges.into_iter().enumerate() {
            self.pieces.add(Piece { op, part, range, below, of: None, asked: None, tried: 0, bad: 0 });
        }
    }

    /// As many as the window takes: a chunkserver ends a session that has too much unanswered.
    pub(super) fn issue_reads(&mut self, now: Instant, out: &mut Vec<Action>) {
        while let Some(&id) = self.pieces.waiting.front() {
            // One whose op has failed meanwhile is gone.
            let Some(piece) = self.pieces.pieces.get(&id) else {
                self.pieces.waiting.pop_front();
                continue;
            };
            let bytes = piece.range.count.bytes().0 as usize;
            let full = self.pieces.asked >= self.config.reads_inflight_max
                || self.pieces.asked_bytes + bytes > self.config.read_bytes_inflight_max;
            if full && self.pieces.asked > 0 {
                return;
            }
            self.pieces.waiting.pop_front();
            self.ask(now, id, out);
        }
    }

    /// Asks the nearest replica that was not tried yet.
    fn ask(&mut self, now: Instant, id: TurnId, out: &mut Vec<Action>) {
        let piece = self.pieces.pieces.get_mut(&id).expect("the caller looked");
        let holders = self.record.members_of(piece.range.chunk).iter().map(|&index| usize::from(index));
        let free = |index: &MemberIndex| piece.tried & (1 << index) == 0 && self.members[*index].serves_reads();
        let nearest = holders.filter(free).min_by_key(|&index| (self.members[index].distance, index));
        let Some(index) = nearest else {
            self.pieces.parked.insert(id);
            self.pieces.again_at.get_or_insert(now + AGAIN);
            return;
        };
        piece.asked = Some(index);
        let (range, below) = (piece.range, piece.below);
        self.pieces.asked += 1;
        self.pieces.asked_bytes += range.count.bytes().0 as usize;
        self.send(now, index, Purpose::Read(id, 0), Request::Read { range, below }, out);
    }

    pub(super) fn answered(&mut self, id: TurnId, index: MemberIndex, blocks: BlockData, out: &mut Vec<Action>) {
        let Some(piece) = self.pieces.pieces.get(&id) else { return };
        if blocks.crcs.len() != piece.range.count.0 as usize || !is_good(&blocks) {
            return self.found_bad(id, index, out);
        }
        self.pieces.settle(id, index);
        let piece = self.pieces.pieces.remove(&id).expect("looked up above");
        match piece.of {
            None => self.guest.piece_done(piece.op, Ok(Some((piece.part, blocks.data))), out),
            Some(split) => self.block_answered(split, piece.range.start, blocks.data, out),
        }
    }

    fn block_answered(&mut self, id: TurnId, block: BlockIndex, bytes: Bytes, out: &mut Vec<Action>) {
        let split = self.pieces.splits.get_mut(&id).expect("a split lives as long as its blocks");
        split.blocks[(block.0 - split.first.0) as usize] = Some(bytes);
        if split.blocks.iter().all(Option::is_some) {
            let Split { op, part, blocks, .. } = self.pieces.splits.remove(&id).expect("looked up above");
            self.guest.piece_done(op, Ok(Some((part, join(blocks.into_iter().flatten().collect())))), out);
        }
    }

    /// The next replica is asked; with all of them bad, each block for itself.
    pub(super) fn found_bad(&mut self, id: TurnId, index: MemberIndex, out: &mut Vec<Action>) {
        let Some(piece) = self.pieces.settle(id, index) else { return };
        piece.tried |= 1 << index;
        piece.bad |= 1 << index;
        let mut holders = self.record.members_of(piece.range.chunk).iter().map(|&index| usize::from(index));
        let all_bad = holders.all(|index| !self.members[index].in_sync() || piece.bad & (1 << index) != 0);
        match piece.range.count.0 {
            _ if !all_bad => self.pieces.waiting.push_front(id),
            1 => self.give_up(id, out),
            _ => self.split(id),
        }
    }

    fn split(&mut self, id: TurnId) {
        let Piece { op, part, range, below, .. } = self.pieces.pieces.remove(&id).expect("the caller looked");
        let blocks = vec![None; range.count.0 as usize];
        self.pieces.splits.insert(id, Split { op, part, first: range.start, blocks });
        for at in 0..range.count.0 {
            let start = range.start.offset_by(BlockCount(at));
            let one = ChunkRange { start, count: BlockCount(1), ..range };
            self.pieces.add(Piece { op, part, range: one, below, of: Some(id), asked: None, tried: 0, bad: 0 });
        }
    }

    /// No replica has good bytes: an error, never bad bytes. What else was asked for the same piece is of no use.
    fn give_up(&mut self, id: TurnId, out: &mut Vec<Action>) {
        let piece = self.pieces.pieces.remove(&id).expect("the caller looked");
        if let Some(of) = piece.of {
            self.pieces.splits.remove(&of);
            let Pieces { pieces, asked, asked_bytes, .. } = &mut self.pieces;
            pieces.retain(|_, other| {
                if other.of == Some(of) && other.asked.is_some() {
                    *asked -= 1;
                    *asked_bytes -= other.range.count.bytes().0 as usize;
                }
                other.of != Some(of)
            });
        }
        self.guest.piece_done(piece.op, Err(GuestError::Lost), out);
    }

    /// No answer, and nothing known of the content: another one is asked.
    pub(super) fn withdraw(&mut self, id: TurnId, index: MemberIndex) {
        let Some(piece) = self.pieces.settle(id, index) else { return };
        piece.tried |= 1 << index;
        self.pieces.waiting.push_front(id);
    }

    pub(super) fn unpark_due(&mut self, now: Instant) {
        if self.pieces.again_at() <= now {
            self.unpark_all();
        }
    }

    /// Whoever was tried in vain may answer now; whose content is bad is not asked again.
    pub(super) fn unpark_all(&mut self) {
        self.pieces.again_at = None;
        for id in std::mem::take(&mut self.pieces.parked) {
            if let Some(piece) = self.pieces.pieces.get_mut(&id) {
                piece.tried = piece.bad;
                self.pieces.waiting.push_back(id);
            }
        }
    }
}
