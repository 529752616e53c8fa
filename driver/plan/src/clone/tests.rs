//! Each rule of clones by name.

use super::*;
use crate::membership::{self, grant, tests::volume};
use crate::snapshot::{self, take_detached};
use ashlar_types::NodeName;

const SNAPSHOT: SnapshotId = SnapshotId::from_u128(7);
const CLONE: VolumeId = VolumeId::from_u128(50);

fn node() -> NodeName {
    "n".parse().unwrap()
}

/// Written to by the writers of three epochs, and closed.
fn source() -> VolumeRecord {
    let epoch = Epoch::new(3).unwrap();
    take_detached(&VolumeRecord { epoch, served: epoch, ..volume() }, SNAPSHOT).unwrap()
}

fn begun(source: &VolumeRecord) -> (VolumeRecord, VolumeRecord) {
    begin(source, SNAPSHOT, CLONE, source.size, 2).unwrap()
}

fn disks(record: &VolumeRecord) -> Vec<DiskId> {
    record.members.iter().map(|member| member.disk).collect()
}

#[test]
fn the_point_outlives_the_snapshot_until_the_clone_is_flat_or_gone() {
    let (kept, clone) = begun(&source());
    let point = clone.origin.unwrap().base.point;
    let without = snapshot::forget(&kept, SNAPSHOT);
    assert_eq!((without.snapshots.len(), without.points()), (0, vec![point]));
    let released = release(&without, CLONE);
    assert!(released.points().is_empty() && released.version > without.version);
    assert_eq!(release(&released, CLONE), released);
}

#[test]
fn nobody_attaches_a_clone_before_its_replicas_exist() {
    let (_, clone) = begun(&source());
    assert_eq!(grant(&clone, &node()), Err(membership::Refusal::NotMade));
    let made = made(&clone, &disks(&clone)).unwrap();
    assert!(grant(&made, &node()).is_ok());
    assert_eq!(super::made(&made, &[]).unwrap(), made, "said once");
}

#[test]
fn writes_of_the_clone_come_after_its_point() {
    let source = source();
    let (_, clone) = begun(&source);
    let made = made(&clone, &disks(&clone)).unwrap();
    let granted = grant(&made, &node()).unwrap();
    let point = clone.origin.unwrap().base.point;
    assert!(Lsn::start_of(granted.epoch) >= point && granted.epoch > source.epoch);
    assert!(!clone.clean && clone.served == source.served, "the first writer compares");
}

#[test]
fn a_clone_that_is_not_made_yet_follows_a_replica_of_its_source_that_moves() {
    let source = source();
    let (kept, clone) = begun(&source);
    assert_eq!(laid_anew(&clone, &kept), None);
    let gone = source.members[2].disk;
    let out = |record: &VolumeRecord, disk, state| {
        let mut next = record.clone();
        next.members.iter_mut().filter(|member| member.disk == disk).for_each(|member| member.state = state);
        next
    };
    let with = Member { disk: DiskId::from_u128(99), ..source.members[2].clone() };
    let replaced = membership::replace(&out(&kept, gone, MemberState::Out { commit: Lsn::ZERO }), gone, with).unwrap();
    let laid = laid_anew(&clone, &replaced).unwrap();
    let states = |record: &VolumeRecord| record.in_sync().count();
    assert_eq!((disks(&laid), states(&laid)), (vec![disks(&source)[0], disks(&source)[1], DiskId::from_u128(99)], 2));
    assert_eq!((laid.version, laid.size), (clone.version + 1, clone.size));
    let whole = out(&replaced, DiskId::from_u128(99), MemberState::InSync);
    assert_eq!(states(&laid_anew(&clone, &whole).unwrap()), 3);
    assert_eq!(laid_anew(&made(&clone, &disks(&clone)).unwrap(), &whole), None, "one that is made does not move so");
    let few = out(&replaced, disks(&source)[0], MemberState::Out { commit: Lsn::ZERO });
    assert_eq!(laid_anew(&clone, &few), None, "one is too few");
}

/// Its disks may have no replica that a clone could read from.
#[test]
fn the_clone_of_what_was_never_written_reads_from_nobody() {
    let blank = take_detached(&volume(), SNAPSHOT).unwrap();
    let (kept, clone) = begin(&blank, SNAPSHOT, CLONE, blank.size, 2).unwrap();
    assert_eq!((kept, clone.origin, clone.clean), (blank, None, true));
    assert!(grant(&clone, &node()).is_ok() && take_detached(&clone, SNAPSHOT).is_ok());
}

#[test]
fn a_disk_that_cannot_make_its_replica_is_out_and_too_few_are_refused() {
    let (_, clone) = begun(&source());
    let all = disks(&clone);
    let two = made(&clone, &all[..2]).unwrap();
    assert_eq!(two.member(all[2]).unwrap().state, MemberState::Out { commit: Lsn::ZERO });
    assert_eq!(two.in_sync().count(), 2);
    assert_eq!(made(&clone, &all[..1]), Err(Refusal::TooFew { made: 1, min: 2 }));
    assert_eq!(made(&clone, &[]), Err(Refusal::TooFew { made: 0, min: 2 }));
}

#[test]
fn a_clone_whose_other_disks_were_lost_meanwhile_is_made_of_what_is_left() {
    let (_, mut clone) = begun(&source());
    for member in &mut clone.members[1..] {
        member.state = MemberState::Out { commit: Lsn::ZERO };
    }
    let alone = disks(&clone)[0];
    assert_eq!(made(&clone, &[alone]).unwrap().in_sync().count(), 1);
}

#[test]
fn who_was_not_in_sync_at_the_source_gets_everything() {
    let mut source = source();
    source.members[0].state = MemberState::Out { commit: Lsn::from_raw(99) };
    let (_, clone) = begun(&source);
    let (out, whole) = (MemberState::Out { commit: Lsn::ZERO }, MemberState::InSync);
    assert_eq!(clone.members.iter().map(|member| member.state).collect::<Vec<_>>(), [out, whole, whole]);
    let three = begin(&source, SNAPSHOT, CLONE, source.size, 3);
    assert_eq!(three, Err(Refusal::TooFew { made: 2, min: 3 }), "the clone's own minReplicas counts");
    assert_eq!(begin(&source, SNAPSHOT, CLONE, source.size, 1).unwrap().1.min_replicas, 1);
    source.members[1].state = MemberState::Syncing { commit: Lsn::from_raw(99) };
    let alone = begin(&source, SNAPSHOT, CLONE, source.size, 2);
    assert_eq!(alone, Err(Refusal::TooFew { made: 1, min: 2 }), "a clone that could never be made");
}

#[test]
fn a_clone_may_be_larger_than_its_source() {
    let source = source();
    let size = ByteCount(source.size.0 * 2);
    let (_, clone) = begin(&source, SNAPSHOT, CLONE, size, 2).unwrap();
    let chunks: u32 = clone.chunks.iter().map(|run| run.count).sum();
    assert_eq!((clone.size, chunks), (size, Geometry::new(size).unwrap().chunk_count()));
    let odd = begin(&source, SNAPSHOT, CLONE, ByteCount(5), 2);
    assert!(matches!(odd, Err(Refusal::Size { .. })));
}

#[test]
fn what_is_refused() {
    let source = source();
    let unknown = SnapshotId::from_u128(8);
    assert_eq!(begin(&source, unknown, CLONE, source.size, 2), Err(Refusal::NoSnapshot { id: unknown }));
    let (_, clone) = begun(&source);
    let of_clone = take_detached(&clone, SNAPSHOT);
    assert_eq!(of_clone, Err(snapshot::Refusal::NotClosed), "its replicas were never compared");
    let full = (0..SNAPSHOTS_MAX as u128).fold(source.clone(), |source, at| {
        begin(&source, SNAPSHOT, VolumeId::from_u128(100 + at), source.size, 2).map_or(source, |(kept, _)| kept)
    });
    assert_eq!(full.snapshots.len() + full.clones.len(), SNAPSHOTS_MAX);
    assert_eq!(begin(&full, SNAPSHOT, CLONE, full.size, 2), Err(Refusal::TooMany));
}

#[test]
fn a_flat_clone_is_a_volume_like_any_other() {
    let (_, clone) = begun(&source());
    let flat = super::flat(&made(&clone, &disks(&clone)).unwrap());
    assert_eq!(flat.origin, None);
    assert_eq!(super::flat(&flat), flat);
}

#[test]
fn who_is_out_when_a_clone_becomes_flat_gets_everything() {
    let (_, clone) = begun(&source());
    let mut clone = made(&clone, &disks(&clone)).unwrap();
    clone.members[2].state = MemberState::Out { commit: Lsn::from_raw(99) };
    assert_eq!(super::flat(&clone).members[2].state, MemberState::Out { commit: Lsn::ZERO });
}
