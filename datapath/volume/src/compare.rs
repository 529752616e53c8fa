//! Comparison: the in-sync replicas are asked what each slot holds, as digests, and must say the same.
//!
//! ```text
//!             due                      all have answered
//!   Resting ───────► Asking(chunk, view) ─────────────► judged ──► nothing left: the next view, the next chunk
//!      ▲                   │ a link is lost                │ left: written meanwhile, not known there, or different
//!      └───────────────────┴──── again, a little later ◄───┘       for the first time
//! ```
//! A view is the present or a snapshot. It finds what no checksum shows: a write that was acknowledged and is not
//! there. A slot is judged only if no write of it was unacknowledged when the first replica was asked, and none was
//! issued until the last one answered. An acknowledged write is in place at every in-sync replica, so then they hold
//! the same, or one of them is wrong. Which one, nobody can say: it is told, and never mended here.
//!
//! Pace: 7/8 of the period for a round, at even distances. A round begins at another chunk for each epoch: where it was
//! cut off is kept nowhere, and yet attachments shorter than a round come to every chunk in the long run.

use crate::member::{MemberIndex, Purpose};
use crate::volume::{Phase, Volume};
use crate::{Action, ComparisonStatus, Notice};
use ashlar_types::{
    BlockIndex, ChunkIndex, ChunkRange, Crc32, Duration, Epoch, Instant, Lsn, Mutant, SLOTS_PER_CHUNK, SlotIndex,
    SlotSet, VolumeRecord,
};
use ashlar_wire::{Reply, Request, SlotDigest};
use std::collections::{BTreeMap, BTreeSet};

/// Looks at a chunk whose slots are written all the time; what is left then waits for the next round.
const TRIES_MAX: u32 = 8;
/// Pause before the second look; it doubles.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Slots that are remembered to differ, and of which it is told in one round.
const DIFFERING_MAX: usize = 4096;
const TOLD_MAX: u32 = 32;

/// What is compared at once: a chunk as a read below this shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    chunk: ChunkIndex,
    below: Lsn,
}

pub(crate) struct Comparison {
    state: State,
    place: Place,
    /// Slots of the place that are neither known to be equal nor told.
    left: SlotSet,
    /// Those that differed at the look before.
    suspects: SlotSet,
    tries: u32,
    /// Counts what is asked, so that an answer to an earlier question is none to this one.
    question: u64,
    chunks_left: u32,
    told: u32,
    differing: BTreeSet<(ChunkIndex, SlotIndex, Lsn)>,
    rounds: u64,
    /// Slots that were judged, and those that a round passed without.
    compared_slots: u64,
    passed_slots: u64,
}

enum State {
    Resting {
        until: Instant,
    },
    Asking {
        answers: BTreeMap<MemberIndex, Option<Digests>>,
        /// Under way when the first was asked, or issued since.
        written: SlotSet,
    },
}

impl Default for State {
    fn default() -> State {
        State::Resting { until: Instant::ZERO }
    }
}

struct Digests {
    slots: BTreeMap<SlotIndex, Crc32>,
    unknown: SlotSet,
}

impl Comparison {
    pub(crate) fn new(record: &VolumeRecord, chunk_count: u32) -> Comparison {
        let below = first_view(&record.points());
        Comparison {
            state: State::default(),
            place: Place { chunk: first_chunk(record.epoch, chunk_count), below },
            left: all_slots(),
            suspects: SlotSet::EMPTY,
            tries: 0,
            question: 0,
            chunks_left: chunk_count,
            told: 0,
            differing: BTreeSet::new(),
            rounds: 0,
            compared_slots: 0,
            passed_slots: 0,
        }
    }

    pub(crate) fn status(&self) -> ComparisonStatus {
        let slots: BTreeSet<_> = self.differing.iter().map(|(chunk, slot, _)| (chunk, slot)).collect();
        let Comparison { rounds, compared_slots, passed_slots, .. } = *self;
        ComparisonStatus { rounds, compared_slots, passed_slots, differing_slots: slots.len() as u64 }
    }

    /// A write under `floor` is issued.
    pub(crate) fn note_write(&mut self, range: ChunkRange, floor: Lsn) {
        let place = self.place;
        if let State::Asking { written, .. } = &mut self.state
            && range.chunk == place.chunk
            && floor < place.below
            && !Mutant::DigestIgnoresInFlight.is_on()
        {
            *written = written.union(&slots_of(range));
        }
    }
}

impl Volume {
    pub(crate) fn compare_deadline(&self) -> Instant {
        match self.comparison.state {
            State::Resting { until } if self.may_compare() => until,
            _ => Instant::FAR,
        }
    }

    /// Asked at every event.
    fn may_compare(&self) -> bool {
        self.config.compare_period.is_some() && matches!(self.phase, Phase::Serving) && !self.draining
    }

    pub(crate) fn compare_step(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.compare_deadline() <= now {
            self.ask_for_digests(now, out);
        }
    }

    fn ask_for_digests(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Place { chunk, below } = self.comparison.place;
        let holders: Vec<MemberIndex> =
            (0..self.members.len()).filter(|&index| self.can_be_compared(index, chunk)).collect();
        if !self.is_view(below) || holders.len() < 2 {
            return self.go_on_comparing(now);
        }
        let answers = holders.iter().map(|&index| (index, None)).collect();
        self.comparison.state = State::Asking { answers, written: SlotSet::EMPTY };
        self.comparison.question += 1;
        let question = self.comparison.question;
        self.writes.under_way().for_each(|(range, floor)| self.comparison.note_write(range, floor));
        for index in holders {
            self.send(now, index, Purpose::Digest(question), Request::Digest { chunk, below }, out);
        }
    }

    fn is_view(&self, below: Lsn) -> bool {
        below == Lsn::MAX || self.record.points().contains(&below)
    }

    fn can_be_compared(&self, index: MemberIndex, chunk: ChunkIndex) -> bool {
        let holds = self.record.members_of(chunk).iter().any(|&holder| usize::from(holder) == index);
        holds && self.members[index].in_sync() && self.members[index].serves_reads()
    }

    pub(crate) fn digests_answered(
        &mut self,
        now: Instant,
        question: u64,
        index: MemberIndex,
        reply: Reply,
        out: &mut Vec<Action>,
    ) {
        let State::Asking { answers, .. } = &mut self.comparison.state else { return };
        let Some(answer) = answers.get_mut(&index).filter(|_| question == self.comparison.question) else { return };
        // Refused: it says that it lacks something, which is others' business.
        let Reply::Digests { entries, unknown } = reply else { return self.look_again(now) };
        let slots = entries.iter().map(|&SlotDigest { slot, digest }| (slot, digest)).collect();
        *answer = Some(Digests { slots, unknown });
        if answers.values().all(Option::is_some) {
            self.judge_digests(now, out);
        }
    }

    /// What was asked over the member's link will not be answered.
    pub(crate) fn compare_lost_link(&mut self, now: Instant, index: MemberIndex) {
        if matches!(&self.comparison.state, State::Asking { answers, .. } if answers.contains_key(&index)) {
            self.look_again(now);
        }
    }

    fn judge_digests(&mut self, now: Instant, out: &mut Vec<Action>) {
        let State::Asking { answers, written } = std::mem::take(&mut self.comparison.state) else {
            panic!("nothing was asked")
        };
        let said: Vec<(MemberIndex, Digests)> =
            answers.into_iter().map(|(index, said)| (index, said.expect("all have answered"))).collect();
        let Place { chunk, below } = self.comparison.place;
        if self.is_view(below) && said.iter().all(|&(index, _)| self.can_be_compared(index, chunk)) {
            let unknown = said.iter().fold(SlotSet::EMPTY, |all, (_, said)| all.union(&said.unknown));
            let judged = self.comparison.left.without(&written).without(&unknown);
            judged.iter().for_each(|slot| self.judge_slot(slot, &said, out));
        }
        self.look_again(now);
    }

    fn judge_slot(&mut self, slot: SlotIndex, said: &[(MemberIndex, Digests)], out: &mut Vec<Action>) {
        let Comparison { place: Place { chunk, below }, left, suspects, differing, compared_slots, .. } =
            &mut self.comparison;
        let digests = || said.iter().map(|(_, said)| said.slots.get(&slot));
        let first = digests().next().expect("at least two are compared");
        let is_equal = digests().all(|digest| digest == first);
        if !is_equal && !suspects.contains(slot) {
            return suspects.insert(slot);
        }
        left.remove(slot);
        *compared_slots += 1;
        let key = (*chunk, slot, *below);
        if is_equal {
            differing.remove(&key);
            return;
        }
        let is_new = differing.len() < DIFFERING_MAX && differing.insert(key);
        if is_new && self.comparison.told < TOLD_MAX {
            self.comparison.told += 1;
            let name =
                |(index, said): &(MemberIndex, Digests)| (self.members[*index].disk, said.slots.get(&slot).copied());
            let said = said.iter().map(name).collect();
            out.push(Action::Notice(Notice::Differs { chunk: key.0, slot, below: key.2, said }));
        }
    }

    /// At what is left of the place; with nothing left, or too often, at the next one.
    fn look_again(&mut self, now: Instant) {
        let comparison = &mut self.comparison;
        comparison.tries += 1;
        if comparison.left.is_empty() || comparison.tries >= TRIES_MAX {
            comparison.passed_slots += u64::from(comparison.left.count());
            return self.go_on_comparing(now);
        }
        comparison.state = State::Resting { until: now + AGAIN_AFTER * (1 << (comparison.tries - 1)) };
    }

    /// The place is done with: the next one, after a pause.
    fn go_on_comparing(&mut self, now: Instant) {
        let (pause, next) = (self.compare_pause(), self.place_after(self.comparison.place));
        let comparison = &mut self.comparison;
        comparison.chunks_left -= u32::from(comparison.place.below == Lsn::MAX);
        (comparison.place, comparison.left, comparison.suspects) = (next, all_slots(), SlotSet::EMPTY);
        comparison.tries = 0;
        comparison.state = State::Resting { until: now + pause };
        if comparison.chunks_left == 0 {
            comparison.rounds += 1;
            (comparison.chunks_left, comparison.told) = (self.geometry.chunk_count(), 0);
            let points = self.record.points();
            comparison.differing.retain(|(_, _, below)| *below == Lsn::MAX || points.contains(below));
        }
    }

    fn compare_pause(&self) -> Duration {
        let period = self.config.compare_period.unwrap_or_default();
        let views = self.record.points().len() as u32 + 1;
        let places = self.geometry.chunk_count().saturating_mul(views);
        ((period - period / 8) / places).max(PAUSE_MIN)
    }

    /// Of each chunk the snapshots, the oldest first, and then the present.
    fn place_after(&self, Place { chunk, below }: Place) -> Place {
        let points = self.record.points();
        if below == Lsn::MAX {
            let next = ChunkIndex((chunk.0 + 1) % self.geometry.chunk_count());
            return Place { chunk: next, below: first_view(&points) };
        }
        let newer = points.into_iter().find(|&point| point > below);
        Place { chunk, below: newer.unwrap_or(Lsn::MAX) }
    }
}

fn first_view(points: &[Lsn]) -> Lsn {
    points.first().copied().unwrap_or(Lsn::MAX)
}

/// Far from where those of other epochs begin: multiples of the golden ratio.
fn first_chunk(epoch: Epoch, chunk_count: u32) -> ChunkIndex {
    let fraction = epoch.number().wrapping_mul(0x9E37_79B9);
    ChunkIndex(((u64::from(fraction) * u64::from(chunk_count)) >> 32) as u32)
}

fn slots_of(range: ChunkRange) -> SlotSet {
    let last = BlockIndex(range.end().0 - 1);
    (range.start.slot().0..=last.slot().0).map(SlotIndex).collect()
}

fn all_slots() -> SlotSet {
    (0..SLOTS_PER_CHUNK as u16).map(SlotIndex).collect()
}

#[cfg(test)]
mod tests;
