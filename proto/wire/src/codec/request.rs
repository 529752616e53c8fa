//! Bodies of requests.

use super::body::{Reader, Writer};
use super::wrong_direction;
use crate::error::WireError;
use crate::limits::BLOCKS_PER_FRAME_MAX;
use crate::message::{Open, Request, SlotContent};
use crate::opcode::Opcode;
use ashlar_types::{
    ByteCount, ChunkRange, ClusterId, DiskId, FloorRange, Geometry, Kept, Lsn, SNAPSHOTS_MAX, VolumeId,
};
use bytes::Bytes;

pub(super) fn encode(request: &Request, body: &mut Writer) -> (Opcode, Bytes) {
    let none = Bytes::new();
    match request {
        Request::Open(open) => (Opcode::Open, encode_open(open, body)),
        Request::Observe(open) => (Opcode::Observe, encode_open(open, body)),
        Request::Report { from } => {
            body.u32(from.0);
            (Opcode::Report, none)
        }
        Request::Write { range, lsn, floor, blocks } => {
            assert_eq!(range.count.0 as usize, blocks.crcs.len());
            body.range(*range);
            body.lsn(*lsn);
            body.lsn(*floor);
            (Opcode::Write, body.blocks(blocks))
        }
        Request::Discard { range, lsn, floor } => {
            body.range(*range);
            body.lsn(*lsn);
            body.lsn(*floor);
            (Opcode::Discard, none)
        }
        Request::Read { range, below } => {
            body.range(*range);
            body.lsn(*below);
            (Opcode::Read, none)
        }
        Request::Repair { range, below, blocks } => {
            assert_eq!(range.count.0 as usize, blocks.crcs.len());
            body.range(*range);
            body.lsn(*below);
            (Opcode::Repair, body.blocks(blocks))
        }
        Request::ListChanged { from, until, after, floors } => {
            body.u32(from.0);
            body.u32(until.0);
            body.lsn(*after);
            body.floors(*floors);
            (Opcode::ListChanged, none)
        }
        other => encode_copying(other, body),
    }
}

/// The requests of reconcile and return.
fn encode_copying(request: &Request, body: &mut Writer) -> (Opcode, Bytes) {
    let none = Bytes::new();
    match request {
        Request::MarkStale { chunk, after, floors, into, slots } => {
            body.u32(chunk.0);
            body.lsn(*after);
            body.floors(*floors);
            body.lsn(*into);
            body.raw(&slots.to_bytes());
            (Opcode::MarkStale, none)
        }
        Request::ListStale { from, floors } => {
            body.u32(from.0);
            body.floors(*floors);
            (Opcode::ListStale, none)
        }
        Request::ReadSlot { chunk, slot, floors } => {
            body.u32(chunk.0);
            body.u16(slot.0);
            body.floors(*floors);
            (Opcode::ReadSlot, none)
        }
        Request::Fill { chunk, slot, floors, into, content } => {
            body.u32(chunk.0);
            body.u16(slot.0);
            body.floors(*floors);
            body.lsn(*into);
            (Opcode::Fill, encode_slot(content, body))
        }
        Request::CompleteChunk { chunk, prefix } => {
            body.u32(chunk.0);
            body.lsn(*prefix);
            (Opcode::CompleteChunk, none)
        }
        Request::VoidStale { chunk } => {
            body.u32(chunk.0);
            (Opcode::VoidStale, none)
        }
        Request::BeginSync { after } => {
            body.lsn(*after);
            (Opcode::BeginSync, none)
        }
        Request::AdoptPrefix { chunk, prefix } => {
            body.u32(chunk.0);
            body.lsn(*prefix);
            (Opcode::AdoptPrefix, none)
        }
        Request::FinishSync => (Opcode::FinishSync, none),
        Request::Grow { size } => {
            body.u64(size.0);
            (Opcode::Grow, none)
        }
        Request::Keep(kept) => {
            encode_kept(kept, body);
            (Opcode::Keep, none)
        }
        other => encode_question(other, body),
    }
}

/// What is asked of a replica beside reads and returns.
fn encode_question(request: &Request, body: &mut Writer) -> (Opcode, Bytes) {
    let none = Bytes::new();
    match request {
        Request::Usage => (Opcode::Usage, none),
        Request::ListBlocks { chunk, floors } => {
            body.u32(chunk.0);
            body.floors(*floors);
            (Opcode::ListBlocks, none)
        }
        Request::ListBad { from, slot } => {
            body.u32(from.0);
            body.u16(slot.0);
            (Opcode::ListBad, none)
        }
        Request::Digest { chunk, below } => {
            body.u32(chunk.0);
            body.lsn(*below);
            (Opcode::Digest, none)
        }
        Request::Ping => (Opcode::Ping, none),
        _ => unreachable!("encode handles the others"),
    }
}

/// cluster u128 · disk u128 · volume u128 · size u64
fn encode_open(open: &Open, body: &mut Writer) -> Bytes {
    body.u128(open.cluster.as_u128());
    body.u128(open.disk.as_u128());
    body.u128(open.volume.as_u128());
    body.u64(open.size.0);
    body.u32(open.served.number());
    Bytes::new()
}

/// until u64 · number u16 · each point u64
fn encode_kept(kept: &Kept, body: &mut Writer) {
    assert!(kept.is_valid());
    body.lsn(kept.until);
    body.u16(kept.live.len() as u16);
    for point in &kept.live {
        body.lsn(*point);
    }
}

fn decode_kept(body: &mut Reader<'_>) -> Result<Kept, WireError> {
    let (until, count) = (body.lsn()?, usize::from(body.u16()?));
    if count > SNAPSHOTS_MAX {
        return Err(WireError::Field("points"));
    }
    let kept = Kept { live: (0..count).map(|_| body.lsn()).collect::<Result<_, _>>()?, until };
    if kept.is_valid() { Ok(kept) } else { Err(WireError::Field("points")) }
}

/// stamp u64 · set u16 · valid u16 · checksums; one block for each bit of `valid`
pub(super) fn encode_slot(content: &SlotContent, body: &mut Writer) -> Bytes {
    assert_eq!(content.valid.count_ones() as usize, content.blocks.crcs.len());
    body.lsn(content.stamp);
    body.u16(content.set);
    body.u16(content.valid);
    body.blocks(&content.blocks)
}

pub(super) fn decode(opcode: Opcode, body: &mut Reader<'_>) -> Result<Request, WireError> {
    Ok(match opcode {
        Opcode::Open => Request::Open(decode_open(body)?),
        Opcode::Observe => Request::Observe(decode_open(body)?),
        Opcode::Report => Request::Report { from: body.chunk()? },
        Opcode::Write => {
            let (range, lsn, floor) = (data_range(body)?, body.lsn()?, body.lsn()?);
            Request::Write { range, lsn, floor, blocks: body.blocks_of(range.count.0)? }
        }
        Opcode::Discard => Request::Discard { range: body.range()?, lsn: body.lsn()?, floor: body.lsn()? },
        Opcode::Read => Request::Read { range: data_range(body)?, below: body.lsn()? },
        Opcode::Repair => {
            let (range, below) = (data_range(body)?, body.lsn()?);
            Request::Repair { range, below, blocks: body.blocks_of(range.count.0)? }
        }
        Opcode::ListChanged => {
            let (from, until, after) = (body.chunk()?, body.chunk_end()?, body.lsn()?);
            Request::ListChanged { from, until, after, floors: body.floors()? }
        }
        Opcode::MarkStale => {
            let (chunk, after, floors) = (body.chunk()?, body.lsn()?, body.floors()?);
            Request::MarkStale { chunk, after, floors, into: into(body, floors)?, slots: body.slots()? }
        }
        Opcode::ListStale => Request::ListStale { from: body.chunk()?, floors: body.floors()? },
        Opcode::ReadSlot => Request::ReadSlot { chunk: body.chunk()?, slot: body.slot()?, floors: body.floors()? },
        Opcode::Fill => {
            let (chunk, slot, floors) = (body.chunk()?, body.slot()?, body.floors()?);
            Request::Fill { chunk, slot, floors, into: into(body, floors)?, content: decode_slot(body)? }
        }
        Opcode::CompleteChunk => Request::CompleteChunk { chunk: body.chunk()?, prefix: body.lsn()? },
        Opcode::VoidStale => Request::VoidStale { chunk: body.chunk()? },
        Opcode::BeginSync => Request::BeginSync { after: body.lsn()? },
        Opcode::AdoptPrefix => Request::AdoptPrefix { chunk: body.chunk()?, prefix: body.lsn()? },
        Opcode::FinishSync => Request::FinishSync,
        Opcode::Grow => Request::Grow { size: ByteCount(body.u64()?) },
        Opcode::Keep => Request::Keep(decode_kept(body)?),
        Opcode::Usage => Request::Usage,
        Opcode::ListBlocks => Request::ListBlocks { chunk: body.chunk()?, floors: body.floors()? },
        Opcode::ListBad => Request::ListBad { from: body.chunk()?, slot: body.slot()? },
        Opcode::Digest => Request::Digest { chunk: body.chunk()?, below: body.lsn()? },
        Opcode::Ping => Request::Ping,
        reply => return Err(wrong_direction(reply)),
    })
}

fn decode_open(body: &mut Reader<'_>) -> Result<Open, WireError> {
    let open = Open {
        cluster: ClusterId::from_u128(body.u128()?),
        disk: DiskId::from_u128(body.u128()?),
        volume: VolumeId::from_u128(body.u128()?),
        size: ByteCount(body.u64()?),
        served: body.epoch()?,
    };
    Geometry::new(open.size).map_err(|_| WireError::Field("size"))?;
    Ok(open)
}

/// A version among the floors that go before it.
fn into(body: &mut Reader<'_>, floors: FloorRange) -> Result<Lsn, WireError> {
    let into = body.lsn()?;
    if floors.contains(into) { Ok(into) } else { Err(WireError::Field("into")) }
}

/// A range whose blocks fit one frame.
fn data_range(body: &mut Reader<'_>) -> Result<ChunkRange, WireError> {
    let range = body.range()?;
    if range.count.0 <= BLOCKS_PER_FRAME_MAX { Ok(range) } else { Err(WireError::Field("count")) }
}

pub(super) fn decode_slot(body: &mut Reader<'_>) -> Result<SlotContent, WireError> {
    let (stamp, set, valid) = (body.lsn()?, body.u16()?, body.u16()?);
    if valid & !set != 0 {
        return Err(WireError::Field("valid"));
    }
    Ok(SlotContent { stamp, set, valid, blocks: body.blocks_of(valid.count_ones())? })
}
