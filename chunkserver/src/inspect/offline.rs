//! An engine without a process: reads come from the disk, writes stay in memory, commits go nowhere.
//!
//! Memory: at most what replay and one checkpoint write, which the journal's size bounds.

use crate::Error;
use crate::disk::{Medium, OpenDisk};
use ashlar_engine::{Action, DiskError, Engine, EngineConfig, EngineStatus, Event, LinkId};
use ashlar_reactor::BufferPool;
use ashlar_types::{
    BLOCK_BYTES, BLOCKS_PER_SLOT, BlockCount, BlockIndex, ByteCount, ByteOffset, ChunkIndex, ChunkRange, ClusterId,
    Crc32, DiskId, Epoch, FloorRange, Instant, Lsn, RequestId, SessionId, SlotIndex, VolumeId,
};
use ashlar_wire::{ChangedSlots, Open, Reply, Request, RequestFrame, SlotContent};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::os::unix::fs::FileExt;

const LINK: LinkId = LinkId(1);
const SESSION: SessionId = SessionId(1);
const POOL_BYTES_MAX: usize = 8 << 20;

/// What a block of a replica is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Checksum of the content that was read.
    Content(Crc32),
    /// Content and checksum differ, or the medium gives nothing.
    Unreadable,
}

pub(crate) struct Offline {
    engine: Engine,
    medium: Medium,
    pool: BufferPool,
    cluster: ClusterId,
    disk: DiskId,
    now: Instant,
    actions: Vec<Action>,
    work: VecDeque<Action>,
    /// Blocks that the engine has written, by their offset on the disk.
    written: HashMap<u64, Bytes>,
    reply: Option<Reply>,
    requests: u64,
    pub(crate) replayed_records: u64,
    pub(crate) lost_blocks: u64,
    recovered: bool,
}

impl Offline {
    /// Replays the journal in memory.
    pub(crate) fn recover(disk: OpenDisk) -> Result<Offline, Error> {
        let OpenDisk { paths, medium, superblock, rows, index: _ } = disk;
        let engine = Engine::new(EngineConfig::default(), rows, Instant::ZERO)
            .map_err(|source| Error::Recover { path: paths.disk, source })?;
        let mut offline = Offline {
            engine,
            medium,
            pool: BufferPool::new(POOL_BYTES_MAX),
            cluster: superblock.cluster,
            disk: superblock.disk,
            now: Instant::ZERO,
            actions: Vec::new(),
            work: VecDeque::new(),
            written: HashMap::new(),
            reply: None,
            requests: 0,
            replayed_records: 0,
            lost_blocks: 0,
            recovered: false,
        };
        offline.engine.start(&mut offline.actions);
        offline.settle();
        while !offline.recovered {
            let due = offline.engine.next_deadline();
            if due == Instant::FAR {
                let status = offline.engine.status();
                let reason = status.failed.unwrap_or_else(|| "it stands still".to_owned());
                return Err(Error::Inspect(format!("the journal cannot be replayed: {reason}")));
            }
            offline.now = offline.now.max(due);
            offline.event(Event::Tick);
        }
        Ok(offline)
    }

    pub(crate) fn status(&self) -> EngineStatus {
        self.engine.status()
    }

    /// Every block of the volume that was ever written, in order, with the checksum of its content as it is read now.
    pub(crate) fn each_block(
        &mut self,
        volume: VolumeId,
        mut found: impl FnMut(BlockIndex, Block),
    ) -> Result<(), Error> {
        let open = Open { cluster: self.cluster, disk: self.disk, volume, size: ByteCount(0), served: Epoch::NONE };
        self.expect_opened(open)?;
        let mut from = Some(ChunkIndex(0));
        while let Some(chunk) = from {
            let request = Request::ListChanged {
                from: chunk,
                until: ChunkIndex(u32::MAX),
                after: Lsn::ZERO,
                floors: FloorRange::ALL,
            };
            let (entries, next) = match self.ask(request)? {
                Reply::Changed { entries, next } => (entries, next),
                other => return Err(unexpected("list the slots", &other)),
            };
            for ChangedSlots { chunk, slots, .. } in entries {
                for slot in slots.iter() {
                    self.each_block_of(chunk, slot, &mut found)?;
                }
            }
            from = next;
        }
        self.event(Event::LinkClosed { link: LINK });
        Ok(())
    }

    fn expect_opened(&mut self, open: Open) -> Result<(), Error> {
        match self.ask(Request::Observe(open))? {
            Reply::Opened(_) => Ok(()),
            other => Err(unexpected("open the replica", &other)),
        }
    }

    fn each_block_of(
        &mut self,
        chunk: ChunkIndex,
        slot: SlotIndex,
        found: &mut impl FnMut(BlockIndex, Block),
    ) -> Result<(), Error> {
        let first = slot.first_block();
        let in_volume = |block: u32| BlockIndex(chunk.first_block().0 + first.0 + u64::from(block));
        match self.ask(Request::ReadSlot { chunk, slot, floors: FloorRange::ALL })? {
            Reply::Slot(SlotContent { valid, blocks, .. }) => {
                let written = (0..BLOCKS_PER_SLOT).filter(|block| valid & (1 << block) != 0);
                // The content's own checksums, not those that the index holds.
                for (block, crc) in written.zip(Crc32::of_blocks(&blocks.data)) {
                    found(in_volume(block), Block::Content(crc));
                }
            }
            Reply::Refused(_) => {
                for block in 0..BLOCKS_PER_SLOT {
                    let start = BlockIndex(first.0 + u64::from(block));
                    let range = ChunkRange { chunk, start, count: BlockCount(1) };
                    let content = match self.ask(Request::Read { range, below: Lsn::MAX })? {
                        Reply::Data(blocks) => Block::Content(Crc32::of(&blocks.data)),
                        _ => Block::Unreadable,
                    };
                    found(in_volume(block), content);
                }
            }
            other => return Err(unexpected("read a slot", &other)),
        }
        Ok(())
    }

    fn ask(&mut self, message: Request) -> Result<Reply, Error> {
        self.requests += 1;
        let request = RequestId(self.requests);
        let frame = RequestFrame { session: SESSION, request, epoch: Epoch::NONE, commit: Lsn::ZERO, message };
        self.reply = None;
        self.event(Event::Request { link: LINK, frame });
        self.reply.take().ok_or_else(|| Error::Inspect("the engine does not answer".to_owned()))
    }

    fn event(&mut self, event: Event) {
        self.engine.handle(self.now, event, &mut self.actions);
        self.settle();
    }

    /// Does what the engine asks for until it asks for nothing more.
    fn settle(&mut self) {
        loop {
            self.work.extend(self.actions.drain(..));
            let Some(action) = self.work.pop_front() else { return };
            let event = match action {
                Action::Read { op, offset, bytes } => Event::ReadDone { op, result: self.read(offset, bytes) },
                Action::Write { op, offset, parts, .. } => {
                    self.write(offset, &parts);
                    Event::WriteDone { op, result: Ok(()) }
                }
                Action::Flush { op } => Event::WriteDone { op, result: Ok(()) },
                Action::Commit { op, .. } => Event::Committed { op, result: Ok(()) },
                Action::Reply { frame, .. } => {
                    self.reply = Some(frame.message);
                    continue;
                }
                Action::Recovered { replayed_records, lost_blocks } => {
                    (self.replayed_records, self.lost_blocks, self.recovered) = (replayed_records, lost_blocks, true);
                    continue;
                }
                Action::CloseLink { .. } | Action::ScrubFound { .. } | Action::ScrubEnded { .. } => continue,
                Action::Deleted { .. } | Action::Cloned { .. } | Action::PointsKept { .. } | Action::Failed { .. } => {
                    continue;
                }
            };
            self.engine.handle(self.now, event, &mut self.actions);
        }
    }

    fn read(&self, offset: ByteOffset, bytes: ByteCount) -> Result<Bytes, DiskError> {
        let mut buffer = self.pool.take(bytes.0 as usize);
        self.medium
            .file()
            .read_exact_at(&mut buffer, offset.0)
            .map_err(|error| DiskError { text: error.to_string() })?;
        for (number, block) in buffer.chunks_exact_mut(BLOCK_BYTES as usize).enumerate() {
            if let Some(written) = self.written.get(&(offset.0 + number as u64 * BLOCK_BYTES)) {
                block.copy_from_slice(written);
            }
        }
        Ok(buffer.freeze())
    }

    fn write(&mut self, offset: ByteOffset, parts: &[Bytes]) {
        let mut at = offset.0;
        for part in parts {
            for start in (0..part.len()).step_by(BLOCK_BYTES as usize) {
                self.written.insert(at, part.slice(start..start + BLOCK_BYTES as usize));
                at += BLOCK_BYTES;
            }
        }
    }
}

fn unexpected(doing: &str, reply: &Reply) -> Error {
    match reply {
        Reply::Refused(refusal) => Error::Inspect(format!("{doing}: {:?}: {}", refusal.status, refusal.reason)),
        _ => Error::Inspect(format!("{doing}: the engine answers something else")),
    }
}
