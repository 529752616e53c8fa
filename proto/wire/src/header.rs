//! The fixed header of every frame.
//!
//! ```text
//!  offset  bytes  field
//!       0      4  magic          "ASHL" little-endian, 0x4c485341
//!       4      1  version        1
//!       5      1  opcode         see `opcode`
//!       6      2  reserved       0
//!       8      4  body_bytes     message without data, directly after the header
//!      12      4  data_bytes     blocks, directly after the body; a multiple of 4096
//!      16      8  session
//!      24      8  request
//!      32      4  epoch
//!      36      4  reserved       0
//!      40      8  commit         commit point, an lsn
//!      48      8  reserved       0
//!      56      4  body_crc       CRC-32 of the body
//!      60      4  header_crc     CRC-32 of bytes 0..60
//! ```
//! Data has a checksum per block, in the body.

use crate::error::WireError;
use crate::limits::{BODY_BYTES_MAX, DATA_BYTES_MAX, HEADER_BYTES};
use crate::opcode::Opcode;
use ashlar_types::{BLOCK_BYTES, Crc32, Epoch, Lsn, RequestId, SessionId, Slip};

pub const MAGIC: u32 = u32::from_le_bytes(*b"ASHL");
/// Version history: 1, the first; 2, versions of slots by floor.
pub const VERSION: u8 = 2;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = 4;
const OPCODE_AT: usize = 5;
const BODY_BYTES_AT: usize = 8;
const DATA_BYTES_AT: usize = 12;
const SESSION_AT: usize = 16;
const REQUEST_AT: usize = 24;
const EPOCH_AT: usize = 32;
const COMMIT_AT: usize = 40;
const BODY_CRC_AT: usize = 56;
const HEADER_CRC_AT: usize = 60;
const RESERVED: [std::ops::Range<usize>; 3] = [6..8, 36..40, 48..56];

const _: () = assert!(HEADER_CRC_AT + 4 == HEADER_BYTES);
const _: () = assert!(DATA_BYTES_MAX <= u32::MAX as usize);

/// A header that was checked: lengths are within limits, the opcode is known, the checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub opcode: Opcode,
    pub body_bytes: u32,
    pub data_bytes: u32,
    pub session: SessionId,
    pub request: RequestId,
    pub epoch: Epoch,
    pub commit: Lsn,
    pub body_crc: Crc32,
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

impl FrameHeader {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[MAGIC_AT..][..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[VERSION_AT] = VERSION;
        bytes[OPCODE_AT] = self.opcode as u8;
        bytes[BODY_BYTES_AT..][..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[DATA_BYTES_AT..][..4].copy_from_slice(&self.data_bytes.to_le_bytes());
        bytes[SESSION_AT..][..8].copy_from_slice(&self.session.0.to_le_bytes());
        bytes[REQUEST_AT..][..8].copy_from_slice(&self.request.0.to_le_bytes());
        bytes[EPOCH_AT..][..4].copy_from_slice(&self.epoch.number().to_le_bytes());
        bytes[COMMIT_AT..][..8].copy_from_slice(&self.commit.raw().to_le_bytes());
        bytes[BODY_CRC_AT..][..4].copy_from_slice(&self.body_crc.0.to_le_bytes());
        let crc = Crc32::of(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.0.to_le_bytes());
        bytes
    }

    /// Checks everything that can be checked without the body. Magic and version come first, so that a peer of
    /// another version is told from a damaged frame.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<FrameHeader, WireError> {
        if u32_at(bytes, MAGIC_AT) != MAGIC {
            return Err(WireError::Magic(u32_at(bytes, MAGIC_AT)));
        }
        if bytes[VERSION_AT] != VERSION {
            return Err(WireError::Version(bytes[VERSION_AT]));
        }
        if Crc32(u32_at(bytes, HEADER_CRC_AT)) != Crc32::of(&bytes[..HEADER_CRC_AT]) {
            return Err(WireError::HeaderChecksum);
        }
        if RESERVED.iter().any(|range| bytes[range.clone()].iter().any(|&byte| byte != 0)) {
            return Err(WireError::Reserved);
        }
        let body_bytes = u32_at(bytes, BODY_BYTES_AT);
        if body_bytes as usize > BODY_BYTES_MAX {
            return Err(WireError::BodyTooLong(body_bytes));
        }
        let data_bytes = u32_at(bytes, DATA_BYTES_AT);
        if data_bytes as usize > DATA_BYTES_MAX && !Slip::LengthBelieved.is_on()
            || !u64::from(data_bytes).is_multiple_of(BLOCK_BYTES)
        {
            return Err(WireError::DataLength(data_bytes));
        }
        Ok(FrameHeader {
            opcode: Opcode::from_number(bytes[OPCODE_AT]).ok_or(WireError::Opcode(bytes[OPCODE_AT]))?,
            body_bytes,
            data_bytes,
            session: SessionId(u64_at(bytes, SESSION_AT)),
            request: RequestId(u64_at(bytes, REQUEST_AT)),
            epoch: Epoch::new(u32_at(bytes, EPOCH_AT)).ok_or(WireError::Field("epoch"))?,
            commit: Lsn::from_raw(u64_at(bytes, COMMIT_AT)),
            body_crc: Crc32(u32_at(bytes, BODY_CRC_AT)),
        })
    }
}
