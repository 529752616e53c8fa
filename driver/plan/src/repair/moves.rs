//! Moves: a replica that works goes to another disk. Always by way of one replica more (`Widen`, copy, `Narrow`), so
//! redundancy is whole at every moment, and only of volumes that are whole: what lacks a replica is repaired first.
//!
//! Three reasons, the first before the second before the third:
//! - **drain**: the disk or its node is to be empty;
//! - **follow**: a pod has been on a node without a replica for longer than [`super::Bounds::follow_after`]: reads are
//!   to be local. Cancelled when the pod moves on;
//! - **balance** (`balance.rs`): fills differ by more than the bound allows.
//!
//! A clone that is not flat is not moved: a new replica would be filled with all that its base shows, and it becomes
//! flat by itself.

use super::grace::View;
use super::order::{Case, Stage};
use super::place::{Going, Places, zone_of};
use super::temporary::Temporary;
use super::{Holder, MemberSeen, Plan, Step, Stuck, VolumeSeen, Why, balance, clock::Lasting};
use ashlar_types::{DiskId, Duration, NodeName, VolumeId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The moves that were begun, as far as they are remembered: losing this costs a copy, never a replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves {
    begun: BTreeMap<VolumeId, Move>,
    attached: Lasting<(VolumeId, NodeName)>,
}

#[derive(Clone, Copy, Debug)]
struct Move {
    leaving: DiskId,
    with: DiskId,
    stage: Stage,
}

impl Moves {
    pub(super) fn observe(&mut self, seen: &super::Seen, now: Duration) {
        let holds = |id: &VolumeId, disk: DiskId| {
            seen.volumes.get(id).is_some_and(|volume| volume.held().any(|(_, member)| member.disk == disk))
        };
        self.begun.retain(|id, begun| holds(id, begun.with) && holds(id, begun.leaving));
        let by_pod = |(&id, volume): (&VolumeId, &VolumeSeen)| pod(volume).map(|node| (id, node.clone()));
        self.attached.observe(now, seen.volumes.iter().filter_map(by_pod));
    }

    pub(super) fn leaving(&self, id: VolumeId) -> Option<DiskId> {
        self.begun.get(&id).map(|begun| begun.leaving)
    }

    /// What the copies of a volume that has enough replicas are for.
    pub(super) fn stage(&self, view: &View, id: VolumeId, volume: &VolumeSeen) -> Stage {
        match self.begun.get(&id) {
            _ if volume.held().any(|(_, member)| view.seen.is_leaving(member.disk)) => Stage::Drain,
            Some(begun) => begun.stage,
            None => Stage::Balance,
        }
    }

    /// The member is there for a move that nobody wants any more.
    pub(super) fn is_cancelled(&self, view: &View, id: VolumeId, volume: &VolumeSeen, member: &MemberSeen) -> bool {
        let begun = self.begun.get(&id).filter(|begun| begun.with == member.disk);
        begun.is_some_and(|begun| match begun.stage {
            Stage::Drain => !view.seen.is_leaving(begun.leaving),
            Stage::Follow => pod(volume) != Some(&member.node),
            Stage::Balance | Stage::Unprotected => false,
        })
    }

    /// New moves, as many as may be under way.
    pub(super) fn begin(&mut self, view: &View, cases: &[Case], places: &mut Places, plan: &mut Plan) {
        let wide: Vec<&Case> = cases.iter().filter(|case| case.volume.widest() > case.volume.replicas).collect();
        let drains = wide.iter().filter(|case| case.rank.stage == Stage::Drain).count();
        let is_temporary = |case: &&&Case| Temporary::of(view, case.id, case.volume, self).is_some();
        let others = wide.len() - drains - wide.iter().filter(is_temporary).count();
        let whole: Vec<&Case> = cases.iter().filter(|case| may_move(view, case)).collect();
        self.drain(view, &whole, view.bounds.drains_max.saturating_sub(drains), places, plan);
        let mut left = view.bounds.moves_max.saturating_sub(others);
        self.follow(view, &whole, &mut left, places, plan);
        let returns = |member: &MemberSeen| !member.state.is_in_sync() && view.seen.is_alive(member.disk);
        let repairs = |case: &Case| case.is_unprotected() && case.volume.held().any(|(_, member)| returns(member));
        let is_quiet = !cases.iter().any(repairs)
            && !plan.steps.iter().any(|step| matches!(step, Step::Replace { .. } | Step::Widen { .. }));
        if is_quiet && drains == 0 {
            for step in balance::balance(view, cases, &whole, left, places, self) {
                self.push(step, Stage::Balance, plan);
            }
        }
    }

    fn drain(&mut self, view: &View, whole: &[&Case], mut left: usize, places: &mut Places, plan: &mut Plan) {
        for case in whole {
            let leaving = case.volume.held().map(|(_, member)| member);
            let Some(member) = leaving.filter(|member| view.seen.is_leaving(member.disk)).min_by_key(|m| m.disk) else {
                continue;
            };
            if left == 0 {
                return;
            }
            let (volume, disk) = (case.id, member.disk);
            let why = match view.seen.disks.get(&disk).map(|known| known.fate) {
                Some(super::Fate::Draining) => Why::DiskDraining { disk },
                _ => Why::NodeDraining { node: member.node.clone() },
            };
            match places.choose(case.volume, Going::Moves(disk), |_| true) {
                Ok((with, choice)) => {
                    self.push(Step::Widen { volume, leaving: disk, with, why, choice }, Stage::Drain, plan);
                    left -= 1;
                }
                Err(choice) => plan.stuck.push(Stuck { volume, disk, why, choice }),
            }
        }
    }

    fn follow(&mut self, view: &View, whole: &[&Case], left: &mut usize, places: &mut Places, plan: &mut Plan) {
        for case in whole {
            let Some(node) = pod(case.volume).filter(|node| !case.volume.holds_on(node)) else { continue };
            let held_for = self.attached.lasted(&(case.id, node.clone()), view.now).unwrap_or_default();
            let is_leaving = case.volume.held().any(|(_, member)| view.seen.is_leaving(member.disk));
            if held_for < view.bounds.follow_after || is_leaving {
                continue;
            }
            if *left == 0 {
                return;
            }
            let Some(leaving) = makes_room(view, case.volume, node) else { continue };
            let why = Why::PodMoved { node: node.clone(), held_for };
            let on_node = |candidate: &crate::placement::Candidate| candidate.node == *node;
            // Without room there the data stays where it is, which is no fault: nobody is told.
            if let Ok((with, choice)) = places.choose(case.volume, Going::Moves(leaving), on_node) {
                self.push(Step::Widen { volume: case.id, leaving, with, why, choice }, Stage::Follow, plan);
                *left -= 1;
            }
        }
    }

    fn push(&mut self, step: Step, stage: Stage, plan: &mut Plan) {
        if let Step::Widen { volume, leaving, with, .. } = step {
            self.begun.insert(volume, Move { leaving, with, stage });
        }
        plan.steps.push(step);
    }
}

/// The node whose pod uses the volume.
pub(super) fn pod(volume: &VolumeSeen) -> Option<&NodeName> {
    volume.holder.as_ref().filter(|holder: &&Holder| !holder.is_repair).map(|holder| &holder.node)
}

fn may_move(view: &View, case: &Case) -> bool {
    let volume = case.volume;
    let is_whole = volume.held().all(|(_, member)| view.is_safe(member));
    volume.is_flat && is_whole && !case.is_unprotected() && volume.widest() == volume.replicas
}

/// Who leaves for a replica on `node`: one of its zone if there is one, so that zones stay spread, else the one on the
/// fullest disk.
fn makes_room(view: &View, volume: &VolumeSeen, node: &NodeName) -> Option<DiskId> {
    let zone = zone_of(view.seen, node);
    let key = |member: &&MemberSeen| {
        let claimed = view.seen.disks.get(&member.disk).map(|disk| disk.claimed);
        (zone_of(view.seen, &member.node) != zone, Reverse(claimed), member.disk)
    };
    volume.held().map(|(_, member)| member).min_by_key(key).map(|member| member.disk)
}
