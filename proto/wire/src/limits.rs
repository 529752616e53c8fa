//! Every bound of the data protocol, and how they relate.

use ashlar_types::{BLOCK_BYTES, BLOCKS_PER_SLOT};

/// Bytes of the fixed frame header.
pub const HEADER_BYTES: usize = 64;
/// Most data bytes of one frame: the largest single write or read.
pub const DATA_BYTES_MAX: usize = 1 << 20;
/// Most blocks of one write, read or repair.
pub const BLOCKS_PER_FRAME_MAX: u32 = (DATA_BYTES_MAX as u64 / BLOCK_BYTES) as u32;
/// Most body bytes of one frame (the message without its data).
pub const BODY_BYTES_MAX: usize = 128 << 10;
/// Most entries of one page of a listing.
pub const LIST_ENTRIES_MAX: usize = 512;
/// Most floors that one answer about space names.
pub const HELD_ENTRIES_MAX: usize = 4096;
/// Most bytes of the text that explains a refusal.
pub const REASON_BYTES_MAX: usize = 256;
/// What one session may have unanswered; a peer that sends more is disconnected.
pub const SESSION_REQUESTS_MAX: usize = 2048;
pub const SESSION_DATA_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(BLOCKS_PER_FRAME_MAX >= BLOCKS_PER_SLOT, "a slot travels in one frame");
const _: () =
    assert!(BODY_BYTES_MAX >= BLOCKS_PER_FRAME_MAX as usize * 4 + 256, "the checksums of the largest write fit");
const _: () = assert!(BODY_BYTES_MAX >= LIST_ENTRIES_MAX * (4 + 8 + 128) + 256, "the largest listing page fits");
const _: () = assert!(SESSION_DATA_BYTES_MAX >= 16 * DATA_BYTES_MAX);
