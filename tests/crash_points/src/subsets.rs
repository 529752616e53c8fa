//! Which of the loose sectors persist: every subset while there are few, else those that have found bugs elsewhere.

/// A small generator (SplitMix64) for the choices that are not enumerated; the same seed gives the same choices.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// How much is tried at one boundary.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Up to so many loose sectors every subset is tried.
    pub exhaustive: usize,
    /// Up to so many, each one alone is tried, and all but each; beyond, every few of them.
    pub single: usize,
    /// Subsets drawn at random.
    pub random: usize,
}

/// The subsets of `count` sectors to try: `true` persists.
pub fn subsets(count: usize, bounds: Bounds, seed: u64) -> Vec<Vec<bool>> {
    if count <= bounds.exhaustive {
        return (0..1u64 << count).map(|mask| (0..count).map(|i| mask & (1 << i) != 0).collect()).collect();
    }
    let mut all = vec![vec![false; count], vec![true; count]];
    let step = count.div_ceil(bounds.single.max(1));
    for one in (0..count).step_by(step) {
        all.push((0..count).map(|i| i == one).collect());
        all.push((0..count).map(|i| i != one).collect());
        all.push((0..count).map(|i| i < one).collect());
    }
    let mut random = Random(seed);
    for _ in 0..bounds.random {
        let mut bits = 0;
        let drawn = (0..count).map(|i| {
            if i % 64 == 0 {
                bits = random.next();
            }
            bits & (1 << (i % 64)) != 0
        });
        all.push(drawn.collect());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const BOUNDS: Bounds = Bounds { exhaustive: 4, single: 8, random: 3 };

    #[test]
    fn few_sectors_have_every_subset_once() {
        let all: BTreeSet<_> = subsets(4, BOUNDS, 1).into_iter().collect();
        assert_eq!(all.len(), 16);
        assert_eq!(subsets(0, BOUNDS, 1), [vec![]]);
    }

    #[test]
    fn many_sectors_have_none_all_singles_prefixes_and_some_more() {
        let all = subsets(100, BOUNDS, 1);
        assert!(all.len() < 50 && all.contains(&vec![false; 100]) && all.contains(&vec![true; 100]));
        assert_eq!(all, subsets(100, BOUNDS, 1));
    }
}
