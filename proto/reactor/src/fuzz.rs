//! Door for the fuzz targets: frames out of a stream, as a link receives them. Only with the feature `fuzz`.

use crate::aligned::BufferPool;
use crate::frames::{FrameAssembler, RawFrame};
use ashlar_wire::{FrameHeader, WireError};
use bytes::Bytes;

/// A frame as received: body and data are not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedFrame {
    pub header: FrameHeader,
    pub body: Bytes,
    pub data: Bytes,
}

/// The receiving end of one link.
pub struct FrameStream {
    assembler: FrameAssembler,
    pool: BufferPool,
}

impl Default for FrameStream {
    fn default() -> FrameStream {
        FrameStream { assembler: FrameAssembler::new(), pool: BufferPool::new(4 << 20) }
    }
}

impl FrameStream {
    /// Takes the next piece of the stream and appends the frames that it completes. Data whose rest is long enough
    /// goes into its buffer directly, as a link would receive it.
    pub fn feed(&mut self, mut piece: &[u8], frames: &mut Vec<ReceivedFrame>) -> Result<(), WireError> {
        if let Some(mut direct) = self.assembler.take_direct() {
            let count = piece.len().min(direct.buffer.len() - direct.filled);
            direct.buffer[direct.filled..][..count].copy_from_slice(&piece[..count]);
            direct.filled += count;
            piece = &piece[count..];
            frames.extend(self.assembler.put_direct(direct).map(ReceivedFrame::from));
        }
        let mut raw = Vec::new();
        let result = self.assembler.feed(piece, &self.pool, &mut raw);
        frames.extend(raw.into_iter().map(ReceivedFrame::from));
        result
    }
}

impl From<RawFrame> for ReceivedFrame {
    fn from(raw: RawFrame) -> ReceivedFrame {
        ReceivedFrame { header: raw.header, body: raw.body, data: raw.data }
    }
}
