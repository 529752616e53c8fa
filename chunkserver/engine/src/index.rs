//! Index: the durable form of the store, as keys and values. Written at checkpoints only.
//!
//! ```text
//!  key                      value (little-endian; its last 4 bytes: CRC-32 of key and the bytes before)
//!  'p'                      version 3, 0 7, disk id 16, next sequence 8, next offset 8, chain 4, crc 4          = 48
//!  'v' volume               version 3, flags 1, 0 2, promised 4, size 8, commit 8, sync after 8, floor 8,
//!                           session 8, agreed 4, origin's volume 16, point 8, crc 4                             = 80
//!                           flags: 1 syncing, 2 incomplete, 4 deleted, 8 made as a clone, 16 flat
//!  'c' volume, chunk        version 3, flags 1, 0 6, prefix 8, adopted 8, 0 4, crc 4   flags: 1 complete        = 32
//!  'k' volume               version 3, 0 5, count 2, until 8, count x point 8, crc 4
//!  's' volume, chunk, slot, version 3, 0 1, valid 2, stale 2, fresh 2, lost 2, set 2, place 4, stamp 8, 16 x crc 4,
//!      floor                crc 4                                                                               = 92
//!  'b' as 's'               version 3, 0 1, bad blocks 2, crc 4                                                 = 8
//!  'r'                      version 3, flags 1, 0 6, elapsed ms 8, slots 8, found 8, found before 8, rounds 8,
//!                           found ever 8, repaired ever 8, ended unix ms 8, after: volume 16, chunk 4, slot 2, 0 2,
//!                           floor 8, crc 4                                                                      = 108
//!                           flags: 1 there is an `after`
//!  in keys, big-endian: volume 16, chunk 4, slot 2, floor 8
//! ```
//! The CRC covers the key, so a value under a wrong key is a damaged value. `load` reads it all back.

pub(crate) mod load;

use crate::IndexEdit;
use crate::codec::{Malformed, Sink, Source, checked_chunk};
use crate::place::{Place, Sequence};
use crate::replica::{Chunk, Replica, Slot, SlotAddress};
use crate::scrub::Round;
use crate::store::Store;
use ashlar_types::{
    BLOCK_BYTES, BLOCKS_PER_SLOT, Base, ByteCount, ChunkIndex, Crc32, DiskId, Duration, Epoch, Kept, Lsn, Mutant,
    SLOTS_PER_CHUNK, SNAPSHOTS_MAX, SessionId, Slip, SlotIndex, VolumeId,
};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const VERSION: u8 = 3;
const SYNCING: u8 = 1;
const INCOMPLETE: u8 = 2;
const DELETED: u8 = 4;
const CLONE: u8 = 8;
const FLAT: u8 = 16;
const COMPLETE: u8 = 1;

/// In the row of what is no clone.
const NO_ORIGIN: Base = Base { volume: VolumeId::from_u128(0), point: Lsn::ZERO };

/// In the row of a round that is at its beginning.
const NOWHERE: SlotAddress =
    SlotAddress { volume: VolumeId::from_u128(0), chunk: ChunkIndex(0), slot: SlotIndex(0), floor: Lsn::ZERO };

pub(crate) const POSITION_KEY: &[u8] = b"p";

/// Where replay begins: what comes next in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) next_sequence: Sequence,
    /// Counted from the start of the ring.
    pub(crate) next_offset: u64,
    /// Checksum of the batch before.
    pub(crate) chain: Crc32,
}

impl Position {
    /// Of a disk just formatted.
    pub(crate) const START: Position = Position { next_sequence: Sequence(1), next_offset: 0, chain: Crc32(0) };
}

/// Where replay begins, and how far it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) position: Position,
    /// Bytes of the ring from the position on, outside which no batch was written since; the whole ring if the index
    /// does not say.
    pub(crate) reach: Option<u64>,
}

impl Start {
    /// Of a disk just formatted.
    pub(crate) const NEW: Start = Start { position: Position::START, reach: None };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Position,
    Volume(VolumeId),
    Kept(VolumeId),
    Chunk(VolumeId, ChunkIndex),
    Slot(SlotAddress),
    Bad(SlotAddress),
    Round,
}

impl Key {
    pub(crate) fn encode(self) -> Vec<u8> {
        let volume_key = |tag: u8, volume: VolumeId| [&[tag][..], &volume.as_u128().to_be_bytes()].concat();
        let slot_key = |tag: u8, at: SlotAddress| {
            let (chunk, slot, floor) =
                (at.chunk.0.to_be_bytes(), at.slot.0.to_be_bytes(), at.floor.raw().to_be_bytes());
            [&volume_key(tag, at.volume)[..], &chunk, &slot, &floor].concat()
        };
        match self {
            Key::Position => POSITION_KEY.to_vec(),
            Key::Volume(volume) => volume_key(b'v', volume),
            Key::Kept(volume) => volume_key(b'k', volume),
            Key::Chunk(volume, chunk) => [volume_key(b'c', volume), chunk.0.to_be_bytes().to_vec()].concat(),
            Key::Slot(address) => slot_key(b's', address),
            Key::Bad(address) => slot_key(b'b', address),
            Key::Round => vec![b'r'],
        }
    }

    pub(crate) fn decode(key: &[u8]) -> Result<Key, Malformed> {
        let (tag, rest) = key.split_first().ok_or(Malformed)?;
        let mut from = Source::new(rest);
        let mut volume = || from.take().map(|bytes| VolumeId::from_u128(u128::from_be_bytes(bytes)));
        let key = match tag {
            b'p' => Key::Position,
            b'r' => Key::Round,
            b'v' => Key::Volume(volume()?),
            b'k' => Key::Kept(volume()?),
            b'c' => {
                let volume = volume()?;
                Key::Chunk(volume, checked_chunk(from.take().map(u32::from_be_bytes)?)?)
            }
            tag @ (b's' | b'b') => {
                let volume = volume()?;
                let chunk = checked_chunk(from.take().map(u32::from_be_bytes)?)?;
                let slot = SlotIndex(from.take().map(u16::from_be_bytes)?);
                let floor = Lsn::from_raw(from.take().map(u64::from_be_bytes)?);
                let address = SlotAddress { volume, chunk, slot, floor };
                if *tag == b's' { Key::Slot(address) } else { Key::Bad(address) }
            }
            _ => return Err(Malformed),
        };
        from.end()?;
        match key {
            Key::Slot(address) | Key::Bad(address) if u32::from(address.slot.0) >= SLOTS_PER_CHUNK => Err(Malformed),
            key => Ok(key),
        }
    }
}

/// Which entries changed since the last checkpoint.
#[derive(Default)]
pub(crate) struct Dirty {
    volumes: BTreeSet<VolumeId>,
    kept: BTreeSet<VolumeId>,
    chunks: BTreeSet<(VolumeId, ChunkIndex)>,
    slots: BTreeSet<SlotAddress>,
    /// Everything of these goes, before anything else is written.
    wiped: BTreeSet<VolumeId>,
}

impl Dirty {
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.kept.is_empty() && self.chunks.is_empty() && self.slots.is_empty()
    }

    pub(crate) fn volume(&mut self, volume: VolumeId) {
        self.volumes.insert(volume);
    }

    pub(crate) fn kept(&mut self, volume: VolumeId) {
        self.kept.insert(volume);
    }

    pub(crate) fn chunk(&mut self, volume: VolumeId, chunk: ChunkIndex) {
        self.chunks.insert((volume, chunk));
    }

    pub(crate) fn slot(&mut self, address: SlotAddress) {
        self.slots.insert(address);
    }

    pub(crate) fn wipe(&mut self, volume: VolumeId) {
        self.chunks.retain(|&(owner, _)| owner != volume);
        self.slots.retain(|address| address.volume != volume);
        self.wiped.insert(volume);
        self.kept.insert(volume);
        self.volumes.insert(volume);
    }

    /// The edits that bring the index to the store's present state, and nothing is dirty any more.
    pub(crate) fn take_edits(store: &mut Store) -> Vec<IndexEdit> {
        let dirty = std::mem::take(&mut store.dirty);
        let mut edits: Vec<IndexEdit> = dirty.wiped.iter().flat_map(|&volume| wipe_edits(volume)).collect();
        for volume in dirty.volumes {
            let value = store.volumes.get(&volume).map(encode_replica);
            edits.push(edit(Key::Volume(volume), value));
        }
        for volume in dirty.kept {
            let value = store.volumes.get(&volume).filter(|replica| replica.kept != Kept::default());
            edits.push(edit(Key::Kept(volume), value.map(|replica| encode_kept(&replica.kept))));
        }
        for (volume, chunk) in dirty.chunks {
            let entry = store.volumes.get(&volume).and_then(|replica| replica.chunks.get(&chunk));
            edits.push(edit(Key::Chunk(volume, chunk), entry.map(encode_chunk)));
        }
        for address in dirty.slots {
            edits.push(edit(Key::Slot(address), store.slot(address).as_ref().map(encode_slot)));
        }
        for address in store.bad.take_dirty() {
            let blocks = Some(store.bad.of(address)).filter(|blocks| *blocks != 0);
            edits.push(edit(Key::Bad(address), blocks.map(encode_bad)));
        }
        edits
    }
}

/// The edit that says where replay begins.
pub(crate) fn start_edit(start: Start, disk: DiskId) -> IndexEdit {
    edit(Key::Position, Some(encode_start(start, disk)))
}

/// The edit that brings the round of scrub up to date.
pub(crate) fn round_edit(round: &Round) -> IndexEdit {
    edit(Key::Round, Some(encode_round(round)))
}

fn wipe_edits(volume: VolumeId) -> [IndexEdit; 3] {
    let range = |tag: u8| {
        let from = [&[tag][..], &volume.as_u128().to_be_bytes()].concat();
        // Longer than any key of the volume, and below the next volume's first.
        let until = [&from[..], &[0xFF; 16]].concat();
        IndexEdit::DeleteRange { from, until }
    };
    [range(b'b'), range(b'c'), range(b's')]
}

fn edit(key: Key, value: Option<Sink>) -> IndexEdit {
    let key = key.encode();
    match value {
        None => IndexEdit::Delete { key },
        Some(mut value) => {
            let body = std::mem::take(&mut value).into_bytes();
            let crc = Crc32::of_parts(&[&key, &body]);
            value.put(&body).u32(crc.0);
            IndexEdit::Put { key, value: value.into_bytes() }
        }
    }
}

fn encode_start(Start { position, reach }: Start, disk: DiskId) -> Sink {
    let mut to = Sink::new();
    let reach = reach.map_or(0, |reach| u32::try_from(reach / BLOCK_BYTES).expect("the journal is below 16 TiB"));
    to.u8(VERSION).zeros(3).u32(reach).u128(disk.as_u128());
    to.u64(position.next_sequence.0).u64(position.next_offset).u32(position.chain.0);
    to
}

fn encode_replica(replica: &Replica) -> Sink {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let flags = flag(replica.syncing.is_some(), SYNCING)
        | flag(replica.incomplete, INCOMPLETE)
        | flag(replica.deleted, DELETED)
        | flag(replica.origin.is_some(), CLONE)
        | flag(replica.is_flat || Mutant::CloneForgetsBase.is_on() && replica.origin.is_some(), FLAT);
    let origin = replica.origin.unwrap_or(NO_ORIGIN);
    let mut to = Sink::new();
    to.u8(VERSION).u8(flags).zeros(2).u32(replica.promised.number()).u64(replica.size.0).lsn(replica.commit);
    to.lsn(replica.syncing.unwrap_or(Lsn::ZERO)).lsn(replica.floor).u64(replica.session.0).u32(replica.agreed.number());
    to.u128(origin.volume.as_u128()).lsn(origin.point);
    to
}

fn encode_kept(kept: &Kept) -> Sink {
    let mut to = Sink::new();
    to.u8(VERSION).zeros(5).u16(kept.live.len() as u16).lsn(kept.until);
    for &point in &kept.live {
        to.lsn(point);
    }
    to
}

fn encode_chunk(chunk: &Chunk) -> Sink {
    let mut to = Sink::new();
    let complete = chunk.complete || Mutant::StaleMarksNotDurable.is_on();
    to.u8(VERSION).u8(if complete { COMPLETE } else { 0 }).zeros(6);
    to.lsn(chunk.prefix).lsn(chunk.adopted).zeros(4);
    to
}

fn encode_slot(slot: &Slot) -> Sink {
    let mut to = Sink::new();
    let stale = if Mutant::StaleMarksNotDurable.is_on() { 0 } else { slot.stale };
    to.u8(VERSION).zeros(1).u16(slot.valid).u16(stale).u16(slot.fresh).u16(slot.lost).u16(slot.set);
    let stamp = if Mutant::StampsNotDurable.is_on() { Lsn::ZERO } else { slot.stamp };
    to.u32(Place::to_raw(slot.place)).lsn(stamp).crcs(&slot.crcs);
    to
}

fn encode_bad(blocks: u16) -> Sink {
    let mut to = Sink::new();
    to.u8(VERSION).zeros(1).u16(blocks);
    to
}

fn encode_round(round: &Round) -> Sink {
    let after = round.after.unwrap_or(NOWHERE);
    let mut to = Sink::new();
    to.u8(VERSION).u8(u8::from(round.after.is_some())).zeros(6).u64(round.elapsed.as_millis() as u64);
    to.u64(round.slots).u64(round.found).u64(round.found_before).u64(round.rounds).u64(round.found_ever);
    to.u64(round.repaired_ever)
        .u64(round.ended_unix_ms)
        .u128(after.volume.as_u128())
        .u32(after.chunk.0)
        .u16(after.slot.0)
        .zeros(2);
    to.lsn(after.floor);
    to
}

/// The value without its checksum, if the checksum is right and the version is known.
fn checked<'a>(key: &[u8], value: &'a [u8]) -> Result<Source<'a>, Malformed> {
    let (body, crc) = value.split_last_chunk::<4>().ok_or(Malformed)?;
    if Crc32::of_parts(&[key, body]).0 != u32::from_le_bytes(*crc) {
        return Err(Malformed);
    }
    let mut from = Source::new(body);
    if from.u8()? == VERSION { Ok(from) } else { Err(Malformed) }
}

fn decode_start(key: &[u8], value: &[u8]) -> Result<(Start, DiskId), Malformed> {
    let mut from = checked(key, value)?;
    from.zeros::<3>()?;
    let reach = Some(u64::from(from.u32()?) * BLOCK_BYTES).filter(|reach| *reach != 0);
    let disk = DiskId::from_u128(from.u128()?);
    let next_sequence = Sequence(from.u64()?);
    let position = Position { next_sequence, next_offset: from.u64()?, chain: Crc32(from.u32()?) };
    from.end()?;
    Ok((Start { position, reach }, disk))
}

fn decode_replica(key: &[u8], value: &[u8]) -> Result<Replica, Malformed> {
    let mut from = checked(key, value)?;
    let flags = from.u8()?;
    from.zeros::<2>()?;
    let promised = Epoch::new(from.u32()?).ok_or(Malformed)?;
    let mut replica = Replica::new(promised, ByteCount(from.u64()?));
    replica.commit = from.lsn()?;
    let after = from.lsn()?;
    replica.floor = from.lsn()?;
    replica.session = SessionId(from.u64()?);
    replica.agreed = Epoch::new(from.u32()?).ok_or(Malformed)?;
    let origin = Base { volume: from.volume()?, point: from.lsn()? };
    from.end()?;
    replica.origin = (flags & CLONE != 0).then_some(origin);
    replica.is_flat = flags & FLAT != 0;
    replica.syncing = (flags & SYNCING != 0).then_some(after);
    replica.incomplete = flags & INCOMPLETE != 0;
    replica.deleted = flags & DELETED != 0;
    let sensible = flags & !(SYNCING | INCOMPLETE | DELETED | CLONE | FLAT) == 0
        && (replica.syncing.is_some() || after == Lsn::ZERO)
        && (replica.origin.is_some() || origin == NO_ORIGIN && !replica.is_flat);
    if sensible { Ok(replica) } else { Err(Malformed) }
}

fn decode_kept(key: &[u8], value: &[u8]) -> Result<Kept, Malformed> {
    let mut from = checked(key, value)?;
    from.zeros::<5>()?;
    let (count, until) = (usize::from(from.u16()?), from.lsn()?);
    if count > SNAPSHOTS_MAX {
        return Err(Malformed);
    }
    let kept = Kept { live: (0..count).map(|_| from.lsn()).collect::<Result<_, _>>()?, until };
    from.end()?;
    if kept.is_valid() { Ok(kept) } else { Err(Malformed) }
}

fn decode_chunk(key: &[u8], value: &[u8]) -> Result<Chunk, Malformed> {
    let mut from = checked(key, value)?;
    let flags = from.u8()?;
    let mut chunk = Chunk::new(flags == COMPLETE);
    from.zeros::<6>()?;
    chunk.prefix = from.lsn()?;
    chunk.adopted = from.lsn()?;
    from.zeros::<4>()?;
    from.end()?;
    if flags & !COMPLETE == 0 || Slip::ChunkFlagsIgnored.is_on() { Ok(chunk) } else { Err(Malformed) }
}

fn decode_slot(key: &[u8], value: &[u8], slot_count: u32) -> Result<Slot, Malformed> {
    let mut from = checked(key, value)?;
    from.zeros::<1>()?;
    let mut slot = Slot::new();
    (slot.valid, slot.stale, slot.fresh, slot.lost) = (from.u16()?, from.u16()?, from.u16()?, from.u16()?);
    slot.set = from.u16()?;
    slot.place = Place::from_raw(from.u32()?);
    slot.stamp = from.lsn()?;
    for crc in from.crcs(BLOCKS_PER_SLOT as usize)?.into_iter().zip(&mut slot.crcs) {
        *crc.1 = crc.0;
    }
    from.end()?;
    let placed = (slot.place.is_some() || slot.valid & !slot.lost == 0) && slot.valid & !slot.set == 0;
    if placed && slot.place.is_none_or(|place| place.0 < slot_count) { Ok(slot) } else { Err(Malformed) }
}

fn decode_bad(key: &[u8], value: &[u8]) -> Result<u16, Malformed> {
    let mut from = checked(key, value)?;
    from.zeros::<1>()?;
    let blocks = from.u16()?;
    from.end()?;
    Ok(blocks)
}

fn decode_round(key: &[u8], value: &[u8]) -> Result<Round, Malformed> {
    let mut from = checked(key, value)?;
    let flags = from.u8()?;
    from.zeros::<6>()?;
    let mut round = Round {
        elapsed: Duration::from_millis(from.u64()?),
        slots: from.u64()?,
        found: from.u64()?,
        found_before: from.u64()?,
        rounds: from.u64()?,
        found_ever: from.u64()?,
        repaired_ever: from.u64()?,
        ended_unix_ms: from.u64()?,
        after: None,
    };
    let (volume, chunk, slot) = (from.volume()?, ChunkIndex(from.u32()?), SlotIndex(from.u16()?));
    from.zeros::<2>()?;
    let after = SlotAddress { volume, chunk, slot, floor: from.lsn()? };
    from.end()?;
    round.after = (flags != 0).then_some(after);
    let counts = [round.slots, round.found, round.found_before, round.rounds, round.found_ever, round.repaired_ever];
    let is_believed = counts.iter().chain([&round.ended_unix_ms]).all(|&count| count <= Round::COUNT_BELIEVED_MAX);
    let sensible = flags <= 1 && (flags == 1 || after == NOWHERE) && is_believed;
    if sensible { Ok(round) } else { Err(Malformed) }
}

/// The value that what was decoded encodes to.
#[cfg(feature = "fuzz")]
pub(crate) fn reencode(key: &[u8], value: &[u8], slot_count: u32) -> Option<Vec<u8>> {
    let known = Key::decode(key).ok()?;
    assert_eq!(known.encode(), key, "a key has one form");
    let body = match known {
        Key::Position => decode_start(key, value).map(|(start, disk)| encode_start(start, disk)),
        Key::Volume(_) => decode_replica(key, value).map(|replica| encode_replica(&replica)),
        Key::Kept(_) => decode_kept(key, value).map(|kept| encode_kept(&kept)),
        Key::Chunk(..) => decode_chunk(key, value).map(|chunk| encode_chunk(&chunk)),
        Key::Slot(_) => decode_slot(key, value, slot_count).map(|slot| encode_slot(&slot)),
        Key::Bad(_) => decode_bad(key, value).map(encode_bad),
        Key::Round => decode_round(key, value).map(|round| encode_round(&round)),
    };
    match edit(known, Some(body.ok()?)) {
        IndexEdit::Put { value, .. } => Some(value),
        _ => unreachable!("a value is put"),
    }
}

/// What the index held, and how much of it was damaged.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) start: Option<Start>,
    pub(crate) volumes: BTreeMap<VolumeId, Replica>,
    pub(crate) damaged_chunks: Vec<(VolumeId, ChunkIndex)>,
    pub(crate) damaged_slots: Vec<SlotAddress>,
    pub(crate) bad: Vec<(SlotAddress, u16)>,
    pub(crate) round: Round,
}

#[cfg(test)]
mod tests;
