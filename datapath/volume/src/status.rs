//! What people and metrics see of an attached volume.

use crate::resync::Stage;
use crate::volume::{Phase, Volume};
use ashlar_types::{DiskId, Duration, Epoch, Lsn, MemberState};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) writes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) repaired_blocks: u64,
    pub(crate) reconciled_blocks: u64,
    pub(crate) resynced_blocks: u64,
    pub(crate) resync_attempts: u64,
}

/// A moment of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStatus {
    pub epoch: Epoch,
    /// Of the record that is known here.
    pub record_version: u64,
    /// For people: "fencing", "reconciling", "opening", "serving", "closed", and why it waits.
    pub phase: &'static str,
    pub serving: bool,
    pub blocked: Option<String>,
    /// A change of the record was asked for and may or may not have happened.
    pub in_doubt: bool,
    pub members: Vec<MemberStatus>,
    pub commit: Lsn,
    /// Guest requests, of any kind.
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub repaired_blocks: u64,
    pub comparison: ComparisonStatus,
    pub reconciled_blocks: u64,
    pub resynced_blocks: u64,
    /// Guest requests not completed.
    pub inflight: usize,
    /// Longest time in which a write waited and none was acknowledged.
    pub longest_gap: Duration,
}

/// What the comparison of replicas has come to since the volume was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComparisonStatus {
    pub rounds: u64,
    /// Looks at a slot with a verdict, and those that ended without: it was written all the time, or is not there.
    pub compared_slots: u64,
    pub passed_slots: u64,
    /// Slots in which replicas differ.
    pub differing_slots: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    pub disk: DiskId,
    pub state: MemberState,
    pub connected: bool,
    /// Of the return that is going on: blocks copied, and blocks in slots that had changed.
    pub copied_blocks: u64,
    pub changed_blocks: u64,
    pub mean_latency: Duration,
    /// Of the last seconds, if there was enough in them.
    pub p99_latency: Option<Duration>,
}

impl Volume {
    pub fn status(&self) -> VolumeStatus {
        VolumeStatus {
            epoch: self.epoch,
            record_version: self.record.version,
            phase: self.phase_name(),
            serving: matches!(self.phase, Phase::Serving),
            blocked: self.blocked.clone(),
            in_doubt: !self.proposals.is_idle(),
            members: (0..self.members.len()).map(|index| self.member_status(index)).collect(),
            commit: self.commit_point(),
            reads: self.counters.reads,
            read_bytes: self.counters.read_bytes,
            writes: self.counters.writes,
            written_bytes: self.counters.written_bytes,
            repaired_blocks: self.counters.repaired_blocks,
            comparison: self.comparison.status(),
            reconciled_blocks: self.counters.reconciled_blocks,
            resynced_blocks: self.counters.resynced_blocks,
            inflight: self.guest.count(),
            longest_gap: self.writes.longest_gap,
        }
    }

    fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Fencing => "fencing",
            Phase::Reconciling(_) => "reconciling",
            Phase::Dirtying => "opening",
            Phase::Serving if self.draining => "draining",
            Phase::Serving => "serving",
            Phase::Closed(_) => "closed",
        }
    }

    fn member_status(&self, index: usize) -> MemberStatus {
        let member = &self.members[index];
        let resync = self.resync.as_ref().filter(|resync| resync.member() == index && resync.stage != Stage::Proposing);
        MemberStatus {
            disk: member.disk,
            state: member.state,
            connected: member.is_open(),
            copied_blocks: resync.map_or(0, |resync| resync.copied_blocks),
            changed_blocks: resync.map_or(0, |resync| resync.changed_blocks),
            mean_latency: member.latency.mean(),
            p99_latency: member.latency.fresh_p99(),
        }
    }
}
