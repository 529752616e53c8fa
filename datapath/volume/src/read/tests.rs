//! Who is asked, and when what was answered may be shown.

use crate::testing::{Bench, disk};
use crate::{Event, GuestError, Notice};
use ashlar_types::*;
use ashlar_wire::Request;
use ashlar_wire::limits::SESSION_REQUESTS_MAX;

const IN: MemberState = MemberState::InSync;

fn reads(bench: &Bench, index: usize) -> usize {
    bench.replicas[index].log.iter().filter(|request| matches!(request, Request::Read { .. })).count()
}

/// One of three was written to by every hand, then is made to differ.
fn written() -> Bench {
    let mut bench = Bench::serving(&[IN; 3]);
    let write = bench.write(0, 16, 7);
    bench.settle();
    assert!(bench.is_done(write));
    bench
}

#[test]
fn the_replica_on_this_node_is_read() {
    let mut bench = written();
    let read = bench.read(3, 4);
    bench.settle();
    assert_eq!(bench.bytes(read), [7; 4]);
    assert_eq!((reads(&bench, 0), reads(&bench, 1), reads(&bench, 2)), (1, 0, 0));
}

#[test]
fn a_bad_block_is_read_elsewhere_and_repaired_and_never_returned() {
    let mut bench = written();
    bench.replicas[0].bad.insert((ChunkIndex(0), 5));
    let read = bench.read(0, 16);
    bench.settle();
    assert_eq!(bench.bytes(read), [7; 16]);
    assert!(bench.replicas[0].bad.is_empty(), "the good bytes were written back");
    assert!(bench.notices.contains(&Notice::Repaired { disk: disk(0), blocks: 1 }));
    assert_eq!(reads(&bench, 1), 1, "only the bad block was asked of another");
}

#[test]
fn a_block_that_is_bad_everywhere_is_an_error() {
    let mut bench = written();
    bench.replicas.iter_mut().for_each(|replica| assert!(replica.bad.insert((ChunkIndex(0), 5))));
    let (bad, good) = (bench.read(5, 1), bench.read(6, 1));
    let whole = bench.read(0, 16);
    bench.settle();
    assert_eq!(bench.completed[&bad], Err(GuestError::Lost));
    assert_eq!(bench.completed[&whole], Err(GuestError::Lost));
    assert_eq!(bench.bytes(good), [7]);
    let heals = bench.write(5, 1, 9);
    let read = bench.read(5, 1);
    bench.settle();
    assert!(bench.is_done(heals));
    assert_eq!(bench.bytes(read), [9]);
}

#[test]
fn a_block_that_may_be_good_on_a_replica_without_link_waits_for_it() {
    let mut bench = written();
    bench.catalog_up = false;
    bench.replicas[0].bad.insert((ChunkIndex(0), 5));
    bench.replicas[1].bad.insert((ChunkIndex(0), 5));
    bench.kill(2);
    let read = bench.read(5, 1);
    bench.advance(Duration::from_secs(5));
    assert!(!bench.completed.contains_key(&read));
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(2));
    bench.catalog_up = true;
    bench.advance(Duration::from_secs(2));
    assert!(bench.completed.contains_key(&read));
}

#[test]
fn a_read_waits_for_leases_and_does_not_fail() {
    let mut bench = written();
    bench.mute = vec![false, true, true];
    bench.catalog_up = false;
    for index in 1..3 {
        bench.kill(index);
    }
    bench.advance(Duration::from_secs(3));
    let read = bench.read(0, 1);
    bench.advance(Duration::from_secs(3));
    assert!(!bench.completed.contains_key(&read), "a newer writer may have been promised by the two");
    bench.mute = vec![false; 3];
    bench.replicas[1].down = false;
    bench.replicas[2].down = false;
    bench.catalog_up = true;
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.bytes(read), [7]);
}

#[test]
fn when_one_of_the_last_two_is_silent_reads_go_on() {
    let mut bench = Bench::serving(&[IN; 2]);
    let write = bench.write(0, 1, 7);
    bench.settle();
    bench.kill(1);
    bench.advance(Duration::from_secs(10));
    let read = bench.read(0, 1);
    bench.settle();
    assert!(bench.is_done(write));
    assert_eq!(bench.bytes(read), [7]);
}

#[test]
fn the_word_of_one_that_promised_another_is_no_lease() {
    let mut bench = written();
    bench.catalog_up = false;
    bench.kill(2);
    bench.kill(1);
    // The link comes back, but the session does not: it may have promised to another before its disk failed.
    bench.replicas[1].down = false;
    bench.replicas[1].failed = true;
    bench.advance(Duration::from_secs(4));
    let read = bench.read(0, 1);
    bench.settle();
    assert!(!bench.completed.contains_key(&read));
}

#[test]
fn with_one_replica_needed_an_ejection_in_doubt_needs_the_leases_of_both_outcomes() {
    let mut bench = Bench::new(VolumeRecord { min_replicas: 1, ..crate::testing::record(&[IN; 3]) });
    bench.start();
    bench.catalog_up = false;
    bench.kill(2);
    bench.advance(Duration::from_secs(4));
    let read = bench.read(0, 1);
    bench.settle();
    assert_eq!(bench.ejections(), 1);
    assert!(!bench.completed.contains_key(&read), "the one that leaves may have promised a newer writer by itself");
    bench.catalog_up = true;
    bench.settle();
    assert!(bench.is_done(read));
}

#[test]
fn one_that_leaves_is_not_read_before_its_ejection_is_proposed_nor_after() {
    let mut bench = written();
    bench.catalog_up = false;
    bench.mute[0] = true;
    let read = bench.read(0, 1);
    bench.settle();
    // Its answer is on the way when it is given up; nothing of it may be shown.
    bench.mute[0] = false;
    bench.reset(0);
    assert_eq!(bench.ejections(), 1);
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.bytes(read), [7]);
    let before = reads(&bench, 0);
    let later = bench.read(0, 1);
    bench.settle();
    assert!(bench.is_done(later));
    assert_eq!(reads(&bench, 0), before, "back, but its ejection may be in the catalog");
    bench.catalog_up = true;
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.state(0), IN, "it has returned");
    let back = bench.read(0, 1);
    bench.settle();
    assert!(bench.is_done(back) && reads(&bench, 0) == before + 1);
}

#[test]
fn what_was_asked_of_one_that_leaves_is_asked_of_another_though_its_link_stands() {
    let mut bench = written();
    bench.catalog_up = false;
    bench.mute[0] = true;
    let read = bench.read(0, 1);
    bench.settle();
    bench.volume.members[0].suspect_of("slow", bench.now);
    bench.event(Event::Tick);
    bench.settle();
    assert_eq!((bench.ejections(), bench.bytes(read)), (1, vec![7]));
    assert_eq!(reads(&bench, 1) + reads(&bench, 2), 1);
}

#[test]
fn a_late_read_is_asked_of_a_second_replica() {
    let mut bench = written();
    bench.mute[0] = true;
    let read = bench.read(0, 1);
    bench.advance(Duration::from_millis(100));
    assert_eq!(bench.bytes(read), [7]);
    assert_eq!(reads(&bench, 1) + reads(&bench, 2), 1);
    bench.mute[0] = false;
    bench.settle();
    bench.event(Event::Tick);
}

#[test]
fn what_one_link_may_have_unanswered_is_bounded() {
    let mut bench = written();
    bench.mute[0] = true;
    let tags: Vec<_> = (0..2000).map(|i| bench.read(i * 8, 8)).collect();
    let large: Vec<_> = (0..200).map(|i| bench.read(i * 64, 256)).collect();
    bench.settle();
    assert!(reads(&bench, 0) <= 512);
    bench.mute[0] = false;
    bench.settle();
    assert!(tags.iter().chain(&large).all(|tag| bench.is_done(*tag)));
}

#[test]
fn one_that_came_back_is_asked_again_when_the_other_turns_out_bad() {
    let mut bench = Bench::serving(&[IN; 2]);
    let write = bench.write(5, 1, 7);
    bench.settle();
    assert!(bench.is_done(write));
    bench.replicas[1].bad.insert((ChunkIndex(0), 5));
    bench.mute = vec![true; 2];
    let read = bench.read(5, 1);
    bench.settle();
    bench.reset(0);
    bench.settle();
    bench.mute[0] = false;
    bench.come_back(0);
    bench.settle();
    assert!(!bench.completed.contains_key(&read), "the other is being asked");
    bench.mute[1] = false;
    bench.settle();
    assert_eq!(bench.bytes(read), [7]);
}

/// Answered by one, asked of another as well, and held back for a lease: the other one leaves.
#[test]
fn an_answered_read_that_waits_for_leases_is_not_forgotten_when_one_that_was_asked_too_leaves() {
    let mut bench = Bench::new(VolumeRecord { min_replicas: 1, ..crate::testing::record(&[IN; 3]) });
    bench.start();
    bench.catalog_up = false;
    bench.kill(2);
    bench.advance(Duration::from_secs(3));
    bench.mute[0] = true;
    let read = bench.read(0, 1);
    bench.advance(Duration::from_millis(100));
    assert_eq!((reads(&bench, 0), reads(&bench, 1)), (1, 1));
    assert!(!bench.completed.contains_key(&read), "the lease of the third is missing");
    bench.catalog.version += 1;
    bench.catalog.members[0].state = MemberState::Out { commit: Lsn::ZERO };
    bench.event(Event::Record(bench.catalog.clone()));
    bench.catalog_up = true;
    bench.advance(Duration::from_secs(3));
    assert!(bench.is_done(read));
}

/// The guest has its bytes, and only the repair is waited for.
#[test]
fn a_completed_read_is_asked_of_nobody_and_ends_once() {
    let mut bench = Bench::new(VolumeRecord { min_replicas: 1, ..crate::testing::record(&[IN; 2]) });
    bench.start();
    let write = bench.write(5, 1, 7);
    bench.settle();
    assert!(bench.is_done(write));
    bench.replicas[0].bad.insert((ChunkIndex(0), 5));
    bench.mute[1] = true;
    let read = bench.read(5, 1);
    bench.settle();
    (bench.mute[0], bench.mute[1]) = (true, false);
    bench.settle();
    assert_eq!(bench.bytes(read), [7]);
    bench.mute[1] = true;
    bench.advance(Duration::from_millis(100));
    assert_eq!(reads(&bench, 1), 1, "it is complete");
    bench.kill(1);
    bench.catalog.version += 1;
    bench.catalog.members[1].state = MemberState::Out { commit: Lsn::ZERO };
    bench.event(Event::Record(bench.catalog.clone()));
    bench.mute[0] = false;
    bench.advance(Duration::from_secs(1));
    assert!(bench.replicas[0].bad.is_empty());
}

/// A stretch of a disk has gone bad, and many large reads come upon it at once: asked block by block, all of them
/// together are more than a chunkserver lets one session ask.
#[test]
fn large_reads_that_find_bad_blocks_together_ask_no_more_than_a_session_may() {
    let mut bench = written();
    let writes: Vec<_> = (0..10).map(|i| bench.write(i * 256, 256, 7)).collect();
    bench.settle();
    assert!(writes.iter().all(|tag| bench.is_done(*tag)));
    bench.replicas[0].bad = (0..10).map(|i| (ChunkIndex(0), i * 256 + 3)).collect();
    let tags: Vec<_> = (0..10).map(|i| bench.read(i * 256, 256)).collect();
    let late = bench.write(300, 1, 8);
    while bench.step() {
        let asked = bench.volume.members.iter().map(|member| member.asked.len()).max().unwrap();
        assert!(asked <= SESSION_REQUESTS_MAX, "{asked} requests unanswered");
    }
    assert!(tags.iter().all(|tag| bench.bytes(*tag) == [7; 256]) && bench.is_done(late));
    assert!(bench.replicas[0].bad.is_empty());
}

/// The read that is asked block by block waits for a replica; another one, which would be next, does not wait for it.
#[test]
fn a_read_that_waits_to_be_asked_block_by_block_is_answered_elsewhere_and_repaired() {
    let mut bench = written();
    let write = bench.write(256, 16, 7);
    bench.settle();
    assert!(bench.is_done(write));
    let (held_up, other) = ((ChunkIndex(0), 3), (ChunkIndex(0), 259));
    bench.replicas[0].bad = [held_up, other].into();
    bench.replicas[1].bad = [held_up].into();
    bench.mute[2] = true;
    let first = bench.read(0, 16);
    let second = bench.read(256, 16);
    bench.settle();
    assert!(!bench.completed.contains_key(&first) && !bench.completed.contains_key(&second));
    bench.advance(Duration::from_millis(100));
    assert!(!bench.completed.contains_key(&first));
    assert_eq!(bench.bytes(second), [7; 16]);
    assert!(!bench.replicas[0].bad.contains(&other), "what was found bad is repaired all the same");
    assert!(bench.volume.reads.to_split.is_empty(), "nothing is left of a read that is over");
}
