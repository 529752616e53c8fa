//! Values out of the fuzzer's bytes, taken from the front: mostly out of small sets, so that they meet each other, at
//! times from anywhere. Everything drawn keeps to what the wire's decoder lets pass; within that, nothing is honest.

use ashlar_types::{
    BLOCK_BYTES, BLOCKS_PER_CHUNK, BlockCount, BlockIndex, ByteCount, CHUNK_BYTES, CHUNKS_MAX, ChunkIndex, ChunkRange,
    ClusterId, Crc32, DiskId, Epoch, FloorRange, Kept, Lsn, SLOTS_PER_CHUNK, SessionId, SlotIndex, SlotSet, VolumeId,
};
use ashlar_wire::limits::{BLOCKS_PER_FRAME_MAX, LIST_ENTRIES_MAX};
use ashlar_wire::{
    BadBlocks, BlockData, ChangedSlots, ChunkReport, Held, Open, Opened, Refusal, Reply, Request, SlotBlocks,
    SlotContent, SlotDigest, Status,
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Chunks of the volumes that are drawn.
pub(crate) const CHUNKS: u32 = 3;
/// Blocks of one piece of drawn data: more of them only cost time.
const BLOCKS_MAX: u32 = 40;

/// What is left of the input. At its end everything is zero.
pub(crate) struct Draw<'a> {
    rest: &'a [u8],
}

impl<'a> Draw<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Draw<'a> {
        Draw { rest: input }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    /// Below `bound`, which is at most 256.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u8) -> bool {
        self.byte() % times == times - 1
    }

    pub(crate) fn wide(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    pub(crate) fn epoch(&mut self) -> Epoch {
        let number = if self.once_in(16) { self.wide() as u32 & 0xFF_FFFF } else { u32::from(self.byte() % 8) };
        Epoch::new(number).expect("24 bits at most")
    }

    pub(crate) fn lsn(&mut self) -> Lsn {
        match self.byte() % 16 {
            0 => Lsn::ZERO,
            1 => Lsn::MAX,
            2 => Lsn::from_raw(self.wide()),
            3 => Lsn::from_raw(Lsn::start_of(self.epoch()).raw() | 0xFF_FFFF_FFFF),
            _ => Lsn::from_raw(Lsn::start_of(self.epoch()).raw() + u64::from(self.byte() % 32)),
        }
    }

    pub(crate) fn chunk(&mut self) -> ChunkIndex {
        let far = self.once_in(32);
        ChunkIndex(if far { (self.wide() % u64::from(CHUNKS_MAX)) as u32 } else { u32::from(self.byte()) % CHUNKS })
    }

    pub(crate) fn slot(&mut self) -> SlotIndex {
        let far = self.once_in(16);
        SlotIndex(if far { (self.wide() % u64::from(SLOTS_PER_CHUNK)) as u16 } else { u16::from(self.byte() % 4) })
    }

    pub(crate) fn slots(&mut self) -> SlotSet {
        match self.byte() % 8 {
            0 => SlotSet::from_bytes(&[0xFF; SlotSet::BYTES]),
            1 => SlotSet::EMPTY,
            count => (0..count).map(|_| self.slot()).collect(),
        }
    }

    pub(crate) fn range(&mut self) -> ChunkRange {
        let chunk = self.chunk();
        let start = if self.once_in(16) { self.wide() % u64::from(BLOCKS_PER_CHUNK) } else { u64::from(self.byte()) };
        let room = u64::from(BLOCKS_PER_CHUNK) - start;
        let wanted = if self.once_in(16) { self.wide() } else { u64::from(self.byte()) % u64::from(BLOCKS_MAX) + 1 };
        let count = BlockCount(wanted.clamp(1, room) as u32);
        ChunkRange { chunk, start: BlockIndex(start), count }
    }

    /// A range whose blocks fit a frame.
    pub(crate) fn data_range(&mut self) -> ChunkRange {
        let range = self.range();
        ChunkRange { count: range.count.min(BlockCount(BLOCKS_PER_FRAME_MAX)), ..range }
    }

    /// So many blocks, each full of one byte. Once in a while the checksums are not those of the content.
    pub(crate) fn blocks(&mut self, count: u32) -> BlockData {
        let fill = self.byte();
        let mut blocks = BlockData::seal(Bytes::from(vec![fill; count as usize * BLOCK_BYTES as usize]));
        if self.once_in(16) && !blocks.crcs.is_empty() {
            let at = self.below(blocks.crcs.len().min(256));
            blocks.crcs[at] = Crc32(self.wide() as u32);
        }
        blocks
    }

    fn slot_content(&mut self) -> SlotContent {
        let (stamp, set) = (self.lsn(), u16::from_le_bytes([self.byte(), self.byte()]));
        let valid = if self.once_in(4) { set & u16::from(self.byte()) } else { set };
        SlotContent { stamp, set, valid, blocks: self.blocks(valid.count_ones()) }
    }

    /// Mostly one of a few.
    fn floor(&mut self) -> Lsn {
        let few =
            [0, 3, 7, 12].map(|counter| Lsn::from_raw(Lsn::start_of(Epoch::new(3).expect("small")).raw() + counter));
        match self.byte() % 16 {
            0 => self.lsn(),
            1..=3 => few[1],
            4 | 5 => few[2],
            6 => few[3],
            7 => few[0],
            _ => Lsn::ZERO,
        }
    }

    /// What is read below: the present, or a snapshot.
    pub(crate) fn view(&mut self) -> Lsn {
        if self.once_in(4) { self.floor() } else { Lsn::MAX }
    }

    fn floors(&mut self) -> FloorRange {
        let (one, other) = (self.floor(), self.floor());
        let floors = FloorRange { from: one.min(other), below: one.max(other) };
        if floors.is_valid() { floors } else { FloorRange::ALL }
    }

    fn kept(&mut self) -> Kept {
        let mut live: Vec<Lsn> =
            (0..self.byte() % 3).map(|_| self.floor()).filter(|&point| point > Lsn::ZERO).collect();
        live.sort_unstable();
        live.dedup();
        let until = self.lsn().max(live.last().copied().unwrap_or(Lsn::ZERO));
        Kept { live, until }
    }

    fn open(&mut self, cluster: ClusterId, disk: DiskId) -> Open {
        let volume = VolumeId::from_u128(u128::from(self.byte() % 3));
        let disk = if self.once_in(32) { DiskId::from_u128(99) } else { disk };
        let size = match self.byte() % 8 {
            0 => ByteCount(BLOCK_BYTES),
            1 => ByteCount(ashlar_types::VOLUME_BYTES_MAX),
            _ => ByteCount(u64::from(CHUNKS) * CHUNK_BYTES),
        };
        Open { cluster, disk, volume, size, served: self.epoch() }
    }

    /// Any request, of the kind with this number.
    pub(crate) fn request(&mut self, cluster: ClusterId, disk: DiskId) -> Request {
        match self.byte() % 24 {
            0 => Request::Open(self.open(cluster, disk)),
            1 => Request::Observe(self.open(cluster, disk)),
            2 => Request::Report { from: self.chunk() },
            3..=5 => {
                let range = self.data_range();
                let (floor, lsn) = (self.floor(), self.lsn());
                Request::Write { range, lsn, floor, blocks: self.blocks(range.count.0) }
            }
            6 => Request::Discard { range: self.range(), lsn: self.lsn(), floor: self.floor() },
            7 => Request::Read { range: self.data_range(), below: self.view() },
            8 => {
                let (range, below) = (self.data_range(), self.view());
                Request::Repair { range, below, blocks: self.blocks(range.count.0) }
            }
            9 => {
                let (from, until, after, floors) = (self.chunk(), self.chunk(), self.lsn(), self.floors());
                Request::ListChanged { from, until, after, floors }
            }
            10 => {
                let (chunk, after, floors, slots) = (self.chunk(), self.lsn(), self.floors(), self.slots());
                Request::MarkStale { chunk, after, floors, into: floors.from, slots }
            }
            11 => Request::ListStale { from: self.chunk(), floors: self.floors() },
            12 => Request::ReadSlot { chunk: self.chunk(), slot: self.slot(), floors: self.floors() },
            13 => {
                let (chunk, slot, floors) = (self.chunk(), self.slot(), self.floors());
                Request::Fill { chunk, slot, floors, into: floors.from, content: self.slot_content() }
            }
            14 => Request::CompleteChunk { chunk: self.chunk(), prefix: self.lsn() },
            15 => Request::VoidStale { chunk: self.chunk() },
            16 => Request::BeginSync { after: self.lsn() },
            17 => Request::AdoptPrefix { chunk: self.chunk(), prefix: self.lsn() },
            18 => Request::FinishSync,
            19 => Request::Keep(self.kept()),
            20 => Request::ListBad { from: self.chunk(), slot: self.slot() },
            21 => Request::Usage,
            22 => Request::ListBlocks { chunk: self.chunk(), floors: self.floors() },
            _ if self.once_in(2) => Request::Digest { chunk: self.chunk(), below: self.view() },
            _ => Request::Ping,
        }
    }

    fn next_chunk(&mut self) -> Option<ChunkIndex> {
        self.once_in(4).then(|| self.chunk())
    }

    fn list_length(&mut self) -> usize {
        if self.once_in(64) { LIST_ENTRIES_MAX } else { self.below(4) }
    }

    /// Says of itself what it likes.
    pub(crate) fn opened(&mut self, commit: Lsn) -> Opened {
        Opened {
            commit,
            floor: if self.once_in(8) { self.floor() } else { Lsn::ZERO },
            syncing: self.once_in(8),
            last: if self.once_in(4) { self.lsn() } else { Lsn::ZERO },
            agreed: if self.once_in(4) { self.epoch() } else { Epoch::new(4).expect("small") },
            session_before: SessionId(u64::from(self.byte() % 4)),
        }
    }

    pub(crate) fn bad_blocks(&mut self) -> Vec<BadBlocks> {
        let bad = |draw: &mut Draw| BadBlocks {
            chunk: draw.chunk(),
            slot: draw.slot(),
            below: draw.view(),
            blocks: u16::from(draw.byte()),
        };
        (0..self.below(4)).map(|_| bad(self)).collect()
    }

    pub(crate) fn digests(&mut self) -> Reply {
        let drawn: BTreeMap<SlotIndex, u8> = (0..self.below(4)).map(|_| (self.slot(), self.byte() % 2)).collect();
        let digest = |(slot, digest): (SlotIndex, u8)| SlotDigest { slot, digest: Crc32(digest.into()) };
        let unknown = if self.once_in(4) { self.slots() } else { SlotSet::EMPTY };
        Reply::Digests { entries: drawn.into_iter().map(digest).collect(), unknown }
    }

    /// Any reply, to any request or none.
    pub(crate) fn reply(&mut self) -> Reply {
        match self.byte() % 11 {
            0 => {
                let (commit, floor) = (self.lsn(), self.lsn());
                Reply::Opened(Opened { floor, ..self.opened(commit) })
            }
            1 => {
                let report = |draw: &mut Draw| ChunkReport {
                    chunk: draw.chunk(),
                    prefix: draw.lsn(),
                    complete: !draw.once_in(4),
                };
                let entries = (0..self.list_length()).map(|_| report(self)).collect();
                Reply::Reported { entries, next: self.next_chunk() }
            }
            2 => {
                let count = u32::from(self.byte()) % BLOCKS_MAX;
                Reply::Data(self.blocks(count))
            }
            3 => {
                let changed =
                    |draw: &mut Draw| ChangedSlots { chunk: draw.chunk(), prefix: draw.lsn(), slots: draw.slots() };
                let entries = (0..self.list_length()).map(|_| changed(self)).collect();
                Reply::Changed { entries, next: self.next_chunk() }
            }
            4 => Reply::Slot(self.slot_content()),
            9 => {
                let blocks = |draw: &mut Draw| {
                    let set = u16::from(draw.byte()) << 4;
                    SlotBlocks { slot: draw.slot(), set, valid: set & u16::from(draw.byte()) }
                };
                Reply::Blocks((0..self.byte() % 4).map(|_| blocks(self)).collect())
            }
            8 => Reply::Held(
                (0..self.byte() % 4).map(|slots| Held { floor: self.floor(), slots: slots.into() }).collect(),
            ),
            10 => self.digests(),
            7 => Reply::Bad { entries: self.bad_blocks(), more: self.once_in(2) },
            5 => {
                let status = Status::ALL[self.below(Status::ALL.len())];
                let block = BlockIndex(u64::from(self.byte()) % u64::from(BLOCKS_PER_CHUNK));
                Reply::Refused(Refusal { status, block, reason: "refused".to_owned() })
            }
            _ => Reply::Done,
        }
    }
}
