//! Temporary replicas: while a replica of a volume in use is out and may come back by itself (its grace runs), another
//! disk stands beside it and takes the new writes, so that those have as many copies as they shall have. It is sent
//! nothing else. It ends when the missing one answers again, when nobody writes any more, or when its room is wanted
//! for a replacement; when the missing one is given up it takes its place, and has what was written meanwhile.
//!
//! Which member is one is seen in the record, so a restart of the control plane loses none: it began with nothing,
//! beside one that has something and is not in-sync, and no move was begun.

use super::grace::View;
use super::moves::{Moves, pod};
use super::order::Case;
use super::place::{Going, Places};
use super::{BytesPerSecond, MemberSeen, Plan, Step, VolumeSeen, Why};
use ashlar_types::VolumeId;

/// The temporary replica of a volume, and whose place it holds.
#[derive(Clone, Copy)]
pub(super) struct Temporary<'a> {
    pub(super) member: &'a MemberSeen,
    missing: &'a MemberSeen,
}

impl<'a> Temporary<'a> {
    /// `None`: it has none, or the missing one is given up and this one takes its place.
    pub(super) fn of(view: &View<'a>, id: VolumeId, volume: &'a VolumeSeen, moves: &Moves) -> Option<Temporary<'a>> {
        let spare = || volume.held().filter(|(index, _)| volume.is_spare(*index)).map(|(_, member)| member);
        let member = spare().find(|member| member.is_blank())?;
        let missing = spare().find(|other| !other.state.is_in_sync() && !other.is_blank())?;
        let is_kept = moves.leaving(id).is_none() && view.given_up(volume, missing).is_none();
        is_kept.then_some(Temporary { member, missing })
    }

    /// Whether there is a reason for it still.
    pub(super) fn is_wanted(&self, view: &View, volume: &VolumeSeen) -> bool {
        let returns = |member: &MemberSeen| !member.state.is_in_sync() && member.disk != self.member.disk;
        let somebody_returns = volume.held().any(|(_, other)| returns(other) && view.seen.is_alive(other.disk));
        view.seen.is_alive(self.member.disk) && pod(volume).is_some() && !somebody_returns && !view.room_is_wanted
    }

    pub(super) fn why_not(&self) -> Why {
        Why::NoLongerAway { disk: self.missing.disk }
    }
}

/// New ones, the most urgent volumes' first.
pub(super) fn begin(view: &View, cases: &[Case], places: &mut Places, plan: &mut Plan) {
    if view.room_is_wanted || !plan.stuck.is_empty() {
        return;
    }
    let mut left = view.bounds.replaces_max.saturating_sub(plan.steps.len());
    for case in cases.iter().filter(|case| case.is_unprotected()) {
        let Some(missing) = missing(view, case.volume) else { continue };
        if left == 0 {
            return;
        }
        let (volume, leaving) = (case.id, missing.disk);
        let why = Why::Away { disk: leaving, in_sync: view.safe(case.volume) };
        // Where there is no room there is none; the missing one comes back, or is given up and then it is told.
        if let Ok((with, choice)) = places.choose(case.volume, Going::Moves(leaving), |_| true) {
            plan.steps.push(Step::Widen { volume, leaving, with, why, choice });
            left -= 1;
        }
    }
}

/// One that is out, of a volume that is being written to and to which nobody returns.
fn missing<'a>(view: &View, volume: &'a VolumeSeen) -> Option<&'a MemberSeen> {
    let is_open = pod(volume).is_some() && volume.is_flat && volume.widest() == volume.replicas;
    let lacking = || volume.held().map(|(_, member)| member).filter(|member| !member.state.is_in_sync());
    let is_away = |member: &MemberSeen| {
        let may_return = member.is_out() && !member.is_blank() && view.given_up(volume, member).is_none();
        may_return && !view.seen.is_alive(member.disk)
    };
    let is_needed = is_open && view.safe(volume) > 0 && lacking().all(is_away);
    lacking().min_by_key(|member| member.disk).filter(|_| is_needed)
}

/// Old content is not sent to it.
pub(super) fn copies_nothing<'a>(view: &View, cases: &'a [Case], moves: &'a Moves) -> Vec<Step> {
    let has_one = |case: &&Case| {
        Temporary::of(view, case.id, case.volume, moves).is_some_and(|one| one.is_wanted(view, case.volume))
    };
    let waits = |case: &Case| Step::Copy { volume: case.id, rate: BytesPerSecond::ZERO, source: None };
    cases.iter().filter(has_one).map(waits).collect()
}
