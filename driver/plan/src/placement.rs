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
        "{replicas} replicas in {replicas} zones need as many with a disk that has {size} bytes to promise: {usable}"
    )]
    TooFewZones { size: ByteCount, replicas: u8, usable: usize },
}

/// Room for volumes of some number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Sum of the sizes of volumes that could be placed, were they cut to fit.
    pub total: ByteCount,
    /// The largest single volume.
    pub largest: ByteCount,
}

/// The disks for the replicas, the first one first, in a cluster of which nothing else is known.
pub fn place<'a>(ask: &Ask, candidates: &'a [Candidate]) -> Result<Vec<&'a Candidate>, PlacementError> {
    let placed = place_among(ask, &Need { size: ask.size, ..Need::default() }, candidates, &Surroundings::default())?;
    Ok(placed.into_iter().map(|(candidate, _)| candidate).collect())
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
    let is_asked = |candidate: &&Candidate| {
        need.zones.is_empty() || candidate.zone.as_ref().is_some_and(|zone| need.zones.contains(zone))
    };
    let fitting: Vec<&Candidate> =
        candidates.iter().filter(|candidate| room(candidate) >= ask.size.0.max(1)).filter(is_asked).collect();
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
        let closed = why_not(ask, candidates, |node| !nodes.contains(node));
        return Err(PlacementError::TooFewNodes { size, replicas, usable: nodes.len(), closed });
    }
    let zones: BTreeSet<Option<&ZoneName>> = fitting.iter().map(|candidate| candidate.zone.as_ref()).collect();
    match need.spread_zones && zones.len() < usize::from(replicas) {
        true => Err(PlacementError::TooFewZones { size, replicas, usable: zones.len() }),
        false => Ok(()),
    }
}

/// What could be placed, with the first replica on one of `first_nodes` (any if empty). A volume of `largest` bytes
/// can be placed, one of more cannot.
pub fn capacity(replicas: u8, first_nodes: &[NodeName], candidates: &[Candidate]) -> Capacity {
    assert!(replicas > 0);
    let allowed = |node: &NodeName| first_nodes.is_empty() || first_nodes.contains(node);
    let mut largest_disk: BTreeMap<&NodeName, u64> = BTreeMap::new();
    let mut sum: BTreeMap<&NodeName, u64> = BTreeMap::new();
    for candidate in candidates {
        let largest = largest_disk.entry(&candidate.node).or_default();
        *largest = room(candidate).max(*largest);
        let sum = sum.entry(&candidate.node).or_default();
        *sum = sum.saturating_add(room(candidate));
    }
    Capacity {
        total: highest(|bytes| spreads(&sum, &allowed, replicas, bytes)),
        largest: highest(|bytes| fits(&largest_disk, &allowed, replicas, bytes)),
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
        let (found, explanation) = choose(need, &[], local, surroundings);
        found.map(|found| (found, explanation))
    };
    if let Some(found) = ask.first_nodes.iter().find_map(of_node) {
        return Ok(found);
    }
    if ask.strict && !ask.first_nodes.is_empty() {
        let closed = why_not(ask, all, |node| ask.first_nodes.contains(node));
        return Err(PlacementError::NoFirstNode { size: ask.size, closed });
    }
    let (found, explanation) = choose(need, &[], all.iter(), surroundings);
    Ok((found.expect("the caller counted the nodes that fit"), explanation))
}

/// One volume: the first replica on an allowed node, the others on any other nodes.
fn fits(largest: &BTreeMap<&NodeName, u64>, allowed: &dyn Fn(&NodeName) -> bool, replicas: u8, bytes: u64) -> bool {
    let fitting = largest.values().filter(|&&room| room >= bytes).count();
    let first = largest.iter().any(|(node, &room)| room >= bytes && allowed(node));
    first && fitting >= usize::from(replicas)
}

/// Volumes of `bytes` together: each node holds a volume once at most, so it helps with `bytes` at most; the allowed
/// ones hold each volume.
fn spreads(sum: &BTreeMap<&NodeName, u64>, allowed: &dyn Fn(&NodeName) -> bool, replicas: u8, bytes: u64) -> bool {
    let capped = |room: &u64| u128::from((*room).min(bytes));
    let all: u128 = sum.values().map(capped).sum();
    let first: u128 = sum.iter().filter(|(node, _)| allowed(node)).map(|(_, room)| capped(room)).sum();
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

fn why_not(ask: &Ask, candidates: &[Candidate], concerned: impl Fn(&NodeName) -> bool) -> Vec<(NodeName, String)> {
    let reason = |candidate: &Candidate| match &candidate.offer {
        Offer::Room(room) => format!("disk {} has {room} of {} bytes", candidate.disk, ask.size),
        Offer::Closed(why) => format!("disk {} is {why}", candidate.disk),
    };
    let concerned = candidates.iter().filter(|candidate| concerned(&candidate.node));
    concerned.map(|candidate| (candidate.node.clone(), reason(candidate))).collect()
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
