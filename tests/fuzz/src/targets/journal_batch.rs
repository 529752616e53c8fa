//! The header page of a journal batch, and a record alone. What decodes encodes to the bytes that it came from.
//!
//! ```text
//! | mode 1 | page from its start, or a record |      mode: 0 = record, 1 = page as it is, 2 = page made right
//! ```

use crate::reach;
use ashlar_engine::fuzz;
use ashlar_types::{BLOCK_BYTES, Crc32, DiskId};

pub(crate) const SLOTS: u32 = 256;
pub(crate) const DISK: DiskId = DiskId::from_u128(2);
const RECORDS_AT: usize = 64;

pub(crate) fn run(input: &[u8]) {
    let [mode, bytes @ ..] = input else { return };
    if mode % 3 == 0 {
        if let Some(encoded) = fuzz::record(bytes, SLOTS) {
            reach::note("record", &encoded[0]);
            assert_eq!(encoded, bytes[..encoded.len()], "a record survives");
        }
        return;
    }
    let mut page = vec![0; BLOCK_BYTES as usize];
    let given = bytes.len().min(page.len());
    page[..given].copy_from_slice(&bytes[..given]);
    if mode % 3 == 2 {
        seal_page(&mut page, DISK);
    }
    if let Some(records) = fuzz::batch_records(&page, DISK, SLOTS) {
        reach::note("page", &"sealed");
        assert_eq!(records, page[RECORDS_AT..][..records.len()], "the records of a page survive");
    }
}

/// Magic, version, disk and checksum as they must be.
pub(crate) fn seal_page(page: &mut [u8], disk: DiskId) {
    page[..8].copy_from_slice(b"ASHLBTCH");
    page[8..10].copy_from_slice(&fuzz::BATCH_VERSION.to_le_bytes());
    page[16..32].copy_from_slice(&disk.as_u128().to_le_bytes());
    let crc = Crc32::of_parts(&[&page[..60], &page[RECORDS_AT..]]);
    page[60..64].copy_from_slice(&crc.0.to_le_bytes());
}
