//! A set of slots of one chunk: 1024 bits, 128 bytes on the wire and on disk.

use crate::{SLOTS_PER_CHUNK, SlotIndex};
use std::fmt;

const WORDS: usize = SLOTS_PER_CHUNK as usize / 64;

/// Set of slots of one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotSet([u64; WORDS]);

impl SlotSet {
    pub const BYTES: usize = WORDS * 8;
    pub const EMPTY: SlotSet = SlotSet([0; WORDS]);

    pub fn insert(&mut self, slot: SlotIndex) {
        self.0[slot.0 as usize / 64] |= 1 << (slot.0 % 64);
    }

    pub fn remove(&mut self, slot: SlotIndex) {
        self.0[slot.0 as usize / 64] &= !(1 << (slot.0 % 64));
    }

    pub fn contains(&self, slot: SlotIndex) -> bool {
        self.0[slot.0 as usize / 64] & (1 << (slot.0 % 64)) != 0
    }

    pub fn is_empty(&self) -> bool {
        *self == SlotSet::EMPTY
    }

    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub fn union(&self, other: &SlotSet) -> SlotSet {
        SlotSet(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    pub fn without(&self, other: &SlotSet) -> SlotSet {
        SlotSet(std::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    /// The slots of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = SlotIndex> + '_ {
        (0..SLOTS_PER_CHUNK as u16).map(SlotIndex).filter(|&slot| self.contains(slot))
    }

    /// Little-endian words, lowest slots first.
    pub fn to_bytes(&self) -> [u8; SlotSet::BYTES] {
        let mut bytes = [0; SlotSet::BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8; SlotSet::BYTES]) -> SlotSet {
        SlotSet(std::array::from_fn(|i| u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().expect("8 bytes"))))
    }
}

impl FromIterator<SlotIndex> for SlotSet {
    fn from_iter<I: IntoIterator<Item = SlotIndex>>(slots: I) -> SlotSet {
        let mut set = SlotSet::EMPTY;
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_one_and_not_in_the_other() {
        let set = |slots: &[u16]| slots.iter().copied().map(SlotIndex).collect::<SlotSet>();
        assert_eq!(set(&[1, 64, 1023]).without(&set(&[2, 64])), set(&[1, 1023]));
        assert_eq!(set(&[1]).union(&set(&[700])).without(&SlotSet::EMPTY), set(&[1, 700]));
    }

    #[test]
    fn a_set_survives_its_bytes() {
        let set: SlotSet = [0, 63, 64, 1023].map(SlotIndex).into_iter().collect();
        assert_eq!(SlotSet::from_bytes(&set.to_bytes()), set);
        assert_eq!(set.iter().map(|slot| slot.0).collect::<Vec<_>>(), [0, 63, 64, 1023]);
        assert_eq!(set.count(), 4);
    }
}
