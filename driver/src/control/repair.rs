//! Self-healing: what the planner (`ashlar_plan::repair`) decides is carried out here, and nothing is decided.
//!
//! ```text
//!   catalog, registry ──► seen.rs ──► Planner::plan ──► carry.rs ──► catalog: Replace, Widen, Narrow (by comparing)
//!                                         │                  ├─────► a datapath: Repair, StopRepair
//!                                         └──► shown         └─────► each datapath: Steer (rates, who shall go)
//! ```
//! It looks when something has happened, once a second while something is to be done, and else now and then. Steps that
//! fail come again: the planner sees that they were not done. A restart loses measured times, and nothing else.

mod carry;
mod drain;
pub(crate) mod figures;
mod ladder;
pub(super) mod seen;
mod shown;

use super::Control;
use ashlar_plan::placement::Surroundings;
use ashlar_plan::repair::{Bounds, Plan, Planner};
use ashlar_types::{DiskId, Duration, Instant, VolumeId};
use figures::Figures;
use ladder::Ladder;
use seen::Measured;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::timeout;

const BUSY: Duration = Duration::from_secs(1);
/// Balance has no other occasion to begin.
const IDLE: Duration = Duration::from_secs(30);
/// What comes together is looked at together.
const GATHER: Duration = Duration::from_millis(20);

/// What the repair of this cluster is at, for those who ask.
#[derive(Debug)]
pub(crate) struct Repair {
    pub(crate) bounds: Bounds,
    /// Something has happened that may call for repair.
    pub(crate) news: Notify,
    last: Mutex<Last>,
    /// Volumes that are being attached for repair, or let go of.
    moving: Mutex<BTreeSet<VolumeId>>,
}

/// What came of the last look.
#[derive(Debug, Default)]
pub(crate) struct Last {
    pub(crate) plan: Plan,
    /// What the volumes of that look use, and those that were placed since. `None`: nobody has looked yet.
    pub(crate) surroundings: Option<Surroundings>,
    pub(crate) figures: Figures,
    ladder: Ladder,
    /// Said once for each time that it begins.
    stuck: BTreeSet<(VolumeId, DiskId)>,
}

impl Repair {
    pub(crate) fn new(bounds: Bounds) -> Repair {
        Repair { bounds, news: Notify::new(), last: Mutex::default(), moving: Mutex::default() }
    }

    pub(crate) fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moving(&self) -> MutexGuard<'_, BTreeSet<VolumeId>> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// The planner's: counts since this process started.
    pub(super) fn repair_clock(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Runs for ever.
pub(crate) async fn run(control: Arc<Control>) {
    let mut planner = Planner::new(control.repair.bounds.clone());
    let mut measured = Measured::default();
    loop {
        let news = async {
            tokio::select! {
                () = control.repair.news.notified() => {}
                () = control.registry.silenced.notified() => {}
            }
        };
        let pause = match control.look(&mut planner, &mut measured).await {
            Ok(true) => BUSY,
            Ok(false) => IDLE,
            Err(error) => {
                tracing::error!(%error, "look after repair");
                BUSY
            }
        };
        if timeout(pause, news).await.is_ok() {
            tokio::time::sleep(GATHER).await;
        }
    }
}
