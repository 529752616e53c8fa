//! What a written slot takes of RAM: a chunkserver may take 1.3 GiB for each TiB, which is 83 bytes for each slot of
//! 64 KiB. The allocator is asked, so whatever the engine keeps is in the sum.

use ashlar_engine::{DiskLayout, Engine, EngineConfig, IndexLoad, Superblock};
use ashlar_types::{ByteCount, CHUNK_BYTES, ClusterId, Crc32, DiskId, Instant, SLOT_BYTES, SLOTS_PER_CHUNK};
use cap::Cap;
use std::alloc::System;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

const CHUNKS: u32 = 64;
const SLOTS: u32 = CHUNKS * SLOTS_PER_CHUNK;
const SLOT_BYTES_MAX: usize = 78;
/// What is read is packed a chunk at a time.
const AHEAD_BYTES_MAX: usize = 256 << 10;
const JOURNAL_BYTES: u64 = 8 << 20;
const DISK: u128 = 2;
const VOLUME: u128 = 9;

fn superblock() -> Superblock {
    let total = ByteCount((1 << 20) + JOURNAL_BYTES + u64::from(SLOTS) * SLOT_BYTES);
    let layout = DiskLayout::new(total, ByteCount(JOURNAL_BYTES)).unwrap();
    Superblock { cluster: ClusterId::from_u128(1), disk: DiskId::from_u128(DISK), layout }
}

/// A row as `src/index.rs` draws it.
fn row(key: &[&[u8]], value: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
    let (key, mut value) = (key.concat(), value.concat());
    value.extend(Crc32::of_parts(&[&key, &value]).0.to_le_bytes());
    (key, value)
}

/// One volume, of which every slot is written, in the order of the keys.
fn rows() -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let volume = VOLUME.to_be_bytes();
    let chunk = move |chunk: u32| row(&[b"c", &volume, &chunk.to_be_bytes()], &[&[3, 1], &[0; 26]]);
    let position = || row(&[b"p"], &[&[3], &[0; 7], &DISK.to_le_bytes(), &1u64.to_le_bytes(), &[0; 12]]);
    let slot = move |slot: u32| {
        let (chunk, within) = (slot / SLOTS_PER_CHUNK, (slot % SLOTS_PER_CHUNK) as u16);
        let key: [&[u8]; 5] = [b"s", &volume, &chunk.to_be_bytes(), &within.to_be_bytes(), &[0; 8]];
        // Valid and set: all blocks.
        let bits = [0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF];
        row(&key, &[&[3, 0], &bits, &slot.to_le_bytes(), &u64::from(slot).to_le_bytes(), &[7; 64]])
    };
    let size = (u64::from(CHUNKS) * CHUNK_BYTES).to_le_bytes();
    let replica = move || row(&[b"v", &volume], &[&[3, 0, 0, 0], &4u32.to_le_bytes(), &size, &[0; 60]]);
    let before = (0..CHUNKS).map(chunk).chain(std::iter::once_with(position));
    before.chain((0..SLOTS).map(slot)).chain(std::iter::once_with(replica))
}

#[test]
fn a_slot_that_was_read_back_takes_78_bytes_and_reading_takes_no_more_than_a_chunk() {
    let before = MEMORY.allocated();
    let mut index = IndexLoad::new(superblock());
    let mut most = 0;
    for (key, value) in rows() {
        index.row(&key, &value);
        most = most.max(MEMORY.allocated() - before);
    }
    let engine = Engine::new(EngineConfig::default(), index, Instant::ZERO).unwrap();
    let taken = MEMORY.allocated() - before;
    let used = ByteCount(u64::from(SLOTS) * SLOT_BYTES);
    assert!(engine.status().replicas.iter().map(|replica| replica.used_bytes).eq([used]));
    assert!(taken <= SLOT_BYTES_MAX * SLOTS as usize, "{} bytes a slot", taken as f64 / f64::from(SLOTS));
    assert!(most <= taken + AHEAD_BYTES_MAX, "{most} at most, {taken} at the end");
}
