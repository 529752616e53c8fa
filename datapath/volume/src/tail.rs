//! What a returning disk lacks below its commit point. It was durable there once; but damage to the end of a journal
//! looks like a torn tail to the disk itself, which then says nothing. So, before `BeginSync`, its chunk prefixes are
//! compared with a source's: where its own is the lower one, what the source stamps after it is marked stale. Sound
//! disks pass: nothing is stamped between their prefix and the commit point.
//!
//! ```text
//!   OwnReport(target) ──► SourceReport(source of a run) ──► each chunk behind: TailListing(source) ──► TailMarking
//!                               ▲                                                                         │
//!                               └──────────────── next page, next run; after the last: BeginSync ◄────────┘
//! ```
//! Invariant: the marks are durable before the first new write comes to the disk, because that raises its prefixes.

use crate::Action;
use crate::links::PAGE_STANDS_STILL;
use crate::member::Purpose;
use crate::resync::Stage;
use crate::volume::Volume;
use ashlar_types::{ChunkIndex, FloorRange, Instant, Lsn, SlotSet};
use ashlar_wire::{ChangedSlots, ChunkReport, Request};
use std::collections::{BTreeMap, VecDeque};

/// In a chunk, and among the versions of one band, the disk lacks what is stamped after `own`.
#[derive(Clone, Copy)]
struct Behind {
    chunk: ChunkIndex,
    own: Lsn,
    floors: FloorRange,
}

#[derive(Default)]
pub(crate) struct Tail {
    own: BTreeMap<ChunkIndex, Lsn>,
    /// Of the chunks of this page.
    behind: VecDeque<Behind>,
}

impl Volume {
    pub(crate) fn check_tail(&mut self, now: Instant, from: ChunkIndex, out: &mut Vec<Action>) {
        self.resync_mut().stage = Stage::OwnReport { from };
        self.ask_target(now, Request::Report { from }, out);
    }

    pub(crate) fn tail_reported(
        &mut self,
        now: Instant,
        from: ChunkIndex,
        entries: &[ChunkReport],
        next: Option<ChunkIndex>,
        out: &mut Vec<Action>,
    ) {
        let chunks = self.geometry.chunk_count();
        let known = entries.iter().filter(|entry| entry.chunk.0 < chunks);
        self.resync_mut().tail.own.extend(known.map(|entry| (entry.chunk, entry.prefix)));
        match next {
            Some(next) if next <= from => self.fail_resync(now, PAGE_STANDS_STILL, out),
            Some(next) => self.check_tail(now, next, out),
            None => self.compare_run(now, ChunkIndex(0), out),
        }
    }

    fn compare_run(&mut self, now: Instant, from: ChunkIndex, out: &mut Vec<Action>) {
        let Some((from, until, holders)) = self.run_from(from) else {
            self.ask_begin_sync(now, out);
            return;
        };
        let Some(source) = self.farthest(holders) else {
            self.fail_resync(now, "no source", out);
            return;
        };
        let resync = self.resync_mut();
        resync.stage = Stage::SourceReport { from, until, source };
        let attempt = resync.attempt();
        self.send(now, source, Purpose::ResyncList(attempt), Request::Report { from }, out);
    }

    pub(crate) fn source_reported(
        &mut self,
        now: Instant,
        entries: &[ChunkReport],
        next: Option<ChunkIndex>,
        out: &mut Vec<Action>,
    ) {
        let resync = self.resync_mut();
        let Stage::SourceReport { from, until, source } = resync.stage else { panic!("the caller looked") };
        if next.is_some_and(|next| next <= from) {
            self.fail_resync(now, PAGE_STANDS_STILL, out);
            return;
        }
        let after = resync.after;
        let mut behind = Vec::new();
        for entry in entries.iter().filter(|entry| from <= entry.chunk && entry.chunk < until) {
            let own = resync.tail.own.get(&entry.chunk).copied().unwrap_or(Lsn::ZERO);
            if own < after && own < entry.prefix {
                behind.push((entry.chunk, own));
                // Sent after `BeginSync`. The source's list begins at the commit point and will not name the chunk.
                resync.marks.push_back(Request::AdoptPrefix { chunk: entry.chunk, prefix: entry.prefix });
            }
        }
        for (chunk, own) in behind {
            let bands = self.bands(own).into_iter().map(|floors| Behind { chunk, own, floors });
            self.resync_mut().tail.behind.extend(bands);
        }
        let next = next.map_or(until, |next| next.min(until));
        self.list_tail(now, next, source, out);
    }

    fn list_tail(&mut self, now: Instant, next: ChunkIndex, source: usize, out: &mut Vec<Action>) {
        let resync = self.resync_mut();
        let Some(&Behind { chunk, own: after, floors }) = resync.tail.behind.front() else {
            self.compare_run(now, next, out);
            return;
        };
        if !self.members[source].serves_reads() {
            self.fail_resync(now, "the source is lost", out);
            return;
        }
        let resync = self.resync_mut();
        resync.stage = Stage::TailListing { next, source };
        let (attempt, until) = (resync.attempt(), ChunkIndex(chunk.0 + 1));
        let request = Request::ListChanged { from: chunk, until, after, floors };
        self.send(now, source, Purpose::ResyncList(attempt), request, out);
    }

    pub(crate) fn tail_listed(&mut self, now: Instant, entries: &[ChangedSlots], out: &mut Vec<Action>) {
        let resync = self.resync_mut();
        let Stage::TailListing { next, source } = resync.stage else { panic!("the caller looked") };
        let Behind { chunk, own, floors } = resync.tail.behind.pop_front().expect("one was asked about");
        let slots = entries.iter().find(|entry| entry.chunk == chunk).map_or(SlotSet::EMPTY, |entry| entry.slots);
        resync.stage = Stage::TailMarking { next, source };
        self.ask_target(now, Request::MarkStale { chunk, after: own, floors, into: floors.from, slots }, out);
    }

    pub(crate) fn tail_marked(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Stage::TailMarking { next, source } = self.resync_mut().stage else { panic!("the caller looked") };
        self.list_tail(now, next, source, out);
    }
}

#[cfg(test)]
mod tests;
