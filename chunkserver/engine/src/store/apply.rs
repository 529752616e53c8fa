//! What a durable record does to the store: writes, discards, fills, repairs and promises.

use super::{Flatness, Ground, Outcome, Store};
use crate::place::Sequence;
use crate::record::{Body, Piece, Record, bits_of, slot_parts};
use crate::replica::{Replica, Slot, SlotAddress};
use ashlar_types::{ByteCount, ChunkIndex, ChunkRange, Crc32, Epoch, Lsn, Mutant, SessionId, VolumeId};
use bytes::Bytes;

/// A payload block of a record: `None` when the journal no longer has it.
pub(crate) type Payload = Option<Bytes>;

/// New content of one block of a slot.
pub(super) struct Content {
    pub(super) block: u32,
    pub(super) crc: Crc32,
    /// `None`: it is at the place already.
    pub(super) data: Option<Payload>,
}

impl Store {
    /// Applies a record of batch `by`. `payload` has the journalled blocks in the order of `Record::payload`.
    pub(crate) fn apply(&mut self, record: &Record, payload: &[Payload], by: Sequence) -> Outcome {
        assert_eq!(payload.len() as u32, record.payload_pages());
        let volume = record.volume;
        match &record.body {
            Body::Promise { epoch, size, session, served } => {
                if self.volumes.get(&volume).map_or(Epoch::NONE, |replica| replica.agreed) < *served {
                    self.volumes.entry(volume).or_insert_with(|| Replica::new(Epoch::NONE, *size));
                    self.distrust(volume);
                }
                let goes_on = self.replica(volume).is_some_and(|replica| replica.session == *session);
                self.promise(volume, *epoch, *size, *session);
                // A volume that grows makes the same promise again, and its return goes on.
                if !goes_on {
                    self.void_fresh(volume);
                }
            }
            Body::DeleteVolume { epoch } => self.delete(volume, *epoch, by),
            Body::Clone { epoch, size, base } => return self.make_clone(volume, *epoch, *size, *base),
            // What clones read of a deleted volume is merged further.
            Body::Merge { .. } if self.volumes.contains_key(&volume) => {}
            _ if self.replica(volume).is_none() => return Outcome::Done,
            _ => {}
        }
        self.hear_commit(volume, record.commit);
        match &record.body {
            Body::Promise { .. } | Body::DeleteVolume { .. } | Body::Clone { .. } => Outcome::Done,
            Body::Write { range, lsn, floor, pieces, crcs } => {
                self.write(volume, (*range, *floor), pieces, crcs, payload, (*lsn, by));
                self.advance(volume, range.chunk, *lsn, *floor)
            }
            Body::Discard { range, lsn, floor, release_first, release_last } => {
                self.discard(volume, *range, (*release_first, *release_last), (*lsn, *floor), by);
                self.advance(volume, range.chunk, *lsn, *floor)
            }
            Body::Fill { .. } => self.fill(record, payload, by),
            Body::Repair { range, floor, pieces, crcs } => {
                self.repair(volume, (*range, *floor), pieces, crcs, payload, by)
            }
            Body::MarkStale(mark) => self.mark_stale(volume, mark),
            Body::Keep(kept) => self.keep(volume, kept),
            Body::Merge { .. } => self.merge(record, payload, by),
            Body::Flatten { .. } => self.flatten(record, payload, by),
            Body::Flattened => self.flattened(volume, by),
            Body::BeginSync { after } => self.begin_sync(volume, *after),
            Body::AdoptPrefix { chunk, prefix } => self.adopt_prefix(volume, *chunk, *prefix),
            Body::CompleteChunk { chunk, prefix } => self.complete_chunk(volume, *chunk, *prefix),
            Body::VoidStale { chunk } => self.void_stale(volume, *chunk),
            Body::FinishSync => self.finish_sync(volume),
        }
    }

    fn promise(&mut self, volume: VolumeId, epoch: Epoch, size: ByteCount, session: SessionId) {
        let known = self.volumes.get(&volume);
        if known.is_some_and(|replica| replica.deleted) && self.is_read(volume) {
            // Not served: only a damaged journal can have lost what went before it. What clones read stays.
            let replica = self.volumes.get_mut(&volume).expect("the replica exists");
            replica.promised = replica.promised.max(epoch);
            return self.dirty.volume(volume);
        }
        let forgotten = Mutant::PromiseNotDurable.is_on() && known.is_some();
        if forgotten && self.replaying {
            return;
        }
        let session_before = known.map_or(SessionId(0), |replica| replica.session);
        let replica = self.volumes.entry(volume).or_insert_with(|| Replica::new(epoch, size));
        (replica.session_before, replica.session) = (session_before, session);
        replica.promised = replica.promised.max(epoch);
        replica.size = replica.size.max(size);
        replica.deleted = false;
        if !forgotten {
            self.dirty.volume(volume);
        }
    }

    fn hear_commit(&mut self, volume: VolumeId, commit: Lsn) {
        let replica = self.volumes.get_mut(&volume).expect("the replica exists");
        if commit > replica.commit {
            replica.commit = commit;
            self.dirty.volume(volume);
        }
    }

    fn advance(&mut self, volume: VolumeId, chunk: ChunkIndex, lsn: Lsn, floor: Lsn) -> Outcome {
        let replica = self.volumes.get_mut(&volume).expect("the replica exists");
        // The promise of a write's epoch came before it; only a damaged journal can have lost that promise.
        let (promised, floor) = (replica.promised.max(lsn.epoch()), replica.floor.max(floor));
        if (promised, floor) != (replica.promised, replica.floor) {
            (replica.promised, replica.floor) = (promised, floor);
            self.dirty.volume(volume);
        }
        let entry = replica.chunk_mut(chunk);
        entry.prefix = entry.prefix.max(lsn);
        self.dirty.chunk(volume, chunk);
        Outcome::Done
    }

    fn write(
        &mut self,
        volume: VolumeId,
        (range, floor): (ChunkRange, Lsn),
        pieces: &[Piece],
        crcs: &[Crc32],
        payload: &[Payload],
        (lsn, by): (Lsn, Sequence),
    ) {
        let syncing = self.is_syncing(volume);
        let mut payload = payload.iter();
        for (part, piece) in slot_parts(range).zip(pieces) {
            let contents = part_contents(part.first, part.count, &crcs[part.skipped as usize..], piece, &mut payload);
            let bits = part.bits();
            let mut lost = 0;
            self.edit(SlotAddress { volume, chunk: range.chunk, slot: part.slot, floor }, |slot, ground| {
                ground.move_to(slot, Some(piece.place), bits, by);
                lost = ground.put(slot, contents, by);
                slot.stamp = lsn;
                slot.fresh |= if syncing { bits } else { 0 };
            });
            self.lost_blocks += lost;
        }
        assert!(payload.next().is_none());
    }

    fn discard(
        &mut self,
        volume: VolumeId,
        range: ChunkRange,
        release: (bool, bool),
        (lsn, floor): (Lsn, Lsn),
        by: Sequence,
    ) {
        let syncing = self.is_syncing(volume);
        for part in slot_parts(range) {
            let address = SlotAddress { volume, chunk: range.chunk, slot: part.slot, floor };
            let below = self.has_layer_below(address);
            if !syncing && !below && self.slot(address).is_none() {
                continue; // Absent here at this prefix is absent everywhere: there is nothing to tell a copy.
            }
            let is_last = part.skipped + part.count == range.count.0;
            let release = part.is_whole() || part.skipped == 0 && release.0 || is_last && release.1;
            let bits = part.bits();
            self.edit(address, |slot, ground| {
                if !(ground.replaying && Mutant::DiscardNotReplayed.is_on()) {
                    ground.forget(slot, bits);
                }
                // While a copy is awaited nobody knows what is below.
                slot.set |= if below || syncing { bits } else { 0 };
                slot.stale &= !bits;
                slot.stamp = lsn;
                slot.fresh |= if syncing { bits } else { 0 };
                if release && slot.valid == 0 {
                    ground.move_to(slot, None, u16::MAX, by);
                }
            });
        }
    }

    fn fill(&mut self, record: &Record, payload: &[Payload], by: Sequence) -> Outcome {
        let Body::Fill { chunk, slot, floors, into, stamp, set, valid, place, direct, crcs } = &record.body else {
            unreachable!("a fill record")
        };
        let address = SlotAddress { volume: record.volume, chunk: *chunk, slot: *slot, floor: *into };
        // What the source of the copy does not have must not be seen in the base.
        let hides = floors.from == Lsn::ZERO && self.volumes[&record.volume].base().is_some();
        let (stale, fresh) = self.marks(address, *floors);
        let due = stale & if Mutant::FillsFreshBlocks.is_on() { u16::MAX } else { !fresh };
        self.lose_in_clones(address, *floors, due);
        let others = self.floors_of(address, *floors).into_iter().filter(|floor| floor != into);
        for floor in others {
            self.edit(SlotAddress { floor, ..address }, |slot, ground| {
                // What is stale here and fresh in another one of them is neither due nor worth anything.
                ground.forget(slot, due | slot.stale);
                slot.stale = 0;
                if due != 0 && slot.set | slot.valid | slot.fresh | slot.lost == 0 {
                    slot.stamp = Lsn::ZERO;
                }
            });
        }
        let mut payload = payload.iter();
        let content = |(block, &crc): (u32, &Crc32)| Content {
            block,
            crc,
            data: if *direct { None } else { Some(payload.next().expect("a block for each checksum").clone()) },
        };
        let mut contents: Vec<Content> = bits_of(*valid).zip(crcs).map(content).collect();
        let mut lost = 0;
        contents.retain(|content| due & (1 << content.block) != 0);
        self.edit(address, |slot, ground| {
            ground.forget(slot, due & !valid | slot.stale & !due);
            slot.set |= due & if hides { u16::MAX } else { *set };
            match place {
                Some(_) => ground.move_to(slot, *place, due, by),
                None if slot.valid & !due == 0 => ground.move_to(slot, None, u16::MAX, by),
                None => {}
            }
            lost = ground.put(slot, contents, by);
            slot.stale = 0;
            // One that came too late, or twice, says nothing about the slot.
            if due != 0 && (slot.fresh == 0 || *stamp > slot.stamp) {
                slot.stamp = *stamp;
            }
        });
        self.lost_blocks += lost;
        self.filled_blocks += u64::from(due.count_ones());
        Outcome::Done
    }

    fn repair(
        &mut self,
        volume: VolumeId,
        (range, floor): (ChunkRange, Lsn),
        pieces: &[Piece],
        crcs: &[Crc32],
        payload: &[Payload],
        by: Sequence,
    ) -> Outcome {
        let mut payload = payload.iter();
        for (part, piece) in slot_parts(range).zip(pieces) {
            let contents = part_contents(part.first, part.count, &crcs[part.skipped as usize..], piece, &mut payload);
            let address = SlotAddress { volume, chunk: range.chunk, slot: part.slot, floor };
            // What the base shows is repaired in the clone's own version.
            let lacks = match self.flatness(address.volume, address.chunk, address.slot) {
                Flatness::Lacks(flat) if floor == Lsn::ZERO => Some(flat),
                _ => None,
            };
            if self.slot(address).is_none() && lacks.is_none() {
                continue;
            }
            let (mut lost, mut repaired) = (0, 0);
            self.edit(address, |slot, ground| {
                let same = |content: &Content| slot.crcs[content.block as usize] == content.crc;
                let wanted = |content: &Content| {
                    let bit = 1 << content.block;
                    let own = slot.lost & bit != 0 || slot.valid & bit != 0 && same(content);
                    let based = || lacks.as_ref().is_some_and(|flat| flat.misses(content.block, content.crc));
                    slot.stale & bit == 0 && (own || based())
                };
                let contents: Vec<Content> = contents.into_iter().filter(wanted).collect();
                if contents.is_empty() {
                    return;
                }
                repaired = contents.len() as u64;
                let covered = contents.iter().fold(0, |bits, content| bits | 1 << content.block);
                ground.move_to(slot, Some(piece.place), covered, by);
                lost = ground.put(slot, contents, by);
                slot.stamp = slot.stamp.max(lacks.as_ref().map_or(Lsn::ZERO, |flat| flat.stamp));
            });
            self.lost_blocks += lost;
            self.repaired_blocks += repaired;
        }
        Outcome::Done
    }
}

impl Ground<'_> {
    /// Blocks have new content; returns how many of them the journal no longer has.
    pub(super) fn put(&mut self, slot: &mut Slot, contents: Vec<Content>, by: Sequence) -> u64 {
        let mut lost_blocks = 0;
        for Content { block, crc, data } in contents {
            let place = slot.place.expect("content has a place");
            let bit = 1 << block;
            slot.set |= bit;
            slot.valid |= bit;
            slot.stale &= !bit;
            slot.lost &= !bit;
            slot.crcs[block as usize] = crc;
            self.bad &= !bit;
            match data {
                None => {}
                Some(Some(bytes)) => self.overlay.put(place.block(block), bytes, by),
                Some(None) => {
                    self.overlay.remove(place.block(block));
                    slot.lost |= bit;
                    lost_blocks += 1;
                }
            }
        }
        lost_blocks
    }

    /// The version is no more.
    pub(super) fn empty(&mut self, slot: &mut Slot, by: Sequence) {
        if let Some(place) = slot.place.take() {
            self.release(place, by);
        }
        *slot = Slot::new();
    }

    /// The version says nothing of these blocks from now on.
    pub(super) fn forget(&mut self, slot: &mut Slot, bits: u16) {
        slot.set &= !bits;
        slot.valid &= !bits;
        slot.lost &= !bits;
        self.bad &= !bits;
        if let Some(place) = slot.place {
            bits_of(bits).for_each(|block| self.overlay.remove(place.block(block)));
        }
    }
}

fn part_contents<'a>(
    first: u32,
    count: u32,
    crcs: &[Crc32],
    piece: &Piece,
    payload: &mut impl Iterator<Item = &'a Payload>,
) -> Vec<Content> {
    let mut content = |i: u32| Content {
        block: first + i,
        crc: crcs[i as usize],
        data: if piece.direct { None } else { Some(payload.next().expect("a payload block for each block").clone()) },
    };
    (0..count).map(&mut content).collect()
}
