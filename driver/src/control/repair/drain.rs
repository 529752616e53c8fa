//! What an operator asks for and about: nodes and disks that are to be empty, nodes that are to be stopped.

use super::seen::Measured;
use crate::control::Control;
use crate::error::{Error, Result};
use ashlar_plan::repair::{Drain, Seen, Stop, may_drain, safe_to_stop};
use ashlar_rpc::control::SafeToStopResponse;
use ashlar_types::{DiskId, NodeName};

impl Control {
    /// Refused where a replica has no place elsewhere. Repeating it changes nothing.
    pub(crate) async fn drain_node(&self, node: &NodeName, drain: bool) -> Result<()> {
        if drain && let Drain::No { against } = may_drain(&self.seen_now().await?, &self.repair.bounds, node) {
            return Err(Error::precondition(format!("node {node} cannot be drained: {against}")));
        }
        self.registry.drain_node(&self.catalog, node, drain).await?;
        self.repair.news.notify_one();
        Ok(())
    }

    /// Its replicas go elsewhere as far as there is room; what has no place stays, and is told of as stuck.
    pub(crate) async fn drain_disk(&self, disk: DiskId, drain: bool) -> Result<()> {
        self.registry.drain_disk(&self.catalog, disk, drain).await?;
        self.repair.news.notify_one();
        Ok(())
    }

    /// As of now, not of the last look.
    pub(crate) async fn safe_to_stop(&self, node: &NodeName) -> Result<SafeToStopResponse> {
        if !self.registry.knows_node(node).await {
            return Err(Error::not_found(format_args!("node {node}")));
        }
        let seen = self.seen_now().await?;
        let stop = safe_to_stop(&seen, node, &self.repair.last().plan.forecasts);
        let (against, safe_in) = match stop {
            Stop::Yes => return Ok(SafeToStopResponse { safe: true, ..SafeToStopResponse::default() }),
            Stop::No { against, yes_in } => (against, yes_in),
        };
        let mut reasons: Vec<String> =
            against.volumes.iter().map(|(volume, reason)| format!("volume {volume}: {reason}")).collect();
        if against.more > 0 {
            reasons.push(format!("and {} more", against.more));
        }
        let safe_in_ms = safe_in.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Ok(SafeToStopResponse { safe: false, reasons, safe_in_ms })
    }

    pub(in crate::control) async fn seen_now(&self) -> Result<Seen> {
        Ok(self.look_at_everything(&mut Measured::default(), self.repair_clock()).await?.seen)
    }
}
