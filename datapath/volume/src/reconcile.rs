//! Reconcile: after an unclean end the in-sync replicas are made equal before anything is served (DESIGN §5.4).
//!
//! ```text
//!  Opening ──all in-sync open──► Reporting ──all pages──► Working: a job a chunk that differs ─► Agreeing ─► Dirtying
//!     ▲                              │                        │                                     │
//!     └──────── Restart: new sessions, new reports ◄── a link lost, a member gone ◄─────────────────┘
//!
//!  job: [VoidStale(source)] then for each target:
//!       (ListChanged(source, after c) → MarkStale(target)) × band → (ListStale(target) → copies) × band
//!       → CompleteChunk
//! ```
//! Invariants: the source is the readable complete replica with the longest prefix; c = min(its prefix, the target's
//! own); a target becomes complete, at the source's prefix, only after its durable marks are gone; all have it durable
//! that they were made equal in this epoch before the catalog hears that it serves.

mod job;

use crate::Action;
use crate::copy::Owner;
use crate::member::{MemberIndex, Purpose};
use crate::volume::{Phase, Volume};
use ashlar_types::{ChunkIndex, Instant, Lsn, MEMBERS_MAX, Mutant};
use ashlar_wire::{ChunkReport, Request};
use job::{Job, JobStage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Chunks worked on at once.
const JOBS_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Opening,
    /// Members whose last page has not come.
    Reporting {
        left: u64,
    },
    Working,
    /// Members that have not answered `FinishSync`.
    Agreeing {
        left: u64,
    },
    Restart,
}

#[derive(Default)]
pub(crate) struct Reconcile {
    stage: Stage,
    /// Replicas that could not give a slot of a chunk when they were its source. Kept from attempt to attempt.
    unreadable: BTreeSet<(ChunkIndex, MemberIndex)>,
    reports: BTreeMap<ChunkIndex, BTreeMap<MemberIndex, ChunkReport>>,
    waiting: VecDeque<Job>,
    /// Begun when all else is done: with the last of them an incomplete replica becomes whole.
    not_held: VecDeque<Job>,
    jobs: BTreeMap<usize, Job>,
    next_job: usize,
}

impl Volume {
    fn reconcile(&mut self) -> &mut Reconcile {
        match &mut self.phase {
            Phase::Reconciling(reconcile) => reconcile,
            _ => panic!("not reconciling"),
        }
    }

    pub(crate) fn reconcile_step(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.reconcile().stage == Stage::Restart {
            self.open_afresh(now, out);
        }
        match self.reconcile().stage {
            Stage::Opening => self.ask_reports(now, out),
            Stage::Working => self.work(now, out),
            Stage::Reporting { .. } | Stage::Agreeing { .. } | Stage::Restart => {}
        }
    }

    /// Reports of an earlier attempt are never used again: something may have been in flight when they were made.
    fn open_afresh(&mut self, now: Instant, out: &mut Vec<Action>) {
        let next_job = self.reconcile().next_job;
        let unreadable = std::mem::take(&mut self.reconcile().unreadable);
        let reports = if Mutant::OldReportsReused.is_on() {
            std::mem::take(&mut self.reconcile().reports)
        } else {
            BTreeMap::new()
        };
        self.phase = Phase::Reconciling(Reconcile { next_job, unreadable, reports, ..Reconcile::default() });
        self.cancel_copies(|owner| matches!(owner, Owner::Job(_)));
        for index in 0..self.members.len() {
            if self.members[index].in_sync() && self.members[index].session().is_some() {
                let suspect = self.members[index].suspect.take();
                self.drop_link(now, index, "reconcile begins again", out);
                self.members[index].suspect = suspect;
            }
        }
    }

    fn ask_reports(&mut self, now: Instant, out: &mut Vec<Action>) {
        if !self.proposals.is_idle() {
            return;
        }
        let in_sync = self.members_in_sync();
        if let Some(missing) = in_sync.iter().find(|&&index| !self.members[index].is_open()) {
            let disk = self.members[*missing].disk;
            self.say_blocked(format!("waiting for disk {disk} to reconcile"), out);
            return;
        }
        if let Some(chunk) = self.chunk_without_source() {
            self.say_blocked(format!("every in-sync replica of chunk {} has lost writes", chunk.0), out);
            return;
        }
        self.reconcile().stage = Stage::Reporting { left: mask_of(&in_sync) };
        for index in in_sync {
            let from = ChunkIndex(0);
            self.send(now, index, Purpose::Report { from }, Request::Report { from }, out);
        }
    }

    fn members_in_sync(&self) -> Vec<MemberIndex> {
        (0..self.members.len()).filter(|&index| self.members[index].in_sync()).collect()
    }

    /// A chunk of which every in-sync replica is of the past or incomplete: what it had is nowhere to be had.
    fn chunk_without_source(&self) -> Option<ChunkIndex> {
        let is_source = |&index: &u16| {
            let member = &self.members[usize::from(index)];
            member.in_sync() && !member.damaged
        };
        let runs = &self.record.chunks;
        runs.iter().find(|run| !run.members.iter().any(is_source)).map(|run| run.first)
    }

    pub(crate) fn reported(
        &mut self,
        now: Instant,
        index: MemberIndex,
        entries: Vec<ChunkReport>,
        next: Option<ChunkIndex>,
        out: &mut Vec<Action>,
    ) {
        let chunks = self.geometry.chunk_count();
        let Phase::Reconciling(reconcile) = &mut self.phase else { return };
        let Stage::Reporting { left } = reconcile.stage else { return };
        for entry in entries.into_iter().filter(|entry| entry.chunk.0 < chunks) {
            let of_chunk = reconcile.reports.entry(entry.chunk).or_default();
            if Mutant::OldReportsReused.is_on() && of_chunk.contains_key(&index) {
                continue;
            }
            of_chunk.insert(index, entry);
        }
        if let Some(from) = next {
            self.send(now, index, Purpose::Report { from }, Request::Report { from }, out);
            return;
        }
        let left = left & !(1 << index);
        reconcile.stage = Stage::Reporting { left };
        if left > 0 {
            return;
        }
        let of_the_past = self.of_the_past();
        if of_the_past.is_empty() {
            self.plan_jobs();
            return;
        }
        for index in of_the_past {
            let member = &mut self.members[index];
            (member.damaged, member.gone_back) = (true, true);
            member.suspect_of("it has lost writes that were acknowledged", now);
        }
        self.restart_reconcile("a replica is of the past", out);
    }

    /// Those that call a chunk complete of which another has a later write before the commit point: that write was
    /// durable on all of them. Their promise may be of this very epoch, and the other's report incomplete by a
    /// reconcile that was cut off, so nothing else gives them away. Where a complete one has that write, it is the
    /// source and makes up for what they lack. They may lack nothing then: the prefix of one that returned with a tail
    /// is its commit point, though the chunk's last write is older.
    fn of_the_past(&self) -> BTreeSet<MemberIndex> {
        let Phase::Reconciling(reconcile) = &self.phase else { panic!("not reconciling") };
        let commit = self.commit_of_ejection();
        let mut of_the_past = BTreeSet::new();
        for (&chunk, reports) in &reconcile.reports {
            let holders = self.record.members_of(chunk).iter().map(|&index| usize::from(index));
            let believed = holders.filter(|&index| self.members[index].in_sync() && !self.members[index].damaged);
            let empty = ChunkReport { chunk, prefix: Lsn::ZERO, complete: true };
            let told: Vec<_> = believed.map(|index| (index, *reports.get(&index).unwrap_or(&empty))).collect();
            let durable = told.iter().map(|(_, report)| report.prefix).filter(|&prefix| prefix <= commit).max();
            let lacks = |report: &ChunkReport| report.complete && durable.is_some_and(|lsn| report.prefix < lsn);
            let is_source = |&(index, report): &(MemberIndex, ChunkReport)| {
                report.complete && !lacks(&report) && !reconcile.unreadable.contains(&(chunk, index))
            };
            if !told.iter().any(is_source) {
                of_the_past.extend(told.iter().filter(|(_, report)| lacks(report)).map(|&(index, _)| index));
            }
        }
        of_the_past
    }

    fn plan_jobs(&mut self) {
        let reports = std::mem::take(&mut self.reconcile().reports);
        if Mutant::OldReportsReused.is_on() {
            self.reconcile().reports = reports.clone();
        }
        let jobs: Vec<Job> = reports.iter().filter_map(|(&chunk, reports)| self.plan_job(chunk, reports)).collect();
        let not_held: VecDeque<Job> = reports.values().flat_map(|reports| self.not_held(reports)).collect();
        let reconcile = self.reconcile();
        reconcile.waiting.extend(jobs);
        reconcile.not_held = not_held;
        reconcile.stage = Stage::Working;
    }

    /// An incomplete replica says so of every chunk of the volume, and is whole when it has heard of each that it is
    /// complete. It cannot know which of them it holds. (Were it left so, its next session would be believed nothing.)
    fn not_held<'a>(&'a self, reports: &'a BTreeMap<MemberIndex, ChunkReport>) -> impl Iterator<Item = Job> + 'a {
        let is_holder = |chunk, index| self.record.members_of(chunk).contains(&(index as u16));
        let in_sync = |index: MemberIndex| self.members[index].in_sync();
        let others = reports
            .iter()
            .filter(move |&(&index, report)| in_sync(index) && !report.complete && !is_holder(report.chunk, index));
        others.map(|(&index, report)| Job {
            chunk: report.chunk,
            source: index,
            equals: 0,
            prefix: report.prefix,
            targets: vec![(index, report.prefix)],
            stage: JobStage::NotHeld,
            bands: VecDeque::new(),
            slots: VecDeque::new(),
            copies_inflight: 0,
        })
    }

    /// None if the chunk's in-sync replicas are complete and equally long.
    fn plan_job(&self, chunk: ChunkIndex, reports: &BTreeMap<MemberIndex, ChunkReport>) -> Option<Job> {
        let empty = ChunkReport { chunk, prefix: Lsn::ZERO, complete: true };
        let holders = self.record.members_of(chunk).iter().map(|&index| usize::from(index));
        let holders = holders.filter(|&index| self.members[index].in_sync());
        let report_of = |index: MemberIndex| match reports.get(&index) {
            // Of all that it says only that it is a holder counts: everything is compared with the source and copied.
            _ if self.members[index].damaged => ChunkReport { complete: false, ..empty },
            Some(report) => {
                ChunkReport { complete: report.complete || Mutant::CutOffReconcileComplete.is_on(), ..*report }
            }
            None => empty,
        };
        let states: Vec<(MemberIndex, ChunkReport)> = holders.map(|index| (index, report_of(index))).collect();
        let rank = |&&(index, report): &&(MemberIndex, ChunkReport)| {
            (self.source_class(report, index), report.complete, report.prefix, std::cmp::Reverse(index))
        };
        let (source, best) = *states.iter().max_by_key(rank)?;
        let differs = |(_, report): &&(MemberIndex, ChunkReport)| {
            !best.complete || !report.complete || report.prefix != best.prefix
        };
        let others = states.iter().filter(|(index, _)| *index != source);
        let targets: Vec<_> = others.filter(differs).map(|&(index, report)| (index, report.prefix)).collect();
        if targets.is_empty() && best.complete {
            return None;
        }
        let equal = states.iter().filter(|state| state.0 == source || !differs(state));
        let equals = equal.fold(0, |mask, (index, _)| mask | 1 << index);
        // None is complete: an earlier attempt was cut off and its source is gone. What they lack was never
        // acknowledged.
        let stage = if best.complete { JobStage::Listing } else { JobStage::Voiding };
        let (bands, slots, copies_inflight) = (VecDeque::new(), VecDeque::new(), 0);
        Some(Job { chunk, source, equals, prefix: best.prefix, targets, stage, bands, slots, copies_inflight })
    }

    /// Which replicas may be the source: first those that can be read. Where the longest one has a block that nobody
    /// can read, the next longest takes its place, at its own prefix: what it lacks was never acknowledged. One that
    /// does not know what it lacks comes last.
    fn source_class(&self, report: ChunkReport, index: MemberIndex) -> u8 {
        let Phase::Reconciling(reconcile) = &self.phase else { panic!("not reconciling") };
        match self.members[index].damaged {
            true => 0,
            false if reconcile.unreadable.contains(&(report.chunk, index)) => 1,
            false => 2,
        }
    }

    /// No replica as long as the job's source has good content of one of its slots.
    pub(crate) fn source_unreadable(&mut self, id: usize) {
        if let Phase::Reconciling(reconcile) = &mut self.phase
            && let Some(job) = reconcile.jobs.get(&id)
        {
            let (chunk, equals) = (job.chunk, job.equals);
            let indexes = (0..MEMBERS_MAX).filter(|index| equals & (1 << index) != 0);
            reconcile.unreadable.extend(indexes.map(|index| (chunk, index)));
        }
    }

    fn work(&mut self, now: Instant, out: &mut Vec<Action>) {
        while self.reconcile().jobs.len() < JOBS_MAX {
            let reconcile = self.reconcile();
            let Some(job) = reconcile.waiting.pop_front() else { break };
            let id = reconcile.next_job;
            reconcile.next_job += 1;
            let begins_with_a_target = job.stage == JobStage::Listing;
            reconcile.jobs.insert(id, job);
            if begins_with_a_target {
                self.next_target(now, id, out);
            } else {
                self.job_ask(now, id, out);
            }
        }
        let running: Vec<usize> = self.reconcile().jobs.keys().copied().collect();
        for id in running {
            self.job_copy(now, id, out);
            if !matches!(&self.phase, Phase::Reconciling(reconcile) if reconcile.stage == Stage::Working) {
                return;
            }
        }
        let reconcile = self.reconcile();
        if !reconcile.jobs.is_empty() || !reconcile.waiting.is_empty() {
            return;
        }
        if reconcile.not_held.is_empty() {
            self.agree(now, out);
        } else {
            reconcile.waiting = std::mem::take(&mut reconcile.not_held);
            self.work(now, out);
        }
    }

    /// All are equal. An image of a disk from before this moment is found out by later writers, and by this one.
    fn agree(&mut self, now: Instant, out: &mut Vec<Action>) {
        let in_sync = self.members_in_sync();
        self.reconcile().stage = Stage::Agreeing { left: mask_of(&in_sync) };
        for index in in_sync {
            self.send(now, index, Purpose::Agree, Request::FinishSync, out);
        }
    }

    pub(crate) fn agreed(&mut self, index: MemberIndex) {
        let Phase::Reconciling(reconcile) = &mut self.phase else { return };
        let Stage::Agreeing { left } = &mut reconcile.stage else { return };
        *left &= !(1 << index);
        if *left == 0 {
            self.reconciled();
        }
    }

    /// One whose history was damaged is whole again.
    fn reconciled(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.in_sync() && member.damaged) {
            member.damaged = false;
            member.gone_back = false;
            member.suspect = None;
        }
        self.phase = Phase::Dirtying;
    }

    /// The attempt is void; the next step opens new sessions.
    pub(crate) fn restart_reconcile(&mut self, reason: &str, out: &mut Vec<Action>) {
        self.reconcile().stage = Stage::Restart;
        self.say_blocked(format!("reconcile begins again: {reason}"), out);
    }

    pub(crate) fn reconcile_lost_link(&mut self, index: MemberIndex) {
        let in_sync = self.members[index].in_sync();
        if let Phase::Reconciling(reconcile) = &mut self.phase
            && in_sync
            && matches!(reconcile.stage, Stage::Reporting { .. } | Stage::Working | Stage::Agreeing { .. })
        {
            reconcile.stage = Stage::Restart;
        }
    }

    /// Reports and jobs are of the members that were in-sync, and of the chunks that there were, when they were asked
    /// for.
    pub(crate) fn reconcile_set_changed(&mut self) {
        if let Phase::Reconciling(reconcile) = &mut self.phase
            && reconcile.stage != Stage::Opening
        {
            reconcile.stage = Stage::Restart;
        }
    }
}

fn mask_of(members: &[MemberIndex]) -> u64 {
    members.iter().fold(0, |mask, &index| mask | 1 << index)
}

#[cfg(test)]
mod tests;
