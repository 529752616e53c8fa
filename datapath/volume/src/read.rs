//! Life of a read, of a guest or for a repair alone: asked of the nearest replica that is in-sync, or has what is read
//! and is waited for as if it were (`near.rs`); on a bad block asked block by block of the others, and what they give
//! is written back to the bad one; completed only while enough leases hold.
//!
//! ```text
//!   waiting ──window──► asked(nearest) ──data──► leases hold? ──yes──► complete ──► repairs answered ──► turn left
//!                         │  ▲                        └──no──► lapsed, looked at again after every answer
//!                         │  └── link lost, replica leaves, late: the next one
//!                         └──bad block──► one question a block; all replicas bad: Lost
//! ```
//! Invariant: data of a replica that leaves, or has left, is never given to the guest, however early it came.

use crate::guest::OpId;
use crate::member::{MemberIndex, Purpose};
use crate::overlap::TurnId;
use crate::volume::Volume;
use crate::{Action, GuestError, Notice};
use ashlar_types::{BlockCount, BlockIndex, ChunkRange, Duration, Instant, Lsn, Mutant};
use ashlar_wire::{BlockData, Request};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One question: a range, asked of replicas until one has good bytes.
struct Question {
    range: ChunkRange,
    below: Lsn,
    /// Members that are being asked.
    asked: u64,
    /// Members whose answer was no good, for now.
    tried: u64,
    /// Members whose content was found bad, all of it or some: they get the good bytes.
    bad: u64,
    answer: Option<(MemberIndex, BlockData)>,
}

/// Good content of what some replica has bad.
#[derive(Clone)]
struct Repair {
    range: ChunkRange,
    below: Lsn,
    blocks: BlockData,
}

/// Whom a read is for.
#[derive(Clone, Copy)]
pub(crate) enum Reader {
    Guest {
        op: OpId,
        part: usize,
    },
    /// Nobody: this replica's content is known to be bad, and the read is for the repair.
    Heal {
        member: MemberIndex,
    },
}

struct Read {
    reader: Reader,
    bytes: usize,
    questions: BTreeMap<u32, Question>,
    next_question: u32,
    /// The guest has its bytes.
    completed: bool,
    repairs_left: usize,
}

struct Waiting {
    turn: TurnId,
    reader: Reader,
    range: ChunkRange,
    below: Lsn,
}

#[derive(Default)]
pub(crate) struct Reads {
    reads: BTreeMap<TurnId, Read>,
    /// Their turn has come; the window is full.
    waiting: VecDeque<Waiting>,
    inflight_bytes: usize,
    /// All questions answered, leases missing.
    lapsed: BTreeSet<TurnId>,
    /// Questions that nobody can be asked now.
    unasked: BTreeSet<(TurnId, u32)>,
    /// The read that is asked block by block. One at a time: a chunkserver ends a session that asks too much at once.
    split: Option<TurnId>,
    /// Questions to be split next, the oldest read first; of reads that are not over.
    to_split: BTreeSet<(TurnId, u32)>,
    /// Questions in the order first asked, for hedging.
    by_age: VecDeque<(Instant, TurnId)>,
}

impl Reads {
    pub(crate) fn is_idle(&self) -> bool {
        self.reads.is_empty() && self.waiting.is_empty()
    }

    pub(crate) fn hedge_deadline(&self, after: Duration) -> Instant {
        self.by_age.front().map_or(Instant::FAR, |(since, _)| *since + after)
    }
}

impl Volume {
    pub(crate) fn queue_read(&mut self, turn: TurnId, reader: Reader, range: ChunkRange, below: Lsn) {
        self.heat.note(range.chunk);
        self.reads.waiting.push_back(Waiting { turn, reader, range, below });
    }

    /// As many as the window takes: a chunkserver ends a session that has too much unanswered.
    pub(crate) fn issue_reads(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.split_next(now, out);
        while let Some(next) = self.reads.waiting.front() {
            let bytes = self.reads.inflight_bytes + next.range.count.bytes().0 as usize;
            let full =
                self.reads.reads.len() >= self.config.reads_inflight_max || bytes > self.config.read_bytes_inflight_max;
            if full && !self.reads.reads.is_empty() {
                return;
            }
            let next = self.reads.waiting.pop_front().expect("looked at above");
            self.begin_read(now, next, out);
        }
    }

    fn begin_read(&mut self, now: Instant, waiting: Waiting, out: &mut Vec<Action>) {
        let Waiting { turn, reader, range, below } = waiting;
        let bad = match reader {
            Reader::Guest { .. } => 0,
            Reader::Heal { member } => 1 << member,
        };
        let question = Question { range, below, asked: 0, tried: bad, bad, answer: None };
        let questions = BTreeMap::from([(0, question)]);
        let bytes = range.count.bytes().0 as usize;
        self.reads.inflight_bytes += bytes;
        let read = Read { reader, bytes, questions, next_question: 1, completed: false, repairs_left: 0 };
        self.reads.reads.insert(turn, read);
        self.reads.by_age.push_back((now, turn));
        self.ask(now, turn, 0, out);
    }

    /// Asks the nearest replica that was not asked yet. With nobody left the question waits, unless every in-sync
    /// replica is bad.
    fn ask(&mut self, now: Instant, turn: TurnId, number: u32, out: &mut Vec<Action>) {
        let Some(question) = self.reads.reads.get(&turn).and_then(|read| read.questions.get(&number)) else { return };
        let (range, below) = (question.range, question.below);
        let holders = self.record.members_of(range.chunk).iter().map(|&index| usize::from(index));
        let spent = question.tried | question.asked;
        let free = |index: &MemberIndex| spent & (1 << index) == 0 && self.serves(*index, range.chunk);
        let nearest = holders.clone().filter(free).min_by_key(|&index| (self.members[index].distance, index));
        if let Some(index) = nearest {
            let question = self.question(turn, number).expect("looked up above");
            question.asked |= 1 << index;
            self.send(now, index, Purpose::Read(turn, number), Request::Read { range, below }, out);
            return;
        }
        let nobody_asked = question.asked == 0;
        // Of a long question different blocks may be bad on different replicas.
        let bad = if range.count.0 == 1 { question.bad } else { 0 };
        let all_bad = holders.filter(|&index| self.members[index].in_sync()).all(|index| bad & (1 << index) != 0);
        // What nobody waits for does not wait for anybody: its turn is in others' way.
        let may_wait = matches!(self.reads.reads[&turn].reader, Reader::Guest { .. });
        if nobody_asked && (all_bad || !may_wait) {
            self.give_up(turn, out);
        } else if nobody_asked {
            self.reads.unasked.insert((turn, number));
        }
    }

    fn question(&mut self, turn: TurnId, number: u32) -> Option<&mut Question> {
        self.reads.reads.get_mut(&turn)?.questions.get_mut(&number)
    }

    pub(crate) fn read_answered(
        &mut self,
        now: Instant,
        index: MemberIndex,
        turn: TurnId,
        number: u32,
        answer: Result<BlockData, bool>,
        out: &mut Vec<Action>,
    ) {
        let Some(chunk) = self.question(turn, number).map(|question| question.range.chunk) else { return };
        let (usable, is_whole) = (self.serves(index, chunk), self.members[index].in_sync());
        // The guest may have its bytes already, and a repair is waited for.
        let Some(read) = self.reads.reads.get_mut(&turn).filter(|read| !read.completed) else { return };
        let Some(question) = read.questions.get_mut(&number) else { return };
        question.asked &= !(1 << index);
        if question.answer.is_some() {
            return;
        }
        match answer {
            Ok(_) if !usable => self.ask(now, turn, number, out),
            Ok(blocks) if blocks.crcs.len() == question.range.count.0 as usize && is_good(&blocks) => {
                question.answer = Some((index, blocks));
                self.finish_read_if_answered(now, turn, out);
            }
            Ok(_) | Err(true) if is_whole => self.found_bad(now, index, turn, number, out),
            _ => {
                question.tried |= 1 << index;
                self.ask(now, turn, number, out);
            }
        }
    }

    /// A bad block: from here on block by block, so that good ones are not taken for bad and the repair is exact. A
    /// long question waits for that until no other is being split. If another replica gives the whole of it meanwhile,
    /// the bad one gets the whole.
    fn found_bad(&mut self, now: Instant, index: MemberIndex, turn: TurnId, number: u32, out: &mut Vec<Action>) {
        let Some(question) = self.question(turn, number) else { return };
        question.tried |= 1 << index;
        question.bad |= 1 << index;
        if question.range.count.0 > 1 {
            self.reads.to_split.insert((turn, number));
        } else {
            self.ask(now, turn, number, out);
        }
    }

    fn split_next(&mut self, now: Instant, out: &mut Vec<Action>) {
        while self.reads.split.is_none_or(|turn| !self.reads.reads.contains_key(&turn)) {
            let Some((turn, number)) = self.reads.to_split.pop_first() else { return };
            // Perhaps another replica has answered meanwhile.
            if self.question(turn, number).is_some_and(|question| question.answer.is_none()) {
                self.reads.split = Some(turn);
                self.split(now, turn, number, out);
            }
        }
    }

    fn split(&mut self, now: Instant, turn: TurnId, number: u32, out: &mut Vec<Action>) {
        let read = self.reads.reads.get_mut(&turn).expect("the caller looked");
        let whole = read.questions.remove(&number).expect("the caller looked");
        let (range, below, first) = (whole.range, whole.below, read.next_question);
        read.next_question += range.count.0;
        for at in 0..range.count.0 {
            let start = BlockIndex(range.start.0 + u64::from(at));
            let one = ChunkRange { chunk: range.chunk, start, count: BlockCount(1) };
            // The bad replica is asked again for each block: most of them are good.
            read.questions.insert(first + at, Question { range: one, below, asked: 0, tried: 0, bad: 0, answer: None });
        }
        for at in 0..range.count.0 {
            self.ask(now, turn, first + at, out);
        }
    }

    /// Looks again at every question that waits for somebody to ask. Those that are being asked elsewhere forget too
    /// what was tried over links that are gone: their answer may be a bad block, and then there is no other occasion.
    pub(crate) fn ask_again(&mut self, now: Instant, out: &mut Vec<Action>) {
        for question in self.reads.reads.values_mut().flat_map(|read| read.questions.values_mut()) {
            question.tried = question.bad;
        }
        for (turn, number) in std::mem::take(&mut self.reads.unasked) {
            self.ask(now, turn, number, out);
        }
    }

    /// The replica serves no read any more: what it was asked is asked of others, what it answered is forgotten.
    pub(crate) fn withdraw_reads(&mut self, now: Instant, index: MemberIndex, out: &mut Vec<Action>) {
        let bit = 1u64 << index;
        let mut again = Vec::new();
        for (&turn, read) in &mut self.reads.reads {
            if read.completed {
                continue;
            }
            for (&number, question) in &mut read.questions {
                let answered_by_it = question.answer.as_ref().is_some_and(|(from, _)| *from == index);
                if answered_by_it {
                    question.answer = None;
                }
                let was_asked = question.asked & bit != 0;
                question.asked &= !bit;
                if question.answer.is_none() && (answered_by_it || was_asked) {
                    again.push((turn, number));
                }
            }
        }
        for (turn, number) in again {
            self.reads.lapsed.remove(&turn);
            self.ask(now, turn, number, out);
        }
    }

    fn finish_read_if_answered(&mut self, now: Instant, turn: TurnId, out: &mut Vec<Action>) {
        let read = &self.reads.reads[&turn];
        if read.completed || read.questions.values().any(|question| question.answer.is_none()) {
            return;
        }
        if self.leases_hold(now) {
            self.complete_read(now, turn, out);
        } else {
            self.reads.lapsed.insert(turn);
        }
    }

    pub(crate) fn finish_lapsed_reads(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.reads.lapsed.is_empty() || !self.leases_hold(now) {
            return;
        }
        for turn in std::mem::take(&mut self.reads.lapsed) {
            self.complete_read(now, turn, out);
        }
    }

    fn complete_read(&mut self, now: Instant, turn: TurnId, out: &mut Vec<Action>) {
        let read = self.reads.reads.get_mut(&turn).expect("a read lives until its turn is left");
        read.completed = true;
        let reader = read.reader;
        let mut repairs = Vec::new();
        let mut parts = Vec::with_capacity(read.questions.len());
        for question in read.questions.values_mut() {
            let (_, blocks) = question.answer.take().expect("every question is answered");
            parts.push(blocks.data.clone());
            if question.bad != 0 {
                repairs.push((question.bad, Repair { range: question.range, below: question.below, blocks }));
            }
        }
        if let Reader::Guest { op, part } = reader {
            self.guest.piece_done(op, Ok(Some((part, join(parts)))), out);
        }
        for (bad, repair) in repairs {
            self.repair(now, turn, bad, &repair, out);
        }
        self.end_read_if_repaired(turn);
    }

    fn repair(&mut self, now: Instant, turn: TurnId, bad: u64, repair: &Repair, out: &mut Vec<Action>) {
        for index in (0..self.members.len()).filter(|index| bad & (1 << index) != 0) {
            if self.members[index].in_sync() && self.members[index].is_open() {
                self.reads.reads.get_mut(&turn).expect("the read is not over").repairs_left += 1;
                let Repair { range, below, blocks } = repair.clone();
                self.send(now, index, Purpose::Repair(turn), Request::Repair { range, below, blocks }, out);
            }
        }
    }

    /// A repair was answered, or its link was lost: then the next read finds the block again.
    pub(crate) fn repair_ended(&mut self, index: MemberIndex, turn: TurnId, done: bool, out: &mut Vec<Action>) {
        if done {
            self.counters.repaired_blocks += 1;
            out.push(Action::Notice(Notice::Repaired { disk: self.members[index].disk, blocks: 1 }));
        }
        let read = self.reads.reads.get_mut(&turn).expect("a read waits for its repairs");
        read.repairs_left -= 1;
        self.end_read_if_repaired(turn);
    }

    fn end_read_if_repaired(&mut self, turn: TurnId) {
        if self.reads.reads[&turn].repairs_left == 0 {
            self.end_read(turn);
        }
    }

    fn end_read(&mut self, turn: TurnId) {
        let read = self.reads.reads.remove(&turn).expect("a read ends once");
        self.reads.inflight_bytes -= read.bytes;
        if let Reader::Heal { .. } = read.reader {
            self.heal_ended();
        }
        self.reads.to_split.retain(|(of, _)| *of != turn);
        while self.reads.by_age.front().is_some_and(|(_, turn)| !self.reads.reads.contains_key(turn)) {
            self.reads.by_age.pop_front();
        }
        self.leave_turn(turn);
    }

    /// No replica has good bytes: an error, never bad bytes.
    fn give_up(&mut self, turn: TurnId, out: &mut Vec<Action>) {
        if let Reader::Guest { op, .. } = self.reads.reads[&turn].reader {
            self.guest.piece_done(op, Err(GuestError::Lost), out);
        }
        self.reads.lapsed.remove(&turn);
        self.end_read(turn);
    }

    /// A link was lost: what was asked over it is asked of others.
    pub(crate) fn read_interrupted(
        &mut self,
        now: Instant,
        index: MemberIndex,
        turn: TurnId,
        number: u32,
        out: &mut Vec<Action>,
    ) {
        self.read_answered(now, index, turn, number, Err(false), out);
    }

    pub(crate) fn hedge_after(&self) -> Duration {
        let mean = self.members.iter().filter(|member| member.serves_reads()).map(|member| member.latency.mean()).max();
        self.config.hedge_min.max(mean.unwrap_or_default() * 8)
    }

    /// Reads that take long are asked of one more replica; the first good answer counts.
    pub(crate) fn hedge_reads(&mut self, now: Instant, out: &mut Vec<Action>) {
        let after = self.hedge_after();
        while let Some(&(since, turn)) = self.reads.by_age.front() {
            if now.since(since) < after {
                return;
            }
            self.reads.by_age.pop_front();
            let Some(read) = self.reads.reads.get(&turn).filter(|read| !read.completed) else { continue };
            let open = read.questions.iter().filter(|(_, question)| question.answer.is_none());
            let numbers: Vec<u32> = open.map(|(&number, _)| number).collect();
            for number in numbers {
                self.ask(now, turn, number, out);
            }
        }
    }
}

/// Every block is what its checksum says.
pub(crate) fn is_good(blocks: &BlockData) -> bool {
    blocks.first_bad_block().is_none() || Mutant::BitFlipReturned.is_on()
}

pub(crate) fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| joined.extend_from_slice(part));
    joined.freeze()
}

#[cfg(test)]
mod tests;
