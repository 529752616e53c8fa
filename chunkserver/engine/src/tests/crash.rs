//! Power cuts, torn writes, corruption, restarts in the middle of a restart.

use crate::batch::Header;
use crate::testing::*;
use crate::{Action, Event, IndexLoad};
use ashlar_types::{DiskId, FloorRange, Lsn, SlotIndex};
use ashlar_wire::{Reply, Request, SlotContent, Status};

const RING: usize = 1 << 20;

fn restart(media: Media) -> Rig {
    let mut rig = Rig::start(media);
    rig.settle();
    rig
}

/// A disk whose ring begins with `count` batches of one small write each, none of them in the index; then the
/// promise's batch first.
fn with_batches(count: u64) -> Rig {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    for i in 0..count {
        rig.write(1, write(i, &[i as u8 + 1], lsn(1, 1 + i)));
    }
    rig
}

/// Offset of the header of the n-th of these batches on the disk: the promise takes one page, every write two.
fn header_of(batch: usize) -> usize {
    RING + PAGE + (batch - 1) * 2 * PAGE
}

#[test]
fn a_torn_batch_ends_the_replay_and_its_number_is_not_used_again() {
    let mut rig = with_batches(3);
    rig.send(1, write(0, &[77], lsn(1, 4)));
    let Action::Write { offset, parts, .. } = &rig.in_flight[0] else { panic!() };
    // The header came whole, of the payload nothing.
    let at = offset.0 as usize;
    let header = parts[0].clone();
    let mut media = rig.stop();
    media.bytes[at..at + PAGE].copy_from_slice(&header);
    let mut rig = restart(media);
    assert_eq!(rig.recovered, Some((4, 0)));
    rig.opened(1, 2);
    rig.expect(1, 0, &[1, 2, 3]);
    let sequence = |page: &[u8]| Header::recognize(page, DiskId::from_u128(2)).unwrap();
    let next = sequence(&rig.media.bytes[at..at + PAGE]);
    assert!(next > sequence(&header), "the new batch cannot be taken for the torn one");
}

#[test]
fn a_bad_payload_block_below_a_later_batch_is_lost_and_not_a_torn_tail() {
    let mut rig = with_batches(4);
    rig.flip(header_of(2) + PAGE + 9);
    let mut rig = restart(rig.stop());
    assert_eq!(rig.recovered, Some((5, 1)));
    rig.opened(1, 2);
    rig.expect(1, 0, &[1]);
    rig.expect(1, 2, &[3, 4]);
    assert_eq!(rig.refused(1, Request::Read { range: range(0, 4), below: Lsn::MAX }), Status::BadBlock);
    rig = restart(rig.stop());
    rig.opened(1, 3);
    assert_eq!(
        rig.refused(1, Request::Read { range: range(1, 1), below: Lsn::MAX }),
        Status::BadBlock,
        "a lost block stays lost"
    );
    rig.write(1, Request::Repair { range: range(1, 1), below: Lsn::MAX, blocks: blocks(&[2]) });
    rig.expect(1, 0, &[1, 2, 3, 4]);
}

#[test]
fn a_bad_header_below_a_later_batch_puts_everything_in_doubt() {
    let mut rig = with_batches(4);
    rig.flip(header_of(2) + 100);
    let mut rig = restart(rig.stop());
    for epoch in 2..4 {
        rig.opened(1, epoch);
        let Reply::Reported { entries, next: None } = rig.ask(1, Request::Report { from: range(0, 1).chunk }) else {
            panic!()
        };
        assert_eq!(entries.len(), 16, "chunks that have no entry are named too");
        assert!(entries.iter().all(|entry| entry.prefix == Lsn::ZERO && !entry.complete));
        rig.expect(1, 2, &[3, 4]);
        rig = restart(rig.stop());
    }
    rig.opened(1, 9);
    assert_eq!(rig.refused(1, Request::FinishSync), Status::Incomplete);
    rig.write(1, Request::CompleteChunk { chunk: range(0, 1).chunk, prefix: lsn(1, 4) });
    let Reply::Reported { entries, .. } = rig.ask(1, Request::Report { from: range(0, 1).chunk }) else { panic!() };
    assert!(entries[0].complete && entries[0].prefix == lsn(1, 4) && !entries[1].complete);
    assert_eq!(rig.refused(1, Request::BeginSync { after: lsn(1, 4) }), Status::Incomplete);
    for chunk in entries.iter().skip(1).map(|entry| entry.chunk) {
        rig.write(1, Request::CompleteChunk { chunk, prefix: Lsn::ZERO });
    }
    let mut rig = restart(rig.stop());
    let Reply::Opened(opened) = rig.open(1, 10) else { panic!() };
    assert!(!opened.syncing, "whole again once every chunk is");
}

#[test]
fn an_unreadable_page_of_the_journal_is_one_bad_page() {
    let rig = with_batches(4);
    let bad = header_of(2) + PAGE;
    let mut rig = Rig::start(rig.stop());
    rig.settle_but_for(bad);
    assert_eq!(rig.recovered, Some((5, 1)));
}

#[test]
fn an_end_of_the_journal_that_cannot_be_read_is_no_torn_tail() {
    for bad in [header_of(4), header_of(4) + PAGE] {
        let mut rig = Rig::start(with_batches(4).stop());
        rig.settle_but_for(bad);
        let Reply::Opened(opened) = rig.open(1, 2) else { panic!() };
        assert!(opened.syncing, "it lacks a write that it had acknowledged, and says so");
    }
}

#[test]
fn a_direct_write_whose_data_was_lost_ends_its_volumes_history() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    let other = 20_000;
    rig.write(1, write(0, &[1; 16], lsn(1, 1)));
    rig.write(1, write(other, &[1], lsn(1, 2)));
    rig.rest();
    rig.send(1, write(0, &[2; 16], lsn(1, 3)));
    rig.send(1, write(other, &[2], lsn(1, 4)));
    rig.send(1, write(0, &[3], lsn(1, 5)));
    rig.send(1, Request::CompleteChunk { chunk: range(0, 1).chunk, prefix: lsn(1, 5) });
    while let Some(&at) = rig.journal_writes().first() {
        rig.complete(at);
    }
    assert_eq!(rig.slot_writes().len(), 1, "the data never comes");
    let mut rig = restart(rig.stop());
    rig.opened(1, 2);
    rig.expect(1, 0, &[1; 16]);
    rig.expect(1, other, &[1]);
    let Reply::Reported { entries, .. } = rig.ask(1, Request::Report { from: range(0, 1).chunk }) else { panic!() };
    assert_eq!(entries.iter().map(|entry| entry.prefix).collect::<Vec<_>>(), [lsn(1, 1), lsn(1, 2)]);
}

#[test]
fn a_direct_write_that_rots_leaves_no_higher_lsn_behind() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.send(1, write(20_000, &[1], lsn(1, 1)));
    rig.send(1, write(0, &[2; 16], lsn(1, 2)));
    rig.send(1, write(20_000, &[3], lsn(1, 3)));
    rig.complete(0);
    let data = match &rig.in_flight[rig.slot_writes()[0]] {
        Action::Write { offset, .. } => offset.0 as usize,
        action => panic!("{action:?}"),
    };
    rig.settle();
    rig.flip(data + 9);
    let mut rig = restart(rig.stop());
    let Reply::Opened(opened) = rig.open(1, 1) else { panic!() };
    assert_eq!(opened.last, lsn(1, 1), "so the writer, which was answered 3, sees what is missing");
}

#[test]
fn a_direct_block_overwritten_in_place_since_is_no_reason_to_end_the_history() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[2; 16], lsn(1, 1)));
    rig.write(1, write(3, &[3], lsn(1, 2)));
    // Applied in place, and no later batch says that the data beside the journal was durable.
    rig.now = rig.engine.next_deadline();
    rig.handle(Event::Tick);
    rig.complete(0);
    assert!(rig.media.index.keys().all(|key| key[0] != b's'));
    let mut rig = restart(rig.stop());
    rig.opened(1, 2);
    rig.expect(1, 2, &[2, 3, 2]);
}

#[test]
fn a_return_does_not_end_after_a_lost_write() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, Request::BeginSync { after: Lsn::ZERO });
    rig.rest();
    rig.send(1, write(0, &[2; 16], lsn(1, 1)));
    rig.send(1, Request::FinishSync);
    while let Some(&at) = rig.journal_writes().first() {
        rig.complete(at);
    }
    let mut rig = restart(rig.stop());
    let Reply::Opened(opened) = rig.open(1, 2) else { panic!() };
    assert!(opened.syncing);
}

#[test]
fn what_a_new_process_found_is_durable_before_it_is_reported() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.send(1, write(0, &[1; 16], lsn(1, 1)));
    rig.send(1, write(20, &[2], lsn(1, 2)));
    let mut rig = rig.die(config());
    rig.settle();
    rig.opened(1, 2);
    let Reply::Reported { entries, .. } = rig.ask(1, Request::Report { from: range(0, 1).chunk }) else { panic!() };
    let reported = entries[0].prefix;
    assert_eq!(reported, lsn(1, 1));
    // The power fails without a sector of the device's cache being saved.
    let mut rig = restart(rig.media);
    rig.opened(1, 3);
    let Reply::Reported { entries, .. } = rig.ask(1, Request::Report { from: range(0, 1).chunk }) else { panic!() };
    assert_eq!(entries[0].prefix, reported);
    rig.expect(1, 0, &[1; 16]);
}

#[test]
fn data_that_is_read_and_will_never_be_flushed_is_written_again() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.send(1, write(0, &[1; 16], lsn(1, 1)));
    let mut rig = rig.die(config());
    rig.lose_the_cache();
    rig.settle();
    rig.opened(1, 2);
    rig.expect(1, 0, &[1; 16]);
    let mut rig = restart(rig.media);
    rig.opened(1, 3);
    rig.expect(1, 0, &[1; 16]);
}

/// A batch that only the dead process's cache holds must not be written in place over what was answered before.
#[test]
fn a_batch_that_is_read_and_will_never_be_durable_spoils_nothing_in_place() {
    for seed in 0..20 {
        let mut rig = Rig::format(256);
        rig.opened(1, 1);
        rig.write(1, write(0, &[1; 16], lsn(1, 1)));
        rig.send(1, write(0, &[2; 4], lsn(1, 2)));
        let mut rig = rig.die(config());
        rig.lose_the_cache();
        while rig.slot_writes().is_empty() {
            rig.step();
        }
        let mut rig = restart(rig.crash(&mut Random::new(seed)));
        let Reply::Opened(opened) = rig.open(1, 2) else { panic!() };
        assert!(opened.last >= lsn(1, 1), "what was answered is lost");
        rig.expect(1, 4, &[1; 12]);
    }
}

/// The same where the batch is durable, and data beside it is in the cache only: the history may yet end before it.
#[test]
fn data_that_is_read_and_will_never_be_durable_spoils_nothing_in_place() {
    for seed in 0..40 {
        let mut rig = Rig::format(256);
        rig.opened(1, 1);
        rig.write(1, write(0, &[1], lsn(1, 1)));
        rig.rest();
        rig.send(1, write(32, &[2; 16], lsn(1, 2)));
        rig.send(1, write(0, &[3], lsn(1, 3)));
        while let Some(&at) = rig.journal_writes().first() {
            rig.complete(at);
        }
        let mut rig = rig.die(config());
        rig.lose_the_cache();
        while rig.slot_writes().len() < 2 && !rig.is_at_rest() {
            rig.step();
        }
        let mut rig = restart(rig.crash(&mut Random::new(seed)));
        rig.opened(1, 2);
        let Reply::Data(blocks) = rig.ask(1, Request::Read { range: range(0, 1), below: Lsn::MAX }) else {
            panic!("block 0 is lost")
        };
        assert!([1, 3].contains(&blocks.data[0]));
    }
}

/// However much lies side by side: the shell takes no write of any length.
#[test]
fn data_that_is_written_again_goes_in_writes_of_bounded_length() {
    let mut rig = Rig::format(4096);
    rig.opened(1, 1);
    for i in 0..40 {
        rig.send(1, write(i * 256, &[1; 256], lsn(1, 1 + i)));
    }
    while let Some(&at) = rig.journal_writes().first() {
        rig.complete(at);
    }
    let mut rig = rig.die(config());
    while rig.recovered.is_none() {
        for action in &rig.in_flight {
            let Action::Write { parts, .. } = action else { continue };
            let bytes: usize = parts.iter().map(|part| part.len()).sum();
            assert!(bytes <= ashlar_wire::limits::DATA_BYTES_MAX, "{bytes} bytes at once");
        }
        rig.complete(0);
    }
    rig.opened(1, 2);
    rig.expect(1, 39 * 256, &[1; 256]);
}

#[test]
fn a_discard_survives_the_crash_and_nothing_comes_back() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 32], lsn(1, 1)));
    rig.write(1, write(3, &[2], lsn(1, 2)));
    rig.write(1, discard(0, 16, lsn(1, 3)));
    rig.write(1, discard(20, 2, lsn(1, 4)));
    for round in 0..3 {
        rig = restart(rig.crash(&mut Random::new(round)));
        rig.opened(1, 2 + round as u32);
        rig.expect(1, 0, &[0; 16]);
        rig.expect(1, 19, &[1, 0, 0, 1]);
    }
    rig.rest();
    assert_eq!(rig.engine.status().slots_used, 1);
}

#[test]
fn replay_that_is_cut_off_at_every_operation_ends_in_the_same_state() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    for i in 0..30 {
        let start = i * 37 % 300;
        rig.write(1, write(start, &vec![i as u8 + 1; 1 + (i as usize * 13) % 40], lsn(1, 1 + i)));
    }
    rig.write(1, discard(100, 50, lsn(1, 31)));
    rig.write(
        1,
        Request::MarkStale {
            chunk: range(0, 1).chunk,
            after: lsn(1, 30),
            floors: FloorRange::ALL,
            into: Lsn::ZERO,
            slots: Default::default(),
        },
    );
    let media = rig.stop();
    let rested = |media| {
        let mut rig = Rig::start(media);
        rig.rest();
        rig.media
    };
    let whole = rested(media.clone());
    let mut random = Random::new(11);
    for cut in 0.. {
        let mut rig = Rig::start(media.clone());
        rig.go_on(cut, &mut random);
        let is_over = rig.is_at_rest();
        let mut cut_off = rig.crash(&mut random);
        // And once more within the second recovery.
        let mut again = Rig::start(cut_off.clone());
        for _ in 0..random.below(12) {
            again.step();
        }
        cut_off = again.crash(&mut random);
        let end = rested(cut_off);
        assert!(end.index == whole.index, "cut after {cut} operations");
        let data = media.superblock.layout.data_offset.0 as usize;
        assert!(end.bytes[data..] == whole.bytes[data..], "cut after {cut} operations");
        if is_over {
            assert!(cut > 8);
            return;
        }
    }
}

#[test]
fn a_damaged_index_loses_blocks_or_completeness_but_never_the_promise() {
    let mut rig = with_batches(20);
    rig.rest();
    let media = rig.stop();
    let damage = |tag: u8| {
        let mut media = media.clone();
        let value = media.index.iter_mut().find(|(key, _)| key[0] == tag).unwrap().1;
        value[10] ^= 1;
        media
    };
    let mut rig = restart(damage(b's'));
    rig.opened(1, 2);
    assert_eq!(rig.refused(1, Request::Read { range: range(0, 1), below: Lsn::MAX }), Status::BadBlock);
    rig.expect(1, 16, &[17]);
    rig.write(1, Request::Repair { range: range(0, 2), below: Lsn::MAX, blocks: blocks(&[1, 2]) });
    rig.expect(1, 0, &[1, 2]);
    let mut rig = restart(damage(b'c'));
    rig.opened(1, 2);
    let Reply::Reported { entries, .. } = rig.ask(1, Request::Report { from: range(0, 1).chunk }) else { panic!() };
    assert!(!entries[0].complete && entries[0].prefix == Lsn::ZERO);
    for tag in [b'v', b'p'] {
        let media = damage(tag);
        let index = IndexLoad::of(media.superblock, media.index);
        let refused = crate::Engine::new(config(), index, ashlar_types::Instant::ZERO);
        assert!(matches!(refused, Err(crate::RecoverError::DamagedIndex(_))));
    }
}

/// The end of a return says that everything is there; it does not say what a damaged row said.
#[test]
fn a_chunk_row_damaged_in_the_middle_of_a_return_is_not_mended_by_its_end() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, Request::BeginSync { after: Lsn::ZERO });
    rig.write(1, write(0, &[1], lsn(1, 1)));
    rig.rest();
    rig.write(1, Request::FinishSync);
    let mut media = rig.stop();
    media.index.iter_mut().find(|(key, _)| key[0] == b'c').unwrap().1[10] ^= 1;
    let mut rig = restart(media);
    let Reply::Opened(opened) = rig.open(1, 2) else { panic!() };
    assert!(opened.syncing, "it lacks what the row said");
    // Nothing that was written in that return is taken for fresh in the next one.
    rig.write(1, Request::BeginSync { after: Lsn::ZERO });
    assert_eq!(rig.refused(1, Request::Read { range: range(0, 1), below: Lsn::MAX }), Status::Stale);
}

#[test]
fn an_index_of_another_disk_or_a_lost_one_is_refused() {
    let mut rig = with_batches(5);
    rig.rest();
    rig.write(1, write(0, &[1], lsn(1, 100)));
    let mut media = rig.stop();
    let mut other = media.superblock;
    other.disk = DiskId::from_u128(3);
    let index = IndexLoad::of(other, &media.index);
    let refused = crate::Engine::new(config(), index, ashlar_types::Instant::ZERO);
    assert!(matches!(refused, Err(crate::RecoverError::ForeignIndex)));
    media.index.clear();
    assert!(media.bytes[RING..RING + 8] == *b"ASHLBTCH");
    let mut rig = restart(media);
    assert!(rig.failed.as_ref().unwrap().contains("index was lost"));
    let Reply::Refused(refusal) = rig.open(1, 50) else { panic!() };
    assert_eq!(refusal.status, Status::DiskFailed);
}

#[test]
fn a_fill_that_fills_nothing_does_not_stand_for_a_torn_write_beside_the_journal() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.send(1, write(0, &[7; 16], lsn(1, 1)));
    let content = SlotContent { stamp: lsn(1, 9), set: 0x8001, valid: 0x8001, blocks: blocks(&[8, 8]) };
    rig.send(
        1,
        Request::Fill {
            chunk: range(0, 1).chunk,
            slot: SlotIndex(0),
            floors: FloorRange::ALL,
            into: Lsn::ZERO,
            content,
        },
    );
    while let Some(&at) = rig.journal_writes().first() {
        rig.complete(at);
    }
    let Action::Write { offset, parts, .. } = &rig.in_flight[rig.slot_writes()[0]] else { panic!() };
    // All of the slot came but its first sector.
    let (at, data) = (offset.0 as usize, parts.concat());
    let mut media = rig.stop();
    media.bytes[at + 512..at + data.len()].copy_from_slice(&data[512..]);
    let mut rig = restart(media);
    assert_eq!(rig.recovered.map(|(_, lost)| lost), Some(0));
    rig.opened(1, 2);
    rig.expect(1, 0, &[0; 16]);
}
