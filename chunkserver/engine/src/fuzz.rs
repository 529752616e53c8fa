//! Doors for the fuzz targets: the decoders of what stands on a disk, each with its way back. `None`: not decoded;
//! otherwise the bytes that what was decoded encodes to, which must be the ones given. Only with the feature `fuzz`.

use crate::batch::Header;
use crate::index;
use crate::record::Record;
use ashlar_types::DiskId;

/// Formats that the decoders take; inputs are given them, as nothing else gets past the first look.
pub const BATCH_VERSION: u16 = crate::batch::VERSION;
pub const INDEX_VERSION: u8 = index::VERSION;

/// Header pages of a batch: its records, one after the other. Panics where a record has other bytes than its own.
pub fn batch_records(pages: &[u8], disk: DiskId, slot_count: u32) -> Option<Vec<u8>> {
    let first = pages.get(..ashlar_types::BLOCK_BYTES as usize)?;
    Header::recognize(first, disk)?;
    let pages = pages.get(..Header::pages(first) * first.len())?;
    let (header, _) = Header::decode(pages, slot_count).ok()?;
    Some(header.records.iter().flat_map(Record::encode).collect())
}

/// One record at the start of the bytes.
pub fn record(bytes: &[u8], slot_count: u32) -> Option<Vec<u8>> {
    let (record, length) = Record::decode(bytes, slot_count).ok()?;
    assert!(length <= bytes.len());
    assert_eq!(record.payload().len(), record.payload_pages() as usize, "payload is counted as it is listed");
    assert!(record.directs().iter().all(|(_, place)| place.0 < slot_count));
    Some(record.encode())
}

/// One row of the index; `None` for a key that is not the index's.
pub fn index_row(key: &[u8], value: &[u8], slot_count: u32) -> Option<Vec<u8>> {
    index::reencode(key, value, slot_count)
}
