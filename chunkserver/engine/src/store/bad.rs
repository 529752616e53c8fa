//! Bad blocks: content that this disk was found not to have, remembered until it is repaired, written anew or given up.
//!
//! Beside the slots and not in them: there are few, and the walk over them is the answer to whoever repairs. A block
//! that is only bad keeps its checksum, so a repair with other content is refused; one that is lost has none.
//! Invariant: what is noted of a version is valid in it; `Store::edit` sees to that.

use super::Store;
use crate::config::BAD_SLOTS_MAX;
use crate::record::bits_of;
use crate::replica::SlotAddress;
use ashlar_types::{FloorRange, Lsn, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(crate) struct BadBlocks {
    /// A bit for each block.
    slots: BTreeMap<SlotAddress, u16>,
    /// Rows that are to be written.
    dirty: BTreeSet<SlotAddress>,
}

impl BadBlocks {
    pub(crate) fn of(&self, address: SlotAddress) -> u16 {
        self.slots.get(&address).copied().unwrap_or(0)
    }

    /// Ascending.
    pub(crate) fn from(&self, from: SlotAddress) -> impl Iterator<Item = (SlotAddress, u16)> {
        self.slots.range(from..).map(|(&address, &blocks)| (address, blocks))
    }

    pub(crate) fn count(&self) -> u64 {
        self.slots.values().map(|blocks| u64::from(blocks.count_ones())).sum()
    }

    pub(super) fn put(&mut self, address: SlotAddress, blocks: u16) {
        let before = match blocks {
            0 => self.slots.remove(&address),
            _ => self.slots.insert(address, blocks),
        };
        if before.unwrap_or(0) != blocks {
            self.dirty.insert(address);
        }
    }

    /// Notes more of them, and says which of these are new. With too many the rest is left for a later round to find.
    pub(super) fn note(&mut self, address: SlotAddress, blocks: u16) -> u16 {
        let known = self.of(address);
        let new = blocks & !known;
        if new == 0 || known == 0 && self.slots.len() >= BAD_SLOTS_MAX {
            return 0;
        }
        self.put(address, known | new);
        new
    }

    /// The volume's rows go as a whole.
    pub(super) fn wipe(&mut self, volume: VolumeId) {
        self.slots.retain(|address, _| address.volume != volume);
        self.dirty.retain(|address| address.volume != volume);
    }

    pub(crate) fn take_dirty(&mut self) -> BTreeSet<SlotAddress> {
        std::mem::take(&mut self.dirty)
    }
}

impl Store {
    /// Below what these blocks of a version are read: `Lsn::MAX` for the present, else a point that is needed lies
    /// between the version and the next one that has the block. What nobody reads is left out.
    pub(crate) fn read_below(&self, address: SlotAddress, blocks: u16) -> BTreeMap<Lsn, u16> {
        let mut below: BTreeMap<Lsn, u16> = BTreeMap::new();
        let Some(replica) = self.replica(address.volume) else { return below };
        for block in bits_of(blocks) {
            let bit = 1 << block;
            let versions = replica.versions(address.chunk, address.slot, FloorRange::ALL);
            let mut newer = versions.filter(|(floor, _)| *floor > address.floor);
            let next = newer.find(|(_, version)| (version.set | version.stale | version.lost) & bit != 0);
            let is_read = |next: Lsn| {
                let (volume, floor) = (address.volume, address.floor);
                replica.kept.separates(floor, next) || self.is_read_between(volume, floor, next)
            };
            match next {
                None => *below.entry(Lsn::MAX).or_default() |= bit,
                Some((floor, _)) if is_read(floor) => *below.entry(floor).or_default() |= bit,
                Some(_) => {}
            }
        }
        below
    }
}
