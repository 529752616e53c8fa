//! The law against models of disks whose latency rises with load.

use super::*;
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};

const DISK: u64 = 400 << 20;

/// Latency in microseconds at a load in thousandths: flat at first, then a wall. `knee`: how late the wall comes.
fn latency_us(load_permille: u64, knee: i32) -> u64 {
    let load = load_permille.min(995) as f64 / 1000.0;
    (200.0 * (1.0 + load.powi(knee) / (1.0 - load))) as u64
}

struct Run {
    rates: Vec<u64>,
    q_permille: Vec<u64>,
}

/// `foreground`: load in thousandths at each second.
fn run(bounds: &Bounds, knee: i32, seconds: u64, foreground: impl Fn(u64) -> u64) -> Run {
    let name: NodeName = "n".parse().unwrap();
    let mut pace = Pace::default();
    let mut run = Run { rates: vec![], q_permille: vec![] };
    let mut copied = 0;
    for second in 0..seconds {
        let quiet_us = latency_us(foreground(second), knee);
        let now_us = latency_us(foreground(second) + copied * 1000 / DISK, knee);
        let latency = Latency { now: Duration::from_micros(now_us), quiet: Duration::from_micros(quiet_us) };
        let known = super::super::NodeSeen {
            zone: None,
            is_silent: false,
            is_draining: false,
            may_attach: true,
            foreground: (foreground(second) > 0).then_some(latency),
        };
        let seen = Seen { nodes: BTreeMap::from([(name.clone(), known)]), ..Seen::default() };
        pace.observe(&seen, bounds, Duration::from_secs(second));
        copied = pace.rate(&name).0;
        pace.gave(&BTreeMap::from([(name.clone(), BytesPerSecond(copied))]));
        run.rates.push(copied);
        run.q_permille.push(now_us * 1000 / quiet_us);
    }
    run
}

fn bounds() -> Bounds {
    Bounds { node_ceiling: BytesPerSecond(DISK), ..Bounds::default() }
}

fn p99(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() * 99 / 100]
}

#[test]
fn business_io_feels_little_and_copies_get_a_quarter_of_idle() {
    for (knee, load) in [(4, 200), (6, 300), (8, 400), (8, 100)] {
        let run = run(&bounds(), knee, 600, |_| load);
        let (rates, qs) = (&run.rates[60..], &run.q_permille[60..]);
        let mean = rates.iter().sum::<u64>() / rates.len() as u64;
        println!("knee {knee}, load {load}: q p99 {}, copies {} % of idle", p99(qs), mean * 100 / DISK);
        assert!(p99(qs) <= 1300, "knee {knee}, load {load}: {}", p99(qs));
        assert!(mean * 4 >= DISK, "knee {knee}, load {load}: {mean}");
        let (least, most) = (rates.iter().min().unwrap(), rates.iter().max().unwrap());
        assert!(least * 4 >= most * 3, "it does not settle: {least} to {most}");
    }
}

/// A tail that rises with what is copied while the mean stays, told as roughly as 512 requests tell it.
#[test]
fn a_tail_that_suffers_alone_slows_copies_down() {
    use super::super::{Felt, Foreground};
    let (bounds, node) = (bounds(), "n".parse().unwrap());
    let mut noise = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut tail = |copied: u64| 1500.0 * (1.0 + copied as f64 / DISK as f64) * noise.random_range(0.75..1.3);
    let (mut foreground, mut pace) = (Foreground::default(), NodePace::new(&bounds));
    let (mut rates, mut tails) = (vec![], vec![]);
    for second in 0..1060 {
        let felt = tail(pace.given.0);
        let p99 = Some(Duration::from_micros(felt as u64));
        let latency = foreground.observe(&node, Felt { mean: Duration::from_micros(300), p99 }, second >= 60);
        pace.rate = next(pace.rate, pace.given, Some(latency), &bounds);
        pace.given = if second >= 60 { pace.rate } else { BytesPerSecond::ZERO };
        if second >= 120 {
            rates.push(pace.rate.0);
            tails.push(felt as u64);
        }
    }
    let mean = |values: &[u64]| values.iter().sum::<u64>() / values.len() as u64;
    println!("copies {} % of idle, tail {} us of 1500", mean(&rates) * 100 / DISK, mean(&tails));
    assert!(mean(&tails) <= 1500 * 13 / 10 * 41 / 40, "{} us", mean(&tails));
    assert!(mean(&rates) * 8 >= DISK, "{} of {DISK}", mean(&rates));
}

#[test]
fn the_floor_holds_and_idle_capacity_is_taken_at_once() {
    let bounds = bounds();
    let busy = run(&bounds, 4, 100, |_| 950);
    assert!(busy.rates.iter().all(|&rate| rate >= bounds.node_floor.0));
    assert_eq!(busy.rates[99], bounds.node_floor.0);
    let idle = run(&bounds, 4, 10, |_| 0);
    assert_eq!(idle.rates[0], DISK);
}

#[test]
fn a_burst_is_made_room_for_within_seconds() {
    let run = run(&bounds(), 6, 200, |second| if second < 100 { 100 } else { 500 });
    assert!(run.q_permille[104..].iter().all(|&q| q <= 1300), "{:?}", &run.q_permille[100..120]);
}

#[test]
fn above_the_band_copies_slow_down_and_within_it_they_rest() {
    let (bounds, rate) = (bounds(), BytesPerSecond::mib(64));
    let at = |q: u64| {
        let latency = Latency { now: Duration::from_micros(q), quiet: Duration::from_micros(1000) };
        next(rate, rate, Some(latency), &bounds)
    };
    assert_eq!((at(1600), at(1300), at(1200)), (BytesPerSecond::mib(32), BytesPerSecond::mib(56), rate));
    assert!(at(1100) > rate);
}

#[test]
fn a_rate_that_nobody_uses_does_not_grow() {
    let (bounds, some) = (bounds(), Latency { now: Duration::from_micros(1), quiet: Duration::from_micros(1) });
    let rate = BytesPerSecond::mib(50);
    assert_eq!(next(rate, BytesPerSecond::mib(10), Some(some), &bounds), rate);
    assert!(next(rate, rate, Some(some), &bounds) > rate);
    let begins = BytesPerSecond(bounds.node_ceiling.0 / BEGINS);
    assert_eq!(next(rate, BytesPerSecond::ZERO, Some(some), &bounds), begins, "nothing was copied");
    assert_eq!(next(rate, BytesPerSecond::ZERO, None, &bounds), bounds.node_ceiling, "nobody is there to feel it");
    let unknown = Latency { now: Duration::from_micros(1), quiet: Duration::ZERO };
    assert_eq!(permille(unknown), None);
    assert_eq!(permille(Latency { now: Duration::MAX, quiet: Duration::from_nanos(1) }), Some(u32::MAX));
}
