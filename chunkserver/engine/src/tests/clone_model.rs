//! Clones, snapshots and deletions at random, against a model: whatever is merged, made flat, replayed or cut off,
//! every volume and snapshot reads what it holds, and the space of what is deleted comes back to the last place.

use crate::Deleted;
use crate::testing::*;
use ashlar_types::{Base, FloorRange, Kept, Lsn, SlotIndex, VolumeId};
use ashlar_wire::{Reply, Request};
use std::collections::BTreeMap;

const BLOCKS: u64 = 16 * 5;

struct Volume {
    epoch: u32,
    counter: u64,
    floor: Lsn,
    present: Vec<u8>,
    snapshots: BTreeMap<Lsn, Vec<u8>>,
    /// What clones read by until they are flat or gone.
    clones: BTreeMap<VolumeId, Lsn>,
    origin: Option<VolumeId>,
}

struct World {
    rig: Option<Rig>,
    random: Random,
    volumes: BTreeMap<VolumeId, Volume>,
    next: u128,
    /// No session of an older process is ever named again.
    starts: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let random = Random::new(seed);
        let mut world = World { rig: Some(Rig::format(1024)), random, volumes: BTreeMap::new(), next: 1, starts: 0 };
        world.create();
        world
    }

    fn rig(&mut self) -> &mut Rig {
        self.rig.as_mut().expect("the rig runs")
    }

    fn link(&self, volume: VolumeId) -> u64 {
        self.starts * 1000 + volume.as_u128() as u64
    }

    fn any(&mut self) -> VolumeId {
        let at = self.random.below(self.volumes.len() as u64) as usize;
        *self.volumes.keys().nth(at).expect("counted")
    }

    fn create(&mut self) {
        let (snapshots, clones) = (BTreeMap::new(), BTreeMap::new());
        let present = vec![0; BLOCKS as usize];
        let empty = Volume { epoch: 0, counter: 0, floor: Lsn::ZERO, present, snapshots, clones, origin: None };
        let volume = VolumeId::from_u128(self.next);
        self.next += 1;
        self.volumes.insert(volume, empty);
        self.open(volume);
    }

    fn open(&mut self, volume: VolumeId) {
        let link = self.link(volume);
        let entry = self.volumes.get_mut(&volume).expect("it is there");
        entry.epoch += 1;
        entry.counter = 0;
        let opened = self.rig.as_mut().expect("the rig runs").opened_volume(link, entry.epoch, volume);
        entry.floor = entry.floor.max(opened.floor);
    }

    fn change(&mut self) {
        let volume = self.any();
        let link = self.link(volume);
        let count = if self.random.below(3) == 0 { 16 * (1 + self.random.below(4)) } else { 1 + self.random.below(12) };
        let start = self.random.below(BLOCKS - count + 1);
        let (fill, discards) = (1 + self.random.below(250) as u8, self.random.below(3) == 0);
        let fills: Vec<u8> = (0..count).map(|i| if discards { 0 } else { fill.wrapping_add(i as u8).max(1) }).collect();
        let entry = self.volumes.get_mut(&volume).expect("it is there");
        entry.counter += 1;
        let (lsn, floor, range) = (lsn(entry.epoch, entry.counter), entry.floor, range(start, count as u32));
        let request = match discards {
            true => Request::Discard { range, lsn, floor },
            false => Request::Write { range, lsn, floor, blocks: blocks(&fills) },
        };
        entry.present[start as usize..(start + count) as usize].copy_from_slice(&fills);
        // Sometimes it is on its way while other things happen.
        match self.random.below(3) {
            0 => drop(self.rig().send(link, request)),
            _ => self.rig().write(link, request),
        }
    }

    /// What is before a point is acknowledged.
    fn snapshot(&mut self) {
        self.rig().settle();
        let volume = self.any();
        let entry = self.volumes.get_mut(&volume).expect("it is there");
        entry.counter += 1;
        entry.floor = lsn(entry.epoch, entry.counter);
        entry.snapshots.insert(entry.floor, entry.present.clone());
    }

    fn keep(&mut self, volume: VolumeId) {
        let link = self.link(volume);
        let entry = &self.volumes[&volume];
        let mut live: Vec<Lsn> = entry.snapshots.keys().chain(entry.clones.values()).copied().collect();
        live.sort_unstable();
        live.dedup();
        let until = entry.floor;
        self.rig().write(link, Request::Keep(Kept { live, until }));
    }

    fn give_one_up(&mut self) {
        let volume = self.any();
        let at = self.random.below(self.volumes[&volume].snapshots.len().max(1) as u64) as usize;
        let Some(&point) = self.volumes[&volume].snapshots.keys().nth(at) else { return };
        self.volumes.get_mut(&volume).expect("it is there").snapshots.remove(&point);
        self.keep(volume);
    }

    fn clone_one(&mut self) {
        let source = self.any();
        let count = self.volumes[&source].snapshots.len() as u64;
        if count == 0 || self.volumes.len() > 6 {
            return;
        }
        let at = self.random.below(count) as usize;
        let (&point, content) = self.volumes[&source].snapshots.iter().nth(at).expect("counted");
        let (present, epoch) = (content.clone(), self.volumes[&source].epoch);
        let volume = VolumeId::from_u128(self.next);
        self.next += 1;
        let base = Base { volume: source, point };
        for _ in 0..2 {
            assert_eq!(self.rig().make_clone(volume, epoch, base), Ok(()), "also when it is asked for again");
        }
        self.volumes.get_mut(&source).expect("it is there").clones.insert(volume, point);
        let (snapshots, clones) = (BTreeMap::new(), BTreeMap::new());
        let clone = Volume { epoch, counter: 0, floor: point, present, snapshots, clones, origin: Some(source) };
        self.volumes.insert(volume, clone);
        self.open(volume);
    }

    /// Clones that are flat release their sources.
    fn release(&mut self) {
        let clones: Vec<(VolumeId, VolumeId)> =
            self.volumes.iter().filter_map(|(&clone, volume)| Some((clone, volume.origin?))).collect();
        for (clone, source) in clones {
            if self.rig().base_of(clone).is_none() {
                self.volumes.get_mut(&clone).expect("it is there").origin = None;
                self.forget_clone(source, clone);
            }
        }
    }

    fn forget_clone(&mut self, source: VolumeId, clone: VolumeId) {
        if let Some(entry) = self.volumes.get_mut(&source) {
            entry.clones.remove(&clone);
            self.keep(source);
        }
    }

    fn delete(&mut self, volume: VolumeId) {
        let entry = self.volumes.remove(&volume).expect("it is there");
        let deleted = self.rig().delete(volume, entry.epoch).expect("nobody has a higher epoch");
        let reads =
            |of: VolumeId| move |replica: &crate::ReplicaStatus| replica.base.is_some_and(|base| base.volume == of);
        let is_read = self.rig().engine.status().replicas.iter().any(reads(volume));
        assert_eq!(deleted, if is_read { Deleted::Kept } else { Deleted::Gone });
        if let Some(source) = entry.origin {
            self.forget_clone(source, volume);
        }
    }

    /// Power fails; what was on its way was sent again by then, so that the model need not guess.
    fn crash(&mut self) {
        self.rig().settle();
        let rig = self.rig.take().expect("the rig runs");
        let mut rig = Rig::start(rig.crash(&mut self.random));
        rig.settle();
        self.rig = Some(rig);
        self.starts += 1;
        self.volumes.keys().copied().collect::<Vec<_>>().into_iter().for_each(|volume| self.open(volume));
    }

    fn check(&mut self) {
        self.rig().settle();
        for volume in self.volumes.keys().copied().collect::<Vec<_>>() {
            let entry = &self.volumes[&volume];
            let mut expected: Vec<(Lsn, Vec<u8>)> = entry.snapshots.clone().into_iter().collect();
            expected.push((Lsn::MAX, entry.present.clone()));
            for (below, content) in expected {
                assert_eq!(self.read(volume, below), content, "{volume} below {below}");
                assert_eq!(self.read_slots(volume, below), content, "{volume} below {below}, slot by slot");
            }
        }
    }

    fn read(&mut self, volume: VolumeId, below: Lsn) -> Vec<u8> {
        let link = self.link(volume);
        let reply = self.rig().ask(link, Request::Read { range: range(0, BLOCKS as u32), below });
        let Reply::Data(blocks) = reply else { panic!("{reply:?}") };
        blocks.data.chunks(PAGE).map(|block| block[0]).collect()
    }

    fn read_slots(&mut self, volume: VolumeId, below: Lsn) -> Vec<u8> {
        let link = self.link(volume);
        let floors = FloorRange { from: Lsn::ZERO, below };
        let mut content = Vec::new();
        for slot in 0..BLOCKS as u16 / 16 {
            let request = Request::ReadSlot { chunk: range(0, 1).chunk, slot: SlotIndex(slot), floors };
            let Reply::Slot(read) = self.rig().ask(link, request) else { panic!() };
            let mut blocks = read.blocks.data.chunks(PAGE);
            content.extend((0..16).map(|i| if read.valid & 1 << i == 0 { 0 } else { blocks.next().unwrap()[0] }));
        }
        content
    }
}

#[test]
fn clones_read_what_they_are_clones_of_for_ever_and_space_comes_back() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        for _ in 0..120 {
            match world.random.below(32) {
                0..14 => world.change(),
                14..18 => world.snapshot(),
                18 => world.give_one_up(),
                19..23 => world.clone_one(),
                23 if world.volumes.len() > 1 => {
                    let volume = world.any();
                    world.delete(volume);
                }
                24 => world.create(),
                25 => world.release(),
                26 => world.crash(),
                27 => world.check(),
                28 => world.rig().rest(),
                _ => {
                    let World { rig, random, .. } = &mut world;
                    rig.as_mut().expect("the rig runs").go_on(1 + random.below(40), random);
                }
            }
        }
        world.check();
        for volume in world.volumes.keys().copied().collect::<Vec<_>>() {
            world.delete(volume);
        }
        world.rig().rest();
        assert_eq!(world.rig().engine.status().slots_used, 0, "seed {seed}");
        world.crash();
        assert_eq!(world.rig().engine.status().slots_used, 0, "seed {seed}, after a restart");
        let rows = |tag: u8| world.rig.as_ref().unwrap().media.index.keys().filter(|key| key[0] == tag).count();
        assert_eq!((rows(b's'), rows(b'c'), rows(b'k')), (0, 0, 0), "seed {seed}");
    }
}
