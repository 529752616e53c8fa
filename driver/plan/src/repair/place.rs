//! Where a replica goes: the rules of placement, over what is promised already, this look's own promises included, so
//! that two volumes are never promised the same gap.

use super::{Fate, Seen, VolumeSeen, grace::View};
use crate::placement::{self, Candidate, Explanation, Need, Offer, Partners, Site, Surroundings};
use ashlar_types::{ByteCount, DiskId, NodeName, ZoneName};
use std::collections::{BTreeMap, BTreeSet};

/// Made when something is to be placed: most looks place nothing, and it takes a walk over all volumes.
pub(super) struct Places<'a> {
    view: View<'a>,
    layout: Option<Layout>,
}

struct Layout {
    candidates: Vec<Candidate>,
    index: BTreeMap<DiskId, usize>,
    surroundings: Surroundings,
}

/// Which replica the new one is for.
#[derive(Clone, Copy)]
pub(super) enum Going {
    /// It is out, and its node may have the new one.
    Replaced(DiskId),
    /// It stays until the new one is in-sync: two on one node there never are.
    Moves(DiskId),
}

/// Every disk as placement sees it: closed, or with the room below its watermark.
pub fn candidates(seen: &Seen, watermark_permille: u16) -> Vec<Candidate> {
    let candidate = |(&disk, known): (&DiskId, &super::DiskSeen)| {
        let node = seen.nodes.get(&known.node);
        let closed = match (known.fate, node) {
            (Fate::Lost, _) => Some("lost"),
            (Fate::Failed, _) => Some("failed"),
            (Fate::Missing, _) => Some("not named by its chunkserver"),
            (_, None) => Some("on a node that is not known"),
            (_, Some(node)) if node.is_silent => Some("silent"),
            (Fate::Draining, _) => Some("being drained"),
            (_, Some(node)) if node.is_draining => Some("on a node that is being drained"),
            (Fate::Usable, Some(_)) => None,
        };
        let watermark = (u128::from(known.capacity.0) * u128::from(watermark_permille) / 1000) as u64;
        let room = ByteCount(watermark.saturating_sub(known.claimed.max(known.used).0));
        let offer = closed.map_or(Offer::Room(room), |why| Offer::Closed(why.to_owned()));
        Candidate { disk, node: known.node.clone(), zone: node.and_then(|node| node.zone.clone()), offer }
    };
    seen.disks.iter().map(candidate).collect()
}

/// The partner sets that the volumes use, and how busy disks are.
pub fn surroundings(seen: &Seen, partners_max: usize) -> Surroundings {
    let mut partners = Partners::new(partners_max);
    let mut known: BTreeSet<Vec<&NodeName>> = BTreeSet::new();
    for volume in seen.volumes.values() {
        let sets = volume.chunks.iter().map(|run| run.members.iter().map(|at| &volume.members[usize::from(*at)].node));
        known.extend(sets.map(Iterator::collect::<Vec<&NodeName>>));
    }
    known.iter().for_each(|set| partners.add(set));
    let busy_permille = seen.disks.iter().map(|(&disk, known)| (disk, known.busy_permille)).collect();
    Surroundings { partners, busy_permille }
}

impl Layout {
    fn of(view: &View) -> Layout {
        let candidates = candidates(view.seen, view.bounds.watermark_permille);
        let index = candidates.iter().enumerate().map(|(at, candidate)| (candidate.disk, at)).collect();
        Layout { candidates, index, surroundings: surroundings(view.seen, view.bounds.partners_max) }
    }

    fn promise(&mut self, disk: DiskId, claim: ByteCount, standing: &[Site]) {
        let taken = &mut self.candidates[self.index[&disk]];
        if let Offer::Room(room) = &mut taken.offer {
            room.0 = room.0.saturating_sub(claim.0);
        }
        let set: Vec<&NodeName> = standing.iter().map(|site| site.node).chain([&taken.node]).collect();
        self.surroundings.partners.add(&set);
    }
}

impl<'a> Places<'a> {
    pub(super) fn of(view: &View<'a>) -> Places<'a> {
        Places { view: *view, layout: None }
    }

    /// The best disk among those that `allowed` lets through, for the replica that goes, beside the others. What is
    /// chosen is promised.
    pub(super) fn choose(
        &mut self,
        volume: &VolumeSeen,
        going: Going,
        allowed: impl Fn(&Candidate) -> bool,
    ) -> Result<(DiskId, Explanation), Explanation> {
        let (seen, layout) = (self.view.seen, self.layout.get_or_insert_with(|| Layout::of(&self.view)));
        let (Going::Replaced(goes) | Going::Moves(goes)) = going;
        let staying = volume.held().map(|(_, member)| member).filter(|member| member.disk != goes);
        let standing: Vec<Site> =
            staying.map(|member| Site { node: &member.node, zone: zone_of(seen, &member.node) }).collect();
        let leaving = volume.held().find(|(_, member)| member.disk == goes).map(|(_, member)| &member.node);
        let members: Vec<DiskId> = volume.members.iter().map(|member| member.disk).collect();
        let need = Need {
            size: volume.claim,
            zones: &volume.wish.zones,
            spread_zones: volume.wish.spread_zones,
            members: &members,
            buried: &volume.buried,
            leaving: leaving.filter(|_| matches!(going, Going::Moves(_))),
        };
        let allowed = layout.candidates.iter().filter(|candidate| allowed(candidate));
        let (found, explanation) = placement::choose(&need, &standing, allowed, &layout.surroundings);
        let Some(disk) = found.map(|found| found.disk) else { return Err(explanation) };
        layout.promise(disk, volume.claim, &standing);
        Ok((disk, explanation))
    }
}

pub(super) fn zone_of<'a>(seen: &'a Seen, node: &NodeName) -> Option<&'a ZoneName> {
    seen.nodes.get(node).and_then(|node| node.zone.as_ref())
}
