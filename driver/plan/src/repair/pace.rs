//! Pace: how fast copies may go on each node, so that business I/O does not feel them. Additive increase,
//! multiplicative decrease, on the latency of foreground I/O against its quiet value. Once in every interval, for each
//! node:
//!
//! ```text
//!   q = latency now / quiet latency: of the mean or of p99, whichever is more (`foreground.rs`)
//!   r = rate, between floor and ceiling
//!
//!   no foreground I/O      r ← ceiling                   idle capacity is taken at once
//!   nothing was copied     r ← ceiling / 16              guests meet a copy that begins gently
//!   q > 1.5                r ← r / 2                     a burst began
//!   q > high               r ← r − r / 8
//!   low ≤ q ≤ high         r ← r
//!   q < low                r ← r + (ceiling − floor) / 64
//! ```
//! r grows only if at least 3/4 of it was given out: a rate that nobody uses must not grow into a burst. The floor
//! holds whatever the latency is: a volume that is never repaired is the greater harm.

use super::{Bounds, BytesPerSecond, Latency, Seen};
use ashlar_types::{Duration, NodeName};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    nodes: BTreeMap<NodeName, NodePace>,
}

#[derive(Clone, Copy, Debug)]
struct NodePace {
    rate: BytesPerSecond,
    changed_at: Option<Duration>,
    /// What the last look gave out of it.
    given: BytesPerSecond,
}

const BURST_PERMILLE: u32 = 1500;
const RISES: u64 = 64;
const BEGINS: u64 = 16;

impl NodePace {
    fn new(bounds: &Bounds) -> NodePace {
        NodePace { rate: bounds.node_floor, changed_at: None, given: BytesPerSecond::ZERO }
    }
}

impl Pace {
    pub(super) fn observe(&mut self, seen: &Seen, bounds: &Bounds, now: Duration) {
        self.nodes.retain(|node, _| seen.nodes.contains_key(node));
        for (node, known) in &seen.nodes {
            let pace = self.nodes.entry(node.clone()).or_insert_with(|| NodePace::new(bounds));
            if pace.changed_at.is_none_or(|at| now.saturating_sub(at) >= bounds.pace_interval) {
                pace.rate = next(pace.rate, pace.given, known.foreground, bounds);
                pace.changed_at = Some(now);
            }
        }
    }

    pub(super) fn rate(&self, node: &NodeName) -> BytesPerSecond {
        self.nodes.get(node).map_or(BytesPerSecond::ZERO, |pace| pace.rate)
    }

    /// What this look gives out of the rates; nothing of those that are not named.
    pub(super) fn gave(&mut self, given: &BTreeMap<NodeName, BytesPerSecond>) {
        for (node, pace) in &mut self.nodes {
            pace.given = given.get(node).copied().unwrap_or_default();
        }
    }
}

fn next(rate: BytesPerSecond, given: BytesPerSecond, foreground: Option<Latency>, bounds: &Bounds) -> BytesPerSecond {
    let (floor, ceiling) = (bounds.node_floor.0, bounds.node_ceiling.0);
    let is_used = given.0 >= rate.0 / 4 * 3;
    let more = |rise: u64| if is_used { rate.0.saturating_add(rise) } else { rate.0 };
    let next = match foreground.and_then(permille) {
        None => ceiling,
        Some(_) if given == BytesPerSecond::ZERO => ceiling / BEGINS,
        Some(q) if q > BURST_PERMILLE => rate.0 / 2,
        Some(q) if q > bounds.latency_high_permille => rate.0 - rate.0 / 8,
        Some(q) if q < bounds.latency_low_permille => more((ceiling - floor).div_ceil(RISES)),
        Some(_) => rate.0,
    };
    BytesPerSecond(next.clamp(floor, ceiling))
}

/// Latency in thousandths of its quiet value; `None` if there is nothing to compare with.
fn permille(latency: Latency) -> Option<u32> {
    let (now, quiet) = (latency.now.as_nanos(), latency.quiet.as_nanos());
    let q = now.saturating_mul(1000).checked_div(quiet)?;
    Some(u32::try_from(q).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
