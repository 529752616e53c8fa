//! Versions that no snapshot and no clone tells apart become one.
//!
//! ```text
//!   older   a b . .   at p         the result has the newer name and is at p or at q, wherever fewer blocks
//!   newer   . C D .   at q         have to be moved:   a C D .
//! ```
//! What the merged version reads as, and what is below it, is what both read as before.

use super::apply::Content;
use super::{Outcome, Payload, Store};
use crate::place::{Place, Sequence};
use crate::record::{Body, Record, bits_of};
use crate::replica::{Slot, SlotAddress};
use ashlar_types::{ChunkIndex, Crc32, Lsn, SlotIndex, VolumeId};

/// Two versions of a slot, neighbours by age, that may become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) volume: VolumeId,
    pub(crate) chunk: ChunkIndex,
    pub(crate) slot: SlotIndex,
    pub(crate) older: Lsn,
    pub(crate) newer: Lsn,
}

/// What merging a pair takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// Where the merged version is.
    pub(crate) place: Option<Place>,
    /// Blocks that come to it from the other place, and where they are now, with their checksums.
    pub(crate) moved: u16,
    pub(crate) from: Vec<(crate::place::DiskBlock, Crc32)>,
}

impl Pair {
    pub(crate) fn older(&self) -> SlotAddress {
        SlotAddress { volume: self.volume, chunk: self.chunk, slot: self.slot, floor: self.older }
    }

    pub(crate) fn newer(&self) -> SlotAddress {
        SlotAddress { floor: self.newer, ..self.older() }
    }
}

impl Move {
    /// Of two versions in which nothing is marked.
    pub(crate) fn of(older: &Slot, newer: &Slot) -> Move {
        let falls_through = older.valid & !newer.set;
        let take_newer =
            newer.place.is_some() && (older.place.is_none() || newer.valid.count_ones() >= falls_through.count_ones());
        let (place, moved, other) = match take_newer {
            true => (newer.place, falls_through, older),
            false => (older.place, newer.valid, newer),
        };
        let block = |block: u32| {
            let place = other.place.expect("a valid block has a place");
            (place.block(block), other.crcs[block as usize])
        };
        let keeps_place = falls_through | newer.valid != 0;
        Move { place: place.filter(|_| keeps_place), moved, from: bits_of(moved).map(block).collect() }
    }
}

impl Store {
    /// The first pair of the chunk, from a slot on, that may become one: neighbours by age, without marks, that nobody
    /// tells apart.
    pub(crate) fn mergeable(&self, volume: VolumeId, chunk: ChunkIndex, from: SlotIndex) -> Option<Pair> {
        let replica = self.volumes.get(&volume).filter(|replica| replica.syncing.is_none())?;
        let versions = &replica.chunks.get(&chunk)?.slots;
        let keys = || versions.range((from, Lsn::ZERO)..).map(|(key, _)| key);
        let neighbours = keys().zip(keys().skip(1)).filter(|(a, b)| a.0 == b.0);
        let pairs = neighbours.map(|(a, b)| Pair { volume, chunk, slot: a.0, older: a.1, newer: b.1 });
        pairs.into_iter().find(|pair| self.plan_merge(*pair).is_some())
    }

    /// What merging the pair takes, if it may become one.
    pub(crate) fn plan_merge(&self, pair: Pair) -> Option<Move> {
        let replica = self.volumes.get(&pair.volume)?;
        let told_apart = replica.kept.separates(pair.older, pair.newer)
            || self.is_read_between(pair.volume, pair.older, pair.newer)
            // What is copied from a base goes below everything else.
            || pair.older == Lsn::ZERO && replica.base().is_some();
        let (older, newer) = (self.slot(pair.older())?, self.slot(pair.newer())?);
        let is_plain = |slot: &Slot| slot.stale | slot.fresh | slot.lost == 0;
        let may = !told_apart && is_plain(&older) && is_plain(&newer);
        may.then(|| Move::of(&older, &newer))
    }

    pub(super) fn merge(&mut self, record: &Record, payload: &[Payload], by: Sequence) -> Outcome {
        let Body::Merge { chunk, slot, older, newer, place, moved, crcs } = &record.body else {
            unreachable!("a merge record")
        };
        let pair = Pair { volume: record.volume, chunk: *chunk, slot: *slot, older: *older, newer: *newer };
        let (Some(old), Some(new)) = (self.slot(pair.older()), self.slot(pair.newer())) else {
            return Outcome::Done;
        };
        let (falls_through, old_bad) = (old.set & !new.set, self.bad.of(pair.older()));
        // The older one goes. Its place goes with it, or on to the newer one.
        self.edit(pair.older(), |slot, ground| {
            let keeps = slot.place == *place;
            match slot.place.take() {
                Some(place) if !keeps => ground.release(place, by),
                _ => {}
            }
            *slot = Slot::new();
        });
        let mut lost = 0;
        self.edit(pair.newer(), |slot, ground| {
            if slot.place != *place {
                if let Some(place) = slot.place.take() {
                    ground.release(place, by);
                }
                slot.place = *place;
                // What stays where it is stays bad; what is moved was read, and is good.
                ground.bad = old_bad & falls_through;
                let hidden = bits_of(old.valid & !falls_through).filter_map(|block| Some(place.as_ref()?.block(block)));
                hidden.for_each(|at| ground.overlay.remove(at));
            }
            for block in bits_of(falls_through & old.valid) {
                slot.crcs[block as usize] = old.crcs[block as usize];
            }
            slot.set |= falls_through;
            slot.valid |= falls_through & old.valid;
            slot.stamp = slot.stamp.max(old.stamp);
            let contents = bits_of(*moved).zip(crcs).zip(payload);
            let content =
                |((block, &crc), data): ((u32, &Crc32), &Payload)| Content { block, crc, data: Some(data.clone()) };
            lost = ground.put(slot, contents.map(content).collect(), by);
        });
        self.lost_blocks += lost;
        Outcome::Done
    }
}
