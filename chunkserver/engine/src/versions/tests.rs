//! Tests of `versions`: a map is the model.

use super::*;
use proptest::prelude::*;

type Model = BTreeMap<VersionKey, Slot>;

/// What one version may be: packed, or whole because of one mark, of zeros, or of its origin.
fn version() -> impl Strategy<Value = Slot> {
    let bits = prop_oneof![4 => Just(0), 1 => any::<u16>()];
    (any::<u16>(), bits, 0..5u8, proptest::option::of(0..u32::MAX), any::<u8>(), any::<u32>()).prop_map(
        |(valid, bits, mark, place, epoch, crc)| {
            let of = |kind: u8| if mark == kind { bits } else { 0 };
            let stamp = Lsn::from_raw(u64::from(epoch % 4) << 40 | u64::from(crc));
            let crcs = std::array::from_fn(|i| Crc32(crc.wrapping_mul(i as u32 + 1)));
            let (set, stale, fresh, lost) = (valid | of(0), of(1), of(2), of(3));
            Slot { place: place.map(Place), set, valid, stale, fresh, lost, stamp, crcs }
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Put(VersionKey, Slot),
    Remove(VersionKey),
    Get(VersionKey),
    /// From both ends in turn, as the bits say.
    Range(Bound<VersionKey>, Bound<VersionKey>, u32),
}

/// Few slots around the ends of segments, or any; few floors, or many.
fn key() -> impl Strategy<Value = VersionKey> {
    let slot = prop_oneof![0..3u16, 105..109u16, 1021..1024u16, 0..1024u16];
    let floor = prop_oneof![3 => 0..2u64, 1 => 0..2000u64];
    (slot, floor).prop_map(|(slot, floor)| (SlotIndex(slot), Lsn::from_raw(floor)))
}

fn bound() -> impl Strategy<Value = Bound<VersionKey>> {
    prop_oneof![key().prop_map(Bound::Included), key().prop_map(Bound::Excluded), Just(Bound::Unbounded)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), version()).prop_map(|(key, version)| Step::Put(key, version)),
        2 => key().prop_map(Step::Remove),
        1 => key().prop_map(Step::Get),
        1 => (bound(), bound(), any::<u32>()).prop_map(|(start, end, ends)| Step::Range(start, end, ends)),
    ]
}

/// A map panics at ranges that end before they begin.
fn is_range(start: &Bound<VersionKey>, end: &Bound<VersionKey>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Excluded(start), Bound::Excluded(end)) => start < end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start <= end,
    }
}

fn check(versions: &Versions) {
    let packed = || versions.segments.iter().enumerate().flat_map(|(at, all)| all.iter().map(move |one| (at, one)));
    let keys: Vec<VersionKey> = packed().map(|(segment, one)| versions.key_of(segment, one)).collect();
    assert!(keys.is_sorted_by(|a, b| a < b));
    assert!(keys.iter().all(|key| !versions.whole.contains_key(key)));
    for (index, origin) in versions.origins.iter().enumerate() {
        assert_eq!(origin.count as usize, packed().filter(|(_, one)| one.origin() == index).count());
    }
    assert!(versions.origins.last().is_none_or(|origin| origin.count > 0));
    assert!(versions.segments.iter().all(|packed| !packed.is_empty() || packed.capacity() == 0));
}

fn follow(steps: Vec<Step>) {
    let (mut versions, mut model) = (Versions::default(), Model::new());
    for step in steps {
        match step {
            Step::Put(key, slot) => {
                versions.put(key, slot.clone());
                model.insert(key, slot);
            }
            Step::Remove(key) => {
                versions.remove(key);
                model.remove(&key);
            }
            Step::Get(key) => assert_eq!(versions.get(key), model.get(&key).cloned()),
            Step::Range(start, end, ends) if is_range(&start, &end) => {
                let (mut found, mut expected) = (versions.range((start, end)), model.range((start, end)));
                for turn in 0.. {
                    let (one, other) = match ends >> (turn % 32) & 1 {
                        0 => (found.next(), expected.next()),
                        _ => (found.next_back(), expected.next_back()),
                    };
                    assert_eq!(one, other.map(|(key, slot)| (*key, slot.clone())));
                    if one.is_none() {
                        break;
                    }
                }
            }
            Step::Range(..) => {}
        }
        assert_eq!(versions.len(), model.len());
    }
    check(&versions);
    assert!(versions.iter().eq(model.clone()));
    assert!(versions.iter().rev().eq(model.clone().into_iter().rev()));
    let mut loaded = Versions::default();
    loaded.put_all(&model.into_iter().collect::<Vec<_>>());
    check(&loaded);
    assert_eq!(loaded, versions);
}

proptest! {
    #[test]
    fn it_is_a_map(steps in proptest::collection::vec(step(), 0..400)) {
        follow(steps);
    }
}

fn plain(place: u32, stamp: u64) -> Slot {
    let crcs = std::array::from_fn(|i| Crc32(place.wrapping_add(i as u32)));
    let stamp = Lsn::from_raw(stamp);
    Slot { place: Some(Place(place)), set: u16::MAX, valid: u16::MAX, stale: 0, fresh: 0, lost: 0, stamp, crcs }
}

fn at(slot: u16) -> VersionKey {
    (SlotIndex(slot), Lsn::ZERO)
}

#[test]
fn what_is_marked_is_whole_for_as_long_as_it_is() {
    let mut versions = Versions::default();
    versions.put(at(5), plain(1, 1));
    for mark in [
        Slot { stale: 1, ..plain(1, 1) },
        Slot { fresh: 1, ..plain(1, 1) },
        Slot { lost: 1, ..plain(1, 1) },
        Slot { valid: 1, ..plain(1, 1) },
    ] {
        versions.put(at(5), mark.clone());
        assert_eq!((versions.whole.len(), versions.get(at(5))), (1, Some(mark)));
        versions.put(at(5), plain(2, 1 << 40));
        assert_eq!((versions.whole.len(), versions.get(at(5))), (0, Some(plain(2, 1 << 40))));
        check(&versions);
    }
    // Nothing but a stamp, as a discard leaves it.
    let stamped = Slot { stamp: Lsn::MAX, ..Slot::new() };
    versions.put(at(5), stamped.clone());
    assert_eq!((versions.whole.len(), versions.get(at(5))), (0, Some(stamped)));
}

/// More epochs and snapshots than a tag can name.
#[test]
fn versions_of_too_many_origins_are_whole_until_one_is_free() {
    let mut versions = Versions::default();
    let key = |i: u64| (SlotIndex((i % 3) as u16), Lsn::from_raw(i / 3));
    let count = ORIGINS_MAX as u64 + 100;
    (0..count).for_each(|i| versions.put(key(i), plain(i as u32, i << 40)));
    assert_eq!((versions.whole.len(), versions.len()), (100, count as usize));
    assert!(versions.iter().map(|(key, slot)| (key, slot.place)).is_sorted());
    assert!((0..count).all(|i| versions.get(key(i)) == Some(plain(i as u32, i << 40))));
    versions.remove(key(0));
    versions.put(key(count - 1), plain(7, 0));
    assert_eq!(versions.whole.len(), 99);
    (0..count).for_each(|i| versions.remove(key(i)));
    check(&versions);
    assert_eq!((versions.len(), versions.origins.len()), (0, 0));
}

/// More versions of each slot than a segment may have to move.
#[test]
fn versions_beyond_the_bound_of_a_segment_are_whole() {
    let mut model = Model::new();
    for (floor, slot) in (0..20).flat_map(|floor| (0..SEGMENT_SLOTS as u16).map(move |slot| (floor, slot))) {
        model.insert((SlotIndex(slot), Lsn::from_raw(floor)), plain(u32::from(slot), floor << 40));
    }
    let (mut versions, mut loaded) = (Versions::default(), Versions::default());
    model.iter().rev().for_each(|(&key, slot)| versions.put(key, slot.clone()));
    loaded.put_all(&model.clone().into_iter().collect::<Vec<_>>());
    for versions in [&versions, &loaded] {
        assert_eq!(versions.whole.len(), 4 * SEGMENT_SLOTS);
        assert!(versions.iter().eq(model.clone()));
    }
    // One that is packed already is changed where it is; another one gets in when there is room.
    let (packed, whole) = (at(SEGMENT_SLOTS as u16 - 1), at(0));
    versions.put(packed, plain(9, 9));
    assert_eq!((versions.whole.len(), versions.get(packed)), (4 * SEGMENT_SLOTS, Some(plain(9, 9))));
    versions.remove(packed);
    versions.put(whole, plain(8, 8));
    assert_eq!((versions.whole.len(), versions.get(whole)), (4 * SEGMENT_SLOTS - 1, Some(plain(8, 8))));
    check(&versions);
}

/// What it has asked the allocator for.
fn bytes(versions: &Versions) -> usize {
    let packed: usize = versions.segments.iter().map(|packed| packed.capacity() * size_of::<Packed>()).sum();
    let whole = versions.whole.len() * (size_of::<VersionKey>() + size_of::<Slot>()) * 2;
    packed + versions.segments.len() * size_of::<Vec<Packed>>() + versions.origins.capacity() * 16 + whole
}

/// 1.3 GiB for each TiB are 83 bytes for each slot of 64 KiB; 77 leave room for the rest of a chunkserver.
#[test]
fn a_full_chunk_takes_77_bytes_a_slot_however_it_was_written() {
    const BYTES_MAX: usize = 77 * SLOTS_PER_CHUNK as usize;
    let slots = SLOTS_PER_CHUNK as u16;
    let (mut ascending, mut scattered) = (Versions::default(), Versions::default());
    for i in 0..slots {
        ascending.put(at(i), plain(u32::from(i), 1));
        // 389 has no factor in common with the number of slots: every slot comes once.
        scattered.put(at((u32::from(i) * 389 % SLOTS_PER_CHUNK) as u16), plain(u32::from(i), 1));
    }
    assert!(bytes(&ascending) <= BYTES_MAX && bytes(&scattered) <= BYTES_MAX);
    let mut loaded = Versions::default();
    loaded.put_all(&ascending.iter().collect::<Vec<_>>());
    assert!(bytes(&loaded) <= BYTES_MAX && loaded == ascending);
    for i in 0..3 * u32::from(slots) {
        scattered.put(at((i * 131 % SLOTS_PER_CHUNK) as u16), plain(i, u64::from(i % 5) << 40));
    }
    assert!(bytes(&scattered) <= BYTES_MAX);
    // Half of it goes, and with it the memory, but for the room to grow.
    (0..slots / 2).for_each(|i| scattered.remove(at(i * 2)));
    assert!(bytes(&scattered) <= BYTES_MAX / 2 + 2 * GROWTH * SEGMENTS * size_of::<Packed>());
    (0..slots).for_each(|i| scattered.remove(at(i)));
    assert!(bytes(&scattered) <= 2 * SLOTS_PER_CHUNK as usize);
}

/// With several versions of each slot the room for more stays an eighth.
#[test]
fn versions_under_snapshots_take_little_more() {
    let mut versions = Versions::default();
    for (floor, slot) in (0..5).flat_map(|floor| (0..SLOTS_PER_CHUNK as u16).map(move |slot| (floor, slot))) {
        versions.put((SlotIndex(slot), Lsn::from_raw(floor)), plain(u32::from(slot), floor << 40));
    }
    assert!(bytes(&versions) <= 77 * 9 / 8 * versions.len());
}
