//! New writes are held for a moment, so that the snapshots of a group show one instant.
//!
//! ```text
//!   Hold ──► held ──Snapshot──► its point ──► writes go on
//!             └─────time over, detach──────► writes go on; the snapshot is refused
//! ```
//! First the writes of all volumes of the group are held, then each is asked for its point. A point is given only while
//! the hold lasts that all the others waited for. So at an instant between the last hold and the first point nothing
//! was being issued anywhere: what was acknowledged before it lies before every point, and what is issued after it
//! after every point. A volume goes on as soon as it has its own point: what it writes then is after that instant.
//!
//! Invariant: while writes are held, nothing has an lsn that had none before.

use crate::volume::{Phase, Volume};
use crate::{Action, Notice, SnapshotError};
use ashlar_types::{Duration, Instant, SnapshotId};

pub(crate) struct Hold {
    id: SnapshotId,
    since: Instant,
    until: Instant,
}

impl Hold {
    pub(crate) fn is_of(&self, id: SnapshotId, now: Instant) -> bool {
        self.id == id && now < self.until
    }
}

impl Volume {
    pub(crate) fn holds_writes(&self) -> bool {
        self.snapshots.hold.is_some()
    }

    pub(crate) fn hold_deadline(&self) -> Instant {
        self.snapshots.hold.as_ref().map_or(Instant::FAR, |hold| hold.until)
    }

    /// Asked again while it lasts it is not longer for that.
    pub(crate) fn hold_asked(&mut self, now: Instant, id: SnapshotId, at_most: Duration, out: &mut Vec<Action>) {
        let is_free = matches!(self.phase, Phase::Serving) && self.snapshots.hold.is_none() && self.snapshots.is_idle();
        let result = match &self.snapshots.hold {
            _ if self.draining => Err(SnapshotError::Closed),
            Some(hold) if hold.is_of(id, now) => Ok(()),
            _ if !is_free => Err(SnapshotError::Busy),
            _ if self.has_no_room() => Err(SnapshotError::TooMany),
            _ => {
                self.snapshots.hold = Some(Hold { id, since: now, until: now + at_most });
                Ok(())
            }
        };
        out.push(Action::Held { id, result });
    }

    /// Writes go on.
    pub(crate) fn end_hold(&mut self, now: Instant, out: &mut Vec<Action>) {
        if let Some(hold) = self.snapshots.hold.take() {
            out.push(Action::Notice(Notice::WritesHeld { id: hold.id, duration: now.since(hold.since) }));
        }
    }

    pub(crate) fn end_lapsed_hold(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.hold_deadline() <= now {
            self.end_hold(now, out);
        }
    }
}

#[cfg(test)]
mod tests;
