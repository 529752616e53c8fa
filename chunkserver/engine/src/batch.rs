//! Batch: the unit of journalling. One header page with the records, then the payload pages, written as one.
//!
//! ```text
//!  offset  bytes  header page
//!       0      8  magic "ASHLBTCH"
//!       8      2  version
//!      10      2  number of records
//!      12      2  payload pages
//!      14      2  zero
//!      16     16  disk id: whoever fills pages with data cannot forge a header
//!      32      8  sequence
//!      40      8  durable: up to here every batch, with the data beside it, was durable when this one was written
//!      48      4  checksum of the batch before
//!      52      4  bytes of the records
//!      56      4  zero
//!      60      4  CRC-32 of the page without this field: the batch's checksum
//!      64      -  records, one after the other; zeros up to 4096
//! ```
//! Invariants: durable < sequence; payload pages = sum of the records' payload pages <= `BATCH_PAYLOAD_PAGES_MAX`.
//! A payload page has no checksum of its own: the record carries the CRC of the block.

use crate::codec::{Malformed, Sink, Source};
use crate::config::BATCH_PAYLOAD_PAGES_MAX;
use crate::place::Sequence;
use crate::record::Record;
use ashlar_types::{BLOCK_BYTES, Crc32, DiskId, Slip};

const PAGE: usize = BLOCK_BYTES as usize;
const MAGIC: &[u8; 8] = b"ASHLBTCH";
pub(crate) const VERSION: u16 = 2;
const CRC_AT: usize = 60;
const RECORDS_AT: usize = 64;
/// Bytes that the records of one batch may have.
pub(crate) const RECORDS_BYTES_MAX: usize = PAGE - RECORDS_AT;

const _: () = assert!(CRC_AT + 4 == RECORDS_AT);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) sequence: Sequence,
    pub(crate) durable: Sequence,
    pub(crate) previous: Crc32,
    pub(crate) records: Vec<Record>,
}

/// What the header says beside the records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seal {
    pub(crate) sequence: Sequence,
    pub(crate) durable: Sequence,
    pub(crate) previous: Crc32,
    pub(crate) records: usize,
    pub(crate) payload_pages: u32,
}

impl Seal {
    /// The header page, and the batch's checksum. `encoded` are the encoded records one after the other.
    pub(crate) fn encode(&self, encoded: &[u8], disk: DiskId) -> (Vec<u8>, Crc32) {
        assert!(self.durable < self.sequence);
        assert!(encoded.len() <= RECORDS_BYTES_MAX && self.records > 0);
        assert!(self.payload_pages <= BATCH_PAYLOAD_PAGES_MAX);
        let mut page = Sink::new();
        page.put(MAGIC).u16(VERSION).u16(self.records as u16).u16(self.payload_pages as u16).zeros(2);
        page.u128(disk.as_u128()).u64(self.sequence.0).u64(self.durable.0).u32(self.previous.0);
        page.u32(encoded.len() as u32).zeros(8).put(encoded);
        page.zeros(PAGE - RECORDS_AT - encoded.len());
        let mut page = page.into_bytes();
        let crc = checksum(&page);
        page[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.0.to_le_bytes());
        (page, crc)
    }
}

impl Header {
    pub(crate) fn payload_pages(&self) -> u32 {
        self.records.iter().map(Record::payload_pages).sum()
    }

    /// Whether a page is a header of this disk: the sequence, if so. Cheap for every other page.
    pub(crate) fn recognize(page: &[u8], disk: DiskId) -> Option<Sequence> {
        if page.len() != PAGE || &page[..8] != MAGIC || page[16..32] != disk.as_u128().to_le_bytes() {
            return None;
        }
        let stored = u32::from_le_bytes(page[CRC_AT..CRC_AT + 4].try_into().expect("4 bytes"));
        let sequence = Sequence(u64::from_le_bytes(page[32..40].try_into().expect("8 bytes")));
        let believed = sequence <= Sequence::BELIEVED_MAX || Slip::SequenceBelieved.is_on();
        (checksum(page).0 == stored && believed).then_some(sequence)
    }

    /// Decodes a page that `recognize` accepted, and its checksum.
    pub(crate) fn decode(page: &[u8], slot_count: u32) -> Result<(Header, Crc32), Malformed> {
        let mut from = Source::new(page);
        from.take::<8>()?;
        if from.u16()? != VERSION {
            return Err(Malformed);
        }
        let (count, pages) = (from.u16()?, from.u16()?);
        from.zeros::<2>()?;
        from.u128()?;
        let (sequence, durable) = (Sequence(from.u64()?), Sequence(from.u64()?));
        let previous = Crc32(from.u32()?);
        let length = from.u32()? as usize;
        from.zeros::<4>()?;
        let crc = Crc32(from.u32()?);
        let mut encoded = page.get(RECORDS_AT..).and_then(|rest| rest.get(..length)).ok_or(Malformed)?;
        let mut records = Vec::with_capacity(usize::from(count).min(128));
        for _ in 0..count {
            let (record, length) = Record::decode(encoded, slot_count)?;
            encoded = &encoded[length..];
            records.push(record);
        }
        let header = Header { sequence, durable, previous, records };
        let sensible = encoded.is_empty()
            && durable < sequence
            && header.payload_pages() == u32::from(pages)
            && u32::from(pages) <= BATCH_PAYLOAD_PAGES_MAX;
        if sensible { Ok((header, crc)) } else { Err(Malformed) }
    }
}

fn checksum(page: &[u8]) -> Crc32 {
    Crc32::of_parts(&[&page[..CRC_AT], &page[RECORDS_AT..]])
}

#[cfg(test)]
mod tests;
