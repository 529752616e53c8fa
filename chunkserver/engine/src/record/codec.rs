//! Bytes of a record; the table of offsets is in `record`.

use super::{Body, Mark, Piece, Record, checked_range, slot_parts};
use crate::codec::{Malformed, Sink, Source, checked_chunk};
use crate::place::Place;
use ashlar_types::{
    Base, ByteCount, ChunkIndex, ChunkRange, Crc32, Epoch, FloorRange, Kept, Lsn, SLOTS_PER_CHUNK, SNAPSHOTS_MAX,
    SessionId, Slip, SlotIndex, SlotSet,
};
use ashlar_wire::limits::BLOCKS_PER_FRAME_MAX;

const WRITE: u8 = 1;
const DISCARD: u8 = 2;
const PROMISE: u8 = 3;
const FILL: u8 = 4;
const REPAIR: u8 = 5;
const MARK_STALE: u8 = 6;
const BEGIN_SYNC: u8 = 7;
const ADOPT_PREFIX: u8 = 8;
const COMPLETE_CHUNK: u8 = 9;
const FINISH_SYNC: u8 = 10;
const DELETE_VOLUME: u8 = 11;
const VOID_STALE: u8 = 12;
const KEEP: u8 = 13;
const MERGE: u8 = 14;
const CLONE: u8 = 15;
const FLATTEN: u8 = 16;
const FLATTENED: u8 = 17;

const RELEASE_FIRST: u8 = 1;
const RELEASE_LAST: u8 = 2;

const HEAD_BYTES: usize = 24;
const PIECE_BYTES: usize = 8;
const WRITE_BYTES_MAX: usize =
    64 + (BLOCKS_PER_FRAME_MAX as usize / 16 + 1) * PIECE_BYTES + BLOCKS_PER_FRAME_MAX as usize * 4;
pub(crate) const KEEP_BYTES_MAX: usize = HEAD_BYTES + 24 + SNAPSHOTS_MAX * 8;
/// The longest record: every snapshot that a volume may have.
pub(crate) const RECORD_BYTES_MAX: usize = KEEP_BYTES_MAX;

const _: () = assert!(WRITE_BYTES_MAX <= RECORD_BYTES_MAX, "a write of the largest frame is shorter");
const _: () = assert!(RECORD_BYTES_MAX <= crate::batch::FIRST_PAGE_RECORDS_BYTES, "every record fits an empty batch");
const _: () = assert!(RECORD_BYTES_MAX <= u16::MAX as usize);

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Sink::new();
        let (kind, flags) = self.encode_body(&mut body);
        let length = HEAD_BYTES + body.len();
        assert!(length <= RECORD_BYTES_MAX);
        let mut record = Sink::new();
        record.u8(kind).u8(flags).u16(length as u16).zeros(4).u128(self.volume.as_u128()).put(&body.into_bytes());
        record.into_bytes()
    }

    fn encode_body(&self, to: &mut Sink) -> (u8, u8) {
        let commit = self.commit;
        match &self.body {
            Body::Write { range, lsn, floor, pieces, crcs } => {
                put_range(to, *range, pieces);
                to.lsn(*lsn).lsn(*floor).lsn(commit);
                put_pieces(to, pieces, crcs);
                (WRITE, 0)
            }
            Body::Discard { range, lsn, floor, release_first, release_last } => {
                to.u32(range.chunk.0).u32(range.start.0 as u32).u32(range.count.0).zeros(4);
                to.lsn(*lsn).lsn(*floor).lsn(commit);
                let first = if *release_first { RELEASE_FIRST } else { 0 };
                (DISCARD, first | if *release_last { RELEASE_LAST } else { 0 })
            }
            Body::Promise { epoch, size, session, served } => {
                to.u32(epoch.number()).u32(served.number()).u64(size.0).u64(session.0).lsn(commit);
                (PROMISE, 0)
            }
            Body::Fill { chunk, slot, floors, into, stamp, set, valid, place, direct, crcs } => {
                to.u32(chunk.0).u16(slot.0).u16(*valid).u32(Place::to_raw(*place)).u32(u32::from(*direct));
                to.lsn(*stamp).lsn(commit);
                put_floors(to, *floors, *into);
                to.u16(*set).zeros(6).crcs(crcs);
                (FILL, 0)
            }
            Body::Repair { range, floor, pieces, crcs } => {
                put_range(to, *range, pieces);
                to.lsn(*floor).lsn(commit);
                put_pieces(to, pieces, crcs);
                (REPAIR, 0)
            }
            Body::MarkStale(Mark { chunk, after, floors, into, slots }) => {
                to.u32(chunk.0).zeros(4).lsn(*after).lsn(commit);
                put_floors(to, *floors, *into);
                to.put(&slots.to_bytes());
                (MARK_STALE, 0)
            }
            Body::BeginSync { after } => (to.lsn(*after).lsn(commit), (BEGIN_SYNC, 0)).1,
            Body::AdoptPrefix { chunk, prefix } => {
                to.u32(chunk.0).zeros(4).lsn(*prefix).lsn(commit);
                (ADOPT_PREFIX, 0)
            }
            Body::CompleteChunk { chunk, prefix } => {
                to.u32(chunk.0).zeros(4).lsn(*prefix).lsn(commit);
                (COMPLETE_CHUNK, 0)
            }
            Body::VoidStale { chunk } => {
                to.u32(chunk.0).zeros(4).lsn(commit);
                (VOID_STALE, 0)
            }
            Body::FinishSync => (to.lsn(commit), (FINISH_SYNC, 0)).1,
            Body::Keep(kept) => {
                put_kept(to, kept, commit);
                (KEEP, 0)
            }
            Body::Merge { chunk, slot, older, newer, place, moved, crcs } => {
                to.u32(chunk.0).u16(slot.0).u16(*moved).u32(Place::to_raw(*place)).zeros(4);
                to.lsn(*older).lsn(*newer).lsn(commit).crcs(crcs);
                (MERGE, 0)
            }
            Body::DeleteVolume { epoch } => {
                to.u32(epoch.number()).zeros(4);
                (DELETE_VOLUME, 0)
            }
            Body::Clone { .. } | Body::Flatten { .. } | Body::Flattened => (self.encode_of_clone(to), 0),
        }
    }

    /// The records about clones.
    fn encode_of_clone(&self, to: &mut Sink) -> u8 {
        match &self.body {
            Body::Clone { epoch, size, base } => {
                to.u32(epoch.number()).zeros(4).u64(size.0).u128(base.volume.as_u128()).lsn(base.point);
                CLONE
            }
            Body::Flatten { chunk, slot, zeros, copied, lost, place, stamp, crcs } => {
                to.u32(chunk.0).u16(slot.0).u16(*zeros).u16(*copied).u16(*lost).u32(Place::to_raw(*place));
                to.lsn(*stamp).lsn(self.commit).crcs(crcs);
                FLATTEN
            }
            Body::Flattened => {
                to.lsn(self.commit);
                FLATTENED
            }
            _ => unreachable!("a record about a clone"),
        }
    }

    /// Decodes the record at the start of `bytes`; also says how many bytes it has. `slot_count` bounds its places.
    pub(crate) fn decode(bytes: &[u8], slot_count: u32) -> Result<(Record, usize), Malformed> {
        let mut head = Source::new(bytes);
        let (kind, flags, length) = (head.u8()?, head.u8()?, usize::from(head.u16()?));
        head.zeros::<4>()?;
        let volume = head.volume()?;
        let body = bytes.get(HEAD_BYTES..length).ok_or(Malformed)?;
        if kind != DISCARD && flags != 0 || flags & !(RELEASE_FIRST | RELEASE_LAST) != 0 {
            return Err(Malformed);
        }
        let mut from = Source::new(body);
        let (commit, body) = decode_body(kind, flags, &mut from, slot_count)?;
        from.end()?;
        Ok((Record { volume, commit, body }, length))
    }
}

fn decode_body(kind: u8, flags: u8, from: &mut Source, places: u32) -> Result<(ashlar_types::Lsn, Body), Malformed> {
    match kind {
        WRITE => {
            let (range, count) = take_range(from)?;
            let (lsn, floor, commit) = (from.lsn()?, from.lsn()?, from.lsn()?);
            let (pieces, crcs) = take_pieces(from, range, count, places)?;
            Ok((commit, Body::Write { range, lsn, floor, pieces, crcs }))
        }
        DISCARD => {
            let range = checked_range(from.u32()?, from.u32()?, from.u32()?).ok_or(Malformed)?;
            from.zeros::<4>()?;
            let (lsn, floor, commit) = (from.lsn()?, from.lsn()?, from.lsn()?);
            let (release_first, release_last) = (flags & RELEASE_FIRST != 0, flags & RELEASE_LAST != 0);
            Ok((commit, Body::Discard { range, lsn, floor, release_first, release_last }))
        }
        PROMISE => {
            let epoch = Epoch::new(from.u32()?).ok_or(Malformed)?;
            let served = Epoch::new(from.u32()?).ok_or(Malformed)?;
            let size = ByteCount(from.u64()?);
            ashlar_types::Geometry::new(size).map_err(|_| Malformed)?;
            let session = SessionId(from.u64()?);
            Ok((from.lsn()?, Body::Promise { epoch, size, session, served }))
        }
        FILL => decode_fill(from, places),
        REPAIR => {
            let (range, count) = take_range(from)?;
            let (floor, commit) = (from.lsn()?, from.lsn()?);
            let (pieces, crcs) = take_pieces(from, range, count, places)?;
            if pieces.iter().any(|piece| piece.direct) {
                return Err(Malformed);
            }
            Ok((commit, Body::Repair { range, floor, pieces, crcs }))
        }
        MARK_STALE => {
            let chunk = take_chunk(from)?;
            let (after, commit) = (from.lsn()?, from.lsn()?);
            let (floors, into) = take_floors(from)?;
            let slots = SlotSet::from_bytes(&from.take::<{ SlotSet::BYTES }>()?);
            Ok((commit, Body::MarkStale(Mark { chunk, after, floors, into, slots })))
        }
        BEGIN_SYNC => {
            let after = from.lsn()?;
            Ok((from.lsn()?, Body::BeginSync { after }))
        }
        ADOPT_PREFIX | COMPLETE_CHUNK => {
            let chunk = take_chunk(from)?;
            let (prefix, commit) = (from.lsn()?, from.lsn()?);
            let adopt = kind == ADOPT_PREFIX;
            let body = if adopt { Body::AdoptPrefix { chunk, prefix } } else { Body::CompleteChunk { chunk, prefix } };
            Ok((commit, body))
        }
        VOID_STALE => {
            let chunk = take_chunk(from)?;
            Ok((from.lsn()?, Body::VoidStale { chunk }))
        }
        FINISH_SYNC => Ok((from.lsn()?, Body::FinishSync)),
        KEEP => decode_keep(from),
        MERGE => decode_merge(from, places),
        DELETE_VOLUME => Ok((ashlar_types::Lsn::ZERO, Body::DeleteVolume { epoch: take_epoch(from)? })),
        CLONE => {
            let (epoch, size) = (take_epoch(from)?, ByteCount(from.u64()?));
            ashlar_types::Geometry::new(size).map_err(|_| Malformed)?;
            let base = Base { volume: from.volume()?, point: from.lsn()? };
            Ok((ashlar_types::Lsn::ZERO, Body::Clone { epoch, size, base }))
        }
        FLATTEN => decode_flatten(from, places),
        FLATTENED => Ok((from.lsn()?, Body::Flattened)),
        _ => Err(Malformed),
    }
}

fn decode_fill(from: &mut Source, places: u32) -> Result<(ashlar_types::Lsn, Body), Malformed> {
    let chunk = checked_chunk(from.u32()?)?;
    let (slot, valid) = (SlotIndex(from.u16()?), from.u16()?);
    let place = Place::from_raw(from.u32()?);
    let direct = take_flag(from.u32()?)?;
    let (stamp, commit) = (from.lsn()?, from.lsn()?);
    let (floors, into) = take_floors(from)?;
    let set = from.u16()?;
    from.zeros::<6>()?;
    let crcs = from.crcs(valid.count_ones() as usize)?;
    let sensible = u32::from(slot.0) < SLOTS_PER_CHUNK
        && place.is_none_or(|place| place.0 < places)
        && (place.is_some() || valid == 0)
        && (!direct || valid == u16::MAX)
        && valid & !set == 0;
    if !sensible {
        return Err(Malformed);
    }
    Ok((commit, Body::Fill { chunk, slot, floors, into, stamp, set, valid, place, direct, crcs }))
}

fn decode_keep(from: &mut Source) -> Result<(ashlar_types::Lsn, Body), Malformed> {
    let (until, commit, count) = (from.lsn()?, from.lsn()?, usize::from(from.u16()?));
    from.zeros::<6>()?;
    if count > SNAPSHOTS_MAX {
        return Err(Malformed);
    }
    let kept = Kept { live: (0..count).map(|_| from.lsn()).collect::<Result<_, _>>()?, until };
    if kept.is_valid() { Ok((commit, Body::Keep(kept))) } else { Err(Malformed) }
}

fn decode_merge(from: &mut Source, places: u32) -> Result<(ashlar_types::Lsn, Body), Malformed> {
    let chunk = checked_chunk(from.u32()?)?;
    let (slot, moved) = (SlotIndex(from.u16()?), from.u16()?);
    let place = Place::from_raw(from.u32()?);
    from.zeros::<4>()?;
    let (older, newer, commit) = (from.lsn()?, from.lsn()?, from.lsn()?);
    let crcs = from.crcs(moved.count_ones() as usize)?;
    let sensible = u32::from(slot.0) < SLOTS_PER_CHUNK
        && place.is_none_or(|place| place.0 < places)
        && (place.is_some() || moved == 0)
        && older < newer;
    if !sensible {
        return Err(Malformed);
    }
    Ok((commit, Body::Merge { chunk, slot, older, newer, place, moved, crcs }))
}

fn decode_flatten(from: &mut Source, places: u32) -> Result<(ashlar_types::Lsn, Body), Malformed> {
    let chunk = checked_chunk(from.u32()?)?;
    let (slot, zeros, copied, lost) = (SlotIndex(from.u16()?), from.u16()?, from.u16()?, from.u16()?);
    let place = Place::from_raw(from.u32()?);
    let (stamp, commit) = (from.lsn()?, from.lsn()?);
    let crcs = from.crcs(copied.count_ones() as usize)?;
    let sensible = u32::from(slot.0) < SLOTS_PER_CHUNK
        && place.is_none_or(|place| place.0 < places)
        && (place.is_some() || copied == 0)
        && zeros & copied | zeros & lost | copied & lost == 0;
    if !sensible {
        return Err(Malformed);
    }
    Ok((commit, Body::Flatten { chunk, slot, zeros, copied, lost, place, stamp, crcs }))
}

fn put_kept(to: &mut Sink, kept: &Kept, commit: Lsn) {
    assert!(kept.is_valid());
    to.lsn(kept.until).lsn(commit).u16(kept.live.len() as u16).zeros(6);
    for &point in &kept.live {
        to.lsn(point);
    }
}

fn put_floors(to: &mut Sink, floors: FloorRange, into: Lsn) {
    to.lsn(floors.from).lsn(floors.below).lsn(into);
}

fn take_floors(from: &mut Source) -> Result<(FloorRange, Lsn), Malformed> {
    let (floors, into) = (FloorRange { from: from.lsn()?, below: from.lsn()? }, from.lsn()?);
    if floors.is_valid() && floors.contains(into) { Ok((floors, into)) } else { Err(Malformed) }
}

fn put_range(to: &mut Sink, range: ChunkRange, pieces: &[Piece]) {
    assert!(range.is_valid() && range.count.0 <= BLOCKS_PER_FRAME_MAX);
    to.u32(range.chunk.0).u32(range.start.0 as u32).u16(range.count.0 as u16).u8(pieces.len() as u8).zeros(5);
}

fn put_pieces(to: &mut Sink, pieces: &[Piece], crcs: &[Crc32]) {
    for piece in pieces {
        to.u32(piece.place.0).u8(u8::from(piece.direct)).zeros(3);
    }
    to.crcs(crcs);
}

fn take_range(from: &mut Source) -> Result<(ChunkRange, usize), Malformed> {
    let (chunk, start, count) = (from.u32()?, from.u32()?, from.u16()?);
    let pieces = usize::from(from.u8()?);
    from.zeros::<5>()?;
    let range = checked_range(chunk, start, u32::from(count)).ok_or(Malformed)?;
    if range.count.0 > BLOCKS_PER_FRAME_MAX || slot_parts(range).count() != pieces {
        return Err(Malformed);
    }
    Ok((range, pieces))
}

fn take_pieces(
    from: &mut Source,
    range: ChunkRange,
    count: usize,
    places: u32,
) -> Result<(Vec<Piece>, Vec<Crc32>), Malformed> {
    let mut pieces = Vec::with_capacity(count);
    for part in slot_parts(range) {
        let (place, direct) = (Place(from.u32()?), take_flag(u32::from(from.u8()?))?);
        from.zeros::<3>()?;
        if place.0 >= places && !Slip::PlaceBelieved.is_on() || direct && !part.is_whole() {
            return Err(Malformed);
        }
        pieces.push(Piece { place, direct });
    }
    Ok((pieces, from.crcs(range.count.0 as usize)?))
}

fn take_chunk(from: &mut Source) -> Result<ChunkIndex, Malformed> {
    let chunk = checked_chunk(from.u32()?)?;
    from.zeros::<4>()?;
    Ok(chunk)
}

fn take_epoch(from: &mut Source) -> Result<Epoch, Malformed> {
    let epoch = Epoch::new(from.u32()?).ok_or(Malformed)?;
    from.zeros::<4>()?;
    Ok(epoch)
}

fn take_flag(raw: u32) -> Result<bool, Malformed> {
    match raw {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}
