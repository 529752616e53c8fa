//! Life of a write: queued → issued with its lsn to every replica that takes new writes → acknowledged when all
//! in-sync ones (and one in its joint phase) are durable.
//!
//! Invariants:
//! - lsns of issued writes grow in order of issue, and each link carries the writes of a chunk in that order, repeats
//!   included;
//! - a write leaves `inflight` only acknowledged, or with the volume;
//! - commit point = the lsn before the first in flight, or of the last issued: every write up to it is acknowledged.

use crate::guest::OpId;
use crate::member::{MemberIndex, Purpose};
use crate::overlap::TurnId;
use crate::volume::{Phase, Volume};
use crate::{Action, GuestError, Notice};
use ashlar_types::{ChunkIndex, ChunkRange, Duration, Instant, Lsn, Mutant};
use ashlar_wire::{BlockData, Request};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

struct Queued {
    turn: TurnId,
    op: OpId,
    range: ChunkRange,
    data: Option<Bytes>,
}

pub(crate) struct Write {
    /// None once every in-sync replica is durable, though they are too few to acknowledge it. No crash takes it back
    /// any more, so reads may see it.
    turn: Option<TurnId>,
    /// None once the guest was told that it timed out.
    op: Option<OpId>,
    range: ChunkRange,
    /// None: a discard. The same bytes and checksums go to every replica, every time.
    payload: Option<BlockData>,
    /// Members that answered durable.
    answered: u64,
    issued: Instant,
    /// The same every time that it is sent.
    floor: Lsn,
}

#[derive(Default)]
pub(crate) struct Writes {
    queued: VecDeque<Queued>,
    pub(crate) inflight: BTreeMap<Lsn, Write>,
    inflight_bytes: usize,
    /// Since when a write has been waiting with none acknowledged.
    waiting_since: Option<Instant>,
    pub(crate) longest_gap: Duration,
    /// Too few replicas answer; said once.
    stalled: bool,
}

impl Writes {
    pub(crate) fn queue(&mut self, turn: TurnId, op: OpId, range: ChunkRange, data: Option<Bytes>) {
        self.queued.push_back(Queued { turn, op, range, data });
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.inflight.is_empty()
    }

    /// Blocks of each write that is not acknowledged, and its floor.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = (ChunkRange, Lsn)> {
        self.inflight.values().map(|write| (write.range, write.floor))
    }

    pub(crate) fn timeout_deadline(&self, timeout: Option<Duration>) -> Instant {
        match (timeout, self.inflight.values().find(|write| write.op.is_some())) {
            (Some(timeout), Some(first)) => first.issued + timeout,
            _ => Instant::FAR,
        }
    }

    fn note_ack(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since {
            self.longest_gap = self.longest_gap.max(now.since(since));
        }
        self.waiting_since = (!self.inflight.is_empty()).then_some(now);
    }
}

impl Write {
    fn request(&self, lsn: Lsn) -> Request {
        let (range, floor) = (self.range, self.floor);
        match &self.payload {
            Some(blocks) => Request::Write { range, lsn, floor, blocks: blocks.clone() },
            None => Request::Discard { range, lsn, floor },
        }
    }

    fn bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, |blocks| blocks.data.len())
    }
}

impl Volume {
    /// Every write up to here is acknowledged. Before the volume is served, what its replicas reported.
    pub(crate) fn commit_point(&self) -> Lsn {
        if !matches!(self.phase, Phase::Serving) {
            return self.reported_commit;
        }
        match self.writes.inflight.first_key_value() {
            Some((first, _)) => Lsn::from_raw(first.raw() - 1),
            None => self.lsn,
        }
    }

    pub(crate) fn issue_writes(&mut self, now: Instant, out: &mut Vec<Action>) {
        while let Some(next) = self.writes.queued.front()
            && !self.holds_writes()
        {
            let bytes = next.data.as_ref().map_or(0, Bytes::len);
            let full = self.writes.inflight.len() >= self.config.writes_inflight_max
                || self.writes.inflight_bytes + bytes > self.config.write_bytes_inflight_max;
            if full && !self.writes.inflight.is_empty() {
                return;
            }
            let next = self.writes.queued.pop_front().expect("looked at above");
            self.issue(now, next, out);
        }
    }

    fn issue(&mut self, now: Instant, queued: Queued, out: &mut Vec<Action>) {
        self.lsn = self.lsn.next();
        let Queued { turn, op, range, data } = queued;
        let floor = self.floor;
        let payload = data.map(BlockData::seal);
        let write = Write { turn: Some(turn), op: Some(op), range, payload, answered: 0, issued: now, floor };
        self.writes.inflight_bytes += write.bytes();
        self.writes.waiting_since.get_or_insert(now);
        let request = write.request(self.lsn);
        self.comparison.note_write(range, floor);
        let lsn = self.lsn;
        self.writes.inflight.insert(lsn, write);
        for index in self.takers(range.chunk) {
            self.send(now, index, Purpose::Write(lsn), request.clone(), out);
        }
    }

    /// Members of the chunk that take new writes and can be reached: in-sync, or returning.
    fn takers(&self, chunk: ChunkIndex) -> Vec<MemberIndex> {
        let takes = |index: &MemberIndex| self.members[*index].is_open() && self.takes_writes(*index);
        self.record.members_of(chunk).iter().map(|&index| usize::from(index)).filter(takes).collect()
    }

    /// One whose history is damaged takes none: its prefix would grow over what it lost.
    pub(crate) fn takes_writes(&self, index: MemberIndex) -> bool {
        let member = &self.members[index];
        let returns = self.resync.as_ref().is_some_and(|resync| resync.receives(index));
        (member.in_sync() || returns) && !member.damaged
    }

    /// A return begins: what the member answered before is stale since, and must come to it again.
    pub(crate) fn forget_answers(&mut self, index: MemberIndex) {
        self.writes.inflight.values_mut().for_each(|write| write.answered &= !(1 << index));
    }

    /// Unanswered writes go again on a new session, in lsn order, before newer ones.
    pub(crate) fn resend_writes(&mut self, now: Instant, index: MemberIndex, out: &mut Vec<Action>) {
        let bit = 1u64 << index;
        let record = &self.record;
        let holds = |chunk: ChunkIndex| record.members_of(chunk).iter().any(|&member| usize::from(member) == index);
        let missing =
            self.writes.inflight.iter().filter(|(_, write)| write.answered & bit == 0 && holds(write.range.chunk));
        let mut requests: Vec<(Lsn, Request)> = missing.map(|(&lsn, write)| (lsn, write.request(lsn))).collect();
        if Mutant::ResendNewestFirst.is_on() {
            requests.reverse();
        }
        for (lsn, request) in requests {
            self.send(now, index, Purpose::Write(lsn), request, out);
        }
    }

    pub(crate) fn write_answered(&mut self, now: Instant, index: MemberIndex, lsn: Lsn, out: &mut Vec<Action>) {
        self.members[index].history.note_answer(lsn);
        if let Some(write) = self.writes.inflight.get_mut(&lsn) {
            write.answered |= 1 << index;
            self.acknowledge_if_durable(now, lsn, out);
        }
    }

    fn acknowledge_if_durable(&mut self, now: Instant, lsn: Lsn, out: &mut Vec<Action>) {
        let write = &self.writes.inflight[&lsn];
        let required = self.required(write.range.chunk);
        let missing = (required & !write.answered).count_ones();
        if missing > u32::from(Mutant::AckBeforeLastReplica.is_on()) {
            return;
        }
        if self.in_sync_of(write.range.chunk).count_ones() < u32::from(self.record.min_replicas) {
            let write = self.writes.inflight.get_mut(&lsn).expect("looked up above");
            if let Some(turn) = write.turn.take() {
                self.leave_turn(turn);
            }
            return;
        }
        let write = self.writes.inflight.remove(&lsn).expect("looked up above");
        self.writes.inflight_bytes -= write.bytes();
        self.writes.note_ack(now);
        self.writes.stalled = false;
        if let Some(op) = write.op {
            self.guest.piece_done(op, Ok(None), out);
        }
        if let Some(turn) = write.turn {
            self.leave_turn(turn);
        }
    }

    /// Who must be durable before a write of the chunk is acknowledged: every in-sync member by what the catalog is
    /// known to say (one whose ejection is proposed and not answered is still one), and one in its joint phase.
    fn required(&self, chunk: ChunkIndex) -> u64 {
        let joint = self.resync.as_ref().and_then(|resync| resync.joint_member());
        let holds = |index: &MemberIndex| self.record.members_of(chunk).contains(&(*index as u16));
        self.in_sync_of(chunk) | joint.filter(holds).map_or(0, |index| 1 << index)
    }

    fn in_sync_of(&self, chunk: ChunkIndex) -> u64 {
        let in_sync = |index: &&u16| {
            let member = &self.members[usize::from(**index)];
            member.in_sync() && !(Mutant::AckBeforeEjectionKnown.is_on() && self.proposals.is_ejecting(member.disk))
        };
        let holders = self.record.members_of(chunk).iter();
        holders.filter(in_sync).fold(0, |mask, &index| mask | 1 << index)
    }

    /// Who is required has changed: some writes may be acknowledged now.
    pub(crate) fn recheck_writes(&mut self, now: Instant, out: &mut Vec<Action>) {
        let lsns: Vec<Lsn> = self.writes.inflight.keys().copied().collect();
        for lsn in lsns {
            self.acknowledge_if_durable(now, lsn, out);
        }
    }

    /// Writes wait because no replica may be given up; people should know.
    pub(crate) fn say_stalled(&mut self, out: &mut Vec<Action>) {
        if !self.writes.stalled && !self.writes.is_idle() {
            self.writes.stalled = true;
            out.push(Action::Notice(Notice::BelowMinReplicas));
        }
    }

    /// The guest is told; the write itself stays in flight and its blocks stay taken, because nobody knows yet
    /// whether it happened.
    pub(crate) fn time_out_writes(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(timeout) = self.config.io_timeout else { return };
        for write in self.writes.inflight.values_mut() {
            if now.since(write.issued) < timeout {
                break;
            }
            if let Some(op) = write.op.take() {
                self.guest.piece_done(op, Err(GuestError::TimedOut), out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
