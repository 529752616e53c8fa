//! What people see of repair.

use crate::control::Control;
use ashlar_rpc::control::Forecast;
use ashlar_types::VolumeId;

impl Control {
    /// When the volume has all its replicas again, as of the last look; none if it has them.
    pub(in crate::control) fn forecast(&self, volume: VolumeId) -> Option<Forecast> {
        let last = self.repair.last();
        let forecast = last.plan.forecasts.get(&volume)?;
        Some(Forecast {
            position: forecast.position as u32,
            remaining_bytes: forecast.remaining.0,
            protected_in_ms: forecast.protected_in.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        })
    }

    /// What should be done for the volume and cannot, and why.
    pub(in crate::control) fn stuck(&self, volume: VolumeId) -> Vec<String> {
        let last = self.repair.last();
        let stuck = last.plan.stuck.iter().filter(|stuck| stuck.volume == volume);
        stuck.map(|stuck| format!("{}; no other disk takes its replica: {}", stuck.why, stuck.choice)).collect()
    }
}
