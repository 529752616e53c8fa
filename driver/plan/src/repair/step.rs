//! What the planner wants done, and why. Steps are wishes about the state that was seen: who carries one out compares
//! the record's version, and does nothing if it has moved. A step that was not carried out comes again.

use crate::placement::Explanation;
use crate::repair::BytesPerSecond;
use ashlar_types::{ByteCount, DiskId, Duration, NodeName, VolumeId};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Gives the chunks of `gone`, which is out, to `with`, which has nothing of the volume yet.
    Replace { volume: VolumeId, gone: DiskId, with: DiskId, why: Why, choice: Explanation },
    /// `with` becomes a member beside `leaving`, which stays until the other is in-sync.
    Widen { volume: VolumeId, leaving: DiskId, with: DiskId, why: Why, choice: Explanation },
    /// `disk` is no member any more: of each of its chunks enough others are in-sync, or it is not in-sync itself; and
    /// where it is given up, the one beside it takes its place.
    Narrow { volume: VolumeId, disk: DiskId, why: Why },
    /// `node` attaches the volume, without a device, so that its members return; repeated as long as it is wanted.
    Repair { volume: VolumeId, node: NodeName, why: Why },
    /// The attachment for repair is not wanted any more.
    StopRepair { volume: VolumeId, why: Why },
    /// How fast the volume's members may be copied from now on, in sum, until another such step; 0: they wait. One for
    /// every volume that has something to copy, whatever it was before. Read from `source` where there is a choice.
    Copy { volume: VolumeId, rate: BytesPerSecond, source: Option<DiskId> },
}

/// The reason for a step, as it was when the step was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    DiskFailed {
        disk: DiskId,
    },
    DiskLost {
        disk: DiskId,
    },
    /// The control plane does not know the disk.
    DiskUnknown {
        disk: DiskId,
    },
    /// Its chunkserver answers and does not name it.
    DiskMissing {
        disk: DiskId,
        waited: Duration,
        grace: Duration,
    },
    /// New writes have fewer copies than they shall have while it is.
    Away {
        disk: DiskId,
        in_sync: u8,
    },
    /// The temporary replica is not wanted any more: the disk returns, nobody writes, or the room is wanted.
    NoLongerAway {
        disk: DiskId,
    },
    NodeSilent {
        node: NodeName,
        waited: Duration,
        grace: Duration,
    },
    /// No grace: one replica is left.
    LastReplica {
        disk: DiskId,
        in_sync: u8,
    },
    DiskDraining {
        disk: DiskId,
    },
    NodeDraining {
        node: NodeName,
    },
    PodMoved {
        node: NodeName,
        held_for: Duration,
    },
    Fill {
        from_permille: u16,
        to_permille: u16,
    },
    /// Narrow: the extra one is in-sync, and this one was to leave.
    Moved {
        in_sync: u8,
        replicas: u8,
    },
    /// Narrow: the move has no reason any more.
    Cancelled {
        in_sync: u8,
    },
    /// Repair: so many members wait for a writer.
    NotInSync {
        members: u8,
    },
    /// Repair: nobody has noticed yet that these cannot be reached.
    Unreachable {
        members: u8,
    },
    /// StopRepair: the node is not heard of any more; the volume is taken from it.
    HolderSilent {
        node: NodeName,
    },
    /// StopRepair.
    Protected,
    /// StopRepair: others are more urgent, and the node has as many attachments for repair as it may.
    MakesRoom {
        node: NodeName,
    },
}

/// What comes out of one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they matter.
    pub steps: Vec<Step>,
    /// One for every volume that has too few replicas in-sync.
    pub forecasts: BTreeMap<VolumeId, Forecast>,
    /// What should be done and cannot, and why: for events and `volume show --why`.
    pub stuck: Vec<Stuck>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// How many volumes go before it; 0: it is the first.
    pub position: usize,
    pub remaining: ByteCount,
    /// Time from now; `None`: nothing is copied, and nothing is going to be as things stand.
    pub protected_in: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    pub volume: VolumeId,
    pub disk: DiskId,
    pub why: Why,
    pub choice: Explanation,
}

impl Step {
    pub fn volume(&self) -> VolumeId {
        match self {
            Step::Replace { volume, .. }
            | Step::Widen { volume, .. }
            | Step::Narrow { volume, .. }
            | Step::Repair { volume, .. }
            | Step::StopRepair { volume, .. }
            | Step::Copy { volume, .. } => *volume,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |permille: &u16| format!("{}.{} %", permille / 10, permille % 10);
        match self {
            Why::DiskFailed { disk } => write!(f, "disk {disk} has failed"),
            Why::DiskLost { disk } => write!(f, "disk {disk} is lost"),
            Why::DiskUnknown { disk } => write!(f, "disk {disk} is not known"),
            Why::DiskMissing { disk, waited, grace } => {
                let (waited, grace) = (waited.as_secs(), grace.as_secs());
                write!(f, "disk {disk} has not been named by its chunkserver for {waited} s, grace is {grace} s")
            }
            Why::Away { disk, in_sync } => write!(f, "disk {disk} is away, {in_sync} replicas are left meanwhile"),
            Why::NoLongerAway { disk } => write!(f, "new writes need no place for disk {disk} any more"),
            Why::NodeSilent { node, waited, grace } => {
                write!(f, "node {node} has been silent for {} s, grace is {} s", waited.as_secs(), grace.as_secs())
            }
            Why::LastReplica { disk, in_sync } => {
                write!(f, "disk {disk} cannot be reached and {in_sync} in-sync replica is left: no grace")
            }
            Why::DiskDraining { disk } => write!(f, "disk {disk} is being drained"),
            Why::NodeDraining { node } => write!(f, "node {node} is being drained"),
            Why::PodMoved { node, held_for } => {
                write!(f, "the volume has been attached on node {node} for {} s", held_for.as_secs())
            }
            Why::Fill { from_permille, to_permille } => {
                write!(
                    f,
                    "its disk is filled to {}, the other one to {}, with what is on its way",
                    percent(from_permille),
                    percent(to_permille)
                )
            }
            Why::Moved { in_sync, replicas } => {
                write!(f, "the move is complete: without it {in_sync} replicas are in-sync, {replicas} are asked for")
            }
            Why::Cancelled { in_sync } => write!(f, "the move has no reason any more, {in_sync} replicas are in-sync"),
            Why::NotInSync { members } => write!(f, "{members} replicas are not in-sync and nobody holds the volume"),
            Why::Unreachable { members } => {
                write!(f, "{members} replicas cannot be reached and nobody holds the volume")
            }
            Why::HolderSilent { node } => write!(f, "node {node}, which attached it for repair, is silent"),
            Why::Protected => f.write_str("nothing is left to repair"),
            Why::MakesRoom { node } => write!(f, "more urgent volumes need node {node}"),
        }
    }
}
