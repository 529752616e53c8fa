//! Everything that can happen to an attached volume.

use ashlar_types::{BlockCount, BlockIndex, ChangeAnswer, DiskId, Duration, Lsn, SessionId, SnapshotId, VolumeRecord};
use ashlar_wire::ReplyFrame;
use bytes::Bytes;

/// The front-end's name for a request; comes back in [`crate::Action::Complete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// Number of a proposal of this writer. A proposal that is made again unchanged keeps its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestOp {
    /// The present content, `below` being `Lsn::MAX`, or that of a snapshot, `below` being its point.
    Read { start: BlockIndex, count: BlockCount, below: Lsn },
    /// `data.len()` is a multiple of 4096.
    Write { start: BlockIndex, data: Bytes },
    /// Trim and write-zeroes: the blocks read as zeros from then on.
    Discard { start: BlockIndex, count: BlockCount },
    /// Costs nothing: a write that was completed is durable (P1).
    Flush,
}

#[derive(Clone, Debug)]
pub enum Event {
    Guest {
        tag: Tag,
        op: GuestOp,
    },
    /// A link that was asked for by `Action::Connect` stands. `session` is fresh and random.
    LinkUp {
        disk: DiskId,
        session: SessionId,
    },
    /// The link ended, or could not be made (then `session` is none).
    LinkDown {
        disk: DiskId,
        session: Option<SessionId>,
        reset: bool,
    },
    Reply {
        disk: DiskId,
        frame: ReplyFrame,
    },
    /// The control plane's answer to a proposal.
    Answer {
        proposal: ProposalId,
        answer: ChangeAnswer,
    },
    /// The control plane did not answer: the change may or may not have happened.
    Unanswered {
        proposal: ProposalId,
    },
    /// The record as read from the control plane, unasked; an older version than the known one is ignored.
    Record(VolumeRecord),
    /// Take a snapshot. Answered by `Action::SnapshotTaken`. `held`: only if writes have been held for it up to now.
    Snapshot {
        id: SnapshotId,
        held: bool,
    },
    /// Hold new writes until this snapshot gets its point, at most for so long: it is one of a group. Answered by
    /// `Action::Held`.
    Hold {
        id: SnapshotId,
        at_most: Duration,
    },
    /// The member shall go, as soon as nobody is missing then. To be said again every few seconds, as long as it is so.
    LetGo {
        disk: DiskId,
    },
    /// How fast returning disks may be filled from now on; none: as fast as they take it. `source`: the disk that shall
    /// be read for it where it can; none: whichever is farthest from the guest. To be said again likewise.
    Pace {
        bytes_per_second: Option<u64>,
        source: Option<DiskId>,
    },
    /// Drain and close cleanly.
    Detach,
    /// Time has passed: `Volume::next_deadline` is due.
    Tick,
}
