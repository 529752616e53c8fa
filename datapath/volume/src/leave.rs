//! A member that shall go because another disk has come to hold its chunks beside it: a drain, a move. It is ejected
//! like one that has failed, but only when nobody is missing afterwards.
//!
//! ```text
//!   in-sync ─LetGo─► unwanted ──every other holder of its chunks in-sync, whole and heard of since──► Eject ─► out
//!                        └── not asked again for a while: wanted as before
//! ```
//! Invariants:
//! - no chunk has fewer whole replicas in-sync than holders besides the one that went;
//! - one that is unwanted does not begin to return, unless writes wait for one more replica.

use crate::Action;
use crate::member::MemberIndex;
use crate::volume::Volume;
use ashlar_types::{Change, DiskId, Duration, Instant, Mutant};

/// Whoever wants a member to go says so again within this time.
const LASTS: Duration = Duration::from_secs(10);
/// What the ejection of one that was let go of says.
pub const LEAVE_REASON: &str = "another disk holds its chunks";

impl Volume {
    pub(crate) fn let_go_asked(&mut self, now: Instant, disk: DiskId, out: &mut Vec<Action>) {
        let Some(index) = self.index_of(disk) else { return };
        let member = &mut self.members[index];
        if member.unwanted_until <= now {
            member.unwanted_since = now;
        }
        member.unwanted_until = now + LASTS;
        if self.resync.as_ref().is_some_and(|resync| resync.member() == index && !resync.finishes()) {
            self.fail_resync(now, LEAVE_REASON, out);
        }
    }

    pub(crate) fn is_unwanted(&self, now: Instant, index: MemberIndex) -> bool {
        now < self.members[index].unwanted_until
    }

    /// Proposes that one goes which may.
    pub(crate) fn propose_leave(&mut self, now: Instant, out: &mut Vec<Action>) {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let asked = self.is_unwanted(now, index) && member.in_sync() && member.has_chunks;
            if !asked || !self.others_are_whole(index) && !Mutant::LeavesTooEarly.is_on() {
                continue;
            }
            let (disk, since) = (member.disk, member.unwanted_since);
            let unheard = self.unheard(now, since, out);
            let of_others = |other: &MemberIndex| self.shares_chunks(index, *other);
            let silent = |other: MemberIndex| unheard.contains(&self.members[other].disk);
            if (0..self.members.len()).filter(of_others).any(silent) {
                continue;
            }
            let commit = self.commit_of_ejection();
            self.leave_before_publish(now, &[disk], out);
            self.propose(Change::Eject { disks: vec![disk], commit, reason: LEAVE_REASON.to_owned() }, out);
            return;
        }
    }

    fn others_are_whole(&self, index: MemberIndex) -> bool {
        (0..self.members.len()).filter(|&other| self.shares_chunks(index, other)).all(|other| {
            let member = &self.members[other];
            member.in_sync() && !member.damaged && member.suspect.is_none()
        })
    }

    fn shares_chunks(&self, index: MemberIndex, other: MemberIndex) -> bool {
        let holds = |members: &[u16], wanted: MemberIndex| members.iter().any(|&held| usize::from(held) == wanted);
        let shares = |members: &[u16]| holds(members, index) && holds(members, other);
        index != other && self.record.chunks.iter().any(|run| shares(&run.members))
    }
}

#[cfg(test)]
mod tests;
