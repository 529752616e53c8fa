//! Superblock: what a disk is, in its first 4 KiB page, with a second copy in the next page.
//!
//! ```text
//!  0     4096   8192      1 MiB (journal offset)        data offset (1 MiB aligned)               total bytes
//!  +------+------+---------+------------------------------+----------+----------+-- ... --+---------+
//!  | copy | copy | zeros   | journal ring                 | slot 0   | slot 1   |         | slot n-1|
//!  +------+------+---------+------------------------------+----------+----------+-- ... --+---------+
//!
//!  offset  bytes  field
//!       0      8  magic "ASHLDISK"
//!       8      4  format version
//!      12      4  zero
//!      16     16  cluster id
//!      32     16  disk id
//!      48      8  total bytes
//!      56      8  journal offset
//!      64      8  journal bytes
//!      72      8  data offset
//!      80      4  slots
//!      84   4008  zero
//!    4092      4  CRC-32 of the 4092 bytes before
//! ```
//! Invariants: journal offset + journal bytes <= data offset; data offset + slots * 64 KiB <= total bytes.

use ashlar_types::{BLOCK_BYTES, ByteCount, ByteOffset, ClusterId, Crc32, DiskId, SLOT_BYTES, Slip};

/// Bytes of one copy; two copies stand at 0 and at this offset.
pub const SUPERBLOCK_BYTES: usize = 4096;
pub(crate) const JOURNAL_BYTES_MIN: u64 = 8 << 20;
const JOURNAL_BYTES_MAX: u64 = 16 << 30;
const MAGIC: &[u8; 8] = b"ASHLDISK";
const FORMAT: u32 = 1;
const ALIGN_BYTES: u64 = 1 << 20;
const CRC_AT: usize = SUPERBLOCK_BYTES - 4;
const SLOTS_AT: usize = 80;
const RESERVED: [std::ops::Range<usize>; 2] = [12..16, SLOTS_AT + 4..CRC_AT];
/// Enough for the reserve, and then some.
pub(crate) const SLOTS_MIN: u32 = 128;

const _: () = assert!(SLOTS_AT + 4 <= CRC_AT);
const _: () = assert!(ALIGN_BYTES >= 2 * SUPERBLOCK_BYTES as u64);
const _: () = assert!(SUPERBLOCK_BYTES as u64 == BLOCK_BYTES);

/// Where things are on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLayout {
    pub total: ByteCount,
    pub journal_offset: ByteOffset,
    pub journal: ByteCount,
    pub data_offset: ByteOffset,
    pub slot_count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("the journal has {0} bytes, it must have {JOURNAL_BYTES_MIN} to {JOURNAL_BYTES_MAX}")]
    JournalSize(u64),
    #[error("the journal's {0} bytes are not a multiple of 1 MiB")]
    JournalUnaligned(u64),
    #[error("a disk of {0} bytes has no room for the journal and {SLOTS_MIN} slots")]
    TooSmall(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub cluster: ClusterId,
    pub disk: DiskId,
    pub layout: DiskLayout,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    #[error("the disk is blank: it was never formatted for Ashlar")]
    NotADisk,
    #[error("the disk holds something that is not Ashlar's")]
    ForeignMagic,
    #[error("the disk has format {found}, this program knows {FORMAT}")]
    NewerFormat { found: u32 },
    #[error("both copies of the superblock are damaged")]
    BadChecksum,
    #[error("the superblock makes no sense: {0}")]
    Nonsense(&'static str),
    #[error("the disk belongs to cluster {found}, not to {expected}")]
    OtherCluster { found: ClusterId, expected: ClusterId },
    #[error("the disk has {found} bytes, its superblock says {expected}")]
    Truncated { found: u64, expected: u64 },
}

impl DiskLayout {
    pub fn new(total: ByteCount, journal: ByteCount) -> Result<DiskLayout, LayoutError> {
        if !(JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX).contains(&journal.0) {
            return Err(LayoutError::JournalSize(journal.0));
        }
        if !journal.0.is_multiple_of(ALIGN_BYTES) {
            return Err(LayoutError::JournalUnaligned(journal.0));
        }
        let data_offset = ALIGN_BYTES + journal.0;
        let slots = total.0.saturating_sub(data_offset) / SLOT_BYTES;
        if slots < u64::from(SLOTS_MIN) {
            return Err(LayoutError::TooSmall(total.0));
        }
        Ok(DiskLayout {
            total,
            journal_offset: ByteOffset(ALIGN_BYTES),
            journal,
            data_offset: ByteOffset(data_offset),
            slot_count: u32::try_from(slots).unwrap_or(u32::MAX - 1).min(u32::MAX - 1),
        })
    }

    fn fault(&self) -> Option<&'static str> {
        let journal_end = self.journal_offset.0.checked_add(self.journal.0);
        let data_end = self.data_offset.0.checked_add(u64::from(self.slot_count) * SLOT_BYTES);
        let aligned = |bytes: u64| bytes.is_multiple_of(BLOCK_BYTES);
        match (journal_end, data_end) {
            _ if self.slot_count == 0 || self.slot_count == u32::MAX => Some("impossible number of slots"),
            _ if !(JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX).contains(&self.journal.0) => Some("impossible journal size"),
            _ if !aligned(self.journal_offset.0) || !aligned(self.journal.0) => Some("the journal is not aligned"),
            _ if !aligned(self.data_offset.0) => Some("the slots are not aligned"),
            _ if self.journal_offset.0 < 2 * BLOCK_BYTES => Some("the journal covers the superblock"),
            (Some(journal_end), Some(data_end))
                if journal_end <= self.data_offset.0 && (data_end <= self.total.0 || Slip::LayoutBelieved.is_on()) =>
            {
                None
            }
            _ => Some("journal or slots lie outside of the disk"),
        }
    }
}

impl Superblock {
    /// One copy.
    pub fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut page = [0; SUPERBLOCK_BYTES];
        page[0..8].copy_from_slice(MAGIC);
        page[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        page[16..32].copy_from_slice(&self.cluster.as_u128().to_le_bytes());
        page[32..48].copy_from_slice(&self.disk.as_u128().to_le_bytes());
        page[48..56].copy_from_slice(&self.layout.total.0.to_le_bytes());
        page[56..64].copy_from_slice(&self.layout.journal_offset.0.to_le_bytes());
        page[64..72].copy_from_slice(&self.layout.journal.0.to_le_bytes());
        page[72..80].copy_from_slice(&self.layout.data_offset.0.to_le_bytes());
        page[SLOTS_AT..SLOTS_AT + 4].copy_from_slice(&self.layout.slot_count.to_le_bytes());
        let crc = Crc32::of(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.0.to_le_bytes());
        page
    }

    /// From the disk's first 8 KiB (both copies; fewer bytes are a truncated disk) and its size. The first good copy
    /// counts.
    pub fn decode(start: &[u8], found: ByteCount, cluster: ClusterId) -> Result<Superblock, SuperblockError> {
        let copies: Vec<&[u8]> = start.chunks_exact(SUPERBLOCK_BYTES).take(2).collect();
        if copies.is_empty() {
            return Err(SuperblockError::Truncated { found: found.0, expected: 2 * BLOCK_BYTES });
        }
        let outcomes: Vec<_> = copies.iter().map(|page| Superblock::decode_copy(page)).collect();
        let superblock = match outcomes.iter().find_map(|outcome| outcome.as_ref().ok()) {
            Some(superblock) => *superblock,
            None => return Err(worst(&outcomes)),
        };
        if superblock.cluster != cluster {
            return Err(SuperblockError::OtherCluster { found: superblock.cluster, expected: cluster });
        }
        if found < superblock.layout.total {
            return Err(SuperblockError::Truncated { found: found.0, expected: superblock.layout.total.0 });
        }
        Ok(superblock)
    }

    fn decode_copy(page: &[u8]) -> Result<Superblock, SuperblockError> {
        if page.iter().all(|&byte| byte == 0) {
            return Err(SuperblockError::NotADisk);
        }
        if &page[0..8] != MAGIC {
            return Err(SuperblockError::ForeignMagic);
        }
        if Crc32::of(&page[..CRC_AT]).0 != u32_at(page, CRC_AT) {
            return Err(SuperblockError::BadChecksum);
        }
        if u32_at(page, 8) != FORMAT {
            return Err(SuperblockError::NewerFormat { found: u32_at(page, 8) });
        }
        let reserved = if Slip::ReservedIgnored.is_on() { &RESERVED[..0] } else { &RESERVED[..] };
        if reserved.iter().any(|range| page[range.clone()].iter().any(|&byte| byte != 0)) {
            return Err(SuperblockError::Nonsense("reserved bytes are not zero"));
        }
        let layout = DiskLayout {
            total: ByteCount(u64_at(page, 48)),
            journal_offset: ByteOffset(u64_at(page, 56)),
            journal: ByteCount(u64_at(page, 64)),
            data_offset: ByteOffset(u64_at(page, 72)),
            slot_count: u32_at(page, SLOTS_AT),
        };
        match layout.fault() {
            Some(fault) => Err(SuperblockError::Nonsense(fault)),
            None => Ok(Superblock {
                cluster: ClusterId::from_u128(u128_at(page, 16)),
                disk: DiskId::from_u128(u128_at(page, 32)),
                layout,
            }),
        }
    }
}

/// What to say of a disk with no good copy: any trace of Ashlar speaks against "blank" and "foreign", so that nobody
/// formats it.
fn worst(outcomes: &[Result<Superblock, SuperblockError>]) -> SuperblockError {
    let rank = |error: &SuperblockError| match error {
        SuperblockError::NotADisk => 0,
        SuperblockError::ForeignMagic => 1,
        SuperblockError::BadChecksum => 2,
        _ => 3,
    };
    let errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    errors.max_by_key(|error| rank(error)).cloned().expect("no copy is good")
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(page[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(page: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(page[at..at + 8].try_into().expect("8 bytes"))
}

fn u128_at(page: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(page[at..at + 16].try_into().expect("16 bytes"))
}

#[cfg(test)]
mod tests;
