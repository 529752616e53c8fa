//! How disks, engines and volumes of a simulated cluster begin: formatting, configuration, records.

use crate::catalog::node_name;
use crate::medium::{InFlight, Medium};
use crate::names::{Disk, Node, Vol};
use crate::rng::Rng;
use crate::stamp::BLOCK;
use ashlar_engine::{DiskLayout, Engine, EngineConfig, IndexLoad, Superblock};
use ashlar_types::{
    ByteCount, CHUNK_BYTES, ChunkIndex, ChunkRun, ClusterId, DiskId, Epoch, Instant, Member, MemberState, SLOT_BYTES,
    VolumeId, VolumeRecord,
};
use bytes::Bytes;

pub const JOURNAL_BYTES: u64 = 8 << 20;

pub fn cluster_id() -> ClusterId {
    ClusterId::from_u128(0xA5)
}

pub fn disk_id(disk: Disk) -> DiskId {
    DiskId::from_u128(u128::from(disk.0) + 1)
}

pub fn volume_id(volume: Vol) -> VolumeId {
    VolumeId::from_u128(u128::from(volume.0) + 1)
}

pub fn volume_of(id: VolumeId) -> Vol {
    Vol(id.as_u128() as u16 - 1)
}

/// Chunks of every volume in the beginning.
pub const CHUNKS: u32 = 3;
/// Chunks of a volume that does not grow any more.
pub const CHUNKS_MAX: u32 = 6;

/// Writes the superblock of a blank disk with `slots` slots.
pub fn format_disk(disk: Disk, slots: u32) -> Medium {
    let total = (1 << 20) + JOURNAL_BYTES + u64::from(slots) * SLOT_BYTES;
    let layout = DiskLayout::new(ByteCount(total), ByteCount(JOURNAL_BYTES)).expect("a sound layout");
    let superblock = Superblock { cluster: cluster_id(), disk: disk_id(disk), layout };
    let page = Bytes::copy_from_slice(&superblock.encode());
    let mut medium = Medium::default();
    medium.write(&InFlight { offset: 0, parts: vec![page.clone(), page], durable: true });
    medium
}

/// What a chunkserver does before it serves a disk: reads the superblock and the index, makes the engine.
pub fn open_engine(config: EngineConfig, disk: Disk, medium: &Medium, now: Instant) -> Engine {
    let start = medium.read(0, 2 * BLOCK as u64);
    let superblock =
        Superblock::decode(&start, ByteCount(u64::MAX), cluster_id()).expect("one good copy of the superblock");
    assert_eq!(superblock.disk, disk_id(disk));
    let index = IndexLoad::of(superblock, &medium.index);
    Engine::new(config, index, now).expect("an engine on a disk of its own")
}

/// The record of a new volume: three replicas of each chunk, the chunks spread over the disks.
pub fn new_record(volume: Vol, disks: u16, min_replicas: u8, rng: &mut Rng) -> VolumeRecord {
    let members = (0..disks).map(|disk| Member {
        disk: disk_id(Disk(disk)),
        node: node_name(Node(disk)),
        zone: None,
        state: MemberState::InSync,
    });
    let spread = rng.coin();
    let run = |chunk: u32| {
        let first = if spread { chunk as u16 } else { 0 };
        let mut members: Vec<u16> = (0..3).map(|i| (first + i) % disks).collect();
        members.sort_unstable();
        ChunkRun { first: ChunkIndex(chunk), count: 1, members }
    };
    let runs: Vec<ChunkRun> = (0..CHUNKS).map(run).collect();
    let used: Vec<u16> = runs.iter().flat_map(|run| run.members.clone()).collect();
    let members: Vec<Member> =
        members.enumerate().filter(|(i, _)| used.contains(&(*i as u16))).map(|(_, m)| m).collect();
    VolumeRecord {
        cluster: cluster_id(),
        volume: volume_id(volume),
        size: ByteCount(u64::from(CHUNKS) * CHUNK_BYTES),
        epoch: Epoch::NONE,
        version: 1,
        holder: None,
        served: Epoch::NONE,
        clean: true,
        min_replicas,
        members,
        chunks: runs,
        declared_lost: Vec::new(),
        snapshots: Vec::new(),
        clones: Vec::new(),
        origin: None,
        last_change: None,
    }
}
