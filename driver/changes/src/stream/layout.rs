//! Bytes of the header and of a frame's head. Little-endian, reserved bytes zero.
//!
//! ```text
//! header             offset  bytes  field
//!                         0      8  magic          "ASHLSTRM"
//!                         8      2  version        1
//!                        10      2  kind           1 full, 2 incremental
//!                        12      4  block_bytes    4096
//!                        16     16  volume
//!                        32     16  snapshot
//!                        48     16  base           of an incremental stream, else 0
//!                        64      8  size_bytes     of the snapshot
//!                        72     52  reserved       0
//!                       124      4  crc            CRC-32 of bytes 0..124
//!
//! frame head         offset  bytes  field
//!                         0      4  magic          "ASHF"
//!                         4      2  kind           1 data, 2 zeros, 3 end
//!                         6      2  reserved       0
//!                         8      8  sequence       1, 2, 3, ...
//!                        16      8  offset_bytes   in the volume; end: data bytes of the whole stream
//!                        24      8  length_bytes   end: bytes of zeros of the whole stream
//!                        32      4  before_crc     CRC-32 of every byte of the stream before this head
//!                        36      4  data_crc       CRC-32 of the data that follows; else 0
//!                        40      4  reserved       0
//!                        44      4  crc            CRC-32 of bytes 0..44
//! ```

use super::{Result, StreamError};
use ashlar_types::{BLOCK_BYTES, ByteCount, Crc32, Geometry, SnapshotId, VolumeId};

pub(super) const VERSION: u16 = 1;
pub(super) const HEADER_BYTES: usize = 128;
pub(super) const HEAD_BYTES: usize = 48;
/// Most data of one frame.
pub const DATA_BYTES_MAX: u64 = 1 << 20;

const HEADER_MAGIC: &[u8; 8] = b"ASHLSTRM";
const FRAME_MAGIC: &[u8; 4] = b"ASHF";
const HEADER_CRC_AT: usize = HEADER_BYTES - 4;
const HEAD_CRC_AT: usize = HEAD_BYTES - 4;
const KIND_FULL: u16 = 1;
const KIND_INCREMENTAL: u16 = 2;

const _: () = assert!(DATA_BYTES_MAX.is_multiple_of(BLOCK_BYTES));

/// What a stream is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub volume: VolumeId,
    pub snapshot: SnapshotId,
    /// Of an incremental stream: what it is to be applied to.
    pub base: Option<SnapshotId>,
    pub size: ByteCount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    Data = 1,
    Zeros = 2,
    End = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) before: Crc32,
    pub(super) data: Crc32,
}

impl Identity {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let kind = if self.base.is_some() { KIND_INCREMENTAL } else { KIND_FULL };
        bytes[..8].copy_from_slice(HEADER_MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&kind.to_le_bytes());
        bytes[12..16].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.volume.as_u128().to_le_bytes());
        bytes[32..48].copy_from_slice(&self.snapshot.as_u128().to_le_bytes());
        bytes[48..64].copy_from_slice(&self.base.map_or(0, SnapshotId::as_u128).to_le_bytes());
        bytes[64..72].copy_from_slice(&self.size.0.to_le_bytes());
        seal(&mut bytes, HEADER_CRC_AT);
        bytes
    }

    /// Whether a header may begin with these bytes.
    pub(super) fn is_begun(bytes: &[u8]) -> bool {
        bytes.iter().zip(HEADER_MAGIC).all(|(byte, expected)| byte == expected)
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Identity> {
        if !Identity::is_begun(bytes) {
            return Err(StreamError::Foreign);
        }
        // Before the checksum: where a later version keeps its own is not known.
        match u16_at(bytes, 8) {
            VERSION => {}
            0 => return Err(damaged("a version that never was")),
            newer => return Err(StreamError::Newer(newer)),
        }
        check_seal(bytes, HEADER_CRC_AT).ok_or(damaged("the header and its checksum differ"))?;
        let base = match (u16_at(bytes, 10), u128_at(bytes, 48)) {
            (KIND_FULL, 0) => None,
            (KIND_INCREMENTAL, base) => Some(SnapshotId::from_u128(base)),
            _ => return Err(damaged("neither a full stream nor an incremental one")),
        };
        let size =
            Geometry::new(ByteCount(u64_at(bytes, 64))).map_err(|_| damaged("a size that no volume has"))?.size();
        if u32_at(bytes, 12) != BLOCK_BYTES as u32 || bytes[72..HEADER_CRC_AT].iter().any(|&byte| byte != 0) {
            return Err(damaged("a field of the header that cannot be"));
        }
        let volume = VolumeId::from_u128(u128_at(bytes, 16));
        Ok(Identity { volume, snapshot: SnapshotId::from_u128(u128_at(bytes, 32)), base, size })
    }
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(FRAME_MAGIC);
        bytes[4..6].copy_from_slice(&(self.kind as u16).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.length.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.before.0.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.data.0.to_le_bytes());
        seal(&mut bytes, HEAD_CRC_AT);
        bytes
    }

    /// What is wrong with it, if it is none.
    pub(super) fn decode(bytes: &[u8; HEAD_BYTES]) -> std::result::Result<Head, &'static str> {
        if bytes[..4] != FRAME_MAGIC[..] {
            return Err("a frame without its mark");
        }
        check_seal(bytes, HEAD_CRC_AT).ok_or("a frame's head and its checksum differ")?;
        let kind = match u16_at(bytes, 4) {
            1 => Kind::Data,
            2 => Kind::Zeros,
            3 => Kind::End,
            _ => return Err("a frame of an unknown kind"),
        };
        if bytes[6..8] != [0; 2] || bytes[40..44] != [0; 4] {
            return Err("a reserved field is not zero");
        }
        Ok(Head {
            kind,
            sequence: u64_at(bytes, 8),
            offset: u64_at(bytes, 16),
            length: u64_at(bytes, 24),
            before: Crc32(u32_at(bytes, 32)),
            data: Crc32(u32_at(bytes, 36)),
        })
    }
}

fn damaged(what: &'static str) -> StreamError {
    StreamError::Damaged { at: 0, what }
}

fn seal(bytes: &mut [u8], at: usize) {
    let crc = Crc32::of(&bytes[..at]);
    bytes[at..].copy_from_slice(&crc.0.to_le_bytes());
}

fn check_seal(bytes: &[u8], at: usize) -> Option<()> {
    (Crc32::of(&bytes[..at]).0 == u32_at(bytes, at)).then_some(())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("16 bytes"))
}
