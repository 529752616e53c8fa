//! What guests feel on each node, against what they felt while nothing was copied there: the mean, which shows a burst
//! at once, and the tail, which shows what the mean hides. A tail of some hundred requests is a rough figure, so it is
//! smoothed, and its quiet value more so, and it slows copies down by steps alone: it never counts as a burst.

use super::Latency;
use ashlar_types::{Duration, NodeName};
use std::collections::BTreeMap;

/// How long guests' requests take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Felt {
    pub mean: Duration,
    /// Their 99th percentile over the last seconds; `None`: too few of them.
    pub p99: Option<Duration>,
}

impl Felt {
    /// Of a node, by what each volume's guest feels of each of its disks: the slowest disk counts. Of a disk the mean
    /// is that of the volume that waits longest; tails are averaged, because the highest of many rough figures says
    /// how many there are.
    pub fn of_node(by_disk: &[Vec<Felt>]) -> Felt {
        let tail = |felt: &Vec<Felt>| {
            let tails: Vec<Duration> = felt.iter().filter_map(|felt| felt.p99).collect();
            let count = u32::try_from(tails.len()).ok().filter(|&count| count > 0)?;
            Some(tails.into_iter().sum::<Duration>() / count)
        };
        let mean = by_disk.iter().flatten().map(|felt| felt.mean).max().unwrap_or_default();
        Felt { mean, p99: by_disk.iter().filter_map(tail).max() }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Foreground {
    nodes: BTreeMap<NodeName, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    quiet_mean: Duration,
    tail: Option<Duration>,
    quiet_tail: Option<Duration>,
}

impl Foreground {
    /// Once for each report of a node with guests. The worse of the two measures.
    pub fn observe(&mut self, node: &NodeName, felt: Felt, is_copying: bool) -> Latency {
        let fresh = Known { quiet_mean: felt.mean, tail: None, quiet_tail: None };
        let known = self.nodes.entry(node.clone()).or_insert(fresh);
        known.tail = felt.p99.map(|p99| known.tail.map_or(p99, |tail| follow(tail, p99, 4)));
        if !is_copying {
            known.quiet_mean = follow(known.quiet_mean, felt.mean, 8);
        }
        if let Some(p99) = felt.p99 {
            let quiet = known.quiet_tail.get_or_insert(p99);
            if !is_copying {
                *quiet = follow(*quiet, p99, 16);
            }
        }
        let mean = Latency { now: felt.mean, quiet: known.quiet_mean };
        match (known.tail, known.quiet_tail) {
            (Some(now), Some(quiet)) => mean.or_worse(Latency { now: now.min(quiet * 7 / 5), quiet }),
            _ => mean,
        }
    }

    pub fn retain(&mut self, is_there: impl Fn(&NodeName) -> bool) {
        self.nodes.retain(|node, _| is_there(node));
    }
}

impl Latency {
    fn or_worse(self, other: Latency) -> Latency {
        let is_worse = other.now.as_nanos() * self.quiet.as_nanos() > self.now.as_nanos() * other.quiet.as_nanos();
        if is_worse { other } else { self }
    }
}

fn follow(value: Duration, next: Duration, over: u32) -> Duration {
    (value * (over - 1) + next) / over
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn felt(mean: u64, p99: u64) -> Felt {
        Felt { mean: us(mean), p99: (p99 > 0).then_some(us(p99)) }
    }

    #[test]
    fn the_worse_of_mean_and_tail_counts() {
        let node = "n".parse().unwrap();
        let mut foreground = Foreground::default();
        assert_eq!(foreground.observe(&node, felt(100, 1000), false), Latency { now: us(100), quiet: us(100) });
        let tail = foreground.observe(&node, felt(100, 2000), true);
        assert_eq!(tail, Latency { now: us(1250), quiet: us(1000) }, "a quarter of the way");
        let burst = foreground.observe(&node, felt(300, 1000), true);
        assert_eq!(burst, Latency { now: us(300), quiet: us(100) });
        let few = foreground.observe(&node, felt(110, 0), true);
        assert_eq!(few, Latency { now: us(110), quiet: us(100) }, "no tail");
    }

    #[test]
    fn a_tail_alone_is_no_burst() {
        let node = "n".parse().unwrap();
        let mut foreground = Foreground::default();
        foreground.observe(&node, felt(100, 1000), false);
        let wild = foreground.observe(&node, felt(100, 90_000), true);
        assert_eq!(wild, Latency { now: us(1400), quiet: us(1000) });
    }

    #[test]
    fn of_a_node_the_slowest_disk_counts() {
        let quick = vec![felt(100, 1000), felt(120, 3000), felt(90, 0)];
        assert_eq!(Felt::of_node(&[quick.clone(), vec![felt(300, 0)]]), felt(300, 2000));
        assert_eq!(Felt::of_node(&[quick, vec![felt(80, 2500)]]), felt(120, 2500));
        assert_eq!(Felt::of_node(&[vec![felt(5, 0)]]), felt(5, 0));
    }

    #[test]
    fn what_is_quiet_is_learnt_while_nothing_is_copied() {
        let node = "n".parse().unwrap();
        let mut foreground = Foreground::default();
        for _ in 0..100 {
            foreground.observe(&node, felt(100, 1000), false);
        }
        for _ in 0..100 {
            foreground.observe(&node, felt(130, 4000), true);
        }
        let busy = foreground.observe(&node, felt(130, 4000), true);
        assert_eq!((busy.quiet, busy.now), (us(1000), us(1400)));
        for _ in 0..200 {
            foreground.observe(&node, felt(200, 4000), false);
        }
        let calm = foreground.observe(&node, felt(200, 4000), true);
        assert!(calm.now.as_nanos() * 100 <= calm.quiet.as_nanos() * 101, "{calm:?}");
    }
}
