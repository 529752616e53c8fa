//! Everything that a volume asks its shell to do. The shell decides nothing.

use crate::{ProposalId, Tag};
use ashlar_types::{Change, ChunkIndex, Crc32, DiskId, Duration, Epoch, Lsn, SessionId, SlotIndex, SnapshotId};
use ashlar_wire::RequestFrame;
use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// A newer writer has the volume. Final.
    #[error("the volume is fenced by a newer writer")]
    Fenced,
    /// No replica has good bytes for a block.
    #[error("no replica has good content")]
    Lost,
    #[error("the request is outside of the volume or not aligned")]
    OutOfRange,
    #[error("no space on the volume's disks")]
    NoSpace,
    #[error("the volume is closed")]
    Closed,
    /// This attachment only reads.
    #[error("the volume is published for reading only")]
    ReadOnly,
    #[error("too few replicas for longer than the volume's ioTimeout")]
    TimedOut,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The writer ends: whether the snapshot is in the catalog, its record says.
    #[error("the volume is being detached, or is fenced")]
    Closed,
    #[error("the volume has as many snapshots as it may have")]
    TooMany,
    #[error("the control plane refused it: {0}")]
    Refused(String),
    #[error("the volume is being attached, or another snapshot of it is being taken")]
    Busy,
    #[error("its writes are no longer held")]
    Lapsed,
}

/// How an attachment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Drained; the catalog says clean.
    Clean,
    /// Another epoch took over.
    Fenced,
    /// Detached before it was ever served: the next writer reconciles.
    Unclean,
}

/// Why a volume does what it does, for `ashlar events`, logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Serving {
        reconciled_blocks: u64,
    },
    AttachBlocked {
        reason: String,
    },
    /// New writes waited so long for a snapshot of a group to get its point, or for the time to be over.
    WritesHeld {
        id: SnapshotId,
        duration: Duration,
    },
    Ejecting {
        disk: DiskId,
        reason: String,
    },
    Ejected {
        disk: DiskId,
        commit: Lsn,
    },
    /// Writes wait: too few replicas answer.
    BelowMinReplicas,
    Returning {
        disk: DiskId,
    },
    ReturnAbandoned {
        disk: DiskId,
        reason: String,
    },
    /// Back in-sync. Blocks copied against blocks that had changed.
    InSync {
        disk: DiskId,
        copied_blocks: u64,
        changed_blocks: u64,
    },
    Repaired {
        disk: DiskId,
        blocks: u32,
    },
    /// In-sync replicas hold different content of a slot, each with right checksums, as a read below `below` shows it.
    /// What each of them says; none: zeros.
    Differs {
        chunk: ChunkIndex,
        slot: SlotIndex,
        below: Lsn,
        said: Vec<(DiskId, Option<Crc32>)>,
    },
    Fenced {
        epoch: Epoch,
    },
}

#[derive(Clone, Debug)]
pub enum Action {
    /// Make a link to the disk's chunkserver; answered by `LinkUp` or `LinkDown`. At most one is asked for or stands
    /// per disk.
    Connect {
        disk: DiskId,
    },
    /// End the link. No `LinkDown` follows.
    Disconnect {
        disk: DiskId,
        session: SessionId,
    },
    Send {
        disk: DiskId,
        session: SessionId,
        frame: RequestFrame,
    },
    /// `Ok` holds the bytes of a read and is empty otherwise.
    Complete {
        tag: Tag,
        result: Result<Bytes, GuestError>,
    },
    /// The snapshot is in the catalog, with this point; or never will be by this writer.
    SnapshotTaken {
        id: SnapshotId,
        result: Result<Lsn, SnapshotError>,
    },
    /// No new write is issued until the snapshot has its point or the time is over; or why not.
    Held {
        id: SnapshotId,
        result: Result<(), SnapshotError>,
    },
    /// One compare-and-swap on the volume's epoch and `version`; answered by `Answer` or `Unanswered`.
    Propose {
        proposal: ProposalId,
        epoch: Epoch,
        version: u64,
        change: Change,
    },
    Notice(Notice),
    /// Nothing more will happen.
    Ended(Ending),
}
