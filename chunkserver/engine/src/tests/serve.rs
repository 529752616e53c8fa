//! Writes, reads, discards, repairs, group commit, checkpoints: a disk that nothing happens to.

use crate::testing::*;
use crate::{Action, Event};
use ashlar_types::{BlockIndex, ByteCount, FloorRange, Instant, Kept, Lsn, SlotIndex};
use ashlar_wire::{BlockData, Reply, Request, SlotContent, Status};

#[test]
fn a_write_is_read_back_from_ram_and_from_its_place() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(14, &[1, 2, 3, 4], lsn(1, 1)));
    rig.expect(1, 13, &[0, 1, 2, 3, 4, 0]);
    rig.rest();
    assert_eq!(rig.engine.status().overlay_bytes, ByteCount(0));
    assert_eq!(rig.engine.status().journal_used_bytes, ByteCount(0));
    rig.expect(1, 13, &[0, 1, 2, 3, 4, 0]);
    rig.write(1, write(15, &[9], lsn(1, 2)));
    rig.expect(1, 13, &[0, 1, 9, 3, 4, 0]);
}

#[test]
fn whole_slots_of_a_large_write_go_beside_the_journal_at_the_same_time() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    let fills: Vec<u8> = (0..40).map(|i| i as u8 + 1).collect();
    let request = rig.send(1, write(10, &fills, lsn(1, 1)));
    assert_eq!((rig.journal_writes().len(), rig.slot_writes().len()), (1, 1), "two slots at adjoining places");
    let Action::Write { parts, durable: true, .. } = &rig.in_flight[rig.journal_writes()[0]] else { panic!() };
    assert_eq!(parts.len(), 1 + 6 + 2, "header and the two ends");
    rig.complete(rig.journal_writes()[0]);
    assert!(rig.answer_to(request).is_none(), "the data beside the journal is not durable yet");
    rig.settle();
    assert_eq!(rig.answer_to(request), Some(&Reply::Done));
    rig.expect(1, 10, &fills);
    rig.rest();
    rig.expect(1, 10, &fills);
}

#[test]
fn what_comes_while_a_batch_is_written_collects_in_one_batch() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    let before = rig.engine.status().counters;
    let requests: Vec<_> = (0..10).map(|i| rig.send(1, write(i * 4, &[i as u8 + 1], lsn(1, 1 + i)))).collect();
    assert_eq!(rig.journal_writes().len(), 1, "one write of the journal at a time");
    rig.settle();
    let after = rig.engine.status().counters;
    assert_eq!((after.batches - before.batches, after.records - before.records), (2, 10));
    let answered: Vec<_> = rig.replies.iter().map(|(_, frame)| frame.request).skip(1).collect();
    assert_eq!(answered, requests, "in the order of the journal");
}

#[test]
fn a_batch_waits_for_data_of_an_earlier_one() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    let large = rig.send(1, write(0, &[7; 16], lsn(1, 1)));
    rig.complete(rig.journal_writes()[0]);
    let small = rig.send(1, write(64, &[8], lsn(1, 2)));
    rig.complete(rig.journal_writes()[0]);
    assert!(rig.answer_to(large).is_none() && rig.answer_to(small).is_none());
    rig.settle();
    assert!(rig.answer_to(large).is_some() && rig.answer_to(small).is_some());
}

#[test]
fn a_duplicate_is_answered_when_what_it_repeats_is_durable() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.send(1, write(0, &[1], lsn(1, 5)));
    let again = rig.send(1, write(0, &[1], lsn(1, 5)));
    assert!(rig.answer_to(again).is_none());
    rig.settle();
    assert_eq!(rig.answer_to(again), Some(&Reply::Done));
    let request = rig.send(1, write(0, &[3], lsn(1, 4)));
    assert_eq!(rig.answer_to(request), Some(&Reply::Done), "nothing is on its way");
    rig.expect(1, 0, &[1]);
    assert_eq!(rig.engine.status().counters.duplicates, 2);
}

#[test]
fn overlapping_writes_before_durability_share_the_place() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    for i in 0..5 {
        rig.send(1, write(i, &[i as u8 + 1, 99], lsn(1, 1 + i)));
    }
    rig.send(1, write(0, &[50; 16], lsn(1, 6)));
    rig.send(1, write(3, &[60], lsn(1, 7)));
    rig.settle();
    let mut expected = [50; 16];
    expected[3] = 60;
    rig.expect(1, 0, &expected);
    rig.rest();
    rig.expect(1, 0, &expected);
    assert_eq!(rig.engine.status().slots_used, 1);
}

#[test]
fn blocks_overwritten_in_the_journal_are_written_in_place_once() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    for i in 0..20 {
        rig.write(1, write(i % 4, &[i as u8], lsn(1, 1 + i)));
    }
    rig.rest();
    let counters = rig.engine.status().counters;
    assert_eq!((counters.apply_bytes, counters.apply_writes), (4 * 4096, 1), "sorted, merged, once");
}

#[test]
fn discarded_blocks_read_as_zeros_and_empty_slots_are_given_back() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 48], lsn(1, 1)));
    rig.write(1, discard(8, 32, lsn(1, 2)));
    rig.expect(1, 6, &[1, 1, 0, 0]);
    rig.expect(1, 38, &[0, 0, 1, 1]);
    rig.write(1, discard(0, 8, lsn(1, 3)));
    rig.rest();
    assert_eq!(rig.engine.status().slots_used, 1);
    rig.expect(1, 0, &[0; 40]);
    rig.write(1, write(2, &[5], lsn(1, 4)));
    rig.expect(1, 0, &[0, 0, 5, 0]);
}

#[test]
fn a_whole_chunk_can_be_discarded_at_once_while_writes_are_on_their_way() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 64], lsn(1, 1)));
    rig.send(1, write(100, &[2; 4], lsn(1, 2)));
    rig.send(1, discard(0, 16384, lsn(1, 3)));
    rig.send(1, write(5, &[3], lsn(1, 4)));
    rig.settle();
    rig.expect(1, 4, &[0, 3, 0]);
    rig.expect(1, 100, &[0; 4]);
    rig.rest();
    assert_eq!(rig.engine.status().slots_used, 1);
    rig.expect(1, 4, &[0, 3, 0]);
}

#[test]
fn a_flipped_bit_never_reaches_the_reader_and_is_repaired() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1, 2, 3, 4], lsn(1, 1)));
    rig.rest();
    let data = rig.media.superblock.layout.data_offset.0 as usize;
    rig.flip(data + 2 * PAGE + 77);
    let reply = rig.ask(1, Request::Read { range: range(0, 4), below: Lsn::MAX });
    let Reply::Refused(refusal) = reply else { panic!("{reply:?}") };
    assert_eq!((refusal.status, refusal.block), (Status::BadBlock, BlockIndex(2)));
    rig.expect(1, 0, &[1, 2]);
    let other = Request::Repair { range: range(2, 1), below: Lsn::MAX, blocks: blocks(&[8]) };
    rig.write(1, other);
    assert_eq!(
        rig.refused(1, Request::Read { range: range(2, 1), below: Lsn::MAX }),
        Status::BadBlock,
        "not the content that it had"
    );
    rig.write(1, Request::Repair { range: range(0, 4), below: Lsn::MAX, blocks: blocks(&[1, 2, 3, 4]) });
    rig.expect(1, 0, &[1, 2, 3, 4]);
    rig.rest();
    rig.expect(1, 0, &[1, 2, 3, 4]);
}

#[test]
fn a_medium_error_names_the_bad_block() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1, 2, 3, 4], lsn(1, 1)));
    rig.rest();
    let request = rig.send(1, Request::Read { range: range(0, 4), below: Lsn::MAX });
    rig.break_op(0);
    assert_eq!(rig.in_flight.len(), 4, "block by block");
    rig.break_op(3);
    rig.settle();
    let Some(Reply::Refused(refusal)) = rig.answer_to(request) else { panic!() };
    assert_eq!((refusal.status, refusal.block), (Status::BadBlock, BlockIndex(3)));
}

#[test]
fn a_read_that_was_overtaken_begins_again() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 16], lsn(1, 1)));
    rig.rest();
    let request = rig.send(1, Request::Read { range: range(0, 16), below: Lsn::MAX });
    let Action::Read { op, .. } = rig.in_flight.remove(0) else { panic!() };
    rig.write(1, write(0, &[2; 16], lsn(1, 2)));
    rig.rest();
    // The read comes late, with what another slot has written to the place meanwhile.
    rig.handle(Event::ReadDone { op, result: Ok(blocks(&[9; 16]).data) });
    rig.settle();
    assert_eq!(rig.answer_to(request), Some(&Reply::Data(blocks(&[2; 16]))));
    assert_eq!(rig.engine.status().counters.read_retries, 1);
}

#[test]
fn a_slot_is_read_with_its_stamp() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(17, &[1, 2], lsn(1, 1)));
    rig.write(1, write(20, &[3], lsn(1, 2)));
    let slot =
        |slot: u16| Request::ReadSlot { chunk: range(0, 1).chunk, slot: SlotIndex(slot), floors: FloorRange::ALL };
    let content = SlotContent { stamp: lsn(1, 2), set: 0b10110, valid: 0b10110, blocks: blocks(&[1, 2, 3]) };
    assert_eq!(rig.ask(1, slot(1)), Reply::Slot(content.clone()));
    rig.rest();
    assert_eq!(rig.ask(1, slot(1)), Reply::Slot(content));
    let nothing = SlotContent { stamp: Lsn::ZERO, set: 0, valid: 0, blocks: BlockData::default() };
    assert_eq!(rig.ask(1, slot(2)), Reply::Slot(nothing));
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut rig = Rig::format(256);
    rig.opened(1, 2);
    let before = rig.engine.status().counters.records;
    let mut wrong_crc = blocks(&[1]);
    wrong_crc.crcs[0].0 ^= 1;
    let w = |range, lsn, floor, blocks| Request::Write { range, lsn, floor, blocks };
    let zero = Lsn::ZERO;
    for bad in [
        w(range(0, 1), lsn(2, 1), zero, wrong_crc),
        w(range(0, 2), lsn(2, 1), zero, blocks(&[1])),
        w(range(0, 0), lsn(2, 1), zero, blocks(&[])),
        w(range(16383, 2), lsn(2, 1), zero, blocks(&[1, 1])),
        w(range(1 << 40, 1), lsn(2, 1), zero, blocks(&[1])),
        w(range(1 << 18, 1), lsn(2, 1), zero, blocks(&[1])),
        w(range(0, 1), zero, zero, blocks(&[1])),
        w(range(0, 1), lsn(3, 1), zero, blocks(&[1])),
        w(range(0, 257), lsn(2, 1), zero, blocks(&[1; 257])),
        Request::Read { range: range(0, 257), below: Lsn::MAX },
        Request::Read { range: range(0, 0), below: Lsn::MAX },
        discard(16383, 2, lsn(2, 1)),
        Request::ReadSlot { chunk: range(0, 1).chunk, slot: SlotIndex(1024), floors: FloorRange::ALL },
        Request::CompleteChunk { chunk: range(0, 1).chunk, prefix: lsn(3, 0) },
        w(range(0, 1), lsn(2, 1), lsn(2, 1), blocks(&[1])),
        Request::Keep(Kept { live: vec![lsn(3, 1)], until: lsn(3, 1) }),
        Request::Keep(Kept { live: vec![lsn(2, 1)], until: lsn(1, 1) }),
        rig.open_request(),
    ] {
        assert_eq!(rig.refused(1, bad.clone()), Status::BadRequest, "{bad:?}");
    }
    assert_eq!(rig.engine.status().counters.records, before);
    assert_eq!(rig.engine.status().slots_used, 0);
}

#[test]
fn an_idle_disk_has_nothing_to_replay() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 3], lsn(1, 1)));
    rig.rest();
    assert_eq!(rig.engine.next_deadline(), Instant::FAR);
    let mut rig = Rig::start(rig.stop());
    rig.settle();
    assert_eq!(rig.recovered, Some((0, 0)));
    rig.opened(1, 2);
    rig.expect(1, 0, &[1, 1, 1, 0]);
}

#[test]
fn the_ring_goes_round_under_load() {
    let mut rig = Rig::format(1024);
    rig.opened(1, 1);
    let mut random = Random::new(3);
    let mut expected = vec![0u8; 4000];
    for i in 1..3000 {
        let start = random.below(3900);
        let fills: Vec<u8> = (0..1 + random.below(8)).map(|_| random.below(250) as u8).collect();
        expected[start as usize..start as usize + fills.len()].copy_from_slice(&fills);
        rig.send(1, write(start, &fills, lsn(1, i)));
        while i > rig.replies.len() as u64 + 6 {
            rig.complete(random.below(rig.in_flight.len() as u64) as usize);
        }
    }
    rig.settle();
    assert!(rig.engine.status().counters.journal_bytes > 3 * (8 << 20));
    assert!(rig.engine.status().counters.checkpoints > 3);
    for start in (0..4000).step_by(250) {
        rig.expect(1, start as u64, &expected[start..start + 250]);
    }
}
