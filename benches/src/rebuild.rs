//! Replicas that are made again: how fast, at whose cost, how much is copied, in which order, and how well its end is
//! told. Each is Ashlar beside a raw copy, or beside itself.

pub(crate) mod mixed;
pub(crate) mod planner;
mod raw;
pub(crate) mod resync;
pub(crate) mod speed;

use std::time::Duration;

const HOME: &str = "n1";
const VOLUME: &str = "rebuilt";
const LIMIT: Duration = Duration::from_secs(600);

/// How much is done.
pub(crate) struct RebuildPlan {
    pub(crate) disk_size: &'static str,
    /// Written in full.
    pub(crate) volume_bytes: u64,
    pub(crate) rounds: usize,
    /// For how long quiet latencies are taken.
    pub(crate) quiet: Duration,
    /// Slots that are overwritten while a replica is away.
    pub(crate) changed_slots: u64,
    /// Size of each of twelve volumes.
    pub(crate) mixed_mib: u64,
}
