//! A snapshot of an attached volume. It waits for no operation on the volume, and no I/O waits for it, except that of a
//! group: new writes are held for a moment.

use super::Attachments;
use crate::runtime::{Command, Taken};
use ashlar_types::{Duration, SnapshotId, VolumeId};
use ashlar_volume::SnapshotError;
use tokio::time::timeout;
use tonic::Status;

/// It waits for the writes that are in flight, which may wait for a replica. Asked again, it goes on.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);
/// Writes that wait longer than this are a fault to a database.
const HOLD_MAX_MS: u32 = 1000;

impl Attachments {
    pub(crate) async fn snapshot(&self, volume: &str, snapshot: &str, held: bool) -> Result<Taken, Status> {
        let (volume, id) = ids(volume, snapshot)?;
        let taken = timeout(SNAPSHOT_TIMEOUT, self.ask(|done| Command::Snapshot { volume, id, held, done }));
        let taken = taken.await.map_err(|_| {
            Status::unavailable(
                "writes before the snapshot wait for replicas; ask again, it is taken when they are done",
            )
        })??;
        answer(taken)
    }

    pub(crate) async fn hold_writes(&self, volume: &str, snapshot: &str, at_most_ms: u32) -> Result<(), Status> {
        let (volume, id) = ids(volume, snapshot)?;
        if !(1..=HOLD_MAX_MS).contains(&at_most_ms) {
            return Err(Status::invalid_argument(format!("at_most_ms must be between 1 and {HOLD_MAX_MS}")));
        }
        let at_most = Duration::from_millis(u64::from(at_most_ms));
        answer(self.ask(|done| Command::Hold { volume, id, at_most, done }).await?)
    }
}

fn ids(volume: &str, snapshot: &str) -> Result<(VolumeId, SnapshotId), Status> {
    let invalid = |error: ashlar_types::IdError| Status::invalid_argument(error.to_string());
    Ok((volume.parse().map_err(invalid)?, snapshot.parse().map_err(invalid)?))
}

fn answer<T>(answer: Option<Result<T, SnapshotError>>) -> Result<T, Status> {
    let error = match answer {
        Some(Ok(done)) => return Ok(done),
        Some(Err(error)) => error,
        None => return Err(Status::not_found("the volume is not attached here")),
    };
    let text = error.to_string();
    Err(match error {
        SnapshotError::TooMany => Status::resource_exhausted(text),
        SnapshotError::Refused(_) | SnapshotError::Lapsed => Status::failed_precondition(text),
        SnapshotError::Busy => Status::aborted(text),
        SnapshotError::Closed => Status::unavailable(text),
    })
}
