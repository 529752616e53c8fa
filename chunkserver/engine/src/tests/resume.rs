//! A journal that is whole is served from before it is in place; what must hold until the next checkpoint.

use crate::batch::Header;
use crate::testing::*;
use crate::{Action, Event};
use ashlar_types::{DiskId, SLOT_BYTES};
use ashlar_wire::Reply;

/// A disk with some slots in place and in the index, and its journal full of what changed them since.
fn with_a_journal() -> Rig {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 64], lsn(1, 1)));
    rig.rest();
    for i in 0..20 {
        rig.write(1, write(i * 3, &[i as u8 + 2], lsn(1, 2 + i)));
    }
    rig
}

fn expect_all(rig: &mut Rig) {
    for i in 0..20 {
        rig.expect(1, i * 3, &[i as u8 + 2, 1, 1]);
    }
}

fn start_until_it_serves(media: Media) -> Rig {
    let mut rig = Rig::start(media);
    while rig.recovered.is_none() {
        assert!(rig.slot_writes().is_empty(), "it brings things into place before it serves");
        rig.complete(0);
    }
    rig
}

#[test]
fn a_whole_journal_is_served_before_it_is_in_place() {
    let mut rig = start_until_it_serves(with_a_journal().crash(&mut Random::new(1)));
    assert_eq!(rig.recovered, Some((20, 0)));
    let used = rig.engine.status().journal_used_bytes;
    assert!(used.0 > 0, "the journal is still needed");
    rig.opened(1, 2);
    expect_all(&mut rig);
    rig.rest();
    assert_eq!(rig.engine.status().journal_used_bytes.0, 0);
    expect_all(&mut rig);
    let mut rig = start_until_it_serves(rig.crash(&mut Random::new(2)));
    assert_eq!(rig.recovered, Some((0, 0)));
    rig.opened(1, 3);
    expect_all(&mut rig);
}

#[test]
fn what_was_replayed_is_replayed_again_with_what_came_since() {
    let mut media = with_a_journal().crash(&mut Random::new(1));
    for round in 0..10u64 {
        let mut rig = start_until_it_serves(media);
        assert_eq!(rig.recovered, Some((20 + 2 * round, 0)));
        let epoch = 2 + round as u32;
        rig.opened(1, epoch);
        for before in 0..round {
            rig.expect(1, 200 + before, &[before as u8 + 100]);
        }
        rig.write(1, write(200 + round, &[round as u8 + 100], lsn(epoch, 100 + round)));
        media = rig.crash(&mut Random::new(round));
    }
    let mut rig = start_until_it_serves(media);
    rig.opened(1, 90);
    expect_all(&mut rig);
}

/// The index names it until a checkpoint has passed the record that gave it back.
#[test]
fn a_place_that_replay_gave_back_is_not_reused_before_the_trim() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.send(1, write(0, &[1; 16], lsn(1, 1)));
    let Action::Write { offset: place, .. } = rig.in_flight[rig.slot_writes()[0]].clone() else { panic!() };
    rig.rest();
    rig.write(1, write(0, &[2; 16], lsn(1, 2)));
    let mut rig = Rig::start(rig.crash(&mut Random::new(1)));
    rig.settle();
    rig.opened(1, 2);
    let mut counter = 0;
    let confirmed = rig.engine.status().counters.checkpoints;
    while rig.engine.status().counters.checkpoints == confirmed {
        assert!(counter < 1000, "it never comes to a checkpoint");
        counter += 1;
        rig.send(1, write(16 * (1 + counter % 200), &[3; 16], lsn(2, counter)));
        for at in rig.slot_writes() {
            let Action::Write { offset, parts, .. } = &rig.in_flight[at] else { panic!() };
            let written = offset.0..offset.0 + parts.iter().map(|part| part.len() as u64).sum::<u64>();
            let reuses = written.start < place.0 + SLOT_BYTES && place.0 < written.end;
            assert!(!reuses, "the place is written before the trim");
        }
        rig.settle();
    }
}

/// A number is left out after a torn batch: were the journal to go on there, the next replay would take it for rot.
#[test]
fn a_torn_journal_is_in_place_before_it_is_served() {
    let mut rig = with_a_journal();
    rig.send(1, write(0, &[77], lsn(1, 30)));
    let Action::Write { offset, parts, .. } = &rig.in_flight[0] else { panic!() };
    let (at, header) = (offset.0 as usize, parts[0].clone());
    let mut media = rig.stop();
    media.bytes[at..at + header.len()].copy_from_slice(&header);
    assert!(Header::recognize(&header, DiskId::from_u128(2)).is_some());
    let mut rig = Rig::start(media);
    let mut in_place = 0;
    while rig.recovered.is_none() {
        in_place += rig.slot_writes().len();
        rig.complete(0);
    }
    assert!(in_place > 0 && rig.engine.status().journal_used_bytes.0 == 0);
    rig.opened(1, 2);
    rig.write(1, write(300, &[9], lsn(2, 31)));
    let mut rig = start_until_it_serves(rig.crash(&mut Random::new(3)));
    let Reply::Opened(opened) = rig.open(1, 3) else { panic!() };
    assert_eq!(opened.last, lsn(2, 31));
    rig.expect(1, 300, &[9]);
    expect_all(&mut rig);
}

/// What is read of the index may be in a cache only, and the ring is written as if it were not.
#[test]
fn the_index_is_durable_before_the_disk_serves() {
    let mut rig = Rig::start(with_a_journal().crash(&mut Random::new(1)));
    let mut committed = false;
    while rig.recovered.is_none() {
        let is_commit = matches!(rig.in_flight[0], Action::Commit { .. });
        assert!(!is_commit || rig.in_flight.len() == 1, "the flush before it has ended");
        committed |= is_commit;
        rig.complete(0);
    }
    assert!(committed);
    rig.handle(Event::Tick);
    assert!(rig.in_flight.is_empty(), "the next checkpoint has its own time");
}

/// What a start makes of a row that it cannot read is in the index before the slot's place is given to another.
#[test]
fn a_damaged_index_is_mended_before_the_disk_serves() {
    let mut rig = with_a_journal();
    rig.rest();
    rig.write(1, write(0, &[8], lsn(1, 40)));
    let mut media = rig.stop();
    let slot = media.index.keys().find(|key| key[0] == b's').unwrap().clone();
    media.index.get_mut(&slot).unwrap()[20] ^= 1;
    let damaged = media.index[&slot].clone();
    let mut rig = Rig::start(media);
    rig.settle();
    assert!(rig.recovered.is_some());
    assert_ne!(rig.media.index.get(&slot), Some(&damaged));
    assert_eq!(rig.engine.status().journal_used_bytes.0, 0);
}
