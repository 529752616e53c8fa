//! Writes a stream. Nothing is buffered: what was written when the process is killed is whole frames and a torn one.

use super::layout::{Identity, Kind};
use super::position::{Position, Totals};
use super::resume::Scan;
use super::{Result, StreamError};
use ashlar_types::{BlockIndex, ByteCount, ByteOffset, Crc32};
use crc32fast::Hasher;
use std::io::Write;

#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    position: Position,
}

impl<W: Write> Writer<W> {
    /// Begins with the header.
    pub fn begin(identity: Identity, mut output: W) -> Result<Writer<W>> {
        output.write_all(&identity.encode()).map_err(StreamError::io("write the stream"))?;
        Ok(Writer { output, position: Position::new(identity) })
    }

    /// Goes on behind what was found whole; `output` stands there.
    pub fn go_on(scan: Scan, output: W) -> Writer<W> {
        Writer { output, position: scan.position }
    }

    /// The first block that no frame has come to.
    pub fn next_block(&self) -> BlockIndex {
        self.position.next_block()
    }

    pub fn totals(&self) -> Totals {
        self.position.totals()
    }

    /// Whole blocks, behind all frames so far, at most [`super::DATA_BYTES_MAX`].
    pub fn data(&mut self, offset: ByteOffset, data: &[u8]) -> Result<()> {
        let mut crc = Hasher::new();
        crc.update(data);
        let length = ByteCount(data.len() as u64);
        self.frame(Kind::Data, offset, length, &crc, data)
    }

    /// The same, of zeros, as many as there are.
    pub fn zeros(&mut self, offset: ByteOffset, length: ByteCount) -> Result<()> {
        self.frame(Kind::Zeros, offset, length, &Hasher::new(), &[])
    }

    fn frame(&mut self, kind: Kind, offset: ByteOffset, length: ByteCount, crc: &Hasher, data: &[u8]) -> Result<()> {
        let data_crc = if kind == Kind::Data { Crc32(crc.clone().finalize()) } else { Crc32::default() };
        let head = self.position.head(kind, offset.0, length.0, data_crc);
        if let Some(fault) = self.position.fault(&head) {
            panic!("a stream is written as it is read: {fault}");
        }
        let written = self.output.write_all(&head.encode()).and_then(|()| self.output.write_all(data));
        written.map_err(StreamError::io("write the stream"))?;
        self.position.pass(&head, crc);
        Ok(())
    }

    /// Writes the end mark: only now is it a stream.
    pub fn finish(mut self) -> Result<(W, Totals)> {
        let written = self.output.write_all(&self.position.end_head().encode()).and_then(|()| self.output.flush());
        written.map_err(StreamError::io("write the stream"))?;
        Ok((self.output, self.position.totals()))
    }
}
