//! Verify: data beside the journal. A record whose batch is not known to have been wholly durable may name places
//! whose data never came; then its chunk's history ends before it. Nothing after it was acknowledged, because
//! acknowledgements go out in order.

use super::scan::History;
use crate::place::{Place, Sequence};
use crate::record::{Body, Record};
use ashlar_types::{BLOCK_BYTES, ChunkIndex, Crc32, VolumeId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What stands at the places in doubt; `None` if it cannot be read.
pub(super) type Contents = BTreeMap<Place, Option<Bytes>>;

/// A record's place in the history.
type At = (Sequence, usize);

/// Where chunks' histories end early.
pub(super) struct Doubt {
    cuts: BTreeMap<(VolumeId, ChunkIndex), At>,
}

/// A whole slot beside the journal that must be verified.
struct Unproven<'a> {
    at: At,
    chunk: (VolumeId, ChunkIndex),
    place: Place,
    crcs: &'a [Crc32],
}

pub(super) fn places_in_doubt(history: &History) -> Vec<Place> {
    unproven(history).map(|direct| direct.place).collect::<BTreeSet<_>>().into_iter().collect()
}

fn records(history: &History) -> impl Iterator<Item = (At, &Record)> {
    let batches = history.batches.iter();
    batches.flat_map(|batch| batch.records.iter().enumerate().map(|(i, (record, _))| ((batch.sequence, i), record)))
}

fn unproven(history: &History) -> impl Iterator<Item = Unproven<'_>> {
    let recent = records(history).filter(|((sequence, _), _)| *sequence > history.durable);
    recent.flat_map(|(at, record)| {
        let chunk = record.chunk().map(|chunk| (record.volume, chunk));
        let directs = record.directs().into_iter();
        directs.map(move |(_, place, crcs)| Unproven { at, chunk: chunk.expect("data is a chunk's"), place, crcs })
    })
}

impl Doubt {
    pub(super) fn new(history: &History, contents: &Contents) -> Doubt {
        // Blocks of the places in doubt that later records brought through the journal, in order of the history.
        let mut brought: BTreeMap<(Place, u32), Vec<At>> = BTreeMap::new();
        for (at, record) in records(history) {
            for (_, place, block, _) in
                record.payload().into_iter().filter(|(_, place, ..)| contents.contains_key(place))
            {
                brought.entry((place, block)).or_default().push(at);
            }
        }
        let mut doubt = Doubt { cuts: BTreeMap::new() };
        // A cut may take away what superseded another record's data, so until nothing changes.
        while let Some((chunk, at)) = unproven(history).find_map(|direct| doubt.fault(&direct, contents, &brought)) {
            doubt.cuts.insert(chunk, at);
        }
        doubt
    }

    /// The cut that this record's data makes necessary.
    fn fault(
        &self,
        direct: &Unproven,
        contents: &Contents,
        brought: &BTreeMap<(Place, u32), Vec<At>>,
    ) -> Option<((VolumeId, ChunkIndex), At)> {
        let cut = self.cuts.get(&direct.chunk).copied().unwrap_or((Sequence(u64::MAX), 0));
        if direct.at >= cut {
            return None;
        }
        let content = contents.get(&direct.place).expect("every place in doubt was read").as_ref();
        let is_there = |block: usize| {
            let at = block * BLOCK_BYTES as usize;
            content.is_some_and(|content| Crc32::of(&content[at..at + BLOCK_BYTES as usize]) == direct.crcs[block])
        };
        let is_superseded = |block: usize| {
            let later = brought.get(&(direct.place, block as u32)).into_iter().flatten();
            later.into_iter().any(|&at| at > direct.at && at < cut)
        };
        let is_whole = (0..direct.crcs.len()).all(|block| is_there(block) || is_superseded(block));
        (!is_whole).then_some((direct.chunk, direct.at))
    }

    /// Whether the record is not part of the history. A return that ended after a cut did not end.
    pub(super) fn is_cut(&self, record: &Record, at: At) -> bool {
        match record.chunk() {
            Some(chunk) => self.cuts.get(&(record.volume, chunk)).is_some_and(|&cut| at >= cut),
            None if record.body == Body::FinishSync => {
                let mut of_volume = self.cuts.iter().filter(|((volume, _), _)| *volume == record.volume);
                of_volume.any(|(_, &cut)| at >= cut)
            }
            None => false,
        }
    }
}
