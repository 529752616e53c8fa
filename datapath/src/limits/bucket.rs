//! A token bucket in whole numbers. Pure.
//!
//! ```text
//!   level, in billionths of a token
//!     burst ┤────╮              ╭───── full: more is lost
//!           │    ╰─╮ take     ╱
//!         0 ┤──────│────────╱──────── a request goes when min(cost, burst) is there,
//!           │      ╰──────╱           so one above the burst goes from full and leaves a debt
//!                       per_second billionths each nanosecond
//! ```
//!
//! Invariant: `-(largest cost) <= level <= burst`. Nothing is rounded: a nanosecond brings a whole number of
//! billionths.

use super::Limit;
use ashlar_types::{Duration, Instant};

/// Billionths of one token.
const BILLION: i128 = 1_000_000_000;

#[derive(Debug)]
pub(super) struct Bucket {
    limit: Limit,
    level: i128,
    /// When `level` was right.
    at: Instant,
}

impl Bucket {
    pub(super) fn full(now: Instant, limit: Limit) -> Bucket {
        Bucket { limit, level: full_level(limit), at: now }
    }

    /// With what has come in until now; what does not fit any more is lost.
    pub(super) fn changed(mut self, now: Instant, limit: Limit) -> Bucket {
        self.fill(now);
        Bucket { limit, level: self.level.min(full_level(limit)), at: self.at }
    }

    /// When a request of this cost may go, if nothing else does; not before what was seen last.
    pub(super) fn due(&self, cost: u64) -> Instant {
        let needed = i128::from(cost.min(self.limit.burst.get())) * BILLION;
        let missing = (needed - self.level).max(0) as u128;
        let nanos = missing.div_ceil(u128::from(self.limit.per_second.get()));
        // Longer than the clock runs is never.
        self.at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The request goes: it was due.
    pub(super) fn take(&mut self, now: Instant, cost: u64) {
        assert!(self.due(cost) <= now, "a request goes when it is due");
        self.fill(now);
        self.level -= i128::from(cost) * BILLION;
    }

    /// A clock that seems to go back brings nothing.
    fn fill(&mut self, now: Instant) {
        let nanos = i128::from(now.as_nanos().saturating_sub(self.at.as_nanos()));
        let income = nanos.saturating_mul(i128::from(self.limit.per_second.get()));
        self.level = self.level.saturating_add(income).min(full_level(self.limit));
        self.at = self.at.max(now);
    }
}

fn full_level(limit: Limit) -> i128 {
    i128::from(limit.burst.get()) * BILLION
}
