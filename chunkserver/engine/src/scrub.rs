//! Scrub: every block on the disk is read and compared with its checksum, one round after the other.
//!
//! ```text
//!          due                          right, or written anew meanwhile
//!   Idle ───────► Reading: one version ──────────────────────────────────────────► Idle, behind it
//!                    │ some blocks are not                                          ▲
//!                    └────────────► Reading: each of these once more ───────────────┘ bad twice: noted and told
//! ```
//! It writes nothing: what is bad is listed to the volume's writer (`list_bad`), who has good content.
//!
//! Pace: 7/8 of the period for a round. After a version the next one is due in (time left) ÷ (slots left), with a busy
//! journal in twice that; never in less than a quarter of what an even pace takes. So a round that is late catches up
//! by single reads that lie apart, whatever the clock did: there are no bursts. Time is counted while the disk serves.
//!
//! What it has come to is in the index as of the same commit as what it has found before that: after a crash some slots
//! are looked at twice, none is left out. Cost: one read of at most 64 KiB at a time, no RAM but for what is bad.

use crate::Action;
use crate::IndexEdit;
use crate::config::{
    LIST_SLOTS_MAX, SCRUB_BEGINS_AFTER, SCRUB_CATCH_UP_MAX, SCRUB_NEWS_SAVED_WITHIN, SCRUB_PAUSE_MIN,
    SCRUB_SAVED_WITHIN, SCRUB_TOLD_MAX,
};
use crate::engine::{Engine, Op};
use crate::event::DiskError;
use crate::index::round_edit;
use crate::place::DiskBlock;
use crate::record::bits_of;
use crate::replica::{Slot, SlotAddress};
use crate::status::ScrubStatus;
use ashlar_types::{
    BLOCK_BYTES, ByteCount, ChunkIndex, Crc32, Duration, FloorRange, Instant, Lsn, Mutant, SlotIndex, VolumeId,
};
use bytes::Bytes;
use std::ops::{Bound, Range};

const PAGE: usize = BLOCK_BYTES as usize;

/// What outlives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Round {
    /// The last version that was looked at; `None` at the beginning of a round.
    pub(crate) after: Option<SlotAddress>,
    pub(crate) elapsed: Duration,
    pub(crate) slots: u64,
    /// Blocks that were found bad in it, by whomever, and in the round before.
    pub(crate) found: u64,
    pub(crate) found_before: u64,
    /// Rounds that have ended, and when the last one did.
    pub(crate) rounds: u64,
    pub(crate) ended_unix_ms: u64,
    /// Blocks, by whomever they were found and repaired.
    pub(crate) found_ever: u64,
    pub(crate) repaired_ever: u64,
}

pub(crate) struct Scrub {
    state: State,
    round: Round,
    /// The engine was made, with a time of day.
    started: Instant,
    first_at: Instant,
    last_at: Instant,
    saved_at: Instant,
    /// What the index does not have.
    unsaved: Unsaved,
    told: u32,
    /// Of the repairs since the start, those that the round's total has.
    repairs_counted: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unsaved {
    Nothing,
    /// Slots that would be looked at once more.
    Progress,
    /// Something was found, or a round has ended.
    News,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Reading {
        address: SlotAddress,
        looks: Vec<Look>,
        /// A bit for each of `looks`.
        suspects: u16,
        left: u32,
        is_second: bool,
    },
}

/// One block, as it was when the read began.
#[derive(Clone, Copy)]
struct Look {
    block: u32,
    at: DiskBlock,
    crc: Crc32,
}

enum Search {
    Found(SlotAddress),
    /// There were too many to look at in one step.
    Later,
    End,
}

impl Round {
    /// Of a row of the index: counting on from there never overflows.
    pub(crate) const COUNT_BELIEVED_MAX: u64 = 1 << 61;
}

impl Scrub {
    pub(crate) fn new(round: Round, now: Instant) -> Scrub {
        Scrub {
            state: State::Idle,
            round,
            started: now,
            first_at: now + SCRUB_BEGINS_AFTER,
            last_at: now,
            saved_at: now,
            unsaved: Unsaved::Nothing,
            told: 0,
            repairs_counted: 0,
        }
    }

    /// When what it has come to calls for a checkpoint by itself.
    pub(crate) fn save_due(&self) -> Instant {
        match self.unsaved {
            Unsaved::Nothing => Instant::FAR,
            Unsaved::Progress => self.saved_at + SCRUB_SAVED_WITHIN,
            Unsaved::News => self.saved_at + SCRUB_NEWS_SAVED_WITHIN,
        }
    }

    fn pass(&mut self, address: SlotAddress) {
        self.round.after = Some(address);
        self.unsaved = self.unsaved.max(Unsaved::Progress);
    }
}

impl Engine {
    /// When the next version is to be looked at.
    pub(crate) fn scrub_due(&self) -> Instant {
        let Some(period) = self.config.scrub_period else { return Instant::FAR };
        let is_ready = matches!(self.scrub.state, State::Idle) && self.recovery.is_none() && self.failed.is_none();
        let slots = self.slots_in_use();
        if !is_ready || slots == 0 {
            return Instant::FAR;
        }
        let pause = pause_of(period, &self.scrub.round, slots);
        let due = (self.scrub.last_at + pause).min(self.scrub.first_at);
        let is_quiet = self.journal.is_quiet() && self.waiting.is_empty();
        if is_quiet { due } else { due + pause }
    }

    /// For the checkpoint that is beginning.
    pub(crate) fn take_scrub_edit(&mut self) -> Option<IndexEdit> {
        self.count_repairs();
        self.scrub.saved_at = self.now;
        let unsaved = std::mem::replace(&mut self.scrub.unsaved, Unsaved::Nothing);
        (unsaved != Unsaved::Nothing).then(|| round_edit(&self.scrub.round))
    }

    pub(crate) fn scrub_status(&self) -> ScrubStatus {
        let round = &self.scrub.round;
        ScrubStatus {
            period: self.config.scrub_period,
            elapsed: round.elapsed,
            slots: round.slots,
            rounds: round.rounds,
            ended_unix_ms: round.ended_unix_ms,
            found_blocks: round.found_ever,
            found_lately_blocks: round.found + round.found_before,
            repaired_blocks: round.repaired_ever + (self.store.repaired_blocks - self.scrub.repairs_counted),
            bad_blocks: self.store.bad.count(),
        }
    }

    /// Blocks are known to be bad from now on. Says how many of them nobody knew of.
    pub(crate) fn note_bad(&mut self, address: SlotAddress, blocks: u16) -> u16 {
        let new = self.store.note_bad(address, blocks);
        self.scrub.round.found += u64::from(new.count_ones());
        self.scrub.round.found_ever += u64::from(new.count_ones());
        if new != 0 {
            self.scrub.unsaved = Unsaved::News;
        }
        new
    }

    pub(crate) fn scrub_step(&mut self, out: &mut Vec<Action>) {
        if self.now < self.scrub_due() {
            return;
        }
        match self.next_version() {
            Search::Found(address) => self.look_at(address, out),
            Search::Later => {}
            Search::End => self.end_round(out),
        }
    }

    /// The first version with content behind the last one that was looked at.
    fn next_version(&mut self) -> Search {
        let mut looked_at = 0;
        let after = self.scrub.round.after;
        for (&volume, replica) in self.store.volumes.range(after.map_or(VolumeId::from_u128(0), |at| at.volume)..) {
            let within = after.filter(|at| at.volume == volume);
            for (&chunk, entry) in replica.chunks.range(within.map_or(ChunkIndex(0), |at| at.chunk)..) {
                let behind = within.filter(|at| at.chunk == chunk).map(|at| (at.slot, at.floor));
                let rest = (behind.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
                let mut versions = entry.slots.range(rest);
                let is_newest =
                    |slot: SlotIndex, floor: Lsn| entry.versions(slot, FloorRange::ALL).all(|(of, _)| of <= floor);
                let is_skipped = |&(slot, floor): &(SlotIndex, Lsn)| {
                    Mutant::ScrubSkipsOldVersions.is_on() && !is_newest(slot, floor)
                };
                let has_content = versions.find(|(key, version)| version.valid != 0 && !is_skipped(key));
                if let Some(((slot, floor), _)) = has_content {
                    return Search::Found(SlotAddress { volume, chunk, slot, floor });
                }
                looked_at += 1 + entry.slots.len();
                if looked_at >= LIST_SLOTS_MAX {
                    self.scrub.pass(SlotAddress { volume, chunk, slot: SlotIndex(u16::MAX), floor: Lsn::MAX });
                    return Search::Later;
                }
            }
        }
        Search::End
    }

    fn look_at(&mut self, address: SlotAddress, out: &mut Vec<Action>) {
        let slot = self.store.slot(address).expect("the version was just found");
        let look = |block: u32| Look {
            block,
            at: slot.place.expect("a valid block has a place").block(block),
            crc: slot.crcs[block as usize],
        };
        // What is in RAM is in the journal, and about to be written in place.
        let on_disk = |look: &Look| self.store.overlay.get(look.at).is_none();
        let looks: Vec<Look> = bits_of(slot.valid & !slot.lost).map(look).filter(on_disk).collect();
        let count = looks.len();
        let left = u32::from(count > 0);
        self.scrub.state = State::Reading { address, looks, suspects: 0, left, is_second: false };
        match count {
            0 => self.finish_look(out),
            count => self.read_for_scrub(0..count, out),
        }
    }

    fn read_for_scrub(&mut self, looks: Range<usize>, out: &mut Vec<Action>) {
        let State::Reading { looks: all, .. } = &self.scrub.state else { panic!("nothing is looked at") };
        let (first, last) = (all[looks.start].at, all[looks.end - 1].at);
        let bytes = ByteCount((last.0 + 1 - first.0) * BLOCK_BYTES);
        self.counters.scrubbed_bytes += bytes.0;
        let op = self.begin_op(Op::Scrub { looks });
        out.push(Action::Read { op, offset: first.offset(self.data_offset()), bytes });
    }

    pub(crate) fn scrub_read_done(
        &mut self,
        range: Range<usize>,
        result: Result<Bytes, DiskError>,
        out: &mut Vec<Action>,
    ) {
        let State::Reading { looks, suspects, left, .. } = &mut self.scrub.state else { panic!("nothing is read") };
        *left -= 1;
        let first = looks[range.start].at.0;
        for index in range {
            let from = (looks[index].at.0 - first) as usize * PAGE;
            let is_right = |data: &Bytes| Crc32::of(&data[from..from + PAGE]) == looks[index].crc;
            if !result.as_ref().is_ok_and(is_right) {
                *suspects |= 1 << index;
            }
        }
        if *left == 0 {
            self.finish_look(out);
        }
    }

    /// All is read. What was not right is read once more, each block by itself: the medium may have failed elsewhere.
    fn finish_look(&mut self, out: &mut Vec<Action>) {
        let State::Reading { suspects, left, is_second, .. } = &mut self.scrub.state else {
            panic!("nothing is looked at")
        };
        let again = *suspects;
        if again != 0 && !*is_second {
            (*left, *is_second, *suspects) = (again.count_ones(), true, 0);
            bits_of(again).for_each(|index| self.read_for_scrub(index as usize..index as usize + 1, out));
            self.counters.scrub_retries += u64::from(again.count_ones());
            return;
        }
        let State::Reading { address, looks, suspects, .. } = std::mem::take(&mut self.scrub.state) else {
            unreachable!("looked at above")
        };
        let bad = bits_of(suspects).map(|index| looks[index as usize]);
        let bad = bad.filter(|look| self.is_still(address, look)).fold(0, |bits, look| bits | 1 << look.block);
        let lost = self.store.slot(address).map_or(0, |slot| slot.lost);
        self.looked_at(address, bad | lost, out);
    }

    /// The block has the content, at the place, that it had when its read began.
    fn is_still(&self, address: SlotAddress, look: &Look) -> bool {
        let same = |slot: Slot| {
            let is_valid = slot.valid & !slot.lost & (1 << look.block) != 0;
            let at = slot.place.map(|place| place.block(look.block));
            is_valid && at == Some(look.at) && slot.crcs[look.block as usize] == look.crc
        };
        self.store.slot(address).is_some_and(same) && self.store.overlay.get(look.at).is_none()
    }

    fn looked_at(&mut self, address: SlotAddress, bad: u16, out: &mut Vec<Action>) {
        let new = self.note_bad(address, bad);
        let scrub = &mut self.scrub;
        if scrub.round.after.is_none() {
            scrub.round.elapsed = Duration::ZERO;
        } else {
            scrub.round.elapsed += self.now.since(scrub.last_at);
        }
        (scrub.last_at, scrub.first_at) = (self.now, Instant::FAR);
        scrub.pass(address);
        scrub.round.slots += 1;
        if new != 0 && scrub.told < SCRUB_TOLD_MAX {
            scrub.told += 1;
            let SlotAddress { volume, chunk, slot, .. } = address;
            out.push(Action::ScrubFound { volume, chunk, slot, blocks: new });
        }
    }

    fn end_round(&mut self, out: &mut Vec<Action>) {
        let ended_unix_ms = self.config.started_unix_ms + self.now.since(self.scrub.started).as_millis() as u64;
        let scrub = &mut self.scrub;
        out.push(Action::ScrubEnded { slots: scrub.round.slots, found_blocks: scrub.round.found });
        let Round { found: found_before, rounds, found_ever, repaired_ever, .. } = scrub.round;
        let rounds = rounds + 1;
        scrub.round = Round { found_before, rounds, ended_unix_ms, found_ever, repaired_ever, ..Round::default() };
        (scrub.last_at, scrub.first_at, scrub.told, scrub.unsaved) = (self.now, Instant::FAR, 0, Unsaved::News);
    }

    fn count_repairs(&mut self) {
        let scrub = &mut self.scrub;
        let more = self.store.repaired_blocks - scrub.repairs_counted;
        if more > 0 {
            scrub.round.repaired_ever += more;
            scrub.unsaved = scrub.unsaved.max(Unsaved::Progress);
        }
        scrub.repairs_counted = self.store.repaired_blocks;
    }

    fn slots_in_use(&self) -> u32 {
        let places = &self.store.places;
        places.count() - places.free() - places.waiting()
    }
}

/// How long after one version the next one is due.
fn pause_of(period: Duration, round: &Round, slots: u32) -> Duration {
    let aim = period - period / 8;
    let left = u64::from(slots).saturating_sub(round.slots).max(1);
    let left = u32::try_from(left).expect("at most as many as there are places");
    let even = aim / slots;
    (aim.saturating_sub(round.elapsed) / left).max(even / SCRUB_CATCH_UP_MAX).max(SCRUB_PAUSE_MIN)
}

#[cfg(test)]
mod tests;
