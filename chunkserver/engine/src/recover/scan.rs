//! Scan: finds the journal's history in the pages of the ring, and tells a crash from corruption.
//!
//! At most one batch is being written at a time, and every later batch has a higher sequence than any that was ever
//! seen in the ring. So a batch in the ring proves that all before it were written whole. The truth table for the
//! next batch of the history, s:
//!
//! | header s | payload | a header > s in the ring | meaning | what follows |
//! | --- | --- | --- | --- | --- |
//! | good | good | - | history | s + 1 |
//! | good | bad block | yes | the block rotted | the block is lost; s + 1 |
//! | good | bad block | no | the last batch, torn | end; was never acknowledged |
//! | bad | - | yes | the header rotted | everything is in doubt; the next header goes on |
//! | bad | - | no | torn, or never written | end |
//! | cannot be read | - | no | nobody knows: a torn page reads as something | everything is in doubt; end |
//! | good | cannot be read | no | nobody knows | everything is in doubt; end |

use crate::batch::Header;
use crate::index::Position;
use crate::place::Sequence;
use crate::record::Record;
use crate::ring::{Ring, next_start};
use crate::store::Payload;
use ashlar_types::{BLOCK_BYTES, Crc32, DiskId, Mutant};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

pub(crate) struct Scan {
    from: Position,
    disk: DiskId,
    slot_count: u32,
    found: BTreeMap<Sequence, Found>,
    /// The batch whose further pages come next.
    open: Option<Open>,
    newest: Sequence,
    next_page: u64,
    /// Offsets of pages that cannot be read.
    unreadable: BTreeSet<u64>,
}

/// A batch of which not every page has come.
enum Open {
    Header { offset: u64, pages: Vec<Bytes> },
    Payload(Found),
}

struct Found {
    offset: u64,
    header_pages: Vec<Bytes>,
    header: Header,
    checksum: Crc32,
    payload_pages: u32,
    pages: Vec<Option<Bytes>>,
}

/// What the journal says.
pub(crate) struct History {
    pub(crate) batches: Vec<PastBatch>,
    /// Every batch up to here was durable with the data beside it.
    pub(crate) durable: Sequence,
    /// A header below a good one is bad, or the end cannot be read: what follows may have been acknowledged.
    pub(crate) is_broken: bool,
    /// Where the journal goes on.
    pub(crate) head: Position,
    /// The last batch of the history, if nothing in the ring proves that it is durable: a write that failed, or that
    /// a dead process had under way, may be read from a cache and never reach the medium.
    pub(crate) unproven: Option<UnprovenBatch>,
}

pub(crate) struct UnprovenBatch {
    /// In the ring.
    pub(crate) offset: u64,
    pub(crate) pages: Vec<Bytes>,
}

pub(crate) struct PastBatch {
    pub(crate) sequence: Sequence,
    /// In the ring.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) checksum: Crc32,
    pub(crate) records: Vec<(Record, Vec<Payload>)>,
}

impl History {
    /// The ring as it was when the last batch had been written, if the journal has everything and no number is left
    /// out.
    pub(crate) fn resume(&self, from: Position, ring_bytes: u64) -> Option<Ring> {
        let mut payload = self.batches.iter().flat_map(|batch| &batch.records).flat_map(|(_, payload)| payload);
        let ring = Ring::resume(ring_bytes, from, &self.batches)?;
        (payload.all(Option::is_some) && ring.head() == self.head).then_some(ring)
    }
}

impl Scan {
    pub(crate) fn new(from: Position, disk: DiskId, slot_count: u32) -> Scan {
        let newest = Sequence(from.next_sequence.0 - 1);
        let (found, unreadable) = (BTreeMap::new(), BTreeSet::new());
        Scan { from, disk, slot_count, found, open: None, newest, next_page: from.next_offset, unreadable }
    }

    /// The pages of the ring, in the order of the ring, beginning where replay begins. `None` is a page that cannot
    /// be read.
    pub(crate) fn feed(&mut self, offset: u64, page: Option<Bytes>) {
        if offset != self.next_page {
            self.close(); // A new lap: batches do not cross the end.
        }
        self.next_page = offset + BLOCK_BYTES;
        if page.is_none() {
            self.unreadable.insert(offset);
        }
        match (self.open.take(), page) {
            (Some(Open::Payload(mut found)), page) => {
                found.pages.push(page);
                self.go_on(Open::Payload(found));
            }
            (Some(Open::Header { offset, mut pages }), Some(page)) => {
                pages.push(page);
                self.go_on(Open::Header { offset, pages });
            }
            (Some(Open::Header { offset, .. }), None) => {
                // As if its first page could not be read.
                self.unreadable.insert(offset);
            }
            (None, Some(page)) => self.look(offset, page),
            (None, None) => {}
        }
    }

    /// A page that is no part of a batch so far.
    fn look(&mut self, offset: u64, page: Bytes) {
        let Some(sequence) = Header::recognize(&page, self.disk) else { return };
        if sequence < self.from.next_sequence {
            return; // Of the past that the index covers.
        }
        self.newest = self.newest.max(sequence);
        self.go_on(Open::Header { offset, pages: vec![page] });
    }

    /// Waits for the next page, or takes the batch if all of it has come.
    fn go_on(&mut self, open: Open) {
        match open {
            Open::Header { offset, pages: header_pages } if header_pages.len() == Header::pages(&header_pages[0]) => {
                if let Ok((header, checksum)) = Header::decode(&header_pages.concat(), self.slot_count) {
                    let (payload_pages, pages) = (header.payload_pages(), Vec::new());
                    let found = Found { offset, header_pages, header, checksum, payload_pages, pages };
                    self.go_on(Open::Payload(found));
                }
            }
            Open::Payload(found) if found.pages.len() as u32 == found.payload_pages => self.keep(found),
            open => self.open = Some(open),
        }
    }

    /// Nothing more comes of the batch whose pages were coming.
    fn close(&mut self) {
        if let Some(Open::Payload(mut found)) = self.open.take() {
            found.pages.resize(found.payload_pages as usize, None);
            self.keep(found);
        }
    }

    fn keep(&mut self, found: Found) {
        self.found.entry(found.header.sequence).or_insert(found);
    }

    pub(crate) fn finish(mut self, ring_bytes: u64) -> History {
        self.close();
        let durable = self.found.values().map(|found| found.header.durable).max().unwrap_or_default();
        let durable = durable.max(Sequence(self.from.next_sequence.0 - 1));
        let mut expected = self.from;
        let mut batches = Vec::new();
        let mut is_broken = false;
        let mut unproven = None;
        loop {
            let follows =
                |found: &Found| found.offset == expected.next_offset && found.header.previous == expected.chain;
            let found = match self.found.remove(&expected.next_sequence) {
                Some(found) if follows(&found) => found,
                _ if self.newest > expected.next_sequence && !Mutant::CorruptionAsTornTail.is_on() => {
                    match self.found.split_off(&expected.next_sequence.next()) {
                        // Headers that nobody can decode are all that follows.
                        later if later.is_empty() => {
                            is_broken = true;
                            break;
                        }
                        mut later => {
                            is_broken = true;
                            let (_, found) = later.pop_first().expect("not empty");
                            self.found = later;
                            found
                        }
                    }
                }
                _ => {
                    is_broken |= self.is_unreadable(expected.next_offset..expected.next_offset + BLOCK_BYTES);
                    break;
                }
            };
            let pages = found.offset..found.offset + found.bytes();
            let newest = (found.header.sequence == self.newest).then(|| found.unproven()).flatten();
            let Some(batch) = found.read(self.newest) else {
                is_broken |= self.is_unreadable(pages);
                break;
            };
            let (next_sequence, next_offset) = (batch.sequence.next(), next_start(pages.end, ring_bytes));
            expected = Position { next_sequence, next_offset, chain: batch.checksum };
            batches.push(batch);
            unproven = newest;
        }
        // A number that was ever used, by a batch that is dropped now too, must not come again.
        let head = Position { next_sequence: self.newest.next().max(expected.next_sequence), ..expected };
        History { batches, durable, is_broken, head, unproven }
    }

    fn is_unreadable(&self, pages: Range<u64>) -> bool {
        self.unreadable.range(pages).next().is_some()
    }
}

impl Found {
    fn bytes(&self) -> u64 {
        (self.header_pages.len() as u64 + u64::from(self.payload_pages)) * BLOCK_BYTES
    }

    /// As it stands in the ring, if all of it was read.
    fn unproven(&self) -> Option<UnprovenBatch> {
        let pages = self.pages.iter().cloned().collect::<Option<Vec<Bytes>>>()?;
        Some(UnprovenBatch { offset: self.offset, pages: [self.header_pages.clone(), pages].concat() })
    }

    /// The records with their payload; `None` if this is the newest batch and was torn.
    fn read(self, newest: Sequence) -> Option<PastBatch> {
        let (sequence, offset, bytes, checksum) = (self.header.sequence, self.offset, self.bytes(), self.checksum);
        let mut pages = self.pages.into_iter();
        let mut records = Vec::with_capacity(self.header.records.len());
        for record in self.header.records {
            let mut payload = Vec::new();
            for (_, _, _, crc) in record.payload() {
                let page = pages.next().expect("a page for each payload block");
                let is_newest = newest == sequence;
                let unchecked = is_newest && Mutant::TornBatchAccepted.is_on();
                let good = page.filter(|page| Crc32::of(page) == crc || unchecked);
                if good.is_none() && (is_newest || Mutant::CorruptionAsTornTail.is_on()) {
                    return None;
                }
                payload.push(good);
            }
            records.push((record, payload));
        }
        Some(PastBatch { sequence, offset, bytes, checksum, records })
    }
}
