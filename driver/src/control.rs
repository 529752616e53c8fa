//! The control plane: what the catalog's state means, and the gRPC services over it.
//!
//! ```text
//!  CLI, CSI ──► service ──► volumes · clones · settings · attachment · membership · health ─► catalog (by comparing)
//!  datapath ──►    │             │ ask                                        ▲
//!  chunkserver ─►  └► registry ──┴─► daemons (gRPC to datapaths, chunkservers)│
//!                        └ silence ─► events                 reaper ──────────┘ deletes replicas of deleted volumes
//! ```
//! Rules of change are pure (`ashlar-plan`); each becomes one compare-and-swap transaction, tried again when another
//! change came first. Nothing here is waited for by an I/O, but to attach, to eject and to take a member in (C3).

pub(crate) mod attachment;
pub(crate) mod clones;
pub(crate) mod condition;
pub(crate) mod daemons;
pub(crate) mod expansion;
pub(crate) mod forgotten;
pub(crate) mod groups;
pub(crate) mod health;
pub(crate) mod membership;
pub(crate) mod placement;
pub(crate) mod present;
pub(crate) mod publication;
pub(crate) mod reaper;
pub(crate) mod registry;
pub(crate) mod removal;
pub(crate) mod repair;
pub mod server;
pub(crate) mod service;
pub(crate) mod settings;
pub(crate) mod snapshots;
pub(crate) mod space;
pub(crate) mod volumes;

use crate::csi::inflight::InFlight;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use ashlar_catalog::{Catalog, CatalogErrorKind, Event, StoredVolume};
use ashlar_plan::repair::Bounds;
use ashlar_types::{VolumeId, VolumeRecord};
use daemons::Daemons;
use registry::Registry;
use repair::Repair;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;

/// State of the control plane, shared by all its services.
#[derive(Debug)]
pub struct Control {
    pub(crate) catalog: Catalog,
    pub(crate) registry: Registry,
    pub(crate) daemons: Daemons,
    pub(crate) in_flight: InFlight,
    pub(crate) metrics: Metrics,
    /// Tombstones were made, or a chunkserver came back.
    pub(crate) reap: Notify,
    /// A clone was begun, or is about to be, or a chunkserver came back.
    pub(crate) clones: Notify,
    /// Points of a volume that nobody holds were given up, or a chunkserver came back.
    pub(crate) forgotten: Notify,
    pub(crate) repair: Repair,
    /// What the planner's clock counts from.
    started: Instant,
}

/// How often a transaction is tried when others come first. Each failure means that another change succeeded.
const COMMIT_TRIES_MAX: usize = 64;

/// What becomes of a record.
pub(crate) enum Decision {
    /// As it should be already.
    Keep,
    Change(Box<VolumeRecord>, Vec<Event>),
}

impl Control {
    pub async fn new(catalog: Catalog, heartbeat: Duration, bounds: Bounds, metrics: Metrics) -> Result<Control> {
        let registry = Registry::load(&catalog, heartbeat).await?;
        let (daemons, in_flight) = (Daemons::default(), InFlight::default());
        let (reap, clones, forgotten) = (Notify::new(), Notify::new(), Notify::new());
        let (repair, started) = (Repair::new(bounds), Instant::now());
        Ok(Control { catalog, registry, daemons, in_flight, metrics, reap, clones, forgotten, repair, started })
    }

    /// Disks of which more blocks went bad lately are drained.
    pub fn drain_beyond(&mut self, bad_blocks_max: u64) {
        self.registry.drain_beyond(bad_blocks_max);
    }

    pub(crate) async fn volume(&self, id: VolumeId) -> Result<StoredVolume> {
        let found = self.catalog.volume(id).await?;
        found.ok_or_else(|| Error::not_found(format_args!("volume {id}")))
    }

    /// Changes a volume's record by compare-and-swap: `decide` sees the record as it is, again for each try.
    pub(crate) async fn change_record(
        &self,
        id: VolumeId,
        mut decide: impl FnMut(&StoredVolume) -> Result<Decision>,
    ) -> Result<StoredVolume> {
        for _ in 0..COMMIT_TRIES_MAX {
            let seen = self.volume(id).await?;
            let Decision::Change(next, events) = decide(&seen)? else { return Ok(seen) };
            match self.catalog.change_record(&seen, *next, events).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                other => return Ok(other?),
            }
        }
        Err(raced(id))
    }
}

/// Carries an operation of several steps through to its end, whether or not its caller still waits: one that is dropped
/// half-way would leave a reservation that nobody gives back.
pub(crate) async fn to_the_end<T: Send + 'static>(
    operation: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(operation).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(ErrorKind::Internal, format!("an operation ended without a result: {error}"))),
    }
}

pub(crate) fn raced(subject: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Busy, format!("{subject}: other changes came first {COMMIT_TRIES_MAX} times, try again"))
}

/// Milliseconds since 1970, UTC. For people only: nothing is decided on it.
pub(crate) fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
