//! Everything that an engine asks its shell to do. The shell decides nothing.

use crate::{LinkId, OpToken};
use ashlar_types::{ByteCount, ByteOffset, ChunkIndex, SlotIndex, VolumeId};
use ashlar_wire::ReplyFrame;
use bytes::Bytes;

/// One change of the durable index. Keys and values are the engine's; the shell stores them in order of the bytes of
/// the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexEdit {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        key: Vec<u8>,
    },
    /// Deletes every key `from <= key < until`.
    DeleteRange {
        from: Vec<u8>,
        until: Vec<u8>,
    },
}

/// What a deletion has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// Nothing but the promise.
    Gone,
    /// What clones on the disk read. It goes with the last of them; whoever wants to know asks again.
    Kept,
}

/// Why there is no replica of a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloneRefusal {
    #[error("the source has no replica here, or has not kept what was written before the point")]
    NotHere,
    #[error("the source's replica lacks something")]
    Incomplete,
    #[error("the volume has, or had, a replica here that is no such clone")]
    Exists,
    #[error("the volume's size cannot be")]
    Size,
    #[error("the disk has too many replicas")]
    TooMany,
    #[error("the disk has failed")]
    DiskFailed,
    #[error("the disk is still recovering")]
    Recovering,
}

#[derive(Clone, Debug)]
pub enum Action {
    Reply {
        link: LinkId,
        frame: ReplyFrame,
    },
    /// End the link after what was replied to it was sent. `LinkClosed` does not follow.
    CloseLink {
        link: LinkId,
    },
    /// Offset and length are multiples of 4096.
    Read {
        op: OpToken,
        offset: ByteOffset,
        bytes: ByteCount,
    },
    /// The parts are written one after the other from `offset`; each part's length is a multiple of 4096. With
    /// `durable` the write is on stable media when it is done.
    Write {
        op: OpToken,
        offset: ByteOffset,
        parts: Vec<Bytes>,
        durable: bool,
    },
    /// Everything written and done before is on stable media when this is done.
    Flush {
        op: OpToken,
    },
    /// All edits or none, on stable media when done. At most one is outstanding.
    Commit {
        op: OpToken,
        edits: Vec<IndexEdit>,
    },
    /// Answer to `Event::Delete`.
    Deleted {
        op: OpToken,
        result: Result<Deleted, String>,
    },
    /// Answer to `Event::Clone`: the replica is here, durably.
    Cloned {
        op: OpToken,
        result: Result<(), CloneRefusal>,
    },
    /// Answer to `Event::KeepPoints`: the replica knows it, durably; or there is none, and nothing to know. If it is
    /// refused, nothing has changed.
    PointsKept {
        op: OpToken,
        result: Result<(), String>,
    },
    /// Recovery ended: requests are served from now on (those that came before have waited).
    Recovered {
        replayed_records: u64,
        lost_blocks: u64,
    },
    /// Scrub has found blocks bad, a bit for each, of which nobody knew. They are listed to the volume's writer.
    ScrubFound {
        volume: VolumeId,
        chunk: ChunkIndex,
        slot: SlotIndex,
        blocks: u16,
    },
    /// Every block was looked at.
    ScrubEnded {
        slots: u64,
        found_blocks: u64,
    },
    /// The disk's life as a replica ended. Said once.
    Failed {
        reason: String,
    },
}
