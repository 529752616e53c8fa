//! Bytes and frames. The only code that turns a peer's bytes into messages; it believes nothing and allocates nothing
//! that it has not checked. A frame is `header · body · data`; the body's layout is the order of the fields below,
//! little-endian, without padding.

use crate::error::WireError;
use crate::header::FrameHeader;
use crate::limits::{BODY_BYTES_MAX, DATA_BYTES_MAX, HEADER_BYTES};
use crate::message::{Frame, ReplyFrame, RequestFrame};
use crate::opcode::Opcode;
use ashlar_types::Crc32;
use bytes::Bytes;

mod body;
mod reply;
mod request;

/// A frame as it goes to a socket: the header with the body, and the data, which is not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedFrame {
    pub head: Bytes,
    pub data: Bytes,
}

/// Panics if the message breaks the protocol's limits: that is a bug of the sender, never of its peer.
pub fn encode_request(frame: &RequestFrame) -> EncodedFrame {
    let mut body = body::Writer::with_room_for_header();
    let (opcode, data) = request::encode(&frame.message, &mut body);
    seal(frame, opcode, body, data)
}

/// Panics if the message breaks the protocol's limits: that is a bug of the sender, never of its peer.
pub fn encode_reply(frame: &ReplyFrame) -> EncodedFrame {
    let mut body = body::Writer::with_room_for_header();
    let (opcode, data) = reply::encode(&frame.message, &mut body);
    seal(frame, opcode, body, data)
}

fn seal<M>(frame: &Frame<M>, opcode: Opcode, body: body::Writer, data: Bytes) -> EncodedFrame {
    let mut head = body.into_bytes();
    let body_bytes = head.len() - HEADER_BYTES;
    assert!(body_bytes <= BODY_BYTES_MAX && data.len() <= DATA_BYTES_MAX, "{opcode:?} is within the limits");
    let header = FrameHeader {
        opcode,
        body_bytes: body_bytes as u32,
        data_bytes: data.len() as u32,
        session: frame.session,
        request: frame.request,
        epoch: frame.epoch,
        commit: frame.commit,
        body_crc: Crc32::of(&head[HEADER_BYTES..]),
    };
    head[..HEADER_BYTES].copy_from_slice(&header.encode());
    EncodedFrame { head: head.into(), data }
}

/// `body` and `data` are what followed the header, of the lengths it gave. Block checksums are carried, not checked:
/// see [`crate::BlockData::first_bad_block`].
pub fn decode_request(header: &FrameHeader, body: &[u8], data: Bytes) -> Result<RequestFrame, WireError> {
    open(header, body, data, request::decode)
}

/// As [`decode_request`].
pub fn decode_reply(header: &FrameHeader, body: &[u8], data: Bytes) -> Result<ReplyFrame, WireError> {
    open(header, body, data, reply::decode)
}

fn open<M>(
    header: &FrameHeader,
    body: &[u8],
    data: Bytes,
    decode: fn(Opcode, &mut body::Reader<'_>) -> Result<M, WireError>,
) -> Result<Frame<M>, WireError> {
    if body.len() != header.body_bytes as usize || data.len() != header.data_bytes as usize {
        return Err(WireError::Truncated);
    }
    if Crc32::of(body) != header.body_crc {
        return Err(WireError::BodyChecksum);
    }
    let mut reader = body::Reader::new(body, data);
    let message = decode(header.opcode, &mut reader)?;
    reader.finish()?;
    Ok(Frame { session: header.session, request: header.request, epoch: header.epoch, commit: header.commit, message })
}

/// What a message decodes to when its opcode belongs to the other direction.
fn wrong_direction(opcode: Opcode) -> WireError {
    WireError::Opcode(opcode as u8)
}

#[cfg(test)]
mod tests;
