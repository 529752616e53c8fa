//! How fast a returning disk is filled. Whoever sees all of a cluster's volumes gives each a rate; a volume that was
//! given none, or none for some time, copies as fast as its replicas take it: a control plane that is gone holds up no
//! repair.
//!
//! Only the copies of slots wait for it: writes go to the returning disk at once. Where writes wait for one more
//! replica the rate does not count.

use crate::volume::Volume;
use ashlar_types::{Duration, Instant, SLOT_BYTES};

/// What may go at once after a pause.
const BURST: Duration = Duration::from_millis(100);
/// Whoever gave the rate says so again within this time.
const LASTS: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// 0: nothing is copied.
    bytes_per_second: Option<u64>,
    next_at: Instant,
    until: Instant,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { bytes_per_second: None, next_at: Instant::ZERO, until: Instant::ZERO }
    }
}

impl Pace {
    pub(crate) fn set(&mut self, now: Instant, bytes_per_second: Option<u64>) {
        if self.bytes_per_second != bytes_per_second {
            (self.bytes_per_second, self.next_at) = (bytes_per_second, now);
        }
        self.until = now + LASTS;
    }

    /// When the next slot may be copied.
    fn next_at(&self) -> Instant {
        match self.bytes_per_second {
            None => Instant::ZERO,
            Some(0) => self.until,
            Some(_) => self.next_at.min(self.until),
        }
    }

    fn took_slot(&mut self, now: Instant) {
        if self.until <= now {
            self.bytes_per_second = None;
        }
        let Some(rate) = self.bytes_per_second.filter(|&rate| rate > 0) else { return };
        let takes = Duration::from_nanos(SLOT_BYTES.saturating_mul(1_000_000_000) / rate);
        let begins = Instant::from_nanos(now.as_nanos().saturating_sub(BURST.as_nanos() as u64));
        self.next_at = self.next_at.max(begins) + takes;
    }
}

impl Volume {
    /// Whether a slot may be copied now; if so it counts.
    pub(crate) fn may_copy_slot(&mut self, now: Instant) -> bool {
        if !self.lacks_replicas() && self.pace.next_at() > now {
            return false;
        }
        self.pace.took_slot(now);
        true
    }

    pub(crate) fn pace_deadline(&self) -> Instant {
        match self.resync.as_ref().is_some_and(|resync| resync.waits_to_copy(self.config.copies_inflight_max)) {
            true => self.pace.next_at(),
            false => Instant::FAR,
        }
    }
}

#[cfg(test)]
mod tests;
