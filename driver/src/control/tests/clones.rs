//! Clones: begun once, made by whoever can, gone on with by nobody's asking, and parted from their sources.

use super::*;
use crate::control::clones::watch;
use ashlar_catalog::{ContentSource, UseState};
use ashlar_types::{ByteCount, ChangeAnswer, MemberState, SnapshotId, VolumeName, VolumeRecord};
use std::collections::BTreeMap as Map;

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn clone_of(name: &str, source: ContentSource) -> NewVolume {
    NewVolume { source: Some(source), size: SizeRange::of_source(), ..wish(name, GIB) }
}

/// Three nodes whose chunkservers and whose first datapath are played.
struct Scene {
    world: World,
    disks: Vec<Arc<PlayedChunkserver>>,
    /// Volume `a`, which was written to and closed, and its snapshot `s`.
    source: VolumeId,
    snapshot: SnapshotId,
}

impl Scene {
    async fn new() -> Scene {
        let world = World::with_nodes(3).await;
        let mut disks = Vec::new();
        for number in 1..=3 {
            let (played, _deletions) = PlayedChunkserver::new(0);
            world.serve_chunkserver(number, played.clone()).await;
            disks.push(played);
        }
        let source = world.create("a").await.volume.id();
        world.play_datapath("n1", None).await;
        world.write_and_close(source).await;
        let snapshot = world.control.create_snapshot(&name("s"), source).await.unwrap().snapshot.id;
        Scene { world, disks, source, snapshot }
    }

    async fn create(&self, name: &str) -> Result<StoredVolume> {
        self.world.control.create_volume(clone_of(name, ContentSource::Snapshot(self.snapshot))).await
    }

    async fn record(&self, id: VolumeId) -> VolumeRecord {
        self.world.control.volume(id).await.unwrap().volume.record
    }

    fn refuse(&self, number: usize, status: Option<Status>) {
        *self.disks[number - 1].clones_refused.lock().unwrap() = status;
    }

    async fn look(&self) -> usize {
        self.world.control.advance_clones(&mut Map::new()).await.unwrap()
    }
}

impl World {
    async fn write_and_close(&self, id: VolumeId) {
        let control = &self.control;
        control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
        let record = control.volume(id).await.unwrap().volume.record;
        let opened = control.propose(id, record.epoch, record.version, &Change::OpenDirty).await.unwrap();
        assert!(matches!(opened, ChangeAnswer::Applied { .. }));
        control.detach(id, None, DetachMode::Clean).await.unwrap();
    }
}

#[tokio::test]
async fn a_clone_of_a_snapshot_is_made_on_every_disk_of_its_source() {
    let scene = Scene::new().await;
    let made = scene.create("b").await.unwrap();
    let (record, source) = (&made.volume.record, scene.record(scene.source).await);
    let origin = record.origin.unwrap();
    assert!(origin.is_made && origin.base.volume == scene.source);
    assert_eq!(origin.base.point, source.snapshots[0].point);
    assert_eq!(source.clones[0].clone, made.volume.id());
    for (number, played) in scene.disks.iter().enumerate() {
        let asked = played.cloned.lock().unwrap().clone();
        assert_eq!(asked.len(), 1, "disk {number}");
        assert_eq!((&asked[0].volume, asked[0].size_bytes), (&made.volume.id().to_string(), GIB));
        assert_eq!(
            (&asked[0].base_volume, asked[0].base_point_lsn),
            (&scene.source.to_string(), origin.base.point.raw())
        );
    }
    assert_eq!(made.volume.source, Some(ContentSource::Snapshot(scene.snapshot)));
    assert_eq!(made.volume.use_state, UseState::Used, "its source was, when the snapshot was taken");
    assert_eq!(scene.create("b").await.unwrap(), made, "asked again it is the same");
    let condition = scene.world.control.condition(&made, &scene.world.control.disks_by_id().await).await;
    assert!(!condition.abnormal && condition.message.contains("still reads from volume"), "{}", condition.message);
    let kinds = scene.world.kinds_of_events().await;
    assert!(kinds.contains(&"clone-begun".to_owned()) && kinds.contains(&"clone-made".to_owned()), "{kinds:?}");
    scene.world.control.attach(made.volume.id(), &node("n1"), shown(Frontend::Nbd)).await.unwrap();
}

#[tokio::test]
async fn a_clone_of_a_volume_takes_a_snapshot_of_its_own_that_nobody_sees() {
    let scene = Scene::new().await;
    let (control, long) = (&scene.world.control, "x".repeat(128));
    control.create_snapshot(&name(&long), scene.source).await.unwrap();
    let attached = scene.world.create("held").await.volume.id();
    scene.world.write_and_close(attached).await;
    control.attach(attached, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    for (clone, source) in [(long.as_str(), scene.source), ("of-attached", attached)] {
        let before = scene.record(source).await.snapshots;
        let made = control.create_volume(clone_of(clone, ContentSource::Volume(source))).await.unwrap();
        let after = scene.record(source).await;
        assert_eq!(after.snapshots, before, "the snapshot went when the clone was begun");
        assert_eq!(after.clones[0].clone, made.volume.id());
    }
    let (page, _) = control.list_snapshots("", 10).await.unwrap();
    let names: Vec<_> = page.snapshots.iter().map(|seen| seen.snapshot.name.to_string()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

/// Whoever asks for a clone of a volume and gives up must not keep the volume from being deleted.
#[tokio::test]
async fn a_snapshot_for_a_clone_that_was_never_begun_is_forgotten() {
    let scene = Scene::new().await;
    let control = &scene.world.control;
    let taken = control.snapshot_for_clone(&name("b"), scene.source).await.unwrap().snapshot.id;
    assert_eq!(control.find_snapshot(&taken.to_string()).await.unwrap_err().kind, ErrorKind::NotFound);
    control.delete_snapshot(taken).await.unwrap();
    let (mut idle, now) = (Map::new(), tokio::time::Instant::now());
    assert_eq!(control.forget_idle_snapshots(&mut idle, now).await.unwrap(), 1, "it is still there");
    let later = now + Duration::from_secs(60);
    assert_eq!(control.forget_idle_snapshots(&mut idle, later).await.unwrap(), 0);
    assert!(control.catalog.snapshot(taken).await.unwrap().is_none());
    assert_eq!(scene.record(scene.source).await.snapshots.len(), 1, "people's stays");
    control.snapshot_for_clone(&name("b"), scene.source).await.unwrap();
    control.delete_snapshot(scene.snapshot).await.unwrap();
    control.delete_volume(scene.source).await.unwrap();
    assert!(control.catalog.snapshots_for_clones().await.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_clone_that_is_not_made_yet_follows_its_source_to_another_disk() {
    let scene = Scene::new().await;
    let world = &scene.world;
    world.chunkserver_reports(4, NOWHERE).await;
    (1..=3).for_each(|number| scene.refuse(number, Some(Status::unavailable("not now"))));
    assert_eq!(scene.create("b").await.unwrap_err().kind, ErrorKind::Unavailable);
    let source = world.control.volume(scene.source).await.unwrap();
    let gone = source.volume.record.members[2].clone();
    let mut next = source.volume.record.clone();
    next.members[2].state = MemberState::Out { commit: Lsn::ZERO };
    let with = ashlar_types::Member { disk: disk(4), node: node("n4"), ..gone.clone() };
    let next = ashlar_plan::membership::replace(&next, gone.disk, with).unwrap();
    let claims = world.control.catalog.claims().await.unwrap();
    world.control.catalog.change_holders(&source, next, &claims, None, vec![]).await.unwrap();
    (1..=3).for_each(|number| scene.refuse(number, None));
    let made = scene.create("b").await.unwrap().volume.record;
    let holders: Vec<DiskId> = made.holders().map(|member| member.disk).collect();
    assert!(made.origin.unwrap().is_made && holders.contains(&disk(4)) && !holders.contains(&gone.disk), "{made:?}");
    let buried = world.control.tombstones().await.unwrap();
    assert!(buried.iter().any(|tombstone| (tombstone.volume, tombstone.disk) == (made.volume, gone.disk)));
    assert!(world.kinds_of_events().await.contains(&"clone-laid-anew".to_owned()));
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_out_and_two_of_them_are_too_few() {
    let scene = Scene::new().await;
    scene.refuse(3, Some(Status::unavailable("busy")));
    let made = scene.create("b").await.unwrap();
    let states: Vec<_> = made.volume.record.members.iter().map(|member| member.state.is_in_sync()).collect();
    assert_eq!(states.iter().filter(|is_in_sync| **is_in_sync).count(), 2);
    assert_eq!(made.volume.record.member(disk(3)).unwrap().state, MemberState::Out { commit: Lsn::ZERO });

    scene.refuse(2, Some(Status::failed_precondition("no such source here")));
    let few = scene.create("c").await.unwrap_err();
    assert_eq!(few.kind, ErrorKind::Unavailable, "{few}");
    assert!(few.message.contains("node n2: no such source here") && few.message.contains("minReplicas is 2"), "{few}");
    let begun = scene.world.control.find_volume("c").await.unwrap();
    scene.world.control.delete_snapshot(scene.snapshot).await.unwrap();
    let needed = scene.world.control.delete_volume(scene.source).await.unwrap_err();
    assert!(needed.kind == ErrorKind::FailedPrecondition && needed.message.contains("still being made"), "{needed}");
    let condition = scene.world.control.condition(&begun, &scene.world.control.disks_by_id().await).await;
    assert!(condition.abnormal && condition.message.starts_with("it cannot be attached yet"), "{}", condition.message);
    let refused = scene.world.control.attach(begun.volume.id(), &node("n1"), shown(Frontend::Nbd)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Busy, "{refused}");
    scene.refuse(2, None);
    let made = scene.create("c").await.unwrap();
    assert_eq!(made.volume.id(), begun.volume.id(), "it went on where it had ended");
}

#[tokio::test]
async fn what_was_begun_is_made_after_a_restart_though_nobody_asks() {
    let scene = Scene::new().await;
    (1..=3).for_each(|number| scene.refuse(number, Some(Status::unavailable("not now"))));
    assert_eq!(scene.create("b").await.unwrap_err().kind, ErrorKind::Unavailable);
    let Scene { world, disks, .. } = scene;
    let store = world.control.catalog.clones().await.unwrap().0;
    assert_eq!(store.len(), 1);
    let creating = world.control.in_flight.begin("b").unwrap();
    assert_eq!(world.control.advance_clones(&mut Map::new()).await.unwrap(), 1, "left to whoever creates it");
    drop(creating);
    disks.iter().for_each(|played| *played.clones_refused.lock().unwrap() = None);
    assert_eq!(world.control.advance_clones(&mut Map::new()).await.unwrap(), 1, "made, and not flat yet");
    assert!(world.control.volume(store[0]).await.unwrap().volume.record.origin.unwrap().is_made);
}

#[tokio::test]
async fn a_clone_is_flat_when_every_replica_that_counts_is() {
    let scene = Scene::new().await;
    scene.refuse(3, Some(Status::unavailable("dead for good")));
    let id = scene.create("b").await.unwrap().volume.id();
    assert_eq!(scene.look().await, 1);
    scene.disks[0].is_flat.store(true, Ordering::SeqCst);
    assert_eq!(scene.look().await, 1, "one of two is not enough");
    assert!(scene.record(id).await.origin.is_some());
    scene.disks[1].is_flat.store(true, Ordering::SeqCst);
    assert_eq!(scene.look().await, 0, "who is out holds nobody up");
    assert!(scene.record(id).await.origin.is_none() && scene.record(scene.source).await.clones.is_empty());
    assert!(scene.world.kinds_of_events().await.contains(&"clone-flat".to_owned()));
    assert_eq!(scene.create("b").await.unwrap().volume.id(), id, "a repeated creation still finds it");
}

#[tokio::test]
async fn source_and_snapshot_may_go_before_the_clone_is_flat() {
    let scene = Scene::new().await;
    let control = &scene.world.control;
    let id = scene.create("b").await.unwrap().volume.id();
    control.delete_snapshot(scene.snapshot).await.unwrap();
    assert_eq!(scene.record(scene.source).await.points().len(), 1, "the clone's point stays");
    control.delete_volume(scene.source).await.unwrap();
    assert_eq!(scene.create("b").await.unwrap().volume.id(), id, "a repeated creation still finds it");
    scene.disks.iter().for_each(|played| played.is_flat.store(true, Ordering::SeqCst));
    assert_eq!(scene.look().await, 0);
    assert!(scene.record(id).await.origin.is_none());
}

#[tokio::test]
async fn a_deleted_clone_gives_its_source_the_point_back() {
    let scene = Scene::new().await;
    let id = scene.create("b").await.unwrap().volume.id();
    scene.world.control.delete_volume(id).await.unwrap();
    assert!(scene.record(scene.source).await.clones.is_empty());
    assert_eq!(scene.look().await, 0);
}

#[tokio::test]
async fn a_name_is_one_clone_of_one_source_of_one_size() {
    let scene = Scene::new().await;
    let control = &scene.world.control;
    scene.create("b").await.unwrap();
    let of = |source| control.create_volume(clone_of("b", source));
    assert_eq!(of(ContentSource::Volume(scene.source)).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    assert_eq!(control.create_volume(wish("b", GIB)).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    let sized = |name: &str, size: u64| NewVolume {
        size: SizeRange::exactly(ByteCount(size)).unwrap(),
        ..clone_of(name, ContentSource::Snapshot(scene.snapshot))
    };
    assert_eq!(control.create_volume(sized("b", 2 * GIB)).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    assert_eq!(control.create_volume(sized("c", GIB / 2)).await.unwrap_err().kind, ErrorKind::OutOfRange);
    assert_eq!(control.create_volume(sized("c", 2 * GIB)).await.unwrap().volume.record.size.0, 2 * GIB);
    let full = control.create_volume(sized("d", 99 * GIB)).await.unwrap_err();
    assert!(full.kind == ErrorKind::Exhausted && full.message.contains("lies where its source lies"), "{full}");
    let gone = SnapshotId::from_u128(99);
    let missing = control.create_volume(clone_of("e", ContentSource::Snapshot(gone))).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
    let two: Map<String, String> = [("replicas".to_owned(), "2".to_owned())].into();
    let other = NewVolume { params: params::parse(&two).unwrap(), parameters: two, ..sized("e", GIB) };
    let other = control.create_volume(other).await.unwrap_err();
    assert!(other.kind == ErrorKind::InvalidArgument && other.message.contains("set it to 3"), "{other}");
    let elsewhere = NewVolume { allowed_nodes: vec![node("n9")], ..sized("e", GIB) };
    assert_eq!(control.create_volume(elsewhere).await.unwrap_err().kind, ErrorKind::Exhausted);
}

/// P8: a clone is what the source was when the snapshot was taken, and never less than what is on it.
#[tokio::test]
async fn the_use_of_a_clone_is_what_its_source_was_at_the_snapshot() {
    let scene = Scene::new().await;
    let control = &scene.world.control;
    let id = scene.world.create("fs").await.volume.id();
    let steps = [
        ("blank", None),
        ("begun", Some((UseState::Blank, UseState::Formatting))),
        ("used", Some((UseState::Formatting, UseState::Used))),
    ];
    for (at, step) in steps {
        if let Some((from, to)) = step {
            control.set_use(id, from, to, "xfs").await.unwrap();
        }
        control.create_snapshot(&name(at), id).await.unwrap();
    }
    let mut uses = Vec::new();
    for (at, _) in steps {
        let snapshot = control.find_snapshot(at).await.unwrap().snapshot.id;
        let new = clone_of(&format!("of-{at}"), ContentSource::Snapshot(snapshot));
        let made = control.create_volume(new).await.unwrap().volume;
        assert!(made.record.origin.is_none(), "nobody ever wrote to the source: nothing is there to be read");
        uses.push((made.use_state, made.fs_type));
    }
    // One that may be formatted anew held nothing but an mkfs that nobody has seen the end of.
    let xfs = "xfs".to_owned();
    assert_eq!(uses, [(UseState::Blank, String::new()), (UseState::Formatting, xfs.clone()), (UseState::Used, xfs)]);
}

#[tokio::test]
async fn what_clones_read_keeps_its_claim_until_it_is_free() {
    let scene = Scene::new().await;
    let control = &scene.world.control;
    control.delete_snapshot(scene.snapshot).await.unwrap();
    control.delete_volume(scene.source).await.unwrap();
    let claimed = || async { control.catalog.claims().await.unwrap().of(disk(1)).0 };
    let (played, mut deletions) = PlayedChunkserver::new(0);
    played.keeps.store(true, Ordering::SeqCst);
    scene.world.serve_chunkserver(1, played.clone()).await;
    let reaper = tokio::spawn(reaper::run(control.clone()));
    control.reap.notify_one();
    deletions.recv().await.unwrap();
    assert_eq!(claimed().await, GIB);
    played.keeps.store(false, Ordering::SeqCst);
    control.reap.notify_one();
    deletions.recv().await.unwrap();
    while claimed().await > 0 {
        tokio::task::yield_now().await;
    }
    reaper.abort();
}

#[tokio::test]
async fn the_watch_sleeps_while_there_is_no_clone_and_wakes_for_one() {
    let scene = Scene::new().await;
    let watching = tokio::spawn(watch::run(scene.world.control.clone()));
    scene.disks.iter().for_each(|played| played.is_flat.store(true, Ordering::SeqCst));
    let id = scene.create("b").await.unwrap().volume.id();
    while scene.record(id).await.origin.is_some() {
        tokio::task::yield_now().await;
    }
    watching.abort();
}

#[tokio::test]
async fn a_clone_may_have_the_space_of_a_volume_that_was_just_deleted() {
    let scene = Scene::new().await;
    let control = &scene.world.control;
    let large = control.create_volume(wish("large", 89 * GIB)).await.unwrap();
    // What grows may go beyond the watermark, and so may a clone.
    let full = SizeRange::exactly(ByteCount(99 * GIB)).unwrap();
    control.expand_volume(large.volume.id(), full).await.unwrap();
    let full = scene.create("b").await.unwrap_err();
    assert_eq!(full.kind, ErrorKind::Exhausted);
    control.delete_volume(large.volume.id()).await.unwrap();
    scene.create("b").await.unwrap();
}
