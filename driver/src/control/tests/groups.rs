//! Groups of snapshots: all of their points are of one attempt, or the group is not ready.

use super::*;
use ashlar_types::VolumeName;

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

impl World {
    /// Two volumes that `n1` and `n2` have attached, and one that nobody has.
    async fn three(&self) -> ([VolumeId; 3], [Arc<PlayedDatapath>; 2]) {
        let mut ids = Vec::new();
        for volume in ["a", "b", "c"] {
            ids.push(self.create(volume).await.volume.id());
        }
        let datapaths = [self.play_datapath("n1", None).await, self.play_datapath("n2", None).await];
        for (id, holder) in ids.iter().zip(["n1", "n2"]) {
            self.control.attach(*id, &node(holder), shown(Frontend::Nbd)).await.unwrap();
        }
        (ids.try_into().unwrap(), datapaths)
    }

    async fn points_of(&self, ids: &[VolumeId]) -> Vec<usize> {
        let mut points = Vec::new();
        for id in ids {
            points.push(self.control.volume(*id).await.unwrap().volume.record.snapshots.len());
        }
        points
    }
}

#[tokio::test]
async fn every_volume_is_held_before_any_gets_its_point() {
    let world = World::with_nodes(3).await;
    let (ids, datapaths) = world.three().await;
    let taken = world.control.create_group(&name("g"), &ids).await.unwrap().group;
    assert!(taken.is_ready && taken.held_us == 7);
    assert_eq!(taken.members.iter().map(|(volume, _)| *volume).collect::<Vec<_>>(), ids);
    assert_eq!(world.points_of(&ids).await, [1, 1, 1]);
    assert!(datapaths.iter().all(|datapath| datapath.holds.load(Ordering::SeqCst) == 1));
    for (_, id) in &taken.members {
        let member = world.control.catalog.snapshot(*id).await.unwrap().unwrap().snapshot;
        assert!(member.is_ready && member.group == Some(taken.id));
    }
    let again = world.control.create_group(&name("g"), &[ids[2], ids[0], ids[1]]).await.unwrap().group;
    assert_eq!(again, taken, "asked again it is the same");
    assert!(world.kinds_of_events().await.contains(&"snapshot-group".to_owned()));
}

#[tokio::test]
async fn when_a_hold_lapses_all_points_are_taken_anew() {
    let world = World::with_nodes(3).await;
    let (ids, datapaths) = world.three().await;
    datapaths[1].lapses.store(2, Ordering::SeqCst);
    let taken = world.control.create_group(&name("g"), &ids).await.unwrap().group;
    assert!(taken.is_ready);
    assert_eq!(world.points_of(&ids).await, [1, 1, 1], "nothing is left of the first two attempts");
    assert_eq!(datapaths[0].holds.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_group_that_cannot_be_taken_leaves_nothing_behind() {
    let world = World::with_nodes(3).await;
    let (ids, datapaths) = world.three().await;
    datapaths[1].lapses.store(usize::MAX, Ordering::SeqCst);
    let failed = world.control.create_group(&name("g"), &ids).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Busy, "{failed}");
    assert_eq!(world.points_of(&ids).await, [0, 0, 0]);
    datapaths[1].lapses.store(0, Ordering::SeqCst);
    assert!(world.control.create_group(&name("g"), &ids).await.unwrap().group.is_ready, "asked again it goes on");
}

#[tokio::test]
async fn a_name_is_one_group_of_the_same_volumes() {
    let world = World::with_nodes(3).await;
    let (ids, _datapaths) = world.three().await;
    world.control.create_group(&name("g"), &ids[..2]).await.unwrap();
    let other = world.control.create_group(&name("g"), &ids).await.unwrap_err();
    assert_eq!(other.kind, ErrorKind::AlreadyExists);
    let twice = world.control.create_group(&name("h"), &[ids[0], ids[0]]).await.unwrap_err();
    assert_eq!(twice.kind, ErrorKind::InvalidArgument);
    assert_eq!(world.control.create_group(&name("h"), &[]).await.unwrap_err().kind, ErrorKind::InvalidArgument);
    let missing = world.control.create_group(&name("h"), &[ids[0], VolumeId::from_u128(77)]).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
    assert_eq!(world.control.find_group("h").await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_group_is_deleted_as_a_whole() {
    let world = World::with_nodes(3).await;
    let (ids, _datapaths) = world.three().await;
    let taken = world.control.create_group(&name("g"), &ids).await.unwrap().group;
    let one = world.control.delete_snapshot(taken.members[0].1).await.unwrap_err();
    assert_eq!(one.kind, ErrorKind::FailedPrecondition);
    world.control.delete_group(taken.id).await.unwrap();
    world.control.delete_group(taken.id).await.unwrap();
    assert_eq!(world.points_of(&ids).await, [0, 0, 0]);
    assert_eq!(world.control.find_group("g").await.unwrap_err().kind, ErrorKind::NotFound);
    let (page, next) = world.control.list_groups("", 10).await.unwrap();
    assert!(page.groups.is_empty() && next.is_none());
}

#[tokio::test]
async fn a_group_may_have_the_longest_name() {
    let world = World::with_nodes(3).await;
    let (ids, _datapaths) = world.three().await;
    for long in ["g".repeat(127), "g".repeat(128)] {
        let taken = world.control.create_group(&name(&long), &ids).await.unwrap();
        assert!(taken.group.is_ready && taken.group.members.len() == 3);
    }
}
