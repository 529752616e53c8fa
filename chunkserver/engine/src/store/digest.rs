//! Digests: what each slot of a chunk shows below a point, as one checksum. Two replicas that read the same have the
//! same one, whatever versions, bases and discards that is made of.
//!
//! Made from the checksums that every version keeps: no data is read. That data and checksums agree is what scrub
//! proves.

use super::Store;
use ashlar_types::{BLOCKS_PER_SLOT, ChunkIndex, Crc32, FloorRange, Lsn, SlotIndex, SlotSet, VolumeId};
use ashlar_wire::SlotDigest;
use std::collections::BTreeMap;

const BLOCKS: usize = BLOCKS_PER_SLOT as usize;

struct Shown {
    crcs: [Crc32; BLOCKS],
    /// Blocks that await a copy, or were lost.
    unknown: u16,
}

impl Store {
    /// Ascending by slot, without those that read as zeros; and those of which a block is not here.
    pub(crate) fn digests_of(&self, volume: VolumeId, chunk: ChunkIndex, below: Lsn) -> (Vec<SlotDigest>, SlotSet) {
        let mut slots: BTreeMap<SlotIndex, Shown> = BTreeMap::new();
        let shown: Vec<_> = self.shown(volume, FloorRange { from: Lsn::ZERO, below }).collect();
        // The lowest layer first: what lies above it hides it.
        for (_, replica, floors) in shown.into_iter().rev() {
            let versions = replica.chunks.get(&chunk).into_iter().flat_map(|entry| entry.slots.iter());
            for ((slot, _), version) in versions.filter(|((_, floor), _)| floors.contains(*floor)) {
                let zeros = Shown { crcs: [Crc32::ZERO_BLOCK; BLOCKS], unknown: 0 };
                let shown = slots.entry(slot).or_insert(zeros);
                shown.unknown = shown.unknown & !version.set | version.stale | version.lost;
                for block in 0..BLOCKS {
                    let bit = 1 << block;
                    if version.set & bit != 0 {
                        let is_valid = version.valid & bit != 0;
                        shown.crcs[block] = if is_valid { version.crcs[block] } else { Crc32::ZERO_BLOCK };
                    }
                }
            }
        }
        let unknown = slots.iter().filter(|(_, shown)| shown.unknown != 0).map(|(slot, _)| *slot).collect();
        let has_content = |shown: &Shown| shown.unknown == 0 && shown.crcs != [Crc32::ZERO_BLOCK; BLOCKS];
        let known = slots.into_iter().filter(|(_, shown)| has_content(shown));
        (known.map(|(slot, shown)| SlotDigest { slot, digest: digest_of(&shown.crcs) }).collect(), unknown)
    }
}

fn digest_of(crcs: &[Crc32; BLOCKS]) -> Crc32 {
    let mut bytes = [0; BLOCKS * 4];
    for (at, crc) in bytes.chunks_exact_mut(4).zip(crcs) {
        at.copy_from_slice(&crc.0.to_le_bytes());
    }
    Crc32::of(&bytes)
}
