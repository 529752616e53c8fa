//! What a volume and its snapshots take on the disks.

use super::filled;
use ashlar_rpc::control;
use serde::Serialize;

/// Of one replica; each of them takes as much.
#[derive(Debug, Serialize)]
pub struct Space {
    pub replicas: usize,
    /// The sum of the next four.
    pub used_bytes: u64,
    pub unique_bytes: u64,
    pub shared_bytes: u64,
    pub snapshots_bytes: u64,
    pub pending_bytes: u64,
    /// What deleting all snapshots gives back.
    pub freed_by_all_bytes: u64,
    pub snapshots: Vec<SnapshotSpace>,
    /// Left out of all this, because nobody told of them.
    pub untold_chunks: u32,
    /// Who was asked in vain, and why.
    pub faults: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct SnapshotSpace {
    pub id: String,
    pub name: Option<String>,
    /// What deleting it alone gives back.
    pub freed_bytes: u64,
}

impl Space {
    pub fn of(space: control::VolumeSpace, replicas: usize) -> Space {
        let snapshot = |of: control::SnapshotSpace| SnapshotSpace {
            id: of.snapshot,
            name: filled(of.name),
            freed_bytes: of.freed_bytes,
        };
        Space {
            replicas,
            used_bytes: space.used_bytes,
            unique_bytes: space.unique_bytes,
            shared_bytes: space.shared_bytes,
            snapshots_bytes: space.snapshots_bytes,
            pending_bytes: space.pending_bytes,
            freed_by_all_bytes: space.freed_by_all_bytes,
            snapshots: space.snapshots.into_iter().map(snapshot).collect(),
            untold_chunks: space.untold_chunks,
            faults: space.faults,
        }
    }
}
