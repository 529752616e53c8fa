//! Admission: turns a request into a record. Here, and only here, places are given out; the record names them.
//!
//! A write of more than 32 KiB goes straight to fresh places with its whole slots; everything else goes through the
//! journal. Order of decisions: is it a duplicate, does it fit the open batch, are there places; only then is
//! anything changed.

use crate::Action;
use crate::config::SMALL_WRITE_BLOCKS_MAX;
use crate::direct::Direct;
use crate::engine::Engine;
use crate::journal::{Answer, Entry};
use crate::place::Place;
use crate::queue::{Verdict, Waiting, Work};
use crate::record::{Body, KEEP_BYTES_MAX, Piece, Record, SlotPart, slot_parts};
use crate::replica::SlotAddress;
use crate::store::{Flat, Flatness, Move, Payload};
use ashlar_types::{
    BLOCK_BYTES, BlockCount, BlockIndex, ChunkIndex, ChunkRange, Epoch, FloorRange, Lsn, Mutant, VolumeId,
};
use ashlar_wire::{BlockData, SlotContent};
use bytes::Bytes;

/// Upper bounds of the bytes of a record, by shape; the exact layout is in `record`.
const PLAIN_BYTES_MAX: usize = 208;
const HEAD_BYTES_MAX: usize = 64;
const FILL_HEAD_BYTES: usize = 88;
const PIECE_BYTES: usize = 8;
const CRC_BYTES: usize = 4;

impl Engine {
    pub(crate) fn admit(&mut self, front: &mut Waiting, out: &mut Vec<Action>) -> Verdict {
        match &mut front.work {
            Work::Write { .. } => self.admit_write(front, out),
            Work::Repair { .. } => self.admit_repair(front, out),
            Work::Fill { .. } => self.admit_fill(front, out),
            Work::Discard { .. } => self.admit_discard(front, out),
            Work::Merge { .. } => self.admit_merge(front, out),
            Work::Flatten { .. } => self.admit_flatten(front, out),
            Work::Flattened if !self.may_become_flat(front.volume) => Verdict::Nothing,
            _ => self.admit_plain(front, out),
        }
    }

    fn admit_write(&mut self, front: &Waiting, out: &mut Vec<Action>) -> Verdict {
        let Work::Write { range, lsn, floor, blocks } = &front.work else { unreachable!("a write") };
        let (range, volume) = (*range, front.volume);
        if *lsn <= self.expected_prefix(volume, range.chunk) {
            return Verdict::Nothing;
        }
        let is_large = range.count.0 > SMALL_WRITE_BLOCKS_MAX;
        let parts: Vec<SlotPart> = slot_parts(range).collect();
        let goes_direct = |part: &SlotPart| is_large && part.is_whole();
        let pages: u32 = parts.iter().filter(|part| !goes_direct(part)).map(|part| part.count).sum();
        if !self.journal.fits(record_bytes(parts.len(), range.count.0), pages) {
            return Verdict::Full;
        }
        let address = |part: &SlotPart| SlotAddress { volume, chunk: range.chunk, slot: part.slot, floor: *floor };
        let addresses = parts.iter().map(address);
        let touched: Vec<SlotAddress> = addresses.collect();
        let olds: Vec<Option<Place>> = touched.iter().map(|&address| self.expected_place(address)).collect();
        let first_touches = olds.iter().filter(|old| old.is_none()).count() as u32;
        let overwrites =
            parts.iter().zip(&olds).filter(|(part, old)| goes_direct(part) && old.is_some()).count() as u32;
        let reserve = if first_touches > 0 { self.reserve_slots() } else { 0 };
        if self.store.places.free() < first_touches + overwrites + reserve {
            if Mutant::DiskFullHalfWrite.is_on() && parts.len() > 1 {
                self.admit_half(front, &parts[0], out);
            }
            return self.no_place();
        }
        let (mut pieces, mut payload, mut directs) = (Vec::new(), Vec::new(), Vec::new());
        for (part, old) in parts.iter().zip(olds) {
            let data = part_data(blocks, part);
            if goes_direct(part) {
                let place = self.store.places.take().expect("free places were counted");
                directs.push(Direct { place, data });
                pieces.push(Piece { place, direct: true });
            } else {
                let place = old.or_else(|| self.store.places.take()).expect("free places were counted");
                // The end of a large frame must not keep the whole frame in RAM until it is in place.
                let data = if is_large { Bytes::copy_from_slice(&data) } else { data };
                payload.extend(split_blocks(&data));
                pieces.push(Piece { place, direct: false });
            }
        }
        for (&address, piece) in touched.iter().zip(&pieces) {
            self.pending.expect_place(address, Some(piece.place));
        }
        let body = Body::Write { range, lsn: *lsn, floor: *floor, pieces, crcs: blocks.crcs.clone() };
        self.add(front, body, payload, touched, directs, out)
    }

    /// A deliberate bug: one slot of a write goes into the journal under the lsn of the whole.
    fn admit_half(&mut self, front: &Waiting, part: &SlotPart, out: &mut Vec<Action>) {
        let Work::Write { range, lsn, floor, blocks } = &front.work else { unreachable!("a write") };
        let crcs = blocks.crcs[part.skipped as usize..(part.skipped + part.count) as usize].to_vec();
        let blocks = BlockData { crcs, data: part_data(blocks, part) };
        let range = ChunkRange { count: BlockCount(part.count), ..*range };
        let work = Work::Write { range, lsn: *lsn, floor: *floor, blocks };
        self.admit_write(&Waiting { volume: front.volume, commit: front.commit, to: None, work }, out);
    }

    fn admit_discard(&mut self, front: &Waiting, out: &mut Vec<Action>) -> Verdict {
        let Work::Discard { range, lsn, floor } = front.work else { unreachable!("a discard") };
        let volume = front.volume;
        if lsn <= self.expected_prefix(volume, range.chunk) {
            return Verdict::Nothing;
        }
        if !self.journal.fits(PLAIN_BYTES_MAX, 0) {
            return Verdict::Full;
        }
        let mut touched = Vec::new();
        let (mut release_first, mut release_last) = (false, false);
        for part in slot_parts(range) {
            let address = SlotAddress { volume, chunk: range.chunk, slot: part.slot, floor };
            let Some(place) = self.expected_place(address) else { continue };
            // Whether a partial discard empties the slot is known only when no other record is on its way to it.
            let empties = part.is_whole()
                || self.pending.place(address).is_none()
                    && self.store.slot(address).is_some_and(|slot| slot.valid & !part.bits() == 0);
            if empties && !part.is_whole() {
                release_first |= part.skipped == 0;
                release_last |= part.skipped > 0;
            }
            self.pending.expect_place(address, if empties { None } else { Some(place) });
            touched.push(address);
        }
        let body = Body::Discard { range, lsn, floor, release_first, release_last };
        self.add(front, body, Vec::new(), touched, Vec::new(), out)
    }

    fn admit_fill(&mut self, front: &Waiting, out: &mut Vec<Action>) -> Verdict {
        let Work::Fill { chunk, slot, floors, into, content } = &front.work else { unreachable!("a fill") };
        let address = SlotAddress { volume: front.volume, chunk: *chunk, slot: *slot, floor: *into };
        let versions = self.store.floors_of(address, *floors).into_iter().chain([*into]);
        let is_quiet =
            versions.map(|floor| SlotAddress { floor, ..address }).all(|at| self.pending.place(at).is_none());
        let (stale, fresh) = self.store.marks(address, *floors);
        if is_quiet && stale == 0 && self.journal.is_quiet() {
            return Verdict::Nothing;
        }
        // Records on their way can only add stale blocks to a slot that none of them writes, if they do not void them.
        let replaces_all = is_quiet && stale & !fresh == u16::MAX && !self.pending.is_voided(front.volume, *chunk);
        let direct = replaces_all && content.valid == u16::MAX;
        let pages = if direct { 0 } else { content.valid.count_ones() };
        if !self.journal.fits(FILL_HEAD_BYTES + content.valid.count_ones() as usize * CRC_BYTES, pages) {
            return Verdict::Full;
        }
        let old = self.expected_place(address);
        let place = match old {
            _ if content.valid == 0 && replaces_all => None,
            Some(_) if !direct => old,
            None if content.valid == 0 => None,
            _ => match self.store.places.take() {
                None => return self.no_place(),
                place => place,
            },
        };
        let (payload, directs) = match (direct, place) {
            (true, Some(place)) => (vec![], vec![Direct { place, data: content.blocks.data.clone() }]),
            _ => (split_blocks(&content.blocks.data).collect(), vec![]),
        };
        self.pending.expect_place(address, place);
        let SlotContent { stamp, set, valid, ref blocks } = *content;
        let (chunk, slot, floors, into, crcs) = (*chunk, *slot, *floors, *into, blocks.crcs.clone());
        let body = Body::Fill { chunk, slot, floors, into, stamp, set, valid, place, direct, crcs };
        self.add(front, body, payload, vec![address], directs, out)
    }

    /// A repair goes in parts, each of blocks that one version of a slot holds; the last one is answered.
    fn admit_repair(&mut self, front: &mut Waiting, out: &mut Vec<Action>) -> Verdict {
        let Work::Repair { range, below, blocks, done } = &front.work else { unreachable!("a repair") };
        let (range, below, done, volume) = (*range, *below, *done, front.volume);
        let holder = |index: u32| self.holder(volume, range.chunk, range.start.offset_by(BlockCount(index)), below);
        let Some((first, address)) = (done..range.count.0).find_map(|index| Some((index, holder(index)?))) else {
            return Verdict::Nothing;
        };
        let count = (first..range.count.0).take_while(|&index| holder(index) == Some(address)).count() as u32;
        if !self.journal.fits(record_bytes(1, count), count) {
            return Verdict::Full;
        }
        let old = self.expected_place(address);
        let Some(place) = old.or_else(|| self.store.places.take()) else { return self.no_place() };
        self.pending.expect_place(address, Some(place));
        let part = ChunkRange { start: range.start.offset_by(BlockCount(first)), count: BlockCount(count), ..range };
        let bytes = first as usize * BLOCK_BYTES as usize..(first + count) as usize * BLOCK_BYTES as usize;
        let data = Bytes::copy_from_slice(&blocks.data[bytes]);
        let crcs = blocks.crcs[first as usize..(first + count) as usize].to_vec();
        let is_last = first + count == range.count.0;
        let pieces = vec![Piece { place, direct: false }];
        let body = Body::Repair { range: part, floor: address.floor, pieces, crcs };
        let (volume, commit) = (front.volume, front.commit);
        let answer = match front.to {
            Some(to) if is_last => Answer::Done(to),
            _ => Answer::Nobody,
        };
        let record = Record { volume, commit, body };
        let entry = Entry { record, payload: split_blocks(&data).collect(), touched: vec![address], answer };
        self.add_record(entry, vec![], out);
        let Work::Repair { done, .. } = &mut front.work else { unreachable!("a repair") };
        *done = first + count;
        if is_last { Verdict::Admitted } else { Verdict::More }
    }

    /// The version to repair a block in, if there is content, or content that was lost: the one that it is read from,
    /// or the lowest one of a clone that reads it from its base.
    fn holder(&self, volume: VolumeId, chunk: ChunkIndex, block: BlockIndex, below: Lsn) -> Option<SlotAddress> {
        let bit = 1 << block.within_slot();
        let floors = FloorRange { from: Lsn::ZERO, below };
        let mut layers = self.store.layers(volume, chunk, block.slot(), floors);
        let (address, version) = layers.find(|(_, slot)| (slot.set | slot.stale | slot.lost) & bit != 0)?;
        let own = SlotAddress { volume, floor: Lsn::ZERO, ..address };
        let holder = if address.volume == volume { address } else { own };
        (version.lost & bit != 0 || self.expected_place(address).is_some()).then_some(holder)
    }

    /// The versions must still be what they were when the merge was planned, with nothing on its way to them.
    fn admit_merge(&mut self, front: &Waiting, out: &mut Vec<Action>) -> Verdict {
        let Work::Merge { pair, what, blocks } = &front.work else { unreachable!("a merge") };
        let is_quiet = |address: SlotAddress| self.pending.place(address).is_none();
        let now = self.store.plan_merge(*pair);
        let is_marked = self.pending.changes_marks(pair.volume);
        if now.as_ref() != Some(what) || is_marked || !is_quiet(pair.older()) || !is_quiet(pair.newer()) {
            return Verdict::Nothing;
        }
        let Move { place, moved, from } = what;
        if !self.journal.fits(record_bytes(0, moved.count_ones()), moved.count_ones()) {
            return Verdict::Full;
        }
        self.pending.expect_place(pair.older(), None);
        self.pending.expect_place(pair.newer(), *place);
        let crcs = from.iter().map(|(_, crc)| *crc).collect();
        let (chunk, slot, older, newer) = (pair.chunk, pair.slot, pair.older, pair.newer);
        let body = Body::Merge { chunk, slot, older, newer, place: *place, moved: *moved, crcs };
        let payload = blocks.iter().cloned().map(Some).collect();
        self.add(front, body, payload, vec![pair.older(), pair.newer()], vec![], out)
    }

    /// The slot must still lack what it lacked when that was read, with nothing on its way to it.
    fn admit_flatten(&mut self, front: &Waiting, out: &mut Vec<Action>) -> Verdict {
        let Work::Flatten { flat, blocks } = &front.work else { unreachable!("a slot to be made flat") };
        let Flat { volume, chunk, slot, zeros, lost, stamp, ref from } = *flat;
        let is_same = match self.store.flatness(volume, chunk, slot) {
            Flatness::Lacks(now) => now == *flat,
            Flatness::Flat | Flatness::Waits => false,
        };
        let is_quiet = self.pending.place(flat.target()).is_none() && self.may_become_flat(volume);
        if !is_same || !is_quiet || !self.has_place_for(flat) {
            return Verdict::Nothing;
        }
        let bits = |is_good: bool| {
            let of = from.iter().zip(blocks).filter(move |(_, block)| block.is_some() == is_good);
            of.fold(0u16, |bits, ((block, ..), _)| bits | 1 << block)
        };
        let (copied, bad) = (bits(true), bits(false));
        if !self.journal.fits(record_bytes(0, copied.count_ones()), copied.count_ones()) {
            return Verdict::Full;
        }
        let old = self.expected_place(flat.target());
        let place = if copied == 0 { old } else { old.or_else(|| self.store.places.take()) };
        self.pending.expect_place(flat.target(), place);
        let good = from.iter().zip(blocks).filter(|(_, block)| block.is_some());
        let crcs = good.map(|((_, _, crc), _)| *crc).collect();
        let payload = blocks.iter().flatten().cloned().map(Some).collect();
        let body = Body::Flatten { chunk, slot, zeros, copied, lost: lost | bad, place, stamp, crcs };
        self.add(front, body, payload, vec![flat.target()], vec![], out)
    }

    /// Records without payload and places.
    fn admit_plain(&mut self, front: &Waiting, out: &mut Vec<Action>) -> Verdict {
        let bytes = if matches!(front.work, Work::Keep(_) | Work::KeepPoints { .. }) {
            KEEP_BYTES_MAX
        } else {
            PLAIN_BYTES_MAX
        };
        if !self.journal.fits(bytes, 0) {
            return Verdict::Full;
        }
        let body = match &front.work {
            Work::Open { epoch, size, session, served } => {
                Body::Promise { epoch: *epoch, size: *size, session: *session, served: *served }
            }
            Work::Grow { epoch, size, session } => {
                Body::Promise { epoch: *epoch, size: *size, session: *session, served: Epoch::NONE }
            }
            Work::Delete { epoch, .. } => Body::DeleteVolume { epoch: *epoch },
            Work::Clone { epoch, size, base, .. } => Body::Clone { epoch: *epoch, size: *size, base: *base },
            Work::Flattened => Body::Flattened,
            Work::MarkStale(mark) => Body::MarkStale(*mark),
            Work::Keep(kept) | Work::KeepPoints { kept, .. } => Body::Keep(kept.clone()),
            Work::BeginSync { after } => Body::BeginSync { after: *after },
            Work::AdoptPrefix { chunk, prefix } => Body::AdoptPrefix { chunk: *chunk, prefix: *prefix },
            Work::CompleteChunk { chunk, prefix } => Body::CompleteChunk { chunk: *chunk, prefix: *prefix },
            Work::VoidStale { chunk } => Body::VoidStale { chunk: *chunk },
            Work::FinishSync => Body::FinishSync,
            _ => unreachable!("the work has a payload or places"),
        };
        self.add(front, body, vec![], vec![], vec![], out)
    }

    fn add(
        &mut self,
        front: &Waiting,
        body: Body,
        payload: Vec<Payload>,
        touched: Vec<SlotAddress>,
        directs: Vec<Direct>,
        out: &mut Vec<Action>,
    ) -> Verdict {
        let answer = match (&front.work, front.to) {
            (Work::Open { .. }, Some(to)) => Answer::Opened(to),
            (Work::Delete { op, .. }, _) => Answer::Deleted(*op),
            (Work::Clone { op, .. }, _) => Answer::Cloned(*op),
            (Work::KeepPoints { op, .. }, _) => Answer::PointsKept(*op),
            (Work::Flatten { .. } | Work::Flattened, _) => Answer::Flattened,
            (Work::Merge { .. }, _) => Answer::Merged,
            (_, Some(to)) => Answer::Done(to),
            (_, None) => Answer::Nobody,
        };
        let record = Record { volume: front.volume, commit: front.commit, body };
        self.add_record(Entry { record, payload, touched, answer }, directs, out);
        Verdict::Admitted
    }

    fn add_record(&mut self, entry: Entry, directs: Vec<Direct>, out: &mut Vec<Action>) {
        self.pending.expect_record(&entry.record);
        self.journal.add(entry);
        self.checkpoint.last_change = self.now;
        match directs.len() {
            1 => self.hold(directs, out),
            _ => self.write_directs(directs, out),
        }
    }

    /// The place that the slot will have when everything on its way is done.
    pub(crate) fn expected_place(&self, address: SlotAddress) -> Option<Place> {
        let durable = || self.store.slot(address).and_then(|slot| slot.place);
        self.pending.place(address).unwrap_or_else(durable)
    }

    fn expected_prefix(&self, volume: VolumeId, chunk: ChunkIndex) -> ashlar_types::Lsn {
        self.store.prefix(volume, chunk).max(self.pending.prefix(volume, chunk))
    }

    /// There are not enough free places. Places come free when what is on its way is done and a checkpoint has passed
    /// it.
    fn no_place(&self) -> Verdict {
        let may_come = !self.journal.is_quiet() || self.store.places.waiting() > 0;
        if may_come { Verdict::Blocked } else { Verdict::NoSpace }
    }
}

fn record_bytes(pieces: usize, crcs: u32) -> usize {
    HEAD_BYTES_MAX + pieces * PIECE_BYTES + crcs as usize * CRC_BYTES
}

fn part_data(blocks: &BlockData, part: &SlotPart) -> Bytes {
    let block = BLOCK_BYTES as usize;
    blocks.data.slice(part.skipped as usize * block..(part.skipped + part.count) as usize * block)
}

fn split_blocks(data: &Bytes) -> impl Iterator<Item = Payload> + '_ {
    let block = BLOCK_BYTES as usize;
    (0..data.len() / block).map(move |i| Some(data.slice(i * block..(i + 1) * block)))
}
