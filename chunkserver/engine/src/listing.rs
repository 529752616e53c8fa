//! Listings: what the replica says of its chunks, from durable state, in pages. A page looks at a bounded number of
//! slots.

use crate::Action;
use crate::config::LIST_SLOTS_MAX;
use crate::engine::Engine;
use crate::replica::{Chunk, Replica, SlotAddress};
use crate::session::ReplyTo;
use ashlar_types::{ChunkIndex, FloorRange, Geometry, Lsn, SlotIndex, SlotSet};
use ashlar_wire::limits::{HELD_ENTRIES_MAX, LIST_ENTRIES_MAX};
use ashlar_wire::{BadBlocks, ChangedSlots, ChunkReport, Held, Reply, Status};

impl Engine {
    pub(crate) fn report(&mut self, to: ReplyTo, from: ChunkIndex, out: &mut Vec<Action>) {
        let Some(replica) = self.listed(to, out) else { return };
        let mut entries: Vec<ChunkReport> = match replica.incomplete {
            // Silence about a chunk would say that it is complete.
            true => {
                let count = Geometry::new(replica.size).map_or(0, Geometry::chunk_count);
                let absent = Chunk::new(false);
                let entry = |index: u32| {
                    let chunk = ChunkIndex(index);
                    report_of(chunk, replica.chunks.get(&chunk).unwrap_or(&absent))
                };
                (from.0..count).take(LIST_ENTRIES_MAX + 1).map(entry).collect()
            }
            false => {
                let chunks = replica.chunks.range(from..).take(LIST_ENTRIES_MAX + 1);
                chunks.map(|(&chunk, entry)| report_of(chunk, entry)).collect()
            }
        };
        let next = entries.get(LIST_ENTRIES_MAX).map(|entry| entry.chunk);
        entries.truncate(LIST_ENTRIES_MAX);
        self.reply(to, Reply::Reported { entries, next }, out);
    }

    pub(crate) fn list_changed(
        &mut self,
        to: ReplyTo,
        (from, until): (ChunkIndex, ChunkIndex),
        after: Lsn,
        floors: FloorRange,
        out: &mut Vec<Action>,
    ) {
        if from > until {
            return self.refuse(to, Status::BadRequest, "the listing ends before it begins", out);
        }
        if self.listed(to, out).is_none() {
            return;
        }
        let replica = self.store.replica(to.volume).expect("it is listed");
        let changed = |chunk: ChunkIndex, entry: &Chunk| {
            let slots = self.store.changed_slots(to.volume, chunk, after, floors);
            (slots != SlotSet::EMPTY || entry.prefix > after).then_some(slots)
        };
        let weight = |chunk: ChunkIndex, _: &Chunk| self.store.shown_versions(to.volume, chunk);
        let (entries, next) = page(replica.chunks.range(from..until), weight, changed);
        self.reply(to, Reply::Changed { entries, next }, out);
    }

    /// What `FinishSync` waits for: a clone's own. What is stale in its base is for the source's writer to fill.
    pub(crate) fn list_stale(&mut self, to: ReplyTo, from: ChunkIndex, floors: FloorRange, out: &mut Vec<Action>) {
        let Some(replica) = self.listed(to, out) else { return };
        let stale = |_: ChunkIndex, entry: &Chunk| {
            let slots = entry.slots_among(floors, |slot| slot.stale != 0);
            (slots != SlotSet::EMPTY).then_some(slots)
        };
        let with_stale = replica.chunks.range(from..).filter(|(_, chunk)| chunk.stale_slots > 0);
        let (entries, next) = page(with_stale, |_, entry| entry.slots.len(), stale);
        self.reply(to, Reply::Changed { entries, next }, out);
    }

    pub(crate) fn usage(&mut self, to: ReplyTo, out: &mut Vec<Action>) {
        let Some(replica) = self.listed(to, out) else { return };
        let held = replica.held.iter().take(HELD_ENTRIES_MAX).map(|(&floor, &slots)| Held { floor, slots }).collect();
        self.reply(to, Reply::Held(held), out);
    }

    pub(crate) fn list_blocks(&mut self, to: ReplyTo, chunk: ChunkIndex, floors: FloorRange, out: &mut Vec<Action>) {
        if self.listed(to, out).is_none() {
            return;
        }
        let replica = self.store.replica(to.volume).expect("it is listed");
        let blocks = match replica.chunks.get(&chunk) {
            Some(entry) if !entry.complete => None,
            Some(_) => self.store.blocks_of(to.volume, chunk, floors),
            None if replica.incomplete => None,
            None => Some(Vec::new()),
        };
        match blocks {
            Some(blocks) => self.reply(to, Reply::Blocks(blocks), out),
            None => self.refuse(to, Status::Stale, "the chunk awaits copies", out),
        }
    }

    pub(crate) fn digest(&mut self, to: ReplyTo, chunk: ChunkIndex, below: Lsn, out: &mut Vec<Action>) {
        let Some(replica) = self.listed(to, out) else { return };
        if !replica.chunks.get(&chunk).map_or(!replica.incomplete, |entry| entry.complete) {
            return self.refuse(to, Status::Stale, "the chunk awaits copies", out);
        }
        let (entries, unknown) = self.store.digests_of(to.volume, chunk, below);
        self.reply(to, Reply::Digests { entries, unknown }, out);
    }

    /// Every version of a slot is on one page, unless they alone are more than a page.
    pub(crate) fn list_bad(&mut self, to: ReplyTo, from: ChunkIndex, slot: SlotIndex, out: &mut Vec<Action>) {
        if self.listed(to, out).is_none() {
            return;
        }
        let mut entries: Vec<BadBlocks> = Vec::new();
        let mut more = false;
        let first = SlotAddress { volume: to.volume, chunk: from, slot, floor: Lsn::ZERO };
        for (address, blocks) in self.store.bad.from(first).take_while(|(address, _)| address.volume == to.volume) {
            let SlotAddress { chunk, slot, .. } = address;
            let is_next = entries.last().is_some_and(|last| (last.chunk, last.slot) != (chunk, slot));
            if is_next && entries.len() >= LIST_ENTRIES_MAX / 2 {
                more = true;
                break;
            }
            let bad = self.store.read_below(address, blocks).into_iter();
            entries.extend(bad.map(|(below, blocks)| BadBlocks { chunk, slot, below, blocks }));
        }
        entries.truncate(LIST_ENTRIES_MAX);
        self.reply(to, Reply::Bad { entries, more }, out);
    }

    /// The replica to list. A writer may ask before its first promise is durable: there is nothing to list then.
    fn listed(&mut self, to: ReplyTo, out: &mut Vec<Action>) -> Option<&Replica> {
        if self.store.replica(to.volume).is_none() {
            self.refuse(to, Status::BadRequest, "the session is not open yet", out);
            return None;
        }
        self.store.replica(to.volume)
    }
}

fn report_of(chunk: ChunkIndex, entry: &Chunk) -> ChunkReport {
    ChunkReport { chunk, prefix: entry.prefix, complete: entry.complete }
}

/// One page of chunks in which `pick` finds something, and where the next page begins. `weight` says how many versions
/// it looks at.
fn page<'a>(
    chunks: impl Iterator<Item = (&'a ChunkIndex, &'a Chunk)>,
    weight: impl Fn(ChunkIndex, &Chunk) -> usize,
    pick: impl Fn(ChunkIndex, &Chunk) -> Option<SlotSet>,
) -> (Vec<ChangedSlots>, Option<ChunkIndex>) {
    let mut entries = Vec::new();
    let mut looked_at = 0;
    for (&chunk, entry) in chunks {
        if entries.len() == LIST_ENTRIES_MAX || looked_at >= LIST_SLOTS_MAX {
            return (entries, Some(chunk));
        }
        looked_at += weight(chunk, entry);
        if let Some(slots) = pick(chunk, entry) {
            entries.push(ChangedSlots { chunk, prefix: entry.prefix, slots });
        }
    }
    (entries, None)
}
