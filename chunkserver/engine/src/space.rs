//! Space: for whom a replica keeps what it keeps. Sums over versions, a page of chunks at a time.
//!
//! ```text
//!   floors   0 ......... p1 ......... p2 ......... now      p1, p2: points of snapshots
//!   bands    |     0     |     1      |     2     |         a snapshot reads what is before its point, the present all
//! ```
//! Versions of one band become one sooner or later (`store/merge`), so a slot is counted as it will be then: at most
//! one place for each band. Without the snapshot between them two bands are one: what that gives back is the place
//! that merging them gives back. Invariant: unique + shared + snapshots is what is taken when all is merged.

use crate::config::LIST_SLOTS_MAX;
use crate::engine::Engine;
use crate::replica::{Chunk, Slot};
use ashlar_types::{ChunkIndex, Lsn, SNAPSHOTS_MAX, VolumeId};

/// In slots.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Space {
    /// Taken now. What is in none of the next three comes free in the background.
    pub taken: u64,
    /// The present needs it, no snapshot does.
    pub unique: u64,
    /// The present and snapshots need it.
    pub shared: u64,
    /// Only snapshots need it.
    pub snapshots: u64,
    /// What comes free if one snapshot alone is deleted, by point.
    pub freed_by_each: Vec<u64>,
    /// What comes free if all of them are.
    pub freed_by_all: u64,
}

impl Space {
    pub fn add(&mut self, other: &Space) {
        self.taken += other.taken;
        self.unique += other.unique;
        self.shared += other.shared;
        self.snapshots += other.snapshots;
        self.freed_by_each.resize(other.freed_by_each.len().max(self.freed_by_each.len()), 0);
        self.freed_by_each.iter_mut().zip(&other.freed_by_each).for_each(|(sum, freed)| *sum += freed);
        self.freed_by_all += other.freed_by_all;
    }

    fn add_chunk(&mut self, chunk: &Chunk, points: &[Lsn]) {
        let mut bands: Vec<(usize, Band)> = Vec::new();
        let mut of = None;
        for ((slot, floor), version) in chunk.slots.iter() {
            if of.replace(slot) != Some(slot) {
                self.add_slot(&bands);
                bands.clear();
            }
            self.taken += u64::from(version.place.is_some());
            let (number, band) = (points.partition_point(|&point| point <= floor), Band::of(&version));
            match bands.last_mut() {
                Some((last, older)) if *last == number => *older = older.under(band),
                _ => bands.push((number, band)),
            }
        }
        self.add_slot(&bands);
    }

    /// The bands in which the slot has something, the oldest first.
    fn add_slot(&mut self, bands: &[(usize, Band)]) {
        let last = self.freed_by_each.len();
        let mut hidden = 0;
        for (number, band) in bands.iter().rev() {
            let whose = match number {
                number if *number == last => &mut self.unique,
                _ if band.valid & !hidden != 0 => &mut self.shared,
                _ => &mut self.snapshots,
            };
            *whose += band.places();
            hidden |= band.set;
        }
        for pair in bands.windows(2) {
            let [(older, below), (newer, above)] = pair else { unreachable!("two of them") };
            if older + 1 == *newer {
                let before = below.places() + above.places();
                self.freed_by_each[*older] += before.saturating_sub(below.under(*above).places());
            }
        }
        if let Some(merged) = bands.iter().map(|(_, band)| *band).reduce(Band::under) {
            let before: u64 = bands.iter().map(|(_, band)| band.places()).sum();
            self.freed_by_all += before.saturating_sub(merged.places());
        }
    }
}

/// A slot's versions of one band, as one.
#[derive(Clone, Copy, Debug)]
struct Band {
    set: u16,
    valid: u16,
    has_place: bool,
}

impl Band {
    fn of(version: &Slot) -> Band {
        Band { set: version.set, valid: version.valid, has_place: version.place.is_some() }
    }

    /// As merging does it: what holds no bytes keeps no place. A lost block, which has none, will be repaired first.
    fn under(self, newer: Band) -> Band {
        let valid = self.valid & !newer.set | newer.valid;
        Band { set: self.set | newer.set, valid, has_place: valid != 0 }
    }

    fn places(self) -> u64 {
        u64::from(self.has_place)
    }
}

impl Engine {
    /// For whom the replica keeps its chunks `from..until`, if these are the points of all snapshots; and where to go
    /// on. Refused, with the reason, where the replica does not have everything.
    pub fn space(
        &self,
        volume: VolumeId,
        (from, until): (ChunkIndex, ChunkIndex),
        points: &[Lsn],
    ) -> Result<(Space, Option<ChunkIndex>), &'static str> {
        assert!(points.len() <= SNAPSHOTS_MAX && points.is_sorted_by(|a, b| a < b), "points ascend");
        let replica = match self.store.replica(volume) {
            _ if self.recovery.is_some() => return Err("the disk is starting"),
            None => return Err("the disk has no replica of the volume"),
            Some(replica) if replica.incomplete || replica.syncing.is_some() => {
                return Err("the replica is incomplete");
            }
            Some(replica) => replica,
        };
        let mut space = Space { freed_by_each: vec![0; points.len()], ..Space::default() };
        let mut looked_at = 0;
        for (&chunk, entry) in replica.chunks.range(from..until.max(from)) {
            if looked_at >= LIST_SLOTS_MAX {
                return Ok((space, Some(chunk)));
            }
            if !entry.complete {
                return Err("the replica awaits copies");
            }
            looked_at += entry.slots.len();
            space.add_chunk(entry, points);
        }
        Ok((space, None))
    }
}

#[cfg(test)]
mod tests;
