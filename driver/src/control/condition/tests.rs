//! Each thing that can be wrong, with the words that lead out of it.

use super::*;
use crate::control::tests::{World, disk, node};
use ashlar_rpc::control::Comparison;
use ashlar_types::Lsn;

async fn condition(world: &World) -> Condition {
    let seen = world.control.find_volume("a").await.unwrap();
    world.control.condition(&seen, &world.control.disks_by_id().await).await
}

#[tokio::test]
async fn a_volume_with_all_its_replicas_is_normal() {
    let world = World::with_nodes(3).await;
    world.create("a").await;
    let found = condition(&world).await;
    assert_eq!(found, Condition { abnormal: false, message: "3 of 3 replicas are in-sync and alive".to_owned() });
}

#[tokio::test]
async fn silence_of_one_and_of_two_is_told_with_its_effect_and_what_to_do() {
    let world = World::with_nodes(3).await;
    world.create("a").await;
    let control = &world.control;
    let later = tokio::time::Instant::now() + std::time::Duration::from_secs(4);
    control.registry.end_silent(&control.catalog, later).await;
    world.chunkserver_reports(1, "127.0.0.1:9").await;
    world.chunkserver_reports(2, "127.0.0.1:9").await;
    let one = condition(&world).await;
    assert!(one.abnormal && one.message.contains("2 of 3") && one.message.contains("I/O goes on"), "{}", one.message);
    assert!(one.message.contains("node n3") && one.message.contains("declare-lost"), "{}", one.message);
    control.registry.end_silent(&control.catalog, later).await;
    world.chunkserver_reports(1, "127.0.0.1:9").await;
    let two = condition(&world).await;
    assert!(two.message.starts_with("writes wait: 1 of 3") && two.message.contains("node n2"), "{}", two.message);
}

#[tokio::test]
async fn a_replica_that_is_out_or_syncing_is_told_apart() {
    let world = World::with_nodes(3).await;
    let made = world.create("a").await;
    let disks = world.control.disks_by_id().await;
    let with = |state| {
        let mut volume = made.volume.clone();
        let member = volume.record.members.iter_mut().find(|member| member.node == node("n2")).unwrap();
        assert_eq!(member.disk, disk(2));
        member.state = state;
        judge(&volume, &disks, None)
    };
    assert!(with(MemberState::Syncing { commit: Lsn::ZERO }).message.contains("is copying what it missed"));
    assert!(with(MemberState::Out { commit: Lsn::ZERO }).message.contains("is out and comes back"));
}

#[tokio::test]
async fn what_the_writer_tells_counts_also_when_every_replica_reports() {
    let world = World::with_nodes(3).await;
    let mut volume = world.create("a").await.volume;
    volume.record.holder = Some(node("n1"));
    let disks = world.control.disks_by_id().await;
    let told = |phase: &str| {
        let attached = AttachedVolume { phase: phase.to_owned(), ..AttachedVolume::default() };
        judge(&volume, &disks, Some(&attached))
    };
    assert!(!told("serving").abnormal);
    for (phase, word) in [("fenced", "newer writer"), ("below minReplicas", "links")] {
        let found = told(phase);
        let is_told = found.message.contains(word) && found.message.contains("node n1");
        assert!(found.abnormal && is_told, "{phase}: {}", found.message);
    }
}

#[tokio::test]
async fn replicas_that_differ_are_told_of() {
    let world = World::with_nodes(3).await;
    let mut volume = world.create("a").await.volume;
    volume.record.holder = Some(node("n1"));
    let disks = world.control.disks_by_id().await;
    let differing = |differing_slots| {
        let comparison = Some(Comparison { differing_slots, ..Comparison::default() });
        judge(&volume, &disks, Some(&AttachedVolume { comparison, ..AttachedVolume::default() }))
    };
    assert!(!differing(0).abnormal);
    let found = differing(2);
    assert!(found.abnormal && found.message.contains("different content in 2 slots"), "{}", found.message);
}

#[tokio::test]
async fn readers_go_on_as_long_as_one_replica_answers() {
    let world = World::with_nodes(3).await;
    let mut volume = world.create("a").await.volume;
    volume.readers = vec![node("n1"), node("n2")];
    let mut disks = world.control.disks_by_id().await;
    let mut without = |number| {
        disks.get_mut(&disk(number)).unwrap().health = DiskHealth::Silent;
        judge(&volume, &disks, None).message
    };
    without(1);
    let one = without(2);
    assert!(one.starts_with("1 of 3 replicas are in-sync and alive, I/O goes on"), "{one}");
    let none = without(3);
    assert!(none.starts_with("reads wait"), "{none}");
}
