//! Narrow: a volume that has more replicas than it shall have loses one. Which one:
//! 1. one that is not in-sync and given up: nothing is lost with it;
//! 2. when every replica is in-sync and works: the one that was to leave. Who that was is known, or, after a restart of
//!    the control plane, found again: one whose disk or node is drained, else one that is not on its holder's node, on
//!    the fullest disk;
//! 3. one that its writer has let go of already: it was to leave, had something, and is not in-sync any more;
//! 4. the extra one itself, before it is in-sync, when its move has no reason any more; or when it was a temporary one
//!    (`temporary.rs`) that is not wanted any more.
//!
//! In no case are fewer than `replicas` in-sync afterwards that were before.

use super::moves::Moves;
use super::order::Case;
use super::temporary::Temporary;
use super::{MemberSeen, Step, VolumeSeen, Why, grace::View};
use ashlar_types::{DiskId, VolumeId};
use std::cmp::Reverse;

pub(super) fn narrow(view: &View, cases: &[Case], moves: &Moves) -> Vec<Step> {
    let wide = cases.iter().filter(|case| case.volume.widest() > case.volume.replicas);
    let step = |case: &Case| {
        let (disk, why) = leaver(view, case.id, case.volume, moves)?;
        Some(Step::Narrow { volume: case.id, disk, why })
    };
    wide.filter_map(step).collect()
}

fn leaver(view: &View, id: VolumeId, volume: &VolumeSeen, moves: &Moves) -> Option<(DiskId, Why)> {
    let spare = || volume.held().filter(|(index, _)| volume.is_spare(*index)).map(|(_, member)| member);
    let has_source = view.safe(volume) > 0;
    let given_up = spare().filter(|member| has_source && !member.state.is_in_sync());
    let given_up = given_up.filter_map(|member| Some((member.disk, view.given_up(volume, member)?)));
    if let Some(gone) = given_up.min_by_key(|(disk, _)| *disk) {
        return Some(gone);
    }
    if let Some(temporary) = Temporary::of(view, id, volume, moves).filter(|one| !one.is_wanted(view, volume)) {
        return Some((temporary.member.disk, temporary.why_not()));
    }
    let planned = moves.leaving(id).filter(|&disk| spare().any(|member| member.disk == disk));
    let key = |member: &&MemberSeen| {
        let is_local = volume.holder.as_ref().is_some_and(|holder| !holder.is_repair && holder.node == member.node);
        let is_planned = planned == Some(member.disk);
        (!is_planned, !view.seen.is_leaving(member.disk), is_local, Reverse(fullness(view, member)), member.disk)
    };
    let in_sync_without =
        |leaves: &MemberSeen| volume.fewest(|member| view.is_safe(member) && member.disk != leaves.disk);
    if volume.held().all(|(_, member)| view.is_safe(member)) {
        let leaves = spare().min_by_key(key)?;
        let (in_sync, replicas) = (in_sync_without(leaves), volume.replicas);
        return (in_sync >= replicas).then_some((leaves.disk, Why::Moved { in_sync, replicas }));
    }
    let was_let_go = |member: &&MemberSeen| {
        let is_wanted_gone = planned.is_none_or(|disk| disk == member.disk) || view.seen.is_leaving(member.disk);
        !member.state.is_in_sync() && !member.is_blank() && is_wanted_gone
    };
    if let Some(gone) = spare().find(was_let_go) {
        let (in_sync, replicas) = (in_sync_without(gone), volume.replicas);
        if in_sync >= replicas {
            return Some((gone.disk, Why::Moved { in_sync, replicas }));
        }
    }
    let extra = spare().find(|member| moves.is_cancelled(view, id, volume, member))?;
    let in_sync = in_sync_without(extra);
    (!extra.state.is_in_sync() && in_sync >= volume.replicas).then_some((extra.disk, Why::Cancelled { in_sync }))
}

fn fullness(view: &View, member: &MemberSeen) -> u64 {
    let known = view.seen.disks.get(&member.disk);
    known.map_or(u64::MAX, |disk| (u128::from(disk.claimed.0) * 1000 / u128::from(disk.capacity.0.max(1))) as u64)
}
