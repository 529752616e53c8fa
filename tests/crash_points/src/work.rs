//! What is done to the disk between cuts: fixed workloads, and every short sequence of a small alphabet.

use ashlar_types::{
    BLOCKS_PER_SLOT, BlockCount, BlockIndex, ChunkIndex, ChunkRange, Crc32, Epoch, FloorRange, Kept, Lsn, SlotIndex,
    SlotSet,
};
use ashlar_wire::{BlockData, Request, SlotContent};

/// One thing asked of the engine, on the link of the writer whose epoch it is.
#[derive(Clone, Debug)]
pub enum Op {
    Open {
        volume: u8,
        epoch: u32,
    },
    Ask {
        volume: u8,
        epoch: u32,
        request: Request,
    },
    Delete {
        volume: u8,
        epoch: u32,
    },
    /// Of what the source held before the point.
    Clone {
        volume: u8,
        epoch: u32,
        source: u8,
        point: Lsn,
    },
}

impl Op {
    pub fn volume(&self) -> u8 {
        match self {
            Op::Open { volume, .. } | Op::Ask { volume, .. } | Op::Delete { volume, .. } | Op::Clone { volume, .. } => {
                *volume
            }
        }
    }
}

/// How many operations are sent before the oldest is answered, and which of those on the disk ends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub window: usize,
    pub newest_first: bool,
}

pub const PACES: [Pace; 3] = [
    Pace { window: 1, newest_first: false },
    Pace { window: 4, newest_first: true },
    Pace { window: 16, newest_first: false },
];

#[derive(Clone, Debug)]
pub struct Work {
    pub name: String,
    pub slots: u64,
    pub ops: Vec<Op>,
    /// Cuts begin with this operation; what comes before only sets the stage.
    pub cuts_from: usize,
    pub pace: Pace,
    /// Points of snapshots that last.
    pub views: Vec<Lsn>,
}

/// Builds the operations of one writer.
pub struct Script {
    volume: u8,
    epoch: u32,
    counter: u64,
    fill: u8,
    /// Of the writes to come: the point of the last snapshot.
    floor: Lsn,
    /// Of all its snapshots.
    points: Vec<Lsn>,
    pub ops: Vec<Op>,
}

impl Script {
    pub fn new(volume: u8, epoch: u32) -> Script {
        let ops = vec![Op::Open { volume, epoch }];
        Script { volume, epoch, counter: 0, fill: 0, floor: Lsn::ZERO, points: Vec::new(), ops }
    }

    /// A clone of what the script's volume holds now; the next epoch writes to it.
    pub fn make_clone(&mut self, volume: u8) -> Script {
        let point = self.snapshot();
        self.ops.push(Op::Clone { volume, epoch: self.epoch, source: self.volume, point });
        Script { floor: point, ..Script::new(volume, self.epoch + 1) }
    }

    fn lsn(&mut self) -> Lsn {
        self.counter += 1;
        lsn(self.epoch, self.counter)
    }

    pub fn ask(&mut self, request: Request) -> &mut Script {
        self.ops.push(Op::Ask { volume: self.volume, epoch: self.epoch, request });
        self
    }

    pub fn write(&mut self, chunk: u32, start: u64, count: u32) -> &mut Script {
        let lsn = self.lsn();
        self.fill = self.fill.wrapping_add(1).max(1);
        let fills: Vec<u8> = (0..count).map(|i| self.fill.wrapping_add(i as u8).max(1)).collect();
        let (range, floor) = (range(chunk, start, count), self.floor);
        self.ask(Request::Write { range, lsn, floor, blocks: blocks(&fills) })
    }

    pub fn discard(&mut self, chunk: u32, start: u64, count: u32) -> &mut Script {
        let lsn = self.lsn();
        let (range, floor) = (range(chunk, start, count), self.floor);
        self.ask(Request::Discard { range, lsn, floor })
    }

    /// A snapshot: its point, which is the floor of all that follows.
    pub fn snapshot(&mut self) -> Lsn {
        self.floor = self.lsn();
        self.points.push(self.floor);
        self.floor
    }

    /// Of all snapshots so far only these are needed.
    pub fn keep(&mut self, live: &[Lsn]) -> &mut Script {
        let until = self.lsn();
        self.ask(Request::Keep(Kept { live: live.to_vec(), until }))
    }

    pub fn reopen(&mut self, epoch: u32) -> &mut Script {
        (self.epoch, self.counter) = (epoch, 0);
        self.ops.push(Op::Open { volume: self.volume, epoch });
        self
    }

    pub fn mark_stale(&mut self, chunk: u32, after: Lsn, slots: &[u16]) -> &mut Script {
        self.mark_band(chunk, after, FloorRange::ALL, slots)
    }

    pub fn mark_band(&mut self, chunk: u32, after: Lsn, floors: FloorRange, slots: &[u16]) -> &mut Script {
        let slots: SlotSet = slots.iter().map(|&slot| SlotIndex(slot)).collect();
        self.ask(Request::MarkStale { chunk: ChunkIndex(chunk), after, floors, into: floors.from, slots })
    }

    pub fn fill(&mut self, chunk: u32, slot: u16, stamp: Lsn, valid: u16) -> &mut Script {
        self.fill_band(chunk, slot, FloorRange::ALL, stamp, valid, valid)
    }

    pub fn fill_band(
        &mut self,
        chunk: u32,
        slot: u16,
        floors: FloorRange,
        stamp: Lsn,
        set: u16,
        valid: u16,
    ) -> &mut Script {
        let fills = vec![200 + slot as u8; valid.count_ones() as usize];
        let content = SlotContent { stamp, set, valid, blocks: blocks(&fills) };
        let (chunk, slot) = (ChunkIndex(chunk), SlotIndex(slot));
        self.ask(Request::Fill { chunk, slot, floors, into: floors.from, content })
    }

    pub fn delete(&mut self) -> &mut Script {
        self.ops.push(Op::Delete { volume: self.volume, epoch: self.epoch });
        self
    }
}

pub fn lsn(epoch: u32, counter: u64) -> Lsn {
    Lsn::from_raw(Lsn::start_of(Epoch::new(epoch).expect("a small epoch")).raw() + counter)
}

pub fn range(chunk: u32, start: u64, count: u32) -> ChunkRange {
    ChunkRange { chunk: ChunkIndex(chunk), start: BlockIndex(start), count: BlockCount(count) }
}

/// Blocks, each filled with one byte.
pub fn blocks(fills: &[u8]) -> BlockData {
    let data: Vec<u8> = fills.iter().flat_map(|&fill| [fill; crate::disk::PAGE]).collect();
    BlockData { crcs: Crc32::of_blocks(&data).collect(), data: data.into() }
}

/// The fixed workloads, each at every pace.
pub fn fixed() -> Vec<Work> {
    let mut all = Vec::new();
    for pace in PACES {
        let mut add = |name: &str, slots: u64, cuts_from: usize, ops: Vec<Op>| {
            all.push(Work { name: name.to_owned(), slots, ops, cuts_from, pace, views: Vec::new() });
        };
        add("small writes", 256, 0, small_writes());
        add("large writes", 256, 0, large_writes());
        add("discards", 256, 0, discards());
        add("return", 256, 0, a_return());
        add("reconcile", 256, 0, a_reconcile());
        add("two writers, two volumes", 256, 0, two_volumes());
        let (ops, cuts_from) = deletion();
        add("deletion", 256, cuts_from, ops);
        let (ops, cuts_from) = ring_end();
        add("end of the ring", 256, cuts_from, ops);
        let (ops, cuts_from) = full_disk();
        add("full disk", 128, cuts_from, ops);
        for (name, (ops, views)) in [("snapshots", snapshots()), ("return with snapshots", return_with_snapshots())] {
            all.push(Work { name: name.to_owned(), slots: 256, ops, cuts_from: 0, pace, views });
        }
        let (ops, cuts_from) = clones();
        all.push(Work { name: "clones".to_owned(), slots: 256, ops, cuts_from, pace, views: Vec::new() });
    }
    all
}

/// A clone and a clone of it, written on their own; all below the last one is deleted, and in the end it becomes flat.
fn clones() -> (Vec<Op>, usize) {
    let mut source = Script::new(0, 1);
    source.write(0, 0, 4).write(0, 16, 20).write(1, 3, 2).discard(0, 18, 1);
    let from = source.ops.len();
    let mut clone = source.make_clone(1);
    let made = std::mem::take(&mut source.ops);
    clone.write(0, 2, 3).discard(0, 16, 3).write(1, 0, 1);
    let mut second = clone.make_clone(2);
    source.write(0, 0, 2).write(0, 40, 16).keep(&[]);
    let written = interleave(std::mem::take(&mut clone.ops), std::mem::take(&mut source.ops));
    clone.write(0, 0, 1).discard(0, 20, 16).delete();
    source.write(0, 1, 1).delete();
    second.write(0, 1, 1).discard(0, 34, 2).write(0, 16, 16).write(0, 3, 1);
    ([made, written, interleave(second.ops, interleave(clone.ops, source.ops))].concat(), from)
}

fn small_writes() -> Vec<Op> {
    let mut script = Script::new(0, 1);
    script.write(0, 0, 1).write(0, 0, 2).write(0, 15, 2).write(1, 7, 8).write(0, 1, 1).write(1, 8, 3);
    script.reopen(2).write(0, 0, 1).write(1, 16, 1);
    script.ops
}

fn large_writes() -> Vec<Op> {
    let mut script = Script::new(0, 1);
    script.write(0, 0, 32).write(0, 8, 32).write(0, 3, 9).write(0, 16, 1).write(0, 0, 48).write(1, 5, 40);
    script.ops
}

fn discards() -> Vec<Op> {
    let mut script = Script::new(0, 1);
    script.write(0, 0, 32).discard(0, 0, 16).write(0, 4, 1).discard(0, 3, 20).write(0, 17, 2).discard(0, 0, 64);
    script.write(0, 0, 16);
    script.ops
}

fn a_return() -> Vec<Op> {
    let mut script = Script::new(0, 1);
    script.write(0, 0, 4).write(0, 16, 2).write(1, 0, 1).reopen(2);
    script.ask(Request::BeginSync { after: lsn(1, 2) }).write(0, 1, 1);
    script.mark_stale(0, lsn(1, 2), &[0, 1, 2]).mark_stale(1, lsn(1, 2), &[0]);
    script.ask(Request::AdoptPrefix { chunk: ChunkIndex(1), prefix: lsn(1, 9) });
    script.fill(0, 0, lsn(1, 8), 0x00FF).write(0, 33, 1).fill(0, 1, lsn(1, 7), 0).fill(0, 2, lsn(1, 9), 0xFFFF);
    script.fill(1, 0, lsn(1, 9), 0x0003).ask(Request::FinishSync).write(0, 2, 1);
    script.ops
}

fn a_reconcile() -> Vec<Op> {
    let mut script = Script::new(0, 1);
    script.write(0, 0, 4).write(0, 16, 20).write(1, 0, 1).reopen(2);
    script.mark_stale(0, lsn(1, 1), &[1, 3]).fill(0, 1, lsn(1, 2), 0x0F0F).fill(0, 2, lsn(1, 2), 0).fill(
        0,
        3,
        lsn(1, 3),
        1,
    );
    script.ask(Request::CompleteChunk { chunk: ChunkIndex(0), prefix: lsn(1, 3) });
    script.mark_stale(1, Lsn::ZERO, &[0]).ask(Request::VoidStale { chunk: ChunkIndex(1) }).write(1, 0, 2);
    script.ops
}

/// Two snapshots, of which one is given up again; small, large and discarded blocks over each.
fn snapshots() -> (Vec<Op>, Vec<Lsn>) {
    let mut script = Script::new(0, 1);
    script.write(0, 0, 4).write(0, 16, 20).write(1, 0, 1);
    let first = script.snapshot();
    script.write(0, 1, 1).write(0, 16, 16).discard(0, 32, 2);
    let second = script.snapshot();
    script.write(0, 1, 2).discard(0, 20, 3).keep(&[second]).write(1, 0, 1).write(0, 30, 4).reopen(2);
    script.write(0, 2, 1).keep(&[second]).write(0, 16, 1);
    assert!(first < second);
    (script.ops, vec![second])
}

/// The versions on both sides of a snapshot are copied apart from each other.
fn return_with_snapshots() -> (Vec<Op>, Vec<Lsn>) {
    let mut script = Script::new(0, 1);
    script.write(0, 0, 4).write(0, 16, 2);
    let point = script.snapshot();
    script.write(0, 2, 4).write(0, 17, 1).reopen(2);
    let (below, above) = (FloorRange { from: Lsn::ZERO, below: point }, FloorRange { from: point, below: lsn(2, 1) });
    script.ask(Request::BeginSync { after: lsn(1, 1) }).write(0, 1, 1);
    script.mark_band(0, lsn(1, 1), below, &[0, 1]).mark_band(0, lsn(1, 1), above, &[0, 1]);
    script.fill_band(0, 0, below, lsn(1, 2), 0x00FF, 0x000F).fill_band(0, 1, below, lsn(1, 2), 0x0003, 0x0001);
    script.write(0, 3, 1).fill_band(0, 0, above, lsn(1, 4), 0x003C, 0x001C);
    script.fill_band(0, 1, above, lsn(1, 5), 0x0002, 0x0002).ask(Request::FinishSync).write(0, 2, 1);
    (script.ops, vec![point])
}

fn two_volumes() -> Vec<Op> {
    let (mut a, mut b) = (Script::new(0, 1), Script::new(1, 1));
    a.write(0, 0, 1).write(0, 0, 20).reopen(2).write(0, 2, 1).write(1, 0, 3);
    b.write(0, 0, 2).discard(0, 0, 1).write(0, 30, 17).reopen(5).write(0, 1, 1);
    interleave(a.ops, b.ops)
}

fn interleave(a: Vec<Op>, b: Vec<Op>) -> Vec<Op> {
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    std::iter::from_fn(move || match (a.next(), b.next()) {
        (None, None) => None,
        (left, right) => Some(left.into_iter().chain(right)),
    })
    .flatten()
    .collect()
}

fn deletion() -> (Vec<Op>, usize) {
    let (mut a, mut b) = (Script::new(0, 1), Script::new(1, 1));
    a.write(0, 0, 20).write(1, 0, 3).delete().reopen(2).write(0, 1, 1).write(0, 0, 18);
    b.write(0, 0, 18).write(0, 3, 1).write(0, 40, 2);
    (interleave(a.ops, b.ops), 4)
}

/// Fills the ring nearly to its end, then writes over the end.
fn ring_end() -> (Vec<Op>, usize) {
    let mut script = Script::new(0, 1);
    let batch = 8 * 4096 + 4096;
    let before = (8 << 20) / batch - 2;
    for i in 0..before {
        script.write(0, u64::from(i as u32 % 16) * 8, 8);
    }
    let from = script.ops.len();
    script.write(0, 0, 8).write(0, 5, 8).write(0, 9, 3).discard(0, 0, 4).write(0, 2, 8);
    (script.ops, from)
}

/// Takes every place that a first touch may have; then what must still succeed.
fn full_disk() -> (Vec<Op>, usize) {
    let mut script = Script::new(0, 1);
    for i in 0..6 {
        script.write(0, i * 256, 256);
    }
    let from = script.ops.len();
    script.write(0, 1536, 64).write(0, 0, 1).discard(0, 256, 64).write(0, 1600, 32).write(0, 3, 2);
    (script.ops, from)
}

/// Every sequence of `length` operations of a small alphabet, after an `Open`.
pub fn exhaustive(length: u32) -> impl Iterator<Item = Work> {
    const LETTERS: u32 = 10;
    (0..LETTERS.pow(length)).map(move |number| {
        let mut script = Script::new(0, 1);
        let mut epoch = 1;
        for place in 0..length {
            match number / LETTERS.pow(place) % LETTERS {
                0 => drop(script.write(0, 0, 1)),
                1 => drop(script.write(0, 15, 2)),
                2 => drop(script.write(0, 0, BLOCKS_PER_SLOT)),
                3 => drop(script.write(0, 10, 12)),
                4 => drop(script.discard(0, 0, 1)),
                5 => drop(script.discard(0, 0, 32)),
                6 => drop(script.mark_stale(0, Lsn::ZERO, &[0])),
                7 => drop(script.fill(0, 0, lsn(1, 9), 0x8001)),
                8 => drop(script.snapshot()),
                _ => {
                    epoch += 1;
                    script.reopen(epoch);
                }
            }
        }
        let pace = PACES[number as usize % PACES.len()];
        let name = format!("sequence {number} of {length}");
        Work { name, slots: 128, ops: script.ops, cuts_from: 0, pace, views: script.points }
    })
}
