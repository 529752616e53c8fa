//! Snapshots as replicas know them: points in the order of writes. The writes after a point carry it as their floor,
//! and a slot's versions are named by the floors under which they were written.

use crate::Lsn;

/// Live snapshots of one volume at most, its clones' points included.
pub const SNAPSHOTS_MAX: usize = 256;

/// Versions whose floors are `from` or above, and below `below`. What a snapshot at `s` reads is `..s`; the changes
/// between two snapshots are `a..b`; everything is [`FloorRange::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FloorRange {
    pub from: Lsn,
    pub below: Lsn,
}

impl FloorRange {
    pub const ALL: FloorRange = FloorRange { from: Lsn::ZERO, below: Lsn::MAX };

    pub fn contains(self, floor: Lsn) -> bool {
        self.from <= floor && floor < self.below
    }

    pub fn is_valid(self) -> bool {
        self.from < self.below
    }
}

/// Which snapshot points of a volume are needed. Points up to `until` that are not among `live` never will be again:
/// versions on both sides of such a point may become one. Of points after `until` nothing is said.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Kept {
    /// Ascending, at most [`SNAPSHOTS_MAX`], none above `until`.
    pub live: Vec<Lsn>,
    pub until: Lsn,
}

impl Kept {
    pub fn is_valid(&self) -> bool {
        let ascending = self.live.windows(2).all(|pair| pair[0] < pair[1]);
        let within = self.live.last().is_none_or(|&last| last <= self.until) && self.live.first() != Some(&Lsn::ZERO);
        ascending && within && self.live.len() <= SNAPSHOTS_MAX
    }

    /// Whether versions on both sides of `point` may have become one.
    pub fn gave_up(&self, point: Lsn) -> bool {
        point <= self.until && !self.live.contains(&point)
    }

    /// Whether somebody may need to tell a version under `older` from one under `newer`.
    pub fn separates(&self, older: Lsn, newer: Lsn) -> bool {
        assert!(older < newer);
        newer > self.until || self.live.iter().any(|&point| older < point && point <= newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(raw: u64) -> Lsn {
        Lsn::from_raw(raw)
    }

    #[test]
    fn versions_are_told_apart_by_live_points_and_by_unknown_ones() {
        let kept = Kept { live: vec![at(10), at(20)], until: at(30) };
        assert!(kept.is_valid());
        for (older, newer, expected) in [(0, 9, false), (0, 10, true), (10, 19, false), (19, 21, true), (20, 30, false)]
        {
            assert_eq!(kept.separates(at(older), at(newer)), expected, "{older} {newer}");
        }
        assert!(kept.separates(at(20), at(31)), "nothing is known of points after `until`");
    }

    #[test]
    fn what_cannot_be_is_told() {
        let all: Vec<Lsn> = (1..=SNAPSHOTS_MAX as u64 + 1).map(at).collect();
        for (live, until) in
            [(vec![at(2), at(1)], 9), (vec![at(5), at(5)], 9), (vec![at(10)], 9), (vec![at(0)], 9), (all, 999)]
        {
            assert!(!Kept { live, until: at(until) }.is_valid());
        }
        assert!(Kept::default().is_valid());
    }
}
