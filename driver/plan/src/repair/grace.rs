//! Grace: when a replica is given up. A disk that has failed or is lost is given up at once; one whose node is silent,
//! or that its chunkserver does not name, after [`Bounds::grace`], because it most likely comes back with everything
//! and needs a resync only; or at once, when one replica is left to lose. A disk that answers is never given up: its
//! replica returns by itself.
//!
//! Given up is a replica when its place may be taken: it is replaced as soon as it is `out`, never before; to make it
//! so is the writer's business, or the control plane's when it declares a disk lost.

use super::clock::Lasting;
use super::{Bounds, Fate, MemberSeen, Seen, VolumeSeen, Why};
use ashlar_types::{DiskId, Duration};

/// What is seen, and for how long it has been so.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) seen: &'a Seen,
    pub(super) bounds: &'a Bounds,
    pub(super) unreachable: &'a Lasting<DiskId>,
    pub(super) now: Duration,
    pub(super) room_is_wanted: bool,
}

/// Disks of volumes that do not answer, known or not.
pub(super) fn unreachable_disks(seen: &Seen) -> impl Iterator<Item = DiskId> {
    let members = seen.volumes.values().flat_map(|volume| &volume.members);
    let unreachable = |disk: &DiskId| match seen.disks.get(disk) {
        Some(known) if known.fate == Fate::Missing => true,
        Some(known) => seen.nodes.get(&known.node).is_none_or(|node| node.is_silent),
        None => true,
    };
    members.map(|member| member.disk).filter(unreachable)
}

impl View<'_> {
    /// Replicas that the weakest chunk can count on: in-sync, on a disk that works and answers.
    pub(super) fn safe(&self, volume: &VolumeSeen) -> u8 {
        volume.fewest(|member| self.is_safe(member))
    }

    pub(super) fn is_safe(&self, member: &MemberSeen) -> bool {
        member.state.is_in_sync() && self.seen.is_alive(member.disk)
    }

    /// Why the member's replica is given up; `None`: it is not.
    pub(super) fn given_up(&self, volume: &VolumeSeen, member: &MemberSeen) -> Option<Why> {
        let (disk, grace) = (member.disk, self.bounds.grace);
        match self.seen.disks.get(&disk).map(|known| known.fate) {
            Some(Fate::Failed) => return Some(Why::DiskFailed { disk }),
            Some(Fate::Lost) => return Some(Why::DiskLost { disk }),
            _ => {}
        }
        let waited = self.unreachable.lasted(&disk, self.now)?;
        if waited < grace {
            let in_sync = self.safe(volume);
            return (in_sync <= 1).then_some(Why::LastReplica { disk, in_sync });
        }
        match self.seen.disks.get(&disk) {
            Some(known) if known.fate == Fate::Missing => Some(Why::DiskMissing { disk, waited, grace }),
            Some(known) => Some(Why::NodeSilent { node: known.node.clone(), waited, grace }),
            None => Some(Why::DiskUnknown { disk }),
        }
    }
}
