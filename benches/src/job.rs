//! One measurement: what is done, how many at once, for how long; and what came of it. The words are fio's.

use crate::histogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// Durable when it is answered.
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pattern {
    Random,
    Sequential,
    /// Exponent 1.1: few places are written very often.
    Zipf,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Share of reads, in percent: 0 writes only.
    pub(crate) read_percent: u8,
    pub(crate) bytes: u32,
    pub(crate) depth: usize,
    pub(crate) pattern: Pattern,
    /// Operations begun in a second. `None`: the next begins when one is answered.
    pub(crate) per_second: Option<u32>,
    pub(crate) until: Until,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Until {
    Elapsed(Duration),
    /// Every place was the turn once.
    Through,
}

impl Job {
    pub(crate) const fn write(bytes: u32, depth: usize) -> Job {
        Job { read_percent: 0, bytes, depth, pattern: Pattern::Random, per_second: None, until: Until::Through }
    }

    pub(crate) const fn read(bytes: u32, depth: usize) -> Job {
        Job { read_percent: 100, ..Job::write(bytes, depth) }
    }

    pub(crate) const fn mixed(self, read_percent: u8) -> Job {
        Job { read_percent, ..self }
    }

    pub(crate) const fn pattern(self, pattern: Pattern) -> Job {
        Job { pattern, ..self }
    }

    pub(crate) const fn lasting(self, duration: Duration) -> Job {
        Job { until: Until::Elapsed(duration), ..self }
    }

    /// How much of what is asked for is written.
    pub(crate) fn written_share(&self) -> f64 {
        f64::from(100 - self.read_percent) / 100.0
    }
}

/// Operations that began and ended within the measured time.
#[derive(Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    pub(crate) latencies: Histogram,
    /// Longest time in which nothing was answered.
    pub(crate) longest_gap: Duration,
    /// Answers in each second.
    pub(crate) seconds: Vec<u32>,
    /// Of who asked, where that is not this process: processor time and context switches.
    pub(crate) asker: (Duration, u64),
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.count() as f64 / self.elapsed.as_secs_f64()
    }
}
