//! Units: bytes, blocks, slots, chunks. Index, count and size are different types and do not mix by accident.

use crate::{BLOCK_BYTES, BLOCKS_PER_CHUNK, BLOCKS_PER_SLOT};
use std::fmt;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

unit! {
    /// Position in bytes within a volume, a file or a device.
    ByteOffset(u64)
}
unit! {
    /// Length in bytes.
    ByteCount(u64)
}
unit! {
    /// Position of a 4 KiB block, counted from the start of a volume or of a chunk (the name of the variable says
    /// which).
    BlockIndex(u64)
}
unit! {
    /// Number of 4 KiB blocks.
    BlockCount(u32)
}
unit! {
    /// Which chunk of a volume.
    ChunkIndex(u32)
}
unit! {
    /// Which 64 KiB slot of a chunk, 0..1024.
    SlotIndex(u16)
}

impl ByteOffset {
    /// The block that starts here; `None` when the offset is not aligned.
    pub fn block(self) -> Option<BlockIndex> {
        self.0.is_multiple_of(BLOCK_BYTES).then_some(BlockIndex(self.0 / BLOCK_BYTES))
    }
}

impl BlockIndex {
    pub fn byte_offset(self) -> ByteOffset {
        ByteOffset(self.0 * BLOCK_BYTES)
    }

    /// The chunk that holds this block of a volume.
    pub fn chunk(self) -> ChunkIndex {
        ChunkIndex((self.0 / u64::from(BLOCKS_PER_CHUNK)) as u32)
    }

    /// This block's place within its chunk.
    pub fn within_chunk(self) -> BlockIndex {
        BlockIndex(self.0 % u64::from(BLOCKS_PER_CHUNK))
    }

    /// The slot that holds this block of a chunk. The block must be counted within its chunk.
    pub fn slot(self) -> SlotIndex {
        assert!(self.0 < u64::from(BLOCKS_PER_CHUNK));
        SlotIndex((self.0 / u64::from(BLOCKS_PER_SLOT)) as u16)
    }

    /// This block's place within its slot, 0..16.
    pub fn within_slot(self) -> u32 {
        (self.0 % u64::from(BLOCKS_PER_SLOT)) as u32
    }

    pub fn offset_by(self, count: BlockCount) -> BlockIndex {
        BlockIndex(self.0 + u64::from(count.0))
    }
}

impl BlockCount {
    pub fn bytes(self) -> ByteCount {
        ByteCount(u64::from(self.0) * BLOCK_BYTES)
    }
}

impl SlotIndex {
    /// First block of the slot, counted within the chunk.
    pub fn first_block(self) -> BlockIndex {
        BlockIndex(u64::from(self.0) * u64::from(BLOCKS_PER_SLOT))
    }
}

impl ChunkIndex {
    /// First block of the chunk, counted within the volume.
    pub fn first_block(self) -> BlockIndex {
        BlockIndex(u64::from(self.0) * u64::from(BLOCKS_PER_CHUNK))
    }
}
