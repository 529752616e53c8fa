//! The engine of one disk: owns the state, takes an event, handles it, then brings everything forward that can move.
//!
//! ```text
//!   new ──► Recovering ──────────────────────► Serving ──────────────────────► failed: reads only
//!            (scan, verify, replay, checkpoint)         write or flush failed
//! ```

use crate::action::{Action, CloneRefusal, Deleted};
use crate::checkpoint::Checkpoint;
use crate::config::{EARLY_DATA_BYTES_MAX, EARLY_EVENTS_MAX, EngineConfig, RESERVE_SLOTS_MIN};
use crate::event::{DiskError, Event, LinkId, OpToken};
use crate::flatten::Flattening;
use crate::index::load::IndexLoad;
use crate::index::{Loaded, Start};
use crate::journal::{Answer, Entry, Journal};
use crate::pending::Pending;
use crate::place::{DiskBlock, Place, Sequence};
use crate::queue::Waiting;
use crate::read::Reads;
use crate::reclaim::Reclaim;
use crate::recover::Recovery;
use crate::request::data_bytes;
use crate::ring::Ring;
use crate::scrub::Scrub;
use crate::session::{ReplyTo, Sessions};
use crate::status::Counters;
use crate::store::{Outcome, Store};
use crate::superblock::Superblock;
use ashlar_types::{BlockIndex, ByteOffset, Duration, Epoch, Instant, Lsn, Mutant, Slip, VolumeId};
use ashlar_wire::limits::REASON_BYTES_MAX;
use ashlar_wire::{Frame, Opened, Refusal, Reply, RequestFrame, Status};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;

/// Why a disk cannot be taken into service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    #[error("configuration: {0}")]
    Config(&'static str),
    #[error("the index belongs to another disk")]
    ForeignIndex,
    #[error("the index is damaged: {0}")]
    DamagedIndex(String),
}

/// What an operation that was asked for is about.
pub(crate) enum Op {
    Batch(Sequence),
    Direct(Sequence),
    Read {
        read: u64,
        piece: usize,
    },
    Apply {
        start: DiskBlock,
        sequences: Vec<Sequence>,
    },
    CheckpointFlush,
    CheckpointCommit,
    /// The index says that the journal goes on further.
    ReachCommit {
        reach: u64,
    },
    Scan {
        progress: u64,
        bytes: u64,
    },
    Verify {
        place: Place,
    },
    Reclaim {
        index: usize,
    },
    Flatten {
        run: Range<usize>,
    },
    Scrub {
        looks: Range<usize>,
    },
    /// What recovery has read is written again.
    Secure,
}

/// One disk: journal, slots and the replicas on it.
pub struct Engine {
    pub(crate) config: EngineConfig,
    pub(crate) superblock: Superblock,
    pub(crate) now: Instant,
    pub(crate) began: Instant,
    /// From then until it served.
    pub(crate) replay_took: Duration,
    pub(crate) store: Store,
    pub(crate) ring: Ring,
    pub(crate) journal: Journal,
    pub(crate) pending: Pending,
    pub(crate) sessions: Sessions,
    /// Requests that change something, in the order in which they came.
    pub(crate) waiting: VecDeque<Waiting>,
    /// Volumes whose deletion is on its way.
    pub(crate) deleting: BTreeSet<VolumeId>,
    pub(crate) reads: Reads,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) reclaim: Reclaim,
    pub(crate) flattening: Flattening,
    pub(crate) scrub: Scrub,
    /// Until recovery has ended, with the events that came meanwhile.
    pub(crate) recovery: Option<Recovery>,
    /// Only while `recovery` is under way.
    early: VecDeque<Event>,
    pub(crate) failed: Option<String>,
    ops: HashMap<OpToken, Op>,
    next_op: u64,
    pub(crate) counters: Counters,
}

impl Engine {
    /// `index` has been given everything that the index of the disk holds.
    pub fn new(config: EngineConfig, index: IndexLoad, now: Instant) -> Result<Engine, RecoverError> {
        if let Some(fault) = config.fault() {
            return Err(RecoverError::Config(fault));
        }
        let (superblock, loaded) = index.finish()?;
        let layout = superblock.layout;
        let (start, is_new) = (loaded.start.unwrap_or(Start::NEW), loaded.start.is_none());
        let is_damaged = !loaded.damaged_chunks.is_empty() || !loaded.damaged_slots.is_empty();
        let scrub = Scrub::new(loaded.round.clone(), now);
        let store = Engine::store_from(loaded, layout.slot_count);
        let last = Sequence(start.position.next_sequence.0 - 1);
        Ok(Engine {
            recovery: Some(Recovery::new(start, is_new, is_damaged, layout.journal.0)),
            config,
            superblock,
            now,
            began: now,
            replay_took: Duration::ZERO,
            store,
            ring: Ring::new(layout.journal.0, start.position),
            journal: Journal::new(last),
            pending: Pending::default(),
            sessions: Sessions::default(),
            waiting: VecDeque::new(),
            deleting: BTreeSet::new(),
            reads: Reads::default(),
            checkpoint: Checkpoint::new(last, now),
            reclaim: Reclaim::default(),
            flattening: Flattening::default(),
            scrub,
            early: VecDeque::new(),
            failed: None,
            ops: HashMap::new(),
            next_op: 0,
            counters: Counters::default(),
        })
    }

    fn store_from(loaded: Loaded, slot_count: u32) -> Store {
        let Loaded { volumes, damaged_chunks, damaged_slots, bad, .. } = loaded;
        let mut store = Store::new(volumes, slot_count);
        store.lost_blocks = 16 * damaged_slots.len() as u64;
        for (volume, chunk) in damaged_chunks {
            store.dirty.chunk(volume, chunk);
            store.void_return(volume);
        }
        damaged_slots.into_iter().for_each(|address| store.dirty.slot(address));
        for (address, blocks) in bad {
            store.note_bad(address, blocks);
        }
        store
    }

    /// Begins the replay of the journal. Called once, before the first event.
    pub fn start(&mut self, out: &mut Vec<Action>) {
        self.recover_step(out);
    }

    /// Handles one event; what is to be done about it is added to `out`.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        self.now = self.now.max(now);
        match event {
            Event::Request { .. }
            | Event::LinkClosed { .. }
            | Event::Delete { .. }
            | Event::Clone { .. }
            | Event::KeepPoints { .. }
                if self.recovery.is_some() =>
            {
                self.put_off(event, out);
            }
            event => self.dispatch(event, out),
        }
        self.advance(out);
    }

    /// When `Event::Tick` is due at the latest; `Instant::FAR` when only other events matter.
    pub fn next_deadline(&self) -> Instant {
        self.work_due().min(self.scrub_due()).min(self.scrub_save_due())
    }

    /// Nothing is to be done but to go on with scrub.
    pub fn is_idle(&self) -> bool {
        self.work_due() == Instant::FAR
    }

    fn work_due(&self) -> Instant {
        match () {
            _ if self.recovery.is_some() || self.failed.is_some() => Instant::FAR,
            _ if self.may_reclaim() || self.may_flatten() => self.now,
            _ => self.checkpoint_due(),
        }
    }

    /// Links, deletions and clones wait until recovery has ended.
    fn put_off(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Request { link, frame } if self.failed.is_some() => self.on_request(link, frame, out),
            Event::Request { link, frame } if !self.may_wait(&frame) => {
                self.close_link(link, out);
            }
            Event::Delete { op, .. } if self.failed.is_some() || self.early.len() >= EARLY_EVENTS_MAX => {
                let reason = self.failed.clone().unwrap_or_else(|| "the disk is still recovering".to_owned());
                out.push(Action::Deleted { op, result: Err(reason) });
            }
            Event::Clone { op, .. } if self.failed.is_some() || self.early.len() >= EARLY_EVENTS_MAX => {
                let failed = self.failed.is_some();
                let refusal = if failed { CloneRefusal::DiskFailed } else { CloneRefusal::Recovering };
                out.push(Action::Cloned { op, result: Err(refusal) });
            }
            Event::KeepPoints { op, .. } if self.failed.is_some() || self.early.len() >= EARLY_EVENTS_MAX => {
                let reason = self.failed.clone().unwrap_or_else(|| "the disk is still recovering".to_owned());
                out.push(Action::PointsKept { op, result: Err(reason) });
            }
            Event::LinkClosed { link } => self.forget_early(link),
            event => self.early.push_back(event),
        }
    }

    fn may_wait(&self, frame: &RequestFrame) -> bool {
        let weight = |early: &Event| match early {
            Event::Request { frame, .. } => data_bytes(&frame.message),
            _ => 0,
        };
        let waiting: usize = self.early.iter().map(weight).sum();
        self.early.len() < EARLY_EVENTS_MAX && waiting + data_bytes(&frame.message) <= EARLY_DATA_BYTES_MAX
    }

    pub(crate) fn handle_early(&mut self, out: &mut Vec<Action>) {
        assert!(self.recovery.is_none());
        while let Some(event) = self.early.pop_front() {
            self.dispatch(event, out);
        }
    }

    fn dispatch(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Request { link, frame } => self.on_request(link, frame, out),
            Event::LinkClosed { link } => self.end_link(link),
            Event::Delete { op, volume, epoch } => self.on_delete(op, volume, epoch, out),
            Event::Clone { op, volume, epoch, size, base } => self.on_clone(op, volume, (epoch, size, base), out),
            Event::KeepPoints { op, volume, epoch, kept } => self.on_keep_points(op, volume, epoch, kept, out),
            Event::ReadDone { op, result } => self.on_read_done(op, result, out),
            Event::WriteDone { op, result } => self.on_write_done(op, result, out),
            Event::Committed { op, result } => {
                let op = self.take_op(op);
                match result {
                    Ok(()) if self.failed.is_some() => {}
                    Ok(()) => self.on_committed(op, out),
                    Err(error) => self.fail(&format!("commit the index: {}", error.text), out),
                }
            }
            Event::Tick => {
                self.flatten_step(out);
                self.scrub_step(out);
            }
        }
    }

    /// Everything that can move moves.
    fn advance(&mut self, out: &mut Vec<Action>) {
        if self.recovery.is_some() {
            self.recover_step(out);
        }
        if self.failed.is_some() {
            return;
        }
        if self.recovery.is_none() {
            self.complete_batches(out);
            self.queue_merge();
            self.reclaim_step(out);
            self.queue_flatten();
            self.admit_waiting(out);
        }
        self.checkpoint_step(out);
    }

    fn on_read_done(&mut self, op: OpToken, result: Result<Bytes, DiskError>, out: &mut Vec<Action>) {
        match self.take_op(op) {
            Op::Read { read, piece } => self.read_piece_done(read, piece, result, out),
            Op::Scan { progress, bytes } => self.scan_read_done(progress, bytes, result),
            Op::Verify { place } => self.verify_read_done(place, result),
            Op::Reclaim { index } => self.reclaim_read_done(index, result),
            Op::Flatten { run } => self.flatten_read_done(run, result, out),
            Op::Scrub { looks } => self.scrub_read_done(looks, result, out),
            _ => panic!("{op:?} is no read"),
        }
    }

    fn on_write_done(&mut self, op: OpToken, result: Result<(), DiskError>, out: &mut Vec<Action>) {
        let op = self.take_op(op);
        if self.failed.is_some() {
            return;
        }
        let ignored = Mutant::JournalErrorIgnored.is_on() && matches!(op, Op::Batch(_));
        if result.is_err() && Mutant::FlushRetried.is_on() && matches!(op, Op::CheckpointFlush) {
            let op = self.begin_op(op);
            return out.push(Action::Flush { op });
        }
        if let Err(error) = result
            && !ignored
        {
            let what = match op {
                Op::Batch(_) => "write the journal",
                Op::Direct(_) => "write a slot",
                Op::Apply { .. } => "write in place",
                Op::Secure => "write again what was found",
                _ => "flush",
            };
            return self.fail(&format!("{what}: {}", error.text), out);
        }
        match op {
            Op::Batch(sequence) => self.journal.written(sequence),
            Op::Direct(sequence) => self.journal.direct_done(sequence),
            Op::Apply { start, sequences } => self.applied(start, &sequences),
            Op::CheckpointFlush => self.on_flushed(out),
            Op::Secure => self.secure_done(),
            _ => panic!("the operation is no write"),
        }
    }

    /// Applies and answers what became durable.
    fn complete_batches(&mut self, out: &mut Vec<Action>) {
        while let Some(batch) = self.journal.take_durable() {
            for entry in batch.entries {
                let outcome = self.store.apply(&entry.record, &entry.payload, batch.sequence);
                self.pending.settle(&entry.record, &entry.touched);
                self.answer(entry, outcome, out);
            }
            for to in batch.echoes {
                self.reply(to, Reply::Done, out);
            }
        }
    }

    fn answer(&mut self, entry: Entry, outcome: Outcome, out: &mut Vec<Action>) {
        match entry.answer {
            Answer::Nobody => {}
            Answer::Merged => self.merge_ended(),
            Answer::Flattened => self.flatten_ended(),
            Answer::Done(to) if outcome == Outcome::Done => self.reply(to, Reply::Done, out),
            Answer::Done(to) => self.refuse(to, Status::Incomplete, "something is stale or incomplete", out),
            Answer::Opened(to) => self.reply_opened(to, out),
            Answer::Deleted(op) => {
                self.deleting.remove(&entry.record.volume);
                let is_read = self.store.is_read(entry.record.volume);
                let deleted = if is_read { Deleted::Kept } else { Deleted::Gone };
                out.push(Action::Deleted { op, result: Ok(deleted) });
            }
            Answer::PointsKept(op) => out.push(Action::PointsKept { op, result: Ok(()) }),
            Answer::Cloned(op) => {
                let result = match outcome {
                    Outcome::Refused(refusal) => Err(refusal),
                    Outcome::Done | Outcome::Incomplete => Ok(()),
                };
                out.push(Action::Cloned { op, result });
            }
        }
    }

    pub(crate) fn reply_opened(&mut self, to: ReplyTo, out: &mut Vec<Action>) {
        let replica = self.store.replica(to.volume).expect("a volume that is open has a replica");
        // Incomplete as a whole: in the middle of a return, or after damage to the journal.
        let (commit, floor, syncing, last) = (replica.commit, replica.floor, replica.incomplete, replica.last());
        let early = Mutant::OpenFromVolatileState.is_on();
        let session_before = if early { replica.session } else { replica.session_before };
        let opened = Opened { commit, floor, syncing, last, agreed: replica.agreed, session_before };
        self.reply(to, Reply::Opened(opened), out);
    }

    pub(crate) fn reply(&mut self, to: ReplyTo, message: Reply, out: &mut Vec<Action>) {
        if self.sessions.settle(to) {
            self.send(to, message, out);
        }
    }

    pub(crate) fn refuse(&mut self, to: ReplyTo, status: Status, reason: &str, out: &mut Vec<Action>) {
        self.counters.refused += 1;
        self.reply(to, refusal(status, BlockIndex(0), reason), out);
    }

    /// Sends without settling: for links that have no session.
    pub(crate) fn send(&self, to: ReplyTo, message: Reply, out: &mut Vec<Action>) {
        let known = self.store.volumes.get(&to.volume);
        let (epoch, commit) = known.map_or((Epoch::NONE, Lsn::ZERO), |replica| (replica.promised, replica.commit));
        let frame = Frame { session: to.session, request: to.request, epoch, commit, message };
        out.push(Action::Reply { link: to.link, frame });
    }

    /// The disk's life as a replica ends: everything on its way is refused, nothing is written any more, reads go on.
    pub(crate) fn fail(&mut self, reason: &str, out: &mut Vec<Action>) {
        if self.failed.is_some() {
            return;
        }
        self.failed = Some(reason.to_owned());
        out.push(Action::Failed { reason: reason.to_owned() });
        for batch in self.journal.abandon() {
            for entry in batch.entries {
                match entry.answer {
                    Answer::Nobody | Answer::Merged | Answer::Flattened => {}
                    Answer::Done(to) | Answer::Opened(to) => self.refuse(to, Status::DiskFailed, reason, out),
                    Answer::Deleted(op) => out.push(Action::Deleted { op, result: Err(reason.to_owned()) }),
                    Answer::Cloned(op) => out.push(Action::Cloned { op, result: Err(CloneRefusal::DiskFailed) }),
                    Answer::PointsKept(op) => out.push(Action::PointsKept { op, result: Err(reason.to_owned()) }),
                }
            }
            for to in batch.echoes {
                self.refuse(to, Status::DiskFailed, reason, out);
            }
        }
        self.refuse_waiting(reason, out);
        // Nothing is put off any more, so this ends.
        while let Some(event) = self.early.pop_front() {
            self.put_off(event, out);
        }
    }

    pub(crate) fn begin_op(&mut self, op: Op) -> OpToken {
        let token = OpToken(self.next_op);
        self.next_op += 1;
        self.ops.insert(token, op);
        token
    }

    fn take_op(&mut self, op: OpToken) -> Op {
        self.ops.remove(&op).unwrap_or_else(|| panic!("{op:?} was never asked for, or has ended already"))
    }

    pub(crate) fn data_offset(&self) -> ByteOffset {
        self.superblock.layout.data_offset
    }

    /// Places that first-touch writes must leave.
    pub(crate) fn reserve_slots(&self) -> u32 {
        let part = u64::from(self.store.places.count()) * u64::from(self.config.reserve_permille) / 1000;
        (part as u32).max(RESERVE_SLOTS_MIN)
    }

    /// What the link has asked for during recovery is not served: nobody is there to hear of it.
    fn forget_early(&mut self, link: LinkId) {
        self.early.retain(|early| !matches!(early, Event::Request { link: other, .. } if *other == link));
    }

    pub(crate) fn close_link(&mut self, link: LinkId, out: &mut Vec<Action>) {
        self.end_link(link);
        if !Slip::ClosedLinkServed.is_on() {
            self.forget_early(link);
        }
        self.counters.links_closed += 1;
        out.push(Action::CloseLink { link });
    }
}

/// A refusal whose reason fits the wire.
pub(crate) fn refusal(status: Status, block: BlockIndex, reason: &str) -> Reply {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    Reply::Refused(Refusal { status, block, reason: reason[..end].to_owned() })
}
