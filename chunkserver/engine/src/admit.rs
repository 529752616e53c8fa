//! Admission: turns a request into a record. Here, and only here, places are given out; the record names them.
//!
//! A write of more than 32 KiB goes straight to fresh places with its whole slots; everything else goes through the
//! journal. Order of decisions: is it a duplicate, does it fit the open batch, are there places; only then is
//! anything changed.

use crate::Action;
use crate::config::{REPAIR_BLOCKS_MAX, SMALL_WRITE_BLOCKS_MAX};
use crate::engine::{Engine, Op};
use crate::journal::{Answer, Entry};
use crate::place::Place;
use crate::queue::{Verdict, Waiting, Work};
use crate::record::{Body, Piece, Record, SlotPart, slot_parts};
use crate::replica::SlotAddress;
use crate::store::Payload;
use ashlar_types::{BLOCK_BYTES, BlockCount, ChunkIndex, ChunkRange, Epoch, Mutant, SLOT_BYTES, SlotIndex, VolumeId};
use ashlar_wire::{BlockData, SlotContent};
use bytes::Bytes;

/// Upper bounds of the bytes of a record, by shape; the exact layout is in `record`.
const PLAIN_BYTES_MAX: usize = 176;
const HEAD_BYTES_MAX: usize = 64;
const PIECE_BYTES: usize = 8;
const CRC_BYTES: usize = 4;

/// A whole slot to be written beside the journal.
struct Direct {
    place: Place,
    data: Bytes,
}

/// Whole slots at adjoining places: one durable write, so that the disk flushes once for all of them.
struct Run {
    first: Place,
    parts: Vec<Bytes>,
}

fn adjoining(directs: Vec<Direct>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for Direct { place, data } in directs {
        assert_eq!(data.len() as u64, SLOT_BYTES);
        match runs.last_mut() {
            Some(run) if run.first.0 + run.parts.len() as u32 == place.0 => run.parts.push(data),
            _ => runs.push(Run { first: place, parts: vec![data] }),
        }
    }
    runs
}

impl Engine {
    pub(crate) fn admit(&mut self, front: &mut Waiting, out: &mut Vec<Action>) -> Verdict {
        match &mut front.work {
            Work::Write { .. } => self.admit_write(front, out),
            Work::Repair { .. } => self.admit_repair(front, out),
            Work::Fill { .. } => self.admit_fill(front, out),
            Work::Discard { .. } => self.admit_discard(front, out),
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
        let addresses = parts.iter().map(|part| SlotAddress { volume, chunk: range.chunk, slot: part.slot });
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
            let address = SlotAddress { volume, chunk: range.chunk, slot: part.slot };
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
        let Work::Fill { chunk, slot, content } = &front.work else { unreachable!("a fill") };
        let address = SlotAddress { volume: front.volume, chunk: *chunk, slot: *slot };
        let is_quiet = self.pending.place(address).is_none();
        let stale = self.store.slot(address).map_or(0, |slot| slot.stale);
        if is_quiet && stale == 0 && self.journal.is_quiet() {
            return Verdict::Nothing;
        }
        // Records on their way can only add stale blocks to a slot that none of them writes, if they do not void them.
        let replaces_all = is_quiet && stale == u16::MAX && !self.pending.is_voided(front.volume, *chunk);
        let direct = replaces_all && content.valid == u16::MAX;
        let pages = if direct { 0 } else { content.valid.count_ones() };
        if !self.journal.fits(record_bytes(0, content.valid.count_ones()), pages) {
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
        let SlotContent { stamp, valid, blocks } = content;
        let crcs = blocks.crcs.clone();
        let body = Body::Fill { chunk: *chunk, slot: *slot, stamp: *stamp, valid: *valid, place, direct, crcs };
        self.add(front, body, payload, vec![address], directs, out)
    }

    /// A long repair goes in parts, of which the last one is answered.
    fn admit_repair(&mut self, front: &mut Waiting, out: &mut Vec<Action>) -> Verdict {
        let Work::Repair { range, blocks, done } = &front.work else { unreachable!("a repair") };
        let (range, done, volume) = (*range, *done, front.volume);
        let address = |slot: SlotIndex| SlotAddress { volume, chunk: range.chunk, slot };
        let rest = ChunkRange {
            start: range.start.offset_by(BlockCount(done)),
            count: BlockCount(range.count.0 - done),
            ..range
        };
        // Slots of which nothing is here, and nothing is lost, have nothing to repair.
        let repairable = |part: &SlotPart| {
            let slot = self.store.slot(address(part.slot));
            self.expected_place(address(part.slot)).is_some() || slot.is_some_and(|slot| slot.lost & part.bits() != 0)
        };
        let skipped: u32 = slot_parts(rest).take_while(|part| !repairable(part)).map(|part| part.count).sum();
        if skipped == rest.count.0 {
            return Verdict::Nothing;
        }
        let mut count = 0;
        for part in slot_parts(rest).skip_while(|part| !repairable(part)) {
            if !repairable(&part) || count + part.count > REPAIR_BLOCKS_MAX {
                break;
            }
            count += part.count;
        }
        let first = done + skipped;
        let part = ChunkRange { start: range.start.offset_by(BlockCount(first)), count: BlockCount(count), ..range };
        let slots: Vec<SlotAddress> = slot_parts(part).map(|part| address(part.slot)).collect();
        if !self.journal.fits(record_bytes(slots.len(), count), count) {
            return Verdict::Full;
        }
        let olds: Vec<Option<Place>> = slots.iter().map(|&address| self.expected_place(address)).collect();
        if self.store.places.free() < olds.iter().filter(|old| old.is_none()).count() as u32 {
            return self.no_place();
        }
        let take = |old: Option<Place>| old.or_else(|| self.store.places.take()).expect("free places were counted");
        let places: Vec<Place> = olds.into_iter().map(take).collect();
        for (&address, &place) in slots.iter().zip(&places) {
            self.pending.expect_place(address, Some(place));
        }
        let bytes = first as usize * BLOCK_BYTES as usize..(first + count) as usize * BLOCK_BYTES as usize;
        let data = Bytes::copy_from_slice(&blocks.data[bytes]);
        let crcs = blocks.crcs[first as usize..(first + count) as usize].to_vec();
        let pieces = places.into_iter().map(|place| Piece { place, direct: false }).collect();
        let is_last = first + count == range.count.0;
        let body = Body::Repair { range: part, pieces, crcs };
        let (volume, commit) = (front.volume, front.commit);
        let answer = match front.to {
            Some(to) if is_last => Answer::Done(to),
            _ => Answer::Nobody,
        };
        let record = Record { volume, commit, body };
        self.add_record(Entry { record, payload: split_blocks(&data).collect(), touched: slots, answer }, vec![], out);
        let Work::Repair { done, .. } = &mut front.work else { unreachable!("a repair") };
        *done = first + count;
        if is_last { Verdict::Admitted } else { Verdict::More }
    }

    /// Records without payload and places.
    fn admit_plain(&mut self, front: &Waiting, out: &mut Vec<Action>) -> Verdict {
        if !self.journal.fits(PLAIN_BYTES_MAX, 0) {
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
            Work::MarkStale { chunk, after, slots } => Body::MarkStale { chunk: *chunk, after: *after, slots: *slots },
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
            (_, Some(to)) => Answer::Done(to),
            (_, None) => Answer::Nobody,
        };
        let record = Record { volume: front.volume, commit: front.commit, body };
        self.add_record(Entry { record, payload, touched, answer }, directs, out);
        Verdict::Admitted
    }

    fn add_record(&mut self, entry: Entry, directs: Vec<Direct>, out: &mut Vec<Action>) {
        self.pending.expect_record(&entry.record);
        let runs = adjoining(directs);
        let sequence = self.journal.add(entry, runs.len() as u32);
        self.checkpoint.last_change = self.now;
        for Run { first, parts } in runs {
            self.counters.direct_bytes += parts.len() as u64 * SLOT_BYTES;
            let op = self.begin_op(Op::Direct(sequence));
            let offset = first.offset(self.data_offset());
            out.push(Action::Write { op, offset, parts, durable: true });
        }
    }

    /// The place that the slot will have when everything on its way is done.
    fn expected_place(&self, address: SlotAddress) -> Option<Place> {
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
