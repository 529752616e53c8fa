//! The one checksum of Ashlar: CRC-32 (IEEE 802.3 polynomial, reflected).
//!
//! Source: ITU-T V.42, 8.1.1.6.2. A block's checksum covers its 4096 data bytes alone; it is bound to volume and
//! address by where it is kept (beside the slot map, apart from the data), so that a lost or misdirected write shows
//! as a mismatch.

use std::fmt;

/// CRC-32 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Crc32(pub u32);

impl Crc32 {
    /// Checksum of a 4096-byte block of zeros: what an unwritten block reads as.
    pub const ZERO_BLOCK: Crc32 = Crc32(0xC71C_0011);

    pub fn of(bytes: &[u8]) -> Crc32 {
        Crc32(crc32fast::hash(bytes))
    }

    /// Checksum of `parts` laid end to end.
    pub fn of_parts(parts: &[&[u8]]) -> Crc32 {
        let mut hasher = crc32fast::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        Crc32(hasher.finalize())
    }

    /// One checksum for each 4096-byte block of `data`; `data.len()` must be a multiple of 4096.
    pub fn of_blocks(data: &[u8]) -> impl Iterator<Item = Crc32> + '_ {
        assert!(data.len().is_multiple_of(crate::BLOCK_BYTES as usize));
        data.chunks_exact(crate::BLOCK_BYTES as usize).map(Crc32::of)
    }
}

impl fmt::Debug for Crc32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_published_polynomial() {
        assert_eq!(Crc32::of(b"123456789"), Crc32(0xCBF4_3926));
    }

    #[test]
    fn zero_block_constant_is_the_checksum_of_zeros() {
        assert_eq!(Crc32::of(&[0; 4096]), Crc32::ZERO_BLOCK);
    }

    #[test]
    fn parts_equal_the_whole() {
        assert_eq!(Crc32::of_parts(&[b"1234", b"", b"56789"]), Crc32::of(b"123456789"));
    }
}
