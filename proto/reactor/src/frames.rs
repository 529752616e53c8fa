//! Frames out of a stream of bytes, however it is cut.
//!
//! ```text
//! 0        8          12         16        64            64+body_bytes              64+body_bytes+data_bytes
//! | magic..| body_bytes | data_bytes | .... |  body        |  data                      | next frame
//! ```
//!
//! Nothing is allocated for a frame before its lengths are found to be within the protocol's bounds. The data part is gathered in a
//! page-aligned buffer of its own, so it can go to a disk as it is.

use crate::DownCause;
use crate::aligned::{AlignedBuf, BufferPool};
use crate::limits::DIRECT_RECEIVE_BYTES_MIN;
use ashlar_wire::limits::{BODY_BYTES_MAX, DATA_BYTES_MAX, HEADER_BYTES};
use bytes::Bytes;
use std::mem;

const BODY_BYTES_OFFSET: usize = 8;
const DATA_BYTES_OFFSET: usize = 12;

#[derive(Debug)]
pub(crate) struct RawFrame {
    pub(crate) header: [u8; HEADER_BYTES],
    pub(crate) body: Bytes,
    pub(crate) data: Bytes,
}

/// The frame that is being received. `header_filled < HEADER_BYTES` or the lengths are those of the header.
pub(crate) struct FrameAssembler {
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    body: Vec<u8>,
    body_bytes: usize,
    /// `None` while there is no data to receive, or while the buffer is out for a direct receive.
    data: Option<AlignedBuf>,
    data_filled: usize,
    data_bytes: usize,
}

/// A data buffer that is out for a receive; `filled` bytes of it are there.
pub(crate) struct DirectData {
    pub(crate) buffer: AlignedBuf,
    pub(crate) filled: usize,
}

impl FrameAssembler {
    pub(crate) fn new() -> FrameAssembler {
        FrameAssembler {
            header: [0; HEADER_BYTES],
            header_filled: 0,
            body: Vec::new(),
            body_bytes: 0,
            data: None,
            data_filled: 0,
            data_bytes: 0,
        }
    }

    /// Takes the next bytes of the stream and appends every frame that they complete. After an error the stream is of no use.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        pool: &BufferPool,
        frames: &mut Vec<RawFrame>,
    ) -> Result<(), DownCause> {
        while !input.is_empty() {
            if self.header_filled < HEADER_BYTES {
                let part = take(&mut input, HEADER_BYTES - self.header_filled);
                self.header[self.header_filled..][..part.len()].copy_from_slice(part);
                self.header_filled += part.len();
                if self.header_filled < HEADER_BYTES {
                    return Ok(());
                }
                self.begin_body(pool)?;
            }
            self.body.extend_from_slice(take(&mut input, self.body_bytes - self.body.len()));
            let part = take(&mut input, self.data_bytes - self.data_filled);
            if !part.is_empty() {
                let data = self.data.as_mut().expect("no bytes are fed while the data buffer is out");
                data[self.data_filled..][..part.len()].copy_from_slice(part);
                self.data_filled += part.len();
            }
            frames.extend(self.finish());
        }
        Ok(())
    }

    /// The data buffer, when so much of it is missing that it should be received without a copy. `put_direct` brings it back.
    pub(crate) fn take_direct(&mut self) -> Option<DirectData> {
        let missing = self.data_bytes - self.data_filled;
        let body_is_whole = self.header_filled == HEADER_BYTES && self.body.len() == self.body_bytes;
        if !body_is_whole || missing < DIRECT_RECEIVE_BYTES_MIN {
            return None;
        }
        let buffer = self.data.take().expect("the data buffer is out once at a time");
        Some(DirectData { buffer, filled: self.data_filled })
    }

    /// Takes the buffer back with what was received; gives the frame if that completes it.
    pub(crate) fn put_direct(&mut self, direct: DirectData) -> Option<RawFrame> {
        assert!(self.data.is_none() && direct.filled <= self.data_bytes);
        self.data = Some(direct.buffer);
        self.data_filled = direct.filled;
        self.finish()
    }

    fn begin_body(&mut self, pool: &BufferPool) -> Result<(), DownCause> {
        let (body_bytes, data_bytes) =
            (read_u32(&self.header, BODY_BYTES_OFFSET), read_u32(&self.header, DATA_BYTES_OFFSET));
        self.body_bytes = body_bytes as usize;
        self.data_bytes = data_bytes as usize;
        if self.body_bytes > BODY_BYTES_MAX || self.data_bytes > DATA_BYTES_MAX {
            return Err(DownCause::Oversized { body_bytes, data_bytes });
        }
        self.body = Vec::with_capacity(self.body_bytes);
        self.data = (self.data_bytes > 0).then(|| pool.take(self.data_bytes));
        Ok(())
    }

    fn finish(&mut self) -> Option<RawFrame> {
        let whole = self.header_filled == HEADER_BYTES
            && self.body.len() == self.body_bytes
            && self.data_filled == self.data_bytes;
        if !whole {
            return None;
        }
        let done = mem::replace(self, FrameAssembler::new());
        let data = done.data.map_or_else(Bytes::new, AlignedBuf::freeze);
        assert_eq!(data.len(), done.data_bytes);
        Some(RawFrame { header: done.header, body: Bytes::from(done.body), data })
    }
}

/// Cuts up to `bytes_max` bytes from the front.
fn take<'a>(input: &mut &'a [u8], bytes_max: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(bytes_max.min(input.len()));
    *input = rest;
    part
}

fn read_u32(header: &[u8; HEADER_BYTES], offset: usize) -> u32 {
    u32::from_le_bytes(header[offset..offset + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ALIGNMENT;

    fn frame(body_bytes: u32, data_bytes: u32) -> Vec<u8> {
        let mut frame = vec![0xA5; HEADER_BYTES];
        frame[BODY_BYTES_OFFSET..][..4].copy_from_slice(&body_bytes.to_le_bytes());
        frame[DATA_BYTES_OFFSET..][..4].copy_from_slice(&data_bytes.to_le_bytes());
        frame.extend((0..body_bytes).map(|i| i as u8));
        frame.extend((0..data_bytes).map(|i| (i / 7) as u8));
        frame
    }

    fn flatten(frames: &[RawFrame]) -> Vec<u8> {
        frames.iter().flat_map(|frame| [&frame.header[..], &frame.body, &frame.data].concat()).collect()
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let pool = BufferPool::new(1 << 20);
        let stream: Vec<u8> = [(0, 0), (5, 0), (0, 4096), (100, 8192), (70_000, 1), (0, 0)]
            .iter()
            .flat_map(|&(b, d)| frame(b, d))
            .collect();
        for piece_bytes in [1, 3, 63, 64, 65, 4096, stream.len()] {
            let (mut assembler, mut frames) = (FrameAssembler::new(), Vec::new());
            for piece in stream.chunks(piece_bytes) {
                assembler.feed(piece, &pool, &mut frames).unwrap();
            }
            assert_eq!(frames.len(), 6);
            assert_eq!(flatten(&frames), stream);
            assert!(frames.iter().all(|f| f.data.is_empty() || f.data.as_ptr() as usize % ALIGNMENT == 0));
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
    fn a_frame_that_announces_too_much_is_refused_before_anything_is_allocated() {
        let pool = BufferPool::new(1 << 20);
        for (body_bytes, data_bytes) in
            [(BODY_BYTES_MAX as u32 + 1, 0), (0, DATA_BYTES_MAX as u32 + 1), (u32::MAX, u32::MAX)]
        {
            let mut header = frame(0, 0);
            header[BODY_BYTES_OFFSET..][..4].copy_from_slice(&body_bytes.to_le_bytes());
            header[DATA_BYTES_OFFSET..][..4].copy_from_slice(&data_bytes.to_le_bytes());
            let mut assembler = FrameAssembler::new();
            let refused = assembler.feed(&header, &pool, &mut Vec::new());
            assert!(matches!(refused, Err(DownCause::Oversized { .. })));
            assert!(assembler.body.capacity() == 0 && assembler.data.is_none());
        }
    }
}
