//! Reads a stream: nothing is given before it was checked.

use super::layout::{HEAD_BYTES, HEADER_BYTES, Head, Identity, Kind};
use super::position::{Position, Totals};
use super::{Result, StreamError};
use ashlar_types::{ByteCount, ByteOffset};
use crc32fast::Hasher;
use std::io::{ErrorKind, Read};

#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    pub(super) position: Position,
    pub(super) ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub offset: ByteOffset,
    pub length: ByteCount,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// `length` bytes, at most [`super::DATA_BYTES_MAX`].
    Data(Vec<u8>),
    Zeros,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn open(mut input: R) -> Result<Reader<R>> {
        let mut header = [0; HEADER_BYTES];
        let got = fill(&mut input, &mut header)?;
        if got < HEADER_BYTES {
            let is_ours = Identity::is_begun(&header[..got]);
            return Err(if is_ours { StreamError::Truncated { at: got as u64 } } else { StreamError::Foreign });
        }
        let identity = Identity::decode(&header)?;
        Ok(Reader { input, position: Position::new(identity), ended: false })
    }

    pub fn identity(&self) -> Identity {
        self.position.identity()
    }

    /// Of the frames that were given.
    pub fn totals(&self) -> Totals {
        self.position.totals()
    }

    /// The next frame; `None` behind the end mark, if nothing follows it.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        if self.ended {
            return Ok(None);
        }
        let at = self.position.at();
        let damaged = |what| StreamError::Damaged { at, what };
        let mut bytes = [0; HEAD_BYTES];
        self.take(&mut bytes, at)?;
        let head = Head::decode(&bytes).map_err(damaged)?;
        if let Some(fault) = self.position.fault(&head) {
            return Err(damaged(fault));
        }
        let mut data = vec![0; if head.kind == Kind::Data { head.length as usize } else { 0 }];
        self.take(&mut data, at + HEAD_BYTES as u64)?;
        let mut crc = Hasher::new();
        crc.update(&data);
        if head.kind == Kind::Data && crc.clone().finalize() != head.data.0 {
            return Err(damaged("the data and its checksum differ"));
        }
        self.position.pass(&head, &crc);
        let content = match head.kind {
            Kind::Data => Content::Data(data),
            Kind::Zeros => Content::Zeros,
            Kind::End => return self.end().map(|()| None),
        };
        Ok(Some(Frame { offset: ByteOffset(head.offset), length: ByteCount(head.length), content }))
    }

    fn end(&mut self) -> Result<()> {
        if fill(&mut self.input, &mut [0])? != 0 {
            return Err(StreamError::Trailing { at: self.position.at() });
        }
        self.ended = true;
        Ok(())
    }

    /// `at`: where in the stream the bytes are.
    fn take(&mut self, bytes: &mut [u8], at: u64) -> Result<()> {
        match fill(&mut self.input, bytes)? {
            got if got == bytes.len() => Ok(()),
            got => Err(StreamError::Truncated { at: at + got as u64 }),
        }
    }
}

/// As many bytes as there are.
fn fill(input: &mut impl Read, bytes: &mut [u8]) -> Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match input.read(&mut bytes[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(StreamError::Io { doing: "read the stream", source }),
        }
    }
    Ok(got)
}
