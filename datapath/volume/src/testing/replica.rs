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
/// A block under a floor.
pub(crate) type Version = (ChunkIndex, u64, Lsn);

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
    /// `None`: zeros.
    pub(crate) blocks: BTreeMap<Version, Option<Bytes>>,
    pub(crate) stamps: BTreeMap<(ChunkIndex, SlotIndex, Lsn), Lsn>,
    pub(crate) stale: BTreeSet<Version>,
    fresh: BTreeSet<Version>,
    /// Highest of a write.
    pub(crate) floor: Lsn,
    pub(crate) kept: Option<Kept>,
    /// Content and checksum differ.
    pub(crate) bad: BTreeSet<Block>,
    /// Of these, the ones that its scrub has found.
    pub(crate) found: BTreeSet<Block>,
    /// They are bad in an old version, whose next one has this floor; none: in the present.
    pub(crate) found_below: Option<Lsn>,
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
    /// Nothing is left of it but its promise.
    pub(crate) deleted: bool,
    pub(crate) log: Vec<Request>,
}

impl Replica {
    pub(crate) fn take(&mut self, frame: RequestFrame) -> ReplyFrame {
        assert_eq!(Some(frame.session), self.session);
        self.log.push(frame.message.clone());
        self.commit = self.commit.max(frame.commit);
        let refused = self.refuse.take_if(|(name, _)| format!("{:?}", frame.message).starts_with(*name));
        let message = match (refused, self.promised) {
            _ if self.deleted => refuse(Status::Deleted),
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
                let (commit, floor, syncing) = (self.commit, self.floor, self.syncing || self.distrusted);
                let last = self.chunks.values().map(|chunk| chunk.prefix).max().unwrap_or(Lsn::ZERO);
                Reply::Opened(Opened { commit, floor, syncing, last, agreed, session_before })
            }
            Request::Report { .. } => self.report(),
            Request::Write { range, lsn, floor, blocks } => self.change(range, lsn, floor, Some(blocks.data)),
            Request::Discard { range, lsn, floor } => self.change(range, lsn, floor, None),
            Request::Read { range, below } => self.read(range, below),
            Request::Repair { range, .. } => {
                self.bad.retain(|block| !covers(range, *block));
                Reply::Done
            }
            Request::ListChanged { from, until, after, floors } => self.changed(from, until, after, floors),
            Request::MarkStale { chunk, after, floors, into, slots } => {
                self.mark_stale(chunk, after, floors, into, slots)
            }
            Request::ListStale { from, floors } => self.list_stale(from, floors),
            Request::ReadSlot { chunk, slot, floors } => self.read_slot(chunk, slot, floors),
            Request::Fill { chunk, slot, floors, into, content } => self.fill(chunk, slot, floors, into, content),
            Request::CompleteChunk { chunk, prefix } => self.complete(chunk, prefix),
            Request::VoidStale { chunk } => {
                self.stale.retain(|version| version.0 != chunk);
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
            Request::Keep(kept) => {
                self.kept = Some(kept);
                Reply::Done
            }
            Request::Ping | Request::Grow { .. } => Reply::Done,
            Request::Usage => Reply::Held(vec![]),
            Request::ListBad { from, slot } => self.list_bad(from, slot),
            Request::Digest { chunk, below } => self.digests(chunk, below),
            Request::Observe(_) | Request::ListBlocks { .. } => unreachable!("a writer does not observe"),
        }
    }

    pub(crate) fn chunk(&mut self, chunk: ChunkIndex) -> &mut Chunk {
        let complete = !self.syncing && !self.distrusted;
        self.chunks.entry(chunk).or_insert(Chunk { prefix: Lsn::ZERO, adopted: Lsn::ZERO, complete })
    }

    /// The byte that the block is full of.
    pub(crate) fn byte(&self, chunk: u32, block: u64) -> u8 {
        self.byte_below(chunk, block, Lsn::MAX)
    }

    pub(crate) fn byte_below(&self, chunk: u32, block: u64, below: Lsn) -> u8 {
        self.newest((ChunkIndex(chunk), block), FloorRange { from: Lsn::ZERO, below })
            .and_then(|version| self.blocks[&version].as_ref())
            .map_or(0, |data| data[0])
    }

    fn newest(&self, (chunk, block): Block, floors: FloorRange) -> Option<Version> {
        let range = (chunk, block, floors.from)..(chunk, block, floors.below);
        self.blocks.range(range).next_back().map(|(&version, _)| version)
    }

    /// Versions of a block of which something is said, be it that it is stale.
    fn versions(&self, (chunk, block): Block, floors: FloorRange) -> Vec<Version> {
        let range = || (chunk, block, floors.from)..(chunk, block, floors.below);
        let said: BTreeSet<Version> =
            self.blocks.range(range()).map(|(&version, _)| version).chain(self.stale.range(range()).copied()).collect();
        said.into_iter().collect()
    }

    /// As if written by an earlier writer.
    pub(crate) fn had(&mut self, chunk: u32, block: u64, lsn: u64, byte: u8) {
        let range = ChunkRange { chunk: ChunkIndex(chunk), start: BlockIndex(block), count: BlockCount(1) };
        self.change(range, Lsn::from_raw(lsn), Lsn::ZERO, Some(Bytes::from(vec![byte; BLOCK_BYTES as usize])));
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

    fn change(&mut self, range: ChunkRange, lsn: Lsn, floor: Lsn, data: Option<Bytes>) -> Reply {
        if lsn <= self.chunk(range.chunk).prefix {
            return Reply::Done;
        }
        for at in 0..u64::from(range.count.0) {
            let index = BlockIndex(range.start.0 + at);
            let version = (range.chunk, index.0, floor);
            let slice = (at * BLOCK_BYTES) as usize..((at + 1) * BLOCK_BYTES) as usize;
            self.blocks.insert(version, data.as_ref().map(|data| data.slice(slice)));
            self.bad.remove(&(range.chunk, index.0));
            self.stale.remove(&version);
            if self.syncing {
                self.fresh.insert(version);
            }
            self.stamps.insert((range.chunk, index.slot(), floor), lsn);
        }
        self.chunk(range.chunk).prefix = lsn;
        self.floor = self.floor.max(floor);
        Reply::Done
    }

    /// Awaits a copy: nothing newer among the floors stands before the stale one.
    fn is_stale(&self, block: Block, floors: FloorRange) -> bool {
        self.versions(block, floors).last().is_some_and(|version| self.stale.contains(version))
    }

    /// Two slots a page.
    fn list_bad(&self, from: ChunkIndex, slot: SlotIndex) -> Reply {
        let slot_of = |block: &Block| (block.0, BlockIndex(block.1).slot());
        let slots: BTreeSet<_> =
            self.found.intersection(&self.bad).map(slot_of).filter(|at| *at >= (from, slot)).collect();
        let entry = |&(chunk, slot): &(ChunkIndex, SlotIndex)| {
            let among = self.found.intersection(&self.bad).filter(|block| slot_of(block) == (chunk, slot));
            let blocks = among.fold(0, |bits, block| bits | 1 << BlockIndex(block.1).within_slot());
            BadBlocks { chunk, slot, below: self.found_below.unwrap_or(Lsn::MAX), blocks }
        };
        Reply::Bad { entries: slots.iter().take(2).map(entry).collect(), more: slots.len() > 2 }
    }

    /// A slot with a bad block is one that is not here.
    fn digests(&self, chunk: ChunkIndex, below: Lsn) -> Reply {
        let (mut entries, mut unknown) = (vec![], SlotSet::EMPTY);
        for slot in (0..SLOTS_PER_CHUNK as u16).map(SlotIndex) {
            let bytes: Vec<u8> =
                blocks_of(chunk, slot).map(|(_, block)| self.byte_below(chunk.0, block, below)).collect();
            if blocks_of(chunk, slot).any(|block| self.bad.contains(&block)) {
                unknown.insert(slot);
            } else if bytes.iter().any(|byte| *byte != 0) {
                entries.push(SlotDigest { slot, digest: Crc32::of(&bytes) });
            }
        }
        Reply::Digests { entries, unknown }
    }

    fn read(&self, range: ChunkRange, below: Lsn) -> Reply {
        let floors = FloorRange { from: Lsn::ZERO, below };
        if (range.start.0..range.end().0).any(|block| self.is_stale((range.chunk, block), floors)) {
            return refuse(Status::Stale);
        }
        if self.bad.iter().any(|block| covers(range, *block)) {
            return refuse(Status::BadBlock);
        }
        let mut data = BytesMut::new();
        for at in range.start.0..range.end().0 {
            let version = self.newest((range.chunk, at), floors);
            match version.and_then(|version| self.blocks[&version].as_ref()) {
                Some(bytes) => data.extend_from_slice(bytes),
                None => data.extend_from_slice(&[0; BLOCK_BYTES as usize]),
            }
        }
        Reply::Data(BlockData::seal(data.freeze()))
    }

    fn changed(&self, from: ChunkIndex, until: ChunkIndex, after: Lsn, floors: FloorRange) -> Reply {
        let mut entries = vec![];
        for (&chunk, entry) in self.chunks.range(from..until) {
            let is_changed = |((at, _, floor), stamp): &(&(ChunkIndex, SlotIndex, Lsn), &Lsn)| {
                *at == chunk && **stamp > after && floors.contains(*floor)
            };
            let slots: SlotSet = self.stamps.iter().filter(is_changed).map(|((_, slot, _), _)| *slot).collect();
            if !slots.is_empty() || entry.prefix > after {
                entries.push(ChangedSlots { chunk, prefix: entry.prefix, slots });
            }
        }
        Reply::Changed { entries, next: None }
    }

    fn mark_stale(&mut self, chunk: ChunkIndex, after: Lsn, floors: FloorRange, into: Lsn, slots: SlotSet) -> Reply {
        let in_a_return = self.syncing;
        let entry = self.chunk(chunk);
        entry.complete = false;
        if !in_a_return {
            entry.prefix = entry.prefix.min(after);
        }
        for slot in slots.iter() {
            self.stamps.entry((chunk, slot, into)).or_insert(Lsn::ZERO);
            let named = self.stamps.range((chunk, slot, floors.from)..(chunk, slot, floors.below));
            let named: Vec<Lsn> = named.map(|((_, _, floor), _)| *floor).collect();
            named.into_iter().for_each(|floor| self.mark_version(chunk, slot, floor));
        }
        self.mark_own(Some(chunk), after);
        Reply::Done
    }

    fn mark_own(&mut self, only: Option<ChunkIndex>, after: Lsn) {
        let is_own = |((chunk, _, _), stamp): &(&(ChunkIndex, SlotIndex, Lsn), &Lsn)| {
            only.is_none_or(|only| only == *chunk) && **stamp > after
        };
        let own: Vec<_> = self.stamps.iter().filter(is_own).map(|(version, _)| *version).collect();
        own.into_iter().for_each(|(chunk, slot, floor)| self.mark_version(chunk, slot, floor));
    }

    fn mark_version(&mut self, chunk: ChunkIndex, slot: SlotIndex, floor: Lsn) {
        let versions = blocks_of(chunk, slot).map(|(chunk, block)| (chunk, block, floor));
        let awaited: Vec<Version> = versions.filter(|version| !self.fresh.contains(version)).collect();
        self.stale.extend(awaited);
    }

    fn list_stale(&self, from: ChunkIndex, floors: FloorRange) -> Reply {
        let mut chunks: BTreeMap<ChunkIndex, SlotSet> = BTreeMap::new();
        for &(chunk, block, _) in self.stale.iter().filter(|version| version.0 >= from && floors.contains(version.2)) {
            chunks.entry(chunk).or_default().insert(BlockIndex(block).slot());
        }
        let entry = |(chunk, slots)| ChangedSlots { chunk, prefix: Lsn::ZERO, slots };
        let next = self.in_circles.then_some(ChunkIndex(0));
        Reply::Changed { entries: chunks.into_iter().map(entry).collect(), next }
    }

    fn read_slot(&self, chunk: ChunkIndex, slot: SlotIndex, floors: FloorRange) -> Reply {
        let (mut set, mut valid, mut data) = (0, 0, BytesMut::new());
        for (at, block) in blocks_of(chunk, slot).enumerate() {
            if self.bad.contains(&block) {
                return refuse(Status::BadBlock);
            }
            if self.is_stale(block, floors) {
                return refuse(Status::Stale);
            }
            let Some(version) = self.newest(block, floors) else { continue };
            set |= 1 << at;
            if let Some(bytes) = &self.blocks[&version] {
                valid |= 1 << at;
                data.extend_from_slice(bytes);
            }
        }
        let stamps = self.stamps.range((chunk, slot, floors.from)..(chunk, slot, floors.below));
        let stamp = stamps.map(|(_, stamp)| *stamp).max().unwrap_or(Lsn::ZERO);
        Reply::Slot(SlotContent { stamp, set, valid, blocks: BlockData::seal(data.freeze()) })
    }

    fn fill(
        &mut self,
        chunk: ChunkIndex,
        slot: SlotIndex,
        floors: FloorRange,
        into: Lsn,
        content: SlotContent,
    ) -> Reply {
        let mut given = content.blocks.data.chunks(BLOCK_BYTES as usize);
        let mut any_fresh = false;
        for (at, block) in blocks_of(chunk, slot).enumerate() {
            let bytes = (content.valid & 1 << at != 0).then(|| Bytes::copy_from_slice(given.next().unwrap()));
            let (fresh, old): (Vec<Version>, Vec<Version>) =
                self.versions(block, floors).into_iter().partition(|version| self.fresh.contains(version));
            any_fresh |= !fresh.is_empty();
            let awaited: Vec<Version> = old.into_iter().filter(|version| self.stale.remove(version)).collect();
            awaited.iter().for_each(|version| drop(self.blocks.remove(version)));
            if !awaited.is_empty() && fresh.is_empty() && content.set & 1 << at != 0 {
                self.blocks.insert((block.0, block.1, into), bytes);
            }
        }
        let stamp = self.stamps.entry((chunk, slot, into)).or_insert(Lsn::ZERO);
        *stamp = if any_fresh { content.stamp.max(*stamp) } else { content.stamp };
        Reply::Done
    }

    fn complete(&mut self, chunk: ChunkIndex, prefix: Lsn) -> Reply {
        if self.stale.iter().any(|version| version.0 == chunk) {
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
        self.mark_own(None, after);
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
