//! Tests of `scrub`.

use super::*;
use crate::testing::{Media, Random, Rig, blocks, config, lsn, range, volume, write};
use crate::{EngineConfig, Event};
use ashlar_types::{BLOCKS_PER_SLOT, SLOT_BYTES};
use ashlar_wire::{BadBlocks, Reply, Request, Status};

const PERIOD: Duration = Duration::from_secs(8000);
/// 7/8 of it.
const AIM: Duration = Duration::from_secs(7000);
const SLOT_BLOCKS: u64 = BLOCKS_PER_SLOT as u64;

fn with_scrub() -> EngineConfig {
    EngineConfig { scrub_period: Some(PERIOD), started_unix_ms: 1_000_000, ..config() }
}

/// A disk with `slots` full slots, all in place, that is scrubbed from its next start on.
fn filled(slots: u64) -> Media {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    for slot in 0..slots {
        rig.write(1, write(slot * SLOT_BLOCKS, &[7; 16], lsn(1, slot + 1)));
    }
    rig.rest();
    rig.stop()
}

fn started(media: Media) -> Rig {
    let mut rig = Rig::start_with(media, with_scrub());
    rig.settle();
    rig
}

/// Until so many slots of this round were looked at, or the round is over.
fn scrub(rig: &mut Rig, slots: u64) {
    let rounds = rig.rounds.len();
    while rig.engine.status().scrub.slots < slots && rig.rounds.len() == rounds {
        tick(rig);
    }
}

fn round(rig: &mut Rig) {
    scrub(rig, u64::MAX);
}

fn tick(rig: &mut Rig) {
    rig.now = rig.now.max(rig.engine.next_deadline());
    rig.handle(Event::Tick);
    rig.settle();
}

fn block_offset(rig: &Rig, block: u64) -> usize {
    rig.media.superblock.layout.data_offset.0 as usize + block as usize * PAGE
}

fn listed(rig: &mut Rig, link: u64) -> Vec<BadBlocks> {
    match rig.ask(link, Request::ListBad { from: ChunkIndex(0), slot: SlotIndex(0) }) {
        Reply::Bad { entries, more: false } => entries,
        reply => panic!("{reply:?}"),
    }
}

fn bad(slot: u16, below: Lsn, blocks: u16) -> BadBlocks {
    BadBlocks { chunk: ChunkIndex(0), slot: SlotIndex(slot), below, blocks }
}

fn repair(rig: &mut Rig, start: u64, fills: &[u8]) {
    let range = range(start, fills.len() as u32);
    rig.write(1, Request::Repair { range, below: Lsn::MAX, blocks: blocks(fills) });
}

#[test]
fn a_round_reads_every_slot_once_and_takes_seven_eighths_of_the_period() {
    let mut rig = started(filled(100));
    let begun = rig.now;
    round(&mut rig);
    let counters = rig.engine.status().counters;
    assert_eq!((rig.rounds.clone(), rig.found.len()), (vec![(100, 0)], 0));
    assert_eq!((counters.scrubbed_bytes, counters.scrub_retries), (100 * SLOT_BYTES, 0));
    let took = rig.now.since(begun);
    assert!(took > AIM * 98 / 100 && took < AIM * 102 / 100, "{took:?}");
    let status = rig.engine.status().scrub;
    assert_eq!((status.rounds, status.slots), (1, 0));
    assert_eq!(status.ended_unix_ms, 1_000_000 + took.as_millis() as u64, "for people");
}

#[test]
fn without_a_period_nothing_is_read() {
    let mut rig = Rig::start(filled(10));
    rig.rest();
    assert_eq!(rig.engine.status().counters.scrubbed_bytes, 0);
}

#[test]
fn an_empty_disk_waits_for_content() {
    let mut rig = started(Media::format(256));
    rig.rest();
    assert_eq!((rig.engine.next_deadline(), rig.rounds.len()), (Instant::FAR, 0));
}

#[test]
fn a_block_that_is_bad_twice_is_told_listed_and_mended_by_a_repair() {
    let mut rig = started(filled(4));
    rig.opened(1, 2);
    let (at, other) = (block_offset(&rig, 18), block_offset(&rig, 21));
    rig.flip(at);
    rig.flip(other);
    round(&mut rig);
    assert_eq!(rig.found, [(volume(), ChunkIndex(0), SlotIndex(1), 0b10_0100)]);
    assert_eq!(listed(&mut rig, 1), [bad(1, Lsn::MAX, 0b10_0100)]);
    let status = rig.engine.status().scrub;
    assert_eq!((status.found_blocks, status.bad_blocks, status.repaired_blocks), (2, 2, 0));

    repair(&mut rig, 18, &[8]);
    assert_eq!(listed(&mut rig, 1), [bad(1, Lsn::MAX, 0b10_0100)], "other content is no repair");
    repair(&mut rig, 18, &[7]);
    assert_eq!(listed(&mut rig, 1), [bad(1, Lsn::MAX, 0b10_0000)]);
    rig.write(1, write(21, &[9], lsn(2, 1)));
    assert_eq!(listed(&mut rig, 1), [], "what is written anew is good");
    rig.expect(1, 16, &[7, 7, 7, 7, 7, 9]);
    round(&mut rig);
    assert_eq!(rig.rounds, [(4, 2), (4, 0)]);
    let status = rig.engine.status().scrub;
    assert_eq!((status.found_blocks, status.bad_blocks, status.repaired_blocks), (2, 0, 1));
}

#[test]
fn an_error_of_the_medium_that_does_not_come_again_is_none() {
    let mut rig = started(filled(1));
    rig.now = rig.engine.next_deadline();
    rig.handle(Event::Tick);
    rig.break_op(0);
    assert_eq!(rig.in_flight.len(), 16, "block by block");
    rig.break_op(3);
    rig.settle();
    assert_eq!(rig.found, [(volume(), ChunkIndex(0), SlotIndex(0), 0b1000)]);
    assert_eq!(rig.engine.status().counters.scrub_retries, 16);
}

#[test]
fn what_changes_under_the_read_is_not_bad() {
    let mut rig = started(filled(1));
    rig.opened(1, 2);
    rig.now = rig.engine.next_deadline();
    let at = block_offset(&rig, 0);
    rig.flip(at);
    rig.handle(Event::Tick);
    rig.complete(0);
    rig.send(1, write(0, &[5], lsn(2, 1)));
    while let Some(&journal) = rig.journal_writes().first() {
        rig.complete(journal);
    }
    rig.settle();
    assert_eq!((rig.found.len(), rig.engine.status().scrub.bad_blocks), (0, 0));
    rig.expect(1, 0, &[5, 7]);
}

#[test]
fn a_restart_goes_on_where_it_was_and_knows_what_was_bad() {
    let mut rig = started(filled(20));
    let at = block_offset(&rig, 5);
    rig.flip(at);
    scrub(&mut rig, 12);
    tick(&mut rig);
    let slots = rig.engine.status().scrub.slots;
    let mut rig = started(rig.crash(&mut Random::new(1)));
    let status = rig.engine.status().scrub;
    assert!(status.slots >= 11 && status.slots <= slots, "{}", status.slots);
    assert_eq!((status.found_blocks, status.bad_blocks), (1, 1));
    rig.opened(1, 2);
    assert_eq!(listed(&mut rig, 1), [bad(0, Lsn::MAX, 1 << 5)]);
    round(&mut rig);
    assert_eq!(rig.rounds, [(20, 1)], "every slot once");
    assert!(rig.engine.status().counters.scrubbed_bytes <= 9 * SLOT_BYTES);
}

#[test]
fn what_is_found_is_saved_at_once_and_progress_with_the_next_checkpoint() {
    let scrubbed = EngineConfig { scrub_period: Some(Duration::from_secs(32)), ..config() };
    let mut rig = Rig::start_with(filled(80), scrubbed.clone());
    rig.settle();
    let at = block_offset(&rig, 40 * SLOT_BLOCKS);
    rig.flip(at);
    let start = rig.engine.status().counters.checkpoints;
    scrub(&mut rig, 41);
    assert_eq!((rig.engine.status().counters.checkpoints, rig.found.len()), (start + 1, 1));
    scrub(&mut rig, 46);
    assert_eq!(rig.engine.status().counters.checkpoints, start + 1);
    let rig = Rig::start_with(rig.crash(&mut Random::new(1)), scrubbed);
    let status = rig.engine.status().scrub;
    assert_eq!((status.bad_blocks, status.found_blocks), (1, 1));
    assert!((41..=46).contains(&status.slots), "{}", status.slots);
}

#[test]
fn a_repair_is_known_after_a_crash() {
    let mut rig = started(filled(2));
    let at = block_offset(&rig, 1);
    rig.flip(at);
    round(&mut rig);
    tick(&mut rig);
    rig.opened(1, 2);
    repair(&mut rig, 1, &[7]);
    // Of the repair the journal alone knows.
    let mut rig = started(rig.crash(&mut Random::new(1)));
    assert_eq!(rig.engine.status().scrub.bad_blocks, 0);
    rig.opened(1, 3);
    rig.expect(1, 0, &[7, 7]);
    rig.rest();
    let mut rig = started(rig.stop());
    assert_eq!((rig.engine.status().scrub.bad_blocks, rig.engine.status().scrub.found_blocks), (0, 1));
    round(&mut rig);
    assert_eq!(rig.found, []);
}

#[test]
fn old_versions_are_read_too_and_listed_by_the_point_that_needs_them() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 16], lsn(1, 1)));
    let point = lsn(1, 10);
    let above = Request::Write { range: range(0, 4), lsn: lsn(1, 11), floor: point, blocks: blocks(&[2; 4]) };
    rig.write(1, above);
    rig.rest();
    let mut rig = started(rig.stop());
    rig.opened(1, 2);
    let (hidden, shown) = (block_offset(&rig, 1), block_offset(&rig, 5));
    rig.flip(hidden);
    rig.flip(shown);
    round(&mut rig);
    assert_eq!(rig.rounds, [(2, 2)]);
    assert_eq!(listed(&mut rig, 1), [bad(0, point, 1 << 1), bad(0, Lsn::MAX, 1 << 5)]);
    let lost = Request::Read { range: range(1, 1), below: point };
    assert_eq!(rig.refused(1, lost.clone()), Status::BadBlock);
    rig.write(1, Request::Repair { range: range(1, 1), below: point, blocks: blocks(&[1]) });
    assert!(matches!(rig.ask(1, lost), Reply::Data(_)));

    rig.flip(hidden + SLOT_BYTES as usize);
    round(&mut rig);
    assert_eq!(listed(&mut rig, 1), [bad(0, Lsn::MAX, 1 << 5), bad(0, Lsn::MAX, 1 << 1)]);
}

#[test]
fn what_no_point_needs_is_not_listed_and_goes_when_versions_are_merged() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 4], lsn(1, 1)));
    let point = lsn(1, 10);
    rig.write(1, Request::Write { range: range(0, 4), lsn: lsn(1, 11), floor: point, blocks: blocks(&[2; 4]) });
    rig.rest();
    let mut rig = started(rig.stop());
    rig.opened(1, 2);
    let hidden = block_offset(&rig, 1);
    rig.flip(hidden);
    round(&mut rig);
    assert_eq!(listed(&mut rig, 1), [bad(0, point, 1 << 1)]);
    rig.write(1, Request::Keep(ashlar_types::Kept { live: vec![], until: lsn(2, 1) }));
    assert_eq!(listed(&mut rig, 1), []);
    round(&mut rig);
    assert_eq!((rig.engine.status().counters.merges, rig.engine.status().scrub.bad_blocks), (1, 0));
    rig.expect(1, 0, &[2; 4]);
}

#[test]
fn a_merge_keeps_what_is_known_of_blocks_that_stay_where_they_are() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 16], lsn(1, 1)));
    let point = lsn(1, 10);
    rig.write(1, Request::Write { range: range(0, 2), lsn: lsn(1, 11), floor: point, blocks: blocks(&[2; 2]) });
    rig.rest();
    let mut rig = started(rig.stop());
    rig.opened(1, 2);
    let stays = block_offset(&rig, 9);
    rig.flip(stays);
    round(&mut rig);
    rig.write(1, Request::Keep(ashlar_types::Kept { live: vec![], until: lsn(2, 1) }));
    round(&mut rig);
    assert_eq!(rig.engine.status().counters.merges, 1);
    assert_eq!(listed(&mut rig, 1), [bad(0, Lsn::MAX, 1 << 9)]);
}

#[test]
fn a_read_that_finds_a_bad_block_notes_it() {
    let mut rig = started(filled(1));
    rig.opened(1, 2);
    let at = block_offset(&rig, 3);
    rig.flip(at);
    assert_eq!(rig.refused(1, Request::Read { range: range(0, 8), below: Lsn::MAX }), Status::BadBlock);
    assert_eq!(listed(&mut rig, 1), [bad(0, Lsn::MAX, 1 << 3)]);
    let deleted = rig.delete(volume(), 2);
    assert_eq!((deleted, rig.engine.status().scrub.bad_blocks), (Ok(crate::Deleted::Gone), 0));
}

#[test]
fn a_long_list_goes_in_pages() {
    let mut rig = started(filled(200));
    rig.opened(1, 2);
    for slot in 0..200 {
        let address = SlotAddress { volume: volume(), chunk: ChunkIndex(0), slot: SlotIndex(slot), floor: Lsn::ZERO };
        rig.engine.note_bad(address, 1);
        let later = SlotAddress { floor: lsn(1, 10), ..address };
        assert_eq!(rig.engine.note_bad(later, 1), 0, "there is no such version");
    }
    assert_eq!(listed(&mut rig, 1).len(), 200);
    let from_the_middle = Request::ListBad { from: ChunkIndex(0), slot: SlotIndex(150) };
    let Reply::Bad { entries, more: false } = rig.ask(1, from_the_middle) else { panic!() };
    assert_eq!((entries.len(), entries[0].slot), (50, SlotIndex(150)));
}

#[test]
fn pauses_keep_the_pace_catch_up_slowly_and_never_become_bursts() {
    let at = |elapsed: Duration, slots: u64| Round { elapsed, slots, ..Round::default() };
    let even = AIM / 1000;
    assert_eq!(pause_of(PERIOD, &at(Duration::ZERO, 0), 1000), even);
    assert_eq!(pause_of(PERIOD, &at(AIM / 2, 500), 1000), even);
    assert_eq!(pause_of(PERIOD, &at(AIM / 2, 0), 1000), even / 2, "late");
    for elapsed in [AIM, PERIOD, Duration::MAX] {
        assert_eq!(pause_of(PERIOD, &at(elapsed, 0), 1000), even / 4, "whatever the clock says");
    }
    assert_eq!(pause_of(PERIOD, &at(AIM, 2000), 1000), even / 4, "the disk has become emptier");
    assert_eq!(pause_of(Duration::from_nanos(1), &at(Duration::ZERO, 0), u32::MAX), SCRUB_PAUSE_MIN);
    pause_of(Duration::MAX, &at(Duration::ZERO, 0), 1);
}

#[test]
fn a_clock_that_leaps_brings_one_read_at_a_time() {
    let mut rig = started(filled(100));
    scrub(&mut rig, 3);
    rig.now = rig.now + Duration::from_secs(400 * 86_400);
    rig.handle(Event::Tick);
    assert_eq!(rig.in_flight.len(), 1);
    rig.settle();
    let before = rig.now;
    tick(&mut rig);
    assert!(rig.now.since(before) >= AIM / 400, "the next one has its distance");
}

#[test]
fn a_busy_journal_has_it_wait_but_not_for_ever() {
    let mut rig = started(filled(100));
    rig.opened(1, 2);
    scrub(&mut rig, 1);
    let due = rig.engine.scrub_due();
    rig.send(1, write(0, &[1], lsn(2, 1)));
    let busy = rig.engine.scrub_due();
    assert!(busy > due && busy.since(due) < AIM / 99 * 2, "{due:?} {busy:?}");
    rig.now = busy;
    let before = rig.in_flight.len();
    rig.handle(Event::Tick);
    assert!(rig.in_flight.len() > before);
}

#[test]
fn a_disk_that_has_failed_is_not_scrubbed() {
    let mut rig = started(filled(4));
    rig.opened(1, 2);
    rig.send(1, write(0, &[1], lsn(2, 1)));
    let journal = rig.journal_writes()[0];
    rig.break_op(journal);
    assert!(rig.failed.is_some());
    assert_eq!(rig.engine.next_deadline(), Instant::FAR);
}
