//! Tests of `superblock`.

use super::*;
use proptest::prelude::*;

fn sample() -> Superblock {
    let layout = DiskLayout::new(ByteCount(64 << 20), ByteCount(16 << 20)).unwrap();
    Superblock { cluster: ClusterId::from_u128(7), disk: DiskId::from_u128(9), layout }
}

fn disk(first: [u8; 4096], second: [u8; 4096]) -> Vec<u8> {
    [first, second].concat()
}

fn decode(bytes: &[u8]) -> Result<Superblock, SuperblockError> {
    Superblock::decode(bytes, ByteCount(64 << 20), ClusterId::from_u128(7))
}

#[test]
fn a_superblock_survives_its_bytes_and_the_loss_of_one_copy() {
    let good = sample().encode();
    assert_eq!(decode(&disk(good, good)), Ok(sample()));
    assert_eq!(decode(&disk([0; 4096], good)), Ok(sample()));
    assert_eq!(decode(&disk(good, [0xFF; 4096])), Ok(sample()));
}

#[test]
fn each_kind_of_wrong_disk_has_its_error() {
    let good = sample().encode();
    let mut torn = good;
    torn[60] ^= 1;
    let mut newer = good;
    newer[8] = 2;
    let crc = Crc32::of(&newer[..CRC_AT]);
    newer[CRC_AT..].copy_from_slice(&crc.0.to_le_bytes());
    assert_eq!(decode(&disk([0; 4096], [0; 4096])), Err(SuperblockError::NotADisk));
    assert_eq!(decode(&disk([3; 4096], [0; 4096])), Err(SuperblockError::ForeignMagic));
    assert_eq!(decode(&disk(torn, [0; 4096])), Err(SuperblockError::BadChecksum));
    assert_eq!(decode(&disk(newer, newer)), Err(SuperblockError::NewerFormat { found: 2 }));
    let other = Superblock::decode(&disk(good, good), ByteCount(64 << 20), ClusterId::from_u128(8));
    assert!(matches!(other, Err(SuperblockError::OtherCluster { .. })));
    let short = Superblock::decode(&disk(good, good), ByteCount(63 << 20), ClusterId::from_u128(7));
    assert!(matches!(short, Err(SuperblockError::Truncated { .. })));
    assert!(matches!(decode(&[]), Err(SuperblockError::Truncated { .. })));
}

#[test]
fn reserved_bytes_are_refused_under_a_right_checksum() {
    for at in [12, 15, 84, CRC_AT - 1] {
        let mut page = sample().encode();
        page[at] = 1;
        let crc = Crc32::of(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.0.to_le_bytes());
        assert!(matches!(decode(&disk(page, page)), Err(SuperblockError::Nonsense(_))), "byte {at}");
    }
}

#[test]
fn layouts_that_cannot_work_are_refused() {
    let layout = |total: u64, journal: u64| DiskLayout::new(ByteCount(total), ByteCount(journal));
    assert!(matches!(layout(1 << 30, 1 << 20), Err(LayoutError::JournalSize(_))));
    assert!(matches!(layout(1 << 30, (16 << 20) + 4096), Err(LayoutError::JournalUnaligned(_))));
    assert!(matches!(layout(16 << 20, 16 << 20), Err(LayoutError::TooSmall(_))));
    assert!(matches!(layout(0, 16 << 20), Err(LayoutError::TooSmall(_))));
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..9000), at in 0usize..4092, value: u8) {
        let _ = decode(&bytes);
        let mut page = sample().encode();
        page[at] = value;
        let crc = Crc32::of(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.0.to_le_bytes());
        let _ = decode(&page);
    }
}
