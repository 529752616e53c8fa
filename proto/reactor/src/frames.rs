//! Frames out of a stream of bytes, however it is cut.
//!
//! ```text
//! 0                   64            64+body_bytes              64+body_bytes+data_bytes
//! |  header           |  body       |  data                    | next frame
//! ```
//!
//! Nothing is allocated for a frame before its header is checked, lengths and checksum. The data part is gathered in
//! a page-aligned buffer of its own, so it can go to a disk as it is. Body and data are not checked here: that is for
//! who decodes the message.

use crate::aligned::{AlignedBuf, BufferPool};
use crate::limits::{DIRECT_RECEIVE_BYTES_MIN, HEAD_RECEIVE_BYTES, RECEIVE_BYTES};
use ashlar_types::Slip;
use ashlar_wire::limits::HEADER_BYTES;
use ashlar_wire::{FrameHeader, WireError};
use bytes::Bytes;
use std::mem;

#[derive(Debug)]
pub(crate) struct RawFrame {
    pub(crate) header: FrameHeader,
    pub(crate) body: Bytes,
    pub(crate) data: Bytes,
}

/// The frame that is being received.
pub(crate) struct FrameAssembler {
    state: State,
    /// The last frame had data that is worth a receive of its own; the next one is expected to be alike.
    is_after_large: bool,
}

enum State {
    Header { bytes: [u8; HEADER_BYTES], filled: usize },
    Rest(Rest),
}

/// `body.len() <= header.body_bytes`, `data_filled <= header.data_bytes`, and `data_filled > 0` only when the body is
/// whole.
struct Rest {
    header: FrameHeader,
    body: Vec<u8>,
    /// `None` when the frame has no data, or while the buffer is out for a direct receive.
    data: Option<AlignedBuf>,
    data_filled: usize,
}

/// A data buffer that is out for a receive; `filled` bytes of it are there.
pub(crate) struct DirectData {
    pub(crate) buffer: AlignedBuf,
    pub(crate) filled: usize,
}

impl FrameAssembler {
    pub(crate) fn new() -> FrameAssembler {
        FrameAssembler { state: State::BEGIN, is_after_large: false }
    }

    /// Takes the next bytes of the stream and appends every frame that they complete. After an error the stream is of
    /// no use.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        pool: &BufferPool,
        frames: &mut Vec<RawFrame>,
    ) -> Result<(), WireError> {
        while !input.is_empty() {
            match &mut self.state {
                State::Header { bytes, filled } => {
                    let part = take(&mut input, HEADER_BYTES - *filled);
                    bytes[*filled..][..part.len()].copy_from_slice(part);
                    *filled += part.len();
                    if *filled == HEADER_BYTES {
                        let header = FrameHeader::decode(bytes)?;
                        self.state = State::Rest(Rest::new(header, pool));
                    }
                }
                State::Rest(rest) => rest.feed(&mut input),
            }
            frames.extend(self.finish());
        }
        Ok(())
    }

    /// How much the next receive should take that does not go into the data buffer.
    pub(crate) fn receive_bytes(&self) -> usize {
        let begins = matches!(&self.state, State::Header { .. });
        if begins && self.is_after_large { HEAD_RECEIVE_BYTES } else { RECEIVE_BYTES }
    }

    /// The data buffer, when so much of it is missing that it should be received without a copy. `put_direct` brings
    /// it back.
    pub(crate) fn take_direct(&mut self) -> Option<DirectData> {
        let State::Rest(rest) = &mut self.state else { return None };
        if rest.body_missing() > 0 || rest.data_missing() < DIRECT_RECEIVE_BYTES_MIN {
            return None;
        }
        let buffer = rest.data.take().expect("the data buffer is out once at a time");
        Some(DirectData { buffer, filled: rest.data_filled })
    }

    /// Takes the buffer back with what was received; gives the frame if that completes it.
    pub(crate) fn put_direct(&mut self, direct: DirectData) -> Option<RawFrame> {
        let State::Rest(rest) = &mut self.state else { panic!("a data buffer is out within a frame") };
        assert!(rest.data.is_none() && direct.filled <= direct.buffer.len());
        assert_eq!(direct.buffer.len(), rest.header.data_bytes as usize);
        rest.data = Some(direct.buffer);
        rest.data_filled = direct.filled + if Slip::DirectCountedTwice.is_on() { rest.data_filled } else { 0 };
        self.finish()
    }

    fn finish(&mut self) -> Option<RawFrame> {
        match mem::replace(&mut self.state, State::BEGIN) {
            State::Rest(rest) if rest.body_missing() == 0 && rest.data_missing() == 0 => {
                let data = rest.data.map_or_else(Bytes::new, AlignedBuf::freeze);
                assert_eq!(data.len(), rest.header.data_bytes as usize);
                self.is_after_large = data.len() >= 2 * DIRECT_RECEIVE_BYTES_MIN;
                Some(RawFrame { header: rest.header, body: Bytes::from(rest.body), data })
            }
            unfinished => {
                self.state = unfinished;
                None
            }
        }
    }
}

impl State {
    const BEGIN: State = State::Header { bytes: [0; HEADER_BYTES], filled: 0 };
}

impl Rest {
    fn new(header: FrameHeader, pool: &BufferPool) -> Rest {
        let data = (header.data_bytes > 0).then(|| pool.take(header.data_bytes as usize));
        Rest { header, body: Vec::with_capacity(header.body_bytes as usize), data, data_filled: 0 }
    }

    fn feed(&mut self, input: &mut &[u8]) {
        self.body.extend_from_slice(take(input, self.body_missing()));
        let part = take(input, self.data_missing());
        if part.is_empty() {
            return;
        }
        let data = self.data.as_mut().expect("no bytes are fed while the data buffer is out");
        data[self.data_filled..][..part.len()].copy_from_slice(part);
        self.data_filled += part.len();
    }

    fn body_missing(&self) -> usize {
        self.header.body_bytes as usize - self.body.len()
    }

    fn data_missing(&self) -> usize {
        self.header.data_bytes as usize - self.data_filled
    }
}

/// Cuts up to `bytes_max` bytes from the front.
fn take<'a>(input: &mut &'a [u8], bytes_max: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(bytes_max.min(input.len()));
    *input = rest;
    part
}

#[cfg(test)]
mod tests;
