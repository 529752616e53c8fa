//! How other threads talk to a host: commands through a bounded channel, each answered once. Whoever asks
//! waits; the host never does.

use ashlar_engine::{CloneRefusal, Deleted, EngineStatus, Space};
use ashlar_reactor::Waker;
use ashlar_types::{Base, ByteCount, ChunkIndex, DiskId, Epoch, Kept, Lsn, VolumeId};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Commands that wait for the host.
pub(crate) const COMMANDS_MAX: usize = 64;
/// Events that are kept for whoever asks.
pub(crate) const EVENTS_MAX: usize = 256;

#[derive(Debug)]
pub(crate) enum HostCommand {
    Snapshot {
        answer: oneshot::Sender<HostSnapshot>,
    },
    Delete {
        disk: DiskId,
        volume: VolumeId,
        epoch: Epoch,
        answer: oneshot::Sender<Result<Deleted, ReplicaError>>,
    },
    /// One page, and where the next one begins.
    Space {
        disk: DiskId,
        volume: VolumeId,
        chunks: (ChunkIndex, ChunkIndex),
        points: Arc<[Lsn]>,
        answer: oneshot::Sender<Result<(Space, Option<ChunkIndex>), ReplicaError>>,
    },
    KeepPoints {
        disk: DiskId,
        volume: VolumeId,
        epoch: Epoch,
        kept: Kept,
        answer: oneshot::Sender<Result<(), ReplicaError>>,
    },
    Clone {
        order: CloneOrder,
        answer: oneshot::Sender<Result<(), CloneError>>,
    },
    Stop,
}

/// A clone's replica that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloneOrder {
    pub disk: DiskId,
    pub volume: VolumeId,
    /// Fences every writer of a lower one.
    pub epoch: Epoch,
    pub size: ByteCount,
    pub base: Base,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloneError {
    #[error("disk {0} is not here")]
    NoSuchDisk(DiskId),
    #[error(transparent)]
    Refused(#[from] CloneRefusal),
    /// The process is ending.
    #[error("the chunkserver is ending")]
    Ending,
}

/// Why something about a replica was not done or not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    #[error("disk {0} is not here")]
    NoSuchDisk(DiskId),
    #[error("{0}")]
    Refused(String),
    /// The process is ending.
    #[error("the chunkserver is ending")]
    Ending,
}

impl From<&'static str> for ReplicaError {
    fn from(reason: &'static str) -> ReplicaError {
        ReplicaError::Refused(reason.to_owned())
    }
}

/// The host has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunkserver is ending")]
pub struct HostGone;

/// A host as other threads see it.
#[derive(Clone)]
pub struct HostHandle {
    commands: mpsc::Sender<HostCommand>,
    waker: Waker,
}

impl HostHandle {
    pub(crate) fn new(waker: Waker) -> (HostHandle, mpsc::Receiver<HostCommand>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        (HostHandle { commands, waker }, receiver)
    }

    pub async fn snapshot(&self) -> Result<HostSnapshot, HostGone> {
        let (answer, answered) = oneshot::channel();
        self.send(HostCommand::Snapshot { answer }).await?;
        answered.await.map_err(|_| HostGone)
    }

    /// Deletes the replica of the volume; every epoch up to `epoch` is fenced first. Says whether clones keep some of
    /// it.
    pub async fn delete(&self, disk: DiskId, volume: VolumeId, epoch: Epoch) -> Result<Deleted, ReplicaError> {
        let (answer, answered) = oneshot::channel();
        let command = HostCommand::Delete { disk, volume, epoch, answer };
        self.send(command).await.map_err(|HostGone| ReplicaError::Ending)?;
        answered.await.map_err(|_| ReplicaError::Ending)?
    }

    /// For whom the replica keeps the chunks `from..until`. Asked for page by page: I/O goes on in between.
    pub async fn space(
        &self,
        (disk, volume): (DiskId, VolumeId),
        (from, until): (ChunkIndex, ChunkIndex),
        points: &Arc<[Lsn]>,
    ) -> Result<Space, ReplicaError> {
        let mut space = Space::default();
        let mut next = Some(from);
        while let Some(from) = next {
            let (answer, answered) = oneshot::channel();
            let command = HostCommand::Space { disk, volume, chunks: (from, until), points: points.clone(), answer };
            self.send(command).await.map_err(|HostGone| ReplicaError::Ending)?;
            let (page, following) = answered.await.map_err(|_| ReplicaError::Ending)??;
            space.add(&page);
            next = following;
        }
        Ok(space)
    }

    /// Which points of a volume that nobody holds are needed; refused where a writer has the replica open, or one of a
    /// later epoch than `epoch` had.
    pub async fn keep_points(
        &self,
        (disk, volume): (DiskId, VolumeId),
        epoch: Epoch,
        kept: Kept,
    ) -> Result<(), ReplicaError> {
        let (answer, answered) = oneshot::channel();
        let command = HostCommand::KeepPoints { disk, volume, epoch, kept, answer };
        self.send(command).await.map_err(|HostGone| ReplicaError::Ending)?;
        answered.await.map_err(|_| ReplicaError::Ending)?
    }

    /// Makes the replica of a clone, durably. Repeating it changes nothing.
    pub async fn make_clone(&self, order: CloneOrder) -> Result<(), CloneError> {
        let (answer, answered) = oneshot::channel();
        self.send(HostCommand::Clone { order, answer }).await.map_err(|HostGone| CloneError::Ending)?;
        answered.await.map_err(|_| CloneError::Ending)?
    }

    /// Asks the host to end in order. It has ended when its loop returns.
    pub async fn stop(&self) -> Result<(), HostGone> {
        self.send(HostCommand::Stop).await
    }

    /// As `stop`, for a thread that runs no tasks.
    pub fn stop_blocking(&self) -> Result<(), HostGone> {
        self.commands.blocking_send(HostCommand::Stop).map_err(|_| HostGone)?;
        self.waker.wake();
        Ok(())
    }

    async fn send(&self, command: HostCommand) -> Result<(), HostGone> {
        self.commands.send(command).await.map_err(|_| HostGone)?;
        self.waker.wake();
        Ok(())
    }
}

/// A host at one moment.
#[derive(Clone, Debug)]
pub struct HostSnapshot {
    pub disks: Vec<DiskSnapshot>,
    pub links: LinkCounts,
    /// The newest, oldest first.
    pub events: Vec<HostEvent>,
}

#[derive(Clone, Debug)]
pub struct DiskSnapshot {
    /// Unknown when the superblock could not be read.
    pub id: Option<DiskId>,
    pub path: PathBuf,
    pub capacity: ByteCount,
    pub free: ByteCount,
    /// Why it is no replica any more, or why it could not be opened.
    pub failure: Option<String>,
    /// Of a disk that could be opened.
    pub status: Option<EngineStatus>,
    pub traffic: Traffic,
}

/// Requests by what they cost, and their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub discards: u64,
    pub others: u64,
    pub index_commits: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    pub open: u64,
    pub accepted: u64,
    /// Ended because of bytes or requests that the protocol does not allow.
    pub protocol_errors: u64,
    /// Ended because no first frame came.
    pub silent: u64,
    /// Refused because they named a disk that is not here.
    pub wrong_disk: u64,
}

/// Something that people and the control plane should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEvent {
    /// Counts the events of this process from 1.
    pub sequence: u64,
    pub time_ms: u64,
    pub kind: &'static str,
    pub disk: Option<DiskId>,
    pub volume: Option<VolumeId>,
    pub text: String,
}
