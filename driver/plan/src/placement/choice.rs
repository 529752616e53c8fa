//! The choice of one disk beside those that a volume keeps. A disk will do if nothing of [`Reason`] but `Behind` speaks
//! against it; of those that will do the lowest [`Taken`] is taken.

use super::{Candidate, Explanation, LeftOut, Offer, Partners, Reason, Rule, Taken, room};
use ashlar_types::{ByteCount, DiskId, NodeName, ZoneName};
use std::collections::BTreeMap;

/// What the disk is for.
#[derive(Clone, Debug, Default)]
pub struct Need<'a> {
    pub size: ByteCount,
    /// Only in these zones; empty: in any.
    pub zones: &'a [ZoneName],
    /// Not in a zone that has a replica.
    pub spread_zones: bool,
    /// Not these, though they may hold nothing of the volume any more: it has had them as members under the present
    /// epoch. A writer knows its members by their indexes, and the deletion of what they had fences that epoch.
    pub members: &'a [DiskId],
    /// Not these: what they had of the volume is still to be deleted.
    pub buried: &'a [DiskId],
    /// The node of a replica that goes when the new one is there, and not before.
    pub leaving: Option<&'a NodeName>,
}

impl Need<'_> {
    pub(super) fn is_asked(&self, zone: Option<&ZoneName>) -> bool {
        self.zones.is_empty() || zone.is_some_and(|zone| self.zones.contains(zone))
    }
}

/// A replica that the volume keeps.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    pub node: &'a NodeName,
    pub zone: Option<&'a ZoneName>,
}

/// What else is known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub partners: Partners,
    /// Share of its time for which a disk is busy; 0 if it is not in here.
    pub busy_permille: BTreeMap<DiskId, u16>,
}

impl<'a> Site<'a> {
    pub fn of(candidate: &'a Candidate) -> Site<'a> {
        Site { node: &candidate.node, zone: candidate.zone.as_ref() }
    }
}

/// The best disk, if one will do, and why.
pub fn choose<'a>(
    need: &Need,
    standing: &[Site],
    candidates: impl Iterator<Item = &'a Candidate>,
    surroundings: &Surroundings,
) -> (Option<&'a Candidate>, Explanation) {
    let nodes: Vec<&NodeName> = standing.iter().map(|site| site.node).collect();
    let judged: Vec<(&'a Candidate, Option<Reason>)> =
        candidates.map(|candidate| (candidate, against(need, standing, candidate))).collect();
    let fitting = || judged.iter().filter(|(_, reason)| reason.is_none()).map(|(candidate, _)| *candidate);
    let most_room = fitting().map(room).max().unwrap_or(0);
    let rank = |candidate: &Candidate| taken(candidate, standing, &nodes, surroundings, most_room);
    let best = fitting().map(|candidate| (rank(candidate), candidate)).min_by(|a, b| a.0.cmp(&b.0));
    let (best, candidate) = best.unzip();
    let others = || judged.iter().filter(|(other, _)| candidate.is_none_or(|taken| taken.disk != other.disk));
    let mut shown: Vec<&(&Candidate, Option<Reason>)> = others().collect();
    let count = shown.len();
    shown.sort_by_key(|(other, _)| other.disk);
    shown.truncate(Explanation::SHOWN_MAX);
    let left_out = |(other, reason): &(&Candidate, Option<Reason>)| LeftOut {
        disk: other.disk,
        node: other.node.clone(),
        reason: reason.clone().unwrap_or_else(|| {
            let best = best.as_ref().expect("one that would do is left out for a better one");
            Reason::Behind(rule(best, &rank(other)))
        }),
    };
    let left_out: Vec<LeftOut> = shown.into_iter().map(left_out).collect();
    let more = count - left_out.len();
    (candidate, Explanation { taken: best, left_out, more })
}

/// Why the disk will not do.
pub(super) fn against(need: &Need, standing: &[Site], candidate: &Candidate) -> Option<Reason> {
    let zone = candidate.zone.as_ref();
    let room = match &candidate.offer {
        Offer::Closed(why) => return Some(Reason::Closed(why.clone())),
        Offer::Room(room) => *room,
    };
    if standing.iter().any(|site| *site.node == candidate.node) || need.leaving == Some(&candidate.node) {
        return Some(Reason::NodeTaken);
    }
    if need.members.contains(&candidate.disk) {
        return Some(Reason::Member);
    }
    if need.buried.contains(&candidate.disk) {
        return Some(Reason::Buried);
    }
    if !need.is_asked(zone) {
        return Some(Reason::ZoneNotAsked { zone: candidate.zone.clone() });
    }
    if need.spread_zones && standing.iter().any(|site| site.zone == zone) {
        return Some(Reason::ZoneTaken { zone: candidate.zone.clone() });
    }
    let needed = ByteCount(need.size.0.max(1));
    (room < needed).then_some(Reason::Room { room, needed })
}

fn taken(
    candidate: &Candidate,
    standing: &[Site],
    nodes: &[&NodeName],
    surroundings: &Surroundings,
    most_room: u64,
) -> Taken {
    const STEPS: u128 = 16;
    let room = room(candidate);
    let offered = u128::from(room) * STEPS / u128::from(most_room.max(1));
    Taken {
        zone_shared: standing.iter().filter(|site| site.zone == candidate.zone.as_ref()).count(),
        partners_above_bound: surroundings.partners.above_bound(&candidate.node, nodes),
        fullness: (STEPS - offered) as u8,
        is_new_set: surroundings.partners.is_new(&candidate.node, nodes),
        busy_permille: surroundings.busy_permille.get(&candidate.disk).copied().unwrap_or(0),
        less_room: ByteCount(most_room - room),
        disk: candidate.disk,
        node: candidate.node.clone(),
    }
}

fn rule(better: &Taken, worse: &Taken) -> Rule {
    match () {
        () if better.zone_shared != worse.zone_shared => Rule::Zone,
        () if better.partners_above_bound != worse.partners_above_bound => Rule::Partners,
        () if better.fullness != worse.fullness => Rule::Room,
        () if better.is_new_set != worse.is_new_set => Rule::Set,
        () if better.busy_permille != worse.busy_permille => Rule::Load,
        () if better.less_room != worse.less_room => Rule::Room,
        () => Rule::Id,
    }
}

#[cfg(test)]
mod tests;
