//! Verify: data beside the journal. A record whose batch is not known to have been wholly durable may name places
//! whose data never came; then its volume's history ends before it. Nothing after it was acknowledged, because
//! acknowledgements go out in order. Were only its chunk's history to end, the replica's highest lsn could be above a
//! write that it lost, and its writer would not notice when the data was there once and rotted.
//!
//! Data that is not there is no reason where the end of the history does not need it: a later record has brought the
//! block through the journal (and in place already, perhaps torn), or moved the slot. Which records did, only replay
//! knows: a fill leaves fresh blocks alone, a repair those that are well. So the chunks in doubt are replayed apart,
//! and what they then say of the disk is compared with it.

use super::scan::History;
use crate::config::APPLY_RUN_BLOCKS_MAX;
use crate::place::{DiskBlock, Place, Sequence};
use crate::record::{Body, Record};
use crate::replica::SlotAddress;
use crate::store::Store;
use ashlar_types::{BLOCK_BYTES, BLOCKS_PER_SLOT, ChunkIndex, Crc32, VolumeId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Blocks of one write.
const RUN_BLOCKS_MAX: usize = APPLY_RUN_BLOCKS_MAX as usize;

/// What stands at the places in doubt; `None` if it cannot be read.
pub(super) type Contents = BTreeMap<Place, Option<Bytes>>;

/// A record's place in the history.
type At = (Sequence, usize);

/// Where volumes' histories end early.
#[derive(Default)]
pub(super) struct Doubt {
    cuts: BTreeMap<VolumeId, At>,
}

/// A whole slot beside the journal that must be verified.
struct Unproven {
    at: At,
    address: SlotAddress,
    place: Place,
}

impl Unproven {
    fn chunk(&self) -> (VolumeId, ChunkIndex) {
        (self.address.volume, self.address.chunk)
    }

    /// Whether `store`, the state at the end of the history, needs nothing of the place that is not there.
    fn is_whole(&self, store: &Store, contents: &Contents) -> bool {
        let content = contents.get(&self.place).expect("every place in doubt was read").as_ref();
        self.needed(store).all(|(block, crc)| content.is_some_and(|content| Crc32::of(&part(content, block)) == crc))
    }

    /// Blocks, with their checksums, that `store` has at the place and nowhere else.
    fn needed<'a>(&self, store: &'a Store) -> impl Iterator<Item = (u32, Crc32)> + use<'a> {
        let place = self.place;
        let slot = store.slot(self.address).filter(|slot| slot.place == Some(place));
        let bits = slot.as_ref().map_or(0, |slot| slot.valid & !slot.stale & !slot.lost);
        let blocks = (0..BLOCKS_PER_SLOT).filter(move |block| bits & (1 << block) != 0);
        let blocks = blocks.filter(move |&block| store.overlay.get(place.block(block)).is_none());
        blocks.filter_map(move |block| slot.as_ref().map(|slot| (block, slot.crcs[block as usize])))
    }
}

fn part(content: &Bytes, block: u32) -> Bytes {
    let at = block as usize * BLOCK_BYTES as usize;
    content.slice(at..at + BLOCK_BYTES as usize)
}

/// What stands at a place in doubt is read now, and may yet never become durable: a flush that should have made it so
/// may have failed in an earlier process. So what `store` needs of it is written again: adjoining blocks, and where.
pub(super) fn unsecured(history: &History, contents: &Contents, store: &Store) -> Vec<(DiskBlock, Vec<Bytes>)> {
    let mut runs: Vec<(DiskBlock, Vec<Bytes>)> = Vec::new();
    for direct in unproven(history) {
        let Some(Some(content)) = contents.get(&direct.place) else { continue };
        for (block, _) in direct.needed(store) {
            let (at, data) = (direct.place.block(block), part(content, block));
            match runs.last_mut() {
                Some((first, parts)) if first.0 + parts.len() as u64 == at.0 && parts.len() < RUN_BLOCKS_MAX => {
                    parts.push(data);
                }
                _ => runs.push((at, vec![data])),
            }
        }
    }
    runs
}

pub(super) fn places_in_doubt(history: &History) -> Vec<Place> {
    unproven(history).map(|direct| direct.place).collect::<BTreeSet<_>>().into_iter().collect()
}

fn unproven(history: &History) -> impl Iterator<Item = Unproven> + '_ {
    let recent = history.batches.iter().filter(|batch| batch.sequence > history.durable);
    recent.flat_map(|batch| {
        batch.records.iter().enumerate().flat_map(|(index, (record, _))| {
            let at = (batch.sequence, index);
            record.directs().into_iter().map(move |(address, place)| Unproven { at, address, place })
        })
    })
}

impl Doubt {
    /// `store` is the state from before the replay.
    pub(super) fn new(history: &History, contents: &Contents, store: &Store) -> Doubt {
        let chunks: BTreeSet<_> = unproven(history).map(|direct| direct.chunk()).collect();
        let mut doubt = Doubt::default();
        // A cut takes away what came after it and made up for other data, so until nothing changes.
        while !chunks.is_empty() {
            let after = doubt.replay_apart(history, store, &chunks);
            let mut left = unproven(history).filter(|direct| !doubt.is_beyond_cut(direct.address.volume, direct.at));
            let Some(torn) = left.find(|direct| !direct.is_whole(&after, contents)) else { break };
            doubt.cuts.insert(torn.address.volume, torn.at);
        }
        doubt
    }

    fn replay_apart(&self, history: &History, store: &Store, chunks: &BTreeSet<(VolumeId, ChunkIndex)>) -> Store {
        let mut apart = store.excerpt(chunks);
        for batch in &history.batches {
            for (index, (record, payload)) in batch.records.iter().enumerate() {
                let concerns = record.chunk().is_none_or(|chunk| chunks.contains(&(record.volume, chunk)));
                if concerns && !self.is_cut(record, (batch.sequence, index)) {
                    apart.apply(record, payload, batch.sequence);
                }
            }
        }
        apart
    }

    pub(super) fn cuts_anything(&self) -> bool {
        !self.cuts.is_empty()
    }

    fn is_beyond_cut(&self, volume: VolumeId, at: At) -> bool {
        self.cuts.get(&volume).is_some_and(|&cut| at >= cut)
    }

    /// Whether the record is not part of the history: what changes a chunk, and the end of a return.
    pub(super) fn is_cut(&self, record: &Record, at: At) -> bool {
        let ends_too = record.chunk().is_some() || record.body == Body::FinishSync;
        ends_too && self.is_beyond_cut(record.volume, at)
    }
}
