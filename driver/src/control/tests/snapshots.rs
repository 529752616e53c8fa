//! Snapshots: taken by whoever may take them, once, and forgotten everywhere.

use super::*;
use ashlar_types::{Change, ChangeAnswer, Lsn, Snapshot, SnapshotId, VolumeRecord};

fn name(text: &str) -> ashlar_types::VolumeName {
    text.parse().unwrap()
}

impl World {
    async fn points(&self, volume: VolumeId) -> usize {
        self.control.volume(volume).await.unwrap().volume.record.snapshots.len()
    }
}

#[tokio::test]
async fn a_detached_volume_is_taken_by_the_catalog_alone() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let taken = world.control.create_snapshot(&name("s"), id).await.unwrap();
    assert!(taken.snapshot.is_ready && taken.snapshot.volume == id && taken.snapshot.size == ByteCount(GIB));
    assert_eq!(world.control.create_snapshot(&name("s"), id).await.unwrap(), taken, "asked again it is the same");
    assert_eq!(world.points(id).await, 1);
    assert_eq!(world.control.find_snapshot("s").await.unwrap(), taken);
    assert!(world.kinds_of_events().await.contains(&"snapshot".to_owned()));
}

#[tokio::test]
async fn an_attached_volume_is_taken_by_its_writer() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    world.play_datapath("n1", None).await;
    world.control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    let taken = world.control.create_snapshot(&name("s"), id).await.unwrap();
    let record = world.control.volume(id).await.unwrap().volume.record;
    assert_eq!(record.snapshot(taken.snapshot.id).unwrap().point.epoch(), record.epoch);
}

/// What is granted and does not serve yet could write below the point.
#[tokio::test]
async fn a_volume_that_is_being_attached_is_asked_for_again_later() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    world.play_datapath("n1", Some(Status::not_found("not attached here"))).await;
    world.control.reserve(id, &node("n1")).await.unwrap();
    world.control.grant(id, &node("n1")).await.unwrap();
    let busy = world.control.create_snapshot(&name("s"), id).await.unwrap_err();
    assert_eq!(busy.kind, ErrorKind::Busy, "{busy}");
    assert_eq!(world.points(id).await, 0);
    assert!(!world.control.find_snapshot("s").await.unwrap().snapshot.is_ready);
}

#[tokio::test]
async fn a_creation_that_was_cut_off_goes_on_where_it_ended() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    world.play_datapath("n1", Some(Status::unavailable("not now"))).await;
    world.control.reserve(id, &node("n1")).await.unwrap();
    world.control.grant(id, &node("n1")).await.unwrap();
    assert_eq!(world.control.create_snapshot(&name("s"), id).await.unwrap_err().kind, ErrorKind::Unavailable);
    let begun = world.control.find_snapshot("s").await.unwrap().snapshot.id;
    world.play_datapath("n1", None).await;
    let taken = world.control.create_snapshot(&name("s"), id).await.unwrap();
    assert_eq!((taken.snapshot.id, world.points(id).await), (begun, 1));
}

#[tokio::test]
async fn a_name_is_one_snapshot_of_one_volume() {
    let world = World::with_nodes(3).await;
    let (a, b) = (world.create("a").await.volume.id(), world.create("b").await.volume.id());
    world.control.create_snapshot(&name("s"), a).await.unwrap();
    let taken = world.control.create_snapshot(&name("s"), b).await.unwrap_err();
    assert_eq!(taken.kind, ErrorKind::AlreadyExists);
    assert_eq!(world.points(b).await, 0);
    let missing = VolumeId::from_u128(77);
    assert_eq!(world.control.create_snapshot(&name("t"), missing).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(world.control.find_snapshot("t").await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_deleted_snapshot_is_gone_from_the_record_and_from_the_list() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let taken = world.control.create_snapshot(&name("s"), id).await.unwrap();
    let kept = world.control.create_snapshot(&name("t"), id).await.unwrap();
    world.control.delete_snapshot(taken.snapshot.id).await.unwrap();
    world.control.delete_snapshot(taken.snapshot.id).await.unwrap();
    world.control.delete_snapshot(SnapshotId::from_u128(5)).await.unwrap();
    assert_eq!(world.points(id).await, 1);
    let (page, next) = world.control.list_snapshots("", 10).await.unwrap();
    assert_eq!((page.snapshots, next), (vec![kept], None));
    assert_eq!(world.control.list_snapshots("nonsense", 10).await.unwrap_err().kind, ErrorKind::BadToken);
}

#[tokio::test]
async fn a_volume_with_snapshots_is_not_deleted() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let taken = world.control.create_snapshot(&name("s"), id).await.unwrap();
    let refused = world.control.delete_volume(id).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
    world.control.delete_snapshot(taken.snapshot.id).await.unwrap();
    world.control.delete_volume(id).await.unwrap();
}

impl World {
    /// A volume that `n1` holds, and a snapshot of it that its writer keeps pending: when asked it answers "not now".
    async fn pending(&self) -> (VolumeRecord, SnapshotId) {
        let id = self.create("a").await.volume.id();
        self.play_datapath("n1", Some(Status::unavailable("not now"))).await;
        self.control.reserve(id, &node("n1")).await.unwrap();
        let record = self.control.grant(id, &node("n1")).await.unwrap();
        assert_eq!(self.control.create_snapshot(&name("s"), id).await.unwrap_err().kind, ErrorKind::Unavailable);
        (record, self.control.find_snapshot("s").await.unwrap().snapshot.id)
    }

    async fn proposed(&self, record: &VolumeRecord, id: SnapshotId) -> ChangeAnswer {
        let point = Lsn::from_raw(Lsn::start_of(record.epoch).raw() + 5);
        let change = Change::Snapshot(Snapshot { id, point });
        self.control.propose(record.volume, record.epoch, record.version, &change).await.unwrap()
    }
}

/// Else nobody could delete it any more, and the volume neither.
#[tokio::test]
async fn a_point_that_comes_after_its_snapshot_was_deleted_is_refused_for_good() {
    let world = World::with_nodes(3).await;
    let (record, id) = world.pending().await;
    world.control.delete_snapshot(id).await.unwrap();
    let answer = world.proposed(&record, id).await;
    assert!(
        matches!(&answer, ChangeAnswer::Refused { record: seen, .. } if seen.version == record.version),
        "{answer:?}"
    );
    assert_eq!(world.points(record.volume).await, 0);
}

#[tokio::test]
async fn a_snapshot_is_ready_with_its_point_whoever_asked_for_it() {
    let world = World::with_nodes(3).await;
    let (record, id) = world.pending().await;
    let answer = world.proposed(&record, id).await;
    assert!(matches!(answer, ChangeAnswer::Applied { .. }), "{answer:?}");
    assert_eq!(world.proposed(&record, id).await, answer, "asked again it is answered the same");
    let ready = world.control.find_snapshot("s").await.unwrap();
    assert!(ready.snapshot.is_ready && ready.snapshot.size == record.size);
    assert_eq!(world.control.create_snapshot(&name("s"), record.volume).await.unwrap(), ready);
    world.control.delete_snapshot(id).await.unwrap();
    assert_eq!(world.points(record.volume).await, 0);
    let again = world.proposed(&record, id).await;
    assert!(matches!(again, ChangeAnswer::Refused { .. }), "what is gone does not come back: {again:?}");
}

#[tokio::test]
async fn one_that_cannot_be_taken_leaves_no_name_behind() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    world.control.reserve(id, &node("n1")).await.unwrap();
    let record = world.control.grant(id, &node("n1")).await.unwrap();
    let opened = world.control.propose(id, record.epoch, record.version, &Change::OpenDirty).await.unwrap();
    assert!(matches!(opened, ChangeAnswer::Applied { .. }));
    world.control.detach(id, None, DetachMode::Force).await.unwrap();
    let refused = world.control.create_snapshot(&name("s"), id).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition, "{refused}");
    assert_eq!(world.control.find_snapshot("s").await.unwrap_err().kind, ErrorKind::NotFound);
}
