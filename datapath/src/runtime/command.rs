//! What crosses between the I/O thread and the others. Every channel is bounded, and nobody waits while holding
//! something.
//!
//! ```text
//!   gRPC thread ──Command──► I/O thread ──Ask──► gRPC thread
//!   FUSE threads ─FuseCall─►
//! ```

use crate::frontend::fuse::FuseCall;
use crate::settings::Settings;
use ashlar_reactor::Waker;
use ashlar_rpc::control;
use ashlar_types::{ByteCount, Change, ChangeAnswer, DiskId, Duration, Epoch, Lsn, SnapshotId, VolumeId, VolumeRecord};
use ashlar_volume::{Event, ProposalId, SnapshotError};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for the I/O thread; who has more waits.
pub(crate) const COMMANDS_MAX: usize = 256;
/// FUSE requests that may wait for the I/O thread; a FUSE thread with one more waits.
pub(crate) const FUSE_CALLS_MAX: usize = 256;
/// Asks that may wait for the gRPC thread.
pub(crate) const ASKS_MAX: usize = 1024;

/// Where the chunkservers of a volume's members listen, as far as known.
pub(crate) type Addresses = BTreeMap<DiskId, SocketAddr>;

/// A volume record with what the I/O thread needs beside it.
pub(crate) struct Granted {
    pub(crate) record: VolumeRecord,
    pub(crate) addresses: Addresses,
    pub(crate) io_timeout: Option<Duration>,
    pub(crate) settings: Settings,
}

/// What this node is to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The epoch of the record was granted to it.
    Writer,
    /// One of many: the record is that of a volume to which nobody writes.
    Reader,
}

/// What other threads ask of the I/O thread.
pub(crate) enum Command {
    /// Attach under the epoch of the record. Answered when the volume serves, or cannot any more.
    Open {
        granted: Granted,
        role: Role,
        done: oneshot::Sender<Result<Epoch, OpenFailure>>,
    },
    /// Let go of a volume as it is, as a crash would. Answered with the last reason why it did not serve.
    Abandon {
        volume: VolumeId,
        done: oneshot::Sender<Option<String>>,
    },
    /// Blocks that a volume which is being attached has copied so far; none if it is not there.
    Progress {
        volume: VolumeId,
        done: oneshot::Sender<Option<u64>>,
    },
    /// Listen for NBD clients at a path where nothing is.
    ServeNbd {
        volume: VolumeId,
        path: PathBuf,
        read_only: bool,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Stop listening; refused while clients are connected, unless forced.
    StopNbd {
        volume: VolumeId,
        force: bool,
        done: oneshot::Sender<Result<(), ClientsConnected>>,
    },
    /// Drain, close, and have the catalog mark the volume clean. The front-end must be down.
    Detach {
        volume: VolumeId,
        done: oneshot::Sender<Detached>,
    },
    /// The control plane's answer to [`Ask::Propose`].
    Answered {
        volume: VolumeId,
        epoch: Epoch,
        proposal: ProposalId,
        answer: ChangeAnswer,
        addresses: Addresses,
    },
    Unanswered {
        volume: VolumeId,
        epoch: Epoch,
        proposal: ProposalId,
    },
    /// The control plane's answer to [`Ask::Record`].
    Record {
        volume: VolumeId,
        record: VolumeRecord,
        addresses: Addresses,
    },
    /// The catalog has a newer record than the one that was reported. No matter if the volume is not here.
    Refresh {
        volume: VolumeId,
    },
    /// Serve the volume by these settings from now on. Answered with false if it is not here.
    Modify {
        volume: VolumeId,
        settings: Settings,
        done: oneshot::Sender<bool>,
    },
    /// Take a snapshot; `held`: only if writes have been held for it up to now. Answered with nothing if the volume is
    /// not here.
    Snapshot {
        volume: VolumeId,
        id: SnapshotId,
        held: bool,
        done: oneshot::Sender<Option<Result<Taken, SnapshotError>>>,
    },
    /// Hold new writes until this snapshot gets its point.
    Hold {
        volume: VolumeId,
        id: SnapshotId,
        at_most: Duration,
        done: oneshot::Sender<Option<Result<(), SnapshotError>>>,
    },
    /// How its returning disks are filled from now on, and who shall go. No matter if the volume is not here.
    Steer {
        volume: VolumeId,
        words: Vec<Event>,
    },
    /// Take over a record of the catalog in which the volume may have grown. Answered with the size that the volume has
    /// then, or nothing if it is not there.
    Grow {
        volume: VolumeId,
        record: VolumeRecord,
        addresses: Addresses,
        done: oneshot::Sender<Option<ByteCount>>,
    },
    /// State and figures of every volume.
    Report {
        done: oneshot::Sender<Vec<control::AttachedVolume>>,
    },
    /// End the thread. Volumes that are still there are left as a crash would leave them.
    Stop,
}

/// Why a volume did not come to serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenFailure {
    #[error("the volume is attached already")]
    AlreadyOpen,
    #[error("the node has {VOLUMES_MAX} volumes attached, which is its limit")]
    TooMany,
    #[error("a newer writer has the volume")]
    Fenced,
    #[error("the attach was given up")]
    GivenUp,
}

/// Volumes that one node may have attached.
pub(crate) const VOLUMES_MAX: usize = ashlar_rpc::NODE_VOLUMES_MAX;

/// A snapshot that is in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) point: Lsn,
    /// How long new writes waited for it.
    pub(crate) held: Duration,
}

/// How a detach ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detached {
    Clean,
    /// The volume had never served: the next writer reconciles.
    Unclean,
    /// Another writer took over, so there was nothing to close.
    Fenced,
    /// The volume was not attached, or was let go of meanwhile.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} NBD clients are connected")]
pub(crate) struct ClientsConnected(pub(crate) usize);

/// What the I/O thread asks of the control plane.
pub(crate) enum Ask {
    Propose {
        volume: VolumeId,
        epoch: Epoch,
        version: u64,
        proposal: ProposalId,
        change: Change,
    },
    /// The record as it is now: a chunkserver did not answer at its address.
    Record {
        volume: VolumeId,
    },
    Event(control::Event),
}

/// The I/O thread as others see it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RuntimeHandle {
    commands: mpsc::Sender<Command>,
    fuse_calls: SyncSender<FuseCall>,
    waker: Waker,
}

/// The I/O thread has ended; the process is about to.
#[derive(Debug, thiserror::Error)]
#[error("the I/O thread has ended")]
pub(crate) struct Ended;

impl RuntimeHandle {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        fuse_calls: SyncSender<FuseCall>,
        waker: Waker,
    ) -> RuntimeHandle {
        RuntimeHandle { commands, fuse_calls, waker }
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), Ended> {
        self.commands.send(command).await.map_err(|_| Ended)?;
        self.waker.wake();
        Ok(())
    }

    /// Sends the command that `make` builds around the sender of an answer, and waits for that answer.
    pub(crate) async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Ended> {
        let (done, answer) = oneshot::channel();
        self.send(make(done)).await?;
        answer.await.map_err(|_| Ended)
    }

    /// Returns when the I/O thread has ended.
    pub(crate) async fn ended(&self) {
        self.commands.closed().await;
    }

    /// For FUSE threads: waits while too many calls wait already.
    pub(crate) fn call(&self, call: FuseCall) -> Result<(), Ended> {
        self.fuse_calls.send(call).map_err(|_| Ended)?;
        self.waker.wake();
        Ok(())
    }
}

/// Answers a command. An asker that has given up says with a command of its own what is to become of the volume.
pub(super) fn answer<T>(done: oneshot::Sender<T>, value: T) {
    if done.send(value).is_err() {
        tracing::debug!("an answer comes too late for its asker");
    }
}
