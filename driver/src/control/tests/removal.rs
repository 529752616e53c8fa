//! Disks that are taken out: what is refused, what is given up, and that they do not come back.

use super::*;
use ashlar_types::VolumeName;
use std::collections::BTreeSet;

fn names(names: &[&str]) -> BTreeSet<VolumeName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn single(name: &str, on: &str) -> NewVolume {
    let parameters = BTreeMap::from([("replicas".to_owned(), "1".to_owned())]);
    NewVolume {
        params: params::parse(&parameters).unwrap(),
        parameters,
        first_nodes: vec![node(on)],
        ..wish(name, GIB)
    }
}

impl World {
    async fn knows(&self, number: u128) -> bool {
        self.control.registry.disks().await.iter().any(|view| view.disk.id == disk(number))
    }

    async fn remove(&self, number: u128, accepted: &[&str]) -> Result<Vec<VolumeName>> {
        self.control.remove_disk(disk(number), &names(accepted)).await
    }
}

#[tokio::test]
async fn an_empty_disk_goes_and_is_refused_when_it_reports_again() {
    let world = World::with_nodes(4).await;
    world.create("a").await;
    assert!(world.remove(4, &[]).await.unwrap().is_empty());
    assert!(!world.knows(4).await);
    assert!(world.remove(4, &[]).await.unwrap().is_empty(), "repeated");
    for _ in 0..3 {
        world.chunkserver_reports(4, NOWHERE).await;
    }
    let world = world.restarted().await;
    for number in 1..=4 {
        world.chunkserver_reports(number, NOWHERE).await;
    }
    assert!(!world.knows(4).await);
    let status = world.control.health().await.unwrap();
    assert!(status.reasons.iter().any(|why| why.contains("was removed") && why.contains("format it anew")));
    let kinds = world.kinds_of_events().await;
    let count = |kind: &str| kinds.iter().filter(|other| *other == kind).count();
    assert_eq!((count("disk-removed"), count("disk-refused")), (1, 2), "once, and once more after the restart");
    assert_eq!(world.remove(9, &[]).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_disk_that_holds_replicas_is_not_removed() {
    let world = World::with_nodes(3).await;
    world.create("a").await;
    let refused = world.remove(2, &[]).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
    assert!(refused.message.contains("volumes a") && refused.message.contains("ashlar disk drain"), "{refused}");
    let refused = world.remove(2, &["a"]).await.unwrap_err();
    assert!(refused.message.contains("ashlar disk drain"), "nothing would be lost: {refused}");
    assert!(world.knows(2).await);
}

#[tokio::test]
async fn the_last_replica_goes_only_by_the_volumes_name_and_its_state_says_so() {
    let world = World::with_nodes(3).await;
    let id = world.control.create_volume(single("only", "n2")).await.unwrap().volume.id();
    let refused = world.remove(2, &[]).await.unwrap_err();
    assert!(refused.message.contains("--accept-data-loss only"), "{refused}");
    assert!(world.remove(2, &["other"]).await.is_err());
    let refused = world.remove(2, &["only", "other"]).await.unwrap_err();
    assert!(refused.message.contains("volumes other"), "{refused}");
    assert!(world.knows(2).await);

    assert_eq!(world.remove(2, &["only"]).await.unwrap(), ["only".parse().unwrap()]);
    let seen = world.control.volume(id).await.unwrap();
    let condition = world.control.condition(&seen, &world.control.disks_by_id().await).await;
    assert!(condition.abnormal && condition.message.contains("its data is lost"), "{condition:?}");
    assert!(world.control.health().await.unwrap().reasons.iter().any(|why| why.contains("has lost its data")));
    let refused = world.control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap_err();
    assert!(refused.kind == ErrorKind::FailedPrecondition && refused.message.contains("is lost"), "{refused}");
    assert!(world.kinds_of_events().await.contains(&"data-lost".to_owned()));

    // It can be deleted, and nothing is waited for that never comes.
    world.control.delete_volume(id).await.unwrap();
    world.control.reap_now().await.unwrap();
    assert!(world.control.tombstones().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_volume_in_use_keeps_its_last_replica() {
    let world = World::with_nodes(2).await;
    let id = world.control.create_volume(single("only", "n2")).await.unwrap().volume.id();
    world.control.reserve(id, &node("n1")).await.unwrap();
    let refused = world.remove(2, &["only"]).await.unwrap_err();
    assert!(refused.message.contains("used on node n1"), "{refused}");
}

#[tokio::test]
async fn what_only_cannot_be_reached_now_is_not_called_lost() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let later = tokio::time::Instant::now() + Duration::from_secs(4);
    world.control.registry.end_silent(&world.control.catalog, later).await;
    world.chunkserver_reports(2, NOWHERE).await;
    let refused = world.remove(2, &[]).await.unwrap_err();
    assert!(refused.message.contains("--accept-data-loss a"), "{refused}");
    world.remove(2, &["a"]).await.unwrap();
    let seen = world.control.volume(id).await.unwrap();
    assert!(seen.volume.data_lost.is_none(), "the others may come back");
    assert_eq!(seen.volume.record.in_sync().count(), 2);
    assert!(world.kinds_of_events().await.contains(&"replica-given-up".to_owned()));
}

#[tokio::test]
async fn what_was_to_be_deleted_on_a_removed_disk_is_waited_for_no_more() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    world.control.delete_volume(id).await.unwrap();
    assert_eq!(world.control.tombstones().await.unwrap().len(), 3);
    world.remove(2, &[]).await.unwrap();
    world.control.reap_now().await.unwrap();
    let left: Vec<DiskId> = world.control.tombstones().await.unwrap().iter().map(|t| t.disk).collect();
    assert_eq!(left, [disk(1), disk(3)]);
}

#[tokio::test]
async fn what_a_silent_disk_has_of_a_deleted_volume_is_deleted_when_it_returns_and_never_shown() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let later = tokio::time::Instant::now() + Duration::from_secs(4);
    world.control.registry.end_silent(&world.control.catalog, later).await;
    world.control.delete_volume(id).await.unwrap();
    world.control.reap_now().await.unwrap();
    assert_eq!(world.control.tombstones().await.unwrap().len(), 3, "nobody answers");
    let mut asked = world.play_chunkserver(2, 0).await;
    assert!(
        world.control.catalog.volume(id).await.unwrap().is_none()
            && world.control.seen_now().await.unwrap().volumes.is_empty()
    );
    world.control.reap_now().await.unwrap();
    assert_eq!(asked.recv().await.unwrap().volume, id.to_string());
    let left: Vec<DiskId> = world.control.tombstones().await.unwrap().iter().map(|t| t.disk).collect();
    assert_eq!(left, [disk(1), disk(3)]);
    assert_eq!(world.control.catalog.claims().await.unwrap().of(disk(2)), ByteCount(0));
}
