//! Liveness, and what of a report is believed.

use crate::control::tests::{BAD_BLOCKS_MAX, GIB, World, chunkserver_beat, disk, node};
use ashlar_rpc::control::{DiskScrub, DiskSmart, DiskState, Event, HeartbeatRequest, heartbeat_request::Daemon};
use ashlar_types::NodeName;
use std::time::Duration;
use tokio::time::Instant;

use super::DiskHealth;

const SILENCE: Duration = Duration::from_secs(4);

async fn health(world: &World, number: u128) -> DiskHealth {
    let disks = world.control.registry.disks().await;
    disks.iter().find(|view| view.disk.id == disk(number)).unwrap().health
}

async fn owner(world: &World, number: u128) -> NodeName {
    let disks = world.control.registry.disks().await;
    disks.into_iter().find(|view| view.disk.id == disk(number)).unwrap().disk.node
}

async fn fall_silent(world: &World) -> Option<Instant> {
    world.control.registry.end_silent(&world.control.catalog, Instant::now() + SILENCE).await
}

#[tokio::test]
async fn three_missed_reports_make_a_daemon_silent_and_one_brings_it_back() {
    let world = World::with_nodes(1).await;
    let registry = &world.control.registry;
    let next = registry.end_silent(&world.control.catalog, Instant::now()).await.unwrap();
    assert!(next > Instant::now() && next <= Instant::now() + registry.interval() * 3);
    assert_eq!(health(&world, 1).await, DiskHealth::Online);
    assert_eq!(fall_silent(&world).await, None);
    assert_eq!(health(&world, 1).await, DiskHealth::Silent);
    assert!(world.chunkserver_reports(1, "127.0.0.1:9").await, "the reaper is told that it is back");
    assert_eq!(health(&world, 1).await, DiskHealth::Online);
    assert!(!world.chunkserver_reports(1, "127.0.0.1:9").await);
    let kinds = world.kinds_of_events().await;
    assert_eq!(kinds, ["node-new", "disk-new", "silent", "silent", "back"]);
}

#[tokio::test]
async fn after_a_restart_everyone_is_known_and_gets_time_to_report() {
    let world = World::with_nodes(2).await.restarted().await;
    let nodes = world.control.registry.nodes().await;
    assert_eq!(nodes.len(), 2);
    assert!(nodes.iter().all(|view| view.chunkserver_alive && view.heard_ms == 0));
    assert_eq!(health(&world, 1).await, DiskHealth::Silent, "its free space is not known before it reports");
    fall_silent(&world).await;
    assert!(world.control.registry.nodes().await.iter().all(|view| !view.chunkserver_alive));
}

fn with_disk(mut beat: HeartbeatRequest, change: impl Fn(&mut ashlar_rpc::control::Disk)) -> HeartbeatRequest {
    let Some(Daemon::Chunkserver(chunkserver)) = &mut beat.daemon else { panic!("no chunkserver") };
    chunkserver.disks.iter_mut().for_each(change);
    beat
}

#[tokio::test]
async fn a_failed_disk_keeps_its_first_reason_across_a_restart() {
    let world = World::with_nodes(1).await;
    for reason in ["write: EIO", "later"] {
        let failed = with_disk(chunkserver_beat(1, "127.0.0.1:9"), |disk| {
            disk.state = DiskState::Failed as i32;
            disk.failure = reason.to_owned();
        });
        world.report(failed).await.unwrap();
    }
    let world = world.restarted().await;
    assert_eq!(health(&world, 1).await, DiskHealth::Failed);
    let disks = world.control.registry.disks().await;
    assert!(matches!(&disks[0].disk.fate, ashlar_catalog::DiskFate::Failed { reason } if reason == "write: EIO"));
    assert_eq!(world.kinds_of_events().await.iter().filter(|kind| *kind == "disk-failed").count(), 1);
}

fn with_bad_blocks(lately: u64, ever: u64) -> HeartbeatRequest {
    with_disk(chunkserver_beat(1, "127.0.0.1:9"), |disk| {
        disk.scrub = Some(DiskScrub { found_lately_blocks: lately, found_blocks: ever, ..Default::default() });
    })
}

async fn is_draining(world: &World) -> bool {
    world.control.registry.disks().await[0].disk.is_draining
}

#[tokio::test]
async fn a_disk_that_wears_out_is_drained_once_and_for_what_is_new_after_it_was_taken_back() {
    let world = World::with_nodes(1).await;
    world.report(with_bad_blocks(BAD_BLOCKS_MAX, 500)).await.unwrap();
    assert!(!is_draining(&world).await);
    for _ in 0..2 {
        world.report(with_bad_blocks(BAD_BLOCKS_MAX + 1, 501)).await.unwrap();
        assert!(is_draining(&world).await);
    }
    let told = world.control.registry.disks().await[0].told.scrub;
    assert_eq!(told.map(|scrub| scrub.found_blocks), Some(501));

    let world = world.restarted().await;
    assert!(is_draining(&world).await && world.control.registry.disks().await[0].told.scrub.is_none());
    world.control.registry.drain_disk(&world.control.catalog, disk(1), false).await.unwrap();
    world.report(with_bad_blocks(BAD_BLOCKS_MAX + 1, 501)).await.unwrap();
    assert!(!is_draining(&world).await, "whoever took it back knew of these");
    world.report(with_bad_blocks(2 * BAD_BLOCKS_MAX + 2, 502 + BAD_BLOCKS_MAX)).await.unwrap();
    assert!(is_draining(&world).await);
    let kinds = world.kinds_of_events().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "disk-wears-out").count(), 2);
}

#[tokio::test]
async fn a_disk_whose_device_gives_notice_is_drained_once_and_told() {
    let world = World::with_nodes(1).await;
    let telling = |failing, none: &str| {
        with_disk(chunkserver_beat(1, "127.0.0.1:9"), |disk| {
            let (none, device) = (none.to_owned(), "/dev/sda".to_owned());
            disk.smart = Some(DiskSmart { failing, none, device, wear_percent: Some(7), ..Default::default() });
        })
    };
    world.report(telling(false, "")).await.unwrap();
    assert!(!is_draining(&world).await);
    for _ in 0..2 {
        world.report(telling(true, "")).await.unwrap();
        assert!(is_draining(&world).await);
    }
    let told = world.control.registry.disks().await[0].told.smart.clone().unwrap();
    assert_eq!((told.failing, told.wear_percent), (true, Some(7)));
    let world = world.restarted().await;
    world.control.registry.drain_disk(&world.control.catalog, disk(1), false).await.unwrap();
    world.report(telling(true, "")).await.unwrap();
    world.report(telling(false, "smartctl took too long")).await.unwrap();
    world.report(telling(true, "")).await.unwrap();
    assert!(!is_draining(&world).await, "whoever took it back knew");
    world.report(telling(false, "")).await.unwrap();
    world.report(telling(true, "")).await.unwrap();
    assert!(is_draining(&world).await, "another device, or a change of its mind");
    let kinds = world.kinds_of_events().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "disk-failing").count(), 2);
}

#[tokio::test]
async fn a_disk_that_two_living_nodes_report_belongs_to_the_first() {
    let world = World::with_nodes(2).await;
    let copy = with_disk(chunkserver_beat(2, "127.0.0.1:9"), |reported| reported.id = disk(1).to_string());
    world.report(copy.clone()).await.unwrap();
    assert_eq!(owner(&world, 1).await, node("n1"));
    // Both were there at one time: what is on n2 is a copy, and does not step in when n1 falls silent.
    fall_silent(&world).await;
    for _ in 0..2 {
        world.report(copy.clone()).await.unwrap();
    }
    assert_eq!((owner(&world, 1).await, health(&world, 1).await), (node("n1"), DiskHealth::Silent));
    assert!(world.control.registry.refused().await[0].contains("one is a copy of the other"));
    assert_eq!(world.kinds_of_events().await.iter().filter(|kind| *kind == "disk-refused").count(), 1);
    // One that n2 had not shown before was carried there.
    world.report(chunkserver_beat(2, "127.0.0.1:9")).await.unwrap();
    assert!(world.control.registry.refused().await.is_empty());
    world.report(copy).await.unwrap();
    assert_eq!(owner(&world, 1).await, node("n2"), "a disk may be moved to another node");
}

#[tokio::test]
async fn a_disk_that_one_report_names_twice_counts_once() {
    let world = World::with_nodes(1).await;
    let mut beat = chunkserver_beat(1, "127.0.0.1:9");
    let Some(Daemon::Chunkserver(chunkserver)) = &mut beat.daemon else { panic!("no chunkserver") };
    let copy = ashlar_rpc::control::Disk { path: "/copy".to_owned(), ..chunkserver.disks[0].clone() };
    chunkserver.disks.push(copy);
    for _ in 0..3 {
        world.report(beat.clone()).await.unwrap();
    }
    let disks = world.control.registry.disks().await;
    assert!(disks.len() == 1 && disks[0].disk.path.is_empty(), "{disks:?}");
    assert_eq!(world.kinds_of_events().await.iter().filter(|kind| *kind == "disk-refused").count(), 1);
}

#[tokio::test]
async fn a_report_that_says_nothing_new_is_not_written() {
    let world = World::with_nodes(1).await;
    let before = world.control.catalog.store().read(vec![]).await.unwrap().revision;
    world.chunkserver_reports(1, "127.0.0.1:9").await;
    let fuller = with_disk(chunkserver_beat(1, "127.0.0.1:9"), |disk| disk.free_bytes = GIB);
    world.report(fuller).await.unwrap();
    assert_eq!(world.control.catalog.store().read(vec![]).await.unwrap().revision, before);
    assert_eq!(world.control.registry.disks().await[0].free.0, GIB);
}

#[tokio::test]
async fn events_of_daemons_are_kept_and_too_many_do_not_make_them_silent() {
    let world = World::with_nodes(1).await;
    let event =
        Event { kind: "repaired".to_owned(), disk: "no disk".to_owned(), text: "x".repeat(9000), ..Default::default() };
    let events = vec![event; 300];
    world.report(HeartbeatRequest { events, ..chunkserver_beat(1, "127.0.0.1:9") }).await.unwrap();
    let (kept, _) = world.control.catalog.events(None, usize::MAX).await.unwrap();
    let repaired: Vec<_> = kept.iter().filter(|event| event.kind == "repaired").collect();
    assert_eq!(repaired.len(), 256);
    assert!(repaired[0].text.len() <= 1000 && repaired[0].disk.is_none() && repaired[0].node == Some(node("n1")));
}

#[tokio::test]
async fn hostile_reports_are_refused() {
    let world = World::with_nodes(1).await;
    let beat = || chunkserver_beat(1, "127.0.0.1:9");
    let hostile = [
        HeartbeatRequest { node: "../n".to_owned(), ..beat() },
        HeartbeatRequest { zone: "z z".to_owned(), ..beat() },
        chunkserver_beat(1, "example.com/evil"),
        with_disk(beat(), |disk| disk.id = "../../disk".to_owned()),
        HeartbeatRequest { daemon: None, ..beat() },
    ];
    for request in hostile {
        assert!(world.report(request.clone()).await.is_err(), "{request:?}");
    }
    let Some(Daemon::Chunkserver(mut many)) = beat().daemon else { panic!("no chunkserver") };
    many.disks = vec![many.disks[0].clone(); 33];
    assert!(world.report(HeartbeatRequest { daemon: Some(Daemon::Chunkserver(many)), ..beat() }).await.is_err());
}

/// It restarted without one of its disks.
#[tokio::test]
async fn a_disk_that_its_chunkserver_no_longer_names_is_silent() {
    let world = World::with_nodes(2).await;
    let mut beat = chunkserver_beat(1, "127.0.0.1:9");
    let Some(Daemon::Chunkserver(chunkserver)) = &mut beat.daemon else { panic!("no chunkserver") };
    chunkserver.disks.clear();
    for _ in 0..2 {
        world.report(beat.clone()).await.unwrap();
    }
    assert_eq!((health(&world, 1).await, health(&world, 2).await), (DiskHealth::Silent, DiskHealth::Online));
    world.control.registry.check_may_be_lost(disk(1)).await.unwrap();
    assert_eq!(world.kinds_of_events().await.iter().filter(|kind| *kind == "disk-missing").count(), 1);
    let carried = with_disk(chunkserver_beat(2, "127.0.0.1:9"), |reported| reported.id = disk(1).to_string());
    world.report(carried).await.unwrap();
    assert_eq!((health(&world, 1).await, owner(&world, 1).await), (DiskHealth::Online, node("n2")));
}

#[tokio::test]
async fn after_a_restart_a_disk_is_not_lost_before_it_had_time_to_report() {
    let world = World::with_nodes(2).await.restarted().await;
    let registry = &world.control.registry;
    let early = registry.check_may_be_lost(disk(1)).await.unwrap_err();
    assert!(early.message.contains("just started"), "{early}");
    fall_silent(&world).await;
    registry.check_may_be_lost(disk(1)).await.unwrap();
}
