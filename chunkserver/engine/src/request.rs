//! Requests: what a peer says is checked here, once; then it is answered at once, read, or put in the queue of
//! changes.

use crate::engine::{Engine, refusal};
use crate::queue::{Waiting, Work};
use crate::session::{ReplyTo, Role};
use crate::{Action, CloneRefusal, LinkId, OpToken};
use ashlar_types::{
    Base, BlockIndex, ByteCount, ChunkIndex, ChunkRange, Crc32, Epoch, FloorRange, Geometry, Kept, Lsn, Mutant,
    SLOTS_PER_CHUNK, SlotIndex, VolumeId,
};
use ashlar_wire::limits::{BLOCKS_PER_FRAME_MAX, DATA_BYTES_MAX};
use ashlar_wire::{BlockData, Open, Reply, Request, RequestFrame, SlotContent, Status};

/// Why a request is refused: what goes into the answer.
type Fault = (Status, &'static str);

const fn bad(reason: &'static str) -> Fault {
    (Status::BadRequest, reason)
}

impl Engine {
    pub(crate) fn on_request(&mut self, link: LinkId, frame: RequestFrame, out: &mut Vec<Action>) {
        self.counters.requests += 1;
        let Some(session) = self.sessions.get(link) else {
            return self.on_first_request(link, frame, out);
        };
        let to = ReplyTo {
            link,
            volume: session.volume,
            session: frame.session,
            request: frame.request,
            data_bytes: data_bytes(&frame.message),
        };
        let fault = self.frame_fault(link, &frame);
        if !self.sessions.admit(to) {
            return self.close_link(link, out);
        }
        if let Some((status, reason)) = fault {
            return self.refuse(to, status, reason, out);
        }
        self.sessions.hear_commit(link, frame.commit);
        match self.request_fault(link, frame.epoch, &frame.message) {
            Some((status, reason)) => {
                if let Request::Write { range, lsn, .. } | Request::Discard { range, lsn, .. } = &frame.message {
                    self.sessions.open_hole(link, range.chunk, *lsn);
                }
                self.refuse(to, status, reason, out);
            }
            None => self.on_checked_request(to, frame.message, out),
        }
    }

    fn on_checked_request(&mut self, to: ReplyTo, request: Request, out: &mut Vec<Action>) {
        match request {
            Request::Ping => self.reply(to, Reply::Done, out),
            Request::Report { from } => self.report(to, from, out),
            Request::ListChanged { from, until, after, floors } => {
                self.list_changed(to, (from, until), after, floors, out);
            }
            Request::ListStale { from, floors } => self.list_stale(to, from, floors, out),
            Request::Usage => self.usage(to, out),
            Request::ListBlocks { chunk, floors } => self.list_blocks(to, chunk, floors, out),
            Request::ListBad { from, slot } => self.list_bad(to, from, slot, out),
            Request::Digest { chunk, below } => self.digest(to, chunk, below, out),
            Request::Read { range, below } => self.read(to, range, below, out),
            Request::ReadSlot { chunk, slot, floors } => self.read_slot(to, chunk, slot, floors, out),
            Request::Open(_) | Request::Observe(_) => self.refuse(to, Status::BadRequest, "the link is open", out),
            change => match self.failed.clone() {
                Some(reason) => self.refuse(to, Status::DiskFailed, &reason, out),
                None => {
                    let work = match change {
                        Request::Grow { size } => self.grow(to, size),
                        change => Work::from(change),
                    };
                    let commit = self.sessions.get(to.link).expect("the link has a session").commit;
                    self.waiting.push_back(Waiting { volume: to.volume, commit, to: Some(to), work });
                }
            },
        }
    }

    /// What comes after it on the link may use the new size at once: it is journalled after it.
    fn grow(&mut self, to: ReplyTo, size: ByteCount) -> Work {
        self.sessions.grow(to.link, size);
        Work::Grow { epoch: self.sessions.writer_epoch(to.volume), size, session: to.session }
    }

    /// A link begins with `Open` or `Observe`; one that does not is ended.
    fn on_first_request(&mut self, link: LinkId, frame: RequestFrame, out: &mut Vec<Action>) {
        let (open, role) = match frame.message {
            Request::Open(open) => (open, Role::Writer { epoch: frame.epoch }),
            Request::Observe(open) => (open, Role::Observer { epoch: frame.epoch }),
            _ => return self.turn_away(link, &frame, VolumeId::from_u128(0), bad("a link begins with Open"), out),
        };
        if let Some(fault) = self.open_fault(&open, role, frame.commit) {
            return self.turn_away(link, &frame, open.volume, fault, out);
        }
        if let Role::Writer { epoch } = role {
            if let Some(older) = self.sessions.writer_of(open.volume) {
                self.end_older(older, out);
            }
            // What they have asked and not been answered ends with their links: it might show what is written next.
            for observer in self.sessions.observers_before(open.volume, epoch) {
                self.close_link(observer, out);
            }
        }
        let size = match role {
            Role::Writer { .. } => open.size,
            Role::Observer { .. } => self.store.replica(open.volume).expect("an observed replica exists").size,
        };
        self.sessions.begin(link, open.volume, size, role, frame.session);
        let to = ReplyTo { link, volume: open.volume, session: frame.session, request: frame.request, data_bytes: 0 };
        assert!(self.sessions.admit(to), "the first request fits");
        match role {
            Role::Observer { .. } => self.reply_opened(to, out),
            Role::Writer { epoch } => {
                self.sessions.hear_commit(link, frame.commit);
                let work = Work::Open { epoch, size: open.size, session: frame.session, served: open.served };
                let early = Mutant::OpenFromVolatileState.is_on() && self.store.replica(open.volume).is_some();
                if early {
                    self.reply_opened(to, out);
                }
                let to = (!early).then_some(to);
                self.waiting.push_back(Waiting { volume: open.volume, commit: frame.commit, to, work });
            }
        }
    }

    /// A volume has one session of a writer: the older one ends, its queue included, before the newer is answered.
    fn end_older(&mut self, older: LinkId, out: &mut Vec<Action>) {
        if Mutant::ReadComparesNoEpoch.is_on() || Mutant::OlderSessionNotEnded.is_on() {
            return self.sessions.outlive(older);
        }
        self.close_link(older, out);
    }

    fn turn_away(&mut self, link: LinkId, frame: &RequestFrame, volume: VolumeId, fault: Fault, out: &mut Vec<Action>) {
        self.counters.refused += 1;
        let to = ReplyTo { link, volume, session: frame.session, request: frame.request, data_bytes: 0 };
        self.send(to, refusal(fault.0, BlockIndex(0), fault.1), out);
        self.close_link(link, out);
    }

    fn open_fault(&self, open: &Open, role: Role, commit: Lsn) -> Option<Fault> {
        if (open.cluster, open.disk) != (self.superblock.cluster, self.superblock.disk) {
            return Some((Status::WrongDisk, "this is another disk, or of another cluster"));
        }
        if self.sessions.len() >= crate::config::LINKS_MAX {
            return Some(bad("the disk has too many links"));
        }
        if self.recovery.is_some() {
            return Some((Status::DiskFailed, "the disk failed while it recovered"));
        }
        let known = self.store.volumes.get(&open.volume);
        let epoch = match role {
            Role::Writer { epoch } => epoch,
            Role::Observer { epoch } => {
                return match known {
                    None => Some((Status::WrongDisk, "the disk has no replica of the volume")),
                    Some(replica) if replica.deleted => Some((Status::Deleted, "the replica was deleted")),
                    Some(_) if epoch != Epoch::NONE && epoch < self.promised(open.volume) => {
                        Some((Status::Fenced, "a higher epoch was promised"))
                    }
                    Some(_) => None,
                };
            }
        };
        if self.deleting.contains(&open.volume) {
            return Some((Status::Deleted, "the replica is being deleted"));
        }
        match known {
            _ if self.failed.is_some() => Some((Status::DiskFailed, "the disk has failed")),
            _ if epoch == Epoch::NONE || commit.epoch() > epoch => Some(bad("the epoch cannot be")),
            Some(replica) if replica.deleted && (epoch <= replica.promised || self.store.is_read(open.volume)) => {
                Some((Status::Deleted, "the replica was deleted"))
            }
            _ if epoch < self.promised(open.volume) && !Mutant::OpenComparesNoEpoch.is_on() => {
                Some((Status::Fenced, "a higher epoch was promised"))
            }
            _ if Geometry::new(open.size).is_err() => Some(bad("the volume's size cannot be")),
            Some(replica) if open.size < replica.size => Some(bad("the volume shrinks")),
            None if self.store.volumes.len() >= crate::config::VOLUMES_MAX => {
                Some((Status::NoSpace, "the disk has too many replicas"))
            }
            _ => None,
        }
    }

    /// The highest epoch promised, durable or on its way.
    pub(crate) fn promised(&self, volume: VolumeId) -> Epoch {
        let durable = self.store.volumes.get(&volume).map_or(Epoch::NONE, |replica| replica.promised);
        durable.max(self.pending.promised(volume)).max(self.sessions.writer_epoch(volume))
    }

    fn frame_fault(&self, link: LinkId, frame: &RequestFrame) -> Option<Fault> {
        let session = self.sessions.get(link).expect("the link has a session");
        if frame.session != session.session {
            return Some((Status::SessionEnded, "the session is another one"));
        }
        match session.role {
            Role::Observer { .. } if !is_observation(&frame.message) => Some(bad("an observer changes nothing")),
            Role::Observer { .. } => None,
            Role::Writer { epoch } if frame.epoch < epoch => Some((Status::Fenced, "a higher epoch was promised")),
            Role::Writer { epoch } if frame.epoch > epoch => Some(bad("the epoch is not the session's")),
            Role::Writer { epoch } if frame.commit.epoch() > epoch => Some(bad("the commit point is in the future")),
            Role::Writer { .. } => None,
        }
    }

    fn request_fault(&self, link: LinkId, epoch: Epoch, request: &Request) -> Option<Fault> {
        let size = self.sessions.get(link).expect("the link has a session").size;
        let chunks = Geometry::new(size).map_or(0, Geometry::chunk_count);
        let grow_fault = |to: ByteCount| match Geometry::new(to) {
            Err(_) => Some(bad("the volume's size cannot be")),
            Ok(_) => (to < size).then_some(bad("the volume shrinks")),
        };
        let chunk_fault =
            |chunk: ChunkIndex| (chunk.0 >= chunks).then_some(bad("the chunk is beyond the volume's end"));
        let range_fault = |range: &ChunkRange| match range.is_valid() {
            false => Some(bad("the range is empty or leaves its chunk")),
            true => chunk_fault(range.chunk),
        };
        let frame_fault =
            |range: &ChunkRange| (range.count.0 > BLOCKS_PER_FRAME_MAX).then_some(bad("the range is too long"));
        let slot_fault = |slot: SlotIndex| (u32::from(slot.0) >= SLOTS_PER_CHUNK).then_some(bad("no such slot"));
        match request {
            Request::Write { range, lsn, floor, blocks } => range_fault(range)
                .or_else(|| frame_fault(range))
                .or_else(|| lsn_fault(*lsn, *floor, epoch))
                .or_else(|| blocks_fault(blocks, range.count.0)),
            Request::Discard { range, lsn, floor } => range_fault(range).or_else(|| lsn_fault(*lsn, *floor, epoch)),
            Request::Read { range, .. } => range_fault(range).or_else(|| frame_fault(range)),
            Request::Repair { range, blocks, .. } => {
                range_fault(range).or_else(|| frame_fault(range)).or_else(|| blocks_fault(blocks, range.count.0))
            }
            Request::Fill { chunk, slot, floors, into, content } => chunk_fault(*chunk)
                .or_else(|| slot_fault(*slot))
                .or_else(|| into_fault(*floors, *into, epoch))
                .or_else(|| (content.valid & !content.set != 0).then_some(bad("a block is valid and not set")))
                .or_else(|| (content.stamp.epoch() > epoch).then_some(bad("the stamp is in the future")))
                .or_else(|| blocks_fault(&content.blocks, content.valid.count_ones())),
            Request::ReadSlot { chunk, slot, .. } => chunk_fault(*chunk).or_else(|| slot_fault(*slot)),
            Request::ListBlocks { chunk, .. } | Request::Digest { chunk, .. } => chunk_fault(*chunk),
            Request::Grow { size } => grow_fault(*size),
            Request::MarkStale { chunk, floors, into, .. } => {
                chunk_fault(*chunk).or_else(|| into_fault(*floors, *into, epoch))
            }
            Request::VoidStale { chunk } => chunk_fault(*chunk),
            Request::ListBad { from, slot } => chunk_fault(*from).or_else(|| slot_fault(*slot)),
            Request::Keep(kept) => match kept.is_valid() {
                false => Some(bad("these snapshots cannot be")),
                true => (kept.until.epoch() > epoch).then_some(bad("a snapshot is in the future")),
            },
            Request::AdoptPrefix { chunk, prefix } | Request::CompleteChunk { chunk, prefix } => {
                chunk_fault(*chunk).or_else(|| (prefix.epoch() > epoch).then_some(bad("the prefix is in the future")))
            }
            _ => None,
        }
    }

    /// The control plane deletes a replica.
    pub(crate) fn on_delete(&mut self, op: OpToken, volume: VolumeId, epoch: Epoch, out: &mut Vec<Action>) {
        let refused = match &self.failed {
            Some(reason) => Some(reason.clone()),
            None if epoch < self.promised(volume) => Some("a higher epoch was promised".to_owned()),
            None if self.deleting.contains(&volume) => Some("the deletion is on its way".to_owned()),
            None => None,
        };
        if let Some(reason) = refused {
            return out.push(Action::Deleted { op, result: Err(reason) });
        }
        let links = self.sessions.writer_of(volume).into_iter().chain(self.sessions.observers_of(volume));
        for link in links.collect::<Vec<_>>() {
            self.close_link(link, out);
        }
        self.deleting.insert(volume);
        self.waiting.push_back(Waiting { volume, commit: Lsn::ZERO, to: None, work: Work::Delete { op, epoch } });
    }

    /// The control plane makes a clone's replica. What comes of it is decided when it is journalled.
    pub(crate) fn on_clone(
        &mut self,
        op: OpToken,
        volume: VolumeId,
        (epoch, size, base): (Epoch, ByteCount, Base),
        out: &mut Vec<Action>,
    ) {
        let is_new = !self.store.volumes.contains_key(&volume);
        let refusal = match () {
            _ if self.failed.is_some() => Some(CloneRefusal::DiskFailed),
            _ if Geometry::new(size).is_err() => Some(CloneRefusal::Size),
            _ if base.point == Lsn::ZERO => Some(CloneRefusal::NotHere),
            _ if is_new && self.store.volumes.len() >= crate::config::VOLUMES_MAX => Some(CloneRefusal::TooMany),
            _ => None,
        };
        if let Some(refusal) = refusal {
            return out.push(Action::Cloned { op, result: Err(refusal) });
        }
        let work = Work::Clone { op, epoch, size, base };
        self.waiting.push_back(Waiting { volume, commit: Lsn::ZERO, to: None, work });
    }

    /// The control plane tells what the next writer would. A writer that is here, or was since, knows better, and which
    /// copies are under way; where there is no replica there is nothing to tell apart.
    pub(crate) fn on_keep_points(
        &mut self,
        op: OpToken,
        volume: VolumeId,
        epoch: Epoch,
        kept: Kept,
        out: &mut Vec<Action>,
    ) {
        let refused = match &self.failed {
            Some(reason) => Some(reason.as_str()),
            None if !kept.is_valid() => Some("these snapshots cannot be"),
            None if kept.until.epoch() > epoch => Some("a snapshot is in the future"),
            None if self.sessions.writer_of(volume).is_some() => Some("a writer has the replica open"),
            None if epoch < self.promised(volume) => Some("a higher epoch was promised"),
            None if self.deleting.contains(&volume) => Some("the replica is being deleted"),
            None => None,
        };
        let result = refused.map_or(Ok(()), |reason| Err(reason.to_owned()));
        if result.is_err() || self.store.replica(volume).is_none() {
            return out.push(Action::PointsKept { op, result });
        }
        let work = Work::KeepPoints { op, kept };
        self.waiting.push_back(Waiting { volume, commit: Lsn::ZERO, to: None, work });
    }

    /// What the link asked for and is not in the journal yet is forgotten; what is in it stays, its answers go
    /// nowhere.
    pub(crate) fn end_link(&mut self, link: LinkId) {
        self.sessions.end(link);
        self.waiting.retain(|waiting| waiting.to.is_none_or(|to| to.link != link));
    }
}

fn is_observation(request: &Request) -> bool {
    use Request::*;
    matches!(request, Read { .. } | Report { .. } | ListChanged { .. } | ListStale { .. } | ReadSlot { .. } | Ping)
        || matches!(request, Observe(_) | Usage | ListBlocks { .. } | ListBad { .. } | Digest { .. })
}

fn lsn_fault(lsn: Lsn, floor: Lsn, epoch: Epoch) -> Option<Fault> {
    match lsn {
        _ if floor >= lsn => Some(bad("the floor is not before the write")),
        Lsn::ZERO => Some(bad("the lsn is zero")),
        _ if lsn.epoch() > epoch => Some(bad("the lsn is of a later epoch")),
        _ => None,
    }
}

fn into_fault(floors: FloorRange, into: Lsn, epoch: Epoch) -> Option<Fault> {
    let among = floors.is_valid() && floors.contains(into);
    match among {
        false => Some(bad("the version is not among the floors")),
        true => (into.epoch() > epoch).then_some(bad("the version is in the future")),
    }
}

fn blocks_fault(blocks: &BlockData, count: u32) -> Option<Fault> {
    let expected = ashlar_types::BlockCount(count).bytes().0;
    if blocks.crcs.len() as u64 != u64::from(count) || blocks.data.len() as u64 != expected {
        return Some(bad("blocks, checksums and range differ in number"));
    }
    let same = Crc32::of_blocks(&blocks.data).eq(blocks.crcs.iter().copied());
    (!same).then_some(bad("a block and its checksum differ"))
}

/// What the request weighs on its session: the data that it brings or asks for.
pub(crate) fn data_bytes(request: &Request) -> usize {
    match request {
        Request::Write { blocks, .. } | Request::Repair { blocks, .. } => blocks.data.len(),
        Request::Fill { content: SlotContent { blocks, .. }, .. } => blocks.data.len(),
        Request::Read { range, .. } => (range.count.bytes().0 as usize).min(DATA_BYTES_MAX),
        Request::ReadSlot { .. } => ashlar_types::SLOT_BYTES as usize,
        _ => 0,
    }
}
