//! Placement: which disks get the replicas of a volume, and how much could still be placed.
//!
//! Rules, in this order:
//! 1. no two replicas on one node;
//! 2. only in the zones asked for, and no two in one zone, where the volume's class says so;
//! 3. the first replica on the first node asked for that has room (local reads), or, unless the ask is strict, on the
//!    disk that the further rules say;
//! 4. each further replica in a zone that has none yet, where there is one with room;
//! 5. on nodes that are partners already, or may become so (`partners.rs`);
//! 6. of the disks left, the one with most room, in sixteenths of the emptiest one's; of equals the one that makes no
//!    new set of nodes, then the less busy one, then by room to the byte, then by id.
//!
//! Rules 1 and 2 alone decide whether a placement exists: any node (zone) that is left will do, so taking greedily
//! never runs into a dead end. `choice.rs` has the rules for one disk, `explanation.rs` what is said about it,
//! `loss.rs` what the partner sets are worth.

mod choice;
mod explanation;
pub mod loss;
mod partners;

use ashlar_types::{ByteCount, DiskId, NodeName, ZoneName};
pub use choice::{Need, Site, Surroundings, choose};
pub use explanation::{Explanation, LeftOut, Reason, Rule, Taken};
pub use partners::Partners;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A disk as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub disk: DiskId,
    pub node: NodeName,
    pub zone: Option<ZoneName>,
    pub offer: Offer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// May take replicas up to this size.
    Room(ByteCount),
    /// Takes none, and why: "silent", "failed: ...", "lost".
    Closed(String),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub size: ByteCount,
    pub replicas: u8,
    /// Nodes for the first replica, best first; empty: any.
    pub first_nodes: Vec<NodeName>,
    /// Whether the first replica must be on one of them.
    pub strict: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error("none of the nodes asked for has a disk with {size} bytes to promise: {}", Reasons(.closed))]
    NoFirstNode { size: ByteCount, closed: Vec<(NodeName, String)> },
    #[error(
        "{replicas} replicas need {replicas} nodes with a disk that has {size} bytes to promise, {usable} have one: {}",
        Reasons(.closed)
    )]
    TooFewNodes { size: ByteCount, replicas: u8, usable: usize, closed: Vec<(NodeName, String)> },
    #[error(
        "{replicas} replicas in as many zones need {replicas} zones with a disk that has {size} bytes to promise, {} \
         have one: {}", .usable.len(), Zones(.usable)
    )]
    TooFewZones { size: ByteCount, replicas: u8, usable: Vec<Option<ZoneName>> },
}

/// Room for volumes of some number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Sum of the sizes of volumes that could be placed, were they cut to fit.
    pub total: ByteCount,
    /// The largest single volume.
    pub largest: ByteCount,
}

/// The disks for the replicas, the first one first, and why each. The size is the ask's.
pub fn place_among<'a>(
    ask: &Ask,
    need: &Need,
    candidates: &'a [Candidate],
    surroundings: &Surroundings,
) -> Result<Vec<(&'a Candidate, Explanation)>, PlacementError> {
    assert!(ask.replicas > 0);
    let need = Need { size: ask.size, ..need.clone() };
    let fitting = candidates.iter().filter(|candidate| room(candidate) >= ask.size.0.max(1));
    let fitting: Vec<&Candidate> = fitting.filter(|candidate| need.is_asked(candidate.zone.as_ref())).collect();
    check_enough(ask, &need, candidates, &fitting)?;
    let mut chosen = vec![first(ask, &need, candidates, surroundings)?];
    while chosen.len() < usize::from(ask.replicas) {
        let standing: Vec<Site> = chosen.iter().map(|(candidate, _)| Site::of(candidate)).collect();
        let (next, explanation) = choose(&need, &standing, candidates.iter(), surroundings);
        chosen.push((next.expect("more nodes or zones fit than are chosen"), explanation));
    }
    Ok(chosen)
}

/// As many nodes fit as there are replicas; zones, where they are to be spread.
fn check_enough(
    ask: &Ask,
    need: &Need,
    candidates: &[Candidate],
    fitting: &[&Candidate],
) -> Result<(), PlacementError> {
    let (size, replicas) = (ask.size, ask.replicas);
    let nodes: BTreeSet<&NodeName> = fitting.iter().map(|candidate| &candidate.node).collect();
    if nodes.len() < usize::from(replicas) {
        let closed = why_not(need, candidates, |node| !nodes.contains(node));
        return Err(PlacementError::TooFewNodes { size, replicas, usable: nodes.len(), closed });
    }
    let zones: BTreeSet<Option<&ZoneName>> = fitting.iter().map(|candidate| candidate.zone.as_ref()).collect();
    match need.spread_zones && zones.len() < usize::from(replicas) {
        true => {
            let usable = zones.into_iter().map(|zone| zone.cloned()).collect();
            Err(PlacementError::TooFewZones { size, replicas, usable })
        }
        false => Ok(()),
    }
}

/// What could be placed, in the zones and spread as `need` says, with the first replica on one of `first_nodes` (any if
/// empty). A volume of `largest` bytes can be placed, one of more cannot.
pub fn capacity(replicas: u8, first_nodes: &[NodeName], need: &Need, candidates: &[Candidate]) -> Capacity {
    assert!(replicas > 0);
    let mut domains: BTreeMap<(Option<&NodeName>, Option<&ZoneName>), Domain> = BTreeMap::new();
    for candidate in candidates.iter().filter(|candidate| need.is_asked(candidate.zone.as_ref())) {
        let key = match need.spread_zones {
            true => (None, candidate.zone.as_ref()),
            false => (Some(&candidate.node), None),
        };
        let may_be_first = first_nodes.is_empty() || first_nodes.contains(&candidate.node);
        domains.entry(key).or_default().add(room(candidate), may_be_first);
    }
    let domains: Vec<Domain> = domains.into_values().collect();
    Capacity {
        total: highest(|bytes| spreads(&domains, replicas, bytes)),
        largest: highest(|bytes| fits(&domains, replicas, bytes)),
    }
}

/// What the disks of a node, or of a zone, have room for: at most one replica of each volume.
#[derive(Clone, Copy, Default)]
struct Domain {
    largest: u64,
    sum: u64,
    /// The same of those disks that may have the first replica.
    first_largest: u64,
    first_sum: u64,
}

impl Domain {
    fn add(&mut self, room: u64, may_be_first: bool) {
        self.largest = self.largest.max(room);
        self.sum = self.sum.saturating_add(room);
        if may_be_first {
            self.first_largest = self.first_largest.max(room);
            self.first_sum = self.first_sum.saturating_add(room);
        }
    }
}

fn room(candidate: &Candidate) -> u64 {
    match &candidate.offer {
        Offer::Room(bytes) => bytes.0,
        Offer::Closed(_) => 0,
    }
}

fn first<'a>(
    ask: &Ask,
    need: &Need,
    all: &'a [Candidate],
    surroundings: &Surroundings,
) -> Result<(&'a Candidate, Explanation), PlacementError> {
    let of_node = |node: &NodeName| {
        let local = all.iter().filter(|candidate| candidate.node == *node);
        let (found, mut explanation) = choose(need, &[], local, surroundings);
        explanation.leave_out(all.iter().filter(|other| other.node != *node).map(|other| LeftOut {
            disk: other.disk,
            node: other.node.clone(),
            reason: choice::against(need, &[], other).unwrap_or(Reason::AskedLater),
        }));
        found.map(|found| (found, explanation))
    };
    if let Some(found) = ask.first_nodes.iter().find_map(of_node) {
        return Ok(found);
    }
    if ask.strict && !ask.first_nodes.is_empty() {
        let closed = why_not(need, all, |node| ask.first_nodes.contains(node));
        return Err(PlacementError::NoFirstNode { size: ask.size, closed });
    }
    let (found, explanation) = choose(need, &[], all.iter(), surroundings);
    Ok((found.expect("the caller counted the nodes that fit"), explanation))
}

/// One volume: the first replica where it may be, the others in any other domains.
fn fits(domains: &[Domain], replicas: u8, bytes: u64) -> bool {
    let fitting = domains.iter().filter(|domain| domain.largest >= bytes).count();
    domains.iter().any(|domain| domain.first_largest >= bytes) && fitting >= usize::from(replicas)
}

/// Volumes of `bytes` together: each domain holds a volume once at most, so it helps with `bytes` at most; those that
/// may be first hold each volume.
fn spreads(domains: &[Domain], replicas: u8, bytes: u64) -> bool {
    let all: u128 = domains.iter().map(|domain| u128::from(domain.sum.min(bytes))).sum();
    let first: u128 = domains.iter().map(|domain| u128::from(domain.first_sum.min(bytes))).sum();
    first >= u128::from(bytes) && all >= u128::from(bytes) * u128::from(replicas)
}

/// The highest number for which a condition holds that holds for 0 and, from some number on, no more.
fn highest(holds: impl Fn(u64) -> bool) -> ByteCount {
    let (mut yes, mut no) = (0u64, u64::MAX);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if holds(middle) { yes = middle } else { no = middle }
    }
    ByteCount(yes)
}

fn why_not(need: &Need, candidates: &[Candidate], concerned: impl Fn(&NodeName) -> bool) -> Vec<(NodeName, String)> {
    let reason = |candidate: &Candidate| match &candidate.offer {
        Offer::Closed(why) => format!("disk {} is {why}", candidate.disk),
        Offer::Room(_) if !need.is_asked(candidate.zone.as_ref()) => {
            format!("disk {} is in zone {}, which is not asked for", candidate.disk, name_of(&candidate.zone))
        }
        Offer::Room(room) => format!("disk {} has {room} of {} bytes", candidate.disk, need.size),
    };
    let concerned = candidates.iter().filter(|candidate| concerned(&candidate.node));
    concerned.map(|candidate| (candidate.node.clone(), reason(candidate))).collect()
}

fn name_of(zone: &Option<ZoneName>) -> &str {
    zone.as_ref().map_or("none", ZoneName::as_str)
}

struct Zones<'a>(&'a [Option<ZoneName>]);

impl fmt::Display for Zones<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(name_of).collect::<Vec<_>>().join(", "))
    }
}

struct Reasons<'a>(&'a [(NodeName, String)]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 10;
        if self.0.is_empty() {
            return f.write_str("no other node has a disk");
        }
        for (i, (node, reason)) in self.0.iter().take(SHOWN_MAX).enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{node}: {reason}")?;
        }
        match self.0.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests;
