//! The index says how far the journal may go on, and a start reads no more of the ring.

use crate::Action;
use crate::config::BATCH_BYTES_MAX;
use crate::ring::reach_step;
use crate::testing::*;
use ashlar_types::BLOCK_BYTES;
use ashlar_wire::Reply;

/// Small writes until `count` have been sent; commits that are under way stay so.
fn write_without_commits(rig: &mut Rig, count: u64) {
    for i in 0..count {
        rig.send(1, write(i % 64, &[i as u8; 8], lsn(1, 1 + i)));
        while let Some(at) = rig.in_flight.iter().position(|action| !matches!(action, Action::Commit { .. })) {
            rig.complete(at);
        }
    }
}

/// Bytes of the ring that the reads under way ask for.
fn scanned(rig: &mut Rig) -> u64 {
    let layout = rig.media.superblock.layout;
    let ring = layout.journal_offset.0..layout.data_offset.0;
    let mut bytes = 0;
    while rig.recovered.is_none() {
        if let Action::Read { offset, bytes: length, .. } = &rig.in_flight[0]
            && ring.contains(&offset.0)
        {
            bytes += length.0;
        }
        rig.complete(0);
    }
    bytes
}

#[test]
fn the_journal_waits_for_the_index_to_say_that_it_goes_on() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    write_without_commits(&mut rig, 300);
    let commits = rig.in_flight.iter().filter(|action| matches!(action, Action::Commit { .. })).count();
    assert_eq!(commits, 1, "one at a time");
    let held_up = rig.answers();
    assert!(held_up < 300, "it goes on without the index");
    let ring = rig.media.superblock.layout.journal.0;
    let used = rig.engine.status().journal_used_bytes.0;
    assert!(used > BATCH_BYTES_MAX && used < ring / 2, "{used} bytes");
    // The power fails before the index has said it: what was answered lies within what it said before.
    let mut again = Rig::start(rig.media.clone());
    again.settle();
    let Reply::Opened(opened) = again.open(1, 2) else { panic!() };
    assert!(opened.last >= lsn(1, held_up as u64));
    rig.settle();
    assert_eq!(rig.answers(), 300);
    let mut again = Rig::start(rig.media.clone());
    again.settle();
    let Reply::Opened(opened) = again.open(1, 2) else { panic!() };
    assert_eq!(opened.last, lsn(1, 300));
}

#[test]
fn a_start_reads_what_is_in_use_and_a_step_of_the_ring() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    for i in 0..20 {
        rig.write(1, write(i, &[1; 8], lsn(1, 1 + i)));
    }
    let used = rig.engine.status().journal_used_bytes.0;
    let mut rig = Rig::start(rig.stop());
    let ring = rig.media.superblock.layout.journal.0;
    let two_steps = 2 * reach_step(ring);
    let bytes = scanned(&mut rig);
    assert!((used..=used + two_steps).contains(&bytes), "{bytes} bytes are read, {used} are in use");
    rig.rest();
    let mut rig = Rig::start(rig.stop());
    let bytes = scanned(&mut rig);
    assert!(bytes <= two_steps && bytes < ring, "{bytes} bytes are read, nothing is in use");
}

/// RocksDB takes the last record of its log for torn when it has rotted, and drops it.
#[test]
fn an_index_that_lost_its_last_commit_is_found_out() {
    for count in 10..120 {
        let mut rig = Rig::format(256);
        rig.opened(1, 1);
        let mut before = rig.media.index.clone();
        for i in 0..count {
            rig.send(1, write(i % 64, &[i as u8; 8], lsn(1, 1 + i)));
            while !rig.in_flight.is_empty() {
                if matches!(rig.in_flight[0], Action::Commit { .. }) {
                    before = rig.media.index.clone();
                }
                rig.complete(0);
            }
        }
        assert_eq!(rig.answers(), count as usize);
        let mut media = rig.stop();
        media.index = before;
        let mut rig = Rig::start(media);
        rig.settle();
        let Reply::Opened(opened) = rig.open(1, 2) else { panic!() };
        assert!(opened.last == lsn(1, count) || opened.syncing, "{count} were answered, {:?} is there", opened.last);
    }
}

/// The commit of a checkpoint may be a long one.
#[test]
fn while_a_checkpoint_is_committed_the_journal_goes_on_for_a_step() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    let is_checkpoint = |action: &Action| matches!(action, Action::Commit { edits, .. } if edits.len() > 1);
    let mut sent = 0;
    let mut send_one = |rig: &mut Rig| {
        sent += 1;
        rig.send(1, write(8 * (sent % 64), &[sent as u8; 8], lsn(1, sent)));
        while let Some(at) = rig.in_flight.iter().position(|action| !is_checkpoint(action)) {
            rig.complete(at);
        }
    };
    while !rig.in_flight.iter().any(is_checkpoint) {
        send_one(&mut rig);
    }
    let begun = rig.engine.status().journal_used_bytes.0;
    (0..200).for_each(|_| send_one(&mut rig));
    let more = rig.engine.status().journal_used_bytes.0 - begun;
    let step = reach_step(rig.media.superblock.layout.journal.0);
    assert!(more + 2 * BATCH_BYTES_MAX >= step, "it stands still after {more} bytes");
}

/// A disk whose last checkpoint a program wrote that knew of no reach.
#[test]
fn where_the_index_does_not_say_it_the_whole_ring_is_read() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 8], lsn(1, 1)));
    let mut media = rig.stop();
    let row = media.index.get_mut(&b"p"[..]).expect("a position");
    row[4..8].fill(0);
    let body = row.len() - 4;
    let crc = ashlar_types::Crc32::of_parts(&[b"p", &row[..body]]);
    row[body..].copy_from_slice(&crc.0.to_le_bytes());
    let mut rig = Rig::start(media);
    assert_eq!(scanned(&mut rig), rig.media.superblock.layout.journal.0);
    assert_eq!(rig.recovered, Some((2, 0)));
}

/// Checkpoints and the reach take turns, in any order, and laps of the ring: nothing that was answered is lost.
#[test]
fn nothing_is_lost_whenever_the_power_fails() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut rig = Rig::format(256);
        rig.opened(1, 1);
        let mut sent = 0;
        let laps = 4 * rig.media.superblock.layout.journal.0 / (9 * BLOCK_BYTES);
        let until = random.below(laps);
        while sent < until {
            sent += 1;
            rig.send(1, write(8 * (sent % 200), &[sent as u8; 8], lsn(1, sent)));
            let steps = random.below(6);
            rig.go_on(steps, &mut random);
            let commits = rig.in_flight.iter().filter(|action| matches!(action, Action::Commit { .. })).count();
            assert!(commits <= 1, "one at a time");
        }
        let answered = rig.answers() as u64;
        let mut rig = Rig::start(rig.crash(&mut random));
        rig.settle();
        assert_eq!(rig.failed, None);
        let Reply::Opened(opened) = rig.open(1, 2) else { panic!() };
        assert!(opened.last >= lsn(1, answered), "seed {seed}: {answered} were answered, {:?} is there", opened.last);
        for slot in 0..200u64 {
            // Of a block that was sent once more nobody knows which it is.
            let newest = (1..=answered).rev().find(|at| at % 200 == slot).filter(|newest| newest + 200 > sent);
            if let Some(newest) = newest {
                rig.expect(1, 8 * slot, &[newest as u8; 8]);
            }
        }
    }
}
