//! Space: every chunk is told of once, by whoever can; who cannot is named, and what nobody tells of is left out.

use super::*;
use ashlar_types::VolumeRecord;

const REFUSES: usize = usize::MAX;
/// Of a volume of one GiB.
const CHUNKS: u64 = 16;

impl World {
    /// A volume of all three nodes that was served on `n2`, and its snapshots.
    async fn served(&self, snapshots: &[&str]) -> VolumeRecord {
        let id = self.create("a").await.volume.id();
        self.play_datapath("n2", None).await;
        self.control.attach(id, &node("n2"), shown(Frontend::Nbd)).await.unwrap();
        let record = self.control.volume(id).await.unwrap().volume.record;
        self.control.propose(id, record.epoch, record.version, &Change::OpenDirty).await.unwrap();
        for name in snapshots {
            self.control.create_snapshot(&name.parse().unwrap(), id).await.unwrap();
        }
        self.control.volume(id).await.unwrap().volume.record
    }
}

#[tokio::test]
async fn what_was_never_served_takes_nothing_and_nobody_is_asked() {
    let world = World::with_nodes(3).await;
    let record = world.create("a").await.volume.record;
    assert_eq!(world.control.space(&record).await, proto::VolumeSpace::default());
}

#[tokio::test]
async fn every_chunk_is_told_of_once_and_snapshots_by_their_names() {
    let world = World::with_nodes(3).await;
    let record = world.served(&["s", "t"]).await;
    for number in 1..=3 {
        world.play_chunkserver(number, 0).await;
    }
    let told = world.control.space(&record).await;
    assert_eq!((told.used_bytes, told.unique_bytes, told.shared_bytes), (4 * CHUNKS, CHUNKS, CHUNKS));
    assert_eq!((told.snapshots_bytes, told.pending_bytes, told.freed_by_all_bytes), (CHUNKS, CHUNKS, CHUNKS));
    let snapshots: Vec<(&str, u64)> = told.snapshots.iter().map(|of| (of.name.as_str(), of.freed_bytes)).collect();
    assert_eq!(snapshots, [("s", CHUNKS), ("t", CHUNKS)]);
    assert_eq!((told.untold_chunks, told.faults), (0, vec![]));
}

/// Both read the same: as long as there is one of them the other gives nothing back.
#[tokio::test]
async fn snapshots_at_one_point_give_nothing_back_alone() {
    let world = World::with_nodes(3).await;
    let record = world.served(&[]).await;
    world.control.detach(record.volume, None, DetachMode::Clean).await.unwrap();
    world.play_chunkserver(1, 0).await;
    for name in ["s", "t"] {
        world.control.create_snapshot(&name.parse().unwrap(), record.volume).await.unwrap();
    }
    let record = world.control.volume(record.volume).await.unwrap().volume.record;
    assert_eq!((record.snapshots.len(), record.points().len()), (2, 1));
    let told = world.control.space(&record).await;
    assert_eq!(told.snapshots.iter().map(|of| of.freed_bytes).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(told.freed_by_all_bytes, CHUNKS);
}

#[tokio::test]
async fn who_does_not_answer_is_named_and_the_next_one_is_asked() {
    let world = World::with_nodes(3).await;
    let record = world.served(&[]).await;
    // The holder's own is asked first; the others nobody answers for.
    world.play_chunkserver(2, REFUSES).await;
    let told = world.control.space(&record).await;
    assert_eq!((told.used_bytes, told.untold_chunks), (0, CHUNKS as u32));
    assert_eq!(told.faults.len(), 3, "{:?}", told.faults);
    assert!(told.faults[0].contains("of node n2: not now"), "{:?}", told.faults);

    world.play_chunkserver(3, 0).await;
    let told = world.control.space(&record).await;
    assert_eq!((told.used_bytes, told.untold_chunks), (4 * CHUNKS, 0));
    assert!(told.faults.iter().any(|fault| fault.contains("of node n2: not now")), "{:?}", told.faults);
}

#[tokio::test]
async fn who_is_silent_or_not_in_sync_is_not_asked() {
    let world = World::with_nodes(3).await;
    let record = world.served(&[]).await;
    for number in 1..=3 {
        world.play_chunkserver(number, 0).await;
    }
    let eject = Change::Eject { disks: vec![disk(1)], commit: Lsn::ZERO, reason: "slow".to_owned() };
    world.control.propose(record.volume, record.epoch, record.version, &eject).await.unwrap();
    let record = world.control.volume(record.volume).await.unwrap().volume.record;
    let later = tokio::time::Instant::now() + Duration::from_secs(4);
    world.control.registry.end_silent(&world.control.catalog, later).await;
    let told = world.control.space(&record).await;
    assert_eq!((told.used_bytes, told.untold_chunks), (0, CHUNKS as u32));
    assert_eq!(told.faults.iter().filter(|fault| fault.contains("is silent")).count(), 2, "{:?}", told.faults);
}
