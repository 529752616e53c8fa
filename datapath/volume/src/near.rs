//! A replica that begins with nothing, nearer to the guest than all others: data that follows its pod. What the guest
//! reads most is copied first, and what has been copied is read there.
//!
//! Invariants, for a chunk to be read there:
//! - since the last band (the present) is copied, no write is acknowledged without it;
//! - a copy that was sent since then has been answered: what changes something is answered in order, so every write
//!   that was acknowledged before has come to it;
//! - a listing since then named nothing in the chunk that awaits a copy. (The chunkserver refuses a block that does.)
//!
//! Leases are given by in-sync replicas. That they hold says of this one that no newer writer serves, because the fence
//! waits for its promise too (`fence.rs`).

use crate::Action;
use crate::member::MemberIndex;
use crate::resync::Stage;
use crate::volume::Volume;
use ashlar_types::{ChunkIndex, FloorRange, Instant, Lsn, Mutant};
use ashlar_wire::{ChangedSlots, Request};
use std::collections::VecDeque;

/// Each costs two listings.
const HOTTEST_MAX: usize = 256;

pub(crate) struct Near {
    /// Chunks that go before all others.
    hottest: VecDeque<ChunkIndex>,
    /// The present is being copied.
    joint: bool,
    caught_up: bool,
    /// By chunk: nothing awaits a copy.
    filled: Vec<bool>,
}

impl Near {
    /// Writes are acknowledged no more without it.
    pub(crate) fn is_joint(&self) -> bool {
        self.joint && !Mutant::NearNotAwaited.is_on()
    }

    pub(crate) fn note_copy(&mut self) {
        self.caught_up |= self.joint;
    }

    fn note_filled(&mut self, chunks: impl Iterator<Item = ChunkIndex>, but: &[ChangedSlots]) {
        for chunk in chunks.filter(|chunk| but.iter().all(|entry| entry.chunk != *chunk)) {
            let at = chunk.0 as usize;
            self.filled.resize(self.filled.len().max(at + 1), false);
            self.filled[at] = true;
        }
    }

    fn has(&self, chunk: ChunkIndex) -> bool {
        self.caught_up && self.filled.get(chunk.0 as usize).copied().unwrap_or(false)
    }
}

impl Volume {
    /// Of a return that begins: `None` unless it is to become the nearest replica, from nothing.
    pub(crate) fn near(&self, index: MemberIndex, after: Lsn) -> Option<Near> {
        let others = self.members.iter().filter(|member| member.in_sync() && member.has_chunks);
        let is_nearest = others.map(|member| member.distance).min() > Some(self.members[index].distance);
        let hottest = || self.heat.hottest(HOTTEST_MAX);
        let near = || Near { hottest: hottest(), joint: false, caught_up: false, filled: Vec::new() };
        (after == Lsn::ZERO && is_nearest).then(near)
    }

    /// Whether the replica can be asked for what the chunk holds now.
    pub(crate) fn serves(&self, index: MemberIndex, chunk: ChunkIndex) -> bool {
        let member = &self.members[index];
        let near =
            self.resync.as_ref().filter(|resync| resync.member() == index).and_then(|resync| resync.near.as_ref());
        let has_chunk = near.is_some_and(|near| near.has(chunk)) && !member.leaving && !member.damaged;
        member.serves_reads() || has_chunk && member.is_open()
    }

    /// Asks what awaits a copy in the hottest chunk that is left; no: nothing goes before the others.
    pub(crate) fn find_hottest(&mut self, now: Instant, floors: FloorRange, out: &mut Vec<Action>) -> bool {
        let resync = self.resync_mut();
        let is_present = resync.is_in_last_band();
        let Some(near) = resync.near.as_mut().filter(|_| is_present) else { return false };
        near.joint = true;
        let Some(&from) = near.hottest.front() else { return false };
        resync.stage = Stage::Finding { from };
        self.ask_target(now, Request::ListStale { from, floors }, out);
        true
    }

    /// Takes of a listing what is in the hottest chunk that is left; no: that was not what was asked.
    pub(crate) fn found_hottest(&mut self, now: Instant, entries: &[ChangedSlots], out: &mut Vec<Action>) -> bool {
        let resync = self.resync_mut();
        let is_present = resync.is_in_last_band();
        let Some(near) = resync.near.as_mut().filter(|_| is_present) else { return false };
        let Some(&hottest) = near.hottest.front() else { return false };
        match entries.iter().find(|entry| entry.chunk == hottest && entry.slots.count() > 0) {
            Some(entry) => resync.take_stale(entry, Some(hottest)),
            None => {
                near.note_filled([hottest].into_iter(), &[]);
                near.hottest.pop_front();
                self.find_stale(now, ChunkIndex(0), out);
            }
        }
        true
    }

    /// A page of a listing of everything: what lies in between awaits no copy.
    pub(crate) fn note_listed(&mut self, from: ChunkIndex, entries: &[ChangedSlots], next: Option<ChunkIndex>) {
        let end = next.map_or(self.geometry.chunk_count(), |next| next.0);
        let resync = self.resync_mut();
        let is_present = resync.is_in_last_band();
        if let Some(near) = resync.near.as_mut().filter(|_| is_present) {
            near.note_filled((from.0..end).map(ChunkIndex), entries);
        }
    }
}

#[cfg(test)]
mod tests;
