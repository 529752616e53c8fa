//! How fast a replica answers: a mean that follows, and the tail of a recent window.

use ashlar_types::{Duration, Instant};

/// Answers that make up one window of the tail.
const WINDOW: u32 = 512;
/// Buckets of powers of two microseconds: up to 2^23 µs, about 8 s.
const BUCKETS: usize = 24;

#[derive(Clone, Debug, Default)]
pub(crate) struct Latency {
    mean_nanos: u64,
    counts: [u32; BUCKETS],
    seen: u32,
    p99: Option<Duration>,
    samples: u64,
    slow_since: Option<Instant>,
}

impl Latency {
    pub(crate) fn record(&mut self, took: Duration) {
        let nanos = took.as_nanos() as u64;
        self.mean_nanos = if self.samples == 0 { nanos } else { self.mean_nanos - self.mean_nanos / 16 + nanos / 16 };
        self.samples += 1;
        let micros = (nanos / 1000).max(1);
        self.counts[(micros.ilog2() as usize).min(BUCKETS - 1)] += 1;
        self.seen += 1;
        if self.seen == WINDOW {
            self.close_window();
        }
    }

    fn close_window(&mut self) {
        let mut above = 0;
        let tail = (0..BUCKETS).rev().find(|&bucket| {
            above += self.counts[bucket];
            above > WINDOW / 100
        });
        self.p99 = tail.map(|bucket| Duration::from_micros(2 << bucket));
        self.counts = [0; BUCKETS];
        self.seen = 0;
    }

    /// Zero before the first answer.
    pub(crate) fn mean(&self) -> Duration {
        Duration::from_nanos(self.mean_nanos)
    }

    /// Of the last whole window, rounded up to a power of two; zero before there is one.
    pub(crate) fn p99(&self) -> Duration {
        self.p99.unwrap_or_default()
    }

    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// Since when it has been found slow without a break.
    pub(crate) fn slow_for(&mut self, slow: bool, now: Instant) -> Duration {
        if !slow {
            self.slow_since = None;
            return Duration::ZERO;
        }
        now.since(*self.slow_since.get_or_insert(now))
    }

    /// A new link is judged afresh.
    pub(crate) fn restart(&mut self) {
        *self = Latency::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_that_of_the_last_window() {
        let mut latency = Latency::default();
        for i in 0..WINDOW {
            latency.record(Duration::from_micros(if i % 50 == 0 { 9000 } else { 100 }));
        }
        assert!(latency.p99() >= Duration::from_micros(9000) && latency.p99() <= Duration::from_micros(18_000));
        for _ in 0..WINDOW {
            latency.record(Duration::from_micros(100));
        }
        assert!(latency.p99() < Duration::from_micros(300));
    }

    #[test]
    fn slowness_must_last() {
        let mut latency = Latency::default();
        assert_eq!(latency.slow_for(true, Instant::from_nanos(5)), Duration::ZERO);
        assert_eq!(latency.slow_for(true, Instant::from_nanos(9)), Duration::from_nanos(4));
        latency.slow_for(false, Instant::from_nanos(10));
        assert_eq!(latency.slow_for(true, Instant::from_nanos(11)), Duration::ZERO);
    }
}
