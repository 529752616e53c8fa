//! What the control plane says is to be kept: obeyed where nobody has the replica open and nobody came since.

use crate::testing::*;
use crate::{Event, LinkId, OpToken};
use ashlar_types::{Epoch, Kept, Lsn, VolumeId};
use ashlar_wire::Request;

fn under(floor: Lsn, request: Request) -> Request {
    let Request::Write { range, lsn, blocks, .. } = request else { panic!("a write") };
    Request::Write { range, lsn, floor, blocks }
}

/// A slot that was overwritten after each of two snapshots; nobody has the volume open.
fn closed() -> Rig {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 16], lsn(1, 1)));
    rig.write(1, under(lsn(1, 2), write(0, &[2; 16], lsn(1, 3))));
    rig.write(1, under(lsn(1, 4), write(0, &[3; 16], lsn(1, 5))));
    rig.handle(Event::LinkClosed { link: LinkId(1) });
    rig.rest();
    assert_eq!(rig.engine.status().slots_used, 3);
    rig
}

fn end_of(epoch: u32) -> Lsn {
    Lsn::from_raw(lsn(epoch + 1, 0).raw() - 1)
}

#[test]
fn snapshots_of_a_closed_volume_give_their_space_back_without_a_writer() {
    let mut rig = closed();
    assert_eq!(rig.keep_points(volume(), 1, &[lsn(1, 4)], end_of(1)), Ok(()));
    rig.rest();
    assert_eq!(rig.engine.status().slots_used, 2);
    assert_eq!(rig.keep_points(volume(), 1, &[lsn(1, 4)], end_of(1)), Ok(()), "repeating it changes nothing");
    assert_eq!(rig.keep_points(volume(), 1, &[], end_of(1)), Ok(()));
    rig.rest();
    assert_eq!(rig.engine.status().slots_used, 1);
    rig.opened(2, 2);
    rig.expect(2, 0, &[3; 16]);
}

#[test]
fn what_was_answered_is_known_after_a_crash() {
    let mut rig = closed();
    assert_eq!(rig.keep_points(volume(), 1, &[], end_of(1)), Ok(()));
    let mut rig = Rig::start(rig.crash(&mut Random::new(1)));
    rig.settle();
    rig.rest();
    assert_eq!(rig.engine.status().slots_used, 1);
}

#[test]
fn a_writer_that_is_here_or_came_since_is_not_overruled() {
    let mut rig = closed();
    rig.opened(2, 1);
    assert!(rig.keep_points(volume(), 1, &[], end_of(1)).unwrap_err().contains("open"), "of the same epoch");
    rig.opened(3, 2);
    rig.handle(Event::LinkClosed { link: LinkId(3) });
    assert!(rig.keep_points(volume(), 1, &[], end_of(1)).unwrap_err().contains("promised"));
    rig.rest();
    assert_eq!(rig.engine.status().slots_used, 3, "nothing has changed");
    assert_eq!(rig.keep_points(volume(), 2, &[], end_of(1)), Ok(()));
}

/// The next snapshot of a closed volume has the start of the next epoch for its point.
#[test]
fn nothing_is_said_of_points_that_are_still_to_be_made() {
    let mut rig = closed();
    let next = lsn(2, 0);
    assert!(rig.keep_points(volume(), 1, &[], next).unwrap_err().contains("future"));
    assert_eq!(rig.keep_points(volume(), 1, &[], end_of(1)), Ok(()));
    rig.opened(2, 2);
    rig.write(2, Request::Keep(Kept { live: vec![next], until: next }));
    rig.write(2, under(next, write(0, &[4; 16], lsn(2, 1))));
    rig.rest();
    let read = rig.ask(2, Request::Read { range: range(0, 1), below: next });
    let ashlar_wire::Reply::Data(blocks) = read else { panic!("{read:?}") };
    assert_eq!(blocks.data[0], 3);
}

#[test]
fn where_there_is_no_replica_there_is_nothing_to_know() {
    let mut rig = closed();
    assert_eq!(rig.keep_points(VolumeId::from_u128(77), 1, &[], end_of(1)), Ok(()));
    rig.delete(volume(), 2).unwrap();
    assert_eq!(rig.keep_points(volume(), 2, &[], end_of(2)), Ok(()));
}

#[test]
fn a_clone_on_the_disk_keeps_its_point_whatever_is_said() {
    let mut rig = closed();
    let base = ashlar_types::Base { volume: volume(), point: lsn(1, 2) };
    let clone = VolumeId::from_u128(77);
    rig.make_clone(clone, 1, base).unwrap();
    assert_eq!(rig.keep_points(volume(), 1, &[], end_of(1)), Ok(()));
    rig.rest();
    rig.opened_volume(5, 2, clone);
    rig.expect(5, 0, &[1; 16]);
}

#[test]
fn a_disk_that_recovers_or_has_failed_answers_once() {
    let mut rig = Rig::start(closed().stop());
    let op = OpToken(9);
    let kept = Kept { live: vec![], until: end_of(1) };
    rig.handle(Event::KeepPoints { op, volume: volume(), epoch: Epoch::new(1).unwrap(), kept: kept.clone() });
    rig.settle();
    assert_eq!(rig.points_kept, [Ok(())], "after recovery");
    rig.handle(Event::KeepPoints { op, volume: volume(), epoch: Epoch::new(1).unwrap(), kept });
    let at = rig.journal_writes()[0];
    rig.break_op(at);
    rig.settle();
    assert!(matches!(&rig.points_kept[..], [Ok(()), Err(_)]), "{:?}", rig.points_kept);
    assert!(rig.keep_points(volume(), 1, &[], end_of(1)).is_err());
}
