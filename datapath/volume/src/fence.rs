//! The fence: nothing is served before every in-sync replica has promised our epoch; or enough have, the leases that
//! an older writer may hold have run out since the last promise, and then the catalog has moved the rest out (DESIGN
//! §5.2).
//!
//! ```text
//!   all in-sync promised, and whoever else an older writer may read ────────► pass
//!   all in-sync promised ─────────── 1.25 leases ───────────────────────────► pass
//!   min_replicas of every chunk promised ── 1.25 leases, and they are still there ── Eject the rest ──► pass
//!   fewer ──────────────────────────────────────────────────────────────────► blocked, and tried again
//! ```

use crate::Action;
use crate::member::Member;
use crate::reconcile::Reconcile;
use crate::volume::{Phase, Volume};
use ashlar_types::{Change, DiskId, Duration, Instant, MemberState, Mutant};

impl Volume {
    pub(crate) fn fence_step(&mut self, now: Instant, out: &mut Vec<Action>) {
        assert!(matches!(self.phase, Phase::Fencing));
        if !self.proposals.is_idle() {
            return;
        }
        let missing = self.unpromised();
        let ejected_early = self.members.iter().any(|member| Mutant::EjectBeforeLeaseWait.is_on() && member.leaving);
        if missing.is_empty() && self.others_promised() && !ejected_early {
            self.pass_fence(now, out);
            return;
        }
        let sound = self.fewest_sound_without(&missing);
        if sound < self.record.min_replicas && !missing.is_empty() {
            let min = self.record.min_replicas;
            self.say_blocked(format!("{sound} replicas that are whole have promised, minReplicas is {min}"), out);
            return;
        }
        let too_early = Mutant::EjectBeforeLeaseWait.is_on() && !missing.is_empty();
        if now < self.leases_of_older_writers_end() && !too_early {
            return;
        }
        if missing.is_empty() {
            self.pass_fence(now, out);
            return;
        }
        let since = if too_early { Instant::ZERO } else { self.leases_of_older_writers_end() };
        let unheard = self.unheard(now, since, out);
        if self.fewest_sound_without(&[&missing[..], &unheard].concat()) >= self.record.min_replicas {
            let reason = "did not promise to the new writer".to_owned();
            self.leave_before_publish(now, &missing, out);
            let commit = self.commit_of_ejection();
            self.propose(Change::Eject { disks: missing, commit, reason }, out);
        }
    }

    fn unpromised(&self) -> Vec<DiskId> {
        let missing = self.members.iter().filter(|member| member.in_sync() && member.promised_at.is_none());
        missing.map(|member| member.disk).collect()
    }

    /// One that returns (`near.rs`) or was declared lost may still serve an older writer, unless it promised us.
    fn others_promised(&self) -> bool {
        let promised = |disk: DiskId| {
            let member = self.members.iter().find(|member| member.disk == disk);
            member.is_some_and(|member| member.promised_at.is_some())
        };
        let is_awaited = !Mutant::FenceForgetsReturning.is_on();
        let returns =
            |member: &&Member| is_awaited && member.has_chunks && matches!(member.state, MemberState::Syncing { .. });
        let returning = self.members.iter().filter(returns).map(|member| member.disk);
        returning.chain(self.record.declared_lost.iter().copied()).all(promised)
    }

    /// Any lease of an older epoch was given before the last of the promises.
    fn leases_of_older_writers_end(&self) -> Instant {
        let promises = self.members.iter().filter(|member| member.in_sync()).filter_map(|member| member.promised_at);
        let wait = if Mutant::NoLeaseWait.is_on() { Duration::ZERO } else { self.config.fence_wait() };
        promises.max().map_or(Instant::FAR, |last| last + wait)
    }

    pub(crate) fn fence_deadline(&self) -> Instant {
        if matches!(self.phase, Phase::Fencing) && self.proposals.is_idle() {
            let missing = self.unpromised();
            let end = self.leases_of_older_writers_end();
            // From then on their answers are waited for.
            let asked = |member: &Member| member.heard >= end || member.is_asked_for_life(end);
            let to_be_asked =
                || self.members.iter().any(|member| member.in_sync() && member.is_open() && !asked(member));
            let enough = || self.fewest_sound_without(&missing) >= self.record.min_replicas;
            if missing.is_empty() || enough() && to_be_asked() {
                return end;
            }
        }
        Instant::FAR
    }

    fn pass_fence(&mut self, now: Instant, out: &mut Vec<Action>) {
        for member in &mut self.members {
            member.leaving = false;
        }
        if Mutant::ReconcileSkipped.is_on() {
            self.phase = Phase::Dirtying;
            return;
        }
        // After a clean close too: one of them may have lost something since.
        self.phase = Phase::Reconciling(Reconcile::default());
        self.reconcile_step(now, out);
    }
}

#[cfg(test)]
mod tests;
