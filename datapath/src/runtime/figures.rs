//! What is counted about the guest requests of one volume, the longest gap above all.
//!
//! A gap is a time in which a write waits and none completes: it begins with the last completion, or with the arrival
//! of the first write when none was under way.

use ashlar_types::{Duration, Instant};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GuestFigures {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) gap: GapClock,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GapClock {
    writes_waiting: usize,
    quiet_since: Instant,
    longest: Duration,
}

impl GapClock {
    pub(crate) fn write_arrived(&mut self, now: Instant) {
        if self.writes_waiting == 0 {
            self.quiet_since = now;
        }
        self.writes_waiting += 1;
    }

    pub(crate) fn write_completed(&mut self, now: Instant) {
        assert!(self.writes_waiting > 0);
        self.longest = self.longest(now);
        self.writes_waiting -= 1;
        self.quiet_since = now;
    }

    /// The longest so far, the one that is under way included.
    pub(crate) fn longest(&self, now: Instant) -> Duration {
        match self.writes_waiting {
            0 => self.longest,
            _ => self.longest.max(now.since(self.quiet_since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_counted_only_while_a_write_waits() {
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let mut clock = GapClock::default();
        clock.write_arrived(at(1000));
        clock.write_completed(at(1010));
        assert_eq!(clock.longest(at(5000)), Duration::from_millis(10), "nothing waits");
        clock.write_arrived(at(6000));
        clock.write_arrived(at(6020));
        assert_eq!(clock.longest(at(6030)), Duration::from_millis(30));
        clock.write_completed(at(6040));
        clock.write_completed(at(6045));
        assert_eq!(clock.longest(at(9000)), Duration::from_millis(40));
    }
}
