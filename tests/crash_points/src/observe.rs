//! What can be seen of a disk from outside: promises, and of each chunk its prefix, whether it is complete, and every
//! block of the slots that the work touches.

use crate::disk::PAGE;
use crate::rig::{CHUNKS, Rig, volume_id};
use crate::work::{Op, Work};
use ashlar_types::{BLOCKS_PER_SLOT, BlockCount, ChunkIndex, ChunkRange, Epoch, FloorRange, Lsn, SlotIndex};
use ashlar_wire::{BlockData, Reply, Request, Status};
use std::collections::{BTreeMap, BTreeSet};

/// What is worth looking at.
pub struct Places {
    /// Of each volume.
    slots: BTreeMap<u8, BTreeSet<(ChunkIndex, SlotIndex)>>,
    /// Below which points, besides the present.
    views: Vec<Lsn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockSeen {
    /// Every byte of the block.
    Fill(u8),
    Refused(Status),
    /// Bytes that no single write made.
    Mixed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSeen {
    /// Not to be seen while a block is stale; of a slot without content it may be there or not.
    stamp: Option<Lsn>,
    blocks: Vec<BlockSeen>,
    /// Of each view.
    older: Vec<Vec<BlockSeen>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSeen {
    prefix: Lsn,
    complete: bool,
    slots: BTreeMap<SlotIndex, SlotSeen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSeen {
    /// There is no replica, or it was deleted.
    None(Status),
    Replica {
        promised: Epoch,
        syncing: bool,
        chunks: BTreeMap<ChunkIndex, ChunkSeen>,
    },
}

impl VolumeSeen {
    fn chunk(&self, chunk: ChunkIndex) -> Option<&ChunkSeen> {
        match self {
            VolumeSeen::None(_) => None,
            VolumeSeen::Replica { chunks, .. } => chunks.get(&chunk),
        }
    }
}

pub type Seen = BTreeMap<u8, VolumeSeen>;

/// What the operations touch.
pub fn places(work: &Work) -> Places {
    let mut touched: BTreeMap<u8, BTreeSet<(ChunkIndex, SlotIndex)>> = BTreeMap::new();
    for op in &work.ops {
        if let Op::Clone { volume, source, .. } = op {
            let of_source = touched.get(source).cloned().unwrap_or_default();
            touched.entry(*volume).or_default().extend(of_source);
        }
        let of_volume = touched.entry(op.volume()).or_default();
        let Op::Ask { request, .. } = op else { continue };
        match request {
            Request::Write { range, .. } | Request::Discard { range, .. } => {
                let first = range.start.slot().0;
                let last = range.start.offset_by(BlockCount(range.count.0 - 1)).slot().0;
                of_volume.extend((first..=last).map(|slot| (range.chunk, SlotIndex(slot))));
            }
            Request::MarkStale { chunk, slots, .. } => of_volume.extend(slots.iter().map(|slot| (*chunk, slot))),
            Request::Fill { chunk, slot, .. } => drop(of_volume.insert((*chunk, *slot))),
            _ => {}
        }
    }
    Places { slots: touched, views: work.views.clone() }
}

/// Looks through a link of its own, which changes nothing.
pub fn observe(rig: &mut Rig, places: &Places, link: u64) -> Seen {
    let mut look = |&volume: &u8| (volume, observe_volume(rig, volume, places, link * 256));
    places.slots.keys().map(&mut look).collect()
}

fn observe_volume(rig: &mut Rig, volume: u8, places: &Places, link: u64) -> VolumeSeen {
    let (link, open) = (link + u64::from(volume), rig.open(volume));
    let syncing = match rig.ask(link, None, Request::Observe(open)) {
        Some(Reply::Opened(opened)) => opened.syncing,
        Some(Reply::Refused(refusal)) => return VolumeSeen::None(refusal.status),
        other => panic!("an observer is answered {other:?}"),
    };
    let status = rig.engine.status();
    let replica = status.replicas.iter().find(|replica| replica.volume == volume_id(volume));
    let promised = replica.expect("an observed replica exists").promised;
    let Some(Reply::Reported { entries, next: None }) = rig.ask(link, None, Request::Report { from: ChunkIndex(0) })
    else {
        panic!("a report of {CHUNKS} chunks fits a page")
    };
    let chunk_seen = |chunk: ChunkIndex| {
        let entry = entries.iter().find(|entry| entry.chunk == chunk);
        let (prefix, complete) = entry.map_or((Lsn::ZERO, true), |entry| (entry.prefix, entry.complete));
        ChunkSeen { prefix, complete, slots: BTreeMap::new() }
    };
    let mut chunks: BTreeMap<_, _> = (0..CHUNKS).map(ChunkIndex).map(|chunk| (chunk, chunk_seen(chunk))).collect();
    for &(chunk, slot) in &places.slots[&volume] {
        let older = places.views.iter().map(|&below| read_blocks(rig, link, chunk, slot, below)).collect();
        let seen = SlotSeen { older, ..observe_slot(rig, link, chunk, slot) };
        chunks.get_mut(&chunk).expect("the work stays within the volume").slots.insert(slot, seen);
    }
    VolumeSeen::Replica { promised, syncing, chunks }
}

fn observe_slot(rig: &mut Rig, link: u64, chunk: ChunkIndex, slot: SlotIndex) -> SlotSeen {
    match rig.ask(link, None, Request::ReadSlot { chunk, slot, floors: FloorRange::ALL }) {
        Some(Reply::Slot(content)) => {
            let mut present = fills(&content.blocks).into_iter();
            let of_block = |block: u32| match content.valid & (1 << block) {
                0 => BlockSeen::Fill(0),
                _ => present.next().expect("one for each valid block"),
            };
            let stamp = (content.valid != 0).then_some(content.stamp);
            SlotSeen { stamp, blocks: (0..BLOCKS_PER_SLOT).map(of_block).collect(), older: Vec::new() }
        }
        Some(Reply::Refused(_)) => {
            let blocks = read_blocks(rig, link, chunk, slot, Lsn::MAX);
            SlotSeen { stamp: None, blocks, older: Vec::new() }
        }
        other => panic!("a slot is answered {other:?}"),
    }
}

fn read_blocks(rig: &mut Rig, link: u64, chunk: ChunkIndex, slot: SlotIndex, below: Lsn) -> Vec<BlockSeen> {
    let of_block = |block: u32| {
        let start = slot.first_block().offset_by(BlockCount(block));
        let range = ChunkRange { chunk, start, count: BlockCount(1) };
        match rig.ask(link, None, Request::Read { range, below }) {
            Some(Reply::Data(data)) => fills(&data)[0],
            Some(Reply::Refused(refusal)) => BlockSeen::Refused(refusal.status),
            other => panic!("a read is answered {other:?}"),
        }
    };
    (0..BLOCKS_PER_SLOT).map(of_block).collect()
}

fn fills(blocks: &BlockData) -> Vec<BlockSeen> {
    let fill = |block: &[u8]| match block.iter().all(|byte| *byte == block[0]) {
        true => BlockSeen::Fill(block[0]),
        false => BlockSeen::Mixed,
    };
    let right = blocks.first_bad_block().is_none();
    blocks.data.chunks(PAGE).map(|block| if right { fill(block) } else { BlockSeen::Mixed }).collect()
}

/// The states after each number of operations, and how many of these a cut may leave: at least the answered ones, at
/// most the sent ones.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    pub after: &'a [Seen],
    pub answered: usize,
    pub sent: usize,
}

impl Expected<'_> {
    /// Chunks have histories of their own: each must be as after some number of operations. Says what is not.
    pub fn mismatch(&self, seen: &Seen) -> Option<String> {
        let possible = &self.after[self.answered..=self.sent];
        for (volume, found) in seen {
            let of = |state: &Seen| state[volume].clone();
            match found {
                VolumeSeen::None(_) if possible.iter().any(|state| of(state) == *found) => {}
                VolumeSeen::None(status) => return Some(format!("volume {volume} is {status:?}")),
                VolumeSeen::Replica { promised, syncing, chunks } => {
                    let heads = possible.iter().any(
                        |state| matches!(&state[volume], VolumeSeen::Replica { promised: p, .. } if p == promised),
                    );
                    let kinds = possible
                        .iter()
                        .any(|state| matches!(&state[volume], VolumeSeen::Replica { syncing: s, .. } if s == syncing));
                    if !heads || !kinds {
                        return Some(format!("volume {volume} has promised {promised}, is syncing: {syncing}"));
                    }
                    for (chunk, found) in chunks {
                        if !possible.iter().any(|state| state[volume].chunk(*chunk) == Some(found)) {
                            return Some(self.difference(*volume, *chunk, found));
                        }
                    }
                }
            }
        }
        None
    }

    fn difference(&self, volume: u8, chunk: ChunkIndex, found: &ChunkSeen) -> String {
        let state = |number: usize| match &self.after[number][&volume] {
            VolumeSeen::Replica { chunks, .. } => format!("{:?}", chunks[&chunk]),
            VolumeSeen::None(status) => format!("{status:?}"),
        };
        format!(
            "volume {volume} chunk {} is\n  {found:?}\nafter the {} answered operations it was\n  {}\n\
             and after all {} sent\n  {}",
            chunk.0,
            self.answered,
            state(self.answered),
            self.sent,
            state(self.sent)
        )
    }
}
