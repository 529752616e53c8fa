//! How likely it is that data is lost when three disks fail at once: in how many of all combinations of three disks
//! some volume has all its replicas. Counted, not drawn; against the same number of pieces placed at random.

use ashlar_types::DiskId;
use std::collections::BTreeSet;
use std::fmt;

/// So many of so many combinations of three disks lose something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub losing: u64,
    pub of: u64,
}

const BILLION: u128 = 1_000_000_000;

impl Loss {
    pub fn per_billion(self) -> u64 {
        match self.of {
            0 => 0,
            of => (u128::from(self.losing) * BILLION / u128::from(of)) as u64,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ppb = self.per_billion();
        write!(f, "{}.{:07} % ({} of {} combinations)", ppb / 10_000_000, ppb % 10_000_000, self.losing, self.of)
    }
}

/// `placements`: for each piece (a volume, or a run of its chunks) the disks of its replicas. Who has more than three
/// survives; two or one are lost with any third.
pub fn on_three_failures<'a>(placements: impl Iterator<Item = &'a [DiskId]>, disk_count: u64) -> Loss {
    let (mut singles, mut pairs, mut triples) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for disks in placements {
        let set: BTreeSet<DiskId> = disks.iter().copied().collect();
        let sorted: Vec<DiskId> = set.into_iter().collect();
        match sorted[..] {
            [one] => drop(singles.insert(one)),
            [one, two] => drop(pairs.insert((one, two))),
            [one, two, three] => drop(triples.insert((one, two, three))),
            _ => {}
        }
    }
    let of = combinations(disk_count);
    let others = disk_count.saturating_sub(singles.len() as u64);
    let with_single = of - combinations(others);
    pairs.retain(|(one, two)| !singles.contains(one) && !singles.contains(two));
    triples.retain(|(one, two, three)| {
        let has_single = [one, two, three].into_iter().any(|disk| singles.contains(disk));
        let has_pair = [(*one, *two), (*one, *three), (*two, *three)].iter().any(|pair| pairs.contains(pair));
        !has_single && !has_pair
    });
    Loss { losing: with_single + with_pair(&pairs, others) + triples.len() as u64, of }
}

/// Combinations of three of `others` disks that contain a pair: each pair with any third, and what two or three pairs
/// share counted once.
fn with_pair(pairs: &BTreeSet<(DiskId, DiskId)>, others: u64) -> u64 {
    let ends: BTreeSet<DiskId> = pairs.iter().flat_map(|&(one, two)| [one, two]).collect();
    let mut counted_before = 0;
    for &(one, two) in pairs {
        let earlier = |a: DiskId, b: DiskId| {
            let pair = (a.min(b), a.max(b));
            pair < (one, two) && pairs.contains(&pair)
        };
        let thirds = ends.iter().filter(|&&third| third != one && third != two);
        counted_before += thirds.filter(|&&third| earlier(one, third) || earlier(two, third)).count();
    }
    (pairs.len() as u64 * others.saturating_sub(2)).saturating_sub(counted_before as u64)
}

/// The expectation for `pieces` of three replicas, each on three disks drawn at random: what a system does that places
/// every chunk by itself.
pub fn at_random(pieces: u64, disk_count: u64) -> Loss {
    let of = combinations(disk_count);
    if of == 0 {
        return Loss { losing: 0, of };
    }
    // The share of combinations that no piece has: (1 - 1/of) ^ pieces, in fixed point.
    const ONE: u128 = 1 << 62;
    let (mut missed, mut factor, mut left) = (ONE, ONE - ONE / u128::from(of), pieces);
    while left > 0 {
        if left % 2 == 1 {
            missed = (missed * factor) >> 62;
        }
        factor = (factor * factor) >> 62;
        left /= 2;
    }
    Loss { losing: (((ONE - missed) * u128::from(of) + ONE / 2) >> 62) as u64, of }
}

fn combinations(disks: u64) -> u64 {
    let disks = u128::from(disks);
    u64::try_from(disks * disks.saturating_sub(1) * disks.saturating_sub(2) / 6).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
