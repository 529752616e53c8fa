//! Places: a full disk, and places that are not used again too early.

use crate::Action;
use crate::testing::*;
use ashlar_types::Lsn;
use ashlar_wire::{Reply, Request, Status};

/// Fills the disk with first-touch writes until it refuses; returns how many slots it took.
fn fill(rig: &mut Rig) -> u64 {
    for i in 0.. {
        match rig.ask(1, write(i * 16, &[i as u8; 16], lsn(1, 1 + i))) {
            Reply::Done => {}
            Reply::Refused(refusal) => {
                assert_eq!(refusal.status, Status::NoSpace);
                return i;
            }
            reply => panic!("{reply:?}"),
        }
    }
    unreachable!()
}

#[test]
fn a_full_disk_refuses_before_the_journal_takes_the_write() {
    let mut rig = Rig::format(200);
    rig.opened(1, 1);
    let slots = fill(&mut rig);
    assert_eq!(slots, 200 - u64::from(crate::config::RESERVE_SLOTS_MIN));
    rig.rest();
    let before = rig.engine.status().counters;
    assert_eq!(rig.refused(1, write(16 * 300, &[1], lsn(1, 1000))), Status::NoSpace);
    let after = rig.engine.status().counters;
    assert_eq!((before.records, before.journal_bytes), (after.records, after.journal_bytes));
    rig.expect(1, 16 * 300, &[0]);
}

#[test]
fn a_refused_write_lets_no_later_one_of_its_chunk_pass() {
    let mut rig = Rig::format(200);
    rig.opened(1, 1);
    fill(&mut rig);
    let (full, beside) = (write(16 * 300, &[1], lsn(1, 1000)), write(0, &[2], lsn(1, 1001)));
    assert_eq!(rig.refused(1, full.clone()), Status::NoSpace);
    assert_eq!(rig.refused(1, beside.clone()), Status::NoSpace, "else the first, sent again, were a duplicate");
    assert_eq!(rig.refused(1, discard(16, 16, lsn(1, 1002))), Status::NoSpace);
    assert_eq!(rig.refused(1, full.clone()), Status::NoSpace);
    // A new session sends again from the first on; here the writer has given the space of another chunk back before.
    rig.opened(2, 1);
    rig.write(2, discard(16, 16, lsn(1, 999)));
    rig.write(2, full);
    rig.write(2, beside);
    rig.expect(2, 16 * 300, &[1]);
    rig.expect(2, 0, &[2]);
}

#[test]
fn a_full_disk_still_overwrites_discards_and_repairs() {
    let mut rig = Rig::format(200);
    rig.opened(1, 1);
    let slots = fill(&mut rig);
    rig.opened(2, 1);
    for round in 0..20 {
        for i in 0..slots / 16 {
            rig.write(2, write(i * 256, &[round as u8; 256], lsn(1, 1000 + round * 100 + i)));
        }
    }
    rig.expect(2, 0, &[19; 256]);
    rig.write(2, write(5, &[7], lsn(1, 9000)));
    rig.write(2, Request::Repair { range: range(5, 1), below: Lsn::MAX, blocks: blocks(&[7]) });
    rig.write(2, discard(16, 16, lsn(1, 9001)));
    rig.write(2, write(16 * 300, &[4], lsn(1, 9002)));
    rig.expect(2, 16 * 300, &[4]);
    assert_eq!(rig.refused(2, write(16 * 301, &[4], lsn(1, 9003))), Status::NoSpace);
}

#[test]
fn a_place_is_not_reused_before_the_trim() {
    let mut rig = Rig::format(200);
    rig.opened(1, 1);
    let slots = fill(&mut rig);
    rig.opened(2, 1);
    rig.rest();
    let is_commit = |action: &Action| matches!(action, Action::Commit { .. });
    // Overwrites take from the reserve; what they give back is not seen again while no checkpoint commits.
    let mut taken = std::collections::BTreeSet::new();
    let reserve = u64::from(crate::config::RESERVE_SLOTS_MIN);
    let mut last = None;
    for i in 0..reserve + 3 {
        last = Some(rig.send(2, write(i % slots * 16, &[99; 16], lsn(1, 1000 + i))));
        while let Some(at) = rig.in_flight.iter().position(|action| !is_commit(action)) {
            if let Action::Write { offset, durable: true, .. } = &rig.in_flight[at]
                && rig.slot_writes().contains(&at)
            {
                assert!(taken.insert(offset.0), "a place is given out twice");
            }
            rig.complete(at);
        }
    }
    assert_eq!(taken.len() as u64, reserve);
    assert!(rig.answer_to(last.unwrap()).is_none(), "it waits, it is not refused");
    rig.settle();
    assert_eq!(rig.answer_to(last.unwrap()), Some(&Reply::Done));
    rig.expect(2, 0, &[99; 16]);
}
