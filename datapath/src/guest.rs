//! Guest requests in bytes, turned into operations of the volume in whole blocks. Pure.
//!
//! ```text
//!   aligned ────────────────────────────────────────► one operation ──► done
//!   write or zero that covers blocks in part ──► Reading (the first, the last block) ──► Writing ──► done
//! ```
//!
//! - A read of parts of blocks reads the blocks and is cut.
//! - While a request is in Reading, every later request that changes something waits in `held`, in order: what it
//!   wrote would otherwise be overwritten with what was read before. Earlier ones are no danger, and later ones none
//!   once the write was handed to the volume: the volume keeps operations that overlap in the order in which they
//!   were given.
//! - `held.len() + waiting.len()` is at most what the front-ends let in.

use ashlar_types::{BLOCK_BYTES, BlockCount, BlockIndex, ByteCount, ByteOffset, Lsn};
use ashlar_volume::{GuestError, GuestOp, Tag};
use bytes::{Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};

/// What a front-end asks for. Ranges are within the volume and not empty: front-ends check that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuestRequest {
    Read {
        offset: ByteOffset,
        bytes: ByteCount,
    },
    Write {
        offset: ByteOffset,
        data: Bytes,
    },
    /// All of it reads as zeros afterwards.
    Zero {
        offset: ByteOffset,
        bytes: ByteCount,
    },
    /// Whole blocks within it read as zeros afterwards; the rest stays as it is.
    Trim {
        offset: ByteOffset,
        bytes: ByteCount,
    },
    Flush,
}

/// Number of a request, drawn by its front-end's shell; below 2^62.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct RequestKey(pub(crate) u64);

/// `Ok` has the bytes of a read.
pub(crate) type GuestResult = Result<Bytes, GuestError>;

#[derive(Default)]
pub(crate) struct GuestTable {
    /// Requests that are more than one operation, or whose bytes are to be cut.
    waiting: HashMap<RequestKey, Waiting>,
    reading: Option<RequestKey>,
    held: VecDeque<(RequestKey, GuestRequest)>,
}

enum Waiting {
    CutRead { skip: usize, bytes: usize },
    Reading { change: Change, edges: Edges },
    Writing { operations: u8, error: Option<GuestError> },
}

/// A change that does not begin or not end at a block border.
struct Change {
    start: u64,
    end: u64,
    /// None: zeros.
    data: Option<Bytes>,
}

#[derive(Default)]
struct Edges {
    awaited: u8,
    first: Option<Bytes>,
    last: Option<Bytes>,
}

/// Which operation of a request a tag names: the low two bits.
const FIRST: u64 = 0;
const LAST: u64 = 1;
const WHOLE: u64 = 2;

impl GuestTable {
    /// Takes a request and appends what the volume is to do for it now. `Some`: there is nothing to do, the request
    /// is answered.
    pub(crate) fn submit(
        &mut self,
        key: RequestKey,
        request: GuestRequest,
        operations: &mut Vec<(Tag, GuestOp)>,
    ) -> Option<GuestResult> {
        let changes = !matches!(request, GuestRequest::Read { .. } | GuestRequest::Flush);
        if changes && self.reading.is_some() {
            self.held.push_back((key, request));
            return None;
        }
        self.begin(key, request, operations)
    }

    /// Takes the volume's answer. Appends what follows from it: further operations, and requests that are done.
    pub(crate) fn complete(
        &mut self,
        tag: Tag,
        result: GuestResult,
        operations: &mut Vec<(Tag, GuestOp)>,
        done: &mut Vec<(RequestKey, GuestResult)>,
    ) {
        let (key, part) = (RequestKey(tag.0 >> 2), tag.0 & 3);
        match self.waiting.remove(&key) {
            // The other edge of a request whose first one failed: it is answered already.
            None if part != WHOLE => {}
            None => done.push((key, result)),
            Some(Waiting::CutRead { skip, bytes }) => {
                done.push((key, result.map(|data| data.slice(skip..skip + bytes))));
            }
            Some(Waiting::Writing { operations: left, error }) => {
                let error = error.or(result.err());
                if left > 1 {
                    self.waiting.insert(key, Waiting::Writing { operations: left - 1, error });
                } else {
                    done.push((key, error.map_or(Ok(Bytes::new()), Err)));
                }
            }
            Some(Waiting::Reading { change, edges }) => {
                self.edge_read(key, change, edges.with(part, result), operations, done);
            }
        }
    }

    fn edge_read(
        &mut self,
        key: RequestKey,
        change: Change,
        edges: Result<Edges, GuestError>,
        operations: &mut Vec<(Tag, GuestOp)>,
        done: &mut Vec<(RequestKey, GuestResult)>,
    ) {
        match edges {
            Ok(edges) if edges.awaited > 0 => {
                self.waiting.insert(key, Waiting::Reading { change, edges });
                return;
            }
            Ok(edges) => {
                let count = change.write(key, &edges, operations);
                self.waiting.insert(key, Waiting::Writing { operations: count, error: None });
            }
            Err(error) => done.push((key, Err(error))),
        }
        self.reading = None;
        while self.reading.is_none() {
            let Some((key, request)) = self.held.pop_front() else { return };
            if let Some(result) = self.begin(key, request, operations) {
                done.push((key, result));
            }
        }
    }

    fn begin(
        &mut self,
        key: RequestKey,
        request: GuestRequest,
        operations: &mut Vec<(Tag, GuestOp)>,
    ) -> Option<GuestResult> {
        let mut whole = |op| operations.push((tag(key, WHOLE), op));
        match request {
            GuestRequest::Flush => whole(GuestOp::Flush),
            GuestRequest::Read { offset, bytes } => {
                let (start, count) = covering(offset, bytes);
                let skip = (offset.0 - start.byte_offset().0) as usize;
                if skip != 0 || count.bytes() != bytes {
                    self.waiting.insert(key, Waiting::CutRead { skip, bytes: bytes.0 as usize });
                }
                whole(GuestOp::Read { start, count, below: Lsn::MAX });
            }
            GuestRequest::Trim { offset, bytes } => match within(offset, bytes) {
                Some((start, count)) => whole(GuestOp::Discard { start, count }),
                None => return Some(Ok(Bytes::new())),
            },
            GuestRequest::Write { offset, data } => {
                let end = offset.0 + data.len() as u64;
                if offset.0.is_multiple_of(BLOCK_BYTES) && end.is_multiple_of(BLOCK_BYTES) {
                    whole(GuestOp::Write { start: BlockIndex(offset.0 / BLOCK_BYTES), data });
                } else {
                    self.read_edges(key, Change { start: offset.0, end, data: Some(data) }, operations);
                }
            }
            GuestRequest::Zero { offset, bytes } => {
                let change = Change { start: offset.0, end: offset.0 + bytes.0, data: None };
                let (start, count) = covering(offset, bytes);
                if change.covers_whole_blocks() {
                    whole(GuestOp::Discard { start, count });
                } else {
                    self.read_edges(key, change, operations);
                }
            }
        }
        None
    }

    fn read_edges(&mut self, key: RequestKey, change: Change, operations: &mut Vec<(Tag, GuestOp)>) {
        assert!(self.reading.is_none());
        let (first, last) = (change.start / BLOCK_BYTES, (change.end - 1) / BLOCK_BYTES);
        let first_in_part = !change.start.is_multiple_of(BLOCK_BYTES) || first == last;
        let last_in_part = !change.end.is_multiple_of(BLOCK_BYTES) && first != last;
        let mut edges = Edges::default();
        for (in_part, block, part) in [(first_in_part, first, FIRST), (last_in_part, last, LAST)] {
            if in_part {
                edges.awaited += 1;
                let op = GuestOp::Read { start: BlockIndex(block), count: BlockCount(1), below: Lsn::MAX };
                operations.push((tag(key, part), op));
            }
        }
        self.reading = Some(key);
        self.waiting.insert(key, Waiting::Reading { change, edges });
    }
}

impl Edges {
    fn with(mut self, part: u64, result: GuestResult) -> Result<Edges, GuestError> {
        let block = result?;
        assert_eq!(block.len() as u64, BLOCK_BYTES, "one block was read");
        self.awaited -= 1;
        match part {
            FIRST => self.first = Some(block),
            _ => self.last = Some(block),
        }
        Ok(self)
    }
}

impl Change {
    fn covers_whole_blocks(&self) -> bool {
        self.start.is_multiple_of(BLOCK_BYTES) && self.end.is_multiple_of(BLOCK_BYTES)
    }

    /// Appends the operations that make the change, now that the edges are known; gives their number.
    fn write(&self, key: RequestKey, edges: &Edges, operations: &mut Vec<(Tag, GuestOp)>) -> u8 {
        let before = operations.len();
        let start = self.start / BLOCK_BYTES * BLOCK_BYTES;
        let end = self.end.next_multiple_of(BLOCK_BYTES);
        match &self.data {
            Some(data) => {
                let mut whole = BytesMut::with_capacity((end - start) as usize);
                if let Some(first) = &edges.first {
                    whole.extend_from_slice(&first[..(self.start - start) as usize]);
                }
                whole.extend_from_slice(data);
                let tail = (BLOCK_BYTES - (end - self.end)) as usize;
                if let Some(last) = edges.last.as_ref().or(edges.first.as_ref()).filter(|_| end != self.end) {
                    whole.extend_from_slice(&last[tail..]);
                }
                assert_eq!(whole.len() as u64, end - start);
                let op = GuestOp::Write { start: BlockIndex(start / BLOCK_BYTES), data: whole.freeze() };
                operations.push((tag(key, WHOLE), op));
            }
            None => self.zero(key, edges, operations),
        }
        (operations.len() - before) as u8
    }

    fn zero(&self, key: RequestKey, edges: &Edges, operations: &mut Vec<(Tag, GuestOp)>) {
        let edge = |block_start: u64, block: &Bytes| {
            let mut content = BytesMut::from(&block[..]);
            let from = self.start.saturating_sub(block_start).min(BLOCK_BYTES) as usize;
            let until = (self.end - block_start).min(BLOCK_BYTES) as usize;
            content[from..until].fill(0);
            GuestOp::Write { start: BlockIndex(block_start / BLOCK_BYTES), data: content.freeze() }
        };
        if let Some(first) = &edges.first {
            operations.push((tag(key, FIRST), edge(self.start / BLOCK_BYTES * BLOCK_BYTES, first)));
        }
        if let Some(last) = &edges.last {
            operations.push((tag(key, LAST), edge((self.end - 1) / BLOCK_BYTES * BLOCK_BYTES, last)));
        }
        if let Some((start, count)) = within(ByteOffset(self.start), ByteCount(self.end - self.start)) {
            operations.push((tag(key, WHOLE), GuestOp::Discard { start, count }));
        }
    }
}

fn tag(key: RequestKey, part: u64) -> Tag {
    assert!(key.0 < 1 << 62);
    Tag(key.0 << 2 | part)
}

/// The blocks that the bytes touch.
fn covering(offset: ByteOffset, bytes: ByteCount) -> (BlockIndex, BlockCount) {
    let first = offset.0 / BLOCK_BYTES;
    let end = (offset.0 + bytes.0).div_ceil(BLOCK_BYTES);
    (BlockIndex(first), BlockCount((end - first) as u32))
}

/// The blocks that the bytes cover wholly, if any.
fn within(offset: ByteOffset, bytes: ByteCount) -> Option<(BlockIndex, BlockCount)> {
    let first = offset.0.div_ceil(BLOCK_BYTES);
    let end = (offset.0 + bytes.0) / BLOCK_BYTES;
    (first < end).then(|| (BlockIndex(first), BlockCount((end - first) as u32)))
}

#[cfg(test)]
mod tests;
