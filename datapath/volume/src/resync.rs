//! Return of a disk that was out: changed blocks only, while the guest goes on (DESIGN §6, "Return" and "Becoming
//! in-sync").
//!
//! ```text
//!  Proposing ─BeginReturn─► (tail) ─► Beginning ─BeginSync durable─► Listing(source) ◄─► Marking(target) ──┐
//!                             every write not yet acknowledged goes to it, then every new one     │
//!  in-sync ◄─Join applied─ Joining ◄─FinishSync durable─ Finishing ◄─nothing stale─ Finding ◄─► Copying
//!                             └──── joint: new writes wait for it ────┘
//! ```
//! Invariants:
//! - every write below the first that was sent to it in this attempt was acknowledged before the source is asked;
//! - the joint phase begins before `FinishSync` is sent and lasts until the answer to `Join` is known;
//! - a failure ends this attempt only; the commit point stays, so the next one begins where this one did.

mod fill;

use crate::copy::Owner;
use crate::links::PAGE_STANDS_STILL;
use crate::member::{Member, MemberIndex, Purpose};
use crate::near::Near;
use crate::tail::Tail;
use crate::volume::Volume;
use crate::{Action, Notice};
use ashlar_types::{
    BLOCKS_PER_SLOT, Change, ChunkIndex, ChunkRun, DiskId, Duration, FloorRange, Instant, Lsn, MemberState, Mutant,
    SessionId, SlotIndex,
};
use ashlar_wire::{ChangedSlots, Refusal, Reply, Request, Status};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Proposing,
    OwnReport { from: ChunkIndex },
    SourceReport { from: ChunkIndex, until: ChunkIndex, source: MemberIndex },
    TailListing { next: ChunkIndex, source: MemberIndex },
    TailMarking { next: ChunkIndex, source: MemberIndex },
    Beginning,
    Listing { from: ChunkIndex, until: ChunkIndex, source: MemberIndex },
    Marking { next: ChunkIndex },
    Finding { from: ChunkIndex },
    Copying { next: Option<ChunkIndex> },
    Finishing,
    Joining,
}

pub(crate) struct Resync {
    attempt: u64,
    member: MemberIndex,
    pub(crate) after: Lsn,
    pub(crate) tail: Tail,
    pub(crate) near: Option<Near>,
    pub(crate) stage: Stage,
    pub(crate) marks: VecDeque<Request>,
    marks_inflight: usize,
    /// Bands to be listed; the first is being listed.
    bands: VecDeque<FloorRange>,
    /// Bands to be copied; the first is being copied.
    stale_bands: VecDeque<FloorRange>,
    slots: VecDeque<(ChunkIndex, SlotIndex)>,
    copies_inflight: usize,
    pub(crate) changed_blocks: u64,
    pub(crate) copied_blocks: u64,
    /// In which `FinishSync` was answered.
    finished_in: Option<SessionId>,
}

impl Resync {
    /// Whether new writes go to the member.
    pub(crate) fn receives(&self, index: MemberIndex) -> bool {
        let before = matches!(
            self.stage,
            Stage::Proposing
                | Stage::OwnReport { .. }
                | Stage::SourceReport { .. }
                | Stage::TailListing { .. }
                | Stage::TailMarking { .. }
                | Stage::Beginning
        );
        let copies = matches!(
            self.stage,
            Stage::Listing { .. } | Stage::Marking { .. } | Stage::Finding { .. } | Stage::Copying { .. }
        );
        self.member == index && !before && !(copies && Mutant::ReturnMissesNewWrites.is_on())
    }

    /// The member that acknowledgements wait for besides those in-sync.
    pub(crate) fn joint_member(&self) -> Option<MemberIndex> {
        let joint = self.finishes() && !Mutant::JoinWithoutJointPhase.is_on();
        let near = self.near.as_ref().is_some_and(Near::is_joint);
        (joint || near).then_some(self.member)
    }

    /// Everything is copied.
    pub(crate) fn finishes(&self) -> bool {
        matches!(self.stage, Stage::Finishing | Stage::Joining)
    }

    /// What is copied is the present; older versions are there.
    pub(crate) fn is_in_last_band(&self) -> bool {
        self.stale_bands.len() == 1
    }

    pub(crate) fn take_stale(&mut self, entry: &ChangedSlots, next: Option<ChunkIndex>) {
        self.slots.extend(entry.slots.iter().map(|slot| (entry.chunk, slot)));
        self.stage = Stage::Copying { next };
    }

    pub(crate) fn member(&self) -> MemberIndex {
        self.member
    }

    pub(crate) fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Slots could be copied, were it not too early.
    pub(crate) fn waits_to_copy(&self, inflight_max: usize) -> bool {
        let copies = matches!(self.stage, Stage::Copying { .. });
        copies && !self.slots.is_empty() && self.copies_inflight < inflight_max
    }
}

impl Volume {
    pub(crate) fn resync_step(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.resync.is_none() {
            self.begin_resync(now);
        }
        let Some(resync) = &self.resync else { return };
        match resync.stage {
            Stage::Proposing => self.begin_sync(now, out),
            Stage::Marking { next } => self.mark(now, next, out),
            Stage::Copying { next } => self.copy(now, next, out),
            Stage::OwnReport { .. } | Stage::SourceReport { .. } => {}
            Stage::TailListing { .. } | Stage::TailMarking { .. } => {}
            Stage::Beginning | Stage::Listing { .. } | Stage::Finding { .. } => {}
            Stage::Finishing | Stage::Joining => {}
        }
    }

    /// One at a time: the first that is not in-sync, can be reached, and has not just failed. An open link hears
    /// something every ping interval, so a pause needs no timer of its own.
    fn begin_resync(&mut self, now: Instant) {
        // A detach ends without it, unless writes wait for one more replica.
        if self.draining && self.writes.is_idle() {
            return;
        }
        // Where writes wait for one more replica, so does everybody else.
        let urgent = self.lacks_replicas();
        let may = |member: &Member| urgent || member.returns_from <= now && member.unwanted_until <= now;
        let mut members = self.members.iter().enumerate();
        let returns =
            members.find(|(_, member)| member.has_chunks && member.is_open() && !member.in_sync() && may(member));
        let Some((index, member)) = returns else { return };
        let (MemberState::Out { commit } | MemberState::Syncing { commit }) = member.state else { return };
        self.counters.resync_attempts += 1;
        self.resync = Some(Resync {
            attempt: self.counters.resync_attempts,
            member: index,
            after: commit,
            tail: Tail::default(),
            near: None,
            stage: Stage::Proposing,
            marks: VecDeque::new(),
            marks_inflight: 0,
            bands: VecDeque::new(),
            stale_bands: VecDeque::new(),
            slots: VecDeque::new(),
            copies_inflight: 0,
            changed_blocks: 0,
            copied_blocks: 0,
            finished_in: None,
        });
    }

    /// Writes wait for one more replica in-sync.
    pub(crate) fn lacks_replicas(&self) -> bool {
        self.record.fewest_in_sync_without(&[]) < self.record.min_replicas
    }

    pub(crate) fn resync_mut(&mut self) -> &mut Resync {
        self.resync.as_mut().expect("the caller looked")
    }

    /// What the return needs of the catalog now.
    pub(crate) fn propose_for_resync(&mut self, out: &mut Vec<Action>) {
        let Some(resync) = &self.resync else { return };
        let member = &self.members[resync.member];
        let disk = member.disk;
        match (resync.stage, member.state) {
            (Stage::Proposing, MemberState::Out { .. }) => self.propose(Change::BeginReturn { disk }, out),
            (Stage::Joining, MemberState::Syncing { .. }) => self.propose(Change::Join { disk }, out),
            _ => {}
        }
    }

    /// It is syncing by the catalog: from the answer on every new write goes to it.
    fn begin_sync(&mut self, now: Instant, out: &mut Vec<Action>) {
        let resync = self.resync.as_mut().expect("the caller looked");
        let member = &self.members[resync.member];
        let MemberState::Syncing { commit } = member.state else { return };
        let after = if member.copy_whole { Lsn::ZERO } else { commit };
        resync.after = after;
        if member.copy_whole {
            self.ask_begin_sync(now, out);
        } else {
            self.check_tail(now, ChunkIndex(0), out);
        }
    }

    pub(crate) fn ask_begin_sync(&mut self, now: Instant, out: &mut Vec<Action>) {
        let resync = self.resync_mut();
        resync.stage = Stage::Beginning;
        resync.tail = Tail::default();
        let (after, member) = (resync.after, resync.member);
        self.members[member].history.note_begun(after);
        self.ask_target(now, Request::BeginSync { after }, out);
    }

    pub(crate) fn ask_target(&mut self, now: Instant, request: Request, out: &mut Vec<Action>) {
        let resync = self.resync_mut();
        let (index, attempt) = (resync.member, resync.attempt);
        self.send(now, index, Purpose::Resync(attempt), request, out);
    }

    pub(crate) fn resync_answered(&mut self, now: Instant, attempt: u64, reply: Reply, out: &mut Vec<Action>) {
        let Some(resync) = self.resync.as_mut().filter(|resync| resync.attempt == attempt) else { return };
        match (resync.stage, reply) {
            (Stage::OwnReport { from }, Reply::Reported { entries, next }) => {
                self.tail_reported(now, from, &entries, next, out)
            }
            (Stage::TailMarking { .. }, Reply::Done) => self.tail_marked(now, out),
            (Stage::Beginning, Reply::Done) => self.begin_listing(now, out),
            // It has lost more than what came after the commit point: its journal was damaged. Then it is as if it
            // were new.
            (Stage::Beginning, Reply::Refused(Refusal { status: Status::Incomplete, .. }))
                if resync.after > Lsn::ZERO =>
            {
                resync.after = Lsn::ZERO;
                self.ask_begin_sync(now, out);
            }
            (Stage::Marking { .. }, Reply::Done) => resync.marks_inflight -= 1,
            (Stage::Finding { from }, Reply::Changed { entries, next }) => {
                self.found_stale(now, from, &entries, next, out)
            }
            (Stage::Finishing, Reply::Done) => {
                resync.stage = Stage::Joining;
                // What it was is copied over; what it is from here on has to be remembered by it.
                let member = &mut self.members[resync.member];
                member.gone_back = false;
                resync.finished_in = member.session();
            }
            (Stage::Joining, Reply::Done) if Mutant::JoinBeforeFinishDurable.is_on() => {}
            (_, Reply::Refused(Refusal { status, reason, .. })) => {
                self.fail_resync(now, &format!("{status:?}: {reason}"), out);
            }
            (stage, reply) => {
                self.fail_resync(now, &format!("answer of the wrong kind while {stage:?}: {reply:?}"), out)
            }
        }
    }

    /// From here on writes go to it, beginning with the first that is not acknowledged: what is older has come to
    /// every source, and what comes to a source after it was asked for its list comes to the target by itself. (To
    /// wait until the older ones are acknowledged instead would wait forever where that needs the very replica that
    /// returns.)
    fn begin_listing(&mut self, now: Instant, out: &mut Vec<Action>) {
        let after = self.resync_mut().after;
        let (to_list, to_copy) = (self.bands(after), self.bands(Lsn::ZERO));
        let index = self.resync_mut().member;
        let near = self.near(index, after);
        let resync = self.resync_mut();
        resync.near = near;
        (resync.bands, resync.stale_bands) = (to_list, to_copy);
        resync.stage = Stage::Marking { next: ChunkIndex(0) };
        self.forget_answers(index);
        if !Mutant::ListBeforeOlderWrites.is_on() {
            self.resend_writes(now, index, out);
        }
    }

    /// Asks a source for what it stamps after the commit point, run by run: another run may have other holders.
    fn list_changed(&mut self, now: Instant, from: ChunkIndex, out: &mut Vec<Action>) {
        let Some((from, until, holders)) = self.run_from(from) else {
            self.list_next_band(now, out);
            return;
        };
        let Some(source) = self.farthest(holders) else {
            self.fail_resync(now, "no source", out);
            return;
        };
        let resync = self.resync_mut();
        resync.stage = Stage::Listing { from, until, source };
        let (attempt, after) = (resync.attempt, resync.after);
        let Some(&floors) = resync.bands.front() else {
            return self.find_stale(now, ChunkIndex(0), out);
        };
        let request = Request::ListChanged { from, until, after, floors };
        self.send(now, source, Purpose::ResyncList(attempt), request, out);
    }

    fn list_next_band(&mut self, now: Instant, out: &mut Vec<Action>) {
        let resync = self.resync_mut();
        resync.bands.pop_front();
        if resync.bands.is_empty() {
            self.find_stale(now, ChunkIndex(0), out);
        } else {
            resync.stage = Stage::Marking { next: ChunkIndex(0) };
        }
    }

    /// The next run of chunks that the returning disk holds, from this chunk on, and who else holds it.
    pub(crate) fn run_from(&self, from: ChunkIndex) -> Option<(ChunkIndex, ChunkIndex, &[u16])> {
        let target = self.resync.as_ref()?.member as u16;
        let end = |run: &ChunkRun| ChunkIndex(run.first.0 + run.count);
        let run = self.record.chunks.iter().find(|run| end(run) > from && run.members.contains(&target))?;
        Some((from.max(run.first), end(run), &run.members))
    }

    /// A source for the return: the replica on this node serves the database.
    pub(crate) fn farthest(&self, holders: &[u16]) -> Option<MemberIndex> {
        let sources =
            holders.iter().map(|&index| usize::from(index)).filter(|&index| self.members[index].serves_reads());
        sources.max_by_key(|&index| (self.members[index].distance, index))
    }

    pub(crate) fn resync_listed(&mut self, now: Instant, attempt: u64, reply: Reply, out: &mut Vec<Action>) {
        let Some(resync) = self.resync.as_mut().filter(|resync| resync.attempt == attempt) else { return };
        let (from, until, entries, next) = match (resync.stage, reply) {
            (Stage::Listing { from, until, .. }, Reply::Changed { entries, next }) => (from, until, entries, next),
            (Stage::SourceReport { .. }, Reply::Reported { entries, next }) => {
                return self.source_reported(now, &entries, next, out);
            }
            (Stage::TailListing { .. }, Reply::Changed { entries, .. }) => {
                return self.tail_listed(now, &entries, out);
            }
            _ => return self.fail_resync(now, "listing was refused", out),
        };
        if next.is_some_and(|next| next <= from || next > until) {
            self.fail_resync(now, PAGE_STANDS_STILL, out);
            return;
        }
        let (after, floors) = (resync.after, *resync.bands.front().expect("one is being listed"));
        for ChangedSlots { chunk, prefix, slots } in entries {
            resync.changed_blocks += u64::from(slots.count() * BLOCKS_PER_SLOT);
            resync.marks.push_back(Request::AdoptPrefix { chunk, prefix });
            resync.marks.push_back(Request::MarkStale { chunk, after, floors, into: floors.from, slots });
        }
        resync.stage = Stage::Marking { next: next.unwrap_or(until) };
    }

    fn mark(&mut self, now: Instant, next: ChunkIndex, out: &mut Vec<Action>) {
        while self.resync_mut().marks_inflight < self.config.marks_inflight_max {
            let Some(request) = self.resync_mut().marks.pop_front() else { break };
            self.resync_mut().marks_inflight += 1;
            self.ask_target(now, request, out);
        }
        if self.resync_mut().marks_inflight > 0 {
            return;
        }
        self.list_changed(now, next, out);
    }

    pub(crate) fn joined(&mut self, now: Instant, disk: DiskId, out: &mut Vec<Action>) {
        let Some(resync) = self.resync.take_if(|resync| self.members[resync.member].disk == disk) else { return };
        let (copied_blocks, changed_blocks) = (resync.copied_blocks, resync.changed_blocks);
        self.counters.resynced_blocks += copied_blocks;
        out.push(Action::Notice(Notice::InSync { disk, copied_blocks, changed_blocks }));
        let member = &mut self.members[resync.member];
        member.copy_whole = false;
        member.return_pause = Duration::ZERO;
        if !member.is_open() {
            member.suspect_of("link lost while joining", now);
        }
        self.recheck_writes(now, out);
        self.ask_again(now, out);
    }

    /// Proposed with this version of the record.
    pub(crate) fn join_refused(&mut self, now: Instant, disk: DiskId, version: u64, out: &mut Vec<Action>) {
        let Some(resync) = self.resync.as_ref().filter(|resync| self.members[resync.member].disk == disk) else {
            return;
        };
        let member = &self.members[resync.member];
        let goes_on = member.session() == resync.finished_in && matches!(member.state, MemberState::Syncing { .. });
        if member.in_sync() {
            // A record told of it before the answer came, and then the version had moved on.
            self.joined(now, disk, out);
        } else if !goes_on || self.record.version == version {
            self.fail_resync(now, "the catalog refused to take it in", out);
        }
        // Else something that has nothing to do with it was changed meanwhile: it is proposed again.
    }

    /// Ends this attempt only. The next one begins at the commit point again, over a new session.
    pub(crate) fn fail_resync(&mut self, now: Instant, reason: &str, out: &mut Vec<Action>) {
        let Some(resync) = self.resync.take() else { return };
        let disk = self.members[resync.member].disk;
        out.push(Action::Notice(Notice::ReturnAbandoned { disk, reason: reason.to_owned() }));
        self.cancel_copies(|owner| owner == Owner::Resync);
        self.withdraw_reads(now, resync.member, out);
        let (min, max) = (self.config.reconnect_max, self.config.return_pause_max);
        let member = &mut self.members[resync.member];
        member.backoff = self.config.reconnect_max;
        member.return_pause = (member.return_pause * 2).clamp(min, max);
        member.returns_from = now + member.return_pause;
        self.drop_link(now, resync.member, reason, out);
        self.recheck_writes(now, out);
    }

    /// The catalog has it out again, by another hand: what was copied so far counts for nothing.
    pub(crate) fn resync_lost_member(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(resync) = &self.resync else { return };
        let out_again = matches!(self.members[resync.member].state, MemberState::Out { .. });
        if out_again && resync.stage != Stage::Proposing {
            self.fail_resync(now, "it was moved out", out);
        }
    }

    pub(crate) fn resync_lost_link(&mut self, now: Instant, index: MemberIndex, reason: &str, out: &mut Vec<Action>) {
        let Some(resync) = &self.resync else { return };
        let disk = self.members[resync.member].disk;
        match resync.stage {
            // Perhaps the catalog has it in-sync already: the answer must be known first.
            Stage::Joining if resync.member == index && self.proposals.is_joining(disk) => {}
            _ if resync.member == index => self.fail_resync(now, reason, out),
            Stage::Listing { from, source, .. } if source == index => self.list_changed(now, from, out),
            Stage::SourceReport { source, .. } | Stage::TailListing { source, .. } if source == index => {
                self.fail_resync(now, "the source is lost", out)
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
