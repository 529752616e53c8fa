//! Places: which data slots of the disk are taken, free, or free only after the next checkpoint.
//!
//! ```text
//!            take                 give_back(q)                      trimmed(P), P >= q
//!   free ──────────► taken ────────────────────► waiting for q ───────────────────────► free
//! ```
//! A place given back by record q stays out of use until the journal is trimmed beyond q: until then a replay may
//! verify what the place holds, and the durable index may still name it. Invariant: free + taken + waiting = all.

use ashlar_types::{BLOCK_BYTES, BLOCKS_PER_SLOT, ByteOffset, SLOT_BYTES};
use std::collections::VecDeque;

/// Index of a data slot of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place(pub(crate) u32);

/// Number of a journal batch; the first ever is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Sequence(pub(crate) u64);

/// A block of a place, counted over all places: adjoining numbers adjoin on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DiskBlock(pub(crate) u64);

impl Place {
    /// What stands on the disk and in records for "no place".
    pub(crate) const NONE_RAW: u32 = u32::MAX;

    pub(crate) fn from_raw(raw: u32) -> Option<Place> {
        (raw != Place::NONE_RAW).then_some(Place(raw))
    }

    pub(crate) fn to_raw(place: Option<Place>) -> u32 {
        place.map_or(Place::NONE_RAW, |place| place.0)
    }

    pub(crate) fn block(self, within: u32) -> DiskBlock {
        assert!(within < BLOCKS_PER_SLOT);
        DiskBlock(u64::from(self.0) * u64::from(BLOCKS_PER_SLOT) + u64::from(within))
    }

    pub(crate) fn offset(self, data: ByteOffset) -> ByteOffset {
        ByteOffset(data.0 + u64::from(self.0) * SLOT_BYTES)
    }
}

impl Sequence {
    /// Higher numbers are not believed: a million batches a second do not come here in 100,000 years, and counting on
    /// from the highest one that a disk may name never overflows.
    pub(crate) const BELIEVED_MAX: Sequence = Sequence(1 << 62);

    pub(crate) fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

impl DiskBlock {
    pub(crate) fn offset(self, data: ByteOffset) -> ByteOffset {
        ByteOffset(data.0 + self.0 * BLOCK_BYTES)
    }

    pub(crate) fn next(self) -> DiskBlock {
        DiskBlock(self.0 + 1)
    }
}

pub(crate) struct Places {
    /// A bit for each place that cannot be given out.
    used: Vec<u64>,
    count: u32,
    free: u32,
    /// In order of the records that gave them back.
    waiting: VecDeque<(Sequence, Place)>,
    /// What replay gave back; some of it may have been taken again.
    released: Vec<Place>,
    /// Where the search for a free place goes on: neighbours in time become neighbours on disk.
    cursor: u32,
}

impl Places {
    pub(crate) fn new(count: u32) -> Places {
        let mut used = vec![0u64; (count as usize).div_ceil(64)];
        if !count.is_multiple_of(64) {
            *used.last_mut().expect("at least one word") = u64::MAX << (count % 64);
        }
        Places { used, count, free: count, waiting: VecDeque::new(), released: Vec::new(), cursor: 0 }
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn free(&self) -> u32 {
        self.free
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.len() as u32
    }

    /// Marks a place that the index or the journal names; false if it is taken already.
    pub(crate) fn claim(&mut self, place: Place) -> bool {
        assert!(place.0 < self.count);
        let word = &mut self.used[place.0 as usize / 64];
        let bit = 1 << (place.0 % 64);
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.free -= 1;
        true
    }

    pub(crate) fn take(&mut self) -> Option<Place> {
        if self.free == 0 {
            return None;
        }
        let words = self.used.len();
        let start = self.cursor as usize / 64;
        let behind = u64::MAX << (self.cursor % 64);
        // The first word is looked at twice: from the cursor on, and at the end of the round.
        let at = |step: usize| {
            let index = (start + step) % words;
            let mask = if step == 0 { behind } else { u64::MAX };
            let free = !self.used[index] & mask;
            (free != 0).then(|| Place(index as u32 * 64 + free.trailing_zeros()))
        };
        let place = (0..=words).find_map(at).expect("a place is free");
        assert!(self.claim(place));
        self.cursor = (place.0 + 1) % self.count;
        Some(place)
    }

    pub(crate) fn give_back(&mut self, place: Place, by: Sequence) {
        assert!(self.is_used(place), "a place is given back twice");
        assert!(self.waiting.back().is_none_or(|&(last, _)| last <= by));
        self.waiting.push_back((by, place));
    }

    /// The same while replay is under way, when nobody keeps account.
    pub(crate) fn release(&mut self, place: Place) {
        self.released.push(place);
    }

    /// Replay has ended with batch `newest`, and what slots hold is claimed: the rest of what it gave back waits.
    pub(crate) fn replayed(&mut self, newest: Sequence) {
        for place in std::mem::take(&mut self.released) {
            if self.claim(place) {
                self.give_back(place, newest);
            }
        }
    }

    /// The journal was trimmed up to and including `position`: nothing refers to what was given back until then.
    pub(crate) fn trimmed(&mut self, position: Sequence) {
        while let Some(&(by, place)) = self.waiting.front()
            && by <= position
        {
            self.waiting.pop_front();
            self.used[place.0 as usize / 64] &= !(1 << (place.0 % 64));
            self.free += 1;
        }
    }

    fn is_used(&self, place: Place) -> bool {
        self.used[place.0 as usize / 64] & (1 << (place.0 % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_not_reused_before_the_trim_passes_its_record() {
        let mut places = Places::new(70);
        let all: Vec<Place> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!(all.len(), 70);
        places.give_back(Place(65), Sequence(4));
        places.give_back(Place(3), Sequence(6));
        assert_eq!(places.take(), None);
        places.trimmed(Sequence(3));
        assert_eq!(places.take(), None);
        places.trimmed(Sequence(5));
        assert_eq!(places.take(), Some(Place(65)));
        assert_eq!(places.take(), None);
        places.trimmed(Sequence(6));
        assert_eq!(places.take(), Some(Place(3)));
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn giving_back_a_free_place_is_a_bug() {
        Places::new(70).give_back(Place(1), Sequence(1));
    }
}
