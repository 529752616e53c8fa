//! The header of a journal batch, of one or two pages, and a record alone. What decodes encodes to the bytes that it
//! came from.
//!
//! ```text
//! | mode 1 | pages from their start, or a record |      mode: 0 = record, 1 = pages as they are, 2 = pages made right
//! ```

use crate::reach;
use ashlar_engine::fuzz;
use ashlar_types::{BLOCK_BYTES, Crc32, DiskId};

pub(crate) const SLOTS: u32 = 256;
pub(crate) const DISK: DiskId = DiskId::from_u128(2);
const RECORDS_AT: usize = 64;
const PAGE: usize = BLOCK_BYTES as usize;

pub(crate) fn run(input: &[u8]) {
    let [mode, bytes @ ..] = input else { return };
    if mode % 3 == 0 {
        if let Some(encoded) = fuzz::record(bytes, SLOTS) {
            reach::note("record", &encoded[0]);
            assert_eq!(encoded, bytes[..encoded.len()], "a record survives");
        }
        return;
    }
    let given = bytes.len().min(2 * PAGE);
    let mut pages = vec![0; given.div_ceil(PAGE).max(1) * PAGE];
    pages[..given].copy_from_slice(&bytes[..given]);
    if mode % 3 == 2 {
        seal_pages(&mut pages, DISK);
    }
    if let Some(records) = fuzz::batch_records(&pages, DISK, SLOTS) {
        reach::note("page", &"sealed");
        assert_eq!(records, pages[RECORDS_AT..][..records.len()], "the records of a header survive");
    }
}

/// Magic, version, disk and checksums as they must be.
pub(crate) fn seal_pages(pages: &mut [u8], disk: DiskId) {
    pages[..8].copy_from_slice(b"ASHLBTCH");
    pages[8..10].copy_from_slice(&fuzz::BATCH_VERSION.to_le_bytes());
    pages[16..32].copy_from_slice(&disk.as_u128().to_le_bytes());
    let further = if pages.len() > PAGE { Crc32::of(&pages[PAGE..]) } else { Crc32(0) };
    pages[56..60].copy_from_slice(&further.0.to_le_bytes());
    let crc = Crc32::of_parts(&[&pages[..60], &pages[RECORDS_AT..PAGE]]);
    pages[60..RECORDS_AT].copy_from_slice(&crc.0.to_le_bytes());
}
