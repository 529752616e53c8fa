//! A volume's state and figures, for heartbeats, lists and metrics.

use super::hosted::Hosted;
use crate::metrics::State;
use ashlar_reactor::now;
use ashlar_rpc::control;
use ashlar_types::MemberState;
use ashlar_volume::{Ending, MemberStatus};

/// Phase of a volume that a newer writer took away.
pub(crate) const PHASE_FENCED: &str = "fenced";
const PHASE_BELOW_MIN_REPLICAS: &str = "below minReplicas";

impl Hosted {
    /// Also brings the gauges up to date.
    pub(super) fn report(&self) -> control::AttachedVolume {
        let status = self.core.status();
        let longest_gap = self.figures.gap.longest(now());
        self.metrics.gap_seconds.set(longest_gap.as_secs_f64());
        self.metrics.commit.set(status.commit.raw() as i64);
        let comparison = status.comparison;
        self.metrics.set_comparison(comparison);
        let count = |wanted: fn(&MemberState) -> bool| status.members.iter().filter(|m| wanted(&m.state)).count();
        self.metrics.set_members(State::InSync, count(|state| matches!(state, MemberState::InSync)));
        self.metrics.set_members(State::Syncing, count(|state| matches!(state, MemberState::Syncing { .. })));
        self.metrics.set_members(State::Out, count(|state| matches!(state, MemberState::Out { .. })));
        let phase = match self.ended {
            Some(Ending::Fenced) => PHASE_FENCED,
            _ if status.serving && self.waits_for_replicas => PHASE_BELOW_MIN_REPLICAS,
            _ => status.phase,
        };
        control::AttachedVolume {
            volume: self.id.to_string(),
            epoch: self.epoch.number(),
            phase: phase.to_owned(),
            device: None,
            members: status.members.iter().map(member).collect(),
            reads: self.figures.reads,
            writes: self.figures.writes,
            read_bytes: self.figures.read_bytes,
            written_bytes: self.figures.written_bytes,
            longest_gap_ms: longest_gap.as_millis() as u64,
            repaired_blocks: status.repaired_blocks,
            commit_lsn: status.commit.raw(),
            settings_version: self.settings_version,
            record_version: status.record_version,
            comparison: Some(control::Comparison {
                rounds: comparison.rounds,
                compared_slots: comparison.compared_slots,
                passed_slots: comparison.passed_slots,
                differing_slots: comparison.differing_slots,
            }),
        }
    }
}

fn member(status: &MemberStatus) -> control::MemberStatus {
    let state = match status.state {
        MemberState::InSync => control::MemberState::InSync,
        MemberState::Syncing { .. } => control::MemberState::Syncing,
        MemberState::Out { .. } => control::MemberState::Out,
    };
    control::MemberStatus {
        disk: status.disk.to_string(),
        state: state as i32,
        connected: status.connected,
        resync_blocks_copied: status.copied_blocks,
        resync_blocks_total: status.changed_blocks,
        latency_us: status.mean_latency.as_micros() as u64,
        latency_p99_us: status.p99_latency.unwrap_or_default().as_micros() as u64,
    }
}
