//! Bounds-checked little-endian reading and writing of hand-laid structures. Reading past the end is an error, never
//! a panic.

use ashlar_types::{CHUNKS_MAX, ChunkIndex, Crc32, Lsn, VolumeId};

/// The bytes ended before the structure did, or a field has a value that it cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// An index that a chunk can have.
pub(crate) fn checked_chunk(chunk: u32) -> Result<ChunkIndex, Malformed> {
    if chunk < CHUNKS_MAX { Ok(ChunkIndex(chunk)) } else { Err(Malformed) }
}

pub(crate) struct Source<'a> {
    left: &'a [u8],
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Source<'a> {
        Source { left: bytes }
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.left.split_first_chunk::<N>().ok_or(Malformed)?;
        self.left = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.take::<1>().map(|bytes| bytes[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Malformed> {
        self.take().map(u128::from_le_bytes)
    }

    pub(crate) fn lsn(&mut self) -> Result<Lsn, Malformed> {
        self.u64().map(Lsn::from_raw)
    }

    pub(crate) fn volume(&mut self) -> Result<VolumeId, Malformed> {
        self.u128().map(VolumeId::from_u128)
    }

    pub(crate) fn crcs(&mut self, count: usize) -> Result<Vec<Crc32>, Malformed> {
        if self.left.len() < count * 4 {
            return Err(Malformed);
        }
        (0..count).map(|_| self.u32().map(Crc32)).collect()
    }

    /// Reserved bytes must be zero: a later format may give them a meaning.
    pub(crate) fn zeros<const N: usize>(&mut self) -> Result<(), Malformed> {
        if self.take::<N>()? == [0; N] { Ok(()) } else { Err(Malformed) }
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.left.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[derive(Default)]
pub(crate) struct Sink {
    bytes: Vec<u8>,
}

impl Sink {
    pub(crate) fn new() -> Sink {
        Sink::default()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> &mut Sink {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Sink {
        self.put(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Sink {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Sink {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Sink {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn u128(&mut self, value: u128) -> &mut Sink {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn lsn(&mut self, value: Lsn) -> &mut Sink {
        self.u64(value.raw())
    }

    pub(crate) fn crcs(&mut self, crcs: &[Crc32]) -> &mut Sink {
        for crc in crcs {
            self.u32(crc.0);
        }
        self
    }

    pub(crate) fn zeros(&mut self, count: usize) -> &mut Sink {
        self.bytes.resize(self.bytes.len() + count, 0);
        self
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
