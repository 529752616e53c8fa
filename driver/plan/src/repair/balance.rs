//! Balance: replicas go from the fullest disk to an emptier one until no two disks differ by more than
//! [`super::Bounds::balance_gap_permille`] of their capacity, as far as whole replicas allow it.
//!
//! Fill is what volumes hold of a disk, without what is to leave it: what is on its way counts as arrived, so no move
//! is begun twice. A move is begun only if its source is, after it, no emptier than its target: so every move lowers
//! the sum of the squares of all fills, none is ever undone by another, and they end. A pod's local replica stays where
//! it is.

use super::grace::View;
use super::moves::{Moves, pod};
use super::order::Case;
use super::place::{Going, Places, zone_of};
use super::{Fate, Step, VolumeSeen, Why};
use ashlar_types::{ByteCount, DiskId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Disks that are looked at for something to give away, fullest first, before the look gives up.
const SOURCES_MAX: usize = 16;

#[derive(Clone, Copy)]
struct Fill {
    held: u64,
    capacity: u64,
}

impl Fill {
    fn permille(self) -> u16 {
        (u128::from(self.held) * 1000 / u128::from(self.capacity.max(1))).min(u128::from(u16::MAX)) as u16
    }

    fn with(self, claim: ByteCount) -> Fill {
        Fill { held: self.held.saturating_add(claim.0), ..self }
    }

    fn without(self, claim: ByteCount) -> Fill {
        Fill { held: self.held.saturating_sub(claim.0), ..self }
    }
}

pub(super) fn balance(
    view: &View,
    cases: &[Case],
    whole: &[&Case],
    moves_max: usize,
    places: &mut Places,
    moves: &Moves,
) -> Vec<Step> {
    let mut fills = fills(view, cases, moves);
    let mut movable: BTreeMap<DiskId, Vec<&Case>> = BTreeMap::new();
    for case in whole {
        let (local, held) = (pod(case.volume), case.volume.held());
        for (_, member) in held.filter(|(_, member)| Some(&member.node) != local) {
            movable.entry(member.disk).or_default().push(case);
        }
    }
    let mut steps: Vec<Step> = vec![];
    while steps.len() < moves_max {
        let Some(step) = next(view, &fills, &movable, &steps, places) else { break };
        if let Step::Widen { volume, leaving, with, .. } = step {
            let claim = view.seen.volumes[&volume].claim;
            fills.entry(leaving).and_modify(|fill| *fill = fill.without(claim));
            fills.entry(with).and_modify(|fill| *fill = fill.with(claim));
        }
        steps.push(step);
    }
    steps
}

fn fills(view: &View, cases: &[Case], moves: &Moves) -> BTreeMap<DiskId, Fill> {
    let is_open =
        |disk: &DiskId, fate: Fate| fate == Fate::Usable && view.seen.is_alive(*disk) && !view.seen.is_leaving(*disk);
    let open = view.seen.disks.iter().filter(|(disk, known)| is_open(disk, known.fate));
    let mut fills: BTreeMap<DiskId, Fill> =
        open.map(|(&disk, known)| (disk, Fill { held: 0, capacity: known.capacity.0 })).collect();
    for case in cases {
        let leaving = moves.leaving(case.id);
        for (_, member) in case.volume.held().filter(|(_, member)| Some(member.disk) != leaving) {
            fills.entry(member.disk).and_modify(|fill| *fill = fill.with(case.volume.claim));
        }
    }
    fills
}

fn next(
    view: &View,
    fills: &BTreeMap<DiskId, Fill>,
    movable: &BTreeMap<DiskId, Vec<&Case>>,
    begun: &[Step],
    places: &mut Places,
) -> Option<Step> {
    let emptiest = fills.values().map(|fill| fill.permille()).min()?;
    let mut sources: Vec<(&DiskId, &Fill)> = fills.iter().collect();
    sources.sort_by_key(|(disk, fill)| (Reverse(fill.permille()), **disk));
    let bound = view.bounds.balance_gap_permille;
    let far = sources.into_iter().take_while(|(_, fill)| fill.permille() > emptiest.saturating_add(bound));
    let is_target = |disk: DiskId| begun.iter().any(|step| matches!(step, Step::Widen { with, .. } if *with == disk));
    // What has just been sent to a disk does not make it a source.
    for (&leaving, &fill) in far.filter(|(disk, _)| !is_target(**disk)).take(SOURCES_MAX) {
        let cases = movable.get(&leaving).map_or(&[][..], Vec::as_slice);
        let mut cases: Vec<&&Case> =
            cases.iter().filter(|case| begun.iter().all(|step| step.volume() != case.id)).collect();
        // The largest first: the fewest moves.
        cases.sort_by_key(|case| (Reverse(case.volume.claim), case.id));
        for case in cases {
            let claim = case.volume.claim;
            let after = fill.without(claim).permille();
            let zone_shared = shared_zone(view, case.volume, leaving);
            let gains = |candidate: &crate::placement::Candidate| {
                let stays_spread = zones_shared(view, case.volume, leaving, candidate) <= zone_shared;
                let target = fills.get(&candidate.disk);
                stays_spread && target.is_some_and(|target| target.with(claim).permille() <= after)
            };
            if !fills.values().any(|target| target.with(claim).permille() <= after) {
                continue;
            }
            if let Ok((with, choice)) = places.choose(case.volume, Going::Moves(leaving), gains) {
                let why = Why::Fill { from_permille: fill.permille(), to_permille: fills[&with].permille() };
                return Some(Step::Widen { volume: case.id, leaving, with, why, choice });
            }
        }
    }
    None
}

/// Other replicas in the zone of the one that leaves.
fn shared_zone(view: &View, volume: &VolumeSeen, leaving: DiskId) -> usize {
    let node = volume.held().find(|(_, member)| member.disk == leaving).map(|(_, member)| &member.node);
    let zone = node.and_then(|node| zone_of(view.seen, node));
    let others = volume.held().filter(|(_, member)| member.disk != leaving);
    others.filter(|(_, member)| zone_of(view.seen, &member.node) == zone).count()
}

fn zones_shared(view: &View, volume: &VolumeSeen, leaving: DiskId, candidate: &crate::placement::Candidate) -> usize {
    let others = volume.held().filter(|(_, member)| member.disk != leaving);
    others.filter(|(_, member)| zone_of(view.seen, &member.node) == candidate.zone.as_ref()).count()
}
