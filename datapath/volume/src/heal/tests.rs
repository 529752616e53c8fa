//! What replicas have found bad is healed without a guest, and whoever names nonsense keeps nobody from anything.

use crate::testing::{Bench, disk};
use crate::{Event, Notice};
use ashlar_types::*;
use ashlar_wire::Request;

const IN: MemberState = MemberState::InSync;
const ROUND: Duration = Duration::from_secs(11);

fn listings(bench: &Bench, index: usize) -> usize {
    bench.replicas[index].log.iter().filter(|request| matches!(request, Request::ListBad { .. })).count()
}

fn spoil(bench: &mut Bench, index: usize, blocks: &[u64]) {
    for &block in blocks {
        bench.replicas[index].bad.insert((ChunkIndex(0), block));
        bench.replicas[index].found.insert((ChunkIndex(0), block));
    }
}

/// 256 blocks are written.
fn written(states: &[MemberState]) -> Bench {
    let mut bench = Bench::serving(states);
    let write = bench.write(0, 256, 7);
    bench.settle();
    assert!(bench.is_done(write));
    bench
}

#[test]
fn a_volume_that_is_opened_asks_every_replica_and_then_each_few_seconds() {
    let mut bench = written(&[IN; 3]);
    assert_eq!([0, 1, 2].map(|index| listings(&bench, index)), [1; 3]);
    bench.advance(ROUND);
    assert_eq!([0, 1, 2].map(|index| listings(&bench, index)), [2; 3]);
}

#[test]
fn what_was_found_is_read_elsewhere_and_written_back_page_by_page() {
    let mut bench = written(&[IN; 3]);
    spoil(&mut bench, 0, &[3, 4, 40, 80, 120, 255]);
    spoil(&mut bench, 2, &[4]);
    bench.advance(ROUND);
    assert!(bench.replicas.iter().all(|replica| replica.bad.is_empty()));
    assert_eq!(bench.volume.status().repaired_blocks, 7);
    assert!(bench.notices.contains(&Notice::Repaired { disk: disk(2), blocks: 1 }));
    assert_eq!(bench.volume.status().reads, 0, "no guest has read");
}

/// The next version of the slot has one floor here and another there: between them each shows something else.
#[test]
fn an_old_version_is_healed_as_the_point_shows_it_that_everybody_keeps() {
    let mut bench = written(&[IN; 3]);
    bench.event(Event::Snapshot { id: SnapshotId::from_u128(1), held: false });
    bench.settle();
    let point = bench.catalog.snapshots[0].point;
    bench.write(0, 64, 8);
    bench.settle();
    for (named, expected) in [(point, vec![point]), (after(point), vec![point]), (before(point), vec![])] {
        spoil(&mut bench, 0, &[3]);
        bench.replicas[0].found_below = Some(named);
        (0..3).for_each(|index| bench.replicas[index].log.clear());
        bench.advance(ROUND);
        let reads = bench.replicas[1..].iter().flat_map(|replica| &replica.log).filter_map(|request| match request {
            Request::Read { below, .. } => Some(*below),
            _ => None,
        });
        assert_eq!(reads.collect::<Vec<_>>(), expected, "{named:?}");
        let repairs = bench.replicas[0].log.iter().filter_map(|request| match request {
            Request::Repair { below, .. } => Some(*below),
            _ => None,
        });
        assert_eq!(repairs.collect::<Vec<_>>(), expected, "{named:?}");
    }
}

fn after(point: Lsn) -> Lsn {
    Lsn::from_raw(point.raw() + 1)
}

fn before(point: Lsn) -> Lsn {
    Lsn::from_raw(point.raw() - 1)
}

#[test]
fn what_nobody_has_is_asked_for_ever_less_often_and_keeps_nobody_waiting() {
    let mut bench = written(&[IN; 3]);
    (0..3).for_each(|index| spoil(&mut bench, index, &[5]));
    bench.advance(Duration::from_secs(3600));
    let asked = listings(&bench, 0);
    assert!((8..=12).contains(&asked), "{asked}");
    let (write, read) = (bench.write(5, 1, 9), bench.read(6, 1));
    bench.settle();
    assert!(bench.is_done(write));
    assert_eq!(bench.bytes(read), [7]);
    bench.advance(Duration::from_secs(1300));
    let healed = listings(&bench, 0);
    bench.advance(ROUND);
    assert!(listings(&bench, 0) > healed, "with nothing to be healed the pause is short again");
}

#[test]
fn a_replica_whose_link_is_lost_holds_up_no_other() {
    let mut bench = written(&[IN; 3]);
    spoil(&mut bench, 2, &[5]);
    bench.advance(Duration::from_millis(9_900));
    bench.mute[1] = true;
    bench.advance(Duration::from_secs(2));
    assert!(bench.replicas[2].bad.is_empty());
}

#[test]
fn nobody_is_waited_for_who_could_have_good_content() {
    let mut bench = Bench::new(VolumeRecord { min_replicas: 1, ..crate::testing::record(&[IN; 2]) });
    bench.start();
    let write = bench.write(0, 16, 7);
    bench.settle();
    assert!(bench.is_done(write));
    spoil(&mut bench, 0, &[5]);
    bench.kill(1);
    bench.advance(ROUND);
    let write = bench.write(5, 1, 8);
    bench.advance(Duration::from_secs(3));
    assert!(bench.is_done(write), "a read for nobody does not keep a block from being written");
    bench.event(Event::Detach);
    bench.settle();
    assert!(bench.ended.is_some());
}

#[test]
fn a_listing_that_is_refused_or_leads_nowhere_ends_the_link_and_others_are_asked() {
    let mut bench = written(&[IN; 3]);
    spoil(&mut bench, 2, &[5]);
    bench.replicas[0].refuse = Some(("ListBad", ashlar_wire::Status::BadRequest));
    bench.advance(ROUND);
    assert!(bench.replicas[2].bad.is_empty());
    assert!(bench.volume.status().serving);
}
