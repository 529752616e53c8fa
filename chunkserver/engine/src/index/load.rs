//! Reading the index back. A damaged slot loses its blocks, a damaged chunk its completeness; a damaged volume row
//! loses the promise, without which the disk must not serve at all.

use super::{
    Key, Loaded, Position, decode_bad, decode_chunk, decode_kept, decode_replica, decode_round, decode_slot,
    decode_start,
};
use crate::RecoverError;
use crate::place::Sequence;
use crate::replica::{Chunk, Slot, SlotAddress};
use ashlar_types::{DiskId, Lsn, VolumeId};

type Rows = [(Vec<u8>, Vec<u8>)];

pub(crate) fn load(rows: &Rows, disk: DiskId, slot_count: u32, journal_bytes: u64) -> Result<Loaded, RecoverError> {
    let mut loaded = Loaded::default();
    let mut keys = Vec::with_capacity(rows.len());
    for (key, _) in rows {
        keys.push(Key::decode(key).map_err(|_| RecoverError::DamagedIndex(format!("unknown key {key:02x?}")))?);
    }
    for (key, (raw, value)) in keys.iter().zip(rows) {
        match *key {
            Key::Position => loaded.load_start(raw, value, disk, journal_bytes)?,
            Key::Volume(volume) => {
                let damaged = |_| RecoverError::DamagedIndex(format!("the row of volume {volume}"));
                loaded.volumes.insert(volume, decode_replica(raw, value).map_err(damaged)?);
            }
            // What scrub has noted and is damaged is found again.
            Key::Bad(address) => loaded.bad.extend(decode_bad(raw, value).map(|blocks| (address, blocks))),
            Key::Round => loaded.round = decode_round(raw, value).unwrap_or_default(),
            Key::Kept(_) | Key::Chunk(..) | Key::Slot(_) => {}
        }
    }
    if loaded.start.is_none() && !rows.is_empty() {
        return Err(RecoverError::DamagedIndex("it has no position in the journal".to_owned()));
    }
    loaded.check_bases()?;
    // Chunks sort before slots.
    for (key, (raw, value)) in keys.iter().zip(rows) {
        match *key {
            Key::Chunk(volume, chunk) => {
                let entry = decode_chunk(raw, value).unwrap_or_else(|_| {
                    loaded.damaged_chunks.push((volume, chunk));
                    Chunk::new(false)
                });
                let doubted = loaded.damaged_chunks.last() == Some(&(volume, chunk));
                let replica = loaded.owner(volume)?;
                // The writer must know that what this replica says of its history cannot be relied on.
                replica.incomplete |= doubted;
                replica.chunks.insert(chunk, entry);
            }
            Key::Slot(address) => loaded.load_slot(address, raw, value, slot_count)?,
            Key::Kept(volume) => {
                // A damaged one says nothing: every version is kept.
                let kept = decode_kept(raw, value).unwrap_or_default();
                loaded.owner(volume)?.kept = kept;
            }
            Key::Position | Key::Volume(_) | Key::Bad(_) | Key::Round => {}
        }
    }
    Ok(loaded)
}

impl Loaded {
    fn load_start(&mut self, key: &[u8], value: &[u8], disk: DiskId, journal: u64) -> Result<(), RecoverError> {
        let damaged = || RecoverError::DamagedIndex("the position in the journal".to_owned());
        let (start, owner) = decode_start(key, value).map_err(|_| damaged())?;
        if owner != disk {
            return Err(RecoverError::ForeignIndex);
        }
        let Position { next_sequence, next_offset, .. } = start.position;
        let may_be = (1..=Sequence::BELIEVED_MAX.0).contains(&next_sequence.0)
            && crate::ring::may_start_at(next_offset, journal)
            && start.reach.is_none_or(|reach| reach <= journal);
        if !may_be {
            return Err(damaged());
        }
        self.start = Some(start);
        Ok(())
    }

    fn load_slot(&mut self, address: SlotAddress, key: &[u8], value: &[u8], places: u32) -> Result<(), RecoverError> {
        let of_chunk = self.volumes.get(&address.volume).and_then(|replica| replica.chunks.get(&address.chunk));
        let newest = of_chunk.map_or(Lsn::ZERO, |chunk| chunk.prefix.max(chunk.adopted));
        let slot = decode_slot(key, value, places).unwrap_or_else(|_| {
            self.damaged_slots.push(address);
            // What was written here is unknown: everything, and as late as anything in the chunk, so that every copy
            // covers it.
            let stamp = if newest == Lsn::ZERO { Lsn::MAX } else { newest };
            Slot { set: u16::MAX, valid: u16::MAX, lost: u16::MAX, stamp, ..Slot::new() }
        });
        let replica = self.owner(address.volume)?;
        let (stale, placed) = (slot.stale != 0, slot.place.is_some());
        let chunk = replica.chunks.entry(address.chunk).or_insert_with(|| Chunk::new(false));
        chunk.slots.put((address.slot, address.floor), slot);
        chunk.stale_slots += u32::from(stale);
        replica.stale_slots += u64::from(stale);
        replica.count_place(address.floor, false, placed);
        Ok(())
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

    fn owner(&mut self, volume: VolumeId) -> Result<&mut crate::replica::Replica, RecoverError> {
        let orphan = || RecoverError::DamagedIndex(format!("volume {volume} has no row"));
        self.volumes.get_mut(&volume).ok_or_else(orphan)
    }
}
