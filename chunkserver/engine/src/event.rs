//! Everything that can happen to a disk's engine.

use ashlar_types::{Base, ByteCount, Epoch, Kept, VolumeId};
use ashlar_wire::RequestFrame;
use bytes::Bytes;

/// The shell's name for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Number of an operation that the engine asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpToken(pub u64);

/// Why an operation on the medium failed; `text` is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    pub text: String,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// The first request of a link is `Open` or `Observe`.
    Request { link: LinkId, frame: RequestFrame },
    /// The link ended; nothing more will come from it and nothing can be sent to it.
    LinkClosed { link: LinkId },
    /// An `Action::Read` ended; `Ok` has exactly the bytes asked for.
    ReadDone { op: OpToken, result: Result<Bytes, DiskError> },
    /// An `Action::Write` or `Action::Flush` ended.
    WriteDone { op: OpToken, result: Result<(), DiskError> },
    /// An `Action::Commit` ended.
    Committed { op: OpToken, result: Result<(), DiskError> },
    /// The control plane deletes the replica: every epoch up to `epoch` is fenced first. Answered by `Action::Deleted`.
    Delete { op: OpToken, volume: VolumeId, epoch: Epoch },
    /// The control plane makes the replica of a clone, with that promise. Answered by `Action::Cloned`.
    Clone { op: OpToken, volume: VolumeId, epoch: Epoch, size: ByteCount, base: Base },
    /// The control plane says which points are needed of a volume that nobody holds and whose last writer, of `epoch`,
    /// has closed it. Answered by `Action::PointsKept`.
    KeepPoints { op: OpToken, volume: VolumeId, epoch: Epoch, kept: Kept },
    /// Time has passed: `Engine::next_deadline` is due.
    Tick,
}
