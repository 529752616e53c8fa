//! Values under keys that are never reused: a key names its value until it is removed, and nothing afterwards.
//!
//! A key is an index and the generation of the place. Removing a value raises the generation, so an old key finds
//! nothing. Generations are of one half or the other of all numbers, so that the keys of two slabs can be told apart; a
//! place whose generation would leave its half is retired.

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    pub(crate) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_u64(number: u64) -> Key {
        Key { index: number as u32, generation: (number >> 32) as u32 }
    }

    /// It is of a slab that [`Slab::new_upper`] made.
    pub(crate) fn is_upper(self) -> bool {
        self.generation >= UPPER
    }
}

/// The first generation of the upper half.
const UPPER: u32 = 1 << 31;

pub(crate) struct Slab<T> {
    first_generation: u32,
    places: Vec<Place<T>>,
    free: Vec<u32>,
    len: usize,
}

struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab { first_generation: 0, places: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// One whose keys are never those of a slab made by `new`.
    pub(crate) fn new_upper() -> Slab<T> {
        Slab { first_generation: UPPER, ..Slab::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            assert!(place.value.is_none());
            place.value = Some(value);
            return Key { index, generation: place.generation };
        }
        // The last index is kept free: no key is `u64::MAX`.
        let index = u32::try_from(self.places.len()).ok().filter(|&index| index < u32::MAX);
        let index = index.expect("fewer than 2^32 values");
        let generation = self.first_generation;
        self.places.push(Place { generation, value: Some(value) });
        Key { index, generation }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        place.value.as_ref().filter(|_| place.generation == key.generation)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        place.value.as_mut().filter(|_| place.generation == key.generation)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(key.index as usize).filter(|place| place.generation == key.generation)?;
        let value = place.value.take()?;
        self.len -= 1;
        let next = place.generation.checked_add(1);
        if let Some(next) = next.filter(|next| (*next >= UPPER) == (self.first_generation >= UPPER)) {
            place.generation = next;
            self.free.push(key.index);
        }
        Some(value)
    }

    /// Key and value of everything that is here, in order of the index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let value = place.value.as_ref()?;
            Some((Key { index: index as u32, generation: place.generation }, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_key_finds_nothing_even_when_its_place_is_taken_again() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn keys_survive_the_way_through_the_ring() {
        let mut slab = Slab::new();
        let gone = slab.insert(0);
        slab.remove(gone);
        for key in [slab.insert(1), slab.insert(2)] {
            assert_eq!(Key::from_u64(key.to_u64()), key);
            assert_ne!(key.to_u64(), u64::MAX);
        }
    }

    #[test]
    fn a_place_whose_generation_would_leave_its_half_is_retired() {
        for (mut slab, last) in [(Slab::new(), UPPER - 1), (Slab::new_upper(), u32::MAX)] {
            let key = slab.insert(1);
            assert_eq!(key.is_upper(), last == u32::MAX);
            slab.places[0].generation = last;
            slab.remove(Key { generation: last, ..key });
            assert!(slab.is_empty());
            assert_ne!(slab.insert(2).index, key.index);
        }
    }
}
