//! Reading and writing the fields of a body.

use crate::error::WireError;
use crate::limits::{BLOCKS_PER_FRAME_MAX, HEADER_BYTES, LIST_ENTRIES_MAX};
use crate::message::BlockData;
use ashlar_types::{
    BLOCK_BYTES, BlockCount, BlockIndex, CHUNKS_MAX, ChunkIndex, ChunkRange, Crc32, Epoch, FloorRange, Lsn,
    SLOTS_PER_CHUNK, Slip, SlotIndex, SlotSet,
};
use bytes::Bytes;

pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn with_room_for_header() -> Writer {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 64);
        bytes.resize(HEADER_BYTES, 0);
        Writer(bytes)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.raw(&[u8::from(flag)]);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn u128(&mut self, value: u128) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn lsn(&mut self, lsn: Lsn) {
        self.u64(lsn.raw());
    }

    /// from u64 · below u64
    pub(super) fn floors(&mut self, floors: FloorRange) {
        assert!(floors.is_valid(), "{floors:?}");
        self.lsn(floors.from);
        self.lsn(floors.below);
    }

    /// chunk u32 · first block u32 · count u32
    pub(super) fn range(&mut self, range: ChunkRange) {
        assert!(range.is_valid() && range.count.0 <= u32::from(u16::MAX), "{range:?}");
        self.u32(range.chunk.0);
        self.u32(range.start.0 as u32);
        self.u32(range.count.0);
    }

    /// Presence flag and chunk.
    pub(super) fn next_chunk(&mut self, next: Option<ChunkIndex>) {
        self.flag(next.is_some());
        self.u32(next.map_or(0, |chunk| chunk.0));
    }

    /// One CRC-32 a block; the count follows from the data's length.
    pub(super) fn blocks(&mut self, blocks: &BlockData) -> Bytes {
        assert_eq!(blocks.crcs.len() as u64 * BLOCK_BYTES, blocks.data.len() as u64);
        self.0.reserve(blocks.crcs.len() * 4);
        blocks.crcs.iter().for_each(|crc| self.u32(crc.0));
        blocks.data.clone()
    }
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
    data: Option<Bytes>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8], data: Bytes) -> Reader<'a> {
        Reader { rest: body, data: Some(data) }
    }

    /// Nothing may be left over, neither of the body nor of the data.
    pub(super) fn finish(self) -> Result<(), WireError> {
        let unused_data = self.data.map_or(0, |data| data.len());
        match self.rest.len() + unused_data {
            0 => Ok(()),
            left => Err(WireError::TrailingBytes(left)),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn slice(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn flag(&mut self) -> Result<bool, WireError> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(WireError::Field("flag")),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, WireError> {
        self.array().map(u128::from_le_bytes)
    }

    pub(super) fn lsn(&mut self) -> Result<Lsn, WireError> {
        self.u64().map(Lsn::from_raw)
    }

    pub(super) fn floors(&mut self) -> Result<FloorRange, WireError> {
        let floors = FloorRange { from: self.lsn()?, below: self.lsn()? };
        if floors.is_valid() { Ok(floors) } else { Err(WireError::Field("floors")) }
    }

    pub(super) fn epoch(&mut self) -> Result<Epoch, WireError> {
        Epoch::new(self.u32()?).ok_or(WireError::Field("epoch"))
    }

    pub(super) fn chunk(&mut self) -> Result<ChunkIndex, WireError> {
        let chunk = self.u32()?;
        if chunk < CHUNKS_MAX { Ok(ChunkIndex(chunk)) } else { Err(WireError::Field("chunk")) }
    }

    /// The end of a range of chunks: one more than an index may be.
    pub(super) fn chunk_end(&mut self) -> Result<ChunkIndex, WireError> {
        let chunk = self.u32()?;
        if chunk <= CHUNKS_MAX { Ok(ChunkIndex(chunk)) } else { Err(WireError::Field("chunk")) }
    }

    pub(super) fn next_chunk(&mut self) -> Result<Option<ChunkIndex>, WireError> {
        let present = self.flag()?;
        match (present, self.chunk()?) {
            (false, chunk) if chunk.0 == 0 || Slip::NextPageIgnored.is_on() => Ok(None),
            (false, _) => Err(WireError::Field("next chunk")),
            (true, chunk) => Ok(Some(chunk)),
        }
    }

    pub(super) fn slot(&mut self) -> Result<SlotIndex, WireError> {
        let slot = self.u16()?;
        if u32::from(slot) < SLOTS_PER_CHUNK { Ok(SlotIndex(slot)) } else { Err(WireError::Field("slot")) }
    }

    pub(super) fn slots(&mut self) -> Result<SlotSet, WireError> {
        self.array::<{ SlotSet::BYTES }>().map(|bytes| SlotSet::from_bytes(&bytes))
    }

    pub(super) fn range(&mut self) -> Result<ChunkRange, WireError> {
        let chunk = self.chunk()?;
        let range = ChunkRange { chunk, start: BlockIndex(u64::from(self.u32()?)), count: BlockCount(self.u32()?) };
        if range.is_valid() { Ok(range) } else { Err(WireError::Field("range")) }
    }

    pub(super) fn list_length(&mut self) -> Result<usize, WireError> {
        let length = self.u32()? as usize;
        if length <= LIST_ENTRIES_MAX { Ok(length) } else { Err(WireError::Field("list length")) }
    }

    /// All of the frame's data, with a checksum for each block.
    pub(super) fn blocks(&mut self) -> Result<BlockData, WireError> {
        let data = self.data.take().unwrap_or_default();
        let count = (data.len() as u64 / BLOCK_BYTES) as usize;
        assert!(count <= BLOCKS_PER_FRAME_MAX as usize, "the header's data length was checked");
        let crcs = self.slice(count * 4)?.chunks_exact(4);
        let crcs = crcs.map(|crc| Crc32(u32::from_le_bytes(crc.try_into().expect("4 bytes")))).collect();
        Ok(BlockData { crcs, data })
    }

    /// As `blocks`, and their number is the one expected.
    pub(super) fn blocks_of(&mut self, count: u32) -> Result<BlockData, WireError> {
        let blocks = self.blocks()?;
        if blocks.crcs.len() == count as usize { Ok(blocks) } else { Err(WireError::Field("data length")) }
    }
}
