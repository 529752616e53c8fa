//! Each rule of snapshots by name, and all of them under random schedules.

mod property;

use crate::testing::*;
use crate::{Event, SnapshotError};
use ashlar_types::*;
use ashlar_wire::Request;

const IN: MemberState = MemberState::InSync;

fn id(number: u128) -> SnapshotId {
    SnapshotId::from_u128(number)
}

impl Bench {
    fn snapshot(&mut self, number: u128) {
        self.event(Event::Snapshot { id: id(number), held: false });
    }

    /// Taken at once, with nothing in flight.
    fn snapshot_now(&mut self, number: u128) -> Lsn {
        self.snapshot(number);
        self.settle();
        self.point(number).expect("nothing is in its way")
    }

    fn point(&self, number: u128) -> Option<Lsn> {
        self.catalog.snapshot(id(number)).map(|snapshot| snapshot.point)
    }

    /// By the control plane.
    fn forget(&mut self, number: u128) {
        self.catalog.snapshots.retain(|snapshot| snapshot.id != id(number));
        self.catalog.version += 1;
        self.catalog.last_change = None;
        self.event(Event::Record(self.catalog.clone()));
    }

    fn written(&mut self, block: u64, fill: u8) {
        let tag = self.write(block, 1, fill);
        self.settle();
        assert!(self.is_done(tag));
    }

    fn read_now(&mut self, block: u64, below: Lsn) -> u8 {
        let tag = self.read_below(block, 1, below);
        self.settle();
        self.bytes(tag)[0]
    }

    fn returned(&mut self, index: usize) {
        self.come_back(index);
        self.settle();
        for _ in 0..100 {
            if self.state(index) == IN {
                return;
            }
            self.advance(Duration::from_secs(1));
        }
        panic!("it does not return: {:?}", self.notices);
    }

    fn steps(&mut self, count: u8) {
        for _ in 0..count {
            self.step();
        }
    }

    fn keeps(&self, index: usize) -> usize {
        self.replicas[index].log.iter().filter(|request| matches!(request, Request::Keep(_))).count()
    }
}

#[test]
fn a_snapshot_keeps_what_is_overwritten_after_it() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.written(5, 1);
    let point = bench.snapshot_now(1);
    bench.written(5, 2);
    bench.written(6, 3);
    assert_eq!(bench.snapshots, [(id(1), Ok(point))]);
    assert_eq!([bench.read_now(5, point), bench.read_now(6, point)], [1, 0]);
    assert_eq!([bench.read_now(5, Lsn::MAX), bench.read_now(6, Lsn::MAX)], [2, 3]);
}

#[test]
fn no_write_waits_for_it_and_it_waits_for_those_before_it() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.mute = vec![false, false, true];
    let before = bench.write(5, 1, 1);
    bench.settle();
    bench.snapshot(1);
    bench.settle();
    assert!(!bench.is_done(before) && bench.point(1).is_none(), "a write before it is not acknowledged");
    let after = bench.write(5, 1, 2);
    bench.mute = vec![false; 3];
    bench.settle();
    assert!(bench.is_done(before) && bench.is_done(after));
    let point = bench.point(1).unwrap();
    assert_eq!([bench.read_now(5, point), bench.read_now(5, Lsn::MAX)], [1, 2]);
    let floors = bench.replicas[0].log.iter().filter_map(|request| match request {
        Request::Write { floor, .. } => Some(*floor),
        _ => None,
    });
    assert_eq!(floors.collect::<Vec<_>>(), [Lsn::ZERO, point]);
}

#[test]
fn asked_again_it_is_taken_once() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    bench.snapshot(1);
    bench.snapshot(1);
    bench.settle();
    bench.catalog_up = true;
    let point = bench.snapshot_now(1);
    bench.snapshot(1);
    assert_eq!(bench.snapshots, [(id(1), Ok(point)), (id(1), Ok(point))], "the second one after it was recorded");
    assert_eq!(bench.catalog.snapshots.len(), 1);
}

/// Another is in its way when a record says that it has been taken.
#[test]
fn one_that_waits_for_another_and_is_recorded_is_answered_once() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    bench.snapshot(1);
    bench.snapshot(2);
    let point = Lsn::start_of(bench.catalog.epoch);
    bench.catalog.snapshots.push(Snapshot { id: id(2), point });
    bench.forget(3);
    assert_eq!(bench.snapshots, [(id(2), Ok(point))]);
    bench.catalog_up = true;
    bench.settle();
    assert_eq!(bench.snapshots[1..], [(id(1), Ok(bench.point(1).unwrap()))], "nobody is told twice");
}

#[test]
fn one_that_is_refused_because_something_else_changed_is_proposed_again() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    bench.snapshot(1);
    bench.settle();
    bench.catalog.version += 1;
    bench.catalog.last_change = None;
    bench.catalog_up = true;
    bench.settle();
    assert_eq!(bench.snapshots, [(id(1), Ok(bench.point(1).unwrap()))]);
}

#[test]
fn one_that_is_refused_for_good_is_said_to_be() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    bench.snapshot(1);
    bench.settle();
    let (proposal, ..) = bench.proposals.pop_front().unwrap();
    let answer = ChangeAnswer::Refused { reason: "no more".to_owned(), record: bench.catalog.clone() };
    bench.event(Event::Answer { proposal, answer });
    assert_eq!(bench.snapshots, [(id(1), Err(SnapshotError::Refused("no more".to_owned())))]);
    bench.catalog_up = true;
    bench.snapshot_now(2);
}

#[test]
fn what_is_asked_of_a_volume_that_closes_is_answered() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    bench.snapshot(1);
    bench.event(Event::Detach);
    bench.snapshot(2);
    assert_eq!(bench.snapshots, [(id(2), Err(SnapshotError::Closed))]);
    bench.catalog_up = true;
    bench.settle();
    assert!(matches!(bench.snapshots[1], (_, Ok(_))), "a detach waits for what is being taken");
    assert!(bench.ended.is_some());
    bench.snapshot(3);
    assert_eq!(bench.snapshots[2], (id(3), Err(SnapshotError::Closed)));
}

#[test]
fn one_that_is_fenced_answers_what_it_was_asked() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    bench.snapshot(1);
    let epoch = bench.catalog.epoch.next().unwrap();
    bench.event(Event::Record(VolumeRecord { epoch, ..bench.catalog.clone() }));
    assert_eq!(bench.snapshots, [(id(1), Err(SnapshotError::Closed))]);
}

#[test]
fn a_replica_that_returns_gets_every_version() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.written(5, 1);
    bench.kill(2);
    bench.settle();
    bench.written(5, 2);
    let first = bench.snapshot_now(1);
    bench.written(5, 3);
    bench.written(6, 4);
    let second = bench.snapshot_now(2);
    bench.written(6, 5);
    bench.returned(2);
    for below in [first, second, Lsn::MAX] {
        for block in [5, 6, 7] {
            let bytes: Vec<u8> = bench.replicas.iter().map(|replica| replica.byte_below(0, block, below)).collect();
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "block {block} below {below}: {bytes:?}");
        }
    }
    assert_eq!(bench.replicas[2].byte_below(0, 5, first), 2);
}

/// Wherever the return stands when it is taken.
#[test]
fn a_snapshot_taken_while_a_replica_returns_is_whole_on_it() {
    for steps in 0..80 {
        let mut bench = Bench::serving(&[IN; 3]);
        bench.written(5, 1);
        bench.kill(2);
        bench.settle();
        (0..20).for_each(|slot| bench.written(slot * 16, 2));
        bench.written(5, 3);
        bench.come_back(2);
        bench.steps(steps);
        bench.snapshot(1);
        let write = bench.write(5, 1, 4);
        bench.settle();
        bench.returned(2);
        assert!(bench.is_done(write));
        let point = bench.point(1).unwrap();
        for replica in &bench.replicas {
            assert_eq!((replica.byte_below(0, 5, point), replica.byte(0, 5)), (3, 4), "after {steps} steps");
            assert_eq!(replica.byte_below(0, 32, point), 2, "after {steps} steps");
        }
    }
}

#[test]
fn a_new_writer_makes_every_version_equal() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.written(5, 1);
    let point = bench.snapshot_now(1);
    bench.written(5, 2);
    // The last writes reach some only.
    bench.mute = vec![true; 3];
    for (fill, block) in [(3, 5), (4, 6)] {
        bench.write(block, 1, fill);
        bench.requests.retain(|(to, _)| *to == 1);
        while bench.step() {}
    }
    let mut next = Bench::new(granted(&bench.catalog));
    next.replicas = bench.replicas.clone();
    next.replicas.iter_mut().for_each(|replica| (replica.session, replica.connecting) = (None, false));
    next.start();
    assert!(next.volume.status().serving);
    for replica in &next.replicas {
        assert_eq!([5, 6].map(|block| replica.byte_below(0, block, point)), [1, 0]);
        assert_eq!([5, 6].map(|block| replica.byte(0, block)), [3, 4]);
    }
}

fn granted(record: &VolumeRecord) -> VolumeRecord {
    let (epoch, version) = (record.epoch.next().unwrap(), record.version + 1);
    VolumeRecord { epoch, version, last_change: None, ..record.clone() }
}

/// Else what it writes would lie below what was written under the unrecorded snapshot's floor.
#[test]
fn a_new_writer_takes_over_the_highest_floor_whether_it_was_recorded_or_not() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    bench.snapshot(1);
    bench.written(5, 2);
    let floor = bench.replicas[0].floor;
    assert!(floor > Lsn::ZERO && bench.point(1).is_none());
    let mut next = Bench::new(granted(&bench.catalog));
    next.replicas = bench.replicas.clone();
    next.replicas.iter_mut().for_each(|replica| (replica.session, replica.connecting) = (None, false));
    next.start();
    next.written(5, 3);
    assert_eq!(next.read_now(5, Lsn::MAX), 3);
    let point = next.snapshot_now(2);
    assert!(point > floor);
    next.written(5, 4);
    assert_eq!([next.read_now(5, point), next.read_now(5, Lsn::MAX)], [3, 4]);
}

#[test]
fn a_floor_of_an_epoch_to_come_is_not_believed() {
    let mut bench = Bench::new(record(&[IN; 3]));
    bench.replicas[0].floor = Lsn::start_of(bench.catalog.epoch.next().unwrap());
    bench.start();
    assert!(!bench.volume.status().members[0].connected);
}

#[test]
fn a_floor_or_a_commit_point_that_no_write_has_had_is_not_believed() {
    let far = |record: &VolumeRecord| Lsn::from_raw(Lsn::start_of(record.epoch).raw() + 1000);
    for is_floor in [true, false] {
        let mut bench = Bench::new(record(&[IN; 3]));
        let far = far(&bench.catalog);
        let of = &mut bench.replicas[0];
        *(if is_floor { &mut of.floor } else { &mut of.commit }) = far;
        bench.start();
        assert!(!bench.volume.status().members[0].connected);
        bench.advance(Duration::from_secs(5));
        let write = bench.write(0, 1, 1);
        bench.settle();
        assert!(bench.is_done(write), "the others go on without it");
    }
}

/// The answer to the proposal is late, and a record says that it is applied and that two others are gone.
#[test]
fn a_point_that_a_record_tells_of_is_kept_once() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.snapshot_now(1);
    bench.snapshot_now(2);
    bench.catalog_up = false;
    bench.snapshot(3);
    bench.settle();
    let (_, version, change) = bench.proposals[0].clone();
    assert!(matches!(bench.decide(version, &change), ChangeAnswer::Applied { .. }));
    bench.forget(1);
    bench.forget(2);
    bench.settle();
    let point = bench.point(3).unwrap();
    assert!(bench.replicas.iter().all(|replica| replica.kept.as_ref().unwrap().live == [point]));
    bench.catalog_up = true;
    bench.settle();
    assert_eq!(bench.snapshots.last().unwrap(), &(id(3), Ok(point)));
}

/// It was closed, whatever it has heard, and a snapshot was taken since.
#[test]
fn a_point_of_a_writer_to_come_is_not_kept_by_this_one() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.snapshot_now(1);
    let point = Lsn::start_of(bench.catalog.epoch.next().unwrap());
    bench.catalog.snapshots.push(Snapshot { id: id(2), point });
    bench.forget(1);
    bench.settle();
    assert!(bench.replicas.iter().all(|replica| replica.kept.as_ref().unwrap().live.is_empty()));
}

#[test]
fn there_is_no_room_for_one_more_while_the_last_is_pending() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    (0..=SNAPSHOTS_MAX as u128).for_each(|number| bench.snapshot(number));
    assert_eq!(bench.snapshots, [(id(SNAPSHOTS_MAX as u128), Err(SnapshotError::TooMany))]);
}

#[test]
fn replicas_hear_of_a_snapshot_that_is_gone() {
    let mut bench = Bench::serving(&[IN; 3]);
    assert_eq!(bench.keeps(0), 0, "a volume that never had one says nothing");
    let (first, second) = (bench.snapshot_now(1), bench.snapshot_now(2));
    assert_eq!(bench.keeps(0), 0, "what they have not heard of they keep");
    bench.forget(1);
    bench.settle();
    for replica in &bench.replicas {
        let kept = replica.kept.as_ref().unwrap();
        assert!(kept.is_valid() && kept.live == [second] && kept.until >= second);
        assert!(!kept.separates(Lsn::ZERO, first) && kept.separates(first, second));
    }
    // Over a new session it is told again, since the answer may have been lost.
    bench.kill(2);
    bench.settle();
    bench.returned(2);
    assert_eq!((bench.keeps(0), bench.keeps(2)), (1, 2));
}

/// Versions that the source makes one would be looked for where they were.
#[test]
fn nobody_hears_of_a_snapshot_that_is_gone_in_the_middle_of_a_return() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.snapshot_now(1);
    bench.kill(2);
    bench.settle();
    (0..20).for_each(|slot| bench.written(slot * 16, 2));
    bench.come_back(2);
    while !bench.replicas[2].log.iter().any(|request| matches!(request, Request::Fill { .. })) {
        assert!(bench.step());
    }
    bench.forget(1);
    while bench.state(2) != IN {
        assert_eq!(bench.keeps(0), 0);
        assert!(bench.step());
    }
    bench.settle();
    assert_eq!(bench.keeps(0), 1);
}
