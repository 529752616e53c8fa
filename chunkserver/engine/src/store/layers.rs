//! Layers: what a volume shows of a slot. Its own versions, the newer ones first, and below them, of a clone, what its
//! base shows below the clone's point, and so on.
//!
//! ```text
//!   clone    floor 9   . b . .          own, floors >= the point
//!            floor 0   . . C .          own: copied, repaired or made flat
//!   base     floor 4   x . . .          below the point 7
//!            floor 0   A A A A
//!   shown              x b C A
//! ```
//! The base's layers count as of floor zero: with them a clone says of any range of floors what it will say when it is
//! flat. This is the one place that knows the rule.

use super::Store;
use crate::replica::{Chunk, Replica, Slot, SlotAddress};
use ashlar_types::{ChunkIndex, FloorRange, Lsn, Mutant, SlotIndex, SlotSet, VolumeId};
use ashlar_wire::SlotBlocks;
use std::collections::{BTreeMap, BTreeSet};

impl Store {
    /// Whose versions a volume shows under these floors: its own, its base's, and so on down.
    pub(super) fn shown(
        &self,
        volume: VolumeId,
        floors: FloorRange,
    ) -> impl Iterator<Item = (VolumeId, &Replica, FloorRange)> {
        let own = self.volumes.get(&volume).map(|replica| (volume, replica, floors));
        std::iter::successors(own, |(_, replica, floors)| {
            let base = replica.base().filter(|_| floors.from == Lsn::ZERO)?;
            let floors = FloorRange { from: Lsn::ZERO, below: base.point };
            self.volumes.get(&base.volume).map(|below| (base.volume, below, floors))
        })
    }

    /// The layers of a slot under these floors, the uppermost first.
    pub(crate) fn layers(
        &self,
        volume: VolumeId,
        chunk: ChunkIndex,
        slot: SlotIndex,
        floors: FloorRange,
    ) -> impl Iterator<Item = (SlotAddress, Slot)> {
        self.shown(volume, floors).flat_map(move |(volume, replica, floors)| {
            let versions = replica.versions(chunk, slot, floors).rev();
            versions.map(move |(floor, version)| (SlotAddress { volume, chunk, slot, floor }, version))
        })
    }

    /// Those of them that are not the volume's own.
    pub(crate) fn base_layers(
        &self,
        volume: VolumeId,
        chunk: ChunkIndex,
        slot: SlotIndex,
    ) -> impl Iterator<Item = (SlotAddress, Slot)> {
        self.layers(volume, chunk, slot, FloorRange::ALL).filter(move |(address, _)| address.volume != volume)
    }

    /// Whether there is a layer below a version, or would be if the version were there.
    pub(super) fn has_layer_below(&self, address: SlotAddress) -> bool {
        let SlotAddress { volume, chunk, slot, floor } = address;
        let mut below = self.layers(volume, chunk, slot, FloorRange { from: Lsn::ZERO, below: floor });
        below.any(|(at, _)| at.volume == volume || !Mutant::DiscardShowsBase.is_on())
    }

    /// The slots of a chunk that have a layer stamped after `after`.
    pub(crate) fn changed_slots(&self, volume: VolumeId, chunk: ChunkIndex, after: Lsn, floors: FloorRange) -> SlotSet {
        let of_one = |(_, replica, floors): (VolumeId, &Replica, FloorRange)| {
            replica
                .chunks
                .get(&chunk)
                .map_or(SlotSet::EMPTY, |entry| entry.slots_among(floors, |slot| slot.stamp > after))
        };
        self.shown(volume, floors).map(of_one).fold(SlotSet::EMPTY, |all, slots| all.union(&slots))
    }

    /// How many versions of a chunk's slots there are in all of these volumes.
    pub(crate) fn shown_versions(&self, volume: VolumeId, chunk: ChunkIndex) -> usize {
        let shown = self.shown(volume, FloorRange::ALL);
        shown.filter_map(|(_, replica, _)| replica.chunks.get(&chunk)).map(|entry| entry.slots.len()).sum()
    }

    /// The slots that have a layer of a base stamped after `after`, as addresses of the volume's own lowest versions.
    pub(super) fn based_after(&self, volume: VolumeId, after: Lsn) -> Vec<SlotAddress> {
        let below = self.shown(volume, FloorRange::ALL).skip(1);
        let slots = below.flat_map(|(_, replica, floors)| {
            let of_chunk = move |(&chunk, entry): (&ChunkIndex, &Chunk)| {
                let slots = entry.slots_among(floors, |slot| slot.stamp > after);
                slots.iter().map(|slot| SlotAddress { volume, chunk, slot, floor: Lsn::ZERO }).collect::<Vec<_>>()
            };
            replica.chunks.iter().flat_map(of_chunk)
        });
        slots.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What the layers of each slot of a chunk say together; nothing if it says of a block that it awaits a copy.
    pub(crate) fn blocks_of(&self, volume: VolumeId, chunk: ChunkIndex, floors: FloorRange) -> Option<Vec<SlotBlocks>> {
        let mut blocks: BTreeMap<SlotIndex, (SlotBlocks, u16)> = BTreeMap::new();
        let deep = if Mutant::ListingForgetsBase.is_on() { 1 } else { usize::MAX };
        let shown: Vec<_> = self.shown(volume, floors).take(deep).collect();
        for (owner, replica, floors) in shown.into_iter().rev() {
            let versions = replica.chunks.get(&chunk).into_iter().flat_map(|entry| entry.slots.iter());
            let skipped =
                Mutant::ListingLeavesOutOldest.is_on().then_some(floors.from).filter(|from| *from > Lsn::ZERO);
            let among = |floor: Lsn| floors.contains(floor) && Some(floor) != skipped;
            for ((slot, _), version) in versions.filter(|((_, floor), _)| among(*floor)) {
                if owner == volume && version.stale != 0 {
                    return None;
                }
                let (seen, stale) = blocks.entry(slot).or_insert((SlotBlocks { slot, set: 0, valid: 0 }, 0));
                let said = if Mutant::ListingForgetsDiscards.is_on() { version.valid } else { version.set };
                (seen.set, seen.valid) = (seen.set | said, seen.valid & !version.set | version.valid);
                *stale = *stale & !version.set | version.stale;
            }
        }
        if blocks.values().any(|(_, stale)| *stale != 0) {
            return None;
        }
        Some(blocks.into_values().map(|(seen, _)| seen).filter(|seen| seen.set != 0).collect())
    }

    /// The first slot of a chunk, from one on, of which a base has something.
    pub(crate) fn next_based(&self, volume: VolumeId, chunk: ChunkIndex, from: SlotIndex) -> Option<SlotIndex> {
        let of_one = |(_, replica, floors): (VolumeId, &Replica, FloorRange)| {
            let mut versions = replica.chunks.get(&chunk)?.slots.range((from, Lsn::ZERO)..);
            versions.find(|((_, floor), _)| floors.contains(*floor)).map(|((slot, _), _)| slot)
        };
        self.shown(volume, FloorRange::ALL).skip(1).filter_map(of_one).min()
    }
}
