//! Clones on the disk of their source: how their replicas are made, and what of a source stays while clones read it.
//!
//! ```text
//!   source ──DeleteVolume──► deleted, kept: versions below the highest point that a clone reads by ──► tombstone
//!                            merged further, but never across such a point     the last clone is gone or flat
//! ```
//! Invariants: `readers` has every replica with a base, and no other; a replica that is read keeps its own base, also
//! when it is deleted; none is its own base, at whatever remove, because a clone is made of what is there before it.

use super::flatten::covered;
use super::{Ground, Outcome, Store};
use crate::CloneRefusal;
use crate::place::Sequence;
use crate::replica::{Chunk, Replica, SlotAddress};
use ashlar_types::{Base, ByteCount, Epoch, FloorRange, Geometry, Kept, Lsn, Mutant, VolumeId};

impl Store {
    /// The replica of a clone; one that is made already stays as it is.
    pub(super) fn make_clone(&mut self, volume: VolumeId, epoch: Epoch, size: ByteCount, base: Base) -> Outcome {
        if let Some(known) = self.volumes.get(&volume) {
            let is_made = !known.deleted && known.origin == Some(base);
            return if is_made { Outcome::Done } else { Outcome::Refused(CloneRefusal::Exists) };
        }
        let source = match self.source_of(base) {
            Ok(source) => source,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let count = Geometry::new(size).map_or(0, Geometry::chunk_count);
        let inherited = |entry: &Chunk| Chunk { prefix: entry.prefix.min(base.point), ..Chunk::new(true) };
        let chunks = source.chunks.iter().filter(|(chunk, _)| chunk.0 < count);
        let replica = Replica {
            // A disk with an older image is noticed by these in the clone as it is in the source.
            agreed: source.agreed,
            commit: source.commit.min(base.point),
            chunks: chunks.map(|(&chunk, entry)| (chunk, inherited(entry))).collect(),
            // Whoever writes to it writes above what it shows of its base.
            floor: base.point,
            origin: Some(base),
            ..Replica::new(epoch, size)
        };
        replica.chunks.keys().for_each(|&chunk| self.dirty.chunk(volume, chunk));
        self.dirty.volume(volume);
        self.volumes.insert(volume, replica);
        self.readers.insert((base.volume, base.point, volume));
        // Also when nobody knows of the point any more nothing is written below it.
        let source = self.volumes.get_mut(&base.volume).expect("the clone has a source");
        if source.floor < base.point {
            source.floor = base.point;
            self.dirty.volume(base.volume);
        }
        Outcome::Done
    }

    /// The replica that a clone can be made of: whole, and its versions not merged across the point.
    fn source_of(&self, base: Base) -> Result<&Replica, CloneRefusal> {
        let source = self.volumes.get(&base.volume).ok_or(CloneRefusal::NotHere)?;
        let is_read = self.readers_of(base.volume).any(|(point, _)| point == base.point);
        if !is_read && (source.deleted || source.kept.gave_up(base.point)) {
            return Err(CloneRefusal::NotHere);
        }
        if source.is_whole() { Ok(source) } else { Err(CloneRefusal::Incomplete) }
    }

    /// Clones on this disk that read from the volume, ascending by their points.
    fn readers_of(&self, volume: VolumeId) -> impl DoubleEndedIterator<Item = (Lsn, VolumeId)> {
        let (first, last) = (VolumeId::from_u128(0), VolumeId::from_u128(u128::MAX));
        let readers = self.readers.range((volume, Lsn::ZERO, first)..=(volume, Lsn::MAX, last));
        readers.map(|&(_, point, clone)| (point, clone))
    }

    pub(crate) fn is_read(&self, volume: VolumeId) -> bool {
        self.readers_of(volume).next().is_some()
    }

    /// Whether any replica reads from another's.
    pub(crate) fn has_clones(&self) -> bool {
        !self.readers.is_empty()
    }

    /// Whether a clone must tell a version under `older` from one under `newer`.
    pub(super) fn is_read_between(&self, volume: VolumeId, older: Lsn, newer: Lsn) -> bool {
        let mut points = self.readers_of(volume).map(|(point, _)| point);
        points.any(|point| older < point && point <= newer) && !Mutant::MergeIgnoresClones.is_on()
    }

    pub(super) fn delete(&mut self, volume: VolumeId, epoch: Epoch, by: Sequence) {
        let replica = self.volumes.entry(volume).or_insert_with(|| Replica::new(epoch, ByteCount(0)));
        replica.promised = replica.promised.max(epoch);
        replica.deleted = true;
        replica.syncing = None;
        // Nobody needs its snapshots; clones are seen to apart from them.
        replica.kept = Kept { live: Vec::new(), until: Lsn::MAX };
        self.has_new_pairs = true;
        self.dirty.volume(volume);
        self.dirty.kept(volume);
        self.shed(volume, by);
    }

    /// Gives back what nobody reads of a deleted volume, and, when that is all of it, of its base likewise.
    fn shed(&mut self, volume: VolumeId, by: Sequence) {
        let mut next = Some(volume);
        while let Some(volume) = next.take() {
            let Some(replica) = self.volumes.get(&volume).filter(|replica| replica.deleted) else { return };
            let base = replica.base();
            let highest = self.readers_of(volume).next_back().map(|(point, _)| point);
            match highest.filter(|_| !Mutant::DeleteIgnoresClones.is_on()) {
                Some(point) => self.drop_versions(volume, point, by),
                None => {
                    self.wipe(volume, by);
                    next = base.map(|base| base.volume);
                }
            }
        }
    }

    /// The versions of a volume whose floors are not below `point`.
    fn drop_versions(&mut self, volume: VolumeId, point: Lsn, by: Sequence) {
        let chunks = self.volumes[&volume].chunks.iter();
        let keys =
            chunks.flat_map(|(&chunk, entry)| entry.slots.iter().map(move |((slot, floor), _)| (chunk, slot, floor)));
        let address = |(chunk, slot, floor)| SlotAddress { volume, chunk, slot, floor };
        let unread: Vec<SlotAddress> = keys.filter(|(_, _, floor)| *floor >= point).map(address).collect();
        for address in unread {
            self.edit(address, |slot, ground| ground.empty(slot, by));
        }
    }

    /// Nothing but the promise stays.
    fn wipe(&mut self, volume: VolumeId, by: Sequence) {
        self.forget_base(volume);
        let promised = self.volumes[&volume].promised;
        let tombstone = Replica { deleted: true, ..Replica::new(promised, ByteCount(0)) };
        let old = self.volumes.insert(volume, tombstone).expect("the replica exists");
        self.dirty.wipe(volume);
        self.bad.wipe(volume);
        let Store { places, overlay, replaying, .. } = self;
        let mut ground = Ground { places, overlay, bad: 0, replaying: *replaying };
        let slots = old.chunks.values().flat_map(|chunk| chunk.slots.iter());
        for place in slots.filter_map(|(_, slot)| slot.place) {
            ground.release(place, by);
        }
    }

    /// Blocks are copied into one of a slot's versions among `floors`. Where the point of a clone lies among these, the
    /// source's writer does not know of it any more: the clone was out when the others became flat. It would show what
    /// was written after its point, so it loses these blocks, and gets them when it returns or reads them.
    pub(super) fn lose_in_clones(&mut self, copied: SlotAddress, floors: FloorRange, blocks: u16) {
        let readers = self.readers_of(copied.volume).filter(|(point, _)| floors.from < *point && *point < floors.below);
        for clone in readers.map(|(_, clone)| clone).collect::<Vec<_>>() {
            let address = SlotAddress { volume: clone, floor: Lsn::ZERO, ..copied };
            let count = Geometry::new(self.volumes[&clone].size).map_or(0, Geometry::chunk_count);
            let lost = blocks & !self.slot(address).as_ref().map_or(0, covered);
            if lost == 0 || copied.chunk.0 >= count {
                continue;
            }
            self.edit(address, |slot, _| {
                slot.set |= lost;
                slot.valid |= lost;
                slot.lost |= lost;
            });
            self.lost_blocks += u64::from(lost.count_ones());
        }
    }

    /// The replica reads from no base any more: all that it shows is its own.
    pub(super) fn become_flat(&mut self, volume: VolumeId, by: Sequence) {
        let Some(base) = self.forget_base(volume) else { return };
        self.dirty.volume(volume);
        // Versions at floor zero may be merged from now on.
        self.has_new_pairs = true;
        self.shed(base.volume, by);
    }

    fn forget_base(&mut self, volume: VolumeId) -> Option<Base> {
        let replica = self.volumes.get_mut(&volume).expect("the replica exists");
        let base = replica.base()?;
        replica.is_flat = true;
        assert!(self.readers.remove(&(base.volume, base.point, volume)), "who has a base reads it");
        Some(base)
    }
}
