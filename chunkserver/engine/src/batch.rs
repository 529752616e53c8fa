//! Batch: the unit of journalling. Header pages with the records, then the payload pages, written as one.
//!
//! ```text
//!  offset  bytes  header
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
//!      56      4  CRC-32 of the header pages after the first; 0 if there are none
//!      60      4  CRC-32 of the first page without this field: the batch's checksum
//!      64      -  records, one after the other; zeros to the end of the last header page
//! ```
//! As many header pages as the records need. Invariants: durable < sequence; payload pages = sum of the records'
//! payload pages <= `BATCH_PAYLOAD_PAGES_MAX`; all pages <= `BATCH_PAGES_MAX`.
//! A payload page has no checksum of its own: the record carries the CRC of the block.

use crate::codec::{Malformed, Sink, Source};
use crate::config::{BATCH_HEADER_PAGES_MAX, BATCH_PAGES_MAX, BATCH_PAYLOAD_PAGES_MAX};
use crate::place::Sequence;
use crate::record::Record;
use ashlar_types::{BLOCK_BYTES, Crc32, DiskId, Slip};

const PAGE: usize = BLOCK_BYTES as usize;
const MAGIC: &[u8; 8] = b"ASHLBTCH";
pub(crate) const VERSION: u16 = 3;
/// Still read: there is one header page.
const VERSION_OF_ONE_PAGE: u16 = 2;
const FURTHER_CRC_AT: usize = 56;
const CRC_AT: usize = 60;
const RECORDS_AT: usize = 64;
/// Bytes of records for which one header page is enough.
pub(crate) const FIRST_PAGE_RECORDS_BYTES: usize = PAGE - RECORDS_AT;

const _: () = assert!(FURTHER_CRC_AT + 4 == CRC_AT && CRC_AT + 4 == RECORDS_AT);

/// Header pages that records of so many bytes take.
fn header_pages(records_bytes: usize) -> usize {
    (RECORDS_AT + records_bytes).div_ceil(PAGE)
}

/// Whether records of so many bytes and so much payload are one batch.
pub(crate) fn fits(records_bytes: usize, payload_pages: u32) -> bool {
    let header_pages = header_pages(records_bytes) as u32;
    header_pages <= BATCH_HEADER_PAGES_MAX
        && payload_pages <= BATCH_PAYLOAD_PAGES_MAX
        && header_pages + payload_pages <= BATCH_PAGES_MAX
}

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
    /// The header pages, and the batch's checksum. `encoded` are the encoded records one after the other.
    pub(crate) fn encode(&self, encoded: &[u8], disk: DiskId) -> (Vec<u8>, Crc32) {
        assert!(self.durable < self.sequence);
        assert!(fits(encoded.len(), self.payload_pages) && self.records > 0);
        let mut pages = Sink::new();
        pages.put(MAGIC).u16(VERSION).u16(self.records as u16).u16(self.payload_pages as u16).zeros(2);
        pages.u128(disk.as_u128()).u64(self.sequence.0).u64(self.durable.0).u32(self.previous.0);
        pages.u32(encoded.len() as u32).zeros(8).put(encoded);
        pages.zeros(header_pages(encoded.len()) * PAGE - RECORDS_AT - encoded.len());
        let mut pages = pages.into_bytes();
        let crc = seal(&mut pages);
        (pages, crc)
    }
}

/// Puts the checksums into header pages; returns the batch's.
fn seal(pages: &mut [u8]) -> Crc32 {
    let further = further_checksum(pages);
    pages[FURTHER_CRC_AT..CRC_AT].copy_from_slice(&further.0.to_le_bytes());
    let crc = checksum(&pages[..PAGE]);
    pages[CRC_AT..RECORDS_AT].copy_from_slice(&crc.0.to_le_bytes());
    crc
}

impl Header {
    pub(crate) fn payload_pages(&self) -> u32 {
        self.records.iter().map(Record::payload_pages).sum()
    }

    /// Whether a page is the first of a header of this disk: the sequence, if so. Cheap for every other page.
    pub(crate) fn recognize(page: &[u8], disk: DiskId) -> Option<Sequence> {
        if page.len() != PAGE || &page[..8] != MAGIC || page[16..32] != disk.as_u128().to_le_bytes() {
            return None;
        }
        let stored = u32::from_le_bytes(page[CRC_AT..RECORDS_AT].try_into().expect("4 bytes"));
        let sequence = Sequence(u64::from_le_bytes(page[32..40].try_into().expect("8 bytes")));
        let believed = sequence <= Sequence::BELIEVED_MAX || Slip::SequenceBelieved.is_on();
        (checksum(page).0 == stored && believed).then_some(sequence)
    }

    /// How many pages the header has of which `recognize` accepted the first. One that claims more than there may be
    /// is not waited for.
    pub(crate) fn pages(first: &[u8]) -> usize {
        let records_bytes = u32::from_le_bytes(first[52..56].try_into().expect("4 bytes"));
        match header_pages(records_bytes as usize) {
            pages if pages <= BATCH_HEADER_PAGES_MAX as usize => pages,
            _ => 1,
        }
    }

    /// Decodes the pages of a header whose first one `recognize` accepted, and the batch's checksum.
    pub(crate) fn decode(pages: &[u8], slot_count: u32) -> Result<(Header, Crc32), Malformed> {
        let mut from = Source::new(pages);
        from.take::<8>()?;
        let version = from.u16()?;
        let (count, payload_pages) = (from.u16()?, from.u16()?);
        from.zeros::<2>()?;
        from.u128()?;
        let (sequence, durable) = (Sequence(from.u64()?), Sequence(from.u64()?));
        let previous = Crc32(from.u32()?);
        let length = from.u32()? as usize;
        let further = Crc32(from.u32()?);
        let crc = Crc32(from.u32()?);
        let is_known = match version {
            VERSION_OF_ONE_PAGE => pages.len() == PAGE,
            version => version == VERSION,
        };
        if !is_known || header_pages(length) * PAGE != pages.len() || further_checksum(pages) != further {
            return Err(Malformed);
        }
        let mut encoded = pages.get(RECORDS_AT..).and_then(|rest| rest.get(..length)).ok_or(Malformed)?;
        let mut records = Vec::with_capacity(usize::from(count).min(128));
        for _ in 0..count {
            let (record, length) = Record::decode(encoded, slot_count)?;
            encoded = &encoded[length..];
            records.push(record);
        }
        let header = Header { sequence, durable, previous, records };
        let sensible = encoded.is_empty()
            && durable < sequence
            && header.payload_pages() == u32::from(payload_pages)
            && fits(length, payload_pages.into());
        if sensible { Ok((header, crc)) } else { Err(Malformed) }
    }
}

/// Of the first page.
fn checksum(page: &[u8]) -> Crc32 {
    Crc32::of_parts(&[&page[..CRC_AT], &page[RECORDS_AT..]])
}

/// Of the pages after the first.
fn further_checksum(pages: &[u8]) -> Crc32 {
    match pages.get(PAGE..) {
        Some(further) if !further.is_empty() => Crc32::of(further),
        _ => Crc32(0),
    }
}

#[cfg(test)]
mod tests;
