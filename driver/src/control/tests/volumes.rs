//! Creating, finding, listing, deleting; the use state; the reaper.

use super::*;
use ashlar_catalog::UseState;
use std::collections::BTreeSet;

#[tokio::test]
async fn creating_twice_gives_the_same_volume_and_other_properties_are_refused() {
    let world = World::with_nodes(3).await;
    let first = world.create("a").await;
    assert_eq!(world.create("a").await.volume.id(), first.volume.id());
    let larger = world.control.create_volume(wish("a", 2 * GIB)).await.unwrap_err();
    assert_eq!(larger.kind, ErrorKind::AlreadyExists);
    let parameters = BTreeMap::from([("minReplicas".to_owned(), "1".to_owned())]);
    let params = params::parse(&parameters).unwrap();
    let other = world.control.create_volume(NewVolume { params, parameters, ..wish("a", GIB) }).await.unwrap_err();
    assert_eq!(other.kind, ErrorKind::AlreadyExists);
    assert!(other.message.contains("parameters"), "{other}");
}

#[tokio::test]
async fn a_new_volume_is_blank_in_sync_everywhere_and_local_first() {
    let world = World::with_nodes(4).await;
    let made =
        world.control.create_volume(NewVolume { first_nodes: vec![node("n3")], ..wish("a", GIB) }).await.unwrap();
    let record = &made.volume.record;
    assert_eq!(record.members[0].node, node("n3"));
    assert_eq!(record.members.iter().map(|member| &member.node).collect::<BTreeSet<_>>().len(), 3);
    assert_eq!((record.in_sync().count(), record.min_replicas, record.clean), (3, 2, true));
    assert_eq!((made.volume.use_state, record.epoch), (UseState::Blank, ashlar_types::Epoch::NONE));
}

#[tokio::test]
async fn concurrent_creations_of_one_name_make_one_volume() {
    let world = World::with_nodes(3).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let control = world.control.clone();
            tokio::spawn(async move { control.create_volume(wish("a", GIB)).await })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(made) => drop(ids.insert(made.volume.id())),
            Err(error) => assert_eq!(error.kind, ErrorKind::Busy),
        }
    }
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn space_is_never_promised_twice() {
    let world = World::with_nodes(3).await;
    let tasks: Vec<_> = (0..12)
        .map(|i| {
            let control = world.control.clone();
            tokio::spawn(async move { control.create_volume(wish(&format!("v{i}"), 30 * GIB)).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert_eq!(error.kind, ErrorKind::Exhausted, "{error}"),
        }
    }
    assert_eq!(made, 3, "three volumes of 30 GiB fit disks of 100 GiB");
    let params = params::parse(&BTreeMap::new()).unwrap();
    let capacity = world.control.capacity(&params, &[]).await.unwrap();
    assert_eq!(capacity.largest, ByteCount(0), "a tenth of each disk stays for snapshots and copies");
    let error = world.control.create_volume(wish("last", GIB)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exhausted);
}

#[tokio::test]
async fn the_space_of_a_volume_that_was_just_deleted_may_be_had() {
    let world = World::with_nodes(3).await;
    let mut chunkservers = Vec::new();
    for number in 1..=3 {
        chunkservers.push(world.play_chunkserver(number, 0).await);
    }
    let first = world.control.create_volume(wish("first", 90 * GIB)).await.unwrap();
    world.control.delete_volume(first.volume.id()).await.unwrap();
    world.control.create_volume(wish("second", 90 * GIB)).await.unwrap();
    let error = world.control.create_volume(wish("third", 90 * GIB)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exhausted);
}

#[tokio::test]
async fn too_few_nodes_are_told_with_reasons() {
    let world = World::with_nodes(2).await;
    let error = world.control.create_volume(wish("a", GIB)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exhausted);
    assert!(error.message.contains("2 have one"), "{error}");
    let control = &world.control;
    control.registry.end_silent(&control.catalog, tokio::time::Instant::now() + Duration::from_secs(4)).await;
    let error = control.create_volume(wish("a", GIB)).await.unwrap_err();
    assert!(error.message.contains("n1: disk") && error.message.contains("silent"), "{error}");
}

#[tokio::test]
async fn the_use_state_goes_forward_only() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let control = &world.control;
    let set = |from, to, fs| control.set_use(id, from, to, fs);
    assert_eq!(set(UseState::Used, UseState::Blank, "").await.unwrap_err().kind, ErrorKind::InvalidArgument);
    assert_eq!(
        set(UseState::Formatting, UseState::Used, "ext4").await.unwrap_err().kind,
        ErrorKind::FailedPrecondition
    );
    set(UseState::Blank, UseState::Formatting, "ext4").await.unwrap();
    set(UseState::Blank, UseState::Formatting, "ext4").await.unwrap();
    let other = set(UseState::Blank, UseState::Formatting, "xfs").await.unwrap_err();
    assert_eq!(other.kind, ErrorKind::FailedPrecondition);
    assert_eq!(set(UseState::Formatting, UseState::Used, "xfs").await.unwrap_err().kind, ErrorKind::FailedPrecondition);
    set(UseState::Formatting, UseState::Used, "ext4").await.unwrap();
    assert_eq!(
        set(UseState::Blank, UseState::Formatting, "ext4").await.unwrap_err().kind,
        ErrorKind::FailedPrecondition
    );
    assert_eq!(
        set(UseState::Blank, UseState::Formatting, "../ext4").await.unwrap_err().kind,
        ErrorKind::InvalidArgument
    );
}

#[tokio::test]
async fn a_volume_that_is_held_is_not_deleted() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    world.control.reserve(id, &node("n1")).await.unwrap();
    assert_eq!(world.control.delete_volume(id).await.unwrap_err().kind, ErrorKind::FailedPrecondition);
    world.control.detach(id, None, DetachMode::Force).await.unwrap();
    world.control.delete_volume(id).await.unwrap();
    assert_eq!(world.control.delete_volume(id).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(world.control.grant(id, &node("n1")).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn replicas_are_deleted_in_the_end_though_chunkservers_refuse_and_the_driver_restarts() {
    let world = World::with_nodes(3).await;
    let made = world.create("a").await;
    let id = made.volume.id();
    world.control.delete_volume(id).await.unwrap();
    assert_eq!(world.control.tombstones().await.unwrap().len(), 3);
    let world = world.restarted().await;
    assert_eq!(world.control.tombstones().await.unwrap().len(), 3);
    let reaper = tokio::spawn(reaper::run(world.control.clone()));
    let mut asked = Vec::new();
    for number in 1..=3 {
        asked.push(world.play_chunkserver(number, 1).await);
    }
    for (number, asked) in asked.iter_mut().enumerate() {
        for _ in 0..2 {
            let request = asked.recv().await.unwrap();
            assert_eq!(request.disk, disk(number as u128 + 1).to_string());
            assert_eq!(request.volume, id.to_string());
        }
    }
    while !world.control.catalog.tombstones().await.unwrap().0.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.control.catalog.claims().await.unwrap().of(disk(1)), ByteCount(0));
    reaper.abort();
}

#[tokio::test]
async fn sizes_of_csi_are_rounded_up_and_bounded() {
    let between =
        |required, limit| SizeRange::between(required, limit).map(|range| range.size.0).map_err(|error| error.kind);
    assert_eq!(between(1, 0), Ok(4096));
    assert_eq!(between(0, 0), Ok(GIB));
    assert_eq!(between(0, 10_000), Ok(8192));
    assert_eq!(between(5000, 8192), Ok(8192));
    assert_eq!(between(5000, 8191), Err(ErrorKind::OutOfRange));
    assert_eq!(between(0, 100), Err(ErrorKind::OutOfRange));
    assert_eq!(between(10, 5), Err(ErrorKind::OutOfRange));
    assert_eq!(between(i64::MAX, 0), Err(ErrorKind::OutOfRange));
    assert_eq!(between(-1, 0), Err(ErrorKind::InvalidArgument));
}
