//! What the planner says, carried out on a catalog, with daemons that are played.

use super::*;
use crate::control::repair::seen::Measured;
use ashlar_plan::repair::Planner;
use ashlar_types::MemberState;

/// No grace: what is silent is given up at the second look.
fn planner() -> Planner {
    Planner::new(Bounds { grace: Duration::ZERO, ..Bounds::default() })
}

impl World {
    async fn look(&self, planner: &mut Planner) -> bool {
        self.control.look(planner, &mut Measured::default()).await.unwrap()
    }

    /// Looks until something has come about.
    async fn look_until<T>(&self, planner: &mut Planner, found: impl AsyncFn(&World) -> Option<T>) -> T {
        for _ in 0..10_000 {
            self.look(planner).await;
            if let Some(found) = found(self).await {
                return found;
            }
            tokio::task::yield_now().await;
        }
        panic!("it never comes about");
    }

    async fn record(&self, id: VolumeId) -> VolumeRecord {
        self.control.volume(id).await.unwrap().volume.record
    }

    /// Nobody has heard of the node for some time, and of the others just now.
    async fn only_silent(&self, node: u128, nodes: u128) {
        let later = tokio::time::Instant::now() + Duration::from_secs(4);
        self.control.registry.end_silent(&self.control.catalog, later).await;
        for number in (1..=nodes).filter(|&number| number != node) {
            self.chunkserver_reports(number, NOWHERE).await;
        }
    }
}

fn holders(record: &VolumeRecord) -> Vec<DiskId> {
    record.holders().map(|member| member.disk).collect()
}

/// A volume with a writer on n1, and one replica elsewhere that it has ejected.
async fn with_one_out(world: &World) -> (VolumeId, DiskId, Arc<PlayedDatapath>) {
    let id = world.create("a").await.volume.id();
    let played = world.play_datapath("n1", None).await;
    world.control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    let record = world.record(id).await;
    let gone = *holders(&record).iter().find(|&&disk| disk != super::disk(1)).unwrap();
    let eject = Change::Eject { disks: vec![gone], commit: Lsn::ZERO, reason: "silent".to_owned() };
    world.control.propose(id, record.epoch, record.version, &eject).await.unwrap();
    (id, gone, played)
}

#[tokio::test]
async fn a_member_that_is_out_on_a_silent_node_is_replaced_with_claim_and_tombstone() {
    let world = World::with_nodes(4).await;
    let (id, gone, played) = with_one_out(&world).await;
    let mut planner = planner();
    world.only_silent(gone.as_u128(), 4).await;
    world.datapath_reports_again("n1", &played).await;

    let replaced = world
        .look_until(&mut planner, async |world: &World| {
            let record = world.record(id).await;
            (!holders(&record).contains(&gone)).then_some(record)
        })
        .await;
    assert_eq!(holders(&replaced).len(), 3);
    let claims = world.control.catalog.claims().await.unwrap();
    assert_eq!([1, 2, 3, 4].map(|number| claims.of(disk(number)).0), [GIB; 4], "until what is there is deleted");
    assert_eq!(world.control.tombstones().await.unwrap()[0].disk, gone);
    assert!(world.kinds_of_events().await.contains(&"rebuild-begun".to_owned()));
    let told = played.steered.lock().unwrap().clone();
    assert!(told.iter().any(|steer| steer.newer_record && steer.volume == id.to_string()));
}

#[tokio::test]
async fn each_step_of_a_lost_replica_is_told_once_and_counted() {
    let world = World::with_nodes(4).await;
    let id = world.create("a").await.volume.id();
    let played = world.play_datapath("n1", None).await;
    world.control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    let record = world.record(id).await;
    let gone = *holders(&record).iter().find(|&&disk| disk != super::disk(1)).unwrap();
    let mut planner = planner();
    world.only_silent(gone.as_u128(), 4).await;
    let cut_off = proto::MemberStatus { disk: gone.to_string(), connected: false, ..Default::default() };
    let volume = proto::AttachedVolume {
        volume: id.to_string(),
        phase: "serving".to_owned(),
        members: vec![cut_off],
        ..Default::default()
    };
    let beat = proto::DatapathBeat { rpc_address: played.address.clone(), volumes: vec![volume] };
    let daemon = Some(heartbeat_request::Daemon::Datapath(beat));
    world.report(proto::HeartbeatRequest { node: "n1".to_owned(), daemon, ..Default::default() }).await.unwrap();
    for _ in 0..3 {
        world.look(&mut planner).await;
    }
    let eject = Change::Eject { disks: vec![gone], commit: Lsn::ZERO, reason: "silent".to_owned() };
    for _ in 0..2 {
        // The second time it is answered as the first time.
        world.control.propose(id, record.epoch, record.version, &eject).await.unwrap();
    }
    world
        .look_until(&mut planner, async |world: &World| {
            (!holders(&world.record(id).await).contains(&gone)).then_some(())
        })
        .await;
    let _asked = world.play_chunkserver(gone.as_u128(), 0).await;
    world.control.reap_now().await.unwrap();
    for _ in 0..3 {
        world.look(&mut planner).await;
    }
    let kinds = world.kinds_of_events().await;
    let steps = ["suspect", "ejected", "grace-begun", "grace-ended", "rebuild-begun", "replica-gone", "space-freed"];
    for step in steps {
        assert_eq!(kinds.iter().filter(|kind| *kind == step).count(), 1, "{step}: {kinds:?}");
    }
    let page = world.control.metrics.text();
    for series in [r#"repair_steps_total{kind="replace"} 1"#, r#"replica_changes_total{change="ejected"} 1"#] {
        assert!(page.contains(&format!("ashlar_driver_{series}")), "{page}");
    }
    world.control.metrics.set_repair(&world.control.repair.last().figures);
    let degraded = r#"ashlar_driver_volumes_by_protection{protection="degraded",class="normal"} 1"#;
    assert!(world.control.metrics.text().contains(degraded), "the new one has nothing yet");
}

#[tokio::test]
async fn a_disk_that_its_chunkserver_does_not_name_yet_has_its_grace() {
    let world = World::with_nodes(4).await;
    let (id, out, played) = with_one_out(&world).await;
    // It has just started, and has not read its disk.
    let mut beat = chunkserver_beat(out.as_u128(), NOWHERE);
    let Some(heartbeat_request::Daemon::Chunkserver(chunkserver)) = &mut beat.daemon else { unreachable!() };
    chunkserver.disks.clear();
    world.report(beat).await.unwrap();
    world.datapath_reports_again("n1", &played).await;
    let (mut planner, mut measured) = (Planner::new(Bounds::default()), Measured::default());
    for _ in 0..5 {
        assert!(world.control.look(&mut planner, &mut measured).await.unwrap(), "looked at again soon");
    }
    assert!(holders(&world.record(id).await).contains(&out), "it will return");
    assert!(world.control.safe_to_stop(&node("n1")).await.unwrap().reasons.len() == 1, "and is not there now");
}

/// A volume with a writer on n1, one replica out on a silent disk and replaced.
async fn with_one_replaced(world: &World) -> (VolumeId, DiskId) {
    let (id, gone, played) = with_one_out(world).await;
    world.only_silent(gone.as_u128(), 4).await;
    world.datapath_reports_again("n1", &played).await;
    world
        .look_until(&mut planner(), async |world: &World| {
            (!holders(&world.record(id).await).contains(&gone)).then_some(())
        })
        .await;
    (id, gone)
}

#[tokio::test]
async fn what_was_replaced_stays_until_enough_others_are_in_sync_and_online() {
    let world = World::with_nodes(4).await;
    let (id, gone) = with_one_replaced(&world).await;
    let mut deletions = world.play_chunkserver(gone.as_u128(), 0).await;
    world.control.reap_now().await.unwrap();
    assert_eq!(deletions.try_recv().unwrap().volume, id.to_string(), "two of three are enough");
    assert!(world.control.tombstones().await.unwrap().is_empty());

    let world = World::with_nodes(4).await;
    let (id, gone) = with_one_replaced(&world).await;
    let is_in_sync = |member: &&ashlar_types::Member| member.state == MemberState::InSync && member.disk != disk(1);
    let record = world.record(id).await;
    let other = record.holders().find(is_in_sync).unwrap().disk;
    world.only_silent(other.as_u128(), 4).await;
    let mut deletions = world.play_chunkserver(gone.as_u128(), 0).await;
    world.control.reap_now().await.unwrap();
    assert!(deletions.try_recv().is_err(), "one of three is too few");
    assert_eq!(world.control.tombstones().await.unwrap().len(), 1);
    world.chunkserver_reports(other.as_u128(), NOWHERE).await;
    world.control.reap_now().await.unwrap();
    assert_eq!(deletions.try_recv().unwrap().disk, gone.to_string());
}

#[tokio::test]
async fn a_repair_gives_way_to_a_change_of_min_replicas() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    for number in 1..=3 {
        world.play_datapath(&format!("n{number}"), None).await;
    }
    world.control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    let record = world.record(id).await;
    let eject = Change::Eject { disks: vec![holders(&record)[2]], commit: Lsn::ZERO, reason: "silent".to_owned() };
    world.control.propose(id, record.epoch, record.version, &eject).await.unwrap();
    world.control.detach(id, None, DetachMode::Clean).await.unwrap();
    world
        .look_until(&mut planner(), async |world: &World| {
            let seen = world.control.volume(id).await.unwrap().volume;
            (seen.is_repaired && seen.record.holder.is_some()).then_some(())
        })
        .await;
    let wanted = params::parse_changes(&BTreeMap::from([("minReplicas".to_owned(), "1".to_owned())])).unwrap();
    let changed = loop {
        match world.control.modify_volume(id, &wanted).await {
            Ok(changed) => break changed,
            Err(error) => assert_eq!(error.kind, ErrorKind::Busy, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((changed.volume.record.min_replicas, changed.volume.is_repaired), (1, false));
}

#[tokio::test]
async fn nothing_is_done_for_a_cluster_in_good_health() {
    let world = World::with_nodes(4).await;
    let id = world.create("a").await.volume.id();
    let before = world.record(id).await;
    let mut planner = planner();
    assert!(!world.look(&mut planner).await);
    assert!(!world.look(&mut planner).await);
    assert_eq!(world.record(id).await, before);
}

#[tokio::test]
async fn a_volume_that_nobody_holds_is_attached_for_repair_and_given_up_to_a_user() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    for number in 1..=3 {
        world.play_datapath(&format!("n{number}"), None).await;
    }
    // As a writer leaves it that lost one: the record says out.
    world.control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    let record = world.record(id).await;
    let out = holders(&record)[2];
    let eject = Change::Eject { disks: vec![out], commit: Lsn::ZERO, reason: "silent".to_owned() };
    world.control.propose(id, record.epoch, record.version, &eject).await.unwrap();
    world.control.detach(id, None, DetachMode::Clean).await.unwrap();
    let mut planner = planner();
    world
        .look_until(&mut planner, async |world: &World| {
            let seen = world.control.volume(id).await.unwrap().volume;
            (seen.is_repaired && seen.record.holder.is_some()).then_some(())
        })
        .await;
    let begun = world.record(id).await;
    // Whoever wants it may have to ask again while the attachment is under way.
    let attached = loop {
        match world.control.attach(id, &node("n2"), shown(Frontend::Nbd)).await {
            Ok(device) => break device,
            Err(error) => assert_eq!(error.kind, ErrorKind::Busy, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let seen = world.control.volume(id).await.unwrap().volume;
    assert_eq!((seen.record.holder.clone(), seen.is_repaired), (Some(node("n2")), false));
    assert!(attached.epoch > begun.epoch.number());
    assert!(matches!(seen.record.member(out).unwrap().state, MemberState::Out { .. }));
    let kinds = world.kinds_of_events().await;
    assert!(["repair-begun", "repair-ended"].iter().all(|kind| kinds.contains(&kind.to_string())));
}

#[tokio::test]
async fn a_drain_is_remembered_and_closes_disks_to_placement() {
    let world = World::with_nodes(4).await;
    world.control.drain_node(&node("n4"), true).await.unwrap();
    let world = world.restarted().await;
    for number in 1..=4 {
        world.chunkserver_reports(number, NOWHERE).await;
    }
    let made = world.create("a").await.volume;
    assert!(!holders(&made.record).contains(&disk(4)));
    // Where there is no other place it is refused, with what stands against it.
    let refused = world.control.drain_node(&node("n1"), true).await.unwrap_err();
    assert!(refused.message.contains(&made.id().to_string()), "{refused}");
    world.control.drain_node(&node("n4"), false).await.unwrap();
    world.control.drain_node(&node("n1"), true).await.unwrap();
    assert_eq!(world.control.drain_node(&node("n9"), true).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(world.control.safe_to_stop(&node("n9")).await.unwrap_err().kind, ErrorKind::NotFound);
    assert!(world.control.safe_to_stop(&node("n1")).await.unwrap().safe);
}
