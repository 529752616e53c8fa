//! A member that shall go.

use crate::testing::{Bench, OUT, disk, record};
use crate::{Event, Notice};
use ashlar_types::*;

const IN: MemberState = MemberState::InSync;

fn ejections(bench: &Bench) -> Vec<Change> {
    let changes = bench.proposed.iter().map(|(_, change)| change.clone());
    changes.filter(|change| matches!(change, Change::Eject { .. })).collect()
}

fn let_go(bench: &mut Bench, index: usize) {
    bench.event(Event::LetGo { disk: disk(index) });
    bench.settle();
}

#[test]
fn it_goes_with_everything_that_is_acknowledged_and_reads_go_on() {
    let mut bench = Bench::serving(&[IN; 4]);
    let write = bench.write(0, 3, 5);
    bench.settle();
    assert!(bench.is_done(write));
    let_go(&mut bench, 0);
    bench.advance(Duration::from_secs(1));
    let commit = bench.volume.status().commit;
    let [Change::Eject { disks, commit: with, .. }] = &ejections(&bench)[..] else { panic!("one ejection") };
    assert_eq!((&disks[..], *with), (&[disk(0)][..], commit));
    assert!(matches!(bench.state(0), MemberState::Out { .. }));
    let write = bench.write(0, 3, 6);
    let read = bench.read(0, 3);
    bench.settle();
    assert!(bench.is_done(write) && bench.is_done(read));
}

#[test]
fn nobody_goes_while_another_holder_is_missing() {
    let mut bench = Bench::new(record(&[IN, IN, IN, OUT(0)]));
    bench.replicas[3].down = true;
    bench.start();
    let_go(&mut bench, 0);
    bench.advance(Duration::from_secs(3));
    assert_eq!(ejections(&bench), []);
    // It comes, and the one that shall go goes, if that is still wished for.
    bench.come_back(3);
    bench.advance(Duration::from_secs(3));
    assert_eq!((bench.state(3), ejections(&bench).len()), (IN, 1));
}

#[test]
fn nobody_goes_while_another_holder_is_silent() {
    let mut bench = Bench::serving(&[IN; 4]);
    bench.mute[2] = true;
    bench.advance(Duration::from_millis(10));
    let_go(&mut bench, 0);
    assert_eq!(ejections(&bench), []);
    bench.mute[2] = false;
    bench.advance(Duration::from_millis(600));
    assert_eq!(ejections(&bench).len(), 1);
}

#[test]
fn what_is_not_said_again_is_forgotten_and_one_that_went_returns() {
    let mut bench = Bench::serving(&[IN; 4]);
    let_go(&mut bench, 0);
    bench.advance(Duration::from_secs(5));
    assert!(matches!(bench.state(0), MemberState::Out { .. }));
    bench.advance(Duration::from_secs(10));
    assert_eq!(bench.state(0), IN);
}

#[test]
fn one_that_was_returning_stops() {
    let mut bench = Bench::new(record(&[IN, IN, OUT(0)]));
    bench.replicas[0].had(0, 400, 100, 2);
    bench.replicas[1].had(0, 400, 100, 2);
    bench.replicas[2].down = true;
    bench.start();
    bench.event(Event::Pace { bytes_per_second: Some(0), source: None });
    bench.come_back(2);
    bench.advance(Duration::from_secs(1));
    assert!(matches!(bench.state(2), MemberState::Syncing { .. }));
    let_go(&mut bench, 2);
    assert!(bench.notices.iter().any(|notice| matches!(notice, Notice::ReturnAbandoned { .. })));
    bench.event(Event::Pace { bytes_per_second: None, source: None });
    bench.advance(Duration::from_secs(5));
    assert!(matches!(bench.state(2), MemberState::Syncing { .. }));
}

#[test]
fn where_writes_wait_for_one_more_even_the_unwanted_returns() {
    let mut bench = Bench::new(record(&[IN, OUT(0), OUT(0)]));
    bench.replicas[2].down = true;
    bench.start();
    bench.event(Event::LetGo { disk: disk(1) });
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.state(1), IN);
}
