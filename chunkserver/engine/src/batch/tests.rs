//! Tests of `batch`.

use super::*;
use crate::record::{Body, Record};
use ashlar_types::{Lsn, VolumeId};
use proptest::prelude::*;

fn header(records: usize) -> (Vec<u8>, Crc32) {
    let record = Record { volume: VolumeId::from_u128(5), commit: Lsn::ZERO, body: Body::FinishSync };
    let encoded = record.encode().repeat(records);
    let (sequence, durable) = (Sequence(9), Sequence(7));
    let seal = Seal { sequence, durable, previous: Crc32(3), records, payload_pages: 0 };
    seal.encode(&encoded, DiskId::from_u128(6))
}

fn page() -> (Vec<u8>, Crc32) {
    header(2)
}

fn sealed(mut pages: Vec<u8>) -> Vec<u8> {
    seal(&mut pages);
    pages
}

#[test]
fn a_header_survives_its_bytes() {
    for (records, pages) in [(2, 1), (200, 2)] {
        let (bytes, crc) = header(records);
        assert_eq!(Header::recognize(&bytes[..PAGE], DiskId::from_u128(6)), Some(Sequence(9)));
        assert_eq!((Header::pages(&bytes[..PAGE]), bytes.len()), (pages, pages * PAGE));
        let (header, found) = Header::decode(&bytes, 10).unwrap();
        assert_eq!(
            (found, header.records.len(), header.durable, header.previous),
            (crc, records, Sequence(7), Crc32(3))
        );
    }
}

#[test]
fn a_header_without_one_of_its_pages_or_with_a_flipped_bit_in_one_is_none() {
    let (bytes, _) = header(200);
    let first = Header::recognize(&bytes[..PAGE], DiskId::from_u128(6));
    assert!(first.is_some() && Header::decode(&bytes[..PAGE], 10).is_err());
    for at in (PAGE..2 * PAGE).step_by(13) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 4;
        assert!(Header::decode(&bytes, 10).is_err(), "byte {at}");
    }
}

#[test]
fn a_header_of_the_version_before_is_read_if_it_is_one_page() {
    let older = |records| {
        let (mut bytes, _) = header(records);
        bytes[8..10].copy_from_slice(&VERSION_OF_ONE_PAGE.to_le_bytes());
        sealed(bytes)
    };
    assert_eq!(Header::decode(&older(2), 10).map(|(header, _)| header.records.len()), Ok(2));
    assert!(Header::decode(&older(200), 10).is_err());
}

#[test]
fn a_header_of_another_disk_or_with_a_flipped_bit_is_none() {
    let (page, _) = page();
    assert_eq!(Header::recognize(&page, DiskId::from_u128(7)), None);
    for at in (0..PAGE).step_by(13) {
        let mut page = page.clone();
        page[at] ^= 4;
        assert_eq!(Header::recognize(&page, DiskId::from_u128(6)), None, "byte {at}");
    }
}

#[test]
fn a_sequence_that_leaves_no_room_to_count_on_is_not_believed() {
    let (mut page, _) = page();
    for (sequence, believed) in [(u64::MAX, false), ((1 << 62) + 1, false), (1 << 62, true)] {
        page[32..40].copy_from_slice(&sequence.to_le_bytes());
        let found = Header::recognize(&sealed(page.clone()), DiskId::from_u128(6));
        assert_eq!(found.is_some(), believed, "{sequence}");
    }
}

proptest! {
    #[test]
    fn decoding_never_panics(noise in proptest::collection::vec(any::<u8>(), PAGE), at in 8usize..200, value: u8) {
        let _ = Header::recognize(&noise, DiskId::from_u128(6));
        let _ = Header::decode(&noise, 10);
        let _ = Header::decode(&noise[..at], 10);
        let (mut page, _) = page();
        page[at] = value;
        let page = sealed(page);
        if Header::recognize(&page, DiskId::from_u128(6)).is_some() {
            let _ = Header::decode(&page, 10);
        }
    }
}
