//! Healing: what the scrub of a replica has found bad is read from another one and written back, without a guest.
//!
//! ```text
//!             due                            some                        one after the other
//!   Resting ───────► Listing(of a member) ──────────► Healing(member) ───────────────────────► the next page
//!      ▲                   │ none, link lost                                   │ no more
//!      │                   ▼                                                   ▼
//!      └──── every in-sync member was asked ◄─────────────────────────── the next member
//! ```
//! Each block is an ordinary read whose answer only the bad replica gets, so the rules of reads and repairs hold. The
//! replica takes it if its checksum is the one that it has kept. One block at a time; a round each few seconds, and
//! ever fewer while replicas name again what nobody could mend. Nothing is remembered here: replicas do.

use crate::Action;
use crate::guest::Piece;
use crate::links::PAGE_STANDS_STILL;
use crate::member::{MemberIndex, Purpose};
use crate::overlap::Access;
use crate::read::Reader;
use crate::volume::{Phase, Volume};
use ashlar_types::{
    BLOCKS_PER_SLOT, BlockCount, BlockIndex, ChunkIndex, ChunkRange, Duration, Instant, Lsn, Mutant, SLOTS_PER_CHUNK,
    SlotIndex,
};
use ashlar_wire::{BadBlocks, Request};
use std::collections::VecDeque;

/// Where a page of a listing begins.
type Place = (ChunkIndex, SlotIndex);
const START: Place = (ChunkIndex(0), SlotIndex(0));

#[derive(Default)]
pub(crate) struct Healing {
    state: State,
    /// The first that was named in this round, and in the one before.
    named: Option<(MemberIndex, ChunkRange, Lsn)>,
    named_before: Option<(MemberIndex, ChunkRange, Lsn)>,
    pause: Duration,
}

enum State {
    Resting { until: Instant },
    Listing { member: MemberIndex, from: Place },
    Healing { member: MemberIndex, left: VecDeque<(ChunkRange, Lsn)>, next: Option<Place>, is_reading: bool },
}

impl Default for State {
    /// A volume that is opened asks at once: what was found while nobody held it waits for it.
    fn default() -> State {
        State::Resting { until: Instant::ZERO }
    }
}

impl Volume {
    pub(crate) fn heal_deadline(&self) -> Instant {
        match self.healing.state {
            State::Resting { until } if self.may_heal() => until,
            _ => Instant::FAR,
        }
    }

    fn may_heal(&self) -> bool {
        matches!(self.phase, Phase::Serving) && !self.draining && !Mutant::ScrubNotHealed.is_on()
    }

    pub(crate) fn heal_step(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.may_heal() && matches!(self.healing.state, State::Resting { until } if until <= now) {
            self.healing.named_before = self.healing.named.take();
            self.list_bad_from(now, 0, out);
        }
        while matches!(self.healing.state, State::Healing { is_reading: false, .. }) {
            self.heal_next(now, out);
        }
    }

    /// Asks the first member, from this one on, that can be repaired; or the round is over.
    fn list_bad_from(&mut self, now: Instant, member: MemberIndex, out: &mut Vec<Action>) {
        match (member..self.members.len()).find(|&index| self.can_be_healed(index)) {
            Some(member) => self.list_bad(now, member, START, out),
            None => self.rest_from_healing(now),
        }
    }

    fn can_be_healed(&self, index: MemberIndex) -> bool {
        self.members[index].in_sync() && self.members[index].serves_reads() && self.may_heal()
    }

    fn list_bad(&mut self, now: Instant, member: MemberIndex, from: Place, out: &mut Vec<Action>) {
        self.healing.state = State::Listing { member, from };
        let request = Request::ListBad { from: from.0, slot: from.1 };
        self.send(now, member, Purpose::ListBad, request, out);
    }

    fn rest_from_healing(&mut self, now: Instant) {
        let (min, max) = (self.config.heal_pause_min, self.config.heal_pause_max);
        let healing = &mut self.healing;
        // What was read for a repair and is named again cannot be mended for now.
        let is_again = healing.named.is_some() && healing.named == healing.named_before;
        healing.pause = if is_again { (healing.pause * 2).clamp(min, max) } else { min };
        healing.state = State::Resting { until: now + healing.pause };
    }

    pub(crate) fn bad_listed(
        &mut self,
        now: Instant,
        index: MemberIndex,
        entries: &[BadBlocks],
        more: bool,
        out: &mut Vec<Action>,
    ) {
        let State::Listing { member, from } = self.healing.state else { return };
        if member != index {
            return;
        }
        let last = entries.last().map(|last| (last.chunk, last.slot));
        if more && last.is_none_or(|last| last < from) {
            return self.drop_link(now, index, PAGE_STANDS_STILL, out);
        }
        let next = last.filter(|_| more).map(|(chunk, slot)| match u32::from(slot.0) + 1 {
            SLOTS_PER_CHUNK => (ChunkIndex(chunk.0 + 1), SlotIndex(0)),
            _ => (chunk, SlotIndex(slot.0 + 1)),
        });
        let alike = |bad: &BadBlocks| Some(BadBlocks { below: self.alike_below(bad.below)?, ..*bad });
        let left: VecDeque<(ChunkRange, Lsn)> = entries.iter().filter_map(alike).flat_map(blocks_of).collect();
        let first = left.front().map(|&(range, below)| (member, range, below));
        self.healing.named = self.healing.named.or(first);
        self.healing.state = State::Healing { member, left, next, is_reading: false };
    }

    /// Replicas are alike as the present and as each point shows them. A replica names an old version by the floor of
    /// its next one, and in between another may have one under a lower floor: what is read there is of no use to the
    /// first.
    fn alike_below(&self, below: Lsn) -> Option<Lsn> {
        if below == Lsn::MAX {
            return Some(below);
        }
        self.record.points().into_iter().rev().find(|&point| point <= below)
    }

    fn heal_next(&mut self, now: Instant, out: &mut Vec<Action>) {
        let State::Healing { member, left, next, is_reading } = &mut self.healing.state else { return };
        let (member, next) = (*member, *next);
        let found = left.pop_front();
        *is_reading = found.is_some();
        match (found, next) {
            _ if !self.can_be_healed(member) => self.list_bad_from(now, member + 1, out),
            (Some((range, below)), _) if self.is_held_by(range, member) => {
                let reader = Reader::Heal { member };
                self.take_turn(range, Access::Shared, Piece::Read { reader, range, below });
            }
            (Some(_), _) => self.heal_ended(),
            (None, Some(next)) => self.list_bad(now, member, next, out),
            (None, None) => self.list_bad_from(now, member + 1, out),
        }
    }

    /// A replica may name what it likes.
    fn is_held_by(&self, range: ChunkRange, member: MemberIndex) -> bool {
        let is_inside = self.geometry.contains(range.volume_start(), range.count);
        is_inside && self.record.members_of(range.chunk).iter().any(|&holder| usize::from(holder) == member)
    }

    pub(crate) fn heal_ended(&mut self) {
        if let State::Healing { is_reading, .. } = &mut self.healing.state {
            *is_reading = false;
        }
    }

    /// What was asked over the member's link will not be answered.
    pub(crate) fn heal_lost_link(&mut self, now: Instant, index: MemberIndex, out: &mut Vec<Action>) {
        if matches!(self.healing.state, State::Listing { member, .. } if member == index) {
            self.list_bad_from(now, index + 1, out);
        }
    }
}

fn blocks_of(bad: BadBlocks) -> impl Iterator<Item = (ChunkRange, Lsn)> + use<> {
    let BadBlocks { chunk, slot, below, blocks } = bad;
    let named = (0..BLOCKS_PER_SLOT).filter(move |block| blocks & (1 << block) != 0);
    named.map(move |block| {
        let start = BlockIndex(slot.first_block().0 + u64::from(block));
        (ChunkRange { chunk, start, count: BlockCount(1) }, below)
    })
}

#[cfg(test)]
mod tests;
