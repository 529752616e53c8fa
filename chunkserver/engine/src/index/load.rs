//! Reading the index back, row by row: nothing is kept but what comes of it. A damaged slot loses its blocks, a damaged
//! chunk its completeness; a damaged volume row loses the promise, without which the disk must not serve at all.
//!
//! Rows come in the order of their keys, in which chunks and slots are ahead of their volume: until its row has come
//! they belong to a stand-in.

use super::{
    Key, Loaded, Position, decode_bad, decode_chunk, decode_kept, decode_replica, decode_round, decode_slot,
    decode_start,
};
use crate::RecoverError;
use crate::place::Sequence;
use crate::replica::{Chunk, Replica, Slot, SlotAddress};
use crate::superblock::Superblock;
use crate::versions::VersionKey;
use ashlar_types::{ByteCount, ChunkIndex, Epoch, Lsn, VolumeId};
use std::collections::BTreeSet;
use std::fmt;

/// The index of a disk while it is read. What is wrong with it is said by [`crate::Engine::new`].
pub struct IndexLoad {
    superblock: Superblock,
    count: u64,
    loaded: Loaded,
    /// Volumes whose rows have come.
    known: BTreeSet<VolumeId>,
    /// Of the chunk that is being read: the versions, to be packed together.
    versions: Vec<(VersionKey, Slot)>,
    chunk: Option<(VolumeId, ChunkIndex)>,
    fault: Option<RecoverError>,
}

impl IndexLoad {
    pub fn new(superblock: Superblock) -> IndexLoad {
        IndexLoad {
            superblock,
            count: 0,
            loaded: Loaded::default(),
            known: BTreeSet::new(),
            versions: Vec::new(),
            chunk: None,
            fault: None,
        }
    }

    /// Of rows that are at hand, in ascending order of the keys.
    pub fn of<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        superblock: Superblock,
        rows: impl IntoIterator<Item = (K, V)>,
    ) -> IndexLoad {
        let mut load = IndexLoad::new(superblock);
        rows.into_iter().for_each(|(key, value)| load.row(key.as_ref(), value.as_ref()));
        load
    }

    /// The next row, in ascending order of the keys.
    pub fn row(&mut self, key: &[u8], value: &[u8]) {
        self.count += 1;
        if self.fault.is_none() {
            self.fault = self.take(key, value).err();
        }
    }

    /// How many rows have come.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Every row has come. Of a disk just formatted there is none.
    pub(crate) fn finish(mut self) -> Result<(Superblock, Loaded), RecoverError> {
        self.end_chunk();
        match self.fault {
            Some(fault) => return Err(fault),
            None if self.loaded.start.is_none() && self.count > 0 => {
                return Err(RecoverError::DamagedIndex("it has no position in the journal".to_owned()));
            }
            None => {}
        }
        if let Some(volume) = self.loaded.volumes.keys().find(|volume| !self.known.contains(volume)) {
            return Err(RecoverError::DamagedIndex(format!("volume {volume} has no row")));
        }
        self.loaded.check_bases()?;
        Ok((self.superblock, self.loaded))
    }

    fn take(&mut self, raw: &[u8], value: &[u8]) -> Result<(), RecoverError> {
        let key = Key::decode(raw).map_err(|_| RecoverError::DamagedIndex(format!("unknown key {raw:02x?}")))?;
        match key {
            Key::Position => self.take_start(raw, value)?,
            Key::Volume(volume) => self.take_volume(volume, raw, value)?,
            // A damaged one says nothing: every version is kept.
            Key::Kept(volume) => self.loaded.replica(volume).kept = decode_kept(raw, value).unwrap_or_default(),
            Key::Chunk(volume, chunk) => self.loaded.take_chunk(volume, chunk, raw, value),
            Key::Slot(address) => self.take_slot(address, raw, value),
            // What scrub has noted and is damaged is found again.
            Key::Bad(address) => self.loaded.bad.extend(decode_bad(raw, value).map(|blocks| (address, blocks))),
            Key::Round => self.loaded.round = decode_round(raw, value).unwrap_or_default(),
        }
        Ok(())
    }

    fn take_start(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecoverError> {
        let damaged = || RecoverError::DamagedIndex("the position in the journal".to_owned());
        let (start, owner) = decode_start(key, value).map_err(|_| damaged())?;
        if owner != self.superblock.disk {
            return Err(RecoverError::ForeignIndex);
        }
        let journal = self.superblock.layout.journal.0;
        let Position { next_sequence, next_offset, .. } = start.position;
        let may_be = (1..=Sequence::BELIEVED_MAX.0).contains(&next_sequence.0)
            && crate::ring::may_start_at(next_offset, journal)
            && start.reach.is_none_or(|reach| reach <= journal);
        if !may_be {
            return Err(damaged());
        }
        self.loaded.start = Some(start);
        Ok(())
    }

    fn take_volume(&mut self, volume: VolumeId, key: &[u8], value: &[u8]) -> Result<(), RecoverError> {
        let damaged = |_| RecoverError::DamagedIndex(format!("the row of volume {volume}"));
        let replica = decode_replica(key, value).map_err(damaged)?;
        let stand_in = self.loaded.replica(volume);
        let Replica { kept, held, stale_slots, chunks, incomplete, .. } =
            std::mem::replace(stand_in, Replica::new(Epoch::NONE, ByteCount(0)));
        let incomplete = incomplete || replica.incomplete;
        *stand_in = Replica { kept, held, stale_slots, chunks, incomplete, ..replica };
        self.known.insert(volume);
        Ok(())
    }

    fn take_slot(&mut self, address: SlotAddress, key: &[u8], value: &[u8]) {
        let SlotAddress { volume, chunk, .. } = address;
        if self.chunk != Some((volume, chunk)) {
            self.end_chunk();
            self.chunk = Some((volume, chunk));
        }
        let slot = self.loaded.slot(address, key, value, self.superblock.layout.slot_count);
        self.versions.push(((address.slot, address.floor), slot));
    }

    fn end_chunk(&mut self) {
        let Some((volume, chunk)) = self.chunk.take() else { return };
        let entry = self.loaded.replica(volume).chunks.get_mut(&chunk).expect("it was made with its first slot");
        entry.slots.put_all(&self.versions);
        self.versions.clear();
    }
}

impl fmt::Debug for IndexLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IndexLoad({} rows of disk {})", self.count, self.superblock.disk)
    }
}

impl Loaded {
    fn replica(&mut self, volume: VolumeId) -> &mut Replica {
        self.volumes.entry(volume).or_insert_with(|| Replica::new(Epoch::NONE, ByteCount(0)))
    }

    fn take_chunk(&mut self, volume: VolumeId, chunk: ChunkIndex, key: &[u8], value: &[u8]) {
        let entry = decode_chunk(key, value);
        if entry.is_err() {
            self.damaged_chunks.push((volume, chunk));
        }
        let replica = self.replica(volume);
        // The writer must know that what this replica says of its history cannot be relied on.
        replica.incomplete |= entry.is_err();
        replica.chunks.insert(chunk, entry.unwrap_or_else(|_| Chunk::new(false)));
    }

    fn slot(&mut self, address: SlotAddress, key: &[u8], value: &[u8], places: u32) -> Slot {
        let decoded = decode_slot(key, value, places);
        if decoded.is_err() {
            self.damaged_slots.push(address);
        }
        let replica = self.replica(address.volume);
        let chunk = replica.chunks.entry(address.chunk).or_insert_with(|| Chunk::new(false));
        let slot = decoded.unwrap_or_else(|_| {
            // What was written here is unknown: everything, and as late as anything in the chunk, so that every copy
            // covers it.
            let newest = chunk.prefix.max(chunk.adopted);
            let stamp = if newest == Lsn::ZERO { Lsn::MAX } else { newest };
            Slot { set: u16::MAX, valid: u16::MAX, lost: u16::MAX, stamp, ..Slot::new() }
        });
        chunk.stale_slots += u32::from(slot.stale != 0);
        replica.stale_slots += u64::from(slot.stale != 0);
        replica.count_place(address.floor, false, slot.place.is_some());
        slot
    }

    /// A clone whose base has no row, or is read from in a circle, cannot be served: what it shows would be taken for
    /// zeros. And a row that is gone took a promise with it.
    fn check_bases(&self) -> Result<(), RecoverError> {
        let base_of =
            |volume: VolumeId| self.volumes.get(&volume).map(|replica| replica.base().map(|base| base.volume));
        for &clone in self.volumes.keys() {
            let mut below = Some(clone);
            // A chain that is longer than there are replicas goes round.
            for _ in 0..=self.volumes.len() {
                let Some(volume) = below else { break };
                let damaged = || RecoverError::DamagedIndex(format!("the base {volume} of clone {clone} has no row"));
                below = base_of(volume).ok_or_else(damaged)?;
            }
            if below.is_some() {
                return Err(RecoverError::DamagedIndex(format!("clone {clone} is read from in a circle")));
            }
        }
        Ok(())
    }
}
