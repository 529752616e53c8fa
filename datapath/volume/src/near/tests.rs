//! A replica that comes to the guest's node while it reads and writes.

use crate::Event;
use crate::testing::{Bench, OUT, record};
use ashlar_types::*;
use ashlar_wire::Request;

const IN: MemberState = MemberState::InSync;
const PER_CHUNK: u64 = BLOCKS_PER_CHUNK as u64;

/// The guest is on node 0, whose disk has nothing yet; it has read chunk 1 often and chunk 0 once. Ten slots of each
/// are to be copied, two a second.
fn moving_in() -> Bench {
    let mut bench = Bench::new(record(&[OUT(0), IN, IN]));
    for slot in 0..10 {
        for (index, chunk) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            bench.replicas[index].had(chunk, slot * 16, 10 + slot, 7);
        }
    }
    bench.replicas[0].down = true;
    bench.start();
    for block in [0, PER_CHUNK, PER_CHUNK] {
        bench.read(block, 1);
    }
    bench.settle();
    bench.event(Event::Pace { bytes_per_second: Some(2 * SLOT_BYTES), source: None });
    bench.come_back(0);
    bench
}

fn fills(bench: &Bench) -> Vec<ChunkIndex> {
    let chunk = |request: &Request| match request {
        Request::Fill { chunk, .. } => Some(*chunk),
        _ => None,
    };
    bench.replicas[0].log.iter().filter_map(chunk).collect()
}

fn reads_at(bench: &Bench, index: usize) -> usize {
    bench.replicas[index].log.iter().filter(|request| matches!(request, Request::Read { .. })).count()
}

/// Until the hottest chunk is there and the other is not.
fn half_there() -> Bench {
    let mut bench = moving_in();
    for _ in 0..13 {
        bench.event(Event::Pace { bytes_per_second: Some(2 * SLOT_BYTES), source: None });
        bench.advance(Duration::from_millis(500));
    }
    let filled = fills(&bench);
    assert!((11..20).contains(&filled.len()), "{}", filled.len());
    assert!(filled[..10].iter().all(|chunk| *chunk == ChunkIndex(1)), "the hottest first: {filled:?}");
    assert!(matches!(bench.state(0), MemberState::Syncing { .. }));
    bench
}

#[test]
fn what_is_there_is_read_there_and_the_rest_elsewhere() {
    let mut bench = half_there();
    assert_eq!(reads_at(&bench, 0), 0);
    let (there, elsewhere) = (bench.read(PER_CHUNK + 16, 1), bench.read(9 * 16, 1));
    bench.settle();
    assert_eq!((bench.bytes(there), bench.bytes(elsewhere)), (vec![7], vec![7]));
    assert_eq!((reads_at(&bench, 0), bench.replicas[0].log.iter().filter(|r| is_read_of(r, 0)).count()), (1, 0));
}

fn is_read_of(request: &Request, chunk: u32) -> bool {
    matches!(request, Request::Read { range, .. } if range.chunk == ChunkIndex(chunk))
}

#[test]
fn no_write_is_acknowledged_without_it_and_reads_see_them() {
    let mut bench = half_there();
    bench.mute[0] = true;
    let write = bench.write(PER_CHUNK, 1, 9);
    let read = bench.read(PER_CHUNK, 1);
    bench.settle();
    assert!(!bench.is_done(write) && !bench.is_done(read), "it has not answered");
    bench.mute[0] = false;
    bench.settle();
    assert!(bench.is_done(write));
    assert_eq!((bench.bytes(read), reads_at(&bench, 0)), (vec![9], 1));
}

#[test]
fn with_its_link_the_reads_go_and_no_write_waits_any_more() {
    let mut bench = half_there();
    bench.mute[0] = true;
    let (write, read) = (bench.write(PER_CHUNK + 64, 1, 9), bench.read(PER_CHUNK + 16, 1));
    bench.settle();
    assert!(!bench.is_done(write) && !bench.is_done(read));
    bench.mute[0] = false;
    bench.kill(0);
    bench.settle();
    assert!(bench.is_done(write));
    let after = bench.read(PER_CHUNK + 64, 1);
    bench.settle();
    assert_eq!((bench.bytes(read), bench.bytes(after), bench.ejections()), (vec![7], vec![9], 0));
}

#[test]
fn content_that_is_bad_there_is_read_elsewhere() {
    let mut bench = half_there();
    bench.replicas[0].bad.insert((ChunkIndex(1), 16));
    let read = bench.read(PER_CHUNK + 16, 1);
    bench.settle();
    assert_eq!(bench.bytes(read), [7]);
    bench.event(Event::Pace { bytes_per_second: None, source: None });
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.state(0), IN);
}

#[test]
fn a_replica_that_is_not_the_nearest_is_not_read_before_it_is_in_sync() {
    let mut bench = Bench::new(record(&[IN, IN, OUT(0)]));
    for slot in 0..10 {
        (0..2).for_each(|index| bench.replicas[index].had(0, slot * 16, 10 + slot, 7));
    }
    bench.replicas[2].down = true;
    bench.start();
    bench.event(Event::Pace { bytes_per_second: Some(2 * SLOT_BYTES), source: None });
    bench.come_back(2);
    bench.advance(Duration::from_secs(3));
    bench.mute[2] = true;
    let write = bench.write(0, 1, 9);
    bench.settle();
    assert!(bench.is_done(write) && matches!(bench.state(2), MemberState::Syncing { .. }));
}
