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
use super::{VolumeSeen, moves::Moves};
use ashlar_types::{ByteCount, Class, VolumeId};

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

/// Every volume, the most urgent first.
pub(super) fn ordered<'a>(view: &View<'a>, moves: &Moves) -> Vec<Case<'a>> {
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
    let mut cases: Vec<Case> = view.seen.volumes.iter().map(case).collect();
    cases.sort_by_key(|case| case.rank);
    cases
}
