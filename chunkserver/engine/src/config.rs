//! What may be tuned, and every bound of this crate with how they relate.

use crate::superblock::{JOURNAL_BYTES_MIN, SLOTS_MIN};
use ashlar_types::{BLOCK_BYTES, BLOCKS_PER_SLOT, Duration};
use ashlar_wire::limits::{BLOCKS_PER_FRAME_MAX, DATA_BYTES_MAX, SESSION_DATA_BYTES_MAX};

/// Writes up to 32 KiB go through the journal whole.
pub(crate) const SMALL_WRITE_BLOCKS_MAX: u32 = 8;
/// Payload pages of one batch.
pub(crate) const BATCH_PAYLOAD_PAGES_MAX: u32 = 64;
/// Header pages of one batch: records of about fifty slots that are written beside the journal.
pub(crate) const BATCH_HEADER_PAGES_MAX: u32 = 2;
/// Header and payload of the largest batch. A batch starts only where so many bytes are left before the ring's end.
pub(crate) const BATCH_PAGES_MAX: u32 = 1 + BATCH_PAYLOAD_PAGES_MAX;
pub(crate) const BATCH_BYTES_MAX: u64 = BATCH_PAGES_MAX as u64 * BLOCK_BYTES;
/// Blocks of one repair that go into one journal record; a longer repair is cut.
pub(crate) const REPAIR_BLOCKS_MAX: u32 = 64;
/// Blocks of one write in place, in a checkpoint and in recovery.
pub(crate) const APPLY_RUN_BLOCKS_MAX: u32 = 256;
/// Whole slots of one write beside the journal.
pub(crate) const DIRECT_RUN_SLOTS_MAX: usize = (APPLY_RUN_BLOCKS_MAX / BLOCKS_PER_SLOT) as usize;
/// A read is tried again when what it read was replaced meanwhile; after so many times it is refused.
pub(crate) const READ_RETRIES_MAX: u32 = 16;
/// Connections of one disk.
pub(crate) const LINKS_MAX: usize = 4096;
/// Replicas, and tombstones of replicas, of one disk: a row of 69 bytes each.
pub(crate) const VOLUMES_MAX: usize = 1 << 20;
/// Events that wait for the end of recovery, and the data that they bring or ask for.
pub(crate) const EARLY_EVENTS_MAX: usize = 8192;
pub(crate) const EARLY_DATA_BYTES_MAX: usize = SESSION_DATA_BYTES_MAX;
/// Slots looked at for one page of a listing: bounds the time that a listing holds up everything else.
pub(crate) const LIST_SLOTS_MAX: usize = 1 << 16;
/// Versions of which bad blocks are remembered; of 24 bytes each, and as much in the index.
pub(crate) const BAD_SLOTS_MAX: usize = 1 << 16;
/// Scrub that is late looks at so many slots, at most, in the time of one.
pub(crate) const SCRUB_CATCH_UP_MAX: u32 = 4;
/// Between two of its reads, whatever the period: 32 MiB/s.
pub(crate) const SCRUB_PAUSE_MIN: Duration = Duration::from_millis(2);
/// After a start it looks at its first slot no later than this, so that a disk that is restarted often gets on too.
pub(crate) const SCRUB_BEGINS_AFTER: Duration = Duration::from_secs(60);
/// How long what it has come to may wait for a checkpoint, if nothing else calls for one; and what it has found.
pub(crate) const SCRUB_SAVED_WITHIN: Duration = Duration::from_secs(60);
pub(crate) const SCRUB_NEWS_SAVED_WITHIN: Duration = Duration::from_secs(1);
/// Slots of a round that are told one by one; of the others the round's end tells how many they were.
pub(crate) const SCRUB_TOLD_MAX: u32 = 32;
/// Fewest places kept back for copies, repairs and overwrites.
pub(crate) const RESERVE_SLOTS_MIN: u32 = 2 * (BLOCKS_PER_FRAME_MAX / BLOCKS_PER_SLOT + 1);

/// The two partial ends of a large write, neither of them a whole slot.
const PAYLOAD_OF_ONE_WRITE_MAX: u32 = 2 * (BLOCKS_PER_SLOT - 1);
const _: () = assert!(PAYLOAD_OF_ONE_WRITE_MAX <= BATCH_PAYLOAD_PAGES_MAX);
const _: () = assert!(BLOCKS_PER_SLOT <= BATCH_PAYLOAD_PAGES_MAX, "a filled slot fits a batch");
const _: () = assert!(BATCH_HEADER_PAGES_MAX >= 1 && BATCH_HEADER_PAGES_MAX <= BATCH_PAGES_MAX);
const _: () = assert!(REPAIR_BLOCKS_MAX <= BATCH_PAYLOAD_PAGES_MAX);
const _: () = assert!(JOURNAL_BYTES_MIN >= 16 * BATCH_BYTES_MAX, "one batch is a small part of the ring");
const _: () = assert!(RESERVE_SLOTS_MIN <= SLOTS_MIN / 2);
const _: () = assert!(APPLY_RUN_BLOCKS_MAX as usize * BLOCK_BYTES as usize <= DATA_BYTES_MAX);
/// Tuning of one engine. The defaults suit a disk of any size.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// A checkpoint starts when this part of the ring is used.
    pub checkpoint_ring_percent: u8,
    /// A checkpoint starts when something has waited for one so long.
    pub checkpoint_interval: Duration,
    /// A checkpoint starts when nothing was written for so long.
    pub idle_delay: Duration,
    /// Writes in place in flight while the foreground is idle or more than three quarters of the ring are used.
    pub apply_depth: u32,
    /// Writes in place in flight while the foreground is busy.
    pub apply_depth_busy: u32,
    /// Places kept back from first-touch writes, in thousandths of the disk.
    pub reserve_permille: u16,
    /// Size and number of the reads of recovery.
    pub recover_read_bytes: u64,
    pub recover_read_depth: u32,
    /// Every block is compared with its checksum once in this time that the disk is in service; none: never.
    pub scrub_period: Option<Duration>,
    /// The time of day when the engine is made, in milliseconds since 1970: for people, nothing is decided by it.
    pub started_unix_ms: u64,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            checkpoint_ring_percent: 50,
            checkpoint_interval: Duration::from_secs(30),
            idle_delay: Duration::from_millis(200),
            apply_depth: 8,
            apply_depth_busy: 4,
            reserve_permille: 10,
            recover_read_bytes: 1 << 20,
            recover_read_depth: 4,
            scrub_period: None,
            started_unix_ms: 0,
        }
    }
}

impl EngineConfig {
    /// Why the values make no sense, if they do not.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let reads = self.recover_read_bytes;
        match () {
            _ if !(1..=75).contains(&self.checkpoint_ring_percent) => Some("checkpoint_ring_percent is not in 1..=75"),
            _ if self.apply_depth == 0 || self.apply_depth_busy == 0 => Some("an apply depth is zero"),
            _ if reads == 0 || !reads.is_multiple_of(BLOCK_BYTES) => Some("recover_read_bytes is not whole blocks"),
            _ if self.recover_read_depth == 0 => Some("recover_read_depth is zero"),
            _ if self.scrub_period.is_some_and(|period| period.is_zero()) => Some("scrub_period is zero"),
            _ if self.reserve_permille > 500 => Some("reserve_permille is above 500"),
            _ => None,
        }
    }
}
