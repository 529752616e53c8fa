//! Bodies of requests.

use super::body::{Reader, Writer};
use super::wrong_direction;
use crate::error::WireError;
use crate::limits::BLOCKS_PER_FRAME_MAX;
use crate::message::{Open, Request, SlotContent};
use crate::opcode::Opcode;
use ashlar_types::{ByteCount, ChunkRange, ClusterId, DiskId, Geometry, VolumeId};
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
        Request::Read { range } => {
            body.range(*range);
            (Opcode::Read, none)
        }
        Request::Repair { range, blocks } => {
            assert_eq!(range.count.0 as usize, blocks.crcs.len());
            body.range(*range);
            (Opcode::Repair, body.blocks(blocks))
        }
        Request::ListChanged { from, until, after } => {
            body.u32(from.0);
            body.u32(until.0);
            body.lsn(*after);
            (Opcode::ListChanged, none)
        }
        other => encode_copying(other, body),
    }
}

/// The requests of reconcile and return.
fn encode_copying(request: &Request, body: &mut Writer) -> (Opcode, Bytes) {
    let none = Bytes::new();
    match request {
        Request::MarkStale { chunk, after, slots } => {
            body.u32(chunk.0);
            body.lsn(*after);
            body.raw(&slots.to_bytes());
            (Opcode::MarkStale, none)
        }
        Request::ListStale { from } => {
            body.u32(from.0);
            (Opcode::ListStale, none)
        }
        Request::ReadSlot { chunk, slot } => {
            body.u32(chunk.0);
            body.u16(slot.0);
            (Opcode::ReadSlot, none)
        }
        Request::Fill { chunk, slot, content } => {
            body.u32(chunk.0);
            body.u16(slot.0);
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

/// stamp u64 · valid u16 · checksums; one block for each bit of `valid`
pub(super) fn encode_slot(content: &SlotContent, body: &mut Writer) -> Bytes {
    assert_eq!(content.valid.count_ones() as usize, content.blocks.crcs.len());
    body.lsn(content.stamp);
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
        Opcode::Read => Request::Read { range: data_range(body)? },
        Opcode::Repair => {
            let range = data_range(body)?;
            Request::Repair { range, blocks: body.blocks_of(range.count.0)? }
        }
        Opcode::ListChanged => {
            Request::ListChanged { from: body.chunk()?, until: body.chunk_end()?, after: body.lsn()? }
        }
        Opcode::MarkStale => Request::MarkStale { chunk: body.chunk()?, after: body.lsn()?, slots: body.slots()? },
        Opcode::ListStale => Request::ListStale { from: body.chunk()? },
        Opcode::ReadSlot => Request::ReadSlot { chunk: body.chunk()?, slot: body.slot()? },
        Opcode::Fill => Request::Fill { chunk: body.chunk()?, slot: body.slot()?, content: decode_slot(body)? },
        Opcode::CompleteChunk => Request::CompleteChunk { chunk: body.chunk()?, prefix: body.lsn()? },
        Opcode::VoidStale => Request::VoidStale { chunk: body.chunk()? },
        Opcode::BeginSync => Request::BeginSync { after: body.lsn()? },
        Opcode::AdoptPrefix => Request::AdoptPrefix { chunk: body.chunk()?, prefix: body.lsn()? },
        Opcode::FinishSync => Request::FinishSync,
        Opcode::Grow => Request::Grow { size: ByteCount(body.u64()?) },
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

/// A range whose blocks fit one frame.
fn data_range(body: &mut Reader<'_>) -> Result<ChunkRange, WireError> {
    let range = body.range()?;
    if range.count.0 <= BLOCKS_PER_FRAME_MAX { Ok(range) } else { Err(WireError::Field("count")) }
}

pub(super) fn decode_slot(body: &mut Reader<'_>) -> Result<SlotContent, WireError> {
    let (stamp, valid) = (body.lsn()?, body.u16()?);
    Ok(SlotContent { stamp, valid, blocks: body.blocks_of(valid.count_ones())? })
}
