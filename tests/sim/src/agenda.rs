//! What is going to happen, and when. Equal times keep the order in which they were added.

use crate::names::Nanos;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Future events, earliest first.
pub struct Agenda<E> {
    heap: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    slots: Vec<Option<E>>,
    free: Vec<usize>,
    added: u64,
}

impl<E> Agenda<E> {
    pub fn new() -> Agenda<E> {
        Agenda { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), added: 0 }
    }

    pub fn add(&mut self, at: Nanos, event: E) {
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place] = Some(event);
                place
            }
            None => {
                self.slots.push(Some(event));
                self.slots.len() - 1
            }
        };
        self.heap.push(Reverse((at, self.added, place)));
        self.added += 1;
    }

    pub fn next_at(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    pub fn pop(&mut self) -> Option<(Nanos, E)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        let event = self.slots[place].take().expect("a queued event has its place");
        self.free.push(place);
        Some((at, event))
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Agenda<E> {
        Agenda::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_keep_their_order() {
        let mut agenda = Agenda::new();
        agenda.add(5, 'b');
        agenda.add(3, 'a');
        agenda.add(5, 'c');
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop()).collect();
        assert_eq!(order, [(3, 'a'), (5, 'b'), (5, 'c')]);
    }
}
