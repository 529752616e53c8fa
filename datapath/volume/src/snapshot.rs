//! Snapshots of the attached volume, and which versions of slots replicas must tell apart.
//!
//! ```text
//!   asked ──► pending(point): later writes carry it as their floor ──every write before it is acknowledged──►
//!        proposed ──applied──► recorded, and said
//! ```
//! No write waits for a snapshot; a snapshot waits for the writes that were in flight. Unacknowledged ones before its
//! point could be lost in a reconcile after somebody has read them in it.
//!
//! Invariants:
//! - the floor of issued writes never falls, is at least that of every replica that opened, and at least the point of
//!   every snapshot recorded;
//! - no write has the lsn of a point;
//! - a copy tells apart what the replicas' `Keep` lets nobody merge: its bands end at every point that was kept, and
//!   what is kept changes in no return and before no reconcile has ended.

use crate::hold::Hold;
use crate::member::{MemberIndex, Purpose};
use crate::volume::Volume;
use crate::{Action, SnapshotError};
use ashlar_types::{Change, FloorRange, Instant, Kept, Lsn, SNAPSHOTS_MAX, Snapshot, SnapshotId};
use ashlar_wire::Request;
use std::collections::{BTreeSet, VecDeque};

pub(crate) struct Snapshots {
    /// No write is issued.
    pub(crate) hold: Option<Hold>,
    asked: VecDeque<SnapshotId>,
    pending: Option<Snapshot>,
    /// Points that replicas were not told to forget.
    apart: BTreeSet<Lsn>,
    /// What replicas are told to keep.
    kept: Kept,
    /// Counts the changes of `kept`.
    kept_number: u64,
}

impl Snapshots {
    pub(crate) fn new(points: Vec<Lsn>, lsn: Lsn) -> Snapshots {
        let apart = points.iter().copied().collect();
        let kept = Kept { live: points, until: lsn };
        Snapshots { hold: None, asked: VecDeque::new(), pending: None, apart, kept, kept_number: 1 }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.pending.is_none()
    }

    pub(crate) fn fail_all(&mut self, error: SnapshotError, out: &mut Vec<Action>) {
        let asked = self.pending.take().map(|pending| pending.id).into_iter().chain(self.asked.drain(..));
        out.extend(asked.map(|id| Action::SnapshotTaken { id, result: Err(error.clone()) }));
    }
}

impl Volume {
    /// Asked again while it is being taken it is answered once; after it was recorded, at once.
    pub(crate) fn snapshot_asked(&mut self, now: Instant, id: SnapshotId, held: bool, out: &mut Vec<Action>) {
        let snapshots = &mut self.snapshots;
        let is_known = snapshots.asked.contains(&id) || snapshots.pending.is_some_and(|pending| pending.id == id);
        let is_held = snapshots.hold.as_ref().is_some_and(|hold| hold.is_of(id, now));
        let error = match self.record.snapshot(id) {
            Some(taken) => return out.push(Action::SnapshotTaken { id, result: Ok(taken.point) }),
            None if is_known => return,
            None if self.draining => SnapshotError::Closed,
            None if held && !is_held => SnapshotError::Lapsed,
            None if self.has_no_room() => SnapshotError::TooMany,
            None if held => {
                self.snapshots.asked.push_front(id);
                return self.end_hold(now, out);
            }
            None => return self.snapshots.asked.push_back(id),
        };
        out.push(Action::SnapshotTaken { id, result: Err(error) });
    }

    pub(crate) fn has_no_room(&self) -> bool {
        let pending = usize::from(self.snapshots.pending.is_some());
        self.record.snapshots.len() + self.snapshots.asked.len() + pending >= SNAPSHOTS_MAX
    }

    /// The next one that is asked for gets its point.
    pub(crate) fn snapshot_step(&mut self) {
        if self.snapshots.pending.is_none()
            && self.snapshots.hold.is_none()
            && let Some(id) = self.snapshots.asked.pop_front()
        {
            self.lsn = self.lsn.next();
            self.floor = self.lsn;
            self.snapshots.apart.insert(self.lsn);
            self.snapshots.pending = Some(Snapshot { id, point: self.lsn });
        }
    }

    pub(crate) fn propose_snapshot(&mut self, out: &mut Vec<Action>) {
        if let Some(pending) = self.snapshots.pending
            && self.commit_point() >= pending.point
        {
            self.propose(Change::Snapshot(pending), out);
        }
    }

    /// The answer to its proposal, or a record, says that it is in the catalog: who asked is told once, also when
    /// it has no point here yet.
    pub(crate) fn note_recorded(&mut self, out: &mut Vec<Action>) {
        let record = &self.record;
        let mut answered = |id| {
            let taken = record.snapshot(id);
            out.extend(taken.map(|taken| Action::SnapshotTaken { id, result: Ok(taken.point) }));
            taken.is_some()
        };
        self.snapshots.pending.take_if(|pending| answered(pending.id));
        self.snapshots.asked.retain(|&id| !answered(id));
    }

    /// With the version that was known at the time it is refused for good, otherwise only for now.
    pub(crate) fn snapshot_refused(&mut self, version: u64, reason: String, out: &mut Vec<Action>) {
        self.note_recorded(out);
        if self.record.version == version
            && let Some(pending) = self.snapshots.pending.take()
        {
            out.push(Action::SnapshotTaken { id: pending.id, result: Err(SnapshotError::Refused(reason)) });
        }
    }

    /// What is copied apart from each other: bands of floors between two borders, of those in which something can be
    /// stamped after `after`. The last one ends with the floors that there are now. Whoever gets new writes gets those
    /// under later floors by itself.
    pub(crate) fn bands(&self, after: Lsn) -> VecDeque<FloorRange> {
        let mut bands = VecDeque::new();
        let mut from = Lsn::ZERO;
        for &below in &self.snapshots.apart {
            if below > after {
                bands.push_back(FloorRange { from, below });
            }
            from = below;
        }
        // There is always this one, whatever a replica says it was written last.
        bands.push_back(FloorRange { from, below: self.lsn.next() });
        bands
    }

    /// Snapshots that others took, before this writer or while it was away from the control plane.
    pub(crate) fn note_points(&mut self) {
        let points = self.record.points().into_iter().filter(|&point| point <= self.lsn);
        self.snapshots.apart.extend(points);
    }

    /// Replicas are told when a snapshot is gone. Points that they have not heard of they keep anyway.
    pub(crate) fn keep_step(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.resync.is_some() {
            return;
        }
        // A point of a writer to come (the volume was closed, and the answer lost) is after everything here.
        let points = self.record.points().into_iter().filter(|&point| point <= self.lsn);
        let needed: BTreeSet<Lsn> = points.chain(self.snapshots.pending.map(|pending| pending.point)).collect();
        if self.snapshots.apart.len() > needed.len() {
            self.snapshots.kept = Kept { live: needed.iter().copied().collect(), until: self.lsn };
            self.snapshots.apart = needed;
            self.snapshots.kept_number += 1;
        }
        for index in 0..self.members.len() {
            self.tell_kept(now, index, out);
        }
    }

    /// Where there never was a snapshot there is nothing to tell apart.
    pub(crate) fn tell_kept(&mut self, now: Instant, index: MemberIndex, out: &mut Vec<Action>) {
        let (number, never_one) = (self.snapshots.kept_number, self.floor == Lsn::ZERO);
        let member = &mut self.members[index];
        if member.is_open() && member.told_kept < number {
            member.told_kept = number;
            if !never_one {
                self.send(now, index, Purpose::Keep, Request::Keep(self.snapshots.kept.clone()), out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
