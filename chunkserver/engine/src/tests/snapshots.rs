//! Versions of slots: a snapshot reads for ever what it read first, whatever is written, given up, merged or replayed
//! meanwhile; what nobody needs comes free.

use crate::testing::*;
use crate::{Action, Event};
use ashlar_types::{FloorRange, Kept, Lsn, SlotIndex, SlotSet};
use ashlar_wire::{Held, Reply, Request, SlotContent, Status};
use std::collections::BTreeMap;

const BLOCKS: u64 = 16 * 6;

fn under(floor: Lsn, request: Request) -> Request {
    match request {
        Request::Write { range, lsn, blocks, .. } => Request::Write { range, lsn, floor, blocks },
        Request::Discard { range, lsn, .. } => Request::Discard { range, lsn, floor },
        other => other,
    }
}

fn read(rig: &mut Rig, below: Lsn, start: u64, count: u32) -> Vec<u8> {
    let reply = rig.ask(rig_link(rig), Request::Read { range: range(start, count), below });
    let Reply::Data(blocks) = reply else { panic!("{reply:?}") };
    blocks.data.chunks(PAGE).map(|block| block[0]).collect()
}

/// Tests talk over the link whose number is the epoch.
fn rig_link(rig: &Rig) -> u64 {
    rig.engine.status().replicas[0].promised.number().into()
}

fn held(rig: &mut Rig) -> Vec<Held> {
    let Reply::Held(held) = rig.ask(rig_link(rig), Request::Usage) else { panic!() };
    held
}

fn keep(rig: &mut Rig, live: &[Lsn], until: Lsn) {
    let kept = Kept { live: live.to_vec(), until };
    rig.write(rig_link(rig), Request::Keep(kept));
}

fn slot(rig: &mut Rig, floors: FloorRange, slot: u16) -> SlotContent {
    let request = Request::ReadSlot { chunk: range(0, 1).chunk, slot: SlotIndex(slot), floors };
    let Reply::Slot(content) = rig.ask(rig_link(rig), request) else { panic!() };
    content
}

#[test]
fn a_snapshot_keeps_what_it_had_and_the_present_goes_on() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1, 2, 3, 4], lsn(1, 1)));
    let point = lsn(1, 1);
    rig.write(1, under(point, write(1, &[9], lsn(1, 2))));
    rig.write(1, under(point, discard(2, 1, lsn(1, 3))));
    for _ in 0..2 {
        assert_eq!(read(&mut rig, point, 0, 5), [1, 2, 3, 4, 0]);
        assert_eq!(read(&mut rig, Lsn::MAX, 0, 5), [1, 9, 0, 4, 0], "what was discarded does not fall through");
        rig.rest();
    }
    let Reply::Opened(opened) = rig.open(2, 2) else { panic!() };
    assert_eq!(opened.floor, point);
    // The changes since the snapshot, exactly.
    let since = slot(&mut rig, FloorRange { from: point, below: Lsn::MAX }, 0);
    assert_eq!((since.set, since.valid, since.stamp), (0b110, 0b10, lsn(1, 3)));
    let before = slot(&mut rig, FloorRange { from: Lsn::ZERO, below: point }, 0);
    assert_eq!((before.set, before.valid, before.stamp), (0b1111, 0b1111, lsn(1, 1)));
}

#[test]
fn a_first_overwrite_costs_no_copy() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 16], lsn(1, 1)));
    rig.rest();
    let before = rig.engine.status().counters;
    rig.write(1, under(lsn(1, 1), write(3, &[2], lsn(1, 2))));
    let after = rig.engine.status().counters;
    assert_eq!(after.journal_bytes - before.journal_bytes, 2 * PAGE as u64);
    assert_eq!((after.read_bytes, after.direct_bytes), (before.read_bytes, before.direct_bytes));
}

#[test]
fn what_no_snapshot_tells_apart_becomes_one_and_its_space_comes_back() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 16], lsn(1, 1)));
    let (a, b) = (lsn(1, 1), lsn(1, 2));
    rig.write(1, under(a, write(1, &[2, 2], lsn(1, 2))));
    rig.write(1, under(b, write(2, &[3, 3], lsn(1, 3))));
    keep(&mut rig, &[a, b], b);
    rig.rest();
    let expected = |floor, slots| Held { floor, slots };
    assert_eq!(held(&mut rig), [expected(Lsn::ZERO, 1), expected(a, 1), expected(b, 1)]);
    keep(&mut rig, &[b], b);
    rig.rest();
    assert_eq!(held(&mut rig), [expected(a, 1), expected(b, 1)]);
    assert_eq!(read(&mut rig, b, 0, 5), [1, 2, 2, 1, 1]);
    assert_eq!(read(&mut rig, Lsn::MAX, 0, 5), [1, 2, 3, 3, 1]);
    keep(&mut rig, &[], b);
    rig.rest();
    assert_eq!(held(&mut rig), [expected(b, 1)]);
    assert_eq!(read(&mut rig, Lsn::MAX, 0, 5), [1, 2, 3, 3, 1]);
    assert_eq!(rig.engine.status().slots_used, 1);
    let merges = rig.engine.status().counters.merges;
    rig.rest();
    assert_eq!(rig.engine.status().counters.merges, merges, "it rests when nothing is left");
}

#[test]
fn a_point_that_was_given_up_is_not_taken_back() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1], lsn(1, 1)));
    let a = lsn(1, 1);
    rig.write(1, under(a, write(0, &[2], lsn(1, 2))));
    keep(&mut rig, &[], a);
    // A word that was on its way for long.
    keep(&mut rig, &[a], a);
    rig.rest();
    assert_eq!(held(&mut rig).len(), 1);
    assert_eq!(read(&mut rig, Lsn::MAX, 0, 1), [2]);
}

/// A replica that returns gets each version for itself: the older one too, under blocks written since.
#[test]
fn copies_bring_versions_and_leave_fresh_blocks_alone() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 4], lsn(1, 1)));
    // It missed a write before the snapshot at 5 and one after it; then it returns, and block 0 is written anew.
    let point = lsn(1, 5);
    rig.write(1, Request::BeginSync { after: lsn(1, 1) });
    rig.write(1, under(point, write(0, &[9], lsn(1, 8))));
    let chunk = range(0, 1).chunk;
    let slots: SlotSet = [SlotIndex(0)].into_iter().collect();
    let bands = [(Lsn::ZERO, point, Lsn::ZERO), (point, Lsn::MAX, point)];
    let content = |stamp, set, fills: &[u8]| SlotContent { stamp, set, valid: set, blocks: blocks(fills) };
    let contents = [content(lsn(1, 3), 0b1111, &[7, 1, 7, 1]), content(lsn(1, 7), 0b1001, &[8, 8])];
    for (from, below, into) in bands {
        let floors = FloorRange { from, below };
        rig.write(1, Request::MarkStale { chunk, after: lsn(1, 1), floors, into, slots });
    }
    for ((from, below, into), content) in bands.into_iter().zip(contents) {
        let floors = FloorRange { from, below };
        rig.write(1, Request::Fill { chunk, slot: SlotIndex(0), floors, into, content });
    }
    rig.write(1, Request::FinishSync);
    for _ in 0..2 {
        assert_eq!(read(&mut rig, point, 0, 4), [7, 1, 7, 1]);
        assert_eq!(read(&mut rig, Lsn::MAX, 0, 4), [9, 1, 7, 8]);
        rig = Rig::start(rig.stop());
        rig.settle();
        rig.opened(1, 1);
    }
}

/// The source has merged what the target has not: the copy of the whole band makes them equal.
#[test]
fn a_copy_of_a_band_covers_versions_that_only_one_side_has() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 4], lsn(1, 1)));
    let dead = lsn(1, 1);
    rig.write(1, under(dead, write(1, &[2, 2], lsn(1, 2))));
    let chunk = range(0, 1).chunk;
    let slots: SlotSet = [SlotIndex(0)].into_iter().collect();
    let (floors, into) = (FloorRange::ALL, dead);
    rig.write(1, Request::MarkStale { chunk, after: lsn(1, 1), floors, into, slots });
    let content = SlotContent { stamp: lsn(1, 1), set: 0b1101, valid: 0b101, blocks: blocks(&[5, 6]) };
    rig.write(1, Request::Fill { chunk, slot: SlotIndex(0), floors, into, content });
    assert_eq!(read(&mut rig, Lsn::MAX, 0, 4), [5, 0, 6, 0], "what the source does not have is nowhere");
}

/// Else it would go on to be listed as changed since then.
#[test]
fn a_copy_takes_back_the_stamps_of_versions_that_it_empties() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 4], lsn(1, 1)));
    rig.write(1, under(lsn(1, 1), write(1, &[2, 2], lsn(1, 3))));
    let (chunk, floors, into) = (range(0, 1).chunk, FloorRange::ALL, Lsn::ZERO);
    let slots: SlotSet = [SlotIndex(0)].into_iter().collect();
    rig.write(1, Request::MarkStale { chunk, after: lsn(1, 2), floors, into, slots });
    let content = SlotContent { stamp: lsn(1, 1), set: 0b1111, valid: 0b1111, blocks: blocks(&[1; 4]) };
    rig.write(1, Request::Fill { chunk, slot: SlotIndex(0), floors, into, content });
    assert_eq!(read(&mut rig, Lsn::MAX, 0, 4), [1; 4]);
    assert_eq!(slot(&mut rig, FloorRange::ALL, 0).stamp, lsn(1, 1));
}

/// Block 0 is written while the replica returns, under a floor that is older than the version that is stale there.
#[test]
fn a_copy_removes_a_stale_version_that_lies_over_a_fresh_block() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    let (floor, lost) = (lsn(1, 2), lsn(1, 5));
    rig.write(1, write(1, &[1], lsn(1, 1)));
    // Nobody else has heard of this write and its floor.
    rig.write(1, under(lost, write(0, &[66; 2], lsn(1, 6))));
    let session = lsn(2, 0);
    rig.opened(2, 2);
    rig.write(2, Request::BeginSync { after: lsn(1, 3) });
    rig.write(2, under(floor, write(0, &[7], lsn(2, 1))));
    let (chunk, floors, into) = (range(0, 1).chunk, FloorRange { from: Lsn::ZERO, below: session }, Lsn::ZERO);
    let content = SlotContent { stamp: lsn(1, 1), set: 0b10, valid: 0b10, blocks: blocks(&[1]) };
    rig.write(2, Request::Fill { chunk, slot: SlotIndex(0), floors, into, content });
    rig.write(2, Request::FinishSync);
    assert_eq!(read(&mut rig, Lsn::MAX, 0, 2), [7, 1]);
}

/// A writer that hears of no snapshot would write under it.
#[test]
fn copies_bring_the_floor_of_their_versions() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    let point = lsn(1, 5);
    let (chunk, floors) = (range(0, 1).chunk, FloorRange { from: point, below: Lsn::MAX });
    let slots: SlotSet = [SlotIndex(0)].into_iter().collect();
    rig.write(1, Request::BeginSync { after: Lsn::ZERO });
    rig.write(1, Request::MarkStale { chunk, after: Lsn::ZERO, floors, into: point, slots });
    let content = SlotContent { stamp: lsn(1, 7), set: 1, valid: 1, blocks: blocks(&[3]) };
    rig.write(1, Request::Fill { chunk, slot: SlotIndex(0), floors, into: point, content });
    rig.write(1, Request::FinishSync);
    for _ in 0..2 {
        rig = Rig::start(rig.crash(&mut Random::new(3)));
        rig.settle();
        let Reply::Opened(opened) = rig.open(2, 2) else { panic!() };
        assert_eq!(opened.floor, point);
    }
}

/// In a return what was written since it began lies in no band that is copied: nobody would make up for it.
#[test]
fn marks_in_a_return_leave_what_was_written_since_it_began() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 2], lsn(1, 1)));
    rig.write(1, Request::BeginSync { after: lsn(1, 1) });
    let point = lsn(1, 5);
    rig.write(1, under(point, write(0, &[2], lsn(1, 6))));
    let (chunk, floors, into) = (range(0, 1).chunk, FloorRange { from: Lsn::ZERO, below: point }, Lsn::ZERO);
    rig.write(1, Request::MarkStale { chunk, after: lsn(1, 1), floors, into, slots: SlotSet::EMPTY });
    rig.write(1, Request::FinishSync);
    assert_eq!(read(&mut rig, Lsn::MAX, 0, 2), [2, 1]);
}

/// The record of a copy has the longest head.
#[test]
fn many_copies_fit_a_batch() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    let (chunk, floors, into) = (range(0, 1).chunk, FloorRange::ALL, Lsn::ZERO);
    let slots: SlotSet = (0..100).map(SlotIndex).collect();
    rig.write(1, Request::MarkStale { chunk, after: Lsn::ZERO, floors, into, slots });
    let fills = (0..100).map(|slot| {
        let content = SlotContent { stamp: lsn(1, 1), set: 0, valid: 0, blocks: blocks(&[]) };
        Request::Fill { chunk, slot: SlotIndex(slot), floors, into, content }
    });
    let asked: Vec<_> = fills.map(|fill| rig.send(1, fill)).collect();
    rig.settle();
    assert!(asked.into_iter().all(|fill| rig.answer_to(fill) == Some(&Reply::Done)));
}

/// A merge has read what it moves, and marks are on their way: what is marked must be copied.
#[test]
fn a_merge_does_not_overtake_marks() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 3], lsn(1, 1)));
    rig.write(1, under(lsn(1, 2), write(1, &[2], lsn(1, 3))));
    keep(&mut rig, &[], lsn(1, 4));
    let reads = |rig: &Rig| rig.in_flight.iter().position(|action| matches!(action, Action::Read { .. }));
    while reads(&rig).is_none() {
        match rig.in_flight.is_empty() {
            true => {
                rig.now = rig.now.max(rig.engine.next_deadline());
                rig.handle(Event::Tick);
            }
            false => rig.complete(0),
        }
    }
    let (chunk, floors, into) = (range(0, 1).chunk, FloorRange::ALL, Lsn::ZERO);
    let slots: SlotSet = [SlotIndex(0)].into_iter().collect();
    let marked = rig.send(1, Request::MarkStale { chunk, after: Lsn::ZERO, floors, into, slots });
    let read = reads(&rig).expect("nothing has ended it");
    rig.complete(read);
    rig.settle();
    assert_eq!(rig.answer_to(marked), Some(&Reply::Done));
    let Reply::Changed { entries, .. } = rig.ask(1, Request::ListStale { from: chunk, floors }) else { panic!() };
    assert_eq!(entries.first().map(|entry| entry.slots.count()), Some(1));
    let ask = Request::Read { range: range(0, 1), below: Lsn::MAX };
    assert_eq!(rig.refused(1, ask), Status::Stale);
}

#[test]
fn listed_blocks_are_what_was_written_between_two_points() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 4], lsn(1, 1)));
    let (first, second) = (lsn(1, 2), lsn(1, 4));
    rig.write(1, under(first, write(1, &[2], lsn(1, 3))));
    rig.write(1, under(second, discard(0, 2, lsn(1, 5))));
    rig.write(1, under(second, write(40, &[3], lsn(1, 6))));
    let chunk = range(0, 1).chunk;
    let mut listed = |from, below| {
        let request = Request::ListBlocks { chunk, floors: FloorRange { from, below } };
        match rig.ask(1, request) {
            Reply::Blocks(blocks) => blocks.iter().map(|slot| (slot.slot.0, slot.set, slot.valid)).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(listed(Lsn::ZERO, first), [(0, 0b1111, 0b1111)]);
    assert_eq!(listed(first, second), [(0, 0b10, 0b10)]);
    assert_eq!(listed(second, Lsn::MAX), [(0, 0b11, 0), (2, 1 << 8, 1 << 8)]);
    assert_eq!(listed(Lsn::ZERO, Lsn::MAX), [(0, 0b1111, 0b1100), (2, 1 << 8, 1 << 8)]);
    let slots: SlotSet = [SlotIndex(2)].into_iter().collect();
    let (floors, into) = (FloorRange::ALL, Lsn::ZERO);
    rig.write(1, Request::MarkStale { chunk, after: lsn(1, 6), floors, into, slots });
    assert_eq!(rig.refused(1, Request::ListBlocks { chunk, floors }), Status::Stale);
}

struct World {
    rig: Option<Rig>,
    random: Random,
    epoch: u32,
    counter: u64,
    floor: Lsn,
    present: Vec<u8>,
    snapshots: BTreeMap<Lsn, Vec<u8>>,
    discards: bool,
}

impl World {
    fn rig(&mut self) -> &mut Rig {
        self.rig.as_mut().expect("the rig runs")
    }

    fn change(&mut self) {
        self.counter += 1;
        let (link, lsn) = (u64::from(self.epoch), lsn(self.epoch, self.counter));
        let count = if self.random.below(3) == 0 { 16 * (1 + self.random.below(4)) } else { 1 + self.random.below(12) };
        let start = self.random.below(BLOCKS - count + 1);
        let fill = 1 + self.random.below(250) as u8;
        let discards = self.discards && self.random.below(4) == 0;
        let fills: Vec<u8> = (0..count).map(|i| if discards { 0 } else { fill.wrapping_add(i as u8).max(1) }).collect();
        let request = if discards { discard(start, count as u32, lsn) } else { write(start, &fills, lsn) };
        let request = under(self.floor, request);
        self.rig().write(link, request);
        self.present[start as usize..(start + count) as usize].copy_from_slice(&fills);
    }

    /// A point is an lsn that no write has.
    fn snapshot(&mut self) {
        self.counter += 1;
        self.floor = lsn(self.epoch, self.counter);
        self.snapshots.insert(self.floor, self.present.clone());
    }

    fn keep(&mut self) {
        let live: Vec<Lsn> = self.snapshots.keys().copied().collect();
        let until = self.floor;
        keep(self.rig(), &live, until);
    }

    fn give_one_up(&mut self) {
        let count = self.snapshots.len() as u64;
        if count > 0 {
            let at = self.random.below(count) as usize;
            let point = *self.snapshots.keys().nth(at).expect("counted");
            self.snapshots.remove(&point);
            self.keep();
        }
    }

    fn crash(&mut self) {
        let rig = self.rig.take().expect("the rig runs");
        let mut rig = Rig::start(rig.crash(&mut self.random));
        rig.settle();
        self.epoch += 1;
        self.counter = 0;
        let Reply::Opened(opened) = rig.open(u64::from(self.epoch), self.epoch) else { panic!() };
        self.floor = self.floor.max(opened.floor);
        self.rig = Some(rig);
    }

    fn check(&mut self) {
        let expected: Vec<(Lsn, Vec<u8>)> = self.snapshots.clone().into_iter().collect();
        for (point, content) in expected {
            assert_eq!(read(self.rig(), point, 0, BLOCKS as u32), content, "the snapshot at {point}");
        }
        let present = self.present.clone();
        assert_eq!(read(self.rig(), Lsn::MAX, 0, BLOCKS as u32), present);
    }
}

#[test]
fn snapshots_read_their_instant_for_ever_and_space_comes_back() {
    for seed in 0..60 {
        let mut rig = Rig::format(2048);
        rig.opened(1, 1);
        let mut world = World {
            rig: Some(rig),
            random: Random::new(seed),
            epoch: 1,
            counter: 0,
            floor: Lsn::ZERO,
            present: vec![0; BLOCKS as usize],
            snapshots: BTreeMap::new(),
            discards: seed % 2 == 0,
        };
        for _ in 0..80 {
            match world.random.below(20) {
                0..12 => world.change(),
                12..15 => world.snapshot(),
                15 | 16 => world.give_one_up(),
                17 => world.rig().rest(),
                18 => world.crash(),
                _ => world.check(),
            }
        }
        world.check();
        while !world.snapshots.is_empty() {
            world.give_one_up();
        }
        world.keep();
        world.rig().rest();
        world.check();
        let touched = world.rig().engine.status().slots_used;
        assert!(u64::from(touched) <= BLOCKS / 16, "seed {seed}: {touched} slots are taken by {} slots", BLOCKS / 16);
    }
}
