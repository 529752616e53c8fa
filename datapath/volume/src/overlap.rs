//! Who waits for whom: guest requests that touch the same blocks take turns, in order of arrival.
//!
//! Two entries conflict if they share a block and at least one of them changes it. An entry runs when no earlier one
//! that it conflicts with is left; so a later request never overtakes an earlier one that waits (fairness), and no
//! read sees a write in flight (P4).
//!
//! Invariant: `entry.blockers` = Σ over its slots of the earlier entries there that conflict with it.
//! Cost: one hash lookup per 64 KiB slot touched, and a scan of the few entries there.

use ashlar_types::{BLOCKS_PER_SLOT, ChunkIndex, ChunkRange, Mutant};
use std::collections::{BTreeMap, HashMap};

/// What an entry does to its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Shared,
    Exclusive,
}

/// Number of an entry, in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TurnId(pub(crate) u64);

#[derive(Clone, Copy, Debug)]
struct Entry {
    range: ChunkRange,
    access: Access,
    blockers: u32,
}

#[derive(Default)]
pub(crate) struct Turns {
    next: u64,
    entries: BTreeMap<TurnId, Entry>,
    /// Entries at each slot, in order of arrival. Looked up only, never iterated.
    slots: HashMap<(ChunkIndex, u32), Vec<TurnId>>,
}

impl Turns {
    /// Takes a place in the order. True: it may run now; false: `leave` of others will say when.
    pub(crate) fn arrive(&mut self, range: ChunkRange, access: Access) -> (TurnId, bool) {
        assert!(range.is_valid());
        let id = TurnId(self.next);
        self.next += 1;
        let mut entry = Entry { range, access, blockers: 0 };
        for slot in slots_of(range) {
            let here = self.slots.entry((range.chunk, slot)).or_default();
            entry.blockers += here.iter().filter(|other| self.entries[other].conflicts(&entry, slot)).count() as u32;
            here.push(id);
        }
        self.entries.insert(id, entry);
        (id, entry.blockers == 0)
    }

    /// Gives up the place; `ready` gets those that may run now because of it.
    pub(crate) fn leave(&mut self, id: TurnId, ready: &mut Vec<TurnId>) {
        let gone = self.entries.remove(&id).expect("an entry leaves once");
        for slot in slots_of(gone.range) {
            let key = (gone.range.chunk, slot);
            let here = self.slots.get_mut(&key).expect("an entry is at its slots");
            let at = here.iter().position(|other| *other == id).expect("an entry is at its slots");
            here.remove(at);
            for later in here.iter().skip(at) {
                let entry = self.entries.get_mut(later).expect("listed entries exist");
                if gone.conflicts(entry, slot) {
                    entry.blockers -= 1;
                    if entry.blockers == 0 {
                        ready.push(*later);
                    }
                }
            }
            if here.is_empty() {
                self.slots.remove(&key);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Entry {
    /// Conflicts of an earlier entry with a later one within one slot, so that a pair counts once for each slot in
    /// which it meets.
    fn conflicts(&self, later: &Entry, slot: u32) -> bool {
        let exclusive = match (self.access, later.access) {
            (Access::Exclusive, Access::Shared) => !Mutant::ReadNotHeldBehindWrite.is_on(),
            (Access::Shared, Access::Exclusive) => !Mutant::WriteNotHeldBehindRead.is_on(),
            (Access::Exclusive, Access::Exclusive) => true,
            (Access::Shared, Access::Shared) => false,
        };
        let first = u64::from(slot * BLOCKS_PER_SLOT);
        let last = first + u64::from(BLOCKS_PER_SLOT);
        let start = self.range.start.0.max(later.range.start.0).max(first);
        let end = self.range.end().0.min(later.range.end().0).min(last);
        exclusive && start < end
    }
}

fn slots_of(range: ChunkRange) -> std::ops::RangeInclusive<u32> {
    let last = range.end().0 - 1;
    (range.start.0 as u32 / BLOCKS_PER_SLOT)..=(last as u32 / BLOCKS_PER_SLOT)
}

#[cfg(test)]
mod tests;
