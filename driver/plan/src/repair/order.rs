//! Order: who goes first where not all can. Volumes that lack replicas go before volumes that move; then
//! 1. fewest replicas that can be counted on,
//! 2. business class,
//! 3. attached before detached,
//! 4. least remaining work (the sooner one is safe, the sooner one less is at risk),
//!
//! and the id, so that the order is total. The order is taken anew at each look, and rates with it (`share.rs`): a
//! volume that becomes more urgent goes ahead at once.
//!
//! Aging: whoever has waited for [`super::Bounds::wait_max`] gets half of the floor before anyone gets more, whatever
//! its class; on each disk one at a time, the one that waits longest. So a volume of class low waits for `wait_max`,
//! and for those that were overdue before it on its disks, and never stands still from then on.

use super::grace::View;
use super::temporary::Temporary;
use super::{Order, VolumeSeen, clock::Lasting, moves::Moves};
use ashlar_types::{ByteCount, Class, VolumeId};
use std::cmp::Reverse;

/// The lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) stage: Stage,
    pub(super) safe: u8,
    pub(super) class: Class,
    is_detached: bool,
    remaining: ByteCount,
    pub(super) volume: VolumeId,
}

/// What work on a volume is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It has fewer replicas than it shall have.
    Unprotected,
    Drain,
    Follow,
    Balance,
}

/// A volume, and what it needs.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) id: VolumeId,
    pub(super) volume: &'a VolumeSeen,
    pub(super) rank: Rank,
}

impl Case<'_> {
    pub(super) fn is_unprotected(&self) -> bool {
        self.rank.stage == Stage::Unprotected
    }
}

/// Every volume but those that are left as they are, the most urgent first.
pub(super) fn ordered<'a>(view: &View<'a>, moves: &Moves, queued: &Lasting<VolumeId>) -> Vec<Case<'a>> {
    let case = |(&id, volume): (&VolumeId, &'a VolumeSeen)| {
        let safe = view.safe(volume);
        let stage = match safe < volume.replicas {
            true => Stage::Unprotected,
            false => moves.stage(view, id, volume),
        };
        let is_detached = volume.holder.as_ref().is_none_or(|holder| holder.is_repair);
        let remaining = volume.remaining();
        Case { id, volume, rank: Rank { stage, safe, class: volume.class, is_detached, remaining, volume: id } }
    };
    let volumes = view.seen.volumes.iter().filter(|(_, volume)| !volume.is_read);
    let mut cases: Vec<Case> = volumes.map(case).collect();
    match view.bounds.order {
        Order::Urgency => cases.sort_by_key(|case| case.rank),
        Order::FirstCome => {
            cases.sort_by_key(|case| (case.rank.stage, Reverse(queued.lasted(&case.id, view.now)), case.id));
        }
    }
    cases
}

/// Volumes that have lost a replica for good and have no other one in its place yet.
pub(super) fn queue<'a>(view: &View<'a>, moves: &'a Moves) -> impl Iterator<Item = VolumeId> + use<'a> {
    let view = *view;
    let is_lost = move |&(&id, volume): &(&VolumeId, &'a VolumeSeen)| {
        let mut lacking = volume.held().filter(|(_, member)| !view.is_safe(member));
        Temporary::of(&view, id, volume, moves).is_none()
            && lacking.any(|(_, member)| member.is_blank() || view.given_up(volume, member).is_some())
    };
    view.seen.volumes.iter().filter(is_lost).map(|(&id, _)| id)
}
