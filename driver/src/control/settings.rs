//! How volumes are served: changed in the catalog first, then told to the writer.
//!
//! ```text
//!   ModifyVolume ──► catalog (version + 1) ──► Modify ──► the holder's datapath
//!                                                             │ reports its version
//!   heartbeat ──► differs from the catalog's? ──► in the answer ┘
//! ```
//! - What the catalog has is what counts. A writer that cannot be told now is told in the answer to its next heartbeat,
//!   also by a control plane that has restarted meanwhile; one that attaches is told with its epoch.
//! - Versions grow, and a writer takes none that is older than its own, so messages may overtake each other.

use super::daemons::{refused, timed};
use super::{COMMIT_TRIES_MAX, Control, raced, wall_clock_ms};
use crate::csi::params::Changes;
use crate::error::{Error, Result};
use ashlar_catalog::{CatalogErrorKind, Class, Event, Limit, Settings, StoredVolume};
use ashlar_plan::membership;
use ashlar_rpc::control::{self, DatapathModifyRequest};
use ashlar_types::{NodeName, VolumeId};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::Code;

/// A writer that does not answer by then is told with its next heartbeat.
const MODIFY_TIMEOUT: Duration = Duration::from_secs(3);

impl Control {
    /// Makes all changes or none, in one compare-and-swap. Waits for no other operation on the volume.
    pub(crate) async fn modify_volume(&self, id: VolumeId, changes: &Changes) -> Result<StoredVolume> {
        self.free_for(id, changes).await?;
        let changed = self.change_settings(id, changes).await?;
        // Also when nothing was to be changed: this may be the same request again, and the first one may have ended
        // before the writer was told.
        if let Some(holder) = &changed.volume.record.holder {
            self.tell_writer(&changed, holder).await;
        }
        Ok(changed)
    }

    /// `minReplicas` is changed while nobody holds the volume, and a repair is nobody.
    async fn free_for(&self, id: VolumeId, changes: &Changes) -> Result<()> {
        let seen = self.volume(id).await?.volume;
        if seen.is_repaired && changes.min_replicas.is_some_and(|min| min != seen.record.min_replicas) {
            let _permit = self.in_flight.begin(id)?;
            self.end_repair(id).await?;
        }
        Ok(())
    }

    async fn change_settings(&self, id: VolumeId, changes: &Changes) -> Result<StoredVolume> {
        for _ in 0..COMMIT_TRIES_MAX {
            let seen = self.volume(id).await?;
            let (before, record) = (seen.volume.settings, &seen.volume.record);
            let settings = changes.apply(before).map_err(|faults| Error::invalid_all(&faults))?;
            let next = match changes.min_replicas {
                Some(min) => Some(membership::set_min_replicas(record, min)?).filter(|next| next != record),
                None => None,
            };
            if settings == before && next.is_none() {
                return Ok(seen);
            }
            let settings = Settings { version: before.version + 1, ..settings };
            let min_replicas = next.as_ref().unwrap_or(record).min_replicas;
            let event = event(&seen, settings).figure("min_replicas", min_replicas);
            match self.catalog.change_settings(&seen, settings, next, vec![event]).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                Err(error) => return Err(error.into()),
                Ok(changed) => {
                    tracing::info!(volume = %id, ?settings, min_replicas, "volume modified");
                    return Ok(changed);
                }
            }
        }
        Err(raced(id))
    }

    async fn tell_writer(&self, seen: &StoredVolume, holder: &NodeName) {
        let id = seen.volume.id();
        let Some((address, true)) = self.registry.datapath(holder).await else {
            tracing::warn!(volume = %id, node = %holder, "the datapath is silent: told when it reports");
            return;
        };
        let told: Result<()> = async {
            let request = timed(modify_request(id, seen.volume.settings), MODIFY_TIMEOUT);
            let answer = self.daemons.datapath(&address)?.modify(request).await;
            match answer {
                Ok(_) => Ok(()),
                // It is reserved for the node and not attached: the writer is told with its epoch.
                Err(status) if status.code() == Code::NotFound => Ok(()),
                Err(status) => Err(refused("datapath", status)),
            }
        }
        .await;
        if let Err(error) = told {
            tracing::warn!(volume = %id, node = %holder, %error, "the writer was not told: told when it reports");
        }
    }

    /// Those of the reported volumes that are served by other settings than the catalog's.
    pub(crate) async fn volumes_to_modify(
        &self,
        reported: &BTreeMap<VolumeId, u64>,
    ) -> Result<Vec<DatapathModifyRequest>> {
        let ids: Vec<VolumeId> = reported.keys().copied().collect();
        let mut outdated = Vec::new();
        for (id, settings) in self.catalog.settings(&ids).await? {
            match settings {
                Ok(settings) if reported.get(&id) != Some(&settings.version) => {
                    outdated.push(modify_request(id, settings));
                }
                Ok(_) => {}
                Err(error) => tracing::error!(volume = %id, %error, "settings cannot be read"),
            }
        }
        Ok(outdated)
    }
}

fn modify_request(id: VolumeId, settings: Settings) -> DatapathModifyRequest {
    DatapathModifyRequest { volume: id.to_string(), settings: Some(settings_to_proto(settings)) }
}

pub(crate) fn settings_to_proto(settings: Settings) -> control::Settings {
    let limit = |limit: Limit| control::Limit { per_second: limit.per_second, burst: limit.burst() };
    let class = match settings.class {
        Class::Critical => control::Class::Critical,
        Class::High => control::Class::High,
        Class::Normal => control::Class::Normal,
        Class::Low => control::Class::Low,
    };
    control::Settings {
        version: settings.version,
        class: class as i32,
        operations: settings.operations.map(limit),
        bytes: settings.bytes.map(limit),
    }
}

fn event(seen: &StoredVolume, settings: Settings) -> Event {
    let event = Event::new(wall_clock_ms(), "modified", format!("volume {} modified", seen.volume.name));
    let event = event.of_volume(seen.volume.id()).figure("class", settings.class.name());
    let limits = [("iops", settings.operations), ("bandwidth", settings.bytes)];
    limits.into_iter().fold(event, |event, (name, limit)| match limit {
        Some(limit) => {
            event.figure(&format!("{name}_limit"), limit.per_second).figure(&format!("{name}_burst"), limit.burst())
        }
        None => event.figure(&format!("{name}_limit"), "none"),
    })
}
