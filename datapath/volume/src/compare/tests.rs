//! What differs is told, once; what may differ for a moment never is.

use crate::testing::{Bench, OUT, disk, record};
use crate::{Event, Notice, SnapshotError};
use ashlar_types::*;
use ashlar_wire::Request;

const IN: MemberState = MemberState::InSync;
/// Of the two chunks; a round takes 7/8 of it.
const PERIOD: Duration = Duration::from_secs(16);

fn compared(states: &[MemberState]) -> Bench {
    let mut bench = Bench::new(record(states));
    bench.volume.config.compare_period = Some(PERIOD);
    bench.start();
    let write = bench.write(0, 64, 7);
    bench.settle();
    assert!(bench.is_done(write));
    bench
}

fn spoil(bench: &mut Bench, index: usize, block: u64) {
    let version = *bench.replicas[index].blocks.keys().find(|version| version.1 == block).unwrap();
    bench.replicas[index].blocks.remove(&version);
}

fn told(bench: &Bench) -> Vec<(u32, u16, Lsn)> {
    let of_one = |notice: &Notice| match notice {
        Notice::Differs { chunk, slot, below, .. } => Some((chunk.0, slot.0, *below)),
        _ => None,
    };
    bench.notices.iter().filter_map(of_one).collect()
}

fn asked(bench: &Bench, index: usize) -> usize {
    bench.replicas[index].log.iter().filter(|request| matches!(request, Request::Digest { .. })).count()
}

#[test]
fn equal_replicas_are_asked_once_in_a_round_at_even_distances() {
    let mut bench = compared(&[IN; 3]);
    bench.advance(PERIOD * 10);
    let status = bench.volume.status().comparison;
    assert_eq!(told(&bench), []);
    assert!((10..=12).contains(&status.rounds), "{status:?}");
    assert_eq!((status.passed_slots, status.differing_slots), (0, 0));
    assert!((20..=25).contains(&asked(&bench, 0)), "{}", asked(&bench, 0));
}

#[test]
fn without_a_period_nobody_is_asked() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.advance(Duration::from_secs(3600));
    assert_eq!(asked(&bench, 0), 0);
}

#[test]
fn a_slot_in_which_one_replica_lacks_a_write_is_told_once_and_not_touched() {
    let mut bench = compared(&[IN; 3]);
    spoil(&mut bench, 1, 20);
    bench.advance(PERIOD * 3);
    assert_eq!(told(&bench), [(0, 1, Lsn::MAX)]);
    let said = bench.notices.iter().find_map(|notice| match notice {
        Notice::Differs { said, .. } => Some(said.clone()),
        _ => None,
    });
    let said = said.unwrap();
    assert_eq!(said.iter().map(|(disk, _)| *disk).collect::<Vec<_>>(), [disk(0), disk(1), disk(2)]);
    assert!(said[0].1 == said[2].1 && said[0].1 != said[1].1, "{said:?}");
    assert_eq!(bench.volume.status().comparison.differing_slots, 1);
    assert_eq!(bench.replicas[1].byte(0, 20), 0, "nobody knows who is right");

    let write = bench.write(16, 16, 9);
    bench.advance(PERIOD * 2);
    assert!(bench.is_done(write));
    assert_eq!(bench.volume.status().comparison.differing_slots, 0, "it was written over");
}

#[test]
fn what_only_a_snapshot_shows_is_compared_too() {
    let mut bench = compared(&[IN; 3]);
    bench.event(Event::Snapshot { id: SnapshotId::from_u128(1), held: false });
    bench.settle();
    let point = bench.snapshots[0].1.clone().unwrap_or_else(|error: SnapshotError| panic!("{error}"));
    bench.write(0, 64, 8);
    bench.settle();
    spoil(&mut bench, 2, 5);
    bench.advance(PERIOD * 2);
    assert_eq!(told(&bench), [(0, 0, point)]);
    bench.catalog.snapshots.clear();
    bench.catalog.version += 1;
    let record = bench.catalog.clone();
    bench.event(Event::Record(record));
    bench.advance(PERIOD * 2);
    assert_eq!(bench.volume.status().comparison.differing_slots, 0, "nobody reads it any more");
}

#[test]
fn a_slot_that_is_being_written_is_not_judged() {
    let mut bench = compared(&[IN; 3]);
    bench.mute[2] = true;
    let write = bench.write(20, 1, 9);
    // Its answer is kept back, and the others' are not: until it is silent the slot is under way everywhere.
    bench.advance(Duration::from_millis(400));
    bench.mute[2] = false;
    bench.advance(PERIOD * 2);
    assert!(bench.is_done(write));
    assert_eq!(told(&bench), []);
}

#[test]
fn a_write_between_two_answers_is_looked_at_again() {
    let mut bench = compared(&[IN; 3]);
    while bench.requests.iter().all(|(_, frame)| !matches!(frame.message, Request::Digest { .. })) {
        bench.now = bench.now.max(bench.volume.next_deadline());
        bench.event(Event::Tick);
        if bench.requests.iter().all(|(_, frame)| !matches!(frame.message, Request::Digest { .. })) {
            bench.settle();
        }
    }
    // The first replica has answered when the write comes to all.
    bench.step();
    let write = bench.write(20, 1, 9);
    let others: Vec<_> = bench.requests.drain(..).collect();
    let (digests, writes): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|(_, frame)| matches!(frame.message, Request::Digest { .. }));
    bench.requests.extend(writes.into_iter().chain(digests));
    bench.settle();
    bench.advance(PERIOD * 2);
    assert!(bench.is_done(write));
    assert_eq!(told(&bench), []);
    assert_eq!(bench.volume.status().comparison.passed_slots, 0);
}

#[test]
fn only_replicas_that_are_in_sync_are_compared() {
    let mut bench = compared(&[IN, IN, OUT(0)]);
    bench.kill(2);
    bench.advance(PERIOD * 2);
    assert_eq!(told(&bench), []);
    assert!(bench.volume.status().comparison.rounds > 0);
    assert_eq!(asked(&bench, 2), 0);
}

#[test]
fn a_block_that_one_replica_lacks_is_left_to_its_repair() {
    let mut bench = compared(&[IN; 3]);
    bench.replicas[1].bad.insert((ChunkIndex(0), 3));
    spoil(&mut bench, 1, 3);
    bench.advance(PERIOD);
    assert_eq!(told(&bench), []);
    assert!(bench.volume.status().comparison.passed_slots > 0);
}

#[test]
fn one_who_refuses_or_is_lost_holds_up_nobody() {
    let mut bench = compared(&[IN; 3]);
    bench.replicas[0].refuse = Some(("Digest", ashlar_wire::Status::Stale));
    bench.advance(PERIOD);
    let rounds = bench.volume.status().comparison.rounds;
    assert!(rounds > 0);
    bench.kill(1);
    bench.advance(PERIOD * 2);
    assert!(bench.volume.status().comparison.rounds > rounds);
    assert_eq!(told(&bench), []);
}

#[test]
fn rounds_of_other_attachments_begin_elsewhere() {
    let first = |epoch: u32| super::first_chunk(Epoch::new(epoch).unwrap(), 1000).0;
    let mut begun: Vec<u32> = (1..=20).map(first).collect();
    begun.sort_unstable();
    let widest = begun.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(widest <= 120, "{begun:?}");
    assert!(begun.iter().all(|chunk| *chunk < 1000));
    assert_eq!(super::first_chunk(Epoch::new(77).unwrap(), 1), ChunkIndex(0));
}
