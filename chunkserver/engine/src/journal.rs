//! Journal: the batch that collects, the batches on their way, and what is to be answered when they are durable.
//!
//! ```text
//!            admit                seal (no batch is being written)     it, the data beside it, and all before: durable
//!  record ─────────► open batch ──────────────────────────────► submitted ──────────────────────────────► applied
//! ```
//! Group commit: at most one batch is being written; what comes meanwhile collects in the next. Hence a batch in the
//! ring proves that every batch before it was written whole. Batches are taken off in order: nothing is answered
//! before what came earlier is durable.

use crate::OpToken;
use crate::batch;
use crate::direct::Direct;
use crate::place::Sequence;
use crate::record::Record;
use crate::replica::SlotAddress;
use crate::session::ReplyTo;
use crate::store::Payload;
use std::collections::VecDeque;

/// One record on its way, with its payload blocks.
pub(crate) struct Entry {
    pub(crate) record: Record,
    pub(crate) payload: Vec<Payload>,
    /// The slots whose next place this record decided.
    pub(crate) touched: Vec<SlotAddress>,
    pub(crate) answer: Answer,
}

/// Who waits for a record.
pub(crate) enum Answer {
    Nobody,
    Done(ReplyTo),
    Opened(ReplyTo),
    Deleted(OpToken),
    Cloned(OpToken),
    PointsKept(OpToken),
    Merged,
    /// A slot of a clone got what its base shows, or the clone became flat.
    Flattened,
}

pub(crate) struct Batch {
    pub(crate) sequence: Sequence,
    pub(crate) entries: Vec<Entry>,
    pub(crate) encoded: Vec<u8>,
    pub(crate) payload_pages: u32,
    /// Duplicates: to be answered when everything up to here is durable.
    pub(crate) echoes: Vec<ReplyTo>,
    /// Slots that wait to be written beside the journal.
    held: Vec<Direct>,
    /// Writes beside the journal that have not ended.
    directs: u32,
    pub(crate) written: bool,
}

pub(crate) struct Journal {
    open: Batch,
    submitted: VecDeque<Batch>,
    /// Every batch up to here is applied and answered.
    durable: Sequence,
}

impl Batch {
    fn new(sequence: Sequence) -> Batch {
        let (entries, encoded, echoes, held) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Batch { sequence, entries, encoded, payload_pages: 0, echoes, held, directs: 0, written: false }
    }
}

impl Journal {
    /// `durable` is the last batch of the past.
    pub(crate) fn new(durable: Sequence) -> Journal {
        Journal { open: Batch::new(durable.next()), submitted: VecDeque::new(), durable }
    }

    pub(crate) fn durable(&self) -> Sequence {
        self.durable
    }

    /// Nothing is on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.open.entries.is_empty() && self.submitted.is_empty()
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.submitted.back().is_some_and(|batch| !batch.written)
    }

    pub(crate) fn fits(&self, record_bytes: usize, payload_pages: u32) -> bool {
        batch::fits(self.open.encoded.len() + record_bytes, self.open.payload_pages + payload_pages)
    }

    /// Adds a record to the open batch.
    pub(crate) fn add(&mut self, entry: Entry) {
        let encoded = entry.record.encode();
        let pages = entry.record.payload_pages();
        assert!(self.fits(encoded.len(), pages) && entry.payload.len() as u32 == pages);
        self.open.encoded.extend_from_slice(&encoded);
        self.open.payload_pages += pages;
        self.open.entries.push(entry);
    }

    /// Keeps slots of the open batch; returns how many there are.
    pub(crate) fn hold(&mut self, directs: Vec<Direct>) -> usize {
        self.open.held.extend(directs);
        self.open.held.len()
    }

    /// Those that are to be written now.
    pub(crate) fn take_held(&mut self) -> Vec<Direct> {
        std::mem::take(&mut self.open.held)
    }

    /// A write beside the open batch begins; returns the batch's number.
    pub(crate) fn direct_begun(&mut self) -> Sequence {
        self.open.directs += 1;
        self.open.sequence
    }

    /// Answers when everything that is on its way is durable; gives the address back if nothing is.
    pub(crate) fn echo(&mut self, to: ReplyTo) -> Option<ReplyTo> {
        let batch = match self.open.entries.is_empty() {
            false => &mut self.open,
            true => match self.submitted.back_mut() {
                Some(batch) => batch,
                None => return Some(to),
            },
        };
        batch.echoes.push(to);
        None
    }

    /// Whether the open batch may be written now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.open.entries.is_empty() && !self.is_writing()
    }

    /// The open batch is about to be written; a new one opens.
    pub(crate) fn submit(&mut self) -> &Batch {
        assert!(self.is_ready() && self.open.held.is_empty());
        let next = Batch::new(self.open.sequence.next());
        self.submitted.push_back(std::mem::replace(&mut self.open, next));
        self.submitted.back().expect("just pushed")
    }

    pub(crate) fn open(&self) -> &Batch {
        &self.open
    }

    pub(crate) fn written(&mut self, sequence: Sequence) {
        let batch = self.find(sequence);
        assert!(!batch.written);
        batch.written = true;
    }

    pub(crate) fn direct_done(&mut self, sequence: Sequence) {
        let batch = self.find(sequence);
        assert!(batch.directs > 0);
        batch.directs -= 1;
    }

    /// The next batch that is durable, and everything before it.
    pub(crate) fn take_durable(&mut self) -> Option<Batch> {
        self.submitted.front().filter(|batch| batch.written && batch.directs == 0)?;
        let batch = self.submitted.pop_front()?;
        assert_eq!(batch.sequence, self.durable.next());
        self.durable = batch.sequence;
        Some(batch)
    }

    /// The disk failed: everything on its way, to be refused.
    pub(crate) fn abandon(&mut self) -> Vec<Batch> {
        let open = std::mem::replace(&mut self.open, Batch::new(self.durable.next()));
        let mut batches: Vec<Batch> = self.submitted.drain(..).collect();
        batches.push(open);
        batches
    }

    fn find(&mut self, sequence: Sequence) -> &mut Batch {
        if sequence == self.open.sequence {
            return &mut self.open;
        }
        let first = self.submitted.front().expect("a batch is on its way").sequence;
        &mut self.submitted[(sequence.0 - first.0) as usize]
    }
}
