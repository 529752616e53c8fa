//! Bodies of replies.

use super::body::{Reader, Writer};
use super::request::{decode_slot, encode_slot};
use super::wrong_direction;
use crate::error::WireError;
use crate::limits::{HELD_ENTRIES_MAX, LIST_ENTRIES_MAX, REASON_BYTES_MAX};
use crate::message::{
    BadBlocks, ChangedSlots, ChunkReport, Held, Opened, Refusal, Reply, SlotBlocks, SlotDigest, Status,
};
use crate::opcode::Opcode;
use ashlar_types::{BLOCKS_PER_CHUNK, BlockIndex, Crc32, SLOTS_PER_CHUNK, SessionId, SlotSet};
use bytes::Bytes;

pub(super) fn encode(reply: &Reply, body: &mut Writer) -> (Opcode, Bytes) {
    let none = Bytes::new();
    match reply {
        Reply::Opened(opened) => {
            body.lsn(opened.commit);
            body.lsn(opened.floor);
            body.flag(opened.syncing);
            body.lsn(opened.last);
            body.u32(opened.agreed.number());
            body.u64(opened.session_before.0);
            (Opcode::Opened, none)
        }
        Reply::Reported { entries, next } => {
            assert!(entries.len() <= LIST_ENTRIES_MAX);
            body.next_chunk(*next);
            body.u32(entries.len() as u32);
            for entry in entries {
                body.u32(entry.chunk.0);
                body.lsn(entry.prefix);
                body.flag(entry.complete);
            }
            (Opcode::Reported, none)
        }
        Reply::Data(blocks) => (Opcode::Data, body.blocks(blocks)),
        Reply::Changed { entries, next } => {
            assert!(entries.len() <= LIST_ENTRIES_MAX);
            body.next_chunk(*next);
            body.u32(entries.len() as u32);
            for entry in entries {
                body.u32(entry.chunk.0);
                body.lsn(entry.prefix);
                body.raw(&entry.slots.to_bytes());
            }
            (Opcode::Changed, none)
        }
        Reply::Slot(content) => (Opcode::Slot, encode_slot(content, body)),
        Reply::Held(entries) => {
            assert!(entries.len() <= HELD_ENTRIES_MAX);
            body.u32(entries.len() as u32);
            for entry in entries {
                body.lsn(entry.floor);
                body.u64(entry.slots);
            }
            (Opcode::Held, none)
        }
        Reply::Blocks(entries) => {
            assert!(entries.len() <= SLOTS_PER_CHUNK as usize);
            body.u32(entries.len() as u32);
            for entry in entries {
                body.u16(entry.slot.0);
                body.u16(entry.set);
                body.u16(entry.valid);
            }
            (Opcode::Blocks, none)
        }
        Reply::Bad { entries, more } => {
            encode_bad(entries, *more, body);
            (Opcode::Bad, none)
        }
        Reply::Digests { entries, unknown } => {
            encode_digests(entries, unknown, body);
            (Opcode::Digests, none)
        }
        Reply::Done => (Opcode::Done, none),
        Reply::Refused(refusal) => {
            encode_refusal(refusal, body);
            (Opcode::Refused, none)
        }
    }
}

/// more u8 · number u32 · each chunk u32, slot u16, below u64, blocks u16
fn encode_bad(entries: &[BadBlocks], more: bool, body: &mut Writer) {
    assert!(entries.len() <= LIST_ENTRIES_MAX);
    body.flag(more);
    body.u32(entries.len() as u32);
    for entry in entries {
        body.u32(entry.chunk.0);
        body.u16(entry.slot.0);
        body.lsn(entry.below);
        body.u16(entry.blocks);
    }
}

/// unknown 128 · number u32 · each slot u16, digest u32
fn encode_digests(entries: &[SlotDigest], unknown: &SlotSet, body: &mut Writer) {
    assert!(entries.len() <= SLOTS_PER_CHUNK as usize);
    body.raw(&unknown.to_bytes());
    body.u32(entries.len() as u32);
    for entry in entries {
        body.u16(entry.slot.0);
        body.u32(entry.digest.0);
    }
}

/// status u16 · block u32 · length u16 · text, cut to the limit at a character's border
fn encode_refusal(refusal: &Refusal, body: &mut Writer) {
    let mut length = refusal.reason.len().min(REASON_BYTES_MAX);
    while !refusal.reason.is_char_boundary(length) {
        length -= 1;
    }
    body.u16(refusal.status as u16);
    body.u32(refusal.block.0 as u32);
    body.u16(length as u16);
    body.raw(&refusal.reason.as_bytes()[..length]);
}

pub(super) fn decode(opcode: Opcode, body: &mut Reader<'_>) -> Result<Reply, WireError> {
    Ok(match opcode {
        Opcode::Opened => Reply::Opened(Opened {
            commit: body.lsn()?,
            floor: body.lsn()?,
            syncing: body.flag()?,
            last: body.lsn()?,
            agreed: body.epoch()?,
            session_before: SessionId(body.u64()?),
        }),
        Opcode::Reported => {
            let next = body.next_chunk()?;
            let length = body.list_length()?;
            let report = |body: &mut Reader<'_>| -> Result<ChunkReport, WireError> {
                Ok(ChunkReport { chunk: body.chunk()?, prefix: body.lsn()?, complete: body.flag()? })
            };
            Reply::Reported { entries: (0..length).map(|_| report(body)).collect::<Result<_, _>>()?, next }
        }
        Opcode::Data => Reply::Data(body.blocks()?),
        Opcode::Changed => {
            let next = body.next_chunk()?;
            let length = body.list_length()?;
            let changed = |body: &mut Reader<'_>| -> Result<ChangedSlots, WireError> {
                Ok(ChangedSlots { chunk: body.chunk()?, prefix: body.lsn()?, slots: body.slots()? })
            };
            Reply::Changed { entries: (0..length).map(|_| changed(body)).collect::<Result<_, _>>()?, next }
        }
        Opcode::Slot => Reply::Slot(decode_slot(body)?),
        Opcode::Held => {
            let count = body.u32()? as usize;
            if count > HELD_ENTRIES_MAX {
                return Err(WireError::Field("entries"));
            }
            let held = |_| Ok(Held { floor: body.lsn()?, slots: body.u64()? });
            Reply::Held((0..count).map(held).collect::<Result<_, WireError>>()?)
        }
        Opcode::Blocks => {
            let count = body.u32()?;
            if count > SLOTS_PER_CHUNK {
                return Err(WireError::Field("entries"));
            }
            Reply::Blocks((0..count).map(|_| decode_blocks(body)).collect::<Result<_, _>>()?)
        }
        Opcode::Bad => {
            let more = body.flag()?;
            let length = body.list_length()?;
            Reply::Bad { entries: (0..length).map(|_| decode_bad(body)).collect::<Result<_, _>>()?, more }
        }
        Opcode::Digests => decode_digests(body)?,
        Opcode::Done => Reply::Done,
        Opcode::Refused => Reply::Refused(decode_refusal(body)?),
        request => return Err(wrong_direction(request)),
    })
}

fn decode_blocks(body: &mut Reader<'_>) -> Result<SlotBlocks, WireError> {
    let blocks = SlotBlocks { slot: body.slot()?, set: body.u16()?, valid: body.u16()? };
    if blocks.valid & !blocks.set == 0 { Ok(blocks) } else { Err(WireError::Field("valid")) }
}

fn decode_bad(body: &mut Reader<'_>) -> Result<BadBlocks, WireError> {
    Ok(BadBlocks { chunk: body.chunk()?, slot: body.slot()?, below: body.lsn()?, blocks: body.u16()? })
}

fn decode_digests(body: &mut Reader<'_>) -> Result<Reply, WireError> {
    let (unknown, count) = (body.slots()?, body.u32()?);
    if count > SLOTS_PER_CHUNK {
        return Err(WireError::Field("entries"));
    }
    let digest = |body: &mut Reader<'_>| -> Result<SlotDigest, WireError> {
        Ok(SlotDigest { slot: body.slot()?, digest: Crc32(body.u32()?) })
    };
    let entries: Vec<SlotDigest> = (0..count).map(|_| digest(body)).collect::<Result<_, _>>()?;
    match entries.is_sorted_by(|one, next| one.slot < next.slot) {
        true => Ok(Reply::Digests { entries, unknown }),
        false => Err(WireError::Field("entries")),
    }
}

fn decode_refusal(body: &mut Reader<'_>) -> Result<Refusal, WireError> {
    let status = Status::from_number(body.u16()?).ok_or(WireError::Field("status"))?;
    let block = BlockIndex(u64::from(body.u32()?));
    if block.0 >= u64::from(BLOCKS_PER_CHUNK) {
        return Err(WireError::Field("block"));
    }
    let length = usize::from(body.u16()?);
    if length > REASON_BYTES_MAX {
        return Err(WireError::Field("reason"));
    }
    let reason = std::str::from_utf8(body.slice(length)?).map_err(|_| WireError::Field("reason"))?;
    Ok(Refusal { status, block, reason: reason.to_owned() })
}
