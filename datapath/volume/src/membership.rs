//! Changes of membership: one proposal at a time, asked again unchanged until it is answered, and what follows from
//! its answer.
//!
//! Rules: leave before publish (a replica serves no read from before its ejection is proposed), publish before use (a
//! member counts as in-sync only once the catalog is known to say so), an answer that was lost means "maybe", and
//! nobody is let go but for the sake of members that are there: those who stay have given a sign of life since.

use crate::member::{Member, Purpose};
use crate::volume::{Phase, Volume};
use crate::{Action, Ending, GuestError, Notice, ProposalId};
use ashlar_types::{Change, ChangeAnswer, DiskId, Instant, Lsn, MemberState, Mutant, Slip, VolumeRecord};
use ashlar_wire::Request;

struct Outstanding {
    id: ProposalId,
    version: u64,
    change: Change,
    /// When to ask again; far while an answer is awaited.
    again_at: Instant,
}

#[derive(Default)]
pub(crate) struct Proposals {
    outstanding: Option<Outstanding>,
    next: u64,
}

impl Proposals {
    pub(crate) fn is_idle(&self) -> bool {
        self.outstanding.is_none()
    }

    /// The change in doubt, if it is one of membership.
    pub(crate) fn outstanding_membership(&self) -> Option<&Change> {
        let change = &self.outstanding.as_ref()?.change;
        (!matches!(change, Change::OpenDirty | Change::CloseClean | Change::Snapshot(_))).then_some(change)
    }

    pub(crate) fn is_ejecting(&self, disk: DiskId) -> bool {
        self.outstanding.as_ref().is_some_and(|outstanding| ejects(&outstanding.change, disk))
    }

    pub(crate) fn is_joining(&self, disk: DiskId) -> bool {
        self.outstanding.as_ref().is_some_and(|outstanding| outstanding.change == Change::Join { disk })
    }

    pub(crate) fn unanswered(&mut self, id: ProposalId, again_at: Instant) {
        if let Some(outstanding) = self.outstanding.as_mut().filter(|outstanding| outstanding.id == id) {
            outstanding.again_at = again_at;
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.outstanding.as_ref().map_or(Instant::FAR, |outstanding| outstanding.again_at)
    }
}

pub(crate) fn ejects(change: &Change, disk: DiskId) -> bool {
    matches!(change, Change::Eject { disks, .. } if disks.contains(&disk))
}

impl Volume {
    pub(crate) fn propose(&mut self, change: Change, out: &mut Vec<Action>) {
        assert!(self.proposals.is_idle(), "one proposal at a time");
        let id = ProposalId(self.proposals.next);
        self.proposals.next += 1;
        let version = self.record.version;
        self.proposals.outstanding = Some(Outstanding { id, version, change: change.clone(), again_at: Instant::FAR });
        out.push(Action::Propose { proposal: id, epoch: self.epoch, version, change });
    }

    /// Asks again what is unanswered, or proposes what is wanted most: safety first, then service, then return, then
    /// rest.
    pub(crate) fn propose_step(&mut self, now: Instant, out: &mut Vec<Action>) {
        if let Some(outstanding) = &mut self.proposals.outstanding {
            if outstanding.again_at <= now {
                outstanding.again_at = Instant::FAR;
                let (proposal, version) = (outstanding.id, outstanding.version);
                out.push(Action::Propose { proposal, epoch: self.epoch, version, change: outstanding.change.clone() });
            }
            return;
        }
        if matches!(self.phase, Phase::Reconciling(_) | Phase::Dirtying | Phase::Serving) {
            self.eject_suspects(now, out);
        }
        if matches!(self.phase, Phase::Dirtying) && self.proposals.is_idle() {
            self.propose(Change::OpenDirty, out);
        }
        if matches!(self.phase, Phase::Serving) && self.proposals.is_idle() {
            self.propose_snapshot(out);
        }
        if matches!(self.phase, Phase::Serving) && self.proposals.is_idle() {
            self.propose_leave(now, out);
        }
        if matches!(self.phase, Phase::Serving) && self.proposals.is_idle() {
            self.propose_for_resync(out);
        }
        // Writes that wait for one more replica in-sync need the return.
        if self.draining && self.proposals.is_idle() && self.writes.is_idle() {
            self.fail_resync(now, "the volume is being detached", out);
            self.close_if_drained(out);
        }
    }

    /// Ejects what is suspect, as far as every chunk keeps `min_replicas`; the rest is waited for: its content is
    /// still whole.
    fn eject_suspects(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.members.iter().all(|member| member.suspect.is_none()) {
            return;
        }
        // A writer that is cut off from all its replicas would otherwise let go of the one that it misses first.
        let sound = self.members.iter().filter(|member| member.in_sync() && !member.damaged);
        let last_suspicion = sound.filter_map(|member| member.suspect.as_ref()).map(|suspicion| suspicion.since).max();
        let unheard = last_suspicion.map_or(vec![], |since| self.unheard(now, since, out));
        let mut disks: Vec<DiskId> = vec![];
        let mut reasons: Vec<String> = vec![];
        let mut damaged = false;
        let (worse, others): (Vec<&Member>, Vec<&Member>) =
            self.members.iter().filter(|member| member.in_sync()).partition(|member| member.damaged);
        for member in worse.into_iter().chain(others) {
            let Some(suspicion) = &member.suspect else { continue };
            // One whose history is unknown leaves with commit point zero, alone: the point counts for all that leave
            // together.
            if damaged {
                continue;
            }
            disks.push(member.disk);
            let left = match member.damaged {
                true => self.record.fewest_in_sync_without(&disks),
                false => self.fewest_sound_without(&[&disks[..], &unheard].concat()),
            };
            if left < self.record.min_replicas {
                disks.pop();
                continue;
            }
            damaged = member.damaged;
            reasons.push(suspicion.reason.clone());
        }
        if disks.is_empty() {
            self.say_stalled(out);
            return;
        }
        self.leave_before_publish(now, &disks, out);
        let commit = if damaged { Lsn::ZERO } else { self.commit_of_ejection() };
        let reason = reasons.join("; ");
        for &disk in &disks {
            out.push(Action::Notice(Notice::Ejecting { disk, reason: reason.clone() }));
        }
        self.propose(Change::Eject { disks, commit, reason }, out);
    }

    /// The in-sync members that have answered nothing sent at `since` or later, or nothing within the bound of their
    /// silence. They are asked for a sign of life.
    pub(crate) fn unheard(&mut self, now: Instant, since: Instant, out: &mut Vec<Action>) -> Vec<DiskId> {
        let mut unheard = vec![];
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let recent = now.since(member.heard) <= member.silence_bound(&self.config);
            if !member.in_sync() || member.is_open() && member.heard >= since && recent {
                continue;
            }
            unheard.push(member.disk);
            if member.is_open() && !member.is_asked_for_life(since) {
                self.send(now, index, Purpose::Ping, Request::Ping, out);
            }
        }
        unheard
    }

    /// The fewest in-sync replicas of a chunk that are whole, were `without` gone. A damaged one is no copy to fall
    /// back on: for its sake nobody else may be let go.
    pub(crate) fn fewest_sound_without(&self, without: &[DiskId]) -> u8 {
        let damaged = self.members.iter().filter(|member| member.damaged).map(|member| member.disk);
        let gone: Vec<DiskId> = without.iter().copied().chain(damaged).collect();
        self.record.fewest_in_sync_without(&gone)
    }

    /// What those that leave have for certain: everything up to the highest commit point known, and everything from
    /// before the last writer that served, because then they were equal.
    pub(crate) fn commit_of_ejection(&self) -> Lsn {
        self.commit_point().max(self.reported_commit).max(Lsn::start_of(self.record.served))
    }

    pub(crate) fn leave_before_publish(&mut self, now: Instant, disks: &[DiskId], out: &mut Vec<Action>) {
        for &disk in disks {
            let index = self.index_of(disk).expect("a disk of the record is a member");
            if Mutant::ReadsWhileEjectionUnknown.is_on() {
                continue;
            }
            self.members[index].leaving = true;
            self.withdraw_reads(now, index, out);
        }
    }

    /// Everything is acknowledged and nobody is half-way in: the replicas in-sync are equal.
    fn close_if_drained(&mut self, out: &mut Vec<Action>) {
        let idle = self.guest.is_idle()
            && self.writes.is_idle()
            && self.reads.is_idle()
            && self.turns.is_empty()
            && self.snapshots.is_idle();
        match self.phase {
            Phase::Serving if idle => self.propose(Change::CloseClean, out),
            Phase::Fencing | Phase::Reconciling(_) if self.record.clean => self.propose(Change::CloseClean, out),
            Phase::Fencing | Phase::Reconciling(_) => self.become_closed(Ending::Unclean, GuestError::Closed, out),
            Phase::Dirtying | Phase::Serving | Phase::Closed(_) => {}
        }
    }

    pub(crate) fn answered(&mut self, now: Instant, id: ProposalId, answer: ChangeAnswer, out: &mut Vec<Action>) {
        if self.proposals.outstanding.as_ref().is_none_or(|outstanding| outstanding.id != id) {
            return;
        }
        let Outstanding { change, version, .. } = self.proposals.outstanding.take().expect("checked above");
        match answer {
            ChangeAnswer::Fenced { epoch } => self.become_fenced(epoch, out),
            ChangeAnswer::Applied { record } => {
                self.adopt(now, record, out);
                if !matches!(self.phase, Phase::Closed(_)) {
                    self.applied(now, change, out);
                }
            }
            ChangeAnswer::Refused { record, reason } => {
                self.adopt(now, record, out);
                if matches!(self.phase, Phase::Closed(_)) {
                } else if let Change::Snapshot(_) = change {
                    self.snapshot_refused(version, reason, out);
                } else {
                    self.not_applied(now, change, version, out);
                }
            }
        }
    }

    fn applied(&mut self, now: Instant, change: Change, out: &mut Vec<Action>) {
        match change {
            Change::Eject { disks, commit, .. } => {
                out.extend(disks.into_iter().map(|disk| Action::Notice(Notice::Ejected { disk, commit })));
            }
            Change::BeginReturn { disk } => out.push(Action::Notice(Notice::Returning { disk })),
            Change::Join { disk } => self.joined(now, disk, out),
            Change::OpenDirty if matches!(self.phase, Phase::Dirtying) => self.become_serving(out),
            Change::CloseClean => self.become_closed(Ending::Clean, GuestError::Closed, out),
            Change::Snapshot(_) => self.note_recorded(out),
            Change::OpenDirty | Change::AbandonReturn { .. } => {}
        }
    }

    fn not_applied(&mut self, now: Instant, change: Change, version: u64, out: &mut Vec<Action>) {
        match change {
            // Still in-sync by what is known now; it serves reads again only over a new session.
            Change::Eject { disks, .. } => {
                let indexes: Vec<_> = disks.into_iter().filter_map(|disk| self.index_of(disk)).collect();
                for index in indexes {
                    self.drop_link(now, index, "ejection refused", out);
                    let member = &mut self.members[index];
                    if !member.is_open() && member.in_sync() && member.suspect.is_none() {
                        member.suspect_of("no link", now);
                    }
                }
            }
            Change::Join { disk } => self.join_refused(now, disk, version, out),
            Change::BeginReturn { .. } | Change::AbandonReturn { .. } | Change::OpenDirty | Change::CloseClean => {}
            Change::Snapshot(_) => {}
        }
    }

    /// Takes over a record that is newer than the known one, and lets go of members that it no longer has in-sync.
    pub(crate) fn adopt(&mut self, now: Instant, record: VolumeRecord, out: &mut Vec<Action>) {
        if record.epoch > self.epoch {
            self.become_fenced(record.epoch, out);
            return;
        }
        if record.version <= self.record.version {
            return;
        }
        if let Some(fault) = self.layout_fault(&record) {
            self.say_blocked(format!("record {} of the catalog {fault}", record.version), out);
            return;
        }
        let before: Vec<MemberState> = self.members.iter().map(|member| member.state).collect();
        for (member, fresh) in self.members.iter_mut().zip(&record.members) {
            member.state = fresh.state;
        }
        // A damaged replica reports every chunk that there is, and is whole when each of them is complete.
        if record.size > self.record.size {
            self.reconcile_set_changed();
        }
        self.take_layout(now, record, out);
        for (index, before) in before.into_iter().enumerate() {
            match (before == MemberState::InSync, self.members[index].in_sync()) {
                (true, false) => self.gone_out(now, index, out),
                // By a word that we did not ask for: it has reported nothing, and may have no link.
                (false, true) if !Slip::GrownSetUnseen.is_on() => self.reconcile_set_changed(),
                _ => {}
            }
        }
        self.resync_lost_member(now, out);
        self.note_recorded(out);
        if matches!(self.phase, Phase::Serving) {
            self.recheck_writes(now, out);
            self.ask_again(now, out);
        }
    }

    /// The catalog has the member out: its session ends, and what it still has to say does not count. It returns over
    /// a new one.
    fn gone_out(&mut self, now: Instant, index: usize, out: &mut Vec<Action>) {
        self.withdraw_reads(now, index, out);
        self.drop_link(now, index, "ejected", out);
        let member = &mut self.members[index];
        member.suspect = None;
        member.leaving = Mutant::EjectBeforeLeaseWait.is_on() && matches!(self.phase, Phase::Fencing);
        member.copy_whole |= member.damaged;
        member.damaged = false;
        member.gone_back = false;
        self.reconcile_set_changed();
    }
}

#[cfg(test)]
mod tests;
