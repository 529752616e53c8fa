//! Stale and fresh marks, reconcile and return.

use crate::testing::*;
use ashlar_types::{ByteCount, CHUNK_BYTES, ChunkIndex, FloorRange, Lsn, SlotIndex, SlotSet};
use ashlar_wire::{BlockData, ChangedSlots, Reply, Request, SlotContent, Status};

const CHUNK: ChunkIndex = ChunkIndex(0);

fn slots(slots: &[u16]) -> SlotSet {
    slots.iter().map(|&slot| SlotIndex(slot)).collect()
}

fn fill(slot: u16, stamp: Lsn, valid: u16, fills: &[u8]) -> Request {
    let content = SlotContent { stamp, set: valid, valid, blocks: blocks(fills) };
    Request::Fill { chunk: CHUNK, slot: SlotIndex(slot), floors: FloorRange::ALL, into: Lsn::ZERO, content }
}

fn mark(after: Lsn, marked: &[u16]) -> Request {
    Request::MarkStale { chunk: CHUNK, after, floors: FloorRange::ALL, into: Lsn::ZERO, slots: slots(marked) }
}

fn stale(rig: &mut Rig, link: u64) -> SlotSet {
    let Reply::Changed { entries, next: None } =
        rig.ask(link, Request::ListStale { from: CHUNK, floors: FloorRange::ALL })
    else {
        panic!()
    };
    entries.first().map_or(SlotSet::EMPTY, |entry| entry.slots)
}

fn report(rig: &mut Rig, link: u64) -> (Lsn, bool) {
    let Reply::Reported { entries, .. } = rig.ask(link, Request::Report { from: CHUNK }) else { panic!() };
    entries.first().map_or((Lsn::ZERO, true), |entry| (entry.prefix, entry.complete))
}

/// Stops and replays: what the test then sees must have been durable.
fn restart(rig: Rig, epoch: u32) -> Rig {
    let mut rig = Rig::start(rig.stop());
    rig.settle();
    rig.opened(1, epoch);
    rig
}

#[test]
fn marked_slots_are_refused_until_filled_and_the_chunk_is_incomplete_until_said() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 20], lsn(1, 1)));
    rig.write(1, mark(lsn(1, 1), &[0, 5]));
    rig = restart(rig, 2);
    assert_eq!(report(&mut rig, 1), (lsn(1, 1), false));
    assert_eq!(stale(&mut rig, 1), slots(&[0, 5]));
    assert_eq!(rig.refused(1, Request::Read { range: range(15, 2), below: Lsn::MAX }), Status::Stale);
    assert_eq!(
        rig.refused(1, Request::ReadSlot { chunk: CHUNK, slot: SlotIndex(5), floors: FloorRange::ALL }),
        Status::Stale
    );
    rig.expect(1, 16, &[1; 4]);
    let complete = |prefix| Request::CompleteChunk { chunk: CHUNK, prefix };
    assert_eq!(rig.refused(1, complete(lsn(1, 9))), Status::Incomplete);
    rig.write(1, fill(0, lsn(1, 3), u16::MAX, &[3; 16]));
    rig.write(1, fill(5, Lsn::ZERO, 0, &[]));
    rig = restart(rig, 3);
    assert_eq!(stale(&mut rig, 1), SlotSet::EMPTY);
    rig.expect(1, 14, &[3, 3, 1, 1]);
    rig.expect(1, 80, &[0; 16]);
    assert!(!report(&mut rig, 1).1);
    rig.write(1, complete(Lsn::ZERO));
    assert_eq!(report(&mut rig, 1), (Lsn::ZERO, true), "even if lower");
    rig = restart(rig, 4);
    assert_eq!(report(&mut rig, 1), (Lsn::ZERO, true));
}

/// Copies from a source that ends earlier take back what it has beyond; cut off, it must not be believed up to its old
/// prefix.
#[test]
fn marks_from_further_back_lower_the_prefix() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1], lsn(1, 3)));
    rig.write(1, write(16, &[1], lsn(1, 6)));
    rig.write(1, mark(lsn(1, 6), &[5]));
    assert_eq!(report(&mut rig, 1), (lsn(1, 6), false));
    rig.write(1, mark(lsn(1, 3), &[]));
    rig = restart(rig, 2);
    assert_eq!(report(&mut rig, 1), (lsn(1, 3), false));
    rig.write(1, Request::VoidStale { chunk: CHUNK });
    rig = restart(rig, 3);
    assert_eq!(report(&mut rig, 1), (lsn(1, 3), true));
}

/// There the prefix tells which of the new writes are repeats.
#[test]
fn marks_in_the_middle_of_a_return_leave_the_prefix_to_new_writes() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1], lsn(1, 3)));
    rig.write(1, Request::BeginSync { after: lsn(1, 2) });
    rig.write(1, write(0, &[2], lsn(1, 5)));
    rig.write(1, mark(lsn(1, 2), &[0, 1]));
    assert_eq!(report(&mut rig, 1), (lsn(1, 5), false));
}

#[test]
fn own_slots_stamped_after_are_marked_too() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    for i in 0..4 {
        rig.write(1, write(i * 16, &[1], lsn(1, 1 + i)));
    }
    rig.write(1, mark(lsn(1, 2), &[9]));
    assert_eq!(stale(&mut rig, 1), slots(&[2, 3, 9]));
}

#[test]
fn a_write_makes_its_blocks_not_stale_and_a_copy_does_not_touch_them() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 16], lsn(1, 1)));
    rig.write(1, mark(Lsn::ZERO, &[0]));
    rig.write(1, write(3, &[7], lsn(1, 9)));
    rig.expect(1, 3, &[7]);
    rig.write(1, discard(4, 1, lsn(1, 10)));
    rig.expect(1, 3, &[7, 0]);
    assert_eq!(rig.refused(1, Request::Read { range: range(2, 1), below: Lsn::MAX }), Status::Stale);
    rig.write(1, fill(0, lsn(1, 5), 0x00FF, &[5; 8]));
    rig.expect(1, 0, &[5, 5, 5, 7, 0, 5, 5, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn begin_sync_caps_prefixes_and_marks_its_own_tail() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    for i in 0..5 {
        rig.write(1, write(i * 16, &[1], lsn(1, 1 + i)));
    }
    rig.write(1, Request::BeginSync { after: lsn(1, 3) });
    for epoch in [2, 3] {
        assert_eq!(stale(&mut rig, 1), slots(&[3, 4]));
        assert_eq!(report(&mut rig, 1), (lsn(1, 3), false));
        rig.rest();
        rig = Rig::start(rig.stop());
        rig.settle();
        let Reply::Opened(opened) = rig.open(1, epoch) else { panic!() };
        assert!(opened.syncing);
    }
}

#[test]
fn fresh_blocks_are_never_marked_and_old_fresh_marks_are_void() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 16], lsn(1, 1)));
    rig.write(1, Request::BeginSync { after: lsn(1, 1) });
    rig.write(1, write(0, &[9; 4], lsn(1, 8)));
    rig.write(1, discard(100 * 16, 16, lsn(1, 9)));
    rig.write(1, mark(lsn(1, 1), &[0, 1, 100]));
    assert_eq!(stale(&mut rig, 1), slots(&[0, 1]));
    rig.expect(1, 0, &[9; 4]);
    assert_eq!(rig.refused(1, Request::Read { range: range(4, 1), below: Lsn::MAX }), Status::Stale);
    // A new attempt: everything written after the commit point is in doubt again, older stale marks stay.
    rig.write(1, Request::BeginSync { after: lsn(1, 1) });
    assert_eq!(stale(&mut rig, 1), slots(&[0, 1, 100]));
    assert_eq!(rig.refused(1, Request::Read { range: range(0, 1), below: Lsn::MAX }), Status::Stale);
}

/// The writer's session is the same: what it wrote in this return is still newer than what a source may give.
#[test]
fn a_volume_that_grows_takes_no_fresh_mark_away() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, Request::BeginSync { after: Lsn::ZERO });
    rig.write(1, write(0, &[9; 4], lsn(1, 8)));
    let Request::Open(open) = rig.open_request() else { panic!() };
    rig.write(1, Request::Grow { size: ByteCount(open.size.0 + CHUNK_BYTES) });
    rig.write(1, mark(Lsn::ZERO, &[0]));
    rig.write(1, fill(0, lsn(1, 7), u16::MAX, &[7; 16]));
    rig.expect(1, 0, &[9, 9, 9, 9, 7]);
    let mut rig = Rig::start(rig.stop());
    rig.settle();
    let slot = rig.engine.store.volumes[&volume()].chunks[&CHUNK].slots.get((SlotIndex(0), Lsn::ZERO)).unwrap();
    assert_eq!((slot.fresh, slot.stamp), (0b1111, lsn(1, 8)), "after a replay too");
}

/// An image of a disk from the middle of a return, put back when it had long been in-sync again.
#[test]
fn a_return_that_was_cut_off_is_mended_by_reconcile_and_protects_no_old_block() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, Request::BeginSync { after: Lsn::ZERO });
    rig.write(1, write(0, &[9; 4], lsn(1, 8)));
    // Another session of the same epoch.
    rig = Rig::start(rig.stop());
    rig.settle();
    rig.opened(2, 1);
    rig.write(2, mark(Lsn::ZERO, &[0]));
    assert_eq!(rig.refused(2, Request::Read { range: range(0, 1), below: Lsn::MAX }), Status::Stale);
    rig.write(2, fill(0, lsn(1, 20), u16::MAX, &[7; 16]));
    for chunk in 0..16 {
        rig.write(2, Request::CompleteChunk { chunk: ChunkIndex(chunk), prefix: lsn(1, 20) });
    }
    let mut rig = Rig::start(rig.stop());
    rig.settle();
    let Reply::Opened(opened) = rig.open(1, 2) else { panic!() };
    assert!(!opened.syncing);
    rig.expect(1, 0, &[7; 16]);
}

#[test]
fn a_filled_slot_takes_the_sources_stamp_unless_its_own_fresh_one_is_higher() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1], lsn(1, 1)));
    rig.write(1, write(16, &[1], lsn(1, 5)));
    rig.write(1, Request::BeginSync { after: Lsn::ZERO });
    rig.write(1, write(0, &[2], lsn(1, 20)));
    rig.write(1, fill(0, lsn(1, 10), 2, &[3]));
    rig.write(1, fill(1, lsn(1, 2), 1, &[4]));
    let changed = |rig: &mut Rig, after| {
        let list = Request::ListChanged { from: CHUNK, until: ChunkIndex(1), after, floors: FloorRange::ALL };
        let Reply::Changed { entries, next: None } = rig.ask(1, list) else { panic!() };
        entries
    };
    let entry = |marked: &[u16]| vec![ChangedSlots { chunk: CHUNK, prefix: lsn(1, 20), slots: slots(marked) }];
    assert_eq!(changed(&mut rig, lsn(1, 1)), entry(&[0, 1]));
    assert_eq!(changed(&mut rig, lsn(1, 2)), entry(&[0]));
    assert_eq!(changed(&mut rig, lsn(1, 19)), entry(&[0]));
    assert_eq!(changed(&mut rig, lsn(1, 20)), vec![]);
    rig.expect(1, 0, &[2, 3]);
    rig.expect(1, 16, &[4, 0]);
}

#[test]
fn finish_sync_is_refused_while_anything_is_stale_and_adopts_the_prefixes() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, Request::BeginSync { after: Lsn::ZERO });
    rig.write(1, Request::AdoptPrefix { chunk: CHUNK, prefix: lsn(1, 50) });
    rig.write(1, mark(Lsn::ZERO, &[2]));
    // The adopted prefix tells nothing of what has come here: this write is no duplicate.
    rig.write(1, write(0, &[8], lsn(1, 45)));
    rig.expect(1, 0, &[8]);
    assert_eq!(rig.refused(1, Request::FinishSync), Status::Incomplete);
    rig.write(1, fill(2, lsn(1, 40), 1, &[6]));
    rig.write(1, Request::FinishSync);
    rig.write(1, Request::FinishSync);
    assert_eq!(report(&mut rig, 1), (lsn(1, 50), true));
    let mut rig = restart(rig, 2);
    assert_eq!(report(&mut rig, 1), (lsn(1, 50), true));
    assert!(rig.engine.status().replicas[0].syncing.is_none());
    rig.expect(1, 32, &[6, 0]);
}

#[test]
fn a_whole_stale_slot_is_filled_beside_the_journal() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, mark(Lsn::ZERO, &[0]));
    let before = rig.engine.status().counters.direct_bytes;
    rig.send(1, fill(0, lsn(1, 1), u16::MAX, &[3; 16]));
    rig.send(1, write(2, &[4], lsn(1, 7)));
    rig.settle();
    assert_eq!(rig.engine.status().counters.direct_bytes - before, 65536);
    rig.expect(1, 0, &[3, 3, 4, 3]);
    rig.rest();
    rig.expect(1, 0, &[3, 3, 4, 3]);
    assert_eq!(rig.engine.status().slots_used, 1);
}

#[test]
fn a_fill_of_what_is_not_stale_changes_nothing() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 16], lsn(1, 1)));
    rig.write(1, fill(0, lsn(1, 9), u16::MAX, &[3; 16]));
    rig.send(1, write(0, &[2], lsn(1, 2)));
    rig.send(1, fill(0, lsn(1, 9), u16::MAX, &[3; 16]));
    rig.settle();
    let mut expected = [1; 16];
    expected[0] = 2;
    rig.expect(1, 0, &expected);
    let empty = SlotContent { stamp: Lsn::ZERO, set: 0, valid: 0, blocks: BlockData::default() };
    let request = Request::ReadSlot { chunk: CHUNK, slot: SlotIndex(9), floors: FloorRange::ALL };
    assert_eq!(rig.ask(1, request), Reply::Slot(empty));
}

#[test]
fn voided_marks_make_the_chunk_complete_at_the_prefix_that_they_left_it() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 20], lsn(1, 1)));
    rig.write(1, write(32, &[2; 4], lsn(1, 2)));
    rig.write(1, mark(lsn(1, 1), &[0, 5]));
    rig.write(1, Request::VoidStale { chunk: CHUNK });
    rig = restart(rig, 2);
    assert_eq!(report(&mut rig, 1), (lsn(1, 1), true));
    assert_eq!(stale(&mut rig, 1), SlotSet::EMPTY);
    rig.expect(1, 0, &[1; 20]);
    rig.expect(1, 32, &[2; 4]);
}

/// No datapath sends this; a peer that does loses nothing by it.
#[test]
fn a_copy_right_after_its_marks_were_voided_leaves_the_slot_alone() {
    for content in [fill(0, lsn(1, 9), u16::MAX, &[3; 16]), fill(0, Lsn::ZERO, 0, &[])] {
        let mut rig = Rig::format(256);
        rig.opened(1, 1);
        rig.write(1, write(0, &[1; 16], lsn(1, 1)));
        rig.write(1, mark(Lsn::ZERO, &[0]));
        rig.send(1, Request::VoidStale { chunk: CHUNK });
        rig.send(1, content);
        rig.send(1, write(3, &[2], lsn(1, 10)));
        rig.settle();
        rig.expect(1, 2, &[1, 2, 1]);
    }
}

#[test]
fn a_replica_that_returns_has_nothing_to_declare() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, Request::BeginSync { after: Lsn::ZERO });
    assert_eq!(rig.refused(1, Request::VoidStale { chunk: CHUNK }), Status::Incomplete);
}

#[test]
fn a_return_that_begins_further_on_than_an_unfinished_one_is_refused() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1], lsn(1, 1)));
    rig.write(1, Request::BeginSync { after: lsn(1, 3) });
    assert_eq!(rig.refused(1, Request::BeginSync { after: lsn(1, 4) }), Status::Incomplete);
    rig.write(1, Request::BeginSync { after: lsn(1, 3) });
    rig.write(1, Request::FinishSync);
    rig.write(1, Request::BeginSync { after: lsn(1, 4) });
}
