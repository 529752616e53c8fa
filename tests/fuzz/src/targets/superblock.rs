//! Both copies of a superblock, and the size of what they stand on. What decodes lies within the disk and encodes to
//! the bytes of a copy.
//!
//! ```text
//! | mode 1 | disk bytes 8 | first 512 of copy 0 | of copy 1 |
//! mode: 1, 2 = magic and checksum of copy 0, 1 are made right; 4 = the second copy is cut off; 8 = format 1
//! ```

use crate::reach;
use ashlar_engine::{SUPERBLOCK_BYTES, Superblock};
use ashlar_types::{ByteCount, ClusterId, Crc32, SLOT_BYTES};

const GIVEN_BYTES: usize = 512;
/// The cluster that a disk must belong to; zero, as that is what is found soonest.
const CLUSTER: ClusterId = ClusterId::from_u128(0);

pub(crate) fn run(input: &[u8]) {
    let Some((head, given)) = input.split_first_chunk::<9>() else { return };
    let mode = head[0];
    let disk_bytes = ByteCount(u64::from_le_bytes(head[1..].try_into().expect("8 bytes")));
    let mut start = vec![0; 2 * SUPERBLOCK_BYTES];
    for (copy, bytes) in given.chunks(GIVEN_BYTES).take(2).enumerate() {
        let page = &mut start[copy * SUPERBLOCK_BYTES..][..SUPERBLOCK_BYTES];
        page[..bytes.len()].copy_from_slice(bytes);
        if mode & 8 != 0 {
            page[8..12].copy_from_slice(&1u32.to_le_bytes());
        }
        if mode >> copy & 1 != 0 {
            page[..8].copy_from_slice(b"ASHLDISK");
            let crc = Crc32::of(&page[..SUPERBLOCK_BYTES - 4]);
            page[SUPERBLOCK_BYTES - 4..].copy_from_slice(&crc.0.to_le_bytes());
        }
    }
    if mode & 4 != 0 {
        start.truncate(SUPERBLOCK_BYTES + usize::from(mode));
    }
    let superblock = match Superblock::decode(&start, disk_bytes, CLUSTER) {
        Ok(superblock) => superblock,
        Err(error) => return reach::note("refused", &error),
    };
    reach::note("decoded", &superblock);
    let layout = superblock.layout;
    assert!(layout.total <= disk_bytes && superblock.cluster == CLUSTER);
    assert!(layout.journal_offset.0 + layout.journal.0 <= layout.data_offset.0);
    assert!(layout.data_offset.0 + u64::from(layout.slot_count) * SLOT_BYTES <= layout.total.0);
    let encoded = superblock.encode();
    let is_same = |copy: &[u8]| copy[..SUPERBLOCK_BYTES] == encoded;
    assert!(start.chunks(SUPERBLOCK_BYTES).filter(|copy| copy.len() == SUPERBLOCK_BYTES).any(is_same));
}
