//! Where operations go: the same places in every run, so that candidates do the same work.

use crate::job::{Job, Pattern};

/// Of the Zipf distribution; fio's documentation calls it theta.
const EXPONENT: f64 = 1.1;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Noise {
        Noise(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to 1, without 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub(crate) struct Offsets {
    noise: Noise,
    next: u64,
    count: u64,
    pattern: Pattern,
}

impl Offsets {
    /// Positions in units of the job's size within `span_bytes`.
    pub(crate) fn new(job: &Job, span_bytes: u64, seed: u64) -> Offsets {
        let count = span_bytes / u64::from(job.bytes);
        assert!(count > 0);
        Offsets { noise: Noise::new(seed), next: 0, count, pattern: job.pattern }
    }

    pub(crate) fn next(&mut self) -> u64 {
        match self.pattern {
            Pattern::Random => self.noise.next() % self.count,
            Pattern::Sequential => {
                self.next = (self.next + 1) % self.count;
                self.next
            }
            // The frequent ones lie anywhere, not side by side.
            Pattern::Zipf => self.rank().wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.count,
        }
    }

    /// 1 is the most frequent: the inversion of Hörmann and Derflinger (1996) without its rejection, whose error is
    /// below what a cache could notice.
    fn rank(&mut self) -> u64 {
        let integral = |x: f64| (x.powf(1.0 - EXPONENT) - 1.0) / (1.0 - EXPONENT);
        let inverse = |y: f64| (1.0 + y * (1.0 - EXPONENT)).powf(1.0 / (1.0 - EXPONENT));
        let (low, high) = (integral(1.5) - 1.0, integral(self.count as f64 + 0.5));
        let drawn = inverse(low + self.noise.fraction() * (high - low));
        (drawn.round() as u64).clamp(1, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn drawn(pattern: Pattern, seed: u64) -> Vec<u64> {
        let mut offsets = Offsets::new(&Job::write(4096, 1).pattern(pattern), 4096 * 10_000, seed);
        (0..100_000).map(|_| offsets.next()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_places_and_all_lie_within() {
        for pattern in [Pattern::Random, Pattern::Sequential, Pattern::Zipf] {
            let places = drawn(pattern, 3);
            assert_eq!(places, drawn(pattern, 3));
            assert!(places.iter().all(|place| *place < 10_000));
        }
        assert_ne!(drawn(Pattern::Random, 3), drawn(Pattern::Random, 4));
    }

    #[test]
    fn zipf_has_the_frequencies_that_its_exponent_says() {
        let mut counts: HashMap<u64, u64> = HashMap::new();
        drawn(Pattern::Zipf, 1).into_iter().for_each(|place| *counts.entry(place).or_default() += 1);
        let mut counts: Vec<u64> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let sum: f64 = (1..=10_000).map(|rank| f64::from(rank).powf(-EXPONENT)).sum();
        for rank in [1usize, 2, 10] {
            let expected = 100_000.0 * (rank as f64).powf(-EXPONENT) / sum;
            let found = counts[rank - 1] as f64;
            assert!((found / expected - 1.0).abs() < 0.12, "rank {rank}: {found} drawn, {expected:.0} expected");
        }
    }
}
