//! One instant for several volumes.

use super::*;
use crate::testing::{Bench, record};
use crate::{Event, Tag};
use ashlar_types::{Lsn, MemberState};
use proptest::prelude::*;

const IN: MemberState = MemberState::InSync;
const AT_MOST: Duration = Duration::from_millis(500);

fn id(number: u128) -> SnapshotId {
    SnapshotId::from_u128(number)
}

impl Bench {
    fn hold(&mut self, number: u128) -> Result<(), SnapshotError> {
        self.event(Event::Hold { id: id(number), at_most: AT_MOST });
        self.holds.pop().expect("it is answered at once").1
    }

    fn point_of_held(&mut self, number: u128) {
        self.event(Event::Snapshot { id: id(number), held: true });
    }

    fn held_for(&self) -> Vec<Duration> {
        let held = self.notices.iter().filter_map(|notice| match notice {
            Notice::WritesHeld { duration, .. } => Some(*duration),
            _ => None,
        });
        held.collect()
    }
}

fn serving() -> Bench {
    Bench::serving(&[IN; 3])
}

#[test]
fn writes_wait_for_the_point_and_go_on_at_once() {
    let mut bench = serving();
    let before = bench.write(0, 1, 1);
    assert_eq!(bench.hold(1), Ok(()));
    let after = bench.write(0, 1, 2);
    bench.settle();
    assert!(bench.is_done(before) && !bench.is_done(after), "what was issued before goes on, what comes now waits");
    bench.now = bench.now + Duration::from_millis(3);
    bench.point_of_held(1);
    bench.settle();
    assert!(bench.is_done(after));
    let point = bench.snapshots[0].1.clone().unwrap();
    let below = |below: Lsn| bench.replicas[0].byte_below(0, 0, below);
    assert_eq!([below(point), below(Lsn::MAX)], [1, 2]);
    assert_eq!(bench.held_for(), [Duration::from_millis(3)]);
}

#[test]
fn a_hold_ends_by_itself_and_then_there_is_no_point() {
    let mut bench = serving();
    assert_eq!(bench.hold(1), Ok(()));
    let write = bench.write(0, 1, 1);
    bench.advance(AT_MOST * 2);
    assert!(bench.is_done(write));
    bench.point_of_held(1);
    bench.settle();
    assert_eq!(bench.snapshots, [(id(1), Err(SnapshotError::Lapsed))]);
    assert!(bench.catalog.snapshots.is_empty());
}

/// The process was stopped, and the tick has not come yet.
#[test]
fn a_point_that_comes_too_late_is_refused_though_nothing_was_issued_yet() {
    let mut bench = serving();
    assert_eq!(bench.hold(1), Ok(()));
    bench.now = bench.now + AT_MOST;
    bench.point_of_held(1);
    assert_eq!(bench.snapshots, [(id(1), Err(SnapshotError::Lapsed))]);
}

#[test]
fn asked_again_a_hold_goes_on_and_is_not_longer() {
    let mut bench = serving();
    assert_eq!(bench.hold(1), Ok(()));
    bench.advance(Duration::from_millis(400));
    assert_eq!(bench.hold(1), Ok(()));
    bench.advance(Duration::from_millis(101));
    bench.point_of_held(1);
    assert_eq!(bench.snapshots, [(id(1), Err(SnapshotError::Lapsed))]);
}

#[test]
fn one_at_a_time() {
    let mut bench = serving();
    assert_eq!(bench.hold(1), Ok(()));
    assert_eq!(bench.hold(2), Err(SnapshotError::Busy));
    bench.event(Event::Snapshot { id: id(3), held: false });
    bench.settle();
    assert!(bench.snapshots.is_empty(), "another snapshot waits until the writes go on");
    bench.point_of_held(1);
    bench.settle();
    let taken: Vec<SnapshotId> = bench.snapshots.iter().map(|(id, _)| *id).collect();
    assert_eq!(taken, [id(1), id(3)]);
    bench.catalog_up = false;
    bench.event(Event::Snapshot { id: id(4), held: false });
    assert_eq!(bench.hold(5), Err(SnapshotError::Busy), "its point would not come at once");
}

#[test]
fn a_detach_ends_a_hold_and_none_begins_where_nothing_is_served() {
    let mut bench = serving();
    assert_eq!(bench.hold(1), Ok(()));
    let write = bench.write(0, 1, 1);
    bench.event(Event::Detach);
    bench.settle();
    assert!(bench.is_done(write) && bench.ended.is_some());
    assert_eq!(bench.hold(2), Err(SnapshotError::Closed));
    let mut attaching = Bench::new(record(&[IN; 3]));
    assert_eq!(attaching.hold(1), Err(SnapshotError::Busy));
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    /// The one that depends on what this volume has acknowledged last goes to that volume.
    Write(usize),
    Steps(usize, u8),
    Wait(u8),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..2usize).prop_map(Deed::Write),
        4 => (0..2usize, 1..12u8).prop_map(|(volume, count)| Deed::Steps(volume, count)),
        1 => (1..200u8).prop_map(Deed::Wait),
    ]
}

/// A guest that writes its steps, one after the other, now to one volume and now to the other: each only when the one
/// before is acknowledged. Step n is at block n.
struct Chain {
    benches: [Bench; 2],
    last: Option<(usize, Tag)>,
    steps: Vec<usize>,
}

impl Chain {
    fn write(&mut self, volume: usize) {
        let is_free = self.last.is_none_or(|(of, tag)| self.benches[of].is_done(tag));
        if is_free {
            let tag = self.benches[volume].write(self.steps.len() as u64, 1, 1);
            self.steps.push(volume);
            self.last = Some((volume, tag));
        }
    }

    fn run(&mut self, deed: Deed) {
        match deed {
            Deed::Write(volume) => self.write(volume),
            Deed::Steps(volume, count) => {
                (0..count).for_each(|_| _ = self.benches[volume].step());
            }
            Deed::Wait(millis) => {
                let now = self.benches.iter().map(|bench| bench.now).max().expect("two");
                let now = now + Duration::from_millis(u64::from(millis));
                for bench in &mut self.benches {
                    bench.now = now;
                    if bench.volume.next_deadline() <= now {
                        bench.event(Event::Tick);
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Of a chain of writes over both volumes the snapshots hold a beginning, without a gap.
    #[test]
    fn a_group_shows_one_instant(phases in prop::collection::vec(prop::collection::vec(deed(), 0..25), 4)) {
        let mut chain = Chain { benches: [serving(), serving()], last: None, steps: vec![] };
        for (phase, deeds) in phases.into_iter().enumerate() {
            deeds.into_iter().for_each(|deed| chain.run(deed));
            match phase {
                0 => prop_assert_eq!(chain.benches[0].hold(1), Ok(())),
                1 => prop_assert_eq!(chain.benches[1].hold(1), Ok(())),
                2 => chain.benches[0].point_of_held(1),
                _ => chain.benches[1].point_of_held(1),
            }
        }
        for bench in &mut chain.benches {
            bench.advance(Duration::from_secs(2));
        }
        let points = [0, 1].map(|volume| chain.benches[volume].snapshots[0].1.clone());
        let [Ok(first), Ok(second)] = points else { return Ok(()) };
        let holds = |step: usize, volume: usize| {
            let point = [first, second][volume];
            chain.benches[volume].replicas[0].byte_below(0, step as u64, point) == 1
        };
        let held: Vec<bool> = chain.steps.iter().enumerate().map(|(step, &volume)| holds(step, volume)).collect();
        prop_assert!(held.is_sorted_by(|earlier, later| earlier >= later), "{held:?} of {:?}", chain.steps);
    }
}
