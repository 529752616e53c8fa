//! How fast a replica answers: a mean that follows, and the tail of a recent window.

use ashlar_types::{Duration, Instant};

/// Answers that make up one window of the tail; each is a part of two.
const WINDOW: usize = 512;
/// Buckets of eighths of powers of two microseconds: up to 2^23 µs, about 8 s.
const PARTS: usize = 8;
const BUCKETS: usize = 24 * PARTS;
/// A window that took longer says nothing of the present.
const FRESH: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct Latency {
    mean_nanos: u64,
    /// Of the half of a window that is being filled, and of the one before it.
    counts: [[u16; BUCKETS]; 2],
    seen: usize,
    /// When the halves began.
    began: [Option<Instant>; 2],
    p99: Option<Duration>,
    fresh_p99: Option<Duration>,
    samples: u64,
    slow_since: Option<Instant>,
}

impl Default for Latency {
    fn default() -> Latency {
        let counts = [[0; BUCKETS]; 2];
        let (p99, fresh_p99, slow_since) = (None, None, None);
        Latency { mean_nanos: 0, counts, seen: 0, began: [None; 2], p99, fresh_p99, samples: 0, slow_since }
    }
}

impl Latency {
    pub(crate) fn record(&mut self, took: Duration, now: Instant) {
        let nanos = took.as_nanos() as u64;
        self.mean_nanos = if self.samples == 0 { nanos } else { self.mean_nanos - self.mean_nanos / 16 + nanos / 16 };
        self.samples += 1;
        self.began[0].get_or_insert(now);
        self.counts[0][bucket(nanos / 1000)] += 1;
        self.seen += 1;
        if self.seen == WINDOW / 2 {
            self.close_half();
        }
        let is_fresh = self.began[1].is_some_and(|began| now.since(began) <= FRESH);
        self.fresh_p99 = self.p99.filter(|_| is_fresh);
    }

    fn close_half(&mut self) {
        if self.began[1].is_some() {
            let mut above = 0;
            let tail = (0..BUCKETS).rev().find(|&bucket| {
                above += usize::from(self.counts[0][bucket] + self.counts[1][bucket]);
                above > WINDOW / 100
            });
            self.p99 = tail.map(|bucket| Duration::from_micros(upper_bound(bucket)));
        }
        (self.counts, self.began) = ([[0; BUCKETS], self.counts[0]], [None, self.began[0]]);
        self.seen = 0;
    }

    /// Zero before the first answer.
    pub(crate) fn mean(&self) -> Duration {
        Duration::from_nanos(self.mean_nanos)
    }

    /// Of the last whole window, rounded up by an eighth at most; zero before there is one.
    pub(crate) fn p99(&self) -> Duration {
        self.p99.unwrap_or_default()
    }

    /// The same if the window was of the last seconds at the last answer.
    pub(crate) fn fresh_p99(&self) -> Option<Duration> {
        self.fresh_p99
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

fn bucket(micros: u64) -> usize {
    // Below 8 µs there are no eighths.
    let micros = micros.max(PARTS as u64);
    let power = micros.ilog2() as usize;
    let part = (micros >> (power - PARTS.ilog2() as usize)) as usize - PARTS;
    (power * PARTS + part).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> u64 {
    let (power, part) = (bucket / PARTS, bucket % PARTS);
    ((PARTS + part + 1) as u64) << (power - PARTS.ilog2() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    #[test]
    fn a_bucket_holds_what_its_bound_says() {
        for micros in (0..5000).chain([1 << 20, (1 << 23) - 1]) {
            let bound = upper_bound(bucket(micros));
            assert!(micros < bound && bound <= (micros + micros / 8 + 1).max(9), "{micros}: {bound}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_tail_is_that_of_the_last_window() {
        let mut latency = Latency::default();
        for i in 0..WINDOW {
            latency.record(Duration::from_micros(if i % 50 == 0 { 9000 } else { 100 }), NOW);
        }
        assert!(latency.p99() >= Duration::from_micros(9000) && latency.p99() <= Duration::from_micros(10_125));
        for _ in 0..WINDOW {
            latency.record(Duration::from_micros(100), NOW);
        }
        assert!(latency.p99() < Duration::from_micros(120));
    }

    #[test]
    fn a_tail_that_is_old_is_none_for_whoever_asks_for_the_present() {
        let mut latency = Latency::default();
        let at = |i: usize| Instant::from_nanos(i as u64 * 5_000_000);
        for i in 0..WINDOW {
            assert_eq!(latency.fresh_p99(), None);
            latency.record(Duration::from_micros(100), at(i));
        }
        assert!(latency.fresh_p99().is_some());
        latency.record(Duration::from_micros(100), at(WINDOW) + FRESH);
        assert_eq!((latency.fresh_p99(), latency.p99().is_zero()), (None, false));
        for i in WINDOW..3 * WINDOW {
            latency.record(Duration::from_micros(100), at(i * 10));
            assert_eq!(latency.fresh_p99(), None, "a guest that does little");
        }
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
