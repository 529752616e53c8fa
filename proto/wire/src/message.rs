//! The messages: one struct a request, one a reply. Semantics stand here; numbers in `opcode`, bytes in `codec`.
//!
//! A link carries one session: first `Open` (a writer) or `Observe` (a reader for comparison and inspection), then
//! requests, each answered once, in any order between chunks. Requests of one chunk that change it are journalled in
//! the order in which they were sent. Every request of a writer's session carries the session's epoch; one below the
//! promised epoch is refused as [`Status::Fenced`].

use ashlar_types::{
    BlockIndex, ByteCount, ChunkIndex, ChunkRange, ClusterId, Crc32, DiskId, Epoch, FloorRange, Kept, Lsn, RequestId,
    SessionId, SlotIndex, SlotSet, VolumeId,
};
use bytes::Bytes;

/// A message with what every frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<M> {
    pub session: SessionId,
    pub request: RequestId,
    /// The writer's epoch; in a reply, the epoch that the chunkserver has promised.
    pub epoch: Epoch,
    /// Commit point: every write of the volume up to here is acknowledged. Chunkservers journal the highest they hear.
    pub commit: Lsn,
    pub message: M,
}

pub type RequestFrame = Frame<Request>;
pub type ReplyFrame = Frame<Reply>;

/// Blocks with the checksum of each. `crcs.len() * 4096 == data.len()`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BlockData {
    pub crcs: Vec<Crc32>,
    pub data: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Promise the frame's epoch, end every older session of the volume on this disk, report. Answered by `Opened`
    /// when the promise and everything accepted before it is durable. Always the first request of a writer.
    Open(Open),
    /// Read without taking part: for comparison and inspection, and for volumes that many nodes read. No promise, no
    /// lease. Answered by `Opened`. A frame's epoch of `NONE` reads whatever is there; another one reads the present
    /// as the record of that epoch has it: refused as `Fenced` when a higher one was promised, and the link ends as
    /// soon as one is about to be.
    Observe(Open),
    /// Asks for the chunk reports from this chunk on. Answered by `Reported`.
    Report { from: ChunkIndex },
    /// Answered by `Done` when durable. An lsn that the chunk already has is a duplicate: answered when what it has
    /// is durable.
    Write { range: ChunkRange, lsn: Lsn, floor: Lsn, blocks: BlockData },
    /// The blocks read as zeros from now on. Ordered and answered like a write.
    Discard { range: ChunkRange, lsn: Lsn, floor: Lsn },
    /// The newest versions below `below`: `Lsn::MAX` for the present, a snapshot's point for its content. Answered by
    /// `Data`. Refused as `Stale` if a block awaits a copy, `BadBlock` if content and checksum differ.
    Read { range: ChunkRange, below: Lsn },
    /// Writes the same content once more, after another replica served it, to the versions from which a read below
    /// `below` takes it: a block whose kept checksum is not the one sent is left alone, unless the block is recorded
    /// as lost. Stamps do not change. Answered by `Done`.
    Repair { range: ChunkRange, below: Lsn, blocks: BlockData },
    /// Which slots of the chunks `from..until` have versions among `floors` that are stamped after `after`. Answered
    /// by `Changed`; only chunks with such slots, or with a later prefix, are listed.
    ListChanged { from: ChunkIndex, until: ChunkIndex, after: Lsn, floors: FloorRange },
    /// Marks stale, durably: the blocks of `slots` in every version among `floors` and in version `into` (made when
    /// absent), and those of every version, of any floor, that this replica itself stamps after `after`; fresh blocks
    /// (written since `BeginSync`) excepted. The chunk is incomplete until `CompleteChunk` or `FinishSync`. Outside of
    /// a return its prefix is not above `after` from then on: copies may take back what it has beyond.
    MarkStale { chunk: ChunkIndex, after: Lsn, floors: FloorRange, into: Lsn, slots: SlotSet },
    /// Which slots have stale blocks in versions among `floors`. Answered by `Changed`.
    ListStale { from: ChunkIndex, floors: FloorRange },
    /// What the versions among `floors` make together, the newest first: for copying, and for the changes between
    /// snapshots. Answered by `Slot`, or refused as `Stale` or `BadBlock`.
    ReadSlot { chunk: ChunkIndex, slot: SlotIndex, floors: FloorRange },
    /// The source's content of the versions among `floors`: fills, in version `into`, the blocks that are stale in
    /// one of them and fresh in none, never others; then nothing is stale in them. What is stale and not in the
    /// content falls through to older versions. The version takes the source's stamp, or keeps its own if it is higher
    /// and has fresh blocks.
    Fill { chunk: ChunkIndex, slot: SlotIndex, floors: FloorRange, into: Lsn, content: SlotContent },
    /// Reconcile is done with the chunk (and with the replica, once it is done with every chunk): nothing in it is
    /// stale (else refused as `Incomplete`), its prefix becomes `prefix`.
    CompleteChunk { chunk: ChunkIndex, prefix: Lsn },
    /// Voids the stale marks of the chunk: what the replica has is declared to be the chunk's content, at the prefix
    /// that the marks have left it. Only where no replica in-sync is complete: a reconcile was cut off and its source
    /// is gone; what the rest lack was never acknowledged.
    VoidStale { chunk: ChunkIndex },
    /// The replica returns: it is incomplete in every chunk, older fresh marks are void, its own slots stamped after
    /// `after` are stale, and from here on every block written is fresh. Durable before the answer. Stale marks of an
    /// earlier attempt stay. Refused as `Incomplete` if the replica lacks more than that: its journal was damaged, or
    /// an earlier return that began further back was not finished; then `after` must be zero.
    BeginSync { after: Lsn },
    /// The prefix of a chunk at the source, to be adopted at `FinishSync` unless newer writes have come to the chunk
    /// meanwhile.
    AdoptPrefix { chunk: ChunkIndex, prefix: Lsn },
    /// Ends a return or a reconcile: the replica is equal to the others. Refused as `Incomplete` while anything is
    /// stale, or, without a return, incomplete; else it is complete in every chunk and has agreed in this epoch,
    /// durably, in order after every write sent before.
    FinishSync,
    /// The volume has this size now; never less than before. Requests that follow may use it. Answered by `Done` when
    /// durable.
    Grow { size: ByteCount },
    /// Which snapshot points are needed. Versions that no live point tells apart are made one, in the background.
    /// Answered by `Done` when durable.
    Keep(Kept),
    /// What the versions hold. Answered by `Held`.
    Usage,
    /// Which blocks of a chunk the versions among `floors` say something of. Answered by `Blocks`, or refused as
    /// `Stale` if a copy is awaited there.
    ListBlocks { chunk: ChunkIndex, floors: FloorRange },
    /// Which blocks, from this slot on, the replica was found to have lost or spoiled, and from which reads they are
    /// taken: for their repair. Answered by `Bad`.
    ListBad { from: ChunkIndex, slot: SlotIndex },
    /// What each slot of a chunk holds below a point, as one checksum: to compare replicas. Answered by `Digests`, or
    /// refused as `Stale` if the chunk awaits copies.
    Digest { chunk: ChunkIndex, below: Lsn },
    /// Renews the lease like every answer.
    Ping,
}

/// What a link is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    pub cluster: ClusterId,
    pub disk: DiskId,
    pub volume: VolumeId,
    pub size: ByteCount,
    /// The last epoch in which this replica was in-sync and served. If it has not agreed in that one or a later, its
    /// content is of the past: from now on, durably, it says that it is incomplete in everything. An observer says
    /// `NONE`.
    pub served: Epoch,
}

/// Content of a slot: `set` has a bit for each block that its versions say something of, `valid` those of them that
/// do not read as zeros; `blocks` holds just these, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotContent {
    pub stamp: Lsn,
    pub set: u16,
    pub valid: u16,
    pub blocks: BlockData,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Opened(Opened),
    Reported {
        entries: Vec<ChunkReport>,
        next: Option<ChunkIndex>,
    },
    Data(BlockData),
    Changed {
        entries: Vec<ChangedSlots>,
        next: Option<ChunkIndex>,
    },
    Slot(SlotContent),
    /// Ascending by floor.
    Held(Vec<Held>),
    /// Ascending by slot; slots of which nothing is said are left out.
    Blocks(Vec<SlotBlocks>),
    /// Ascending by chunk and slot, all of a slot together. With `more`, others come after the last one's slot.
    Bad {
        entries: Vec<BadBlocks>,
        more: bool,
    },
    /// Ascending by slot; slots that read as zeros are left out. `unknown`: those of which the replica lacks a block.
    Digests {
        entries: Vec<SlotDigest>,
        unknown: SlotSet,
    },
    Done,
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Highest commit point that this replica knows.
    pub commit: Lsn,
    /// Highest snapshot floor that this replica knows.
    pub floor: Lsn,
    /// The replica is incomplete as a whole: a return was begun and not finished, or its journal was damaged.
    pub syncing: bool,
    /// Highest lsn of a write that this replica has.
    pub last: Lsn,
    /// The last epoch in which this replica was made equal to the others, at the end of a reconcile or of its return,
    /// and the session before this one: a disk whose content has gone back in time tells by these. `Epoch::NONE` if
    /// it is new.
    pub agreed: Epoch,
    pub session_before: SessionId,
}

/// State of one chunk on one replica. A chunk that no report names has prefix zero and is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkReport {
    pub chunk: ChunkIndex,
    /// Last lsn of the prefix of the chunk's write order that this replica has.
    pub prefix: Lsn,
    pub complete: bool,
}

/// Slots of space that the versions under one floor take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub floor: Lsn,
    pub slots: u64,
}

/// Blocks of a slot: `set` has a bit for each that the versions say something of, `valid` those of them that do not
/// read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotBlocks {
    pub slot: SlotIndex,
    pub set: u16,
    pub valid: u16,
}

/// Blocks of a slot, a bit for each, that a read below `below` would take from a version in which they are bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBlocks {
    pub chunk: ChunkIndex,
    pub slot: SlotIndex,
    pub below: Lsn,
    pub blocks: u16,
}

/// Content of a slot: the checksum of its 16 blocks' checksums, little-endian. One block that differs always shows,
/// several in all but one of 2^32 cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotDigest {
    pub slot: SlotIndex,
    pub digest: Crc32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedSlots {
    pub chunk: ChunkIndex,
    /// Prefix of the chunk on the replica that answers.
    pub prefix: Lsn,
    pub slots: SlotSet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: Status,
    /// With `BadBlock`: the first bad block, counted within the chunk.
    pub block: BlockIndex,
    /// For people; at most `REASON_BYTES_MAX` bytes.
    pub reason: String,
}

/// Why a request was refused. Numbers are on the wire and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Status {
    /// A higher epoch was promised (the reply's `epoch`). Ends the writer for good.
    Fenced = 1,
    /// A newer session of the same epoch took over.
    SessionEnded = 2,
    /// The request makes no sense; the peer has a bug or is hostile.
    BadRequest = 3,
    /// Content and checksum of a block differ, or the medium gave no bytes.
    BadBlock = 4,
    /// A block awaits a copy.
    Stale = 5,
    /// Something is stale that must not be.
    Incomplete = 6,
    /// No space on the disk; nothing was changed. May be tried again.
    NoSpace = 7,
    /// The disk's life as a replica has ended; reads go on.
    DiskFailed = 8,
    /// The disk is not here, or belongs to another cluster.
    WrongDisk = 9,
    /// Known to the protocol but not offered by this version.
    Unsupported = 10,
    /// The replica was deleted.
    Deleted = 11,
}

impl Status {
    pub const ALL: &[Status] = &[
        Status::Fenced,
        Status::SessionEnded,
        Status::BadRequest,
        Status::BadBlock,
        Status::Stale,
        Status::Incomplete,
        Status::NoSpace,
        Status::DiskFailed,
        Status::WrongDisk,
        Status::Unsupported,
        Status::Deleted,
    ];

    pub fn from_number(number: u16) -> Option<Status> {
        Status::ALL.iter().copied().find(|&status| status as u16 == number)
    }
}

impl BlockData {
    /// Checksums computed over `data`, whose length is a multiple of 4096.
    pub fn seal(data: Bytes) -> BlockData {
        BlockData { crcs: Crc32::of_blocks(&data).collect(), data }
    }

    /// Position of the first block whose content and checksum differ.
    pub fn first_bad_block(&self) -> Option<usize> {
        Crc32::of_blocks(&self.data).zip(&self.crcs).position(|(computed, kept)| computed != *kept)
    }
}
