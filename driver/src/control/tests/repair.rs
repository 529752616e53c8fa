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

#[tokio::test]
async fn a_member_that_is_out_on_a_silent_node_is_replaced_with_claim_and_tombstone() {
    let world = World::with_nodes(4).await;
    let id = world.create("a").await.volume.id();
    let played = world.play_datapath("n1", None).await;
    world.control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    let record = world.record(id).await;
    let gone = *holders(&record).iter().find(|&&disk| disk != super::disk(1)).unwrap();
    let eject = Change::Eject { disks: vec![gone], commit: Lsn::ZERO, reason: "silent".to_owned() };
    world.control.propose(id, record.epoch, record.version, &eject).await.unwrap();
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
async fn a_disk_that_its_chunkserver_does_not_name_yet_has_its_grace() {
    let world = World::with_nodes(4).await;
    let id = world.create("a").await.volume.id();
    let played = world.play_datapath("n1", None).await;
    world.control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    let record = world.record(id).await;
    let out = *holders(&record).iter().find(|&&disk| disk != super::disk(1)).unwrap();
    let eject = Change::Eject { disks: vec![out], commit: Lsn::ZERO, reason: "silent".to_owned() };
    world.control.propose(id, record.epoch, record.version, &eject).await.unwrap();
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
