//! The volume's layout changes under its writer.

use crate::GuestError;
use crate::testing::{Bench, OUT, Replica, disk, record};
use ashlar_types::*;
use ashlar_wire::Request;

const IN: MemberState = MemberState::InSync;
const CHUNK: u64 = BLOCKS_PER_CHUNK as u64;

fn hear(bench: &mut Bench) {
    bench.catalog.version += 1;
    bench.catalog.last_change = None;
    bench.event(crate::Event::Record(bench.catalog.clone()));
    bench.settle();
}

fn grow(bench: &mut Bench, chunks: u32) {
    bench.catalog.size = ByteCount(u64::from(chunks) * CHUNK_BYTES);
    bench.catalog.chunks[0].count = chunks;
    hear(bench);
}

/// Another disk gets the chunks of member `gone`.
fn replace(bench: &mut Bench, gone: u16) {
    let fresh = bench.replicas.len();
    bench.replicas.push(Replica::default());
    bench.mute.push(false);
    let node = "node-9".parse().unwrap();
    bench.catalog.members.push(Member { disk: disk(fresh), node, zone: None, state: OUT(0) });
    let holders = &mut bench.catalog.chunks[0].members;
    holders.iter_mut().filter(|index| **index == gone).for_each(|index| *index = fresh as u16);
    hear(bench);
}

#[test]
fn a_volume_that_has_grown_is_written_beyond_its_old_end() {
    let mut bench = Bench::serving(&[IN; 3]);
    let beyond = bench.write(2 * CHUNK, 1, 7);
    assert_eq!(bench.completed[&beyond], Err(GuestError::OutOfRange));
    grow(&mut bench, 3);
    let write = bench.write(2 * CHUNK, 1, 7);
    bench.settle();
    assert!(bench.is_done(write));
    for replica in &bench.replicas {
        let at = |wanted: &dyn Fn(&Request) -> bool| replica.log.iter().position(wanted).unwrap();
        let told = at(&|request| matches!(request, Request::Grow { size } if size.0 == 3 * CHUNK_BYTES));
        assert!(told < at(&|request| matches!(request, Request::Write { .. })), "the size comes first");
    }
}

#[test]
fn a_link_that_was_being_opened_is_told_as_well() {
    let mut bench = Bench::serving(&[IN, IN, OUT(0)]);
    bench.kill(2);
    bench.come_back(2);
    while !bench.replicas[2].log.iter().any(|request| matches!(request, Request::Open(_))) {
        assert!(bench.step());
    }
    bench.replicas[2].log.clear();
    grow(&mut bench, 3);
    bench.advance(Duration::from_secs(5));
    let told = |request: &Request| match request {
        Request::Grow { size } => *size == bench.catalog.size,
        Request::Open(open) => open.size == bench.catalog.size,
        _ => false,
    };
    assert!(bench.replicas[2].log.iter().any(told));
    assert_eq!(bench.state(2), IN);
}

#[test]
fn the_disk_that_takes_the_place_of_one_that_is_out_becomes_in_sync() {
    let mut bench = Bench::new(record(&[IN, IN, OUT(0)]));
    bench.replicas[2].down = true;
    bench.start();
    bench.write(0, 3, 5);
    bench.write(CHUNK, 1, 6);
    bench.settle();
    replace(&mut bench, 2);
    bench.write(9, 1, 8);
    bench.advance(Duration::from_secs(5));
    assert_eq!((bench.state(3), bench.state(2)), (IN, OUT(0)));
    assert_eq!([bench.replicas[3].byte(0, 2), bench.replicas[3].byte(1, 0), bench.replicas[3].byte(0, 9)], [5, 6, 8]);
    bench.replicas[2].down = false;
    bench.replicas[2].log.clear();
    let write = bench.write(0, 1, 9);
    bench.advance(Duration::from_secs(5));
    assert!(bench.is_done(write) && bench.replicas[2].log.is_empty(), "nobody speaks to the old one");
}

#[test]
fn one_that_returns_and_is_replaced_meanwhile_is_let_go() {
    let mut bench = Bench::new(record(&[IN, IN, OUT(0)]));
    bench.withheld = Some("BeginReturn");
    bench.start();
    replace(&mut bench, 2);
    bench.withheld = None;
    bench.advance(Duration::from_secs(5));
    assert_eq!((bench.state(2), bench.state(3)), (OUT(0), IN));
}

#[test]
fn a_record_that_takes_chunks_from_a_disk_in_sync_is_no_news() {
    let mut bench = Bench::serving(&[IN; 3]);
    replace(&mut bench, 1);
    assert!(bench.volume.status().blocked.unwrap().contains("moves chunks"));
    let write = bench.write(0, 1, 1);
    bench.settle();
    assert!(bench.is_done(write) && bench.replicas[1].byte(0, 0) == 1);
}

#[test]
fn an_ejection_and_the_replacement_may_come_in_one_piece_of_news() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.write(0, 1, 1);
    bench.settle();
    bench.catalog.members[1].state = OUT(0);
    replace(&mut bench, 1);
    let write = bench.write(5, 1, 2);
    bench.advance(Duration::from_secs(5));
    assert!(bench.is_done(write));
    assert_eq!((bench.state(1), bench.state(3), bench.replicas[3].byte(0, 0)), (OUT(0), IN, 1));
}
