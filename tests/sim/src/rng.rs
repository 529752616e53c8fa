//! Randomness of a seed: SplitMix64 (Steele, Lea, Flood 2014), one independent stream for each purpose.
//!
//! Streams are named, so that a draw more in one part of the simulator does not shift the draws of another.

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream `name` of `seed`.
    pub fn named(seed: u64, name: &str) -> Rng {
        let mut state = seed ^ 0x9E37_79B9_7F4A_7C15;
        for byte in name.bytes() {
            state = mix(state ^ u64::from(byte)).wrapping_add(0x9E37_79B9_7F4A_7C15);
        }
        Rng(state)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Uniform in `0..limit`; `limit` must not be zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0);
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high);
        low + self.below(high - low + 1)
    }

    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True in `per_million` of a million draws.
    pub fn chance(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(per_million)
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// Mostly near `low`, with a long tail up to `high`: latencies.
    pub fn tail(&mut self, low: u64, high: u64) -> u64 {
        let span = high - low;
        let unit = self.below(1 << 20);
        let cubed = (((unit * unit) >> 20) * unit) >> 20;
        low + ((u128::from(span) * u128::from(cubed)) >> 20) as u64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_and_repeat() {
        assert_eq!(Rng::named(1, "net").next(), Rng::named(1, "net").next());
        assert_ne!(Rng::named(1, "net").next(), Rng::named(1, "disk").next());
        assert_ne!(Rng::named(1, "net").next(), Rng::named(2, "net").next());
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut rng = Rng::named(7, "bounds");
        for _ in 0..10_000 {
            assert!((5..=9).contains(&rng.range(5, 9)));
            assert!((100..=1000).contains(&rng.tail(100, 1000)));
        }
    }
}
