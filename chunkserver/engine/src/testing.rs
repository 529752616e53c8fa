//! A disk in memory for this crate's tests: what is visible, what is durable, what is under way; and a power switch.
//!
//! Crash model: a durable write is on the media when it is done; another write when a flush that began after its end
//! is done. At a crash every write that is not on the media leaves each of its 512-byte sectors or does not, at
//! random.

use crate::{
    Action, CloneRefusal, Deleted, DiskError, DiskLayout, Engine, EngineConfig, Event, IndexEdit, IndexLoad, LinkId,
    OpToken, Superblock,
};
use ashlar_types::{
    BLOCK_BYTES, Base, BlockCount, BlockIndex, ByteCount, ChunkIndex, ChunkRange, ClusterId, Crc32, DiskId, Duration,
    Epoch, Instant, Kept, Lsn, RequestId, SessionId, SlotIndex, VolumeId,
};
use ashlar_wire::{BlockData, Frame, Open, Opened, Reply, ReplyFrame, Request, Status};
use bytes::Bytes;
use std::collections::BTreeMap;

pub(crate) const PAGE: usize = BLOCK_BYTES as usize;
const SECTOR: usize = 512;
const JOURNAL_BYTES: u64 = 8 << 20;

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// The media, and the durable index.
#[derive(Clone)]
pub(crate) struct Media {
    pub(crate) superblock: Superblock,
    pub(crate) bytes: Vec<u8>,
    pub(crate) index: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) media: Media,
    /// What reads see: the media and every write that ended.
    live: Vec<u8>,
    /// Ended, not flushed.
    unflushed: Vec<(u64, Vec<u8>)>,
    pub(crate) in_flight: Vec<Action>,
    /// How many of `unflushed` each flush under way covers.
    covers: BTreeMap<OpToken, usize>,
    pub(crate) replies: Vec<(LinkId, ReplyFrame)>,
    pub(crate) closed: Vec<LinkId>,
    pub(crate) deleted: Vec<Result<Deleted, String>>,
    pub(crate) cloned: Vec<Result<(), CloneRefusal>>,
    pub(crate) points_kept: Vec<Result<(), String>>,
    /// By scrub: blocks, and rounds with their slots and blocks.
    pub(crate) found: Vec<(VolumeId, ChunkIndex, SlotIndex, u16)>,
    pub(crate) rounds: Vec<(u64, u64)>,
    pub(crate) recovered: Option<(u64, u64)>,
    pub(crate) failed: Option<String>,
    pub(crate) now: Instant,
    next_request: u64,
    epochs: BTreeMap<LinkId, Epoch>,
}

pub(crate) fn config() -> EngineConfig {
    EngineConfig { idle_delay: Duration::from_millis(50), ..EngineConfig::default() }
}

impl Media {
    pub(crate) fn format(slots: u64) -> Media {
        let total = (1 << 20) + JOURNAL_BYTES + slots * ashlar_types::SLOT_BYTES;
        let layout = DiskLayout::new(ByteCount(total), ByteCount(JOURNAL_BYTES)).unwrap();
        let superblock = Superblock { cluster: ClusterId::from_u128(1), disk: DiskId::from_u128(2), layout };
        Media { superblock, bytes: vec![0; total as usize], index: BTreeMap::new() }
    }

    fn edit(&mut self, edits: Vec<IndexEdit>) {
        for edit in edits {
            match edit {
                IndexEdit::Put { key, value } => drop(self.index.insert(key, value)),
                IndexEdit::Delete { key } => drop(self.index.remove(&key)),
                IndexEdit::DeleteRange { from, until } => self.index.retain(|key, _| *key < from || *key >= until),
            }
        }
    }
}

impl Rig {
    /// A new disk, recovered.
    pub(crate) fn format(slots: u64) -> Rig {
        let mut rig = Rig::start(Media::format(slots));
        rig.settle();
        rig
    }

    /// Starts on the media; recovery is under way.
    pub(crate) fn start(media: Media) -> Rig {
        Rig::start_with(media, config())
    }

    pub(crate) fn start_with(media: Media, config: EngineConfig) -> Rig {
        let index = IndexLoad::of(media.superblock, &media.index);
        let now = Instant::from_nanos(1_000_000_000);
        let mut engine = Engine::new(config, index, now).unwrap();
        let mut out = Vec::new();
        engine.start(&mut out);
        let live = media.bytes.clone();
        let mut rig = Rig {
            engine,
            media,
            live,
            unflushed: vec![],
            in_flight: vec![],
            covers: BTreeMap::new(),
            replies: vec![],
            closed: vec![],
            deleted: vec![],
            cloned: vec![],
            points_kept: vec![],
            found: vec![],
            rounds: vec![],
            recovered: None,
            failed: None,
            now,
            next_request: 0,
            epochs: BTreeMap::new(),
        };
        rig.take(out);
        rig
    }

    pub(crate) fn handle(&mut self, event: Event) {
        let mut out = Vec::new();
        self.engine.handle(self.now, event, &mut out);
        self.take(out);
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Reply { link, frame } => self.replies.push((link, frame)),
                Action::CloseLink { link } => self.closed.push(link),
                Action::Deleted { result, .. } => self.deleted.push(result),
                Action::Cloned { result, .. } => self.cloned.push(result),
                Action::PointsKept { result, .. } => self.points_kept.push(result),
                Action::Recovered { replayed_records, lost_blocks } => {
                    self.recovered = Some((replayed_records, lost_blocks));
                }
                Action::ScrubFound { volume, chunk, slot, blocks } => self.found.push((volume, chunk, slot, blocks)),
                Action::ScrubEnded { slots, found_blocks } => self.rounds.push((slots, found_blocks)),
                Action::Failed { reason } => self.failed = Some(reason),
                Action::Flush { op } => {
                    self.covers.insert(op, self.unflushed.len());
                    self.in_flight.push(action);
                }
                action => self.in_flight.push(action),
            }
        }
    }

    /// Ends one operation well.
    pub(crate) fn complete(&mut self, at: usize) {
        let event = match self.in_flight.remove(at) {
            Action::Read { op, offset, bytes } => {
                let range = offset.0 as usize..(offset.0 + bytes.0) as usize;
                Event::ReadDone { op, result: Ok(Bytes::copy_from_slice(&self.live[range])) }
            }
            Action::Write { op, offset, parts, durable } => {
                let data = parts.concat();
                let range = offset.0 as usize..offset.0 as usize + data.len();
                assert!(offset.0.is_multiple_of(BLOCK_BYTES) && parts.iter().all(|part| part.len() % PAGE == 0));
                self.live[range.clone()].copy_from_slice(&data);
                match durable {
                    true => self.media.bytes[range].copy_from_slice(&data),
                    false => self.unflushed.push((offset.0, data)),
                }
                Event::WriteDone { op, result: Ok(()) }
            }
            Action::Flush { op } => {
                let covered = self.covers.remove(&op).unwrap();
                for (offset, data) in self.unflushed.drain(..covered) {
                    self.media.bytes[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
                }
                Event::WriteDone { op, result: Ok(()) }
            }
            Action::Commit { op, edits } => {
                self.media.edit(edits);
                Event::Committed { op, result: Ok(()) }
            }
            action => panic!("{action:?} is no operation"),
        };
        self.handle(event);
    }

    /// Ends one operation badly.
    pub(crate) fn break_op(&mut self, at: usize) {
        let error = || DiskError { text: "input/output error".to_owned() };
        let event = match self.in_flight.remove(at) {
            Action::Read { op, .. } => Event::ReadDone { op, result: Err(error()) },
            Action::Write { op, .. } | Action::Flush { op } => Event::WriteDone { op, result: Err(error()) },
            Action::Commit { op, .. } => Event::Committed { op, result: Err(error()) },
            action => panic!("{action:?} is no operation"),
        };
        self.handle(event);
    }

    /// Ends everything that is under way, and what follows from it.
    pub(crate) fn settle(&mut self) {
        while !self.in_flight.is_empty() {
            self.complete(0);
        }
    }

    /// The same, where the page at this offset cannot be read.
    pub(crate) fn settle_but_for(&mut self, bad: usize) {
        while !self.in_flight.is_empty() {
            let covers = match &self.in_flight[0] {
                Action::Read { offset, bytes, .. } => (offset.0..offset.0 + bytes.0).contains(&(bad as u64)),
                _ => false,
            };
            if covers { self.break_op(0) } else { self.complete(0) }
        }
    }

    /// Lets time pass until nothing is left to do: the checkpoint is done.
    pub(crate) fn rest(&mut self) {
        self.settle();
        while !self.engine.is_idle() {
            self.now = self.now.max(self.engine.next_deadline());
            self.handle(Event::Tick);
            self.settle();
        }
    }

    /// Power fails.
    pub(crate) fn crash(mut self, random: &mut Random) -> Media {
        let mut lost = std::mem::take(&mut self.unflushed);
        for action in std::mem::take(&mut self.in_flight) {
            match action {
                Action::Write { offset, parts, .. } => lost.push((offset.0, parts.concat())),
                Action::Commit { edits, .. } if random.below(2) == 0 => self.media.edit(edits),
                _ => {}
            }
        }
        for (offset, data) in lost {
            let fate = random.below(3);
            for (i, sector) in data.chunks(SECTOR).enumerate() {
                if fate == 0 || fate == 1 && random.below(2) == 0 {
                    let at = offset as usize + i * SECTOR;
                    self.media.bytes[at..at + SECTOR].copy_from_slice(sector);
                }
            }
        }
        self.media
    }

    /// The process dies and a new one starts; the power stays on. What was under way is in the device's cache, and
    /// not safe there.
    pub(crate) fn die(mut self, config: EngineConfig) -> Rig {
        for action in std::mem::take(&mut self.in_flight) {
            if let Action::Write { offset, parts, .. } = action {
                let data = parts.concat();
                self.live[offset.0 as usize..offset.0 as usize + data.len()].copy_from_slice(&data);
                self.unflushed.push((offset.0, data));
            }
        }
        let mut rig = Rig::start_with(self.media, config);
        (rig.live, rig.unflushed) = (self.live, self.unflushed);
        rig
    }

    /// A flush has failed: what it should have covered is readable and counts as clean, no later flush brings it.
    pub(crate) fn lose_the_cache(&mut self) {
        self.unflushed.clear();
    }

    /// The process ends; what was written stays, what was under way does not come.
    pub(crate) fn stop(mut self) -> Media {
        for (offset, data) in std::mem::take(&mut self.unflushed) {
            self.media.bytes[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
        }
        self.media
    }

    pub(crate) fn flip(&mut self, at: usize) {
        self.live[at] ^= 1;
        self.media.bytes[at] ^= 1;
    }

    pub(crate) fn open_request(&self) -> Request {
        let Superblock { cluster, disk, .. } = self.media.superblock;
        Request::Open(Open { cluster, disk, volume: volume(), size: ByteCount(1 << 30), served: Epoch::NONE })
    }

    /// Sends without waiting; returns the request's number.
    pub(crate) fn send(&mut self, link: u64, message: Request) -> RequestId {
        self.send_frame(link, Lsn::ZERO, message)
    }

    pub(crate) fn send_frame(&mut self, link: u64, commit: Lsn, message: Request) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let link = LinkId(link);
        let epoch = self.epochs.get(&link).copied().unwrap_or_default();
        let frame = Frame { session: SessionId(link.0), request, epoch, commit, message };
        self.handle(Event::Request { link, frame });
        request
    }

    pub(crate) fn send_open(&mut self, link: u64, epoch: u32) -> RequestId {
        self.epochs.insert(LinkId(link), Epoch::new(epoch).unwrap());
        let open = self.open_request();
        self.send(link, open)
    }

    /// Opens any volume, of 1 GiB, and expects it to work.
    pub(crate) fn opened_volume(&mut self, link: u64, epoch: u32, volume: VolumeId) -> Opened {
        let Superblock { cluster, disk, .. } = self.media.superblock;
        let open = Open { cluster, disk, volume, size: ByteCount(1 << 30), served: Epoch::NONE };
        match self.ask_as(link, epoch, Request::Open(open)) {
            Reply::Opened(opened) => opened,
            reply => panic!("{reply:?}"),
        }
    }

    /// Has a clone made, of 1 GiB.
    pub(crate) fn make_clone(&mut self, volume: VolumeId, epoch: u32, base: Base) -> Result<(), CloneRefusal> {
        self.next_request += 1;
        let (op, epoch) = (OpToken(self.next_request), Epoch::new(epoch).unwrap());
        self.handle(Event::Clone { op, volume, epoch, size: ByteCount(1 << 30), base });
        self.settle();
        self.cloned.pop().expect("an answer")
    }

    pub(crate) fn delete(&mut self, volume: VolumeId, epoch: u32) -> Result<Deleted, String> {
        self.next_request += 1;
        let (op, epoch) = (OpToken(self.next_request), Epoch::new(epoch).unwrap());
        self.handle(Event::Delete { op, volume, epoch });
        self.settle();
        self.deleted.pop().expect("an answer")
    }

    /// The control plane's word about a volume that nobody has open.
    pub(crate) fn keep_points(&mut self, volume: VolumeId, epoch: u32, live: &[Lsn], until: Lsn) -> Result<(), String> {
        self.next_request += 1;
        let (op, epoch) = (OpToken(self.next_request), Epoch::new(epoch).unwrap());
        self.handle(Event::KeepPoints { op, volume, epoch, kept: Kept { live: live.to_vec(), until } });
        self.settle();
        self.points_kept.pop().expect("an answer")
    }

    /// What the volume shows where it has nothing itself.
    pub(crate) fn base_of(&self, volume: VolumeId) -> Option<Base> {
        let replicas = self.engine.status().replicas;
        replicas.iter().find(|replica| replica.volume == volume).expect("the volume is here").base
    }

    /// Some of what is to be done happens, in any order.
    pub(crate) fn go_on(&mut self, steps: u64, random: &mut Random) {
        for _ in 0..steps {
            let any = random.below(self.in_flight.len().max(1) as u64);
            self.step_to(any as usize);
        }
    }

    /// What was asked for first ends, or time passes.
    pub(crate) fn step(&mut self) {
        self.step_to(0);
    }

    fn step_to(&mut self, at: usize) {
        match self.in_flight.is_empty() {
            true if self.engine.next_deadline() == Instant::FAR => {}
            true => {
                self.now = self.now.max(self.engine.next_deadline());
                self.handle(Event::Tick);
            }
            false => self.complete(at),
        }
    }

    /// Nothing is under way and nothing is left to do.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.in_flight.is_empty() && self.recovered.is_some() && self.engine.is_idle()
    }

    /// Sends as a writer of that epoch, and waits for the answer.
    pub(crate) fn ask_as(&mut self, link: u64, epoch: u32, message: Request) -> Reply {
        self.epochs.insert(LinkId(link), Epoch::new(epoch).unwrap());
        self.ask(link, message)
    }

    pub(crate) fn answer_to(&self, request: RequestId) -> Option<&Reply> {
        self.replies.iter().find(|(_, frame)| frame.request == request).map(|(_, frame)| &frame.message)
    }

    /// Changes that were answered well so far.
    pub(crate) fn answers(&self) -> usize {
        self.replies.iter().filter(|(_, frame)| frame.message == Reply::Done).count()
    }

    /// Sends and waits for the answer.
    pub(crate) fn ask(&mut self, link: u64, message: Request) -> Reply {
        let request = self.send(link, message);
        self.settle();
        self.answer_to(request).expect("an answer").clone()
    }

    pub(crate) fn open(&mut self, link: u64, epoch: u32) -> Reply {
        let request = self.send_open(link, epoch);
        self.settle();
        self.answer_to(request).expect("an answer").clone()
    }

    /// Opens and expects it to work.
    pub(crate) fn opened(&mut self, link: u64, epoch: u32) {
        let reply = self.open(link, epoch);
        assert!(matches!(reply, Reply::Opened(_)), "{reply:?}");
    }

    pub(crate) fn write(&mut self, link: u64, message: Request) {
        assert_eq!(self.ask(link, message), Reply::Done);
    }

    /// Reads `count` blocks and checks that each is filled with one of the given bytes.
    pub(crate) fn expect(&mut self, link: u64, start: u64, fills: &[u8]) {
        let reply = self.ask(link, Request::Read { range: range(start, fills.len() as u32), below: Lsn::MAX });
        let Reply::Data(blocks) = reply else { panic!("{reply:?}") };
        for (i, &fill) in fills.iter().enumerate() {
            let block = &blocks.data[i * PAGE..(i + 1) * PAGE];
            assert!(block.iter().all(|&byte| byte == fill), "block {} has {} not {fill}", start + i as u64, block[0]);
            assert_eq!(blocks.crcs[i], Crc32::of(block));
        }
    }

    pub(crate) fn refused(&mut self, link: u64, message: Request) -> Status {
        match self.ask(link, message) {
            Reply::Refused(refusal) => refusal.status,
            reply => panic!("{reply:?} is no refusal"),
        }
    }

    /// Positions in `in_flight` of the writes into the journal.
    pub(crate) fn journal_writes(&self) -> Vec<usize> {
        let layout = self.media.superblock.layout;
        let ring = layout.journal_offset.0..layout.data_offset.0;
        let is_journal = |action: &Action| matches!(action, Action::Write { offset, .. } if ring.contains(&offset.0));
        (0..self.in_flight.len()).filter(|&i| is_journal(&self.in_flight[i])).collect()
    }

    /// Positions in `in_flight` of the writes into slots.
    pub(crate) fn slot_writes(&self) -> Vec<usize> {
        let data = self.media.superblock.layout.data_offset.0;
        let is_slot = |action: &Action| matches!(action, Action::Write { offset, .. } if offset.0 >= data);
        (0..self.in_flight.len()).filter(|&i| is_slot(&self.in_flight[i])).collect()
    }
}

pub(crate) fn volume() -> VolumeId {
    VolumeId::from_u128(0xA1)
}

pub(crate) fn range(start: u64, count: u32) -> ChunkRange {
    let per_chunk = u64::from(ashlar_types::BLOCKS_PER_CHUNK);
    ChunkRange {
        chunk: ChunkIndex((start / per_chunk) as u32),
        start: BlockIndex(start % per_chunk),
        count: BlockCount(count),
    }
}

pub(crate) fn lsn(epoch: u32, counter: u64) -> Lsn {
    Lsn::from_raw(Lsn::start_of(Epoch::new(epoch).unwrap()).raw() + counter)
}

/// Blocks each filled with one byte.
pub(crate) fn blocks(fills: &[u8]) -> BlockData {
    let data: Vec<u8> = fills.iter().flat_map(|&fill| [fill; PAGE]).collect();
    BlockData { crcs: Crc32::of_blocks(&data).collect(), data: data.into() }
}

pub(crate) fn write(start: u64, fills: &[u8], lsn: Lsn) -> Request {
    Request::Write { range: range(start, fills.len() as u32), lsn, floor: Lsn::ZERO, blocks: blocks(fills) }
}

pub(crate) fn discard(start: u64, count: u32, lsn: Lsn) -> Request {
    Request::Discard { range: range(start, count), lsn, floor: Lsn::ZERO }
}
