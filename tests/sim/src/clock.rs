//! A node's clock: an offset and a rate within 5 % of true time.
//!
//! `local(t) = offset + t + t * drift_ppm / 1e6`, monotone; it counts suspend, like CLOCK_BOOTTIME.

use crate::names::Nanos;
use ashlar_types::Instant;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub offset: Nanos,
    /// Parts per million that this clock runs fast (positive) or slow.
    pub drift_ppm: i32,
}

impl Clock {
    pub const DRIFT_PPM_MAX: i32 = 50_000;

    pub fn local(self, now: Nanos) -> Instant {
        let rate = (1_000_000 + i64::from(self.drift_ppm)) as u128;
        Instant::from_nanos(self.offset + (u128::from(now) * rate / 1_000_000) as u64)
    }

    /// The first true time at which the clock shows `instant` or later; `None` when that is never.
    pub fn when(self, instant: Instant) -> Option<Nanos> {
        if instant == Instant::FAR {
            return None;
        }
        let rate = (1_000_000 + i64::from(self.drift_ppm)) as u128;
        let elapsed = u128::from(instant.as_nanos().saturating_sub(self.offset));
        u64::try_from((elapsed * 1_000_000).div_ceil(rate)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::SECONDS;

    #[test]
    fn a_deadline_is_due_when_it_comes() {
        for drift_ppm in [-50_000, -1, 0, 3, 50_000] {
            let clock = Clock { offset: 12_345, drift_ppm };
            for local in [12_345, 12_346, 9 * SECONDS + 1, 77 * SECONDS] {
                let instant = Instant::from_nanos(local);
                let due = clock.when(instant).unwrap();
                assert!(clock.local(due) >= instant);
                assert!(due == 0 || clock.local(due - 1) < instant);
            }
        }
    }
}
