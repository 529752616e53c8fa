//! Versions: those of the slots of one chunk, packed. A disk has at least one for each slot written, all of them in
//! RAM, so what each takes is what a chunkserver takes.
//!
//! ```text
//!  segments   | slots 0..107 | 107..214 | ... | 963..1024 |   packed versions, ascending by slot and floor
//!  packed     16 x block crc 4, lower half of the stamp 4, place 4, valid 2, tag 2                          = 76 bytes
//!  tag        origin 9 bits | slot within the segment 7 bits
//!  origin     floor 8, upper half of the stamp 4, how many packed versions have it 4                        = 16 bytes
//!  whole      versions that have no packed form, as they are
//! ```
//! Packed is a version without stale, fresh or lost blocks, of which every block that is set is valid, if there is
//! room for it and its origin. So are nearly all; one that is in a return, or hides what is below it with zeros, is
//! whole until it is so no more.
//!
//! Invariants: a version is packed or whole, never both; a segment and `whole` ascend; an origin's count is that of
//! the packed versions that name it, and the last origin has one; what is iterated is in order of slot and floor,
//! wherever it is kept.

use crate::place::Place;
use crate::replica::Slot;
use ashlar_types::{BLOCKS_PER_SLOT, Crc32, Lsn, SLOTS_PER_CHUNK, SlotIndex};
use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::ops::{Bound, RangeBounds};

/// Which version of which slot.
pub(crate) type VersionKey = (SlotIndex, Lsn);

/// A segment with one version of each slot fills this. It is a size that allocators have: they round up, and 64 slots
/// took 85 bytes each, of which nine were for nothing.
const SEGMENT_BYTES: usize = 8192;
const SEGMENT_SLOTS: usize = SEGMENT_BYTES / size_of::<Packed>();
const SEGMENTS: usize = (SLOTS_PER_CHUNK as usize).div_ceil(SEGMENT_SLOTS);
/// One version more moves those behind it: at most 127 KiB.
const SEGMENT_VERSIONS_MAX: usize = 16 * SEGMENT_SLOTS;
/// For how many more versions a full segment makes room, at least.
const GROWTH: usize = 8;
const SLOT_BITS: u32 = 7;
const ORIGINS_MAX: usize = 1 << (16 - SLOT_BITS);

const _: () = assert!(size_of::<Packed>() == 76 && size_of::<Origin>() == 16 && size_of::<Versions>() == 64);
const _: () = assert!(SEGMENT_SLOTS <= 1 << SLOT_BITS);

#[derive(Clone, Default)]
pub(crate) struct Versions {
    /// None, or all of a chunk.
    segments: Box<[Vec<Packed>]>,
    origins: Vec<Origin>,
    whole: BTreeMap<VersionKey, Slot>,
}

#[derive(Clone, Copy)]
struct Packed {
    crcs: [Crc32; BLOCKS_PER_SLOT as usize],
    stamp: u32,
    place: u32,
    valid: u16,
    tag: u16,
}

/// What the versions of a chunk have in common: one for each snapshot and epoch under which it was written.
#[derive(Clone, Copy)]
struct Origin {
    floor: Lsn,
    stamp: u32,
    count: u32,
}

/// A segment, and which of its versions.
type At = (usize, usize);

impl Versions {
    pub(crate) fn len(&self) -> usize {
        self.segments.iter().map(Vec::len).sum::<usize>() + self.whole.len()
    }

    pub(crate) fn get(&self, key: VersionKey) -> Option<Slot> {
        match self.find(key) {
            Ok((segment, index)) => Some(self.unpacked(&self.segments[segment][index])),
            Err(_) => self.whole.get(&key).cloned(),
        }
    }

    /// In place of the version that was there, if any.
    pub(crate) fn put(&mut self, key: VersionKey, slot: Slot) {
        assert!(u32::from(key.0.0) < SLOTS_PER_CHUNK);
        let found = self.find(key);
        let may_be_packed = is_plain(&slot) && (found.is_ok() || self.has_room(segment_of(key.0)));
        let Some(origin) = may_be_packed.then(|| self.enter(key.1, slot.stamp)).flatten() else {
            self.remove_packed(key);
            self.whole.insert(key, slot);
            return;
        };
        let packed = Packed::new(key.0, origin, &slot);
        match found {
            Ok((segment, index)) => {
                let old = std::mem::replace(&mut self.segments[segment][index], packed);
                self.leave(old.origin());
            }
            Err((segment, index)) => {
                self.whole.remove(&key);
                self.make_room(segment);
                self.segments[segment].insert(index, packed);
            }
        }
    }

    pub(crate) fn remove(&mut self, key: VersionKey) {
        if !self.remove_packed(key) {
            self.whole.remove(&key);
        }
    }

    /// What is read back, in ascending order: segments have no more room than they need.
    pub(crate) fn put_all(&mut self, versions: &[(VersionKey, Slot)]) {
        for run in versions.chunk_by(|(a, _), (b, _)| segment_of(a.0) == segment_of(b.0)) {
            let plain = run.iter().filter(|(_, slot)| is_plain(slot)).count();
            if plain > 0 {
                self.segments_mut()[segment_of(run[0].0.0)].reserve_exact(plain.min(SEGMENT_VERSIONS_MAX));
            }
            run.iter().for_each(|(key, slot)| self.put(*key, slot.clone()));
        }
    }

    pub(crate) fn iter(&self) -> Range<'_> {
        self.range(..)
    }

    /// Ascending by slot and floor.
    pub(crate) fn range(&self, bounds: impl RangeBounds<VersionKey>) -> Range<'_> {
        let (start, end) = (bounds.start_bound().cloned(), bounds.end_bound().cloned());
        let first = match start {
            Bound::Unbounded => (0, 0),
            Bound::Included(key) => self.find(key).unwrap_or_else(|at| at),
            Bound::Excluded(key) => behind(self.find(key)),
        };
        let all = (self.segments.len(), 0);
        let end_at = match end {
            Bound::Unbounded => all,
            Bound::Included(key) => behind(self.find_near(key, first)),
            Bound::Excluded(key) => self.find_near(key, first).unwrap_or_else(|at| at),
        };
        Range { versions: self, first, end: end_at.min(all), whole: self.whole.range((start, end)) }
    }

    /// Where the packed version is, or would be.
    fn find(&self, key: VersionKey) -> Result<At, At> {
        let (segment, within) = (segment_of(key.0), usize::from(within_segment(key.0)));
        let count = self.segments.get(segment).map_or(0, Vec::len);
        // Exact where every slot before it has one version, or as many as every other.
        let guess = if count <= SEGMENT_SLOTS { within } else { within * count / SEGMENT_SLOTS };
        self.find_near(key, (segment, guess))
    }

    /// The same; found at once where it is near the guess.
    fn find_near(&self, (slot, floor): VersionKey, guess: At) -> Result<At, At> {
        let (segment, within) = (segment_of(slot), within_segment(slot));
        let Some(packed) = self.segments.get(segment) else { return Err((segment, 0)) };
        let floor_of = |version: &Packed| self.origins[version.origin()].floor;
        let is_before =
            |version: &Packed| version.within() < within || version.within() == within && floor_of(version) < floor;
        let guess = if guess.0 == segment { guess.1.min(packed.len()) } else { 0 };
        let index = partition_near(packed, guess, is_before);
        match packed.get(index) {
            Some(version) if version.within() == within && floor_of(version) == floor => Ok((segment, index)),
            _ => Err((segment, index)),
        }
    }

    fn key_of(&self, segment: usize, packed: &Packed) -> VersionKey {
        let slot = segment * SEGMENT_SLOTS + usize::from(packed.within());
        (SlotIndex(slot as u16), self.origins[packed.origin()].floor)
    }

    fn unpacked(&self, packed: &Packed) -> Slot {
        let stamp = u64::from(self.origins[packed.origin()].stamp) << 32 | u64::from(packed.stamp);
        let Packed { crcs, place, valid, .. } = *packed;
        let (place, stamp) = (Place::from_raw(place), Lsn::from_raw(stamp));
        Slot { place, set: valid, valid, stale: 0, fresh: 0, lost: 0, stamp, crcs }
    }

    fn segments_mut(&mut self) -> &mut [Vec<Packed>] {
        if self.segments.is_empty() {
            self.segments = vec![Vec::new(); SEGMENTS].into();
        }
        &mut self.segments
    }

    fn has_room(&self, segment: usize) -> bool {
        self.segments.get(segment).is_none_or(|packed| packed.len() < SEGMENT_VERSIONS_MAX)
    }

    fn make_room(&mut self, segment: usize) {
        let packed = &mut self.segments_mut()[segment];
        let len = packed.len();
        if len == packed.capacity() {
            let more = if len < SEGMENT_SLOTS { GROWTH.min(SEGMENT_SLOTS - len) } else { GROWTH.max(len / 8) };
            packed.reserve_exact(more);
        }
    }

    fn remove_packed(&mut self, key: VersionKey) -> bool {
        let Ok((segment, index)) = self.find(key) else { return false };
        let packed = &mut self.segments[segment];
        let old = packed.remove(index);
        let room = GROWTH.max(packed.len() / 8);
        if packed.is_empty() || packed.capacity() - packed.len() > 2 * room {
            packed.shrink_to_fit();
        }
        self.leave(old.origin());
        true
    }

    /// The origin that a version is about to have; none if there are too many.
    fn enter(&mut self, floor: Lsn, stamp: Lsn) -> Option<usize> {
        let stamp = (stamp.raw() >> 32) as u32;
        let is_same = |origin: &Origin| (origin.floor, origin.stamp) == (floor, stamp) && origin.count > 0;
        let known = self.origins.iter().position(is_same);
        let index = known.or_else(|| self.origins.iter().position(|origin| origin.count == 0));
        let index = index.unwrap_or(self.origins.len());
        if index == ORIGINS_MAX {
            return None;
        }
        if index == self.origins.len() {
            self.origins.push(Origin { floor, stamp, count: 0 });
        }
        let count = self.origins[index].count + 1;
        self.origins[index] = Origin { floor, stamp, count };
        Some(index)
    }

    fn leave(&mut self, origin: usize) {
        self.origins[origin].count -= 1;
        while self.origins.last().is_some_and(|origin| origin.count == 0) {
            self.origins.pop();
        }
    }
}

impl PartialEq for Versions {
    fn eq(&self, other: &Versions) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Versions {}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Packed {
    fn new(slot: SlotIndex, origin: usize, version: &Slot) -> Packed {
        let Slot { place, valid, stamp, crcs, .. } = *version;
        let tag = (origin as u16) << SLOT_BITS | within_segment(slot);
        Packed { crcs, stamp: stamp.raw() as u32, place: Place::to_raw(place), valid, tag }
    }

    fn within(&self) -> u16 {
        self.tag & ((1 << SLOT_BITS) - 1)
    }

    fn origin(&self) -> usize {
        usize::from(self.tag >> SLOT_BITS)
    }
}

/// Copies of versions. Both kinds are in order, so the next one is the lower of the two next ones.
pub(crate) struct Range<'a> {
    versions: &'a Versions,
    /// Of the packed ones, those from `first` to before `end` are left.
    first: At,
    end: At,
    whole: btree_map::Range<'a, VersionKey, Slot>,
}

impl Range<'_> {
    fn packed_at(&self, (segment, index): At) -> (VersionKey, &Packed) {
        let packed = &self.versions.segments[segment][index];
        (self.versions.key_of(segment, packed), packed)
    }
}

impl Iterator for Range<'_> {
    type Item = (VersionKey, Slot);

    fn next(&mut self) -> Option<(VersionKey, Slot)> {
        while self.first < self.end && self.first.1 == self.versions.segments[self.first.0].len() {
            self.first = (self.first.0 + 1, 0);
        }
        let packed = (self.first < self.end).then(|| self.packed_at(self.first));
        match (packed, self.whole.clone().next()) {
            (Some((key, packed)), whole) if whole.is_none_or(|(other, _)| key < *other) => {
                let slot = self.versions.unpacked(packed);
                self.first.1 += 1;
                Some((key, slot))
            }
            _ => self.whole.next().map(|(&key, slot)| (key, slot.clone())),
        }
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<(VersionKey, Slot)> {
        while self.first < self.end && self.end.1 == 0 {
            self.end = (self.end.0 - 1, self.versions.segments[self.end.0 - 1].len());
        }
        let packed = (self.first < self.end).then(|| self.packed_at((self.end.0, self.end.1 - 1)));
        match (packed, self.whole.clone().next_back()) {
            (Some((key, packed)), whole) if whole.is_none_or(|(other, _)| key > *other) => {
                let slot = self.versions.unpacked(packed);
                self.end.1 -= 1;
                Some((key, slot))
            }
            _ => self.whole.next_back().map(|(&key, slot)| (key, slot.clone())),
        }
    }
}

fn behind(found: Result<At, At>) -> At {
    found.map_or_else(|at| at, |(segment, index)| (segment, index + 1))
}

/// The index of the first version that is not before what is looked for: from the guess in steps that double.
fn partition_near(packed: &[Packed], guess: usize, is_before: impl Fn(&Packed) -> bool) -> usize {
    let (mut low, mut high, mut step) = (guess, guess, 1);
    while low > 0 && !is_before(&packed[low - 1]) {
        (low, high) = (low.saturating_sub(step), low - 1);
        step *= 2;
    }
    while high < packed.len() && is_before(&packed[high]) {
        (low, high) = (high + 1, (high + step).min(packed.len()));
        step *= 2;
    }
    low + packed[low..high].partition_point(is_before)
}

/// It can be packed.
fn is_plain(slot: &Slot) -> bool {
    slot.set == slot.valid && slot.stale | slot.fresh | slot.lost == 0
}

fn segment_of(slot: SlotIndex) -> usize {
    usize::from(slot.0) / SEGMENT_SLOTS
}

fn within_segment(slot: SlotIndex) -> u16 {
    slot.0 % SEGMENT_SLOTS as u16
}

#[cfg(test)]
mod tests;
