//! Who waits for a snapshot of the volume. The core takes it; asked twice, it is taken once.

use super::{Hosted, Io};
use crate::runtime::command::{Taken, answer};
use ashlar_types::{Duration, Lsn, SNAPSHOTS_MAX, SnapshotId};
use ashlar_volume::{Event, SnapshotError};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Nothing stands for a volume that is not here.
type Answer<T> = Option<Result<T, SnapshotError>>;

#[derive(Default)]
pub(super) struct Waiting {
    /// The last one who asked for it; whoever asked before has given up, or asks again.
    points: BTreeMap<SnapshotId, (oneshot::Sender<Answer<Taken>>, Duration)>,
    /// The core answers at once.
    hold: Option<oneshot::Sender<Answer<()>>>,
}

impl Hosted {
    pub(in crate::runtime) fn snapshot(
        &mut self,
        io: &mut Io,
        id: SnapshotId,
        held: bool,
        done: oneshot::Sender<Answer<Taken>>,
    ) {
        if self.snapshots.points.len() >= SNAPSHOTS_MAX {
            return answer(done, Some(Err(SnapshotError::TooMany)));
        }
        self.snapshots.points.insert(id, (done, Duration::ZERO));
        self.feed(io, Event::Snapshot { id, held });
    }

    pub(in crate::runtime) fn hold(
        &mut self,
        io: &mut Io,
        id: SnapshotId,
        at_most: Duration,
        done: oneshot::Sender<Answer<()>>,
    ) {
        self.snapshots.hold = Some(done);
        self.feed(io, Event::Hold { id, at_most });
    }

    pub(super) fn held(&mut self, result: Result<(), SnapshotError>) {
        if let Some(done) = self.snapshots.hold.take() {
            answer(done, Some(result));
        }
    }

    /// Writes go on, after having waited so long for it.
    pub(super) fn hold_ended(&mut self, id: SnapshotId, duration: Duration) {
        if let Some((_, held)) = self.snapshots.points.get_mut(&id) {
            *held = duration;
        }
    }

    pub(super) fn snapshot_taken(&mut self, id: SnapshotId, result: Result<Lsn, SnapshotError>) {
        tracing::info!(volume = %self.id, snapshot = %id, ?result, "snapshot");
        if let Some((done, held)) = self.snapshots.points.remove(&id) {
            answer(done, Some(result.map(|point| Taken { point, held })));
        }
    }
}
