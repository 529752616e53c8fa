//! Geometry: how a volume divides into chunks, slots and blocks. The only place that divides by the chunk size.

use crate::{BlockCount, BlockIndex, ByteCount, ChunkIndex};

/// 4 KiB: the unit of checksum, and the logical block of every device.
pub const BLOCK_BYTES: u64 = 4096;
/// 64 KiB: the unit of allocation on a disk.
pub const SLOT_BYTES: u64 = 64 << 10;
/// 64 MiB: the unit of placement.
pub const CHUNK_BYTES: u64 = 64 << 20;
/// 64 TiB: keeps the chunk table of one volume at 2^20 entries.
pub const VOLUME_BYTES_MAX: u64 = 64 << 40;
/// Chunks of the largest volume: no chunk's index reaches it.
pub const CHUNKS_MAX: u32 = (VOLUME_BYTES_MAX / CHUNK_BYTES) as u32;

pub const BLOCKS_PER_SLOT: u32 = (SLOT_BYTES / BLOCK_BYTES) as u32;
pub const BLOCKS_PER_CHUNK: u32 = (CHUNK_BYTES / BLOCK_BYTES) as u32;
pub const SLOTS_PER_CHUNK: u32 = (CHUNK_BYTES / SLOT_BYTES) as u32;

const _: () = assert!(BLOCKS_PER_SLOT == 16, "a slot's block bitmap is a u16");
const _: () = assert!(SLOTS_PER_CHUNK == 1024, "a chunk's slot bitmap has 128 bytes");
const _: () = assert!(CHUNKS_MAX == 1 << 20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    #[error("volume size is zero")]
    Empty,
    #[error("volume size {0} is not a multiple of 4096 bytes")]
    Unaligned(u64),
    #[error("volume size {0} is above the limit of {VOLUME_BYTES_MAX} bytes")]
    TooLarge(u64),
}

/// Size of one volume, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    size: ByteCount,
}

/// Adjoining blocks within one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRange {
    pub chunk: ChunkIndex,
    /// First block, counted within the chunk.
    pub start: BlockIndex,
    pub count: BlockCount,
}

impl Geometry {
    pub fn new(size: ByteCount) -> Result<Geometry, GeometryError> {
        match size.0 {
            0 => Err(GeometryError::Empty),
            n if !n.is_multiple_of(BLOCK_BYTES) => Err(GeometryError::Unaligned(n)),
            n if n > VOLUME_BYTES_MAX => Err(GeometryError::TooLarge(n)),
            _ => Ok(Geometry { size }),
        }
    }

    pub fn size(self) -> ByteCount {
        self.size
    }

    pub fn block_count(self) -> u64 {
        self.size.0 / BLOCK_BYTES
    }

    /// Number of chunks; the last may be partly beyond the end of the volume.
    pub fn chunk_count(self) -> u32 {
        self.size.0.div_ceil(CHUNK_BYTES) as u32
    }

    /// Whether the blocks lie within the volume. An empty range does not.
    pub fn contains(self, start: BlockIndex, count: BlockCount) -> bool {
        count.0 > 0 && start.0.checked_add(u64::from(count.0)).is_some_and(|end| end <= self.block_count())
    }

    /// Cuts a range of the volume at chunk borders, in order.
    pub fn pieces(self, start: BlockIndex, count: BlockCount) -> impl Iterator<Item = ChunkRange> {
        assert!(self.contains(start, count));
        let mut next = start;
        let mut left = count.0;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let within = next.within_chunk();
            let room = BLOCKS_PER_CHUNK - within.0 as u32;
            let taken = room.min(left);
            let piece = ChunkRange { chunk: next.chunk(), start: within, count: BlockCount(taken) };
            next = next.offset_by(piece.count);
            left -= taken;
            Some(piece)
        })
    }
}

impl ChunkRange {
    pub fn end(self) -> BlockIndex {
        self.start.offset_by(self.count)
    }

    /// First block, counted within the volume.
    pub fn volume_start(self) -> BlockIndex {
        BlockIndex(self.chunk.first_block().0 + self.start.0)
    }

    pub fn overlaps(self, other: ChunkRange) -> bool {
        self.chunk == other.chunk && self.start < other.end() && other.start < self.end()
    }

    /// Whether the range lies within one chunk and is not empty: what a peer's range must pass.
    pub fn is_valid(self) -> bool {
        self.count.0 > 0
            && self.start.0.checked_add(u64::from(self.count.0)).is_some_and(|end| end <= u64::from(BLOCKS_PER_CHUNK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_sizes_are_refused() {
        assert_eq!(Geometry::new(ByteCount(0)), Err(GeometryError::Empty));
        assert_eq!(Geometry::new(ByteCount(4097)), Err(GeometryError::Unaligned(4097)));
        assert!(matches!(Geometry::new(ByteCount(VOLUME_BYTES_MAX + 4096)), Err(GeometryError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_once_and_in_order(start in 0u64..100_000, count in 1u32..60_000) {
            let geometry = Geometry::new(ByteCount(1 << 40)).unwrap();
            let mut expected = start;
            for piece in geometry.pieces(BlockIndex(start), BlockCount(count)) {
                prop_assert!(piece.is_valid());
                prop_assert_eq!(piece.volume_start().0, expected);
                expected += u64::from(piece.count.0);
            }
            prop_assert_eq!(expected, start + u64::from(count));
        }
    }
}
