//! What stands between the grant and the first answer.

use crate::testing::{Bench, disk, record};
use crate::{Ending, Event};
use ashlar_types::*;

const IN: MemberState = MemberState::InSync;

#[test]
fn nothing_is_served_before_every_in_sync_replica_promised() {
    let mut bench = Bench::new(record(&[IN; 3]));
    bench.mute[2] = true;
    bench.start();
    let read = bench.read(0, 1);
    bench.settle();
    assert!(!bench.volume.status().serving && !bench.completed.contains_key(&read));
    bench.mute[2] = false;
    bench.settle();
    assert!(bench.volume.status().serving && bench.is_done(read));
    assert!(bench.replicas.iter().all(|replica| replica.promised == Epoch::new(5)));
}

#[test]
fn promises_of_the_least_number_then_the_leases_then_the_ejection_in_this_order() {
    let mut bench = Bench::new(record(&[IN; 3]));
    bench.replicas[2].down = true;
    bench.catalog_up = false;
    bench.start();
    bench.advance(Duration::from_millis(2400));
    assert_eq!(bench.proposed.len(), 0, "leases of an older writer may hold for 2.5 s");
    bench.advance(Duration::from_millis(200));
    assert!(matches!(&bench.proposed[0].1, Change::Eject { disks, .. } if *disks == [disk(2)]));
    bench.advance(Duration::from_secs(60));
    assert!(!bench.volume.status().serving, "not before the catalog says so");
    bench.catalog_up = true;
    bench.settle();
    assert!(bench.volume.status().serving && matches!(bench.state(2), MemberState::Out { .. }));
}

#[test]
fn fewer_promises_than_min_replicas_block_the_attach_for_as_long_as_it_takes() {
    let mut bench = Bench::new(record(&[IN; 3]));
    bench.replicas[1].down = true;
    bench.replicas[2].down = true;
    bench.start();
    bench.advance(Duration::from_secs(600));
    assert!(!bench.volume.status().serving && bench.proposed.is_empty());
    assert!(bench.volume.status().blocked.unwrap().contains("minReplicas"));
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(10));
    assert!(bench.volume.status().serving);
}

#[test]
fn a_disk_declared_lost_makes_even_a_full_fence_wait_for_the_leases() {
    let mut bench = Bench::new(VolumeRecord { declared_lost: vec![disk(9)], ..record(&[IN; 3]) });
    bench.start();
    bench.advance(Duration::from_millis(2400));
    assert!(!bench.volume.status().serving);
    bench.advance(Duration::from_millis(200));
    assert!(bench.volume.status().serving);
}

#[test]
fn one_that_returns_may_serve_an_older_writer_and_is_waited_for_as_long_as_that_may_read() {
    let returning = MemberState::Syncing { commit: Lsn::ZERO };
    let mut bench = Bench::new(record(&[IN, IN, returning]));
    bench.replicas[2].down = true;
    bench.start();
    bench.advance(Duration::from_millis(2400));
    assert!(!bench.volume.status().serving, "leases of an older writer may hold for 2.5 s");
    bench.advance(Duration::from_millis(200));
    assert!(bench.volume.status().serving && bench.ejections() == 0);
    assert!(Bench::serving(&[IN, IN, returning]).volume.status().serving, "it has promised");
}

#[test]
fn links_that_come_and_go_do_not_put_off_the_fence() {
    let mut bench = Bench::new(record(&[IN; 3]));
    bench.replicas[2].down = true;
    bench.start();
    for _ in 0..4 {
        bench.advance(Duration::from_secs(1));
        bench.reset(1);
    }
    bench.advance(Duration::from_secs(1));
    assert!(bench.volume.status().serving, "a promise counts from when it was first given");
}

#[test]
fn the_first_word_of_a_newer_epoch_ends_the_writer() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.mute[1] = true;
    let write = bench.write(0, 1, 7);
    let read = bench.read(0, 1);
    bench.replicas[2].promised = Epoch::new(6);
    bench.settle();
    assert_eq!(bench.ended, Some(Ending::Fenced));
    assert!(bench.completed[&write].is_err() && bench.completed[&read].is_err());
    let late = bench.write(0, 1, 8);
    assert_eq!(bench.completed[&late], Err(crate::GuestError::Fenced));
    bench.event(Event::Tick);
}

#[test]
fn a_volume_that_was_deleted_ends_its_writer() {
    let mut bench = Bench::serving(&[IN; 3]);
    (bench.replicas[2].promised, bench.replicas[2].deleted) = (Epoch::new(6), true);
    let write = bench.write(0, 1, 7);
    bench.settle();
    assert_eq!((bench.ended, bench.completed[&write].is_err()), (Some(Ending::Fenced), true));
}

#[test]
fn a_replica_that_alone_was_deleted_is_let_go_of() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.replicas[2].deleted = true;
    let write = bench.write(0, 1, 7);
    bench.advance(Duration::from_secs(3));
    assert_eq!((bench.ended, bench.completed[&write].is_ok()), (None, true));
}

#[test]
fn an_answer_with_a_record_of_a_newer_epoch_fences_once() {
    let mut bench = Bench::new(record(&[IN; 3]));
    bench.catalog_up = false;
    bench.start();
    let (proposal, _, change) = bench.proposals.pop_front().unwrap();
    assert_eq!(change, Change::OpenDirty);
    let record = VolumeRecord { epoch: Epoch::new(6).unwrap(), version: 20, ..bench.catalog.clone() };
    bench.event(Event::Answer { proposal, answer: ChangeAnswer::Applied { record } });
    assert_eq!(bench.ended, Some(Ending::Fenced));
}
