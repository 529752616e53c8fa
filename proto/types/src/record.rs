//! The volume record: who holds a volume and which disks are its members. Kept by the control plane, changed by
//! compare-and-swap on (`epoch`, `version`), followed by the datapath. The rules of change are in the control plane's
//! plan crate.
//!
//! ```text
//!            Eject (writer, with the commit point)
//!   in-sync ───────────────────────────────────────► out ◄──────────────┐
//!      ▲                                              │ BeginReturn     │ AbandonReturn
//!      └──────────────── Join ─────────────────── syncing ──────────────┘
//! ```

use crate::{ByteCount, ChunkIndex, ClusterId, DiskId, Epoch, Lsn, NodeName, SnapshotId, VolumeId, ZoneName};

/// What a disk is to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Has every acknowledged write.
    InSync,
    /// Comes back: gets new writes, lacks older ones written after `commit`.
    Syncing { commit: Lsn },
    /// Left when `commit` was the commit point; lacks what was written after.
    Out { commit: Lsn },
}

impl MemberState {
    pub fn is_in_sync(self) -> bool {
        self == MemberState::InSync
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub disk: DiskId,
    pub node: NodeName,
    pub zone: Option<ZoneName>,
    pub state: MemberState,
}

/// Consecutive chunks with the same replicas; `members` indexes into [`VolumeRecord::members`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRun {
    pub first: ChunkIndex,
    pub count: u32,
    pub members: Vec<u16>,
}

/// What was written before `point` and nothing that was written after it. No write has that lsn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub point: Lsn,
}

/// A clone that reads what was written before `point`, for as long as it is not flat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClonePoint {
    pub clone: VolumeId,
    pub point: Lsn,
}

/// What a clone shows where it has nothing of its own: another volume's content before `point`, on the same disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Base {
    pub volume: VolumeId,
    pub point: Lsn,
}

/// How far a clone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub base: Base,
    /// Its replicas exist; before that nobody attaches it.
    pub is_made: bool,
}

/// Most members of a volume: a writer keeps sets of them in 64 bits.
pub const MEMBERS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    pub cluster: ClusterId,
    pub volume: VolumeId,
    pub size: ByteCount,
    /// Of the latest grant; never decreases.
    pub epoch: Epoch,
    /// Counts every change of the record.
    pub version: u64,
    pub holder: Option<NodeName>,
    /// Epoch of the last writer that served. Whoever was in-sync then was equal to the others, and has it durable that
    /// it was, by this epoch.
    pub served: Epoch,
    /// The last writer drained and closed; its replicas are equal.
    pub clean: bool,
    pub min_replicas: u8,
    pub members: Vec<Member>,
    /// Covers every chunk once, in order.
    pub chunks: Vec<ChunkRun>,
    /// Declared lost, or gone while they returned, and not heard of since: unless they promise, a new writer waits out
    /// the leases of older ones.
    pub declared_lost: Vec<DiskId>,
    /// Ascending by point; several may have the same one.
    pub snapshots: Vec<Snapshot>,
    /// Clones that read from this volume. Ascending by point; several may have the same one.
    pub clones: Vec<ClonePoint>,
    /// Of a clone, until each of its replicas has everything itself.
    pub origin: Option<Origin>,
    /// The change that made this version, if a writer proposed it: lets a proposal be asked again after its answer
    /// was lost.
    pub last_change: Option<Change>,
}

impl VolumeRecord {
    pub fn member(&self, disk: DiskId) -> Option<&Member> {
        self.members.iter().find(|member| member.disk == disk)
    }

    /// Members that hold a chunk. The others gave theirs to another disk; a writer may still know them.
    pub fn holders(&self) -> impl Iterator<Item = &Member> {
        let holds = |index: usize| self.chunks.iter().any(|run| run.members.contains(&(index as u16)));
        self.members.iter().enumerate().filter(move |&(index, _)| holds(index)).map(|(_, member)| member)
    }

    pub fn in_sync(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state == MemberState::InSync)
    }

    pub fn snapshot(&self, id: SnapshotId) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.id == id)
    }

    /// The points of all snapshots and clones, ascending, each once.
    pub fn points(&self) -> Vec<Lsn> {
        let of_snapshots = self.snapshots.iter().map(|snapshot| snapshot.point);
        let mut points: Vec<Lsn> = of_snapshots.chain(self.clones.iter().map(|clone| clone.point)).collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// Indexes of the members that hold the chunk; empty if the chunk is beyond the table.
    pub fn members_of(&self, chunk: ChunkIndex) -> &[u16] {
        let run = self.chunks.partition_point(|run| run.first.0 + run.count <= chunk.0);
        self.chunks.get(run).map_or(&[], |run| &run.members)
    }

    /// The fewest in-sync replicas that any chunk would have, were `without` not in-sync. `u8::MAX` for a volume
    /// without chunks.
    pub fn fewest_in_sync_without(&self, without: &[DiskId]) -> u8 {
        let counts = |run: &ChunkRun| {
            let stays = |index: &&u16| {
                let member = &self.members[usize::from(**index)];
                member.state == MemberState::InSync && !without.contains(&member.disk)
            };
            run.members.iter().filter(stays).count() as u8
        };
        self.chunks.iter().map(counts).min().unwrap_or(u8::MAX)
    }
}

/// A change that a writer proposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// in-sync → out, with the highest commit point that the writer or an in-sync replica knows.
    Eject { disks: Vec<DiskId>, commit: Lsn, reason: String },
    /// out → syncing; the commit point stays.
    BeginReturn { disk: DiskId },
    /// syncing → in-sync.
    Join { disk: DiskId },
    /// syncing → out; the commit point stays.
    AbandonReturn { disk: DiskId },
    /// The writer drained: all replicas in-sync are equal, nobody holds the volume.
    CloseClean,
    /// A snapshot of the attached volume: every write before its point is acknowledged.
    Snapshot(Snapshot),
    /// The replicas in-sync are equal and have promised; writes may follow: the volume is not clean until `CloseClean`.
    OpenDirty,
}

/// Answer of the control plane to a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeAnswer {
    /// In the catalog. `record` is what it is now.
    Applied { record: VolumeRecord },
    /// Not in the catalog, and never will be: version or rule did not allow it. `record` is what it is now.
    Refused { reason: String, record: VolumeRecord },
    /// A higher epoch was granted.
    Fenced { epoch: Epoch },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(states: &[MemberState], runs: &[(u32, u32, &[u16])]) -> VolumeRecord {
        let member = |(i, &state): (usize, &MemberState)| Member {
            disk: DiskId::from_u128(i as u128),
            node: format!("node-{i}").parse().unwrap(),
            zone: None,
            state,
        };
        let run = |&(first, count, members): &(u32, u32, &[u16])| ChunkRun {
            first: ChunkIndex(first),
            count,
            members: members.to_vec(),
        };
        VolumeRecord {
            cluster: ClusterId::from_u128(1),
            volume: VolumeId::from_u128(1),
            size: ByteCount(1 << 30),
            epoch: Epoch::NONE,
            version: 0,
            holder: None,
            served: Epoch::NONE,
            clean: true,
            min_replicas: 2,
            members: states.iter().enumerate().map(member).collect(),
            chunks: runs.iter().map(run).collect(),
            declared_lost: vec![],
            snapshots: vec![],
            clones: vec![],
            origin: None,
            last_change: None,
        }
    }

    #[test]
    fn runs_cover_chunks() {
        let record = record(&[MemberState::InSync; 4], &[(0, 10, &[0, 1, 2]), (10, 6, &[1, 2, 3])]);
        assert_eq!(record.members_of(ChunkIndex(9)), [0, 1, 2]);
        assert_eq!(record.members_of(ChunkIndex(10)), [1, 2, 3]);
        assert!(record.members_of(ChunkIndex(16)).is_empty());
    }

    #[test]
    fn whoever_has_a_chunk_holds() {
        let record = record(&[MemberState::InSync; 4], &[(0, 10, &[0, 3]), (10, 6, &[3])]);
        let holders: Vec<DiskId> = record.holders().map(|member| member.disk).collect();
        assert_eq!(holders, [DiskId::from_u128(0), DiskId::from_u128(3)]);
    }

    #[test]
    fn the_weakest_chunk_counts() {
        let out = MemberState::Out { commit: Lsn::ZERO };
        let states = [MemberState::InSync, MemberState::InSync, MemberState::InSync, out];
        let record = record(&states, &[(0, 10, &[0, 1, 2]), (10, 6, &[1, 2, 3])]);
        assert_eq!(record.fewest_in_sync_without(&[]), 2);
        assert_eq!(record.fewest_in_sync_without(&[DiskId::from_u128(0)]), 2);
        assert_eq!(record.fewest_in_sync_without(&[DiskId::from_u128(1)]), 1);
    }
}
