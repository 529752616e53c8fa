//! Tests of `frames`.

use super::*;
use crate::limits::ALIGNMENT;
use ashlar_types::{Crc32, Epoch, Lsn, RequestId, SessionId};
use ashlar_wire::Opcode;
use ashlar_wire::limits::{BODY_BYTES_MAX, DATA_BYTES_MAX};

fn header(body_bytes: u32, data_bytes: u32) -> FrameHeader {
    FrameHeader {
        opcode: Opcode::Write,
        body_bytes,
        data_bytes,
        session: SessionId(7),
        request: RequestId(8),
        epoch: Epoch::new(1).unwrap(),
        commit: Lsn::ZERO,
        body_crc: Crc32(0),
    }
}

fn frame(body_bytes: u32, data_bytes: u32) -> Vec<u8> {
    let mut frame = header(body_bytes, data_bytes).encode().to_vec();
    frame.extend((0..body_bytes).map(|i| i as u8));
    frame.extend((0..data_bytes).map(|i| (i / 7) as u8));
    frame
}

fn flatten(frames: &[RawFrame]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&frame.header.encode()[..], &frame.body, &frame.data].concat()).collect()
}

#[test]
fn frames_come_out_whole_however_the_stream_is_cut() {
    let pool = BufferPool::new(1 << 20);
    let lengths = [(0, 0), (5, 0), (0, 4096), (100, 8192), (70_000, 4096), (0, 0)];
    let stream: Vec<u8> = lengths.iter().flat_map(|&(body, data)| frame(body, data)).collect();
    for piece_bytes in [1, 3, 63, 64, 65, 4096, stream.len()] {
        let (mut assembler, mut frames) = (FrameAssembler::new(), Vec::new());
        for piece in stream.chunks(piece_bytes) {
            assembler.feed(piece, &pool, &mut frames).unwrap();
        }
        assert_eq!(frames.len(), lengths.len());
        assert_eq!(flatten(&frames), stream);
        assert!(frames.iter().all(|f| f.data.is_empty() || (f.data.as_ptr() as usize).is_multiple_of(ALIGNMENT)));
    }
}

#[test]
fn the_rest_of_large_data_is_received_directly() {
    let pool = BufferPool::new(4 << 20);
    let whole = frame(10, DATA_BYTES_MAX as u32);
    let (mut assembler, mut frames) = (FrameAssembler::new(), Vec::new());
    assembler.feed(&whole[..1000], &pool, &mut frames).unwrap();
    let mut direct = assembler.take_direct().unwrap();
    let rest = &whole[1000..];
    assert_eq!(direct.buffer.len() - direct.filled, rest.len());
    direct.buffer[direct.filled..][..500].copy_from_slice(&rest[..500]);
    direct.filled += 500;
    assert!(assembler.put_direct(direct).is_none());
    let mut direct = assembler.take_direct().unwrap();
    let filled = direct.filled;
    direct.buffer[filled..].copy_from_slice(&rest[500..]);
    direct.filled = DATA_BYTES_MAX;
    let done = assembler.put_direct(direct).unwrap();
    assert_eq!(flatten(&[done]), whole);
    assert!(frames.is_empty() && assembler.take_direct().is_none());
}

#[test]
fn after_large_data_the_head_of_the_next_frame_is_received_alone() {
    let pool = BufferPool::new(4 << 20);
    let (mut assembler, mut frames) = (FrameAssembler::new(), Vec::new());
    for (data_bytes, after) in [(4096, RECEIVE_BYTES), (65_536, HEAD_RECEIVE_BYTES), (4096, RECEIVE_BYTES)] {
        let whole = frame(10, data_bytes);
        let (head, rest) = whole.split_at(HEADER_BYTES + 20);
        assembler.feed(head, &pool, &mut frames).unwrap();
        assert_eq!(assembler.receive_bytes(), RECEIVE_BYTES, "within a frame");
        assembler.feed(rest, &pool, &mut frames).unwrap();
        assert_eq!(assembler.receive_bytes(), after);
    }
    assert_eq!(frames.len(), 3);
}

#[test]
fn data_is_not_received_directly_before_the_body_is_whole() {
    let pool = BufferPool::new(0);
    let whole = frame(10, DATA_BYTES_MAX as u32);
    let mut assembler = FrameAssembler::new();
    assembler.feed(&whole[..HEADER_BYTES + 9], &pool, &mut Vec::new()).unwrap();
    assert!(assembler.take_direct().is_none());
}

#[test]
fn a_frame_that_announces_too_much_is_refused_before_anything_is_allocated() {
    let too_long = [
        (BODY_BYTES_MAX as u32 + 1, 0, WireError::BodyTooLong(BODY_BYTES_MAX as u32 + 1)),
        (0, DATA_BYTES_MAX as u32 + 4096, WireError::DataLength(DATA_BYTES_MAX as u32 + 4096)),
        (u32::MAX, u32::MAX, WireError::BodyTooLong(u32::MAX)),
    ];
    for (body_bytes, data_bytes, error) in too_long {
        let mut assembler = FrameAssembler::new();
        let header = header(body_bytes, data_bytes).encode();
        assert_eq!(assembler.feed(&header, &BufferPool::new(0), &mut Vec::new()), Err(error));
        assert!(matches!(assembler.state, State::Header { .. }));
    }
}

#[test]
fn a_frame_with_a_damaged_header_is_refused_after_the_sound_ones_before_it() {
    let mut stream = frame(3, 4096);
    let mut damaged = frame(3, 0);
    damaged[20] ^= 1;
    stream.extend(damaged);
    let mut frames = Vec::new();
    let fed = FrameAssembler::new().feed(&stream, &BufferPool::new(0), &mut frames);
    assert_eq!((fed, frames.len()), (Err(WireError::HeaderChecksum), 1));
}
