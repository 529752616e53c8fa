//! A replica that does what `ashlar-wire` says of each message, in the simplest way: everything is durable at once.

use ashlar_types::*;
use ashlar_wire::*;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) prefix: Lsn,
    adopted: Lsn,
    pub(crate) complete: bool,
}

type Block = (ChunkIndex, u64);

#[derive(Clone, Default)]
pub(crate) struct Replica {
    pub(crate) connecting: bool,
    pub(crate) down: bool,
    pub(crate) session: Option<SessionId>,
    pub(crate) promised: Option<Epoch>,
    pub(crate) agreed: Epoch,
    /// Of the last `Open`.
    pub(crate) opened_in: SessionId,
    pub(crate) commit: Lsn,
    pub(crate) syncing: bool,
    /// Part of its journal was lost, and nothing has made up for it.
    pub(crate) distrusted: bool,
    pub(crate) chunks: BTreeMap<ChunkIndex, Chunk>,
    pub(crate) blocks: BTreeMap<Block, Bytes>,
    pub(crate) stamps: BTreeMap<(ChunkIndex, SlotIndex), Lsn>,
    pub(crate) stale: BTreeSet<Block>,
    fresh: BTreeSet<Block>,
    /// Content and checksum differ.
    pub(crate) bad: BTreeSet<Block>,
    /// Refuses the next request of this kind, by the name in its `Debug`.
    pub(crate) refuse: Option<(&'static str, Status)>,
    /// Refuses every write and every copy.
    pub(crate) full: bool,
    /// Its pages of what is stale lead back to the first.
    pub(crate) in_circles: bool,
    /// Its link breaks at every write.
    pub(crate) breaks: bool,
    /// Refuses every `Open`.
    pub(crate) failed: bool,
    pub(crate) log: Vec<Request>,
}

impl Replica {
    pub(crate) fn take(&mut self, frame: RequestFrame) -> ReplyFrame {
        assert_eq!(Some(frame.session), self.session);
        self.log.push(frame.message.clone());
        self.commit = self.commit.max(frame.commit);
        let refused = self.refuse.take_if(|(name, _)| format!("{:?}", frame.message).starts_with(*name));
        let message = match (refused, self.promised) {
            (_, Some(promised)) if promised > frame.epoch => refuse(Status::Fenced),
            (Some((_, status)), _) => refuse(status),
            _ if self.full && matches!(frame.message, Request::Write { .. } | Request::Fill { .. }) => {
                refuse(Status::NoSpace)
            }
            _ if self.failed && matches!(frame.message, Request::Open(_)) => refuse(Status::DiskFailed),
            _ => self.answer(frame.epoch, frame.session, frame.message),
        };
        let epoch = self.promised.unwrap_or(Epoch::NONE);
        Frame { session: frame.session, request: frame.request, epoch, commit: self.commit, message }
    }

    fn answer(&mut self, epoch: Epoch, session: SessionId, request: Request) -> Reply {
        match request {
            Request::Open(open) => {
                if self.agreed < open.served {
                    self.distrust();
                }
                self.promised = Some(epoch);
                let agreed = self.agreed;
                let session_before = std::mem::replace(&mut self.opened_in, session);
                let (commit, floor, syncing) = (self.commit, Lsn::ZERO, self.syncing || self.distrusted);
                let last = self.chunks.values().map(|chunk| chunk.prefix).max().unwrap_or(Lsn::ZERO);
                Reply::Opened(Opened { commit, floor, syncing, last, agreed, session_before })
            }
            Request::Report { .. } => self.report(),
            Request::Write { range, lsn, blocks, .. } => self.change(range, lsn, Some(blocks.data)),
            Request::Discard { range, lsn, .. } => self.change(range, lsn, None),
            Request::Read { range } => self.read(range),
            Request::Repair { range, .. } => {
                self.bad.retain(|block| !covers(range, *block));
                Reply::Done
            }
            Request::ListChanged { from, until, after } => self.changed(from, until, after),
            Request::MarkStale { chunk, after, slots } => self.mark_stale(chunk, after, slots),
            Request::ListStale { from } => self.list_stale(from),
            Request::ReadSlot { chunk, slot } => self.read_slot(chunk, slot),
            Request::Fill { chunk, slot, content } => self.fill(chunk, slot, content),
            Request::CompleteChunk { chunk, prefix } => self.complete(chunk, prefix),
            Request::VoidStale { chunk } => {
                self.stale.retain(|block| block.0 != chunk);
                self.chunk(chunk).complete = true;
                Reply::Done
            }
            Request::BeginSync { after } => self.begin_sync(after),
            Request::AdoptPrefix { chunk, prefix } => {
                let chunk = self.chunk(chunk);
                chunk.adopted = chunk.adopted.max(prefix);
                Reply::Done
            }
            Request::FinishSync => self.finish_sync(),
            Request::Ping | Request::Grow { .. } => Reply::Done,
            Request::Observe(_) => unreachable!("a writer does not observe"),
        }
    }

    pub(crate) fn chunk(&mut self, chunk: ChunkIndex) -> &mut Chunk {
        let complete = !self.syncing && !self.distrusted;
        self.chunks.entry(chunk).or_insert(Chunk { prefix: Lsn::ZERO, adopted: Lsn::ZERO, complete })
    }

    /// The byte that the block is full of.
    pub(crate) fn byte(&self, chunk: u32, block: u64) -> u8 {
        self.blocks.get(&(ChunkIndex(chunk), block)).map_or(0, |data| data[0])
    }

    /// As if written by an earlier writer.
    pub(crate) fn had(&mut self, chunk: u32, block: u64, lsn: u64, byte: u8) {
        let range = ChunkRange { chunk: ChunkIndex(chunk), start: BlockIndex(block), count: BlockCount(1) };
        self.change(range, Lsn::from_raw(lsn), Some(Bytes::from(vec![byte; BLOCK_BYTES as usize])));
    }

    /// Its journal was damaged: it cannot say what it has.
    pub(crate) fn distrust(&mut self) {
        self.distrusted = true;
        for chunk in self.chunks.values_mut() {
            *chunk = Chunk { prefix: Lsn::ZERO, adopted: Lsn::ZERO, complete: false };
        }
    }

    fn report(&mut self) -> Reply {
        if self.distrusted || self.syncing {
            (0..2).for_each(|chunk| self.chunk(ChunkIndex(chunk)).complete = false);
        }
        let report = |(&chunk, entry): (&ChunkIndex, &Chunk)| ChunkReport {
            chunk,
            prefix: entry.prefix,
            complete: entry.complete,
        };
        Reply::Reported { entries: self.chunks.iter().map(report).collect(), next: None }
    }

    fn change(&mut self, range: ChunkRange, lsn: Lsn, data: Option<Bytes>) -> Reply {
        if lsn <= self.chunk(range.chunk).prefix {
            return Reply::Done;
        }
        for at in 0..u64::from(range.count.0) {
            let index = BlockIndex(range.start.0 + at);
            let block = (range.chunk, index.0);
            match &data {
                Some(data) => {
                    let bytes = data.slice((at * BLOCK_BYTES) as usize..((at + 1) * BLOCK_BYTES) as usize);
                    self.blocks.insert(block, bytes);
                }
                None => drop(self.blocks.remove(&block)),
            }
            self.bad.remove(&block);
            self.stale.remove(&block);
            if self.syncing {
                self.fresh.insert(block);
            }
            self.stamps.insert((range.chunk, index.slot()), lsn);
        }
        self.chunk(range.chunk).prefix = lsn;
        Reply::Done
    }

    fn read(&self, range: ChunkRange) -> Reply {
        if self.stale.iter().any(|block| covers(range, *block)) {
            return refuse(Status::Stale);
        }
        if self.bad.iter().any(|block| covers(range, *block)) {
            return refuse(Status::BadBlock);
        }
        let mut data = BytesMut::new();
        for at in range.start.0..range.end().0 {
            match self.blocks.get(&(range.chunk, at)) {
                Some(bytes) => data.extend_from_slice(bytes),
                None => data.extend_from_slice(&[0; BLOCK_BYTES as usize]),
            }
        }
        Reply::Data(BlockData::seal(data.freeze()))
    }

    fn changed(&self, from: ChunkIndex, until: ChunkIndex, after: Lsn) -> Reply {
        let mut entries = vec![];
        for (&chunk, entry) in self.chunks.range(from..until) {
            let here = self.stamps.iter().filter(|((at, _), stamp)| *at == chunk && **stamp > after);
            let slots: SlotSet = here.map(|((_, slot), _)| *slot).collect();
            if !slots.is_empty() || entry.prefix > after {
                entries.push(ChangedSlots { chunk, prefix: entry.prefix, slots });
            }
        }
        Reply::Changed { entries, next: None }
    }

    fn mark_stale(&mut self, chunk: ChunkIndex, after: Lsn, slots: SlotSet) -> Reply {
        let in_a_return = self.syncing;
        let entry = self.chunk(chunk);
        entry.complete = false;
        if !in_a_return {
            entry.prefix = entry.prefix.min(after);
        }
        let own = self.stamps.iter().filter(|((at, _), stamp)| *at == chunk && **stamp > after);
        let own: SlotSet = own.map(|((_, slot), _)| *slot).collect();
        for slot in slots.union(&own).iter() {
            let blocks = blocks_of(chunk, slot).filter(|block| !self.fresh.contains(block)).collect::<Vec<_>>();
            self.stale.extend(blocks);
        }
        Reply::Done
    }

    fn list_stale(&self, from: ChunkIndex) -> Reply {
        let mut chunks: BTreeMap<ChunkIndex, SlotSet> = BTreeMap::new();
        for &(chunk, block) in self.stale.iter().filter(|block| block.0 >= from) {
            chunks.entry(chunk).or_default().insert(BlockIndex(block).slot());
        }
        let entry = |(chunk, slots)| ChangedSlots { chunk, prefix: Lsn::ZERO, slots };
        let next = self.in_circles.then_some(ChunkIndex(0));
        Reply::Changed { entries: chunks.into_iter().map(entry).collect(), next }
    }

    fn read_slot(&self, chunk: ChunkIndex, slot: SlotIndex) -> Reply {
        let (mut valid, mut data) = (0, BytesMut::new());
        for (at, block) in blocks_of(chunk, slot).enumerate() {
            if self.bad.contains(&block) {
                return refuse(Status::BadBlock);
            }
            if let Some(bytes) = self.blocks.get(&block) {
                valid |= 1 << at;
                data.extend_from_slice(bytes);
            }
        }
        let stamp = self.stamps.get(&(chunk, slot)).copied().unwrap_or(Lsn::ZERO);
        Reply::Slot(SlotContent { stamp, valid, blocks: BlockData::seal(data.freeze()) })
    }

    fn fill(&mut self, chunk: ChunkIndex, slot: SlotIndex, content: SlotContent) -> Reply {
        let mut given = content.blocks.data.chunks(BLOCK_BYTES as usize);
        let mut any_fresh = false;
        for (at, block) in blocks_of(chunk, slot).enumerate() {
            let bytes = (content.valid & 1 << at != 0).then(|| Bytes::copy_from_slice(given.next().unwrap()));
            any_fresh |= self.fresh.contains(&block);
            if self.stale.remove(&block) {
                match bytes {
                    Some(bytes) => drop(self.blocks.insert(block, bytes)),
                    None => drop(self.blocks.remove(&block)),
                }
            }
        }
        let stamp = self.stamps.entry((chunk, slot)).or_insert(Lsn::ZERO);
        *stamp = if any_fresh { content.stamp.max(*stamp) } else { content.stamp };
        Reply::Done
    }

    fn complete(&mut self, chunk: ChunkIndex, prefix: Lsn) -> Reply {
        if self.stale.iter().any(|block| block.0 == chunk) {
            return refuse(Status::Incomplete);
        }
        let entry = self.chunk(chunk);
        (entry.complete, entry.prefix) = (true, prefix);
        self.distrusted &= !(self.chunks.len() == 2 && self.chunks.values().all(|chunk| chunk.complete));
        Reply::Done
    }

    fn begin_sync(&mut self, after: Lsn) -> Reply {
        if self.distrusted && after != Lsn::ZERO {
            return refuse(Status::Incomplete);
        }
        self.syncing = true;
        self.fresh.clear();
        for chunk in self.chunks.values_mut() {
            *chunk = Chunk { prefix: chunk.prefix.min(after), adopted: Lsn::ZERO, complete: false };
        }
        let own: Vec<_> = self.stamps.iter().filter(|(_, stamp)| **stamp > after).map(|(slot, _)| *slot).collect();
        for (chunk, slot) in own {
            self.stale.extend(blocks_of(chunk, slot));
        }
        Reply::Done
    }

    fn finish_sync(&mut self) -> Reply {
        if !self.stale.is_empty() {
            return refuse(Status::Incomplete);
        }
        (self.syncing, self.distrusted) = (false, false);
        self.agreed = self.promised.expect("a writer asks");
        self.fresh.clear();
        for chunk in self.chunks.values_mut() {
            *chunk = Chunk { prefix: chunk.prefix.max(chunk.adopted), adopted: Lsn::ZERO, complete: true };
        }
        Reply::Done
    }
}

fn refuse(status: Status) -> Reply {
    Reply::Refused(Refusal { status, block: BlockIndex(0), reason: "for the test".to_owned() })
}

fn covers(range: ChunkRange, (chunk, block): Block) -> bool {
    range.chunk == chunk && range.start.0 <= block && block < range.end().0
}

fn blocks_of(chunk: ChunkIndex, slot: SlotIndex) -> impl Iterator<Item = Block> {
    let first = slot.first_block().0;
    (first..first + u64::from(BLOCKS_PER_SLOT)).map(move |block| (chunk, block))
}
