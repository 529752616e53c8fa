//! One engine on one disk: what the chunkserver's shell does, one operation at a time.

use crate::disk::{Disk, Durable, Lie};
use ashlar_engine::{Action, DiskLayout, Engine, EngineConfig, Event, IndexLoad, LinkId, OpToken, Superblock};
use ashlar_types::{
    Base, ByteCount, CHUNK_BYTES, ClusterId, DiskId, Duration, Epoch, Instant, Lsn, RequestId, SLOT_BYTES, SessionId,
    VolumeId,
};
use ashlar_wire::{Frame, Open, Reply, Request};
use std::collections::BTreeMap;

const JOURNAL_BYTES: u64 = 8 << 20;
/// Chunks of each volume.
pub const CHUNKS: u32 = 2;

/// What all runs have in common: the disk's size and the engine's tuning.
#[derive(Clone, Debug)]
pub struct Setup {
    pub slots: u64,
    pub config: EngineConfig,
}

impl Setup {
    pub fn new(slots: u64) -> Setup {
        let config = EngineConfig {
            idle_delay: Duration::from_millis(50),
            recover_read_bytes: 64 << 10,
            ..EngineConfig::default()
        };
        Setup { slots, config }
    }

    fn superblock(&self) -> Superblock {
        let total = (1 << 20) + JOURNAL_BYTES + self.slots * SLOT_BYTES;
        let layout = DiskLayout::new(ByteCount(total), ByteCount(JOURNAL_BYTES)).expect("a sound layout");
        Superblock { cluster: ClusterId::from_u128(1), disk: DiskId::from_u128(2), layout }
    }
}

pub fn volume_id(volume: u8) -> VolumeId {
    VolumeId::from_u128(u128::from(volume) + 1)
}

pub struct Rig {
    pub setup: Setup,
    pub disk: Disk,
    pub engine: Engine,
    pub in_flight: Vec<Action>,
    pub recovered: Option<(u64, u64)>,
    pub failed: Option<String>,
    /// Answers by request; `None` for a deletion or a clone that was done.
    pub answers: BTreeMap<u64, Option<Reply>>,
    epochs: BTreeMap<u64, Epoch>,
    next_request: u64,
    now: Instant,
}

impl Rig {
    /// Starts on what a cut left; recovery is under way.
    pub fn start(setup: &Setup, durable: Durable, lie: Lie) -> Rig {
        let index = IndexLoad::of(setup.superblock(), &durable.index);
        let now = Instant::from_nanos(1_000_000_000);
        let mut engine = Engine::new(setup.config.clone(), index, now).expect("the disk is its own");
        let mut out = Vec::new();
        engine.start(&mut out);
        let mut rig = Rig {
            setup: setup.clone(),
            disk: Disk::new(durable, lie),
            engine,
            in_flight: Vec::new(),
            recovered: None,
            failed: None,
            answers: BTreeMap::new(),
            epochs: BTreeMap::new(),
            next_request: 0,
            now,
        };
        rig.take(out);
        rig
    }

    fn handle(&mut self, event: Event) {
        let mut out = Vec::new();
        self.engine.handle(self.now, event, &mut out);
        self.take(out);
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Reply { frame, .. } => drop(self.answers.insert(frame.request.0, Some(frame.message))),
                Action::Deleted { op, result } => {
                    result.expect("the replica may be deleted");
                    self.answers.insert(op.0, None);
                }
                Action::Cloned { op, result } => {
                    result.expect("the clone may be made");
                    self.answers.insert(op.0, None);
                }
                Action::PointsKept { op, result } => {
                    result.expect("nobody has the volume open");
                    self.answers.insert(op.0, None);
                }
                Action::Recovered { replayed_records, lost_blocks } => {
                    self.recovered = Some((replayed_records, lost_blocks))
                }
                Action::Failed { reason } => self.failed = Some(reason),
                Action::CloseLink { .. } => {}
                Action::Flush { op } => {
                    self.disk.note_flush(op);
                    self.in_flight.push(action);
                }
                action => self.in_flight.push(action),
            }
        }
    }

    /// Ends one operation.
    pub fn complete(&mut self, at: usize) {
        let event = match self.in_flight.remove(at) {
            Action::Read { op, offset, bytes } => Event::ReadDone { op, result: Ok(self.disk.read(offset.0, bytes.0)) },
            Action::Write { op, offset, parts, durable } => {
                self.disk.write(offset.0, &parts, durable);
                Event::WriteDone { op, result: Ok(()) }
            }
            Action::Flush { op } => {
                self.disk.flush(op);
                Event::WriteDone { op, result: Ok(()) }
            }
            Action::Commit { op, edits } => {
                self.disk.durable.edit(&edits);
                Event::Committed { op, result: Ok(()) }
            }
            action => unreachable!("{action:?} is no operation"),
        };
        self.handle(event);
    }

    /// Ends everything that is under way, and what follows from it.
    pub fn settle(&mut self) {
        while !self.in_flight.is_empty() {
            self.complete(0);
        }
    }

    /// Lets time pass to the engine's next deadline; false if there is none.
    pub fn tick(&mut self) -> bool {
        let due = self.engine.next_deadline();
        if due == Instant::FAR {
            return false;
        }
        self.now = self.now.max(due);
        self.handle(Event::Tick);
        true
    }

    /// Until nothing is left to do: the checkpoint is done.
    pub fn rest(&mut self) {
        self.settle();
        while self.tick() {
            self.settle();
        }
    }

    /// Sends without waiting; returns the request's number. An `Open` sets the link's epoch.
    pub fn send(&mut self, link: u64, epoch: Option<Epoch>, message: Request) -> u64 {
        self.next_request += 1;
        if let Some(epoch) = epoch {
            self.epochs.insert(link, epoch);
        }
        let epoch = self.epochs.get(&link).copied().unwrap_or(Epoch::NONE);
        let request = RequestId(self.next_request);
        let frame = Frame { session: SessionId(link), request, epoch, commit: Lsn::ZERO, message };
        self.handle(Event::Request { link: LinkId(link), frame });
        self.next_request
    }

    pub fn delete(&mut self, volume: u8, epoch: Epoch) -> u64 {
        self.next_request += 1;
        self.handle(Event::Delete { op: OpToken(self.next_request), volume: volume_id(volume), epoch });
        self.next_request
    }

    pub fn make_clone(&mut self, volume: u8, epoch: Epoch, base: Base) -> u64 {
        self.next_request += 1;
        let (op, size) = (OpToken(self.next_request), ByteCount(u64::from(CHUNKS) * CHUNK_BYTES));
        self.handle(Event::Clone { op, volume: volume_id(volume), epoch, size, base });
        self.next_request
    }

    /// Sends and waits for the answer.
    pub fn ask(&mut self, link: u64, epoch: Option<Epoch>, message: Request) -> Option<Reply> {
        let request = self.send(link, epoch, message);
        self.settle();
        self.answers.remove(&request).flatten()
    }

    pub fn open(&self, volume: u8) -> Open {
        let Superblock { cluster, disk, .. } = self.setup.superblock();
        let size = ByteCount(u64::from(CHUNKS) * CHUNK_BYTES);
        Open { cluster, disk, volume: volume_id(volume), size, served: Epoch::NONE }
    }
}
