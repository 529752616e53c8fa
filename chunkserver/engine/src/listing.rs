//! Listings: what the replica says of its chunks, from durable state, in pages. A page looks at a bounded number of
//! slots.

use crate::Action;
use crate::config::LIST_SLOTS_MAX;
use crate::engine::Engine;
use crate::replica::{Chunk, Replica, Slot};
use crate::session::ReplyTo;
use ashlar_types::{ChunkIndex, FloorRange, Geometry, Lsn, SlotSet};
use ashlar_wire::limits::{HELD_ENTRIES_MAX, LIST_ENTRIES_MAX};
use ashlar_wire::{ChangedSlots, ChunkReport, Held, Reply, SlotBlocks, Status};

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
        let Some(replica) = self.listed(to, out) else { return };
        let changed = |chunk: &Chunk| {
            let slots = slots_of(chunk, floors, |slot| slot.stamp > after);
            (slots != SlotSet::EMPTY || chunk.prefix > after).then_some(slots)
        };
        let (entries, next) = page(replica.chunks.range(from..until), changed);
        self.reply(to, Reply::Changed { entries, next }, out);
    }

    pub(crate) fn list_stale(&mut self, to: ReplyTo, from: ChunkIndex, floors: FloorRange, out: &mut Vec<Action>) {
        let Some(replica) = self.listed(to, out) else { return };
        let stale = |chunk: &Chunk| {
            let slots = slots_of(chunk, floors, |slot| slot.stale != 0);
            (slots != SlotSet::EMPTY).then_some(slots)
        };
        let with_stale = replica.chunks.range(from..).filter(|(_, chunk)| chunk.stale_slots > 0);
        let (entries, next) = page(with_stale, stale);
        self.reply(to, Reply::Changed { entries, next }, out);
    }

    pub(crate) fn usage(&mut self, to: ReplyTo, out: &mut Vec<Action>) {
        let Some(replica) = self.listed(to, out) else { return };
        let held = replica.held.iter().take(HELD_ENTRIES_MAX).map(|(&floor, &slots)| Held { floor, slots }).collect();
        self.reply(to, Reply::Held(held), out);
    }

    pub(crate) fn list_blocks(&mut self, to: ReplyTo, chunk: ChunkIndex, floors: FloorRange, out: &mut Vec<Action>) {
        let Some(replica) = self.listed(to, out) else { return };
        let blocks = match replica.chunks.get(&chunk) {
            Some(entry) if !entry.complete => None,
            Some(entry) => blocks_of(entry, floors),
            None if replica.incomplete => None,
            None => Some(Vec::new()),
        };
        match blocks {
            Some(blocks) => self.reply(to, Reply::Blocks(blocks), out),
            None => self.refuse(to, Status::Stale, "the chunk awaits copies", out),
        }
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

fn slots_of(chunk: &Chunk, floors: FloorRange, pick: impl Fn(&Slot) -> bool) -> SlotSet {
    let among = chunk.slots.iter().filter(|((_, floor), slot)| floors.contains(*floor) && pick(slot));
    among.map(|(&(slot, _), _)| slot).collect()
}

/// What the versions of each slot say together, the newer ones first; nothing if one of them is stale.
fn blocks_of(chunk: &Chunk, floors: FloorRange) -> Option<Vec<SlotBlocks>> {
    let mut blocks: Vec<SlotBlocks> = Vec::new();
    for (&(slot, floor), version) in &chunk.slots {
        if !floors.contains(floor) {
            continue;
        }
        if version.stale != 0 {
            return None;
        }
        match blocks.last_mut().filter(|last| last.slot == slot) {
            Some(last) => (last.set, last.valid) = (last.set | version.set, last.valid & !version.set | version.valid),
            None => blocks.push(SlotBlocks { slot, set: version.set, valid: version.valid }),
        }
    }
    blocks.retain(|slot| slot.set != 0);
    Some(blocks)
}

fn report_of(chunk: ChunkIndex, entry: &Chunk) -> ChunkReport {
    ChunkReport { chunk, prefix: entry.prefix, complete: entry.complete }
}

/// One page of chunks in which `pick` finds something, and where the next page begins.
fn page<'a>(
    chunks: impl Iterator<Item = (&'a ChunkIndex, &'a Chunk)>,
    pick: impl Fn(&Chunk) -> Option<SlotSet>,
) -> (Vec<ChangedSlots>, Option<ChunkIndex>) {
    let mut entries = Vec::new();
    let mut looked_at = 0;
    for (&chunk, entry) in chunks {
        if entries.len() == LIST_ENTRIES_MAX || looked_at >= LIST_SLOTS_MAX {
            return (entries, Some(chunk));
        }
        looked_at += entry.slots.len();
        if let Some(slots) = pick(entry) {
            entries.push(ChangedSlots { chunk, prefix: entry.prefix, slots });
        }
    }
    (entries, None)
}
