//! The membership record as it is kept: `record/<id>` holds everything but the chunk table, which is in pages of its
//! own, so that a change of membership writes one small value whatever the volume's size (C2).

use super::{decode_as, encode_as, text};
use crate::{CatalogError, CatalogErrorKind, KeyValue};
use ashlar_types::{
    Base, ByteCount, Change, ChunkIndex, ChunkRun, ClonePoint, ClusterId, DiskId, Epoch, Geometry, Lsn, Member,
    MemberState, NodeName, Origin, Snapshot, SnapshotId, VolumeId, VolumeRecord, ZoneName,
};
use serde::{Deserialize, Serialize};

/// Runs of one page of a chunk table.
pub(crate) const RUNS_PER_PAGE: usize = 1024;

/// 2 has `snapshots`, 3 has clones.
const RECORD_FORMAT: u32 = 3;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordDocument {
    #[serde(with = "text")]
    cluster: ClusterId,
    #[serde(with = "text")]
    volume: VolumeId,
    size_bytes: u64,
    epoch: u32,
    version: u64,
    #[serde(with = "text::optional")]
    holder: Option<NodeName>,
    served: u32,
    clean: bool,
    min_replicas: u8,
    members: Vec<MemberDocument>,
    #[serde(with = "text::list")]
    declared_lost: Vec<DiskId>,
    /// Records that were written before there were snapshots have none.
    #[serde(default)]
    snapshots: Vec<SnapshotDocument>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    clones: Vec<CloneDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<OriginDocument>,
    last_change: Option<ChangeDocument>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberDocument {
    #[serde(with = "text")]
    disk: DiskId,
    #[serde(with = "text")]
    node: NodeName,
    #[serde(with = "text::optional")]
    zone: Option<ZoneName>,
    state: StateDocument,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum StateDocument {
    InSync,
    Syncing { commit_lsn: u64 },
    Out { commit_lsn: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum ChangeDocument {
    Eject {
        #[serde(with = "text::list")]
        disks: Vec<DiskId>,
        commit_lsn: u64,
        reason: String,
    },
    BeginReturn {
        #[serde(with = "text")]
        disk: DiskId,
    },
    Join {
        #[serde(with = "text")]
        disk: DiskId,
    },
    AbandonReturn {
        #[serde(with = "text")]
        disk: DiskId,
    },
    CloseClean,
    OpenDirty,
    Snapshot(SnapshotDocument),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotDocument {
    #[serde(with = "text")]
    snapshot: SnapshotId,
    point_lsn: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CloneDocument {
    #[serde(with = "text")]
    clone: VolumeId,
    point_lsn: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OriginDocument {
    #[serde(with = "text")]
    volume: VolumeId,
    point_lsn: u64,
    made: bool,
}

/// Chunks `first`.. with the same members.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunDocument {
    first: u32,
    count: u32,
    members: Vec<u16>,
}

impl RecordDocument {
    pub(crate) fn encoded(&self) -> Vec<u8> {
        encode_as(RECORD_FORMAT, self)
    }

    pub(crate) fn decoded(stored: &KeyValue) -> Result<RecordDocument, CatalogError> {
        decode_as(RECORD_FORMAT, stored)
    }

    pub(crate) fn of(record: &VolumeRecord) -> RecordDocument {
        RecordDocument {
            cluster: record.cluster,
            volume: record.volume,
            size_bytes: record.size.0,
            epoch: record.epoch.number(),
            version: record.version,
            holder: record.holder.clone(),
            served: record.served.number(),
            clean: record.clean,
            min_replicas: record.min_replicas,
            members: record.members.iter().map(MemberDocument::of).collect(),
            declared_lost: record.declared_lost.clone(),
            snapshots: record.snapshots.iter().map(SnapshotDocument::of).collect(),
            clones: record.clones.iter().map(CloneDocument::of).collect(),
            origin: record.origin.as_ref().map(OriginDocument::of),
            last_change: record.last_change.as_ref().map(ChangeDocument::of),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn is_held_by(&self, node: &NodeName) -> bool {
        self.holder.as_ref() == Some(node)
    }

    /// The record with its chunk table. What does not fit together is corruption.
    pub(crate) fn with_chunks(self, runs: Vec<RunDocument>) -> Result<VolumeRecord, CatalogError> {
        let volume = self.volume;
        let corrupt =
            |what: &str| CatalogError::new(CatalogErrorKind::Corrupt, format!("record of volume {volume}: {what}"));
        let record = VolumeRecord {
            cluster: self.cluster,
            volume,
            size: ByteCount(self.size_bytes),
            epoch: Epoch::new(self.epoch).ok_or_else(|| corrupt("epoch is too large"))?,
            version: self.version,
            holder: self.holder,
            served: Epoch::new(self.served).ok_or_else(|| corrupt("epoch is too large"))?,
            clean: self.clean,
            min_replicas: self.min_replicas,
            members: self.members.into_iter().map(MemberDocument::into_member).collect(),
            chunks: runs.into_iter().map(RunDocument::into_run).collect(),
            declared_lost: self.declared_lost,
            snapshots: self.snapshots.into_iter().map(SnapshotDocument::into_snapshot).collect(),
            clones: self.clones.into_iter().map(CloneDocument::into_clone).collect(),
            origin: self.origin.map(OriginDocument::into_origin),
            last_change: self.last_change.map(ChangeDocument::into_change),
        };
        let geometry = Geometry::new(record.size).map_err(|_| corrupt("size is not valid"))?;
        if covered_chunks(&record) == Some(geometry.chunk_count()) {
            Ok(record)
        } else {
            Err(corrupt("chunk table has a gap"))
        }
    }
}

/// Number of chunks, if the runs cover them once, in order, with members that exist.
fn covered_chunks(record: &VolumeRecord) -> Option<u32> {
    record.chunks.iter().try_fold(0u32, |next, run| {
        let known = run.members.iter().all(|&index| usize::from(index) < record.members.len());
        (known && run.first.0 == next && run.count > 0).then(|| next.checked_add(run.count)).flatten()
    })
}

impl RunDocument {
    pub(crate) fn of(run: &ChunkRun) -> RunDocument {
        RunDocument { first: run.first.0, count: run.count, members: run.members.clone() }
    }

    fn into_run(self) -> ChunkRun {
        ChunkRun { first: ChunkIndex(self.first), count: self.count, members: self.members }
    }
}

impl MemberDocument {
    fn of(member: &Member) -> MemberDocument {
        let state = match member.state {
            MemberState::InSync => StateDocument::InSync,
            MemberState::Syncing { commit } => StateDocument::Syncing { commit_lsn: commit.raw() },
            MemberState::Out { commit } => StateDocument::Out { commit_lsn: commit.raw() },
        };
        MemberDocument { disk: member.disk, node: member.node.clone(), zone: member.zone.clone(), state }
    }

    fn into_member(self) -> Member {
        let state = match self.state {
            StateDocument::InSync => MemberState::InSync,
            StateDocument::Syncing { commit_lsn } => MemberState::Syncing { commit: Lsn::from_raw(commit_lsn) },
            StateDocument::Out { commit_lsn } => MemberState::Out { commit: Lsn::from_raw(commit_lsn) },
        };
        Member { disk: self.disk, node: self.node, zone: self.zone, state }
    }
}

impl SnapshotDocument {
    fn of(snapshot: &Snapshot) -> SnapshotDocument {
        SnapshotDocument { snapshot: snapshot.id, point_lsn: snapshot.point.raw() }
    }

    fn into_snapshot(self) -> Snapshot {
        Snapshot { id: self.snapshot, point: Lsn::from_raw(self.point_lsn) }
    }
}

impl CloneDocument {
    fn of(clone: &ClonePoint) -> CloneDocument {
        CloneDocument { clone: clone.clone, point_lsn: clone.point.raw() }
    }

    fn into_clone(self) -> ClonePoint {
        ClonePoint { clone: self.clone, point: Lsn::from_raw(self.point_lsn) }
    }
}

impl OriginDocument {
    fn of(origin: &Origin) -> OriginDocument {
        let Base { volume, point } = origin.base;
        OriginDocument { volume, point_lsn: point.raw(), made: origin.is_made }
    }

    fn into_origin(self) -> Origin {
        let base = Base { volume: self.volume, point: Lsn::from_raw(self.point_lsn) };
        Origin { base, is_made: self.made }
    }
}

impl ChangeDocument {
    fn of(change: &Change) -> ChangeDocument {
        match change {
            Change::Eject { disks, commit, reason } => {
                ChangeDocument::Eject { disks: disks.clone(), commit_lsn: commit.raw(), reason: reason.clone() }
            }
            &Change::BeginReturn { disk } => ChangeDocument::BeginReturn { disk },
            &Change::Join { disk } => ChangeDocument::Join { disk },
            &Change::AbandonReturn { disk } => ChangeDocument::AbandonReturn { disk },
            Change::CloseClean => ChangeDocument::CloseClean,
            Change::OpenDirty => ChangeDocument::OpenDirty,
            Change::Snapshot(snapshot) => ChangeDocument::Snapshot(SnapshotDocument::of(snapshot)),
        }
    }

    fn into_change(self) -> Change {
        match self {
            ChangeDocument::Eject { disks, commit_lsn, reason } => {
                Change::Eject { disks, commit: Lsn::from_raw(commit_lsn), reason }
            }
            ChangeDocument::BeginReturn { disk } => Change::BeginReturn { disk },
            ChangeDocument::Join { disk } => Change::Join { disk },
            ChangeDocument::AbandonReturn { disk } => Change::AbandonReturn { disk },
            ChangeDocument::CloseClean => Change::CloseClean,
            ChangeDocument::OpenDirty => Change::OpenDirty,
            ChangeDocument::Snapshot(snapshot) => Change::Snapshot(snapshot.into_snapshot()),
        }
    }
}
