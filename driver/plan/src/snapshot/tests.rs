//! Each rule of snapshots by name.

use super::*;
use crate::membership::{apply, grant, release_by_force, reserve, tests::volume};
use ashlar_types::{Change, ChangeAnswer, Epoch, VolumeId};
use proptest::prelude::*;

fn id(number: u128) -> SnapshotId {
    SnapshotId::from_u128(number)
}

fn attached() -> VolumeRecord {
    grant(&volume(), &"n".parse().unwrap()).unwrap()
}

fn proposed(record: &VolumeRecord, id: SnapshotId, point: Lsn) -> ChangeAnswer {
    apply(record, record.epoch, record.version, &Change::Snapshot(Snapshot { id, point }))
}

fn applied(answer: ChangeAnswer) -> VolumeRecord {
    let ChangeAnswer::Applied { record } = answer else { panic!("{answer:?}") };
    record
}

fn later(record: &VolumeRecord, counter: u64) -> Lsn {
    Lsn::from_raw(Lsn::start_of(record.epoch).raw() + counter)
}

#[test]
fn the_writer_takes_them_in_order_and_under_its_epoch() {
    let record = attached();
    let first = applied(proposed(&record, id(1), later(&record, 7)));
    assert_eq!(first.snapshots, [Snapshot { id: id(1), point: later(&record, 7) }]);
    for (number, point) in [(1, later(&record, 8)), (2, later(&record, 7)), (2, later(&record, 6)), (2, Lsn::ZERO)] {
        assert!(matches!(proposed(&first, id(number), point), ChangeAnswer::Refused { .. }), "{number} {point}");
    }
    let next = Lsn::start_of(record.epoch.next().unwrap());
    assert!(matches!(proposed(&first, id(2), next), ChangeAnswer::Refused { .. }), "of an epoch to come");
    let second = applied(proposed(&first, id(2), later(&record, 8)));
    assert_eq!(second.points(), [later(&record, 7), later(&record, 8)]);
}

#[test]
fn one_that_is_fenced_takes_none() {
    let record = attached();
    let next = grant(&release_by_force(&record), &"m".parse().unwrap()).unwrap();
    let change = Change::Snapshot(Snapshot { id: id(1), point: later(&record, 7) });
    let answer = apply(&next, record.epoch, next.version, &change);
    assert_eq!(answer, ChangeAnswer::Fenced { epoch: next.epoch });
}

#[test]
fn a_proposal_whose_answer_was_lost_is_applied_once() {
    let record = attached();
    let change = Change::Snapshot(Snapshot { id: id(1), point: later(&record, 7) });
    let once = applied(apply(&record, record.epoch, record.version, &change));
    assert_eq!(applied(apply(&once, record.epoch, record.version, &change)), once);
}

#[test]
fn a_detached_volume_must_be_closed_and_held_by_nobody() {
    assert!(matches!(take_detached(&attached(), id(1)), Err(Refusal::Held { .. })));
    let unclosed = VolumeRecord { clean: false, ..volume() };
    assert_eq!(take_detached(&unclosed, id(1)), Err(Refusal::NotClosed));
    let taken = take_detached(&volume(), id(1)).unwrap();
    assert_eq!(take_detached(&taken, id(1)), Ok(taken.clone()));
    let both = take_detached(&taken, id(2)).unwrap();
    assert_eq!(both.points().len(), 1, "nothing was written in between");
    assert_eq!(forget(&forget(&both, id(1)), id(1)).snapshots.len(), 1);
}

#[test]
fn who_only_reserved_the_volume_is_in_nobodys_way() {
    let reserved = reserve(&volume(), &"n".parse().unwrap()).unwrap();
    let taken = take_detached(&reserved, id(1)).unwrap();
    assert_eq!((taken.epoch, taken.points()), (Epoch::NONE, vec![Lsn::start_of(Epoch::NONE.next().unwrap())]));
}

/// It would write before the point, and what it wrote would be in the snapshot.
#[test]
fn who_was_granted_an_epoch_and_has_not_served_does_not_serve_after_the_snapshot() {
    let granted = attached();
    let taken = take_detached(&release_by_force(&granted), id(1)).unwrap();
    let answer = apply(&taken, granted.epoch, taken.version, &Change::OpenDirty);
    assert_eq!(answer, ChangeAnswer::Fenced { epoch: taken.epoch });
    assert!(taken.points()[0] > Lsn::start_of(taken.epoch));
    let next = grant(&taken, &"m".parse().unwrap()).unwrap();
    assert_eq!(taken.points(), [Lsn::start_of(next.epoch)]);
}

#[test]
fn the_next_writer_may_take_one_at_its_first_write() {
    let taken = take_detached(&volume(), id(1)).unwrap();
    let granted = grant(&taken, &"n".parse().unwrap()).unwrap();
    assert_eq!(taken.points(), [Lsn::start_of(granted.epoch)]);
    assert_eq!(applied(proposed(&granted, id(2), later(&granted, 1))).points().len(), 2);
}

#[test]
fn there_is_an_end_to_them() {
    let mut record = attached();
    for number in 1..=SNAPSHOTS_MAX as u64 {
        record = applied(proposed(&record, id(u128::from(number)), later(&record, number)));
    }
    assert!(matches!(proposed(&record, id(0), later(&record, 1 << 20)), ChangeAnswer::Refused { .. }));
    let fewer = forget(&record, id(7));
    applied(proposed(&fewer, id(0), later(&record, 1 << 20)));
}

fn change(record: &VolumeRecord, change: &Change) -> VolumeRecord {
    applied(apply(record, record.epoch, record.version, change))
}

fn closed() -> VolumeRecord {
    change(&change(&attached(), &Change::OpenDirty), &Change::CloseClean)
}

#[test]
fn only_of_a_volume_that_its_last_writer_closed_is_it_told_what_to_keep() {
    let open = change(&attached(), &Change::OpenDirty);
    let closed = closed();
    for (record, why) in [
        (volume(), "never served"),
        (attached(), "being attached"),
        (open.clone(), "attached"),
        (release_by_force(&open), "taken from its writer"),
        (reserve(&closed, &"n".parse().unwrap()).unwrap(), "about to be attached"),
        (release_by_force(&grant(&closed, &"n".parse().unwrap()).unwrap()), "whom it was granted to may still live"),
    ] {
        assert_eq!(kept_detached(&record), None, "{why}");
    }
    let taken = change(&open, &Change::Snapshot(Snapshot { id: id(1), point: later(&open, 7) }));
    let taken = change(&taken, &Change::CloseClean);
    let kept = kept_detached(&taken).unwrap();
    assert_eq!(kept.live, [later(&open, 7)]);
    assert!(kept.is_valid() && kept.until.epoch() == taken.epoch);
    assert_eq!(kept_detached(&forget(&taken, id(1))).unwrap().live, []);
}

/// The next one that is taken while nobody holds the volume may have the same point as one that is gone.
#[test]
fn of_a_point_that_may_be_taken_again_nothing_is_said() {
    let once = take_detached(&closed(), id(1)).unwrap();
    let point = once.snapshots[0].point;
    let kept = kept_detached(&forget(&once, id(1))).unwrap();
    assert!(!kept.gave_up(point));
    assert_eq!(take_detached(&forget(&once, id(1)), id(2)).unwrap().snapshots[0].point, point);
}

proptest! {
    /// So it does no harm however late it comes: a point that was given up is never in the record again.
    #[test]
    fn what_was_told_stays_true(steps in proptest::collection::vec((0u8..7, 1u128..6, 1u64..50), 1..80)) {
        let mut record = volume();
        let mut told: Vec<Kept> = Vec::new();
        for (kind, number, counter) in steps {
            let answer = |answer| match answer {
                ChangeAnswer::Applied { record } => Some(record),
                ChangeAnswer::Fenced { .. } | ChangeAnswer::Refused { .. } => None,
            };
            let asked = |change: &Change| answer(apply(&record, record.epoch, record.version, change));
            let clone = VolumeId::from_u128(100 + number);
            let next = match kind {
                0 => take_detached(&record, id(number)).ok(),
                1 => Some(crate::clone::release(&forget(&record, id(number)), clone)),
                2 => grant(&record, &"n".parse().unwrap()).ok(),
                3 => answer(proposed(&record, id(number), later(&record, counter))),
                4 => asked(&Change::CloseClean),
                5 => asked(&Change::OpenDirty),
                _ if counter < 10 => Some(release_by_force(&record)),
                _ => crate::clone::begin(&record, id(number), clone, record.size, 2).ok().map(|(source, _)| source),
            };
            record = next.unwrap_or(record);
            prop_assert!(told.iter().all(|kept| record.points().iter().all(|&point| !kept.gave_up(point))));
            told.extend(kept_detached(&record));
        }
    }
}

proptest! {
    /// Whatever is asked for in whatever order: points ascend, are no writer's to come, and versions grow.
    #[test]
    fn points_ascend(steps in proptest::collection::vec((0u8..5, 1u128..6, 1u64..50), 1..60)) {
        let mut record = volume();
        for (kind, number, counter) in steps {
            let next = match kind {
                0 => take_detached(&record, id(number)).ok(),
                1 => Some(forget(&record, id(number))),
                2 => grant(&record, &"n".parse().unwrap()).ok(),
                3 if record.epoch > Epoch::NONE => match proposed(&record, id(number), later(&record, counter)) {
                    ChangeAnswer::Applied { record } => Some(record),
                    _ => None,
                },
                _ => match apply(&record, record.epoch, record.version, &Change::CloseClean) {
                    ChangeAnswer::Applied { record } => Some(record),
                    _ => None,
                },
            };
            let Some(next) = next else { continue };
            prop_assert!(next.version > record.version || next == record);
            let points: Vec<Lsn> = next.snapshots.iter().map(|snapshot| snapshot.point).collect();
            prop_assert!(points.is_sorted(), "{points:?}");
            let next_epoch = Lsn::start_of(next.epoch.next().unwrap());
            prop_assert!(points.iter().all(|&point| point <= next_epoch));
            record = next;
        }
    }
}
