//! Snapshots of a volume record: taken by the writer while there is one, by the control plane while there is none.
//!
//! Invariants of a record that went through here:
//! - points ascend, and no write of any writer, past or to come, has the lsn of one;
//! - what is written before a point is settled when it is recorded: acknowledged (the writer waits for that), or the
//!   replicas were closed equal;
//! - a snapshot that is gone never comes back.

use crate::membership::changed;
use ashlar_types::{Epoch, Kept, Lsn, Mutant, NodeName, SNAPSHOTS_MAX, Snapshot, SnapshotId, VolumeRecord};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("volume is held by node {holder}: its writer takes the snapshot")]
    Held { holder: NodeName },
    #[error("the last writer did not close the volume: it must be attached once before a snapshot is taken")]
    NotClosed,
    #[error("the volume has {SNAPSHOTS_MAX} snapshots already, those that clones still read from among them")]
    TooMany,
    #[error("snapshot {id} was taken already")]
    Taken { id: SnapshotId },
    #[error("point {point} is not after the last one, or not of the present epoch")]
    Point { point: Lsn },
    #[error("the epochs of the volume are used up")]
    EpochsUsedUp,
}

/// By the writer's word, under its epoch.
pub(crate) fn take(record: &VolumeRecord, snapshot: Snapshot) -> Result<VolumeRecord, Refusal> {
    let Snapshot { id, point } = snapshot;
    if record.snapshot(id).is_some() {
        return Err(Refusal::Taken { id });
    }
    let is_later = record.points().last().is_none_or(|&last| last < point);
    if !is_later || point.epoch() != record.epoch {
        return Err(Refusal::Point { point });
    }
    with(record, snapshot)
}

/// Of a volume that nobody has open and whose replicas are equal. Its point is before every write of the next writer;
/// whoever was granted an epoch, has not served and holds the volume no more must not serve under it any more.
/// Repeating it changes nothing.
pub fn take_detached(record: &VolumeRecord, id: SnapshotId) -> Result<VolumeRecord, Refusal> {
    if record.snapshot(id).is_some() {
        return Ok(record.clone());
    }
    let was_granted = record.served != record.epoch;
    match &record.holder {
        Some(holder) if was_granted || !record.clean => return Err(Refusal::Held { holder: holder.clone() }),
        _ if !record.clean => return Err(Refusal::NotClosed),
        _ => {}
    }
    let after = |epoch: Epoch| epoch.next().ok_or(Refusal::EpochsUsedUp);
    let epoch = if was_granted { after(record.epoch)? } else { record.epoch };
    let next = with(record, Snapshot { id, point: Lsn::start_of(after(epoch)?) })?;
    Ok(VolumeRecord { epoch, ..next })
}

fn with(record: &VolumeRecord, snapshot: Snapshot) -> Result<VolumeRecord, Refusal> {
    if record.snapshots.len() + record.clones.len() >= SNAPSHOTS_MAX {
        return Err(Refusal::TooMany);
    }
    Ok(changed(record, |record| record.snapshots.push(snapshot)))
}

/// The snapshot is not needed any more; a writer, if there is one, hears of it in the record. Repeating it changes
/// nothing.
pub fn forget(record: &VolumeRecord, id: SnapshotId) -> VolumeRecord {
    if record.snapshot(id).is_none() {
        return record.clone();
    }
    changed(record, |record| record.snapshots.retain(|snapshot| snapshot.id != id))
}

/// What replicas are to keep of a volume that nobody holds and that its last writer closed. Of points to come
/// nothing is said: the next snapshot that is taken while nobody holds the volume has the start of the next epoch, as
/// one that is gone may have had. `None` where a writer may be at work, or is to be waited for: it tells.
pub fn kept_detached(record: &VolumeRecord) -> Option<Kept> {
    let is_closed = record.holder.is_none() && record.clean && record.served == record.epoch;
    if record.served == Epoch::NONE || !(is_closed || Mutant::KeepUnderWriter.is_on()) {
        return None;
    }
    let next = Lsn::start_of(record.epoch.next()?);
    let until = if Mutant::KeepReachesAhead.is_on() { next } else { Lsn::from_raw(next.raw() - 1) };
    let live = record.points().into_iter().filter(|&point| point <= until).collect();
    Some(Kept { live, until })
}

#[cfg(test)]
mod tests;
