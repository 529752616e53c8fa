//! One chunk of a reconcile: its targets one after the other, each first marked in every band and then copied band by
//! band. All marks come before the first copy, because the target's own marks are made with any of them.

use crate::Action;
use crate::copy::Owner;
use crate::member::{CopyWhat, MemberIndex, Purpose};
use crate::volume::{Phase, Volume};
use ashlar_types::{ChunkIndex, FloorRange, Instant, Lsn, SlotIndex, SlotSet};
use ashlar_wire::{Refusal, Reply, Request, Status};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobStage {
    Voiding,
    Listing,
    Marking,
    Finding,
    Copying,
    Completing,
    /// Of a chunk that the target does not hold: there is nothing to complete.
    NotHeld,
}

pub(super) struct Job {
    pub(super) chunk: ChunkIndex,
    pub(super) source: MemberIndex,
    /// Complete replicas as long as the source, itself among them: what is bad on one is read from another.
    pub(super) equals: u64,
    pub(super) prefix: Lsn,
    /// Replicas to be made equal to the source, with their own prefixes; the last is worked on.
    pub(super) targets: Vec<(MemberIndex, Lsn)>,
    pub(super) stage: JobStage,
    /// Bands to be marked, or copied; the first is worked on.
    pub(super) bands: VecDeque<FloorRange>,
    pub(super) slots: VecDeque<SlotIndex>,
    pub(super) copies_inflight: usize,
}

impl Job {
    pub(super) fn after(&self) -> Lsn {
        let (_, own) = self.targets.last().expect("a job has a target");
        self.prefix.min(*own)
    }

    pub(super) fn target(&self) -> MemberIndex {
        self.targets.last().expect("a job has a target").0
    }

    fn band(&self) -> FloorRange {
        *self.bands.front().expect("a job works on a band")
    }
}

impl Volume {
    /// Asks what the job's stage asks.
    pub(super) fn job_ask(&mut self, now: Instant, id: usize, out: &mut Vec<Action>) {
        let job = &self.reconcile().jobs[&id];
        let (chunk, prefix, source) = (job.chunk, job.prefix, job.source);
        let (index, request) = match job.stage {
            JobStage::Voiding => (source, Request::VoidStale { chunk }),
            JobStage::Listing => {
                let until = ChunkIndex(chunk.0 + 1);
                (source, Request::ListChanged { from: chunk, until, after: job.after(), floors: job.band() })
            }
            JobStage::Finding => (job.target(), Request::ListStale { from: chunk, floors: job.band() }),
            JobStage::Completing | JobStage::NotHeld => (job.target(), Request::CompleteChunk { chunk, prefix }),
            JobStage::Marking | JobStage::Copying => return,
        };
        self.send(now, index, Purpose::Job(id), request, out);
    }

    pub(crate) fn job_answered(&mut self, now: Instant, id: usize, reply: Reply, out: &mut Vec<Action>) {
        let all_bands = self.bands(Lsn::ZERO);
        let Phase::Reconciling(reconcile) = &mut self.phase else { return };
        let Some(job) = reconcile.jobs.get_mut(&id) else { return };
        match (job.stage, reply) {
            (JobStage::Voiding, Reply::Done) => self.next_target(now, id, out),
            (JobStage::Listing, Reply::Changed { entries, .. }) => {
                let found = entries.iter().find(|entry| entry.chunk == job.chunk);
                let slots = found.map_or(SlotSet::EMPTY, |entry| entry.slots);
                let (chunk, after, target, floors) = (job.chunk, job.after(), job.target(), job.band());
                job.stage = JobStage::Marking;
                let request = Request::MarkStale { chunk, after, floors, into: floors.from, slots };
                self.send(now, target, Purpose::Job(id), request, out);
            }
            (JobStage::Marking, Reply::Done) => {
                job.bands.pop_front();
                job.stage = if job.bands.is_empty() { JobStage::Finding } else { JobStage::Listing };
                if job.bands.is_empty() {
                    job.bands = all_bands;
                }
                self.job_ask(now, id, out);
            }
            (JobStage::Finding, Reply::Changed { entries, .. }) => {
                let found = entries.iter().find(|entry| entry.chunk == job.chunk);
                job.slots = found.map(|entry| entry.slots.iter().collect()).unwrap_or_default();
                job.stage = JobStage::Copying;
            }
            (JobStage::Completing | JobStage::NotHeld, Reply::Done) => {
                job.targets.pop();
                self.next_target(now, id, out);
            }
            // Marks from when it held the chunk. It stays incomplete, as it was.
            (JobStage::NotHeld, Reply::Refused(Refusal { status: Status::Incomplete, .. })) => {
                job.targets.pop();
                self.next_target(now, id, out);
            }
            (stage, Reply::Refused(refusal)) => {
                let of_source = matches!(stage, JobStage::Voiding | JobStage::Listing);
                let index = if of_source { job.source } else { job.target() };
                self.job_refused(now, index, &format!("{stage:?}"), &refusal, out);
            }
            (stage, reply) => self.restart_reconcile(&format!("answer of the wrong kind to {stage:?}: {reply:?}"), out),
        }
    }

    /// Without it the others may be enough.
    pub(crate) fn job_refused(
        &mut self,
        now: Instant,
        index: MemberIndex,
        what: &str,
        refusal: &Refusal,
        out: &mut Vec<Action>,
    ) {
        self.restart_reconcile(&format!("{what} was refused, {:?}: {}", refusal.status, refusal.reason), out);
        self.refused(now, index, refusal, out);
    }

    pub(super) fn next_target(&mut self, now: Instant, id: usize, out: &mut Vec<Action>) {
        let reconcile = self.reconcile();
        if reconcile.jobs[&id].targets.is_empty() {
            reconcile.jobs.remove(&id);
            return;
        }
        let after = reconcile.jobs[&id].after();
        let bands = self.bands(after);
        let job = self.reconcile().jobs.get_mut(&id).expect("looked up above");
        job.bands = bands;
        job.stage = JobStage::Listing;
        self.job_ask(now, id, out);
    }

    pub(super) fn job_copy(&mut self, now: Instant, id: usize, out: &mut Vec<Action>) {
        let copies_max = self.config.copies_inflight_max;
        loop {
            let Phase::Reconciling(reconcile) = &mut self.phase else { return };
            let Some(job) = reconcile.jobs.get_mut(&id).filter(|job| job.stage == JobStage::Copying) else { return };
            if job.copies_inflight >= copies_max {
                return;
            }
            let Some(slot) = job.slots.pop_front() else { break };
            job.copies_inflight += 1;
            let what = CopyWhat { chunk: job.chunk, slot, floors: job.band(), target: job.target() };
            self.start_copy(now, Owner::Job(id), what, out);
        }
        let job = self.reconcile().jobs.get_mut(&id).expect("looked up in the loop");
        if job.copies_inflight == 0 {
            job.bands.pop_front();
            job.stage = if job.bands.is_empty() { JobStage::Completing } else { JobStage::Finding };
            self.job_ask(now, id, out);
        }
    }

    pub(crate) fn job_copied(&mut self, now: Instant, id: usize, blocks: u32, out: &mut Vec<Action>) {
        self.counters.reconciled_blocks += u64::from(blocks);
        let Phase::Reconciling(reconcile) = &mut self.phase else { return };
        if let Some(job) = reconcile.jobs.get_mut(&id) {
            job.copies_inflight -= 1;
            self.job_copy(now, id, out);
        }
    }

    /// Where a copy of the job is read, but for those that were tried.
    pub(crate) fn job_source(&self, id: usize, tried: u64) -> Option<MemberIndex> {
        let Phase::Reconciling(reconcile) = &self.phase else { panic!("copies of a job live as long as it") };
        let job = &reconcile.jobs[&id];
        let left = |index: &MemberIndex| job.equals & !tried & 1 << index != 0;
        Some(job.source).filter(left).or_else(|| (0..self.members.len()).find(left))
    }
}
