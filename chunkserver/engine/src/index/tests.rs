//! Tests of `index`.

use super::load::IndexLoad;
use super::*;
use crate::RecoverError;
use crate::superblock::{DiskLayout, Superblock};
use ashlar_types::{CHUNKS_MAX, ClusterId, SLOT_BYTES};
use proptest::prelude::*;

const RING: u64 = 8 << 20;

fn disk() -> DiskId {
    DiskId::from_u128(2)
}

/// What comes of the rows on a disk of 256 slots.
fn load(rows: &[(Vec<u8>, Vec<u8>)], disk: DiskId) -> Result<Loaded, RecoverError> {
    let layout = DiskLayout::new(ByteCount((1 << 20) + RING + 256 * SLOT_BYTES), ByteCount(RING)).unwrap();
    let superblock = Superblock { cluster: ClusterId::from_u128(1), disk, layout };
    let index = IndexLoad::of(superblock, rows.iter().map(|(key, value)| (key, value)));
    index.finish().map(|(_, loaded)| loaded)
}

fn store() -> Store {
    let volume = VolumeId::from_u128(9);
    let mut replica = Replica::new(Epoch::new(4).unwrap(), ByteCount(1 << 30));
    replica.syncing = Some(Lsn::from_raw(8));
    replica.incomplete = true;
    replica.commit = Lsn::from_raw(99);
    let chunk = replica.chunk_mut(ChunkIndex(7));
    chunk.prefix = Lsn::from_raw(5);
    chunk.adopted = Lsn::from_raw(6);
    let crcs = std::array::from_fn(|i| Crc32(i as u32));
    let stamp = Lsn::from_raw(5);
    let slot = Slot { place: Some(Place(3)), set: 9, valid: 1, stale: 2, fresh: 4, lost: 8, stamp, crcs };
    chunk.slots.put((SlotIndex(1023), Lsn::from_raw(4)), slot);
    chunk.stale_slots = 1;
    replica.stale_slots = 1;
    replica.count_place(Lsn::from_raw(4), false, true);
    replica.kept = Kept { live: vec![Lsn::from_raw(4)], until: Lsn::from_raw(6) };
    let mut store = Store::new([(volume, replica)].into(), 100);
    store.dirty.volume(volume);
    store.dirty.chunk(volume, ChunkIndex(7));
    store.dirty.kept(volume);
    let address =
        |slot: u16| SlotAddress { volume, chunk: ChunkIndex(7), slot: SlotIndex(slot), floor: Lsn::from_raw(4) };
    store.dirty.slot(address(1023));
    store.dirty.slot(address(1));
    store
}

fn rows(store: &mut Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let position = Position { next_sequence: Sequence(12), next_offset: 4096, chain: Crc32(1) };
    let mut rows = BTreeMap::new();
    let start = start_edit(Start { position, reach: Some(8 << 20) }, disk());
    for edit in Dirty::take_edits(store).into_iter().chain([start]) {
        match edit {
            IndexEdit::Put { key, value } => drop(rows.insert(key, value)),
            IndexEdit::Delete { key } => drop(rows.remove(&key)),
            IndexEdit::DeleteRange { .. } => panic!("nothing was wiped"),
        }
    }
    rows.into_iter().collect()
}

#[test]
fn the_store_survives_the_index() {
    let mut store = store();
    let rows = rows(&mut store);
    let lengths: Vec<_> = rows.iter().map(|(key, value)| (key[0], key.len(), value.len())).collect();
    assert_eq!(lengths, [(b'c', 21, 32), (b'k', 17, 28), (b'p', 1, 48), (b's', 31, 92), (b'v', 17, 80)]);
    let loaded = load(&rows, disk()).unwrap();
    assert_eq!(loaded.volumes, store.volumes);
    assert_eq!(loaded.start.unwrap().position.next_sequence, Sequence(12));
    assert!(store.dirty.is_empty());
}

#[test]
fn a_value_under_another_key_is_damaged() {
    let mut rows = rows(&mut store());
    let mut key = rows[3].0.clone();
    key[22] ^= 1;
    rows[3].0 = key;
    let loaded = load(&rows, disk()).unwrap();
    assert_eq!(loaded.damaged_slots.len(), 1);
}

#[test]
fn a_wiped_volume_takes_its_rows_and_no_neighbours() {
    let volume = VolumeId::from_u128(9);
    let address = |volume: u128| SlotAddress {
        volume: VolumeId::from_u128(volume),
        chunk: ChunkIndex(u32::MAX),
        slot: SlotIndex(1023),
        floor: Lsn::MAX,
    };
    for edit in wipe_edits(volume) {
        let IndexEdit::DeleteRange { from, until } = edit else { panic!() };
        let covers = |key: Vec<u8>| key >= from && key < until;
        assert_eq!(covers(Key::Slot(address(9)).encode()), from[0] == b's');
        assert_eq!(covers(Key::Bad(address(9)).encode()), from[0] == b'b');
        assert_eq!(covers(Key::Chunk(volume, ChunkIndex(u32::MAX)).encode()), from[0] == b'c');
        assert!(!covers(Key::Bad(address(8)).encode()) && !covers(Key::Bad(address(10)).encode()));
        assert!(!covers(Key::Slot(address(8)).encode()) && !covers(Key::Slot(address(10)).encode()));
        assert!(!covers(Key::Volume(volume).encode()) && !covers(Key::Position.encode()));
    }
}

#[test]
fn what_scrub_has_come_to_and_found_is_read_back_and_is_no_matter_when_damaged() {
    let after = SlotAddress {
        volume: VolumeId::from_u128(9),
        chunk: ChunkIndex(u32::MAX),
        slot: SlotIndex(u16::MAX),
        floor: Lsn::MAX,
    };
    let round = |after| Round { after, elapsed: Duration::from_millis(5), found_ever: 2, ..Round::default() };
    for round in [round(Some(after)), round(None)] {
        let rows = rows(&mut store());
        let put = |edit: IndexEdit| match edit {
            IndexEdit::Put { key, value } => (key, value),
            other => panic!("{other:?}"),
        };
        let address = SlotAddress { chunk: ChunkIndex(3), slot: SlotIndex(4), ..after };
        let bad = put(edit(Key::Bad(address), Some(encode_bad(0b101))));
        let told = put(round_edit(&round));
        assert_eq!((bad.0.len(), bad.1.len(), told.1.len()), (31, 8, 108));
        let all = [rows.clone(), vec![bad.clone(), told.clone()]].concat();
        let loaded = load(&all, disk()).unwrap();
        assert_eq!((loaded.bad, loaded.round), (vec![(address, 0b101)], round.clone()));
        let beyond = with_byte(&told, 23, 0x7F);
        assert_eq!(load(&[rows.clone(), vec![beyond]].concat(), disk()).unwrap().round, Round::default());
        let damaged = [rows, vec![with_byte(&bad, 1, 1), with_byte(&told, 1, 2)]].concat();
        let loaded = load(&damaged, disk()).unwrap();
        assert_eq!((loaded.bad, loaded.round), (vec![], Round::default()));
    }
}

#[test]
fn rows_without_position_or_owner_are_refused() {
    let rows = rows(&mut store());
    for missing in [2, 4] {
        let mut rows = rows.clone();
        rows.remove(missing);
        assert!(matches!(load(&rows, disk()), Err(RecoverError::DamagedIndex(_))));
    }
    assert!(matches!(load(&rows, DiskId::from_u128(3)), Err(RecoverError::ForeignIndex)));
}

fn with_byte(row: &(Vec<u8>, Vec<u8>), at: usize, value: u8) -> (Vec<u8>, Vec<u8>) {
    let (key, mut value_bytes) = row.clone();
    value_bytes[at] = value;
    let end = value_bytes.len() - 4;
    let crc = Crc32::of_parts(&[&key, &value_bytes[..end]]);
    value_bytes[end..].copy_from_slice(&crc.0.to_le_bytes());
    (key, value_bytes)
}

#[test]
fn a_chunk_that_no_volume_can_have_is_damage() {
    let volume = VolumeId::from_u128(9);
    let address = |chunk| SlotAddress { volume, chunk, slot: SlotIndex(0), floor: Lsn::ZERO };
    for (index, is_possible) in [(CHUNKS_MAX - 1, true), (CHUNKS_MAX, false), (u32::MAX, false)] {
        let chunk = ChunkIndex(index);
        assert_eq!(Key::decode(&Key::Chunk(volume, chunk).encode()).is_ok(), is_possible);
        assert_eq!(Key::decode(&Key::Slot(address(chunk)).encode()).is_ok(), is_possible);
    }
}

#[test]
fn flags_that_nobody_knows_are_damage() {
    let rows = rows(&mut store());
    let (chunk, volume) = (&rows[0], &rows[4]);
    assert!(decode_chunk(&chunk.0, &with_byte(chunk, 1, 2).1).is_err());
    // A commit point of a return that is not under way.
    let (key, value) = with_byte(volume, 1, INCOMPLETE);
    assert!(decode_replica(&key, &value).is_err());
}

#[test]
fn bases_without_row_or_in_a_circle_are_refused() {
    let ids = [1u128, 2, 3].map(VolumeId::from_u128);
    let rows_of = |bases: [Option<VolumeId>; 3]| {
        let replica = |base: Option<VolumeId>| Replica {
            origin: base.map(|volume| Base { volume, point: Lsn::from_raw(7) }),
            ..Replica::new(Epoch::new(4).unwrap(), ByteCount(1 << 30))
        };
        let volumes = ids.into_iter().zip(bases.map(replica)).collect();
        let mut store = Store::new(volumes, 100);
        ids.iter().for_each(|&volume| store.dirty.volume(volume));
        rows(&mut store)
    };
    let chain = rows_of([Some(ids[1]), Some(ids[2]), None]);
    assert_eq!(load(&chain, disk()).unwrap().volumes[&ids[0]].base().unwrap().volume, ids[1]);
    let damaged = [[Some(ids[0]), None, None], [Some(ids[1]), Some(ids[2]), Some(ids[0])], [None, None, Some(ids[2])]];
    for bases in damaged.into_iter().chain([[None, Some(VolumeId::from_u128(9)), None]]) {
        assert!(matches!(load(&rows_of(bases), disk()), Err(RecoverError::DamagedIndex(_))), "{bases:?}");
    }
}

#[test]
fn a_position_that_leaves_no_room_to_count_on_is_refused() {
    let mut rows = rows(&mut store());
    rows[1] = with_byte(&rows[2], 31, 0x40);
    assert!(matches!(load(&rows, disk()), Err(RecoverError::DamagedIndex(_))));
}

proptest! {
    #[test]
    fn loading_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..120), row in 0usize..4, at in 0usize..92,
                            value: u8, key in proptest::collection::vec(any::<u8>(), 0..30)) {
        let mut rows = rows(&mut store());
        let _ = load(&[(key, noise.clone())], disk());
        let good = rows.clone();
        rows[row].1 = noise;
        let _ = load(&rows, disk());
        // A changed field under a right checksum.
        rows[row].1 = good[row].1.clone();
        let end = rows[row].1.len() - 4;
        rows[row].1[at % end] = value;
        let crc = Crc32::of_parts(&[&rows[row].0, &rows[row].1[..end]]);
        rows[row].1[end..].copy_from_slice(&crc.0.to_le_bytes());
        let _ = load(&rows, disk());
    }
}
