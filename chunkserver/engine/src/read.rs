//! Reads: blocks come from RAM, from their places, or are zeros; every block is compared with its checksum before it
//! is handed out.
//!
//! A read holds no lock on what it reads. If the slot was written, moved or discarded meanwhile, the bytes may be
//! another's: then they do not match the checksum that was current when the read began, the entry differs from then,
//! and the read begins again. Bytes that match are what the block held when the read began. So a place may be given
//! to another slot under a read; nothing wrong gets out.

use crate::engine::{Engine, Op, refusal};
use crate::event::DiskError;
use crate::place::DiskBlock;
use crate::session::ReplyTo;
use crate::{Action, config::READ_RETRIES_MAX};
use ashlar_types::{
    BLOCK_BYTES, BLOCKS_PER_SLOT, BlockIndex, ByteCount, ChunkIndex, ChunkRange, Crc32, FloorRange, Lsn, Mutant,
    SlotIndex, VolumeId,
};
use ashlar_wire::{BlockData, Reply, SlotContent, Status};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;

const PAGE: usize = BLOCK_BYTES as usize;

#[derive(Default)]
pub(crate) struct Reads {
    next: u64,
    active: HashMap<u64, Active>,
}

/// Whom a read is for, and of what.
#[derive(Clone, Copy)]
struct Target {
    to: ReplyTo,
    chunk: ChunkIndex,
    floors: FloorRange,
    form: Form,
}

/// A slot at one moment: what is set in it, and the blocks that do not read as zeros.
struct SlotState {
    stamp: Lsn,
    set: u16,
    valid: Vec<(BlockIndex, Crc32)>,
}

struct Active {
    target: Target,
    /// What is read: blocks of the chunk, ascending.
    blocks: Vec<BlockIndex>,
    found: Vec<Found>,
    pieces: Vec<Piece>,
    outstanding: usize,
    retries: u32,
}

/// How the answer looks.
#[derive(Clone, Copy)]
enum Form {
    Data,
    Slot { slot: SlotIndex },
}

/// Where a block's content is, and its checksum.
#[derive(Clone, PartialEq, Eq)]
struct Found {
    crc: Crc32,
    source: Source,
}

#[derive(Clone, PartialEq, Eq)]
enum Source {
    Zeros,
    Ram(Bytes),
    Disk(DiskBlock),
}

/// Adjoining blocks read with one operation.
struct Piece {
    first: usize,
    count: usize,
    data: Option<Bytes>,
}

type Fault = (Status, BlockIndex, &'static str);

impl Engine {
    pub(crate) fn read(&mut self, to: ReplyTo, range: ChunkRange, below: Lsn, out: &mut Vec<Action>) {
        let blocks = (0..u64::from(range.count.0)).map(|i| BlockIndex(range.start.0 + i)).collect();
        let floors = FloorRange { from: Lsn::ZERO, below };
        self.begin_read(Target { to, chunk: range.chunk, floors, form: Form::Data }, blocks, 0, out);
    }

    pub(crate) fn read_slot(
        &mut self,
        to: ReplyTo,
        chunk: ChunkIndex,
        slot: SlotIndex,
        floors: FloorRange,
        out: &mut Vec<Action>,
    ) {
        self.begin_slot(Target { to, chunk, floors, form: Form::Slot { slot } }, slot, 0, out);
    }

    fn begin_slot(&mut self, target: Target, slot: SlotIndex, retries: u32, out: &mut Vec<Action>) {
        match self.slot_state(&target, slot) {
            Ok(state) => {
                let blocks = state.valid.into_iter().map(|(block, _)| block).collect();
                self.begin_read(target, blocks, retries, out);
            }
            Err(fault) => self.refuse_block(target.to, fault, out),
        }
    }

    /// What the slot's layers among the target's floors make together.
    fn slot_state(&self, target: &Target, slot: SlotIndex) -> Result<SlotState, Fault> {
        let Target { to, chunk, floors, .. } = *target;
        let layers = self.store.layers(to.volume, chunk, slot, floors);
        let stamp = layers.map(|(_, layer)| layer.stamp).max().unwrap_or(Lsn::ZERO);
        let mut state = SlotState { stamp, set: 0, valid: Vec::new() };
        for within in 0..BLOCKS_PER_SLOT {
            let block = BlockIndex(slot.first_block().0 + u64::from(within));
            if let Some(found) = self.find_set(to.volume, chunk, block, floors)? {
                state.set |= 1 << within;
                if found.source != Source::Zeros {
                    state.valid.push((block, found.crc));
                }
            }
        }
        Ok(state)
    }

    fn begin_read(&mut self, target: Target, blocks: Vec<BlockIndex>, retries: u32, out: &mut Vec<Action>) {
        let found = match blocks.iter().map(|&block| self.find(&target, block)).collect::<Result<Vec<_>, _>>() {
            Ok(found) => found,
            Err(fault) => return self.refuse_block(target.to, fault, out),
        };
        let pieces = disk_pieces(&found);
        let read = self.reads.next;
        self.reads.next += 1;
        let outstanding = pieces.len();
        for (index, piece) in pieces.iter().enumerate() {
            self.issue(read, index, &found[piece.first], piece.count, out);
        }
        self.reads.active.insert(read, Active { target, blocks, found, pieces, outstanding, retries });
        if outstanding == 0 {
            self.finish_read(read, out);
        }
    }

    fn issue(&mut self, read: u64, piece: usize, first: &Found, count: usize, out: &mut Vec<Action>) {
        let Source::Disk(block) = first.source else { unreachable!("a piece is on the disk") };
        let op = self.begin_op(Op::Read { read, piece });
        let bytes = ByteCount((count * PAGE) as u64);
        self.counters.read_bytes += bytes.0;
        out.push(Action::Read { op, offset: block.offset(self.data_offset()), bytes });
    }

    /// Where a block's content is now.
    fn find(&self, target: &Target, block: BlockIndex) -> Result<Found, Fault> {
        let found = self.find_set(target.to.volume, target.chunk, block, target.floors)?;
        Ok(found.unwrap_or(Found { crc: Crc32::ZERO_BLOCK, source: Source::Zeros }))
    }

    /// The same; `None` where no layer among `floors` says anything of the block.
    fn find_set(
        &self,
        volume: VolumeId,
        chunk: ChunkIndex,
        block: BlockIndex,
        floors: FloorRange,
    ) -> Result<Option<Found>, Fault> {
        if self.store.replica(volume).is_none() {
            return Err((Status::Deleted, block, "the replica was deleted"));
        }
        let within = block.within_slot();
        let bit = 1 << within;
        for (_, version) in self.store.layers(volume, chunk, block.slot(), floors) {
            match version.place {
                _ if version.stale & bit != 0 => return Err((Status::Stale, block, "the block awaits a copy")),
                _ if version.lost & bit != 0 => return Err((Status::BadBlock, block, "the block was lost")),
                _ if version.set & bit == 0 => {}
                _ if version.valid & bit == 0 => {
                    return Ok(Some(Found { crc: Crc32::ZERO_BLOCK, source: Source::Zeros }));
                }
                None => unreachable!("a valid block has a place"),
                Some(place) => {
                    let at = place.block(within);
                    let data = self.store.overlay.get(at);
                    let source = data.map_or(Source::Disk(at), |data| Source::Ram(data.clone()));
                    return Ok(Some(Found { crc: version.crcs[within as usize], source }));
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn read_piece_done(
        &mut self,
        read: u64,
        index: usize,
        result: Result<Bytes, DiskError>,
        out: &mut Vec<Action>,
    ) {
        let active = self.reads.active.get_mut(&read).expect("the read is under way");
        active.outstanding -= 1;
        let (first, count) = (active.pieces[index].first, active.pieces[index].count);
        match result {
            Ok(data) => {
                assert_eq!(data.len(), count * PAGE, "a read gives what was asked for");
                active.pieces[index].data = Some(data);
            }
            // The medium failed somewhere in the piece: block by block it shows where.
            Err(_) if count > 1 => {
                let single = |i| Piece { first: first + i, count: 1, data: None };
                active.pieces[index].count = 0;
                let from = active.pieces.len();
                active.pieces.extend((0..count).map(single));
                active.outstanding += count;
                let found = active.found[first..first + count].to_vec();
                for (i, found) in found.iter().enumerate() {
                    self.issue(read, from + i, found, 1, out);
                }
            }
            Err(_) => {}
        }
        if self.reads.active[&read].outstanding == 0 {
            self.finish_read(read, out);
        }
    }

    fn finish_read(&mut self, read: u64, out: &mut Vec<Action>) {
        let active = self.reads.active.remove(&read).expect("the read is under way");
        let Target { to, form, .. } = active.target;
        if self.sessions.get(to.link).is_none() {
            return; // Nobody is there to hear it, and the replica may be another's.
        }
        let bad = active.bad_blocks();
        if let Some(&first) = bad.first() {
            let now = |&i: &usize| self.find(&active.target, active.blocks[i]);
            let is_same = bad.iter().all(|i| now(i).is_ok_and(|found| found == active.found[*i]));
            if is_same || active.retries == READ_RETRIES_MAX {
                self.counters.bad_blocks += bad.len() as u64;
                self.note_read_bad(&active.target, bad.iter().map(|&index| active.blocks[index]));
                let fault = (Status::BadBlock, active.blocks[first], "content and checksum differ, or no content");
                return self.refuse_block(to, fault, out);
            }
            return self.read_again(active, out);
        }
        match form {
            Form::Data => {
                let data = active.assemble();
                self.reply(to, Reply::Data(data), out);
            }
            Form::Slot { slot } => self.finish_slot(active, slot, out),
        }
    }

    /// Whoever reads may be nobody who repairs.
    fn note_read_bad(&mut self, target: &Target, bad: impl Iterator<Item = BlockIndex>) {
        for block in bad {
            let bit = 1 << block.within_slot();
            let holder = {
                let mut layers = self.store.layers(target.to.volume, target.chunk, block.slot(), target.floors);
                layers.find(|(_, version)| version.set & bit != 0).map(|(address, _)| address)
            };
            if let Some(address) = holder {
                self.note_bad(address, bit);
            }
        }
    }

    /// A slot's stamp and content must be of one moment.
    fn finish_slot(&mut self, active: Active, slot: SlotIndex, out: &mut Vec<Action>) {
        let to = active.target.to;
        let read = active.blocks.iter().copied().zip(active.found.iter().map(|found| found.crc));
        let state = self.slot_state(&active.target, slot).ok();
        match state.filter(|state| state.valid.iter().copied().eq(read)) {
            Some(SlotState { stamp, set, valid }) => {
                let valid = valid.iter().fold(0, |bits, (block, _)| bits | 1 << block.within_slot());
                let blocks = active.assemble();
                self.reply(to, Reply::Slot(SlotContent { stamp, set, valid, blocks }), out);
            }
            None if active.retries < READ_RETRIES_MAX => self.read_again(active, out),
            None => {
                let fault = (Status::Stale, slot.first_block(), "the slot keeps changing under the read");
                self.refuse_block(to, fault, out);
            }
        }
    }

    fn read_again(&mut self, active: Active, out: &mut Vec<Action>) {
        self.counters.read_retries += 1;
        let Active { target, blocks, retries, .. } = active;
        match target.form {
            Form::Data => self.begin_read(target, blocks, retries + 1, out),
            Form::Slot { slot } => self.begin_slot(target, slot, retries + 1, out),
        }
    }

    fn refuse_block(&mut self, to: ReplyTo, (status, block, reason): Fault, out: &mut Vec<Action>) {
        self.counters.refused += 1;
        self.reply(to, refusal(status, block, reason), out);
    }
}

impl Active {
    /// Indexes of the blocks that were read and are not what their checksums say.
    fn bad_blocks(&self) -> Vec<usize> {
        let mut bad = Vec::new();
        for piece in &self.pieces {
            for i in 0..piece.count {
                let block = piece.data.as_ref().map(|data| &data[i * PAGE..(i + 1) * PAGE]);
                let differs = |block: &[u8]| Crc32::of(block) != self.found[piece.first + i].crc;
                if block.is_none_or(|block| differs(block) && !Mutant::BitFlipReturned.is_on()) {
                    bad.push(piece.first + i);
                }
            }
        }
        bad.sort_unstable();
        bad
    }

    fn assemble(&self) -> BlockData {
        let crcs = self.found.iter().map(|found| found.crc).collect();
        if let [Piece { first: 0, count, data: Some(data) }] = &self.pieces[..]
            && *count == self.blocks.len()
        {
            return BlockData { crcs, data: data.clone() };
        }
        let mut data = BytesMut::zeroed(self.blocks.len() * PAGE);
        for (i, found) in self.found.iter().enumerate() {
            if let Source::Ram(block) = &found.source {
                data[i * PAGE..(i + 1) * PAGE].copy_from_slice(block);
            }
        }
        for piece in self.pieces.iter().filter(|piece| piece.count > 0) {
            let bytes = piece.data.as_ref().expect("every piece was read");
            data[piece.first * PAGE..(piece.first + piece.count) * PAGE].copy_from_slice(bytes);
        }
        BlockData { crcs, data: data.freeze() }
    }
}

/// The blocks that are on the disk, adjoining ones together.
fn disk_pieces(found: &[Found]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut next = None;
    for (index, found) in found.iter().enumerate() {
        let Source::Disk(block) = found.source else {
            next = None;
            continue;
        };
        match pieces.last_mut() {
            Some(piece) if next == Some(block) => piece.count += 1,
            _ => pieces.push(Piece { first: index, count: 1, data: None }),
        }
        next = Some(block.next());
    }
    pieces
}

const _: () = assert!(BLOCKS_PER_SLOT as usize * PAGE == ashlar_types::SLOT_BYTES as usize);
