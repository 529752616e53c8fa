//! The core of a volume that many nodes read and nobody writes: a reader beside other readers. No epoch of its own, no
//! lease, no word in the record; its replicas are observed.
//!
//! ```text
//!   Opening ──each chunk has a replica──► Reading ──Detach──► Closed(Clean)
//!      └────────────── the first word of a higher epoch ────► Closed(Fenced)
//!
//!   read ─► pieces ─► window ─► asked(nearest) ─► good: complete        bad everywhere: block by block, then Lost
//!                        ▲           └ bad, link lost, silent: the next nearest ─► nobody left: again later
//! ```
//! Why what it reads never changes: the control plane grants no epoch while the volume has readers. Should it do so all
//! the same, because a node that was taken for gone still reads, a replica ends the session with the first word of the
//! next writer, before it takes any write (`Request::Observe`). So every byte that is given to the guest was written
//! under the record's epoch or before, and all of that was closed before anybody read.
//!
//! Invariants:
//! - a replica is asked only if it is in-sync by the record, whole, and has agreed in the epoch that the record says;
//! - a piece that is not answered is waiting, asked of one replica, or parked;
//! - bytes that their checksum does not bear out are never given to the guest.

mod links;
mod pieces;

use crate::config::Config;
use crate::guest::{Guest, range_fault};
use crate::layout::held_by_chunks;
use crate::links::{connect_due, disconnect_all};
use crate::member::Member;
use crate::{
    Action, ComparisonStatus, Ending, Event, GuestError, GuestOp, MemberStatus, Notice, SnapshotError, Tag,
    VolumeStatus,
};
use ashlar_types::{ByteCount, Duration, Epoch, Geometry, Instant, Lsn, MEMBERS_MAX, VolumeId, VolumeRecord};
use bytes::Bytes;
use pieces::Pieces;

enum Phase {
    Opening,
    Reading,
    Closed(Ending),
}

/// One attachment of one volume, by the record of a volume that is ready for readers.
pub struct Reader {
    config: Config,
    record: VolumeRecord,
    geometry: Geometry,
    phase: Phase,
    /// In the order of `record.members`.
    members: Vec<Member>,
    guest: Guest,
    pieces: Pieces,
    /// Said once for each time that it begins.
    blocked: Option<String>,
    reads: u64,
    read_bytes: u64,
}

impl Reader {
    pub fn new(config: Config, record: VolumeRecord, now: Instant) -> Reader {
        assert!(record.members.len() <= MEMBERS_MAX && record.epoch > Epoch::NONE);
        let geometry = Geometry::new(record.size).expect("the catalog holds checked sizes");
        let members = record.members.iter().map(|member| Member::new(member, config.distance(member), now)).collect();
        let mut reader = Reader {
            config,
            record,
            geometry,
            phase: Phase::Opening,
            members,
            guest: Guest::default(),
            pieces: Pieces::default(),
            blocked: None,
            reads: 0,
            read_bytes: 0,
        };
        reader.note_members();
        reader
    }

    pub(crate) fn volume(&self) -> VolumeId {
        self.record.volume
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.record.epoch
    }

    pub fn size(&self) -> ByteCount {
        self.record.size
    }

    /// To be called once, before the first event.
    pub fn start(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.handle(now, Event::Tick, out);
    }

    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Guest { tag, op } => self.guest_arrives(tag, op, out),
            Event::Snapshot { id, .. } => {
                out.push(Action::SnapshotTaken { id, result: Err(refused()) });
            }
            Event::Hold { id, .. } => out.push(Action::Held { id, result: Err(refused()) }),
            Event::LinkUp { disk, session } if self.is_closed() => out.push(Action::Disconnect { disk, session }),
            _ if self.is_closed() => {}
            Event::LinkUp { disk, session } => self.link_up(now, disk, session, out),
            Event::LinkDown { disk, session, .. } => self.link_down(now, disk, session),
            Event::Reply { disk, frame } => self.reply(now, disk, frame, out),
            Event::Record(record) => self.adopt(now, record, out),
            // Nothing is in flight that matters: what is not answered has no effect.
            Event::Detach => self.become_closed(Ending::Clean, GuestError::Closed, out),
            Event::Tick => self.check_silence(now, out),
            // Of the writer that this node was when it made the volume ready: a reader proposes nothing.
            Event::Answer { .. } | Event::Unanswered { .. } => {}
            // A writer's matters.
            Event::LetGo { .. } | Event::Pace { .. } => {}
        }
        self.maintain(now, out);
    }

    fn maintain(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.is_closed() {
            return;
        }
        connect_due(&mut self.members, now, out);
        if matches!(self.phase, Phase::Opening) && self.every_chunk_is_readable() {
            self.phase = Phase::Reading;
            self.blocked = None;
            out.push(Action::Notice(Notice::Serving { reconciled_blocks: 0 }));
        }
        self.unpark_due(now);
        self.issue_reads(now, out);
    }

    /// When `Event::Tick` is due, if nothing else happens.
    pub fn next_deadline(&self) -> Instant {
        if self.is_closed() {
            return Instant::FAR;
        }
        let deadline = |member: &Member| member.deadline(&self.config, Instant::ZERO);
        let members = self.members.iter().map(deadline).min().unwrap_or(Instant::FAR);
        members.min(self.pieces.again_at())
    }

    pub fn status(&self) -> VolumeStatus {
        let member = |member: &Member| MemberStatus {
            disk: member.disk,
            state: member.state,
            connected: member.is_open(),
            copied_blocks: 0,
            changed_blocks: 0,
            mean_latency: member.latency.mean(),
            p99_latency: member.latency.fresh_p99(),
        };
        VolumeStatus {
            epoch: self.record.epoch,
            record_version: self.record.version,
            phase: match self.phase {
                Phase::Opening => "opening",
                Phase::Reading => "reading",
                Phase::Closed(_) => "closed",
            },
            serving: matches!(self.phase, Phase::Reading),
            blocked: self.blocked.clone(),
            in_doubt: false,
            members: self.members.iter().map(member).collect(),
            commit: Lsn::ZERO,
            reads: self.reads,
            read_bytes: self.read_bytes,
            writes: 0,
            written_bytes: 0,
            repaired_blocks: 0,
            comparison: ComparisonStatus::default(),
            reconciled_blocks: 0,
            resynced_blocks: 0,
            inflight: self.guest.count(),
            longest_gap: Duration::ZERO,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    fn guest_arrives(&mut self, tag: Tag, op: GuestOp, out: &mut Vec<Action>) {
        let answer = match (&self.phase, range_fault(self.geometry, &op), &op) {
            (Phase::Closed(Ending::Fenced), ..) => Err(GuestError::Fenced),
            (Phase::Closed(_), ..) => Err(GuestError::Closed),
            (_, Some(error), _) => Err(error),
            (_, None, GuestOp::Flush) => Ok(Bytes::new()),
            (_, None, GuestOp::Write { .. } | GuestOp::Discard { .. }) => Err(GuestError::ReadOnly),
            (_, None, &GuestOp::Read { start, count, below }) => {
                self.reads += 1;
                self.read_bytes += count.bytes().0;
                return self.admit_read(tag, start, count, below);
            }
        };
        out.push(Action::Complete { tag, result: answer });
    }

    /// Another record of the same attachment: a disk was declared lost, or was replaced by one that is out.
    fn adopt(&mut self, now: Instant, record: VolumeRecord, out: &mut Vec<Action>) {
        if record.epoch > self.record.epoch {
            return self.become_fenced(record.epoch, out);
        }
        let known = self.members.iter().map(|member| member.disk);
        let keeps_members = record.members.iter().map(|member| member.disk).take(self.members.len()).eq(known);
        let is_newer = record.version > self.record.version && record.epoch == self.record.epoch;
        // What does not fit is a fault elsewhere, which must not stop I/O.
        if !is_newer || !keeps_members || record.members.len() > MEMBERS_MAX || record.size != self.record.size {
            return;
        }
        for member in &record.members[self.members.len()..] {
            self.members.push(Member::new(member, self.config.distance(member), now));
        }
        for (member, record) in self.members.iter_mut().zip(&record.members) {
            member.state = record.state;
        }
        self.record = record;
        self.note_members();
        for index in 0..self.members.len() {
            if !self.members[index].has_chunks {
                self.drop_link(now, index, "the replica is not in-sync any more", out);
            }
        }
        self.unpark_all();
    }

    /// Those that nothing can be read from are not needed.
    fn note_members(&mut self) {
        let held = held_by_chunks(&self.record);
        for (index, member) in self.members.iter_mut().enumerate() {
            member.has_chunks = held & (1 << index) != 0 && member.in_sync();
        }
    }

    fn every_chunk_is_readable(&self) -> bool {
        let serves = |index: &u16| self.members[usize::from(*index)].serves_reads();
        self.record.chunks.iter().all(|run| run.members.iter().any(serves))
    }

    /// Somebody writes to the volume, or it is deleted: errors to its user from here on, and never other content.
    fn become_fenced(&mut self, epoch: Epoch, out: &mut Vec<Action>) {
        out.push(Action::Notice(Notice::Fenced { epoch }));
        self.become_closed(Ending::Fenced, GuestError::Fenced, out);
    }

    fn become_closed(&mut self, ending: Ending, error: GuestError, out: &mut Vec<Action>) {
        self.guest.fail_all(error, out);
        self.pieces = Pieces::default();
        disconnect_all(&mut self.members, out);
        self.phase = Phase::Closed(ending.clone());
        out.push(Action::Ended(ending));
    }

    fn say_blocked(&mut self, reason: String, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Opening) && self.blocked.as_ref() != Some(&reason) {
            self.blocked = Some(reason.clone());
            out.push(Action::Notice(Notice::AttachBlocked { reason }));
        }
    }
}

fn refused() -> SnapshotError {
    SnapshotError::Refused("this attachment only reads".to_owned())
}

#[cfg(test)]
mod tests;
