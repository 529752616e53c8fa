//! Filling the disk that returns: what it has marked as stale is found, page by page and band by band, and copied.

use super::Stage;
use crate::Action;
use crate::copy::Owner;
use crate::links::PAGE_STANDS_STILL;
use crate::member::CopyWhat;
use crate::near::Near;
use crate::volume::Volume;
use ashlar_types::{ChunkIndex, Instant, Mutant};
use ashlar_wire::{ChangedSlots, Request};

impl Volume {
    /// The target's own durable marks are what is copied: they hold its unacknowledged tail too, and what an earlier
    /// attempt left. Band by band, the oldest first; a band is done when a whole pass finds nothing.
    pub(crate) fn find_stale(&mut self, now: Instant, from: ChunkIndex, out: &mut Vec<Action>) {
        let resync = self.resync_mut();
        let Some(&floors) = resync.stale_bands.front() else {
            self.finish_sync(now, out);
            return;
        };
        if self.find_hottest(now, floors, out) {
            return;
        }
        self.resync_mut().stage = Stage::Finding { from };
        self.ask_target(now, Request::ListStale { from, floors }, out);
    }

    pub(super) fn found_stale(
        &mut self,
        now: Instant,
        from: ChunkIndex,
        entries: &[ChangedSlots],
        next: Option<ChunkIndex>,
        out: &mut Vec<Action>,
    ) {
        if next.is_some_and(|next| next <= from) {
            self.fail_resync(now, PAGE_STANDS_STILL, out);
            return;
        }
        if self.found_hottest(now, entries, out) {
            return;
        }
        self.note_listed(from, entries, next);
        let resync = self.resync_mut();
        entries.iter().for_each(|entry| resync.take_stale(entry, next));
        match (resync.slots.is_empty(), next) {
            (false, _) => {}
            (true, Some(next)) => self.find_stale(now, next, out),
            (true, None) => {
                resync.stale_bands.pop_front();
                self.find_stale(now, ChunkIndex(0), out);
            }
        }
    }

    pub(super) fn copy(&mut self, now: Instant, next: Option<ChunkIndex>, out: &mut Vec<Action>) {
        let copies_max = self.copies_max();
        loop {
            let Some(resync) = self.resync.as_mut() else { return };
            if resync.copies_inflight >= copies_max {
                return;
            }
            if resync.slots.is_empty() {
                break;
            }
            if !self.may_copy_slot(now) {
                return;
            }
            let resync = self.resync_mut();
            let (chunk, slot) = resync.slots.pop_front().expect("looked at above");
            resync.copies_inflight += 1;
            let floors = *resync.stale_bands.front().expect("one is being copied");
            let what = CopyWhat { chunk, slot, floors, target: resync.member };
            self.start_copy(now, Owner::Resync, what, out);
        }
        if self.resync_mut().copies_inflight == 0 {
            // After the last page, from the start again.
            self.find_stale(now, next.unwrap_or(ChunkIndex(0)), out);
        }
    }

    pub(crate) fn resync_copied(&mut self, blocks: u32) {
        let resync = self.resync_mut();
        resync.copies_inflight -= 1;
        resync.copied_blocks += u64::from(blocks);
        resync.near.iter_mut().for_each(Near::note_copy);
    }

    /// The joint phase begins: from here on no write is acknowledged without it.
    fn finish_sync(&mut self, now: Instant, out: &mut Vec<Action>) {
        let early = Mutant::JoinBeforeFinishDurable.is_on();
        self.resync_mut().stage = if early { Stage::Joining } else { Stage::Finishing };
        self.ask_target(now, Request::FinishSync, out);
    }
}
