//! Latencies by the million in a few kilobytes: counts in bands, 32 to each doubling, so a percentile is right to about
//! 3 %.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Bands in which `BANDS` doublings are cut.
const PER_DOUBLING: u64 = 32;
const BANDS: usize = 40 * PER_DOUBLING as usize;

/// Counts of latencies in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: Duration,
    longest: Duration,
}

/// What is kept of a histogram, in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p95_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) p9999_us: f64,
    pub(crate) max_us: f64,
    /// (latency, share of the operations that took no longer), for the plot.
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; BANDS], count: 0, sum: Duration::ZERO, longest: Duration::ZERO }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.add_many(latency, 1);
    }

    pub(crate) fn add_many(&mut self, latency: Duration, count: u64) {
        self.counts[band(latency.as_nanos() as u64)] += count;
        self.count += count;
        self.sum += latency.mul_f64(count as f64);
        self.longest = self.longest.max(latency);
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.longest = self.longest.max(other.longest);
    }

    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.sum.as_secs_f64() / self.count.max(1) as f64)
    }

    /// The latency that this share of the operations did not exceed, in microseconds.
    pub(crate) fn percentile_us(&self, percent: f64) -> f64 {
        let wanted = (self.count as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (band, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return (middle(band) / 1e3).min(self.longest.as_secs_f64() * 1e6);
            }
        }
        0.0
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let mut seen = 0;
        let occupied = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let curve = occupied.map(|(band, count)| {
            seen += count;
            (middle(band) / 1e3, seen as f64 / self.count as f64)
        });
        Percentiles {
            curve: curve.collect(),
            count: self.count,
            mean_us: self.mean().as_secs_f64() * 1e6,
            p50_us: self.percentile_us(50.0),
            p95_us: self.percentile_us(95.0),
            p99_us: self.percentile_us(99.0),
            p999_us: self.percentile_us(99.9),
            p9999_us: self.percentile_us(99.99),
            max_us: self.longest.as_secs_f64() * 1e6,
        }
    }
}

/// Below `PER_DOUBLING` each nanosecond has its own; from there on the leading bits decide.
fn band(nanoseconds: u64) -> usize {
    if nanoseconds < PER_DOUBLING {
        return nanoseconds as usize;
    }
    let shift = nanoseconds.ilog2() - PER_DOUBLING.ilog2();
    let within = (nanoseconds >> shift) - PER_DOUBLING;
    let band = PER_DOUBLING * u64::from(shift + 1) + within;
    (band as usize).min(BANDS - 1)
}

/// Nanoseconds in the middle of a band.
fn middle(band: usize) -> f64 {
    let band = band as u64;
    if band < PER_DOUBLING {
        return band as f64;
    }
    let shift = band / PER_DOUBLING - 1;
    ((PER_DOUBLING + band % PER_DOUBLING) << shift) as f64 + (1u64 << shift) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_right_to_three_percent_at_any_size() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|us| histogram.add(Duration::from_micros(us)));
        for percent in [1.0, 50.0, 99.0, 99.9] {
            let exact = 1000.0 * percent;
            let found = histogram.percentile_us(percent);
            assert!((found - exact).abs() <= exact * 0.032, "{percent}: {found} is not {exact}");
        }
        assert_eq!(histogram.count(), 100_000);
        assert!((histogram.mean().as_secs_f64() - 0.05).abs() < 0.001);
    }

    #[test]
    fn bands_follow_each_other_without_a_hole_and_the_longest_is_the_last_percentile() {
        for nanoseconds in 1..100_000u64 {
            let step = band(nanoseconds) - band(nanoseconds - 1);
            assert!(step <= 1, "{nanoseconds} leaves a band out");
        }
        assert_eq!(band(u64::MAX), BANDS - 1);
        let mut histogram = Histogram::default();
        histogram.add(Duration::from_millis(7));
        let told = histogram.percentiles();
        assert!(told.p9999_us <= told.max_us && told.max_us == 7000.0);
        assert_eq!(told.curve.last().unwrap().1, 1.0);
    }

    #[test]
    fn merged_histograms_are_as_one() {
        let (mut one, mut other, mut both) = (Histogram::default(), Histogram::default(), Histogram::default());
        for us in 1..500 {
            one.add(Duration::from_micros(us));
            other.add(Duration::from_micros(us * 3));
            both.add(Duration::from_micros(us));
            both.add(Duration::from_micros(us * 3));
        }
        one.merge(&other);
        assert_eq!(one.percentile_us(99.0), both.percentile_us(99.0));
        assert_eq!(one.mean(), both.mean());
    }
}
