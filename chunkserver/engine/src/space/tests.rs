//! What is told of space is what happens: snapshots are deleted, everything is merged, and as many places are free as
//! was said. Who needs what is compared with a model that knows under which floor each block was written.

use super::*;
use crate::testing::*;
use ashlar_types::{BLOCKS_PER_SLOT, Kept, SlotSet};
use ashlar_wire::Request;
use std::collections::{BTreeMap, BTreeSet};

const SLOTS: u64 = 6;
const BLOCKS: u64 = SLOTS * BLOCKS_PER_SLOT as u64;
const EVERYWHERE: (ChunkIndex, ChunkIndex) = (ChunkIndex(0), ChunkIndex(16));

/// Under which floor each block was written last; `None`: it reads as zeros.
type View = Vec<Option<Lsn>>;

struct World {
    rig: Rig,
    random: Random,
    counter: u64,
    floor: Lsn,
    present: View,
    snapshots: BTreeMap<Lsn, View>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rig = Rig::format(256);
        rig.opened(1, 1);
        let (random, present) = (Random::new(seed), vec![None; BLOCKS as usize]);
        World { rig, random, counter: 0, floor: Lsn::ZERO, present, snapshots: BTreeMap::new() }
    }

    /// Blocks of one slot at a time, so that the model's first half can lie in one chunk and its second in another.
    fn change(&mut self) {
        self.counter += 1;
        let slot = self.random.below(SLOTS);
        let count = if self.random.below(3) == 0 { 16 } else { 1 + self.random.below(15) };
        let within = self.random.below(16 - count + 1);
        let is_discard = self.random.below(3) == 0;
        let far = if slot < SLOTS / 2 { 0 } else { u64::from(ashlar_types::BLOCKS_PER_CHUNK) };
        let (start, floor, lsn) = (far + slot * 16 + within, self.floor, lsn(1, self.counter));
        let request = match is_discard {
            true => discard(start, count as u32, lsn),
            false => write(start, &vec![1 + self.random.below(250) as u8; count as usize], lsn),
        };
        let request = match request {
            Request::Write { range, lsn, blocks, .. } => Request::Write { range, lsn, floor, blocks },
            Request::Discard { range, lsn, .. } => Request::Discard { range, lsn, floor },
            other => other,
        };
        self.rig.write(1, request);
        let at = (slot * 16 + within) as usize;
        self.present[at..at + count as usize].fill((!is_discard).then_some(floor));
    }

    /// A point is an lsn that no write has.
    fn snapshot(&mut self) {
        self.counter += 1;
        self.floor = lsn(1, self.counter);
        self.snapshots.insert(self.floor, self.present.clone());
    }

    fn points(&self) -> Vec<Lsn> {
        self.snapshots.keys().copied().collect()
    }

    fn keep(&mut self) {
        let kept = Kept { live: self.points(), until: self.floor };
        self.rig.write(1, Request::Keep(kept));
    }

    fn space(&self) -> Space {
        let (space, next) = self.rig.engine.space(volume(), EVERYWHERE, &self.points()).expect("it has everything");
        assert_eq!(next, None);
        space
    }

    fn used_when_merged(&mut self) -> u64 {
        self.keep();
        self.rig.rest();
        u64::from(self.rig.engine.status().slots_used)
    }

    /// Slots of a view with a block of a band.
    fn slots_read(&self, view: &View, band: usize) -> BTreeSet<usize> {
        let points = self.points();
        let band_of = |floor: Lsn| points.iter().filter(|&&point| point <= floor).count();
        let read = view.iter().enumerate().filter(|(_, floor)| floor.is_some_and(|floor| band_of(floor) == band));
        read.map(|(block, _)| block / 16).collect()
    }

    /// Unique, shared, of snapshots only.
    fn expected(&self) -> (u64, u64, u64) {
        let mut expected = (0, 0, 0);
        for (band, view) in self.snapshots.values().enumerate() {
            let (kept, read) = (self.slots_read(view, band), self.slots_read(&self.present, band));
            expected.1 += kept.intersection(&read).count() as u64;
            expected.2 += kept.difference(&read).count() as u64;
        }
        expected.0 = self.slots_read(&self.present, self.snapshots.len()).len() as u64;
        expected
    }

    fn check(&mut self) -> Space {
        let told = self.space();
        assert_eq!((told.unique, told.shared, told.snapshots), self.expected());
        assert_eq!(told.unique + told.shared + told.snapshots, self.used_when_merged(), "when all is merged");
        let merged = self.space();
        assert_eq!(merged, Space { taken: merged.unique + merged.shared + merged.snapshots, ..told });
        merged
    }
}

#[test]
fn deleting_a_snapshot_gives_back_what_was_told() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        for _ in 0..60 {
            match world.random.below(20) {
                0..14 => world.change(),
                14..18 => world.snapshot(),
                18 => world.rig.settle(),
                _ => drop(world.check()),
            }
        }
        while !world.snapshots.is_empty() {
            let told = world.check();
            let (point, freed) = match world.random.below(8) {
                0 => (None, told.freed_by_all),
                random => {
                    let at = random as usize * world.snapshots.len() / 8;
                    (Some(world.points()[at]), told.freed_by_each[at])
                }
            };
            world.snapshots.retain(|&other, _| point.is_some_and(|point| point != other));
            let left = world.used_when_merged();
            assert_eq!(told.taken - left, freed, "seed {seed}, {point:?} of {told:?}");
        }
        let told = world.check();
        assert_eq!((told.taken, told.shared, told.snapshots), (told.unique, 0, 0));
    }
}

#[test]
fn parts_of_a_volume_make_the_whole() {
    let mut world = World::new(7);
    (0..40).for_each(|_| world.change());
    world.snapshot();
    (0..10).for_each(|_| world.change());
    let points = world.points();
    let part = |from, until| world.rig.engine.space(volume(), (ChunkIndex(from), ChunkIndex(until)), &points);
    let mut sum = Space::default();
    for (from, until) in [(0, 1), (1, 1), (1, 2), (2, 16)] {
        sum.add(&part(from, until).expect("it has everything").0);
    }
    assert_eq!(sum, world.space());
    assert!(part(0, 1).unwrap().0.taken > 0 && part(1, 2).unwrap().0.taken > 0);
}

#[test]
fn who_lacks_something_tells_nothing() {
    let mut world = World::new(1);
    (0..20).for_each(|_| world.change());
    assert!(world.rig.engine.space(ashlar_types::VolumeId::from_u128(9), EVERYWHERE, &[]).is_err());
    let (chunk, floors, into) = (ChunkIndex(0), ashlar_types::FloorRange::ALL, Lsn::ZERO);
    world.rig.write(1, Request::MarkStale { chunk, after: lsn(1, 30), floors, into, slots: SlotSet::EMPTY });
    assert_eq!(world.rig.engine.space(volume(), EVERYWHERE, &[]), Err("the replica awaits copies"));
    world.rig.write(1, Request::BeginSync { after: Lsn::ZERO });
    assert_eq!(world.rig.engine.space(volume(), EVERYWHERE, &[]), Err("the replica is incomplete"));
    let starting = Rig::start(world.rig.stop());
    assert_eq!(starting.engine.space(volume(), EVERYWHERE, &[]), Err("the disk is starting"));
}
