//! Checkpoint: brings what the journal holds into place and into the index, so that the journal can be trimmed.
//!
//! ```text
//!          due                         all in place              flushed                 committed
//!   Idle ───────► Applying ───────────────────────────► Flushing ───────► Committing ────────────────► trim, Idle
//!          │ index edits and position are taken here: the index is the store exactly as it was after batch P
//! ```
//! Order: apply, flush, commit, trim. Invariants: what is in place and in the index at P needs no batch <= P; a place
//! given back by a batch <= P is free after the trim and not before. Content written in place after P (the overlay
//! had a newer block) does no harm: the batch that brought it is replayed.

use crate::Action;
use crate::IndexEdit;
use crate::config::APPLY_RUN_BLOCKS_MAX;
use crate::engine::{Engine, Op};
use crate::index::{Dirty, Position, Start, start_edit};
use crate::place::{DiskBlock, Sequence};
use ashlar_types::{BLOCK_BYTES, Instant, Mutant};

pub(crate) struct Checkpoint {
    state: State,
    /// The last batch that the index covers.
    covered: Sequence,
    /// Somebody waits for room in the ring, or for places.
    pub(crate) wanted: bool,
    /// The index is being told that the journal goes on further.
    is_reaching: bool,
    pub(crate) last_change: Instant,
    last_end: Instant,
}

enum State {
    Idle,
    Applying {
        plan: Plan,
        cursor: DiskBlock,
        in_flight: u32,
        needs_flush: bool,
    },
    Flushing {
        plan: Plan,
    },
    /// Until no other commit is on its way.
    Waiting {
        plan: Plan,
    },
    Committing {
        until: Sequence,
        reach: u64,
    },
}

/// What is committed when everything up to `until` is in place.
struct Plan {
    until: Sequence,
    /// After it.
    position: Position,
    edits: Vec<IndexEdit>,
}

impl Plan {
    /// Out of a state that ends.
    fn take(&mut self) -> Plan {
        Plan { edits: std::mem::take(&mut self.edits), ..*self }
    }
}

impl Checkpoint {
    pub(crate) fn new(covered: Sequence, now: Instant) -> Checkpoint {
        Checkpoint { state: State::Idle, covered, wanted: false, is_reaching: false, last_change: now, last_end: now }
    }

    fn become_state(&mut self, state: State) {
        self.state = state;
    }
}

impl Engine {
    /// When the next checkpoint is due by time alone.
    pub(crate) fn checkpoint_due(&self) -> Instant {
        let is_clean = self.journal.durable() == self.checkpoint.covered;
        if is_clean || !matches!(self.checkpoint.state, State::Idle) {
            return Instant::FAR;
        }
        let idle = self.checkpoint.last_change + self.config.idle_delay;
        idle.min(self.checkpoint.last_end + self.config.checkpoint_interval)
    }

    /// When scrub wants one, if nothing else does.
    pub(crate) fn scrub_save_due(&self) -> Instant {
        let may_begin = self.recovery.is_none() && self.failed.is_none();
        let is_idle = may_begin && matches!(self.checkpoint.state, State::Idle) && self.journal.is_quiet();
        if is_idle { self.scrub.save_due() } else { Instant::FAR }
    }

    pub(crate) fn checkpoint_step(&mut self, out: &mut Vec<Action>) {
        if self.recovery.is_none() && matches!(self.checkpoint.state, State::Idle) && self.is_checkpoint_due() {
            let until = self.journal.durable();
            // With nothing to cover it is for scrub, and the ring is at rest.
            let is_clean = until == self.checkpoint.covered;
            let position = if is_clean { self.ring.tail() } else { self.ring.position_after(until) };
            self.begin_checkpoint(until, position);
        }
        self.reach_further(out);
        self.apply_some(out);
    }

    /// Before the journal comes to its reach.
    fn reach_further(&mut self, out: &mut Vec<Action>) {
        let is_committing = self.checkpoint.is_reaching || matches!(self.checkpoint.state, State::Committing { .. });
        if self.recovery.is_none() && !is_committing && self.ring.is_near_reach() {
            self.commit_reach(out);
        }
    }

    fn commit_reach(&mut self, out: &mut Vec<Action>) {
        assert!(self.recovery.is_none(), "the tail is where the index says that replay begins");
        let reach = self.ring.next_reach(self.checkpoint.covered);
        if Mutant::ReachNotDurable.is_on() {
            return self.ring.reaches(reach);
        }
        self.checkpoint.is_reaching = true;
        let start = Start { position: self.ring.tail(), reach: Some(reach) };
        let op = self.begin_op(Op::ReachCommit { reach });
        out.push(Action::Commit { op, edits: vec![start_edit(start, self.superblock.disk)] });
    }

    fn is_checkpoint_due(&self) -> bool {
        if self.journal.durable() == self.checkpoint.covered {
            return self.now >= self.scrub_save_due();
        }
        let ring_part = self.ring.bytes() / 100 * u64::from(self.config.checkpoint_ring_percent);
        let places = &self.store.places;
        self.checkpoint.wanted
            || self.ring.used() >= ring_part
            || places.waiting() > places.free() / 2
            || self.now >= self.checkpoint_due()
    }

    /// Begins a checkpoint of the store as it is: after batch `until`, whose follower stands at `position`.
    pub(crate) fn begin_checkpoint(&mut self, until: Sequence, position: Position) {
        assert!(matches!(self.checkpoint.state, State::Idle) && until >= self.checkpoint.covered);
        let mut edits = Dirty::take_edits(&mut self.store);
        edits.extend(self.take_scrub_edit());
        self.checkpoint.wanted = false;
        self.begin(Plan { until, position, edits });
    }

    /// Commits the index as it was found: nothing is brought into place, and replay goes on to begin at `position`.
    pub(crate) fn confirm_index(&mut self, position: Position) {
        self.begin(Plan { until: self.checkpoint.covered, position, edits: vec![] });
    }

    fn begin(&mut self, plan: Plan) {
        // What recovery found may have come from a process that died before it was durable: seen is not yet safe.
        let needs_flush = self.recovery.is_some();
        let (cursor, in_flight) = (DiskBlock(0), 0);
        self.checkpoint.become_state(State::Applying { plan, cursor, in_flight, needs_flush });
    }

    /// Writes in place what fits the depth; when everything is, goes on to the flush.
    fn apply_some(&mut self, out: &mut Vec<Action>) {
        let depth = self.apply_depth();
        loop {
            let State::Applying { plan, cursor, in_flight, needs_flush } = &mut self.checkpoint.state else { return };
            if *in_flight >= depth {
                return;
            }
            if self.recovery.is_some() && Mutant::ReplayWorksOnce.is_on() {
                break;
            }
            let behind = u64::from(Mutant::CheckpointAheadOfData.is_on());
            let until = Sequence(plan.until.0.saturating_sub(behind));
            let Some(run) = self.store.overlay.run_from(*cursor, until, APPLY_RUN_BLOCKS_MAX) else { break };
            *cursor = DiskBlock(run.start.0 + run.parts.len() as u64);
            *in_flight += 1;
            *needs_flush = true;
            self.counters.apply_writes += 1;
            self.counters.apply_bytes += run.parts.len() as u64 * BLOCK_BYTES;
            let offset = run.start.offset(self.data_offset());
            let op = self.begin_op(Op::Apply { start: run.start, sequences: run.sequences });
            out.push(Action::Write { op, offset, parts: run.parts, durable: false });
        }
        let State::Applying { plan, in_flight, needs_flush, .. } = &mut self.checkpoint.state else { return };
        if *in_flight > 0 {
            return;
        }
        let needs_flush = *needs_flush && !Mutant::TrimBeforeFlush.is_on();
        let plan = plan.take();
        if needs_flush {
            self.checkpoint.become_state(State::Flushing { plan });
            let op = self.begin_op(Op::CheckpointFlush);
            out.push(Action::Flush { op });
        } else {
            self.commit(plan, out);
        }
    }

    /// The reach does not grow while this commit, which may be a long one, is on its way: so it first goes on a step.
    fn commit(&mut self, plan: Plan, out: &mut Vec<Action>) {
        let is_busy = self.recovery.is_none() && self.now < self.checkpoint.last_change + self.config.idle_delay;
        if is_busy && !self.checkpoint.is_reaching && self.ring.is_short_of_reach() {
            self.commit_reach(out);
        }
        match self.checkpoint.is_reaching {
            true => self.checkpoint.become_state(State::Waiting { plan }),
            false => self.commit_now(plan, out),
        }
    }

    fn commit_now(&mut self, mut plan: Plan, out: &mut Vec<Action>) {
        let (until, reach) = (plan.until, self.ring.next_reach(plan.until));
        let start = Start { position: plan.position, reach: Some(reach) };
        plan.edits.push(start_edit(start, self.superblock.disk));
        self.checkpoint.become_state(State::Committing { until, reach });
        let op = self.begin_op(Op::CheckpointCommit);
        out.push(Action::Commit { op, edits: plan.edits });
    }

    /// The foreground comes first, unless the ring fills up or somebody waits.
    fn apply_depth(&self) -> u32 {
        let is_busy = self.recovery.is_none() && !self.journal.is_quiet();
        let is_pressing = self.checkpoint.wanted || self.ring.used() > self.ring.bytes() / 4 * 3;
        if is_busy && !is_pressing { self.config.apply_depth_busy } else { self.config.apply_depth }
    }

    pub(crate) fn applied(&mut self, start: DiskBlock, sequences: &[Sequence]) {
        let State::Applying { in_flight, .. } = &mut self.checkpoint.state else { panic!("nothing is being applied") };
        *in_flight -= 1;
        self.store.overlay.settle(start, sequences);
    }

    pub(crate) fn on_flushed(&mut self, out: &mut Vec<Action>) {
        let State::Flushing { plan } = &mut self.checkpoint.state else { panic!("nothing is being flushed") };
        let plan = plan.take();
        self.commit(plan, out);
    }

    pub(crate) fn on_committed(&mut self, op: Op, out: &mut Vec<Action>) {
        match op {
            Op::CheckpointCommit => self.checkpoint_committed(out),
            Op::ReachCommit { reach } => self.reach_committed(reach, out),
            _ => panic!("the operation is no commit"),
        }
    }

    fn reach_committed(&mut self, reach: u64, out: &mut Vec<Action>) {
        self.checkpoint.is_reaching = false;
        self.ring.reaches(reach);
        if let State::Waiting { plan } = &mut self.checkpoint.state {
            let plan = plan.take();
            self.commit_now(plan, out);
        }
    }

    fn checkpoint_committed(&mut self, out: &mut Vec<Action>) {
        let State::Committing { until, reach } = self.checkpoint.state else { panic!("nothing is being committed") };
        self.checkpoint.become_state(State::Idle);
        self.checkpoint.covered = until;
        self.checkpoint.last_end = self.now;
        self.counters.checkpoints += 1;
        self.store.places.trimmed(until);
        self.ring.trim(until);
        self.ring.reaches(reach);
        self.wake_reclaim();
        self.wake_flattening();
        if self.recovery.is_some() {
            self.recovered(out);
        }
    }
}
