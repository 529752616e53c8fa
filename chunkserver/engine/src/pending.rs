//! Pending: what records on their way will have done. Admission of later requests must see it; reads must not.
//!
//! Lookup only, never iterated. An entry lives as long as a record that touched it is on its way.

use crate::place::Place;
use crate::record::{Body, Record};
use crate::replica::SlotAddress;
use ashlar_types::{ChunkIndex, Epoch, Lsn, VolumeId};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// The latest outcome, and how many records on their way touched it.
struct Expected<T> {
    value: T,
    records: u32,
}

#[derive(Default)]
pub(crate) struct Pending {
    places: HashMap<SlotAddress, Expected<Option<Place>>>,
    prefixes: HashMap<(VolumeId, ChunkIndex), Expected<Lsn>>,
    promises: HashMap<VolumeId, Expected<Epoch>>,
    /// Chunks whose stale marks will be gone.
    voids: HashMap<(VolumeId, ChunkIndex), Expected<()>>,
    /// Replicas whose marks will change, and what copies bring.
    marks: HashMap<VolumeId, Expected<()>>,
}

impl Pending {
    /// The place that the slot will have; `None` when no record on its way touches it.
    pub(crate) fn place(&self, address: SlotAddress) -> Option<Option<Place>> {
        self.places.get(&address).map(|expected| expected.value)
    }

    pub(crate) fn prefix(&self, volume: VolumeId, chunk: ChunkIndex) -> Lsn {
        self.prefixes.get(&(volume, chunk)).map_or(Lsn::ZERO, |expected| expected.value)
    }

    pub(crate) fn promised(&self, volume: VolumeId) -> Epoch {
        self.promises.get(&volume).map_or(Epoch::NONE, |expected| expected.value)
    }

    pub(crate) fn is_voided(&self, volume: VolumeId, chunk: ChunkIndex) -> bool {
        self.voids.contains_key(&(volume, chunk))
    }

    /// Whether a version may be marked, or copied over, that nothing says of now.
    pub(crate) fn changes_marks(&self, volume: VolumeId) -> bool {
        self.marks.contains_key(&volume)
    }

    pub(crate) fn expect_place(&mut self, address: SlotAddress, place: Option<Place>) {
        note(&mut self.places, address, |_| place);
    }

    pub(crate) fn expect_record(&mut self, record: &Record) {
        if record.changes_marks() {
            note(&mut self.marks, record.volume, |_| ());
        }
        if let Body::Clone { base, .. } = &record.body {
            // Until it is known which point the clone reads by, nothing of its source is merged.
            note(&mut self.marks, base.volume, |_| ());
        }
        match &record.body {
            Body::Write { range, lsn, .. } | Body::Discard { range, lsn, .. } => {
                note(&mut self.prefixes, (record.volume, range.chunk), |_| *lsn);
            }
            Body::Promise { epoch, .. } | Body::DeleteVolume { epoch } | Body::Clone { epoch, .. } => {
                note(&mut self.promises, record.volume, |older| older.map_or(*epoch, |older| older.max(*epoch)));
            }
            Body::VoidStale { chunk } => note(&mut self.voids, (record.volume, *chunk), |_| ()),
            _ => {}
        }
    }

    /// The record has been applied.
    pub(crate) fn settle(&mut self, record: &Record, touched: &[SlotAddress]) {
        for &address in touched {
            forget(&mut self.places, address);
        }
        if record.changes_marks() {
            forget(&mut self.marks, record.volume);
        }
        if let Body::Clone { base, .. } = &record.body {
            forget(&mut self.marks, base.volume);
        }
        match &record.body {
            Body::Write { range, .. } | Body::Discard { range, .. } => {
                forget(&mut self.prefixes, (record.volume, range.chunk));
            }
            Body::Promise { .. } | Body::DeleteVolume { .. } | Body::Clone { .. } => {
                forget(&mut self.promises, record.volume);
            }
            Body::VoidStale { chunk } => forget(&mut self.voids, (record.volume, *chunk)),
            _ => {}
        }
    }
}

fn note<K: Eq + Hash, V: Copy>(map: &mut HashMap<K, Expected<V>>, key: K, value: impl FnOnce(Option<V>) -> V) {
    match map.entry(key) {
        Entry::Occupied(mut entry) => {
            let expected = entry.get_mut();
            expected.value = value(Some(expected.value));
            expected.records += 1;
        }
        Entry::Vacant(entry) => {
            entry.insert(Expected { value: value(None), records: 1 });
        }
    }
}

fn forget<K: Eq + Hash, V>(map: &mut HashMap<K, Expected<V>>, key: K) {
    let Entry::Occupied(mut entry) = map.entry(key) else { panic!("a record settles what it never touched") };
    entry.get_mut().records -= 1;
    if entry.get().records == 0 {
        entry.remove();
    }
}
