//! Replicas of a volume that nobody holds are told which points are needed: each until it has answered, across restarts
//! of either side, and nobody while there is a writer.

use super::*;
use crate::control::forgotten;
use ashlar_types::{Epoch, VolumeRecord};

struct Scene {
    world: World,
    id: VolumeId,
    disks: Vec<Arc<PlayedChunkserver>>,
}

impl Scene {
    /// A volume that was served and has two snapshots; of its chunkservers the last does not answer.
    async fn attached() -> Scene {
        let world = World::with_nodes(3).await;
        let id = world.create("a").await.volume.id();
        world.play_datapath("n1", None).await;
        world.control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
        let scene = Scene { world, id, disks: (0..3).map(|_| PlayedChunkserver::new(0).0).collect() };
        scene.propose(Change::OpenDirty).await;
        for name in ["s", "t"] {
            scene.world.control.create_snapshot(&name.parse().unwrap(), id).await.unwrap();
        }
        for number in [1, 2] {
            scene.world.serve_chunkserver(number, scene.disks[number as usize - 1].clone()).await;
        }
        scene
    }

    async fn detached() -> Scene {
        let scene = Scene::attached().await;
        scene.propose(Change::CloseClean).await;
        scene
    }

    async fn record(&self) -> VolumeRecord {
        self.world.control.volume(self.id).await.unwrap().volume.record
    }

    async fn propose(&self, change: Change) {
        let record = self.record().await;
        let answer = self.world.control.propose(self.id, record.epoch, record.version, &change).await.unwrap();
        assert!(matches!(answer, ashlar_types::ChangeAnswer::Applied { .. }), "{answer:?}");
    }

    async fn delete(&self, name: &str) {
        let id = self.world.control.find_snapshot(name).await.unwrap().snapshot.id;
        self.world.control.delete_snapshot(id).await.unwrap();
    }

    async fn left(&self) -> usize {
        self.world.control.catalog.forgotten().await.unwrap().0.len()
    }

    fn told(&self, number: usize) -> Vec<Vec<u64>> {
        let told = self.disks[number - 1].told.lock().unwrap();
        told.iter().map(|request| request.point_lsns.clone()).collect()
    }
}

#[tokio::test]
async fn each_disk_is_told_and_one_that_was_away_when_it_is_back() {
    let scene = Scene::detached().await;
    let control = &scene.world.control;
    scene.delete("s").await;
    let left = scene.record().await.points()[0].raw();
    assert_eq!((scene.left().await, control.tell_forgotten().await.unwrap()), (1, 1));
    assert_eq!([1, 2, 3].map(|number| scene.told(number)), [vec![vec![left]], vec![vec![left]], vec![]]);
    let later = tokio::time::Instant::now() + Duration::from_secs(4);
    control.registry.end_silent(&control.catalog, later).await;
    assert_eq!((scene.left().await, control.tell_forgotten().await.unwrap()), (1, 0), "who is silent is waited for");
    for number in [1, 2] {
        scene.world.serve_chunkserver(number, scene.disks[number as usize - 1].clone()).await;
    }
    scene.world.serve_chunkserver(3, scene.disks[2].clone()).await;
    control.tell_forgotten().await.unwrap();
    assert_eq!((scene.told(3), scene.left().await), (vec![vec![left]], 0));
    let request = scene.disks[2].told.lock().unwrap()[0].clone();
    let record = scene.record().await;
    assert_eq!(request.epoch, record.served.number());
    assert_eq!(Lsn::from_raw(request.until_lsn).epoch(), record.served);
    control.tell_forgotten().await.unwrap();
    assert_eq!(scene.told(3).len(), 1, "once is enough");
}

#[tokio::test]
async fn one_that_refuses_is_asked_again() {
    let scene = Scene::detached().await;
    scene.world.serve_chunkserver(3, scene.disks[2].clone()).await;
    scene.disks[0].refusals.store(1, Ordering::SeqCst);
    scene.delete("s").await;
    assert_eq!(scene.world.control.tell_forgotten().await.unwrap(), 1);
    assert_eq!(scene.left().await, 1);
    assert_eq!(scene.world.control.tell_forgotten().await.unwrap(), 0);
    assert_eq!((scene.told(1).len(), scene.left().await), (1, 0));
}

/// It tells its replicas itself, and so does the next one.
#[tokio::test]
async fn while_there_is_a_writer_nobody_else_tells() {
    let scene = Scene::attached().await;
    scene.delete("s").await;
    assert_eq!(scene.left().await, 0, "it is attached");
    scene.propose(Change::CloseClean).await;
    scene.delete("t").await;
    assert_eq!(scene.left().await, 1);
    scene.world.control.reserve(scene.id, &node("n2")).await.unwrap();
    assert_eq!(scene.world.control.tell_forgotten().await.unwrap(), 0);
    assert_eq!((scene.told(1), scene.left().await), (vec![], 0));
}

#[tokio::test]
async fn what_is_given_up_while_others_are_told_is_told_too() {
    let scene = Scene::detached().await;
    let control = &scene.world.control;
    scene.delete("s").await;
    let seen = control.catalog.forgotten().await.unwrap().0.remove(0);
    scene.delete("t").await;
    assert!(!control.catalog.drop_forgotten(&seen).await.unwrap(), "more was given up since it was read");
    assert_eq!(scene.left().await, 1);
    control.delete_volume(scene.id).await.unwrap();
    assert_eq!(scene.left().await, 0, "nothing is left of a deleted volume");
}

#[tokio::test]
async fn the_watch_sleeps_while_there_is_nothing_and_wakes_for_a_deletion() {
    let scene = Scene::detached().await;
    scene.world.serve_chunkserver(3, scene.disks[2].clone()).await;
    let watching = tokio::spawn(forgotten::run(scene.world.control.clone()));
    scene.delete("s").await;
    while scene.left().await > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.told(3).len(), 1);
    assert_ne!(scene.record().await.served, Epoch::NONE);
    watching.abort();
}
