//! The owner of all state of one attached volume: takes an event, handles it, then maintains invariants.
//!
//! ```text
//!   Fencing ────► Reconciling ────► Dirtying ────► Serving ────► Closed(Clean)
//!      │   every in-sync   all replicas   the catalog says   │ Detach, drained
//!      │   one promised    equal          who serves         │
//!      └───────────────────────── Closed(Fenced) ◄───────────┘ the first word of a newer epoch
//! ```
//! After a clean close the replicas are compared as well: one may have lost something since. Guest requests wait
//! until Serving.

use crate::compare::Comparison;
use crate::config::Config;
use crate::copy::Copies;
use crate::guest::Guest;
use crate::heal::Healing;
use crate::heat::Heat;
use crate::links::disconnect_all;
use crate::member::{Member, MemberIndex};
use crate::membership::Proposals;
use crate::overlap::{TurnId, Turns};
use crate::pace::Pace;
use crate::read::Reads;
use crate::reconcile::Reconcile;
use crate::resync::Resync;
use crate::snapshot::Snapshots;
use crate::status::Counters;
use crate::write::Writes;
use crate::{Action, Ending, Event, GuestError, Notice, SnapshotError};
use ashlar_types::{ByteCount, Epoch, Geometry, Instant, Lsn, MEMBERS_MAX, Mutant, VolumeRecord};

pub(crate) enum Phase {
    /// Promises of our epoch are gathered.
    Fencing,
    Reconciling(Reconcile),
    /// `OpenDirty` is being proposed.
    Dirtying,
    Serving,
    Closed(Ending),
}

/// One attachment of one volume: `record.epoch` is its own.
pub struct Volume {
    pub(crate) config: Config,
    pub(crate) record: VolumeRecord,
    pub(crate) epoch: Epoch,
    pub(crate) geometry: Geometry,
    pub(crate) phase: Phase,
    /// In the order of `record.members`.
    pub(crate) members: Vec<Member>,
    pub(crate) turns: Turns,
    pub(crate) guest: Guest,
    pub(crate) writes: Writes,
    pub(crate) reads: Reads,
    pub(crate) heat: Heat,
    pub(crate) healing: Healing,
    pub(crate) comparison: Comparison,
    pub(crate) copies: Copies,
    pub(crate) proposals: Proposals,
    pub(crate) resync: Option<Resync>,
    pub(crate) pace: Pace,
    /// Of the last write issued.
    pub(crate) lsn: Lsn,
    /// Of the writes to be issued.
    pub(crate) floor: Lsn,
    pub(crate) snapshots: Snapshots,
    /// Highest commit point that a replica reported when it opened.
    pub(crate) reported_commit: Lsn,
    pub(crate) draining: bool,
    /// Since when this process is known not to have been stopped.
    pub(crate) awake_since: Instant,
    /// Said once for each time that it begins.
    pub(crate) blocked: Option<String>,
    pub(crate) counters: Counters,
}

impl Volume {
    /// `record` is what the grant returned: its epoch is this writer's.
    pub fn new(config: Config, record: VolumeRecord, now: Instant) -> Volume {
        assert!(record.members.len() <= MEMBERS_MAX && record.epoch > Epoch::NONE && record.min_replicas > 0);
        let geometry = Geometry::new(record.size).expect("the catalog holds checked sizes");
        let members = record.members.iter().map(|member| Member::new(member, config.distance(member), now)).collect();
        let (lsn, points) = (first_lsn(record.epoch), record.points());
        let mut volume = Volume {
            lsn,
            floor: points.last().copied().unwrap_or(Lsn::ZERO),
            snapshots: Snapshots::new(points, lsn),
            epoch: record.epoch,
            geometry,
            phase: Phase::Fencing,
            members,
            turns: Turns::default(),
            guest: Guest::default(),
            writes: Writes::default(),
            reads: Reads::default(),
            heat: Heat::default(),
            healing: Healing::default(),
            comparison: Comparison::new(&record, geometry.chunk_count()),
            copies: Copies::default(),
            proposals: Proposals::default(),
            resync: None,
            pace: Pace::default(),
            reported_commit: Lsn::ZERO,
            draining: false,
            awake_since: now,
            blocked: None,
            counters: Counters::default(),
            config,
            record,
        };
        volume.note_chunks();
        volume
    }

    /// Of the device; grows when the record says so.
    pub fn size(&self) -> ByteCount {
        self.record.size
    }

    /// To be called once, before the first event.
    pub fn start(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.handle(now, Event::Tick, out);
    }

    /// `now` never goes back.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        if let Phase::Closed(ending) = &self.phase {
            let error = if *ending == Ending::Fenced { GuestError::Fenced } else { GuestError::Closed };
            match event {
                Event::Guest { tag, .. } => out.push(Action::Complete { tag, result: Err(error) }),
                Event::Snapshot { id, .. } => {
                    out.push(Action::SnapshotTaken { id, result: Err(SnapshotError::Closed) });
                }
                Event::Hold { id, .. } => out.push(Action::Held { id, result: Err(SnapshotError::Closed) }),
                Event::LinkUp { disk, session } => out.push(Action::Disconnect { disk, session }),
                _ => {}
            }
            return;
        }
        match event {
            Event::Guest { tag, op } => self.guest_arrives(tag, op, out),
            Event::LinkUp { disk, session } => self.link_up(now, disk, session, out),
            Event::LinkDown { disk, session, reset } => self.link_down(now, disk, session, reset, out),
            Event::Reply { disk, frame } => self.reply(now, disk, frame, out),
            Event::Answer { proposal, answer } => self.answered(now, proposal, answer, out),
            Event::Unanswered { proposal } => self.proposals.unanswered(proposal, now + self.config.propose_again),
            Event::Record(record) => self.adopt(now, record, out),
            Event::Snapshot { id, held } => self.snapshot_asked(now, id, held, out),
            Event::Hold { id, at_most } => self.hold_asked(now, id, at_most, out),
            Event::LetGo { disk } => self.let_go_asked(now, disk, out),
            Event::Pace { bytes_per_second, source } => self.pace.set(now, bytes_per_second, source),
            Event::Detach => {
                self.draining = true;
                self.end_hold(now, out);
            }
            Event::Tick => self.check_time(now, out),
        }
        self.maintain(now, out);
    }

    /// Brings the volume to where its state says that it should be. Cheap when nothing is amiss.
    fn maintain(&mut self, now: Instant, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        self.connect_members(now, out);
        if matches!(self.phase, Phase::Fencing) {
            self.fence_step(now, out);
        }
        if matches!(self.phase, Phase::Reconciling(_)) {
            self.reconcile_step(now, out);
        }
        // Before proposals, so that what a return needs of the catalog is asked at once.
        if matches!(self.phase, Phase::Serving) {
            self.resync_step(now, out);
            self.heal_step(now, out);
            self.compare_step(now, out);
            self.snapshot_step();
            self.keep_step(now, out);
        }
        self.propose_step(now, out);
        if matches!(self.phase, Phase::Serving) {
            // Writes last: what ends above lets those run that waited for it.
            self.finish_lapsed_reads(now, out);
            self.issue_reads(now, out);
            self.issue_writes(now, out);
        }
    }

    /// When `Event::Tick` is due, if nothing else happens.
    pub fn next_deadline(&self) -> Instant {
        if matches!(self.phase, Phase::Closed(_)) {
            return Instant::FAR;
        }
        let members = self.members.iter().map(|member| self.member_deadline(member)).min().unwrap_or(Instant::FAR);
        members
            .min(self.proposals.deadline())
            .min(self.fence_deadline())
            .min(self.reads.hedge_deadline(self.hedge_after()))
            .min(self.writes.timeout_deadline(self.config.io_timeout))
            .min(self.heal_deadline())
            .min(self.compare_deadline())
            .min(self.hold_deadline())
            .min(self.pace_deadline())
    }

    fn member_deadline(&self, member: &Member) -> Instant {
        member.deadline(&self.config, self.awake_since)
    }

    fn check_time(&mut self, now: Instant, out: &mut Vec<Action>) {
        // Much later than asked for: this process was stopped, and answers may lie unread. Nobody is silent by that.
        let due = self.members.iter().map(|member| self.member_deadline(member)).min().unwrap_or(Instant::FAR);
        if due < now && now.since(due) >= self.config.silence_min / 2 {
            self.awake_since = now;
        }
        for index in 0..self.members.len() {
            self.check_silence(now, index, out);
        }
        self.end_lapsed_hold(now, out);
        self.hedge_reads(now, out);
        self.time_out_writes(now, out);
    }

    pub(crate) fn become_serving(&mut self, out: &mut Vec<Action>) {
        assert!(!matches!(self.phase, Phase::Serving | Phase::Closed(_)));
        self.phase = Phase::Serving;
        self.blocked = None;
        out.push(Action::Notice(Notice::Serving { reconciled_blocks: self.counters.reconciled_blocks }));
        for (tag, op) in self.guest.take_waiting() {
            self.guest_arrives(tag, op, out);
        }
    }

    /// The first word of a newer epoch ends this writer for good: errors to its user, silence never.
    pub(crate) fn become_fenced(&mut self, epoch: Epoch, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        out.push(Action::Notice(Notice::Fenced { epoch }));
        self.become_closed(Ending::Fenced, GuestError::Fenced, out);
    }

    pub(crate) fn become_closed(&mut self, ending: Ending, error: GuestError, out: &mut Vec<Action>) {
        self.guest.fail_all(error, out);
        self.snapshots.fail_all(SnapshotError::Closed, out);
        disconnect_all(&mut self.members, out);
        self.phase = Phase::Closed(ending.clone());
        out.push(Action::Ended(ending));
    }

    /// Said when it begins, and again when the reason changes.
    pub(crate) fn say_blocked(&mut self, reason: String, out: &mut Vec<Action>) {
        if self.blocked.as_ref() != Some(&reason) {
            self.blocked = Some(reason.clone());
            out.push(Action::Notice(Notice::AttachBlocked { reason }));
        }
    }

    pub(crate) fn index_of(&self, disk: ashlar_types::DiskId) -> Option<MemberIndex> {
        self.members.iter().position(|member| member.disk == disk)
    }

    /// A place in the order of overlapping requests is given up; those behind it may run.
    pub(crate) fn leave_turn(&mut self, turn: TurnId) {
        let mut ready = Vec::new();
        self.turns.leave(turn, &mut ready);
        for turn in ready {
            self.run_turn(turn);
        }
    }
}

/// The point before the first write of a writer.
fn first_lsn(epoch: Epoch) -> Lsn {
    match Epoch::new(epoch.number() - 1) {
        Some(before) if Mutant::LsnReused.is_on() => Lsn::start_of(before),
        _ => Lsn::start_of(epoch),
    }
}
