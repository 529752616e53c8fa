//! The content of a written block: a unique number, repeated in each 512-byte sector, so that a reader knows which
//! write it reads and sees a block that is torn at a sector.

use bytes::{Bytes, BytesMut};

pub const BLOCK: usize = ashlar_types::BLOCK_BYTES as usize;
const SECTOR: usize = 512;

/// Which write a block's content comes from. Zero: never written, or discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    pub const ZERO: Stamp = Stamp(0);
}

/// The bytes of blocks with consecutive stamps from `first` on.
pub fn write_blocks(first: Stamp, count: u32) -> Bytes {
    let mut bytes = BytesMut::zeroed(count as usize * BLOCK);
    for (i, block) in bytes.chunks_exact_mut(BLOCK).enumerate() {
        let stamp = (first.0 + i as u64).to_le_bytes();
        for sector in block.chunks_exact_mut(SECTOR) {
            sector[..8].copy_from_slice(&stamp);
        }
    }
    bytes.freeze()
}

/// The stamp in a page's first sector, whatever the rest is.
pub fn first_sector(page: &[u8]) -> Stamp {
    Stamp(u64::from_le_bytes(page[..8].try_into().expect("8 bytes")))
}

/// `None` when the block is no whole content of a single write.
pub fn read_block(block: &[u8]) -> Option<Stamp> {
    let stamp: [u8; 8] = block[..8].try_into().expect("8 bytes");
    let mut whole_sector = [0; SECTOR];
    whole_sector[..8].copy_from_slice(&stamp);
    let whole = block.chunks_exact(SECTOR).all(|sector| sector == whole_sector);
    whole.then_some(Stamp(u64::from_le_bytes(stamp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_come_back_and_torn_blocks_do_not() {
        let bytes = write_blocks(Stamp(41), 2);
        assert_eq!(read_block(&bytes[BLOCK..]), Some(Stamp(42)));
        let mut torn = bytes[..BLOCK].to_vec();
        torn[512..1024].copy_from_slice(&bytes[BLOCK..BLOCK + 512]);
        assert_eq!(read_block(&torn), None);
        assert_eq!(read_block(&[0; BLOCK]), Some(Stamp::ZERO));
    }
}
