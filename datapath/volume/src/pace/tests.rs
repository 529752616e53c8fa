//! The rate at which a returning disk is filled.

use super::*;
use crate::Event;
use crate::testing::{Bench, OUT, disk, record};
use ashlar_types::MemberState;
use ashlar_wire::Request;

const IN: MemberState = MemberState::InSync;

/// One is out and has `slots` slots to be filled, at this rate.
fn returning(slots: u64, rate: Option<u64>) -> Bench {
    let mut bench = Bench::new(record(&[IN, IN, OUT(0)]));
    for slot in 0..slots {
        for index in 0..2 {
            bench.replicas[index].had(0, slot * 16, 10 + slot, 7);
        }
    }
    bench.replicas[2].down = true;
    bench.start();
    bench.event(Event::Pace { bytes_per_second: rate, source: None });
    bench.come_back(2);
    bench
}

fn fills(bench: &Bench) -> u64 {
    bench.replicas[2].log.iter().filter(|request| matches!(request, Request::Fill { .. })).count() as u64
}

#[test]
fn slots_come_at_the_rate_that_was_given() {
    let mut bench = returning(100, Some(10 * SLOT_BYTES));
    bench.advance(Duration::from_secs(2));
    let begun = fills(&bench);
    bench.advance(Duration::from_secs(4));
    assert!((39..=41).contains(&(fills(&bench) - begun)), "{} of 40", fills(&bench) - begun);
    bench.event(Event::Pace { bytes_per_second: None, source: None });
    bench.advance(Duration::from_millis(10));
    assert_eq!((fills(&bench), bench.state(2)), (100, IN));
}

#[test]
fn nothing_is_copied_at_rate_zero_and_nothing_ticks_for_it() {
    let mut bench = returning(5, Some(0));
    bench.advance(Duration::from_secs(3));
    assert_eq!(fills(&bench), 0);
    let write = bench.write(0, 1, 9);
    bench.settle();
    assert!(bench.is_done(write), "writes go on");
    bench.event(Event::Pace { bytes_per_second: Some(1 << 30), source: None });
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.state(2), IN);
}

#[test]
fn a_rate_that_is_not_said_again_is_forgotten() {
    let mut bench = returning(50, Some(0));
    bench.advance(Duration::from_secs(8));
    assert_eq!(fills(&bench), 0);
    bench.advance(Duration::from_secs(3));
    assert_eq!((fills(&bench), bench.state(2)), (50, IN));
}

#[test]
fn the_rate_does_not_count_where_writes_wait_for_the_copy() {
    let mut bench = Bench::new(record(&[IN, OUT(0), OUT(0)]));
    bench.replicas[0].had(0, 0, 10, 7);
    bench.replicas[2].down = true;
    bench.event(Event::Pace { bytes_per_second: Some(0), source: None });
    bench.start();
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.state(1), IN);
}

#[test]
fn slots_are_read_where_the_planner_says_and_elsewhere_when_that_disk_cannot() {
    let reads = |bench: &Bench, index: usize| {
        bench.replicas[index].log.iter().filter(|request| matches!(request, Request::ReadSlot { .. })).count()
    };
    for (named, read, other) in [(0, 0, 1), (1, 1, 0), (2, 1, 0)] {
        let mut bench = returning(20, Some(20 * SLOT_BYTES));
        let source = Some(disk(named));
        bench.event(Event::Pace { bytes_per_second: Some(20 * SLOT_BYTES), source });
        bench.advance(Duration::from_secs(3));
        assert_eq!((reads(&bench, read), reads(&bench, other)), (20, 0), "named: {named}");
        assert_eq!(bench.state(2), IN);
    }
}

#[test]
fn many_slots_are_under_way_only_where_the_rate_says_that_nobody_feels_it() {
    let config = Config::new("n1".parse().unwrap(), None);
    let at = |rate: Option<u64>| {
        let mut pace = Pace::default();
        pace.set(Instant::ZERO, rate, None);
        pace.slots_max(&config)
    };
    assert_eq!(at(None), config.copies_inflight_max);
    assert_eq!([at(Some(0)), at(Some(64 << 20))], [PACED_SLOTS_MIN; 2]);
    assert_eq!(at(Some(RATE_OF_ALL / 2)), config.paced_copies_max / 4);
    assert_eq!([at(Some(RATE_OF_ALL)), at(Some(u64::MAX))], [config.paced_copies_max; 2]);
}
