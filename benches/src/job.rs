//! One measurement: what is done, how many at once, for how long; and what came of it.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// Durable when it is answered.
    Write,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) access: Access,
    pub(crate) bytes: u32,
    pub(crate) depth: usize,
    pub(crate) sequential: bool,
    pub(crate) duration: Duration,
}

/// Latencies of the operations that began and ended within the measured time.
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    latencies: Vec<Duration>,
    /// Longest time in which nothing was answered.
    pub(crate) longest_gap: Duration,
}

impl Outcome {
    pub(crate) fn new(elapsed: Duration, mut latencies: Vec<Duration>, longest_gap: Duration) -> Outcome {
        latencies.sort_unstable();
        Outcome { elapsed, latencies, longest_gap }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn mean(&self) -> Duration {
        self.latencies.iter().sum::<Duration>() / (self.latencies.len().max(1) as u32)
    }
}

/// SplitMix64: the same offsets in every run, so that candidates do the same work.
pub(crate) struct Offsets {
    state: u64,
    next: u64,
    count: u64,
    sequential: bool,
}

impl Offsets {
    /// Positions in units of the job's size within `span_bytes`.
    pub(crate) fn new(job: &Job, span_bytes: u64, seed: u64) -> Offsets {
        Offsets { state: seed, next: 0, count: span_bytes / u64::from(job.bytes), sequential: job.sequential }
    }

    pub(crate) fn next(&mut self) -> u64 {
        if self.sequential {
            self.next = (self.next + 1) % self.count;
            return self.next;
        }
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % self.count
    }
}
