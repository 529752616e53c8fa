//! Batches whose records need more than one header page: copies of many slots, written together.

use crate::Action;
use crate::testing::*;
use ashlar_types::{ChunkIndex, FloorRange, Lsn, RequestId, SlotIndex, SlotSet};
use ashlar_wire::{Reply, Request, SlotContent, Status};

const CHUNK: ChunkIndex = ChunkIndex(0);
/// More than one header page has room for.
const SLOTS: u16 = 40;

/// A disk that gets copies of `SLOTS` slots while something else is being written, and the requests that bring them.
fn with_copies() -> (Rig, Vec<RequestId>) {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    let slots: SlotSet = (0..SLOTS).map(SlotIndex).collect();
    rig.write(
        1,
        Request::MarkStale { chunk: CHUNK, after: Lsn::ZERO, floors: FloorRange::ALL, into: Lsn::ZERO, slots },
    );
    rig.send(1, write(16 * u64::from(SLOTS), &[9], lsn(1, 1)));
    let fill = |slot| {
        let content = SlotContent { stamp: Lsn::ZERO, set: !0, valid: !0, blocks: blocks(&[slot as u8 + 1; 16]) };
        let (floors, into) = (FloorRange::ALL, Lsn::ZERO);
        Request::Fill { chunk: CHUNK, slot: SlotIndex(slot), floors, into, content }
    };
    let copies = (0..SLOTS).map(|slot| rig.send(1, fill(slot))).collect();
    (rig, copies)
}

/// The same, with their batch about to be written, and where on the disk it goes.
fn with_copies_under_way() -> (Rig, usize) {
    let (mut rig, _) = with_copies();
    assert_eq!(rig.slot_writes().len(), usize::from(SLOTS) / 16, "slots that adjoin are one write");
    rig.complete(0);
    let journal = rig.journal_writes();
    assert_eq!(journal.len(), 1);
    let Action::Write { offset, parts, .. } = &rig.in_flight[journal[0]] else { panic!() };
    assert_eq!(parts.concat().len(), 2 * PAGE);
    let at = offset.0 as usize;
    assert_eq!(rig.slot_writes().len(), usize::from(SLOTS).div_ceil(16), "the rest is written with its batch");
    (rig, at)
}

fn restart(media: Media) -> Rig {
    let mut rig = Rig::start(media);
    rig.settle();
    rig.opened(1, 2);
    rig
}

fn stale_slots(rig: &mut Rig) -> SlotSet {
    let request = Request::ListStale { from: CHUNK, floors: FloorRange::ALL };
    let Reply::Changed { entries, next: None } = rig.ask(1, request) else { panic!() };
    entries.first().map_or(SlotSet::EMPTY, |entry| entry.slots)
}

fn stale(rig: &mut Rig) -> u32 {
    stale_slots(rig).count()
}

fn is_whole(rig: &mut Rig) -> bool {
    let Reply::Reported { entries, .. } = rig.ask(1, Request::Report { from: CHUNK }) else { panic!() };
    entries.iter().all(|entry| entry.prefix > Lsn::ZERO || entry.chunk != CHUNK)
}

fn expect_copy(rig: &mut Rig, slot: u16) {
    rig.expect(1, 16 * u64::from(slot), &[slot as u8 + 1; 16]);
}

#[test]
fn copies_that_were_written_together_are_replayed() {
    let (mut rig, _) = with_copies_under_way();
    rig.settle();
    let mut rig = restart(rig.stop());
    assert_eq!((stale(&mut rig), is_whole(&mut rig)), (0, true));
    (0..SLOTS).for_each(|slot| expect_copy(&mut rig, slot));
}

#[test]
fn no_copy_is_answered_before_its_batch_and_all_data_beside_it_are_durable() {
    let (mut rig, copies) = with_copies();
    rig.complete(rig.journal_writes()[0]);
    while rig.in_flight.len() > 1 {
        assert!(copies.iter().all(|&copy| rig.answer_to(copy).is_none()), "{} left", rig.in_flight.len());
        // The header is whole before the last of the data is.
        rig.complete(rig.journal_writes().first().copied().unwrap_or(0));
    }
    assert!(copies.iter().all(|&copy| rig.answer_to(copy).is_none()));
    rig.complete(0);
    assert!(copies.iter().all(|&copy| rig.answer_to(copy) == Some(&Reply::Done)));
}

#[test]
fn a_power_cut_among_copies_leaves_each_as_it_was_or_whole_and_those_that_were_answered_whole() {
    let (mut kept, mut taken_back) = (0, 0);
    for seed in 1..=60 {
        let mut random = Random::new(seed);
        let (mut rig, copies) = with_copies();
        rig.go_on(random.below(8), &mut random);
        let is_answered: Vec<bool> = copies.iter().map(|&copy| rig.answer_to(copy).is_some()).collect();
        let mut rig = restart(rig.crash(&mut random));
        let stale = stale_slots(&mut rig);
        for slot in 0..SLOTS {
            match stale.contains(SlotIndex(slot)) {
                true => assert!(!is_answered[usize::from(slot)], "seed {seed}: slot {slot} was answered"),
                false => expect_copy(&mut rig, slot),
            }
        }
        if stale.count() == 0 { kept += 1 } else { taken_back += 1 }
    }
    assert!(kept > 0 && taken_back > 0, "{kept} kept, {taken_back} taken back");
}

#[test]
fn of_a_torn_header_nothing_is_believed_whichever_page_came() {
    for page in 0..2 {
        let (rig, at) = with_copies_under_way();
        let Action::Write { parts, .. } = &rig.in_flight[rig.journal_writes()[0]] else { panic!() };
        let header = parts.concat();
        let mut media = rig.stop();
        let torn = page * PAGE..(page + 1) * PAGE;
        media.bytes[at..][torn.clone()].copy_from_slice(&header[torn]);
        let mut rig = restart(media);
        assert_eq!((stale(&mut rig), is_whole(&mut rig)), (u32::from(SLOTS), true), "page {page} came");
        // And what is written now is not taken for part of it.
        rig.write(1, write(16 * u64::from(SLOTS) + 1, &[8], lsn(2, 2)));
        let mut rig = restart(rig.stop());
        rig.expect(1, 16 * u64::from(SLOTS), &[9, 8]);
        assert_eq!(stale(&mut rig), u32::from(SLOTS));
    }
}

#[test]
fn a_header_page_that_rotted_below_a_later_batch_puts_everything_in_doubt() {
    for page in 0..2 {
        let (mut rig, at) = with_copies_under_way();
        rig.settle();
        rig.write(1, write(16 * u64::from(SLOTS) + 1, &[8], lsn(1, 2)));
        rig.flip(at + page * PAGE + 100);
        let mut rig = restart(rig.stop());
        assert!(!is_whole(&mut rig), "page {page}");
    }
}

#[test]
fn a_header_page_that_cannot_be_read_is_no_torn_tail() {
    for page in 0..2 {
        let (mut rig, at) = with_copies_under_way();
        rig.settle();
        let mut rig = Rig::start(rig.stop());
        rig.settle_but_for(at + page * PAGE);
        rig.opened(1, 2);
        assert!(!is_whole(&mut rig), "page {page}");
        assert_eq!(rig.refused(1, Request::FinishSync), Status::Incomplete);
    }
}
