//! When a write is acknowledged, and what goes again.

use crate::testing::{Bench, OUT, disk, record};
use crate::{Ending, Event, GuestError, GuestOp};
use ashlar_types::*;
use ashlar_wire::{Request, Status};
use bytes::Bytes;

const IN: MemberState = MemberState::InSync;

fn written(bench: &Bench, index: usize) -> Vec<u64> {
    let lsn = |request: &Request| match request {
        Request::Write { lsn, .. } | Request::Discard { lsn, .. } => Some(lsn.counter()),
        _ => None,
    };
    bench.replicas[index].log.iter().filter_map(lsn).collect()
}

#[test]
fn a_write_is_acknowledged_only_when_every_in_sync_replica_has_it() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.mute[2] = true;
    let write = bench.write(5, 3, 7);
    bench.settle();
    assert!(!bench.completed.contains_key(&write));
    bench.mute[2] = false;
    bench.settle();
    assert!(bench.is_done(write));
    assert!(bench.replicas.iter().all(|replica| replica.byte(0, 6) == 7));
}

#[test]
fn an_acknowledgement_waits_for_the_catalogs_yes_to_an_ejection() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    bench.kill(2);
    let write = bench.write(0, 1, 7);
    bench.advance(Duration::from_secs(5));
    assert_eq!(bench.ejections(), 1);
    assert!(!bench.completed.contains_key(&write));
    bench.catalog_up = true;
    bench.settle();
    assert!(bench.is_done(write));
}

#[test]
fn below_min_replicas_nobody_is_ejected_and_writes_go_again_in_lsn_order() {
    let mut bench = Bench::serving(&[IN; 2]);
    bench.kill(1);
    let writes: Vec<_> = (0..4).map(|i| bench.write(i, 1, 10 + i as u8)).collect();
    bench.advance(Duration::from_secs(60));
    assert_eq!(bench.ejections(), 0);
    assert!(writes.iter().all(|tag| !bench.completed.contains_key(tag)), "they wait, they do not fail");
    bench.replicas[1].down = false;
    bench.replicas[1].log.clear();
    bench.advance(Duration::from_secs(2));
    assert!(writes.iter().all(|tag| bench.is_done(*tag)));
    assert_eq!(written(&bench, 1), [1, 2, 3, 4]);
    assert_eq!(bench.replicas[1].byte(0, 3), 13);
}

#[test]
fn a_replica_that_comes_back_before_its_ejection_is_answered_gets_what_it_missed_first() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    bench.kill(2);
    let missed = bench.write(0, 1, 7);
    bench.settle();
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(2));
    let newer = bench.write(1, 1, 8);
    bench.settle();
    assert_eq!(written(&bench, 2), [1, 2]);
    assert!(bench.is_done(missed) && bench.is_done(newer));
}

#[test]
fn overlapping_writes_and_reads_take_turns() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.mute[1] = true;
    let first = bench.write(0, 4, 1);
    let second = bench.write(2, 4, 2);
    let read = bench.read(3, 1);
    let apart = bench.read(20, 1);
    bench.settle();
    assert!(bench.is_done(apart) && !bench.completed.contains_key(&read));
    assert_eq!(written(&bench, 0), [1]);
    bench.mute[1] = false;
    bench.settle();
    assert!(bench.is_done(first) && bench.is_done(second));
    assert_eq!(bench.bytes(read), [2]);
}

#[test]
fn with_one_replica_in_sync_a_write_waits_for_the_join_and_not_for_the_copy() {
    let mut bench = Bench::serving(&[IN, IN, OUT(0)]);
    bench.replicas[2].down = true;
    bench.reset(2);
    bench.settle();
    bench.catalog.version += 1;
    bench.catalog.last_change = None;
    bench.catalog.members[1].state = OUT(0);
    bench.kill(1);
    bench.event(Event::Record(bench.catalog.clone()));
    let write = bench.write(0, 1, 7);
    bench.advance(Duration::from_secs(1));
    assert!(!bench.completed.contains_key(&write), "one replica is not enough");
    bench.replicas[2].down = false;
    bench.withheld = Some("Join");
    bench.advance(Duration::from_secs(3));
    assert!(matches!(&bench.proposed.last().unwrap().1, Change::Join { .. }), "{:?}", bench.notices);
    assert_eq!(bench.replicas[2].byte(0, 0), 7);
    assert!(!bench.completed.contains_key(&write), "it has the write, but the catalog does not count it yet");
    let later = bench.write(1, 1, 8);
    bench.settle();
    assert!(!bench.completed.contains_key(&later), "nor one that was issued in the joint phase");
    bench.withheld = None;
    bench.settle();
    assert!(bench.is_done(later));
    assert!(bench.is_done(write));
    assert_eq!(bench.state(2), IN);
}

#[test]
fn a_replica_that_refuses_a_write_is_ejected_not_believed() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    bench.replicas[1].refuse = Some(("Write", Status::DiskFailed));
    let write = bench.write(0, 1, 7);
    bench.settle();
    assert!(matches!(&bench.proposed.last().unwrap().1, Change::Eject { disks, .. } if *disks == [disk(1)]));
    assert!(!bench.completed.contains_key(&write));
}

#[test]
fn a_discard_over_many_slots_goes_as_one_request_and_reads_as_zeros() {
    let mut bench = Bench::serving(&[IN; 3]);
    let write = bench.write(100, 2, 7);
    let discard = bench.guest(GuestOp::Discard { start: BlockIndex(0), count: BlockCount(16384) });
    let read = bench.read(100, 2);
    bench.settle();
    assert!(bench.is_done(write) && bench.is_done(discard));
    assert_eq!(bench.bytes(read), [0, 0]);
    assert_eq!(written(&bench, 0), [1, 2]);
}

#[test]
fn a_write_across_chunks_is_done_when_both_pieces_are() {
    let mut bench = Bench::serving(&[IN; 3]);
    let write = bench.write(16383, 2, 9);
    bench.settle();
    assert!(bench.is_done(write));
    assert_eq!((bench.replicas[0].byte(0, 16383), bench.replicas[0].byte(1, 0)), (9, 9));
}

#[test]
fn what_is_outside_of_the_volume_is_refused() {
    let mut bench = Bench::serving(&[IN; 3]);
    let beyond = bench.read(32768, 1);
    let empty = bench.read(0, 0);
    let torn = bench.guest(GuestOp::Write { start: BlockIndex(0), data: Bytes::from_static(b"short") });
    for tag in [beyond, empty, torn] {
        assert_eq!(bench.completed[&tag], Err(GuestError::OutOfRange));
    }
}

#[test]
fn a_detach_drains_then_says_clean_then_closes() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.mute[1] = true;
    let write = bench.write(0, 1, 7);
    bench.event(Event::Detach);
    bench.settle();
    assert_eq!(bench.ended, None);
    let late = bench.write(0, 1, 8);
    assert_eq!(bench.completed[&late], Err(GuestError::Closed));
    bench.mute[1] = false;
    bench.settle();
    assert!(bench.is_done(write) && bench.catalog.clean);
    assert_eq!(bench.ended, Some(Ending::Clean));
    assert!(bench.replicas.iter().all(|replica| replica.session.is_none()));
}

#[test]
fn a_detach_before_the_fence_of_a_dirty_volume_leaves_it_dirty() {
    let mut bench = Bench::new(VolumeRecord { clean: false, ..record(&[IN; 3]) });
    bench.mute[0] = true;
    bench.start();
    bench.event(Event::Detach);
    bench.settle();
    assert_eq!(bench.ended, Some(Ending::Unclean));
    assert!(!bench.catalog.clean);
}

#[test]
fn a_link_that_stands_after_the_end_is_ended() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.reset(2);
    bench.come_back(2);
    bench.catalog.epoch = Epoch::new(6).unwrap();
    bench.catalog.version += 1;
    bench.event(Event::Record(bench.catalog.clone()));
    assert_eq!(bench.ended, Some(Ending::Fenced));
    bench.settle();
    assert_eq!(bench.replicas[2].session, None);
}
