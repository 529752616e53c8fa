//! Recovery: replays the journal from the index's position.
//!
//! ```text
//!   Scanning (the ring, as far as the index says that it was written) ──► Verifying (data beside the journal)
//!       ──► replay ──► Securing (what is not proven to be durable is written again) ──► Committing ──► serving
//! ```
//! Where the journal is whole, what is committed is the index as it was found: the disk serves from what was
//! replayed, as if it had never stopped, and the next checkpoint brings it into place. Where something had to be
//! decided (a torn batch, data that never came, damage), everything is in place and in the index before the disk
//! serves: nobody must decide it again, with newer batches behind it. A crash at any moment begins it again from the
//! same position, with the same result: until a checkpoint commits, only blocks that the journal brings again are
//! written in place. Cost: one read of that part of the ring; RAM for what is live in it.

pub(crate) mod scan;
mod verify;

use crate::Action;
use crate::engine::{Engine, Op};
use crate::event::DiskError;
use crate::index::{Position, Start};
use crate::journal::Journal;
use crate::place::{Place, Sequence};
use crate::ring::{Ring, reach_step};
use ashlar_types::{BLOCK_BYTES, ByteCount, ByteOffset, Mutant, SLOT_BYTES};
use bytes::Bytes;
use scan::{History, Scan};
use std::collections::BTreeMap;
use verify::{Contents, Doubt};

pub(crate) struct Recovery {
    phase: Phase,
    from: Position,
    /// The index was empty: the disk was just formatted, or the index got lost.
    is_new: bool,
    is_damaged: bool,
    ring_bytes: u64,
    /// How much of it is read.
    scan_bytes: u64,
}

enum Phase {
    Starting,
    Scanning(Pages),
    Verifying {
        history: History,
        left: Vec<Place>,
        in_flight: u32,
        contents: Contents,
    },
    /// Before anything is written in place: else a batch that is in a cache only, or one whose data is, would spoil
    /// what was answered before it, and be gone with the next power cut.
    Securing {
        left: Vec<Unsecured>,
        in_flight: u32,
        resumes: bool,
    },
    Committing,
}

/// Bytes that were read, and may be in a cache only.
struct Unsecured {
    offset: ByteOffset,
    parts: Vec<Bytes>,
}

/// The ring's pages on their way from the disk to the scan, in order. Progress is counted from where replay begins.
struct Pages {
    scan: Scan,
    issued: u64,
    fed: u64,
    in_flight: u32,
    /// By progress: what came before its turn.
    arrived: BTreeMap<u64, (u64, Option<Bytes>)>,
    /// Parts of reads that failed, to be read page by page.
    again: Vec<u64>,
}

impl Recovery {
    /// `is_damaged`: rows of the index cannot be read.
    pub(crate) fn new(start: Start, is_new: bool, is_damaged: bool, ring_bytes: u64) -> Recovery {
        // One step more: an index whose last commit has rotted away is found out by the batches that followed it.
        let further = |reach: u64| (reach + reach_step(ring_bytes)).min(ring_bytes);
        let scan_bytes = start.reach.map_or(ring_bytes, further);
        Recovery { phase: Phase::Starting, from: start.position, is_new, is_damaged, ring_bytes, scan_bytes }
    }

    fn become_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Where in the ring a point of progress lies.
    fn ring_offset(&self, progress: u64) -> u64 {
        (self.from.next_offset + progress) % self.ring_bytes
    }
}

impl Engine {
    pub(crate) fn recover_step(&mut self, out: &mut Vec<Action>) {
        if self.failed.is_some() {
            return;
        }
        let recovery = self.recovery.as_mut().expect("recovery is under way");
        if let Phase::Starting = recovery.phase {
            let scan = Scan::new(recovery.from, self.superblock.disk, self.superblock.layout.slot_count);
            let (arrived, again) = (BTreeMap::new(), Vec::new());
            let pages = Pages { scan, issued: 0, fed: 0, in_flight: 0, arrived, again };
            recovery.become_phase(Phase::Scanning(pages));
        }
        if let Phase::Scanning(_) = recovery.phase {
            self.scan_some(out);
        }
        if let Some(Recovery { phase: Phase::Verifying { .. }, .. }) = self.recovery {
            self.verify_some(out);
        }
        if let Some(Recovery { phase: Phase::Securing { .. }, .. }) = self.recovery {
            self.secure_some(out);
        }
    }

    fn scan_some(&mut self, out: &mut Vec<Action>) {
        let (size, depth) = (self.config.recover_read_bytes, self.config.recover_read_depth);
        let mut wanted = Vec::new();
        let recovery = self.recovery.as_mut().expect("recovery is under way");
        let (ring_bytes, scan_bytes) = (recovery.ring_bytes, recovery.scan_bytes);
        let from = recovery.from.next_offset;
        let Phase::Scanning(pages) = &mut recovery.phase else { return };
        while pages.in_flight < depth {
            let (progress, bytes) = match pages.again.pop() {
                Some(progress) => (progress, BLOCK_BYTES),
                None if pages.issued == scan_bytes => break,
                None => {
                    let start = (from + pages.issued) % ring_bytes;
                    // A read ends at the ring's end, and where nothing follows.
                    let bytes = size.min(ring_bytes - start).min(scan_bytes - pages.issued);
                    pages.issued += bytes;
                    (pages.issued - bytes, bytes)
                }
            };
            pages.in_flight += 1;
            wanted.push((progress, bytes));
        }
        let is_done = pages.fed == scan_bytes;
        for (progress, bytes) in wanted {
            let start = self.recovery.as_ref().expect("recovery is under way").ring_offset(progress);
            let op = self.begin_op(Op::Scan { progress, bytes });
            let offset = ByteOffset(self.superblock.layout.journal_offset.0 + start);
            out.push(Action::Read { op, offset, bytes: ByteCount(bytes) });
        }
        if is_done {
            self.end_scan(out);
        }
    }

    pub(crate) fn scan_read_done(&mut self, progress: u64, bytes: u64, result: Result<Bytes, DiskError>) {
        let recovery = self.recovery.as_mut().expect("recovery is under way");
        let (ring_bytes, from) = (recovery.ring_bytes, recovery.from.next_offset);
        let Phase::Scanning(pages) = &mut recovery.phase else { panic!("nothing is being scanned") };
        pages.in_flight -= 1;
        match result {
            // A page that cannot be read is one bad page; the rest of the read may be good.
            Err(_) if bytes > BLOCK_BYTES => {
                pages.again.extend((0..bytes / BLOCK_BYTES).rev().map(|i| progress + i * BLOCK_BYTES));
            }
            Err(_) => {
                pages.arrived.insert(progress, (bytes, None));
            }
            Ok(data) => {
                assert_eq!(data.len() as u64, bytes, "a read gives what was asked for");
                pages.arrived.insert(progress, (bytes, Some(data)));
            }
        }
        while let Some((bytes, data)) = pages.arrived.remove(&pages.fed) {
            for page in 0..bytes / BLOCK_BYTES {
                let at = (page * BLOCK_BYTES) as usize;
                let content = data.as_ref().map(|data| data.slice(at..at + BLOCK_BYTES as usize));
                pages.scan.feed((from + pages.fed) % ring_bytes, content);
                pages.fed += BLOCK_BYTES;
            }
        }
    }

    fn end_scan(&mut self, out: &mut Vec<Action>) {
        let recovery = self.recovery.as_mut().expect("recovery is under way");
        let Phase::Scanning(pages) = std::mem::replace(&mut recovery.phase, Phase::Starting) else { return };
        let history = pages.scan.finish(recovery.ring_bytes);
        // Nothing is journalled before the index has its first position.
        if recovery.is_new && (history.is_broken || !history.batches.is_empty()) {
            return self.fail("the index is empty, but the journal is not: the index was lost", out);
        }
        // The next start would not believe the position that this one leaves.
        if history.head.next_sequence > Sequence::BELIEVED_MAX {
            return self.fail("the numbers of the journal's batches are used up", out);
        }
        let left = verify::places_in_doubt(&history);
        recovery.become_phase(Phase::Verifying { history, left, in_flight: 0, contents: Contents::new() });
    }

    fn verify_some(&mut self, out: &mut Vec<Action>) {
        let depth = self.config.recover_read_depth;
        let recovery = self.recovery.as_mut().expect("recovery is under way");
        let Phase::Verifying { left, in_flight, .. } = &mut recovery.phase else { return };
        let mut wanted = Vec::new();
        while *in_flight < depth
            && let Some(place) = left.pop()
        {
            *in_flight += 1;
            wanted.push(place);
        }
        let is_done = *in_flight == 0;
        for place in wanted {
            let op = self.begin_op(Op::Verify { place });
            let offset = place.offset(self.data_offset());
            out.push(Action::Read { op, offset, bytes: ByteCount(SLOT_BYTES) });
        }
        if is_done {
            self.replay();
        }
    }

    pub(crate) fn verify_read_done(&mut self, place: Place, result: Result<Bytes, DiskError>) {
        let recovery = self.recovery.as_mut().expect("recovery is under way");
        let Phase::Verifying { in_flight, contents, .. } = &mut recovery.phase else { panic!("nothing is verified") };
        *in_flight -= 1;
        contents.insert(place, result.ok());
    }

    fn replay(&mut self) {
        let recovery = self.recovery.as_mut().expect("recovery is under way");
        let Phase::Verifying { history, contents, .. } = std::mem::replace(&mut recovery.phase, Phase::Starting) else {
            return;
        };
        let doubt = Doubt::new(&history, &contents, &self.store);
        // Data that cannot be read may have been whole, and acknowledged.
        let is_unreadable = contents.values().any(Option::is_none);
        for batch in &history.batches {
            for (index, (record, payload)) in batch.records.iter().enumerate() {
                if doubt.is_cut(record, (batch.sequence, index)) {
                    self.counters.dropped_records += 1;
                } else {
                    self.counters.replayed_records += 1;
                    self.store.apply(record, payload, batch.sequence);
                }
            }
        }
        let newest = Sequence(history.head.next_sequence.0 - 1);
        let is_disputed = self.store.count_places(newest);
        let mut left = self.unsecured(&history, &contents);
        left.reverse();
        if history.is_broken || is_unreadable {
            self.store.distrust_everything();
        }
        self.journal = Journal::new(newest);
        let recovery = self.recovery.as_mut().expect("recovery is under way");
        let is_damaged = history.is_broken || is_unreadable || is_disputed || recovery.is_damaged;
        let resumed = if !is_damaged && !doubt.cuts_anything() {
            history.resume(recovery.from, recovery.ring_bytes)
        } else {
            None
        };
        recovery.become_phase(Phase::Securing { left, in_flight: 0, resumes: resumed.is_some() });
        self.ring = resumed.unwrap_or_else(|| Ring::new(self.ring.bytes(), history.head));
    }

    /// The newest batch and the data beside the journal that the store needs.
    fn unsecured(&self, history: &History, contents: &Contents) -> Vec<Unsecured> {
        let journal = self.superblock.layout.journal_offset;
        let batch = history
            .unproven
            .iter()
            .map(|batch| Unsecured { offset: ByteOffset(journal.0 + batch.offset), parts: batch.pages.clone() });
        let data = verify::unsecured(history, contents, &self.store).into_iter();
        let data = data.map(|(block, parts)| Unsecured { offset: block.offset(self.data_offset()), parts });
        batch.chain(data).collect()
    }

    fn secure_some(&mut self, out: &mut Vec<Action>) {
        let depth = self.config.recover_read_depth;
        let recovery = self.recovery.as_mut().expect("recovery is under way");
        let Phase::Securing { left, in_flight, resumes } = &mut recovery.phase else { return };
        let resumes = *resumes;
        let mut wanted = Vec::new();
        while *in_flight < depth
            && let Some(unsecured) = left.pop()
        {
            *in_flight += 1;
            wanted.push(unsecured);
        }
        let is_done = *in_flight == 0;
        for Unsecured { offset, parts } in wanted {
            let op = self.begin_op(Op::Secure);
            out.push(Action::Write { op, offset, parts, durable: true });
        }
        if is_done {
            self.secured(resumes);
        }
    }

    pub(crate) fn secure_done(&mut self) {
        let recovery = self.recovery.as_mut().expect("recovery is under way");
        let Phase::Securing { in_flight, .. } = &mut recovery.phase else { panic!("nothing is being secured") };
        *in_flight -= 1;
    }

    /// Every batch of the history is durable, with its data.
    fn secured(&mut self, resumes: bool) {
        let recovery = self.recovery.as_mut().expect("recovery is under way");
        recovery.become_phase(Phase::Committing);
        // Even if nothing was replayed: what is read may be in a cache, and the ring is not written before it is
        // durable.
        match resumes && !Mutant::ReplayWorksOnce.is_on() {
            true => {
                let from = recovery.from;
                self.confirm_index(from);
            }
            false => self.begin_checkpoint(self.journal.durable(), self.ring.head()),
        }
    }

    /// The index and the journal hold everything: the disk serves.
    pub(crate) fn recovered(&mut self, out: &mut Vec<Action>) {
        self.recovery = None;
        self.replay_took = self.now.since(self.began);
        let (replayed_records, lost_blocks) = (self.counters.replayed_records, self.store.lost_blocks);
        out.push(Action::Recovered { replayed_records, lost_blocks });
        self.handle_early(out);
    }
}
