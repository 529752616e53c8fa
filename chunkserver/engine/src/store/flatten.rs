//! Flattening: what the base shows of a slot becomes the clone's own, in its version at floor zero.
//!
//! ```text
//!   clone   floor 9   . b . .                    . b . .
//!           floor 0   . . C .      ──Flatten──►  A A C A
//!   base              A A A A                    A A A A     seen no more: hidden block by block
//! ```
//! It changes nothing that anybody reads: what is below the clone's own versions is the same content, with a stamp not
//! lower than its own. What the clone has at floor zero itself - copied, repaired, written, or known to be missing -
//! stays.

use super::apply::Content;
use super::{Outcome, Payload, Store};
use crate::place::{DiskBlock, Sequence};
use crate::record::{Body, Record, bits_of};
use crate::replica::{Slot, SlotAddress};
use ashlar_types::{ChunkIndex, Crc32, FloorRange, Lsn, Mutant, SlotIndex, VolumeId};

/// How far a slot of a clone is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flatness {
    /// Its base shows nothing that it does not have itself.
    Flat,
    /// Its base awaits a copy.
    Waits,
    Lacks(Flat),
}

/// What a slot of a clone lacks, as bits of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flat {
    pub(crate) volume: VolumeId,
    pub(crate) chunk: ChunkIndex,
    pub(crate) slot: SlotIndex,
    pub(crate) zeros: u16,
    /// Content that this disk does not have: to be repaired from others when it is read.
    pub(crate) lost: u16,
    pub(crate) stamp: Lsn,
    /// Blocks with content, where it is, and its checksums.
    pub(crate) from: Vec<(u32, DiskBlock, Crc32)>,
}

impl Flat {
    /// The version that gets it.
    pub(crate) fn target(&self) -> SlotAddress {
        SlotAddress { volume: self.volume, chunk: self.chunk, slot: self.slot, floor: Lsn::ZERO }
    }

    /// Whether the block is one that the slot lacks: with this content, or lost.
    pub(super) fn misses(&self, block: u32, crc: Crc32) -> bool {
        self.lost & (1 << block) != 0 || self.from.iter().any(|&(of, _, content)| (of, content) == (block, crc))
    }
}

/// Blocks of which a version says something, or which it awaits or knows to be missing.
pub(super) fn covered(slot: &Slot) -> u16 {
    slot.set | slot.stale | slot.fresh | slot.lost
}

impl Store {
    pub(crate) fn flatness(&self, volume: VolumeId, chunk: ChunkIndex, slot: SlotIndex) -> Flatness {
        let mut flat = Flat { volume, chunk, slot, zeros: 0, lost: 0, stamp: Lsn::ZERO, from: Vec::new() };
        let own = self.slot(flat.target());
        let mut open = !own.as_ref().map_or(0, covered);
        for (at, layer) in self.base_layers(volume, chunk, slot) {
            let awaits_copy = self.replica(at.volume).is_some();
            if layer.stale & open != 0 && awaits_copy {
                return Flatness::Waits;
            }
            flat.stamp = flat.stamp.max(layer.stamp);
            flat.lost |= (layer.lost | layer.stale) & open;
            open &= !(layer.lost | layer.stale);
            flat.zeros |= layer.set & !layer.valid & open;
            for block in bits_of(layer.valid & open) {
                let place = layer.place.expect("a valid block has a place");
                flat.from.push((block, place.block(block), layer.crcs[block as usize]));
            }
            open &= !layer.set;
        }
        let is_flat = flat.zeros | flat.lost == 0 && flat.from.is_empty();
        if is_flat && own.map_or(Lsn::ZERO, |own| own.stamp) >= flat.stamp {
            return Flatness::Flat;
        }
        flat.from.sort_unstable_by_key(|(block, ..)| *block);
        Flatness::Lacks(flat)
    }

    pub(super) fn flatten(&mut self, record: &Record, payload: &[Payload], by: Sequence) -> Outcome {
        let Body::Flatten { chunk, slot, zeros, copied, lost, place, stamp, crcs } = &record.body else {
            unreachable!("a flatten record")
        };
        let address = SlotAddress { volume: record.volume, chunk: *chunk, slot: *slot, floor: Lsn::ZERO };
        let has_base = self.replica(record.volume).is_some_and(|replica| replica.base().is_some());
        let own = self.slot(address).as_ref().map_or(0, covered);
        let due = if has_base { !own } else { 0 };
        if Mutant::FlattenOverwrites.is_on() {
            for floor in self.floors_of(address, FloorRange::ALL) {
                self.edit(SlotAddress { floor, ..address }, |slot, ground| ground.forget(slot, copied & due));
            }
        }
        let content =
            |((block, &crc), data): ((u32, &Crc32), &Payload)| Content { block, crc, data: Some(data.clone()) };
        let mut contents: Vec<Content> = bits_of(*copied).zip(crcs).zip(payload).map(content).collect();
        contents.retain(|content| due & (1 << content.block) != 0);
        let lost = lost & due;
        let mut lost_blocks = u64::from(lost.count_ones());
        self.edit(address, |slot, ground| {
            // The place is taken in any case: records that came after this one may count on it.
            if place.is_some() {
                ground.move_to(slot, *place, due & copied, by);
            }
            slot.set |= zeros & due | lost;
            slot.valid |= lost;
            slot.lost |= lost;
            lost_blocks += ground.put(slot, contents, by);
            slot.stamp = slot.stamp.max(if has_base { *stamp } else { Lsn::ZERO });
        });
        self.lost_blocks += lost_blocks;
        Outcome::Done
    }

    /// Refused when something is left: the journal was damaged, or what was flat has changed.
    pub(super) fn flattened(&mut self, volume: VolumeId, by: Sequence) -> Outcome {
        let replica = self.replica(volume).expect("the replica exists");
        let mut is_flat = replica.is_whole();
        for &chunk in replica.chunks.keys() {
            let mut from = SlotIndex(0);
            while let Some(slot) = self.next_based(volume, chunk, from).filter(|_| is_flat) {
                is_flat = self.flatness(volume, chunk, slot) == Flatness::Flat;
                from = SlotIndex(slot.0 + 1);
            }
        }
        if !is_flat {
            return Outcome::Incomplete;
        }
        self.become_flat(volume, by);
        Outcome::Done
    }
}
