//! How fast a returning disk is filled. Whoever sees all of a cluster's volumes gives each a rate; a volume that was
//! given none, or none for some time, copies as fast as its replicas take it: a control plane that is gone holds up no
//! repair.
//!
//! Only the copies of slots wait for it: writes go to the returning disk at once. Where writes wait for one more
//! replica the rate does not count.

use crate::config::Config;
use crate::volume::Volume;
use ashlar_types::{DiskId, Duration, Instant, SLOT_BYTES};

/// What may go at once after a pause.
const BURST: Duration = Duration::from_millis(5);
/// The rate at which as many slots are under way at once as may be. With half of it a quarter of them is: whoever has
/// guests has a low rate, and what is under way is what a guest's request may have to wait for.
const RATE_OF_ALL: u64 = 1 << 30;
/// The least that lets a source read while the target writes.
const PACED_SLOTS_MIN: usize = 4;
/// Whoever gave the rate says so again within this time.
const LASTS: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// 0: nothing is copied.
    bytes_per_second: Option<u64>,
    source: Option<DiskId>,
    next_at: Instant,
    until: Instant,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { bytes_per_second: None, source: None, next_at: Instant::ZERO, until: Instant::ZERO }
    }
}

impl Pace {
    pub(crate) fn set(&mut self, now: Instant, bytes_per_second: Option<u64>, source: Option<DiskId>) {
        if self.bytes_per_second != bytes_per_second {
            (self.bytes_per_second, self.next_at) = (bytes_per_second, now);
        }
        (self.source, self.until) = (source, now + LASTS);
    }

    /// The disk that shall be read.
    pub(crate) fn source(&self) -> Option<DiskId> {
        self.source
    }

    /// When the next slot may be copied.
    fn next_at(&self) -> Instant {
        match self.bytes_per_second {
            None => Instant::ZERO,
            Some(0) => self.until,
            Some(_) => self.next_at.min(self.until),
        }
    }

    /// How many slots may be under way at once.
    fn slots_max(&self, config: &Config) -> usize {
        let Some(rate) = self.bytes_per_second else { return config.copies_inflight_max };
        let (rate, all) = (u128::from(rate.min(RATE_OF_ALL)), config.paced_copies_max as u128);
        let slots = all * rate * rate / u128::from(RATE_OF_ALL).pow(2);
        slots.max(PACED_SLOTS_MIN as u128) as usize
    }

    fn took_slot(&mut self, now: Instant) {
        if self.until <= now {
            (self.bytes_per_second, self.source) = (None, None);
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

    /// How many slots of a returning disk may be under way at once.
    pub(crate) fn copies_max(&self) -> usize {
        match self.lacks_replicas() {
            true => self.config.copies_inflight_max,
            false => self.pace.slots_max(&self.config),
        }
    }

    pub(crate) fn pace_deadline(&self) -> Instant {
        match self.resync.as_ref().is_some_and(|resync| resync.waits_to_copy(self.copies_max())) {
            true => self.pace.next_at(),
            false => Instant::FAR,
        }
    }
}

#[cfg(test)]
mod tests;
