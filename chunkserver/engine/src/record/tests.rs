//! Tests of `record`.

use super::codec::RECORD_BYTES_MAX;
use super::*;
use ashlar_types::SNAPSHOTS_MAX;
use proptest::prelude::*;

pub(crate) fn samples() -> Vec<Record> {
    let range = |start: u64, count: u32| ChunkRange {
        chunk: ChunkIndex(3),
        start: BlockIndex(start),
        count: BlockCount(count),
    };
    let piece = |place: u32, direct: bool| Piece { place: Place(place), direct };
    let crcs = |count: u32| (0..count).map(Crc32).collect::<Vec<_>>();
    let lsn = Lsn::from_raw;
    let chunk = ChunkIndex(3);
    let (floor, slot) = (Lsn::ZERO, SlotIndex(9));
    let floors = FloorRange { from: lsn(5), below: lsn(8) };
    let whole: Vec<Piece> = (0..17).map(|i| piece(i, (1..16).contains(&i))).collect();
    let fill = |valid: u16, place: Option<Place>, direct: bool| {
        let (into, stamp, crcs) = (lsn(7), lsn(3), crcs(valid.count_ones()));
        Body::Fill { chunk, slot, floors, into, stamp, set: valid, valid, place, direct, crcs }
    };
    let bodies = vec![
        Body::Write { range: range(5, 1), lsn: lsn(7), floor, pieces: vec![piece(1, false)], crcs: crcs(1) },
        Body::Write { range: range(8, 256), lsn: lsn(8), floor, pieces: whole, crcs: crcs(256) },
        Body::Discard { range: range(0, 16384), lsn: lsn(9), floor, release_first: true, release_last: false },
        Body::Promise {
            epoch: Epoch::new(4).unwrap(),
            size: ByteCount(1 << 30),
            session: SessionId(77),
            served: Epoch::new(3).unwrap(),
        },
        fill(5, Some(Place(2)), false),
        fill(0, None, false),
        fill(u16::MAX, Some(Place(2)), true),
        Body::Repair {
            range: range(15, 2),
            floor: lsn(7),
            pieces: vec![piece(1, false), piece(2, false)],
            crcs: crcs(2),
        },
        Body::MarkStale(Mark { chunk, after: lsn(2), floors, into: lsn(7), slots: [slot].into_iter().collect() }),
        Body::BeginSync { after: lsn(2) },
        Body::AdoptPrefix { chunk, prefix: lsn(2) },
        Body::CompleteChunk { chunk, prefix: lsn(2) },
        Body::VoidStale { chunk },
        Body::FinishSync,
        Body::Keep(Kept { live: (1..=SNAPSHOTS_MAX as u64).map(lsn).collect(), until: lsn(999) }),
        Body::Merge { chunk, slot, older: lsn(1), newer: lsn(2), place: Some(Place(3)), moved: 6, crcs: crcs(2) },
        Body::Merge { chunk, slot, older: lsn(1), newer: lsn(2), place: None, moved: 0, crcs: vec![] },
        Body::Flatten {
            chunk,
            slot,
            zeros: 8,
            copied: 6,
            lost: 1,
            place: Some(Place(3)),
            stamp: lsn(4),
            crcs: crcs(2),
        },
        Body::Flatten { chunk, slot, zeros: 8, copied: 0, lost: 1, place: None, stamp: lsn(4), crcs: vec![] },
        Body::Flattened,
    ];
    let volume = VolumeId::from_u128(77);
    let mut records: Vec<Record> = bodies.into_iter().map(|body| Record { volume, commit: lsn(6), body }).collect();
    let delete = Body::DeleteVolume { epoch: Epoch::new(4).unwrap() };
    records.push(Record { volume, commit: Lsn::ZERO, body: delete });
    let base = Base { volume: VolumeId::from_u128(78), point: lsn(9) };
    let clone = Body::Clone { epoch: Epoch::new(4).unwrap(), size: ByteCount(1 << 30), base };
    records.push(Record { volume, commit: Lsn::ZERO, body: clone });
    records
}

#[test]
fn every_record_survives_its_bytes() {
    for record in samples() {
        let bytes = record.encode();
        assert!(bytes.len() <= RECORD_BYTES_MAX);
        assert_eq!(Record::decode(&bytes, 100), Ok((record.clone(), bytes.len())), "{record:?}");
        for short in 0..bytes.len() {
            assert!(Record::decode(&bytes[..short], 100).is_err());
        }
    }
}

#[test]
fn a_place_beyond_the_disk_is_malformed() {
    for record in samples() {
        let has_place = !record.payload().is_empty() || !record.directs().is_empty();
        assert_eq!(Record::decode(&record.encode(), 0).is_err(), has_place, "{record:?}");
    }
}

#[test]
fn payload_and_its_pages_agree() {
    for record in samples() {
        assert_eq!(record.payload().len() as u32, record.payload_pages());
    }
    let write = &samples()[1];
    assert_eq!((write.payload_pages(), write.directs().len()), (16, 15));
}

#[test]
fn ranges_are_cut_at_slot_borders() {
    let range = ChunkRange { chunk: ChunkIndex(0), start: BlockIndex(14), count: BlockCount(20) };
    let parts: Vec<_> = slot_parts(range).map(|part| (part.slot.0, part.first, part.count, part.skipped)).collect();
    assert_eq!(parts, [(0, 14, 2, 0), (1, 0, 16, 2), (2, 0, 2, 18)]);
    let bits: Vec<u16> = slot_parts(range).map(|part| part.bits()).collect();
    assert_eq!(bits, [0xC000, 0xFFFF, 3]);
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), sample in 0usize..22,
                             at in 0usize..200, value: u8) {
        let _ = Record::decode(&bytes, 100);
        let mut changed = samples()[sample].encode();
        let at = at % changed.len();
        changed[at] = value;
        if let Ok((record, length)) = Record::decode(&changed, 100) {
            prop_assert_eq!(record.payload().len() as u32, record.payload_pages());
            prop_assert_eq!(record.encode(), &changed[..length]);
        }
    }
}
