//! Places: a full disk, and places that are not used again too early.

use crate::testing::*;
use crate::{Action, Event};
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
fn a_full_disk_still_overwrites_discards_and_repairs() {
    let mut rig = Rig::format(200);
    rig.opened(1, 1);
    let slots = fill(&mut rig);
    for round in 0..20 {
        for i in 0..slots / 16 {
            rig.write(1, write(i * 256, &[round as u8; 256], lsn(1, 1000 + round * 100 + i)));
        }
    }
    rig.expect(1, 0, &[19; 256]);
    rig.write(1, write(5, &[7], lsn(1, 9000)));
    rig.write(1, Request::Repair { range: range(5, 1), blocks: blocks(&[7]) });
    rig.write(1, discard(16, 16, lsn(1, 9001)));
    rig.write(1, write(16 * 300, &[4], lsn(1, 9002)));
    rig.expect(1, 16 * 300, &[4]);
    assert_eq!(rig.refused(1, write(16 * 301, &[4], lsn(1, 9003))), Status::NoSpace);
}

#[test]
fn a_place_is_not_reused_before_the_trim() {
    let mut rig = Rig::format(200);
    rig.opened(1, 1);
    let slots = fill(&mut rig);
    rig.rest();
    // Overwrites take from the reserve; what they give back is not seen again before a checkpoint has committed.
    let mut taken = std::collections::BTreeSet::new();
    let mut i = 0;
    while rig.engine.status().counters.checkpoints == 2 && i < slots {
        rig.send(1, write(i * 16, &[99; 16], lsn(1, 1000 + i)));
        for at in rig.slot_writes() {
            if let Action::Write { offset, durable: true, .. } = &rig.in_flight[at] {
                assert!(taken.insert(offset.0), "a place is given out twice");
            }
        }
        while rig.in_flight.iter().any(|action| !matches!(action, Action::Commit { .. })) {
            let at = rig.in_flight.iter().position(|action| !matches!(action, Action::Commit { .. })).unwrap();
            rig.complete(at);
        }
        i += 1;
        if i == 30 {
            break;
        }
    }
    assert_eq!(taken.len(), i as usize);
    rig.settle();
    rig.handle(Event::Tick);
    rig.expect(1, 0, &[99; 16]);
}
