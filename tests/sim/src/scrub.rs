//! Scrub: in some runs every disk verifies all that it has within seconds. When the faults are over and no guest reads
//! any more, whatever has rotted is found and mended by itself: then every replica reads everything that it shows.

use crate::names::{Disk, Nanos, SECONDS, Vol};
use crate::world::World;
use ashlar_engine::EngineStatus;
use ashlar_types::{ChunkIndex, SlotIndex};
use ashlar_wire::{Reply, Request};

/// For two rounds under whatever goes on meanwhile, and for what they have found.
const ROUNDS_WITHIN: Nanos = 150 * SECONDS;
const MENDED_WITHIN: Nanos = 60 * SECONDS;

impl World {
    pub fn scrub_everything(&mut self) {
        if self.violation.is_some() || self.scenario.scrub_period.is_none() {
            return;
        }
        let before: Vec<u64> = self.disks().map(|disk| self.rounds(disk)).collect();
        // The round that is under way may have passed what was spoiled since.
        let lacks = |world: &mut World| {
            let is_through = |disk: Disk| world.rounds(disk) >= before[disk.index()] + 2;
            world.disks().find(|&disk| world.is_scrubbed(disk) && !is_through(disk))
        };
        if let Some(disk) = self.wait_until_none(ROUNDS_WITHIN, lacks) {
            return self.violated(format!("{disk} does not end two rounds of scrub"), None);
        }
        if let Some(disk) = self.wait_until_none(MENDED_WITHIN, World::spoiled) {
            return self.violated(format!("{disk} keeps bad blocks that its scrub has found"), None);
        }
        for volume in self.volumes().collect::<Vec<_>>() {
            for disk in self.in_sync(volume) {
                if self.violation.is_none() && self.has_unreadable(volume, disk) {
                    return self
                        .violated(format!("{disk} has bad blocks of {volume} that its scrub has not found"), None);
                }
            }
        }
        self.trace.count("state: everything scrubbed");
    }

    /// What is left of those that `find` finds when the time is over.
    fn wait_until_none(&mut self, within: Nanos, find: impl Fn(&mut World) -> Option<Disk>) -> Option<Disk> {
        let until = self.now + within;
        while self.violation.is_none() {
            match find(self) {
                Some(_) if self.now < until => self.run_until(self.now + SECONDS),
                found => return found,
            }
        }
        None
    }

    fn status(&self, disk: Disk) -> Option<EngineStatus> {
        self.servers[disk.index()].process.as_ref().map(|process| process.engine.status())
    }

    fn rounds(&self, disk: Disk) -> u64 {
        self.status(disk).map_or(0, |status| status.scrub.rounds)
    }

    fn is_scrubbed(&self, disk: Disk) -> bool {
        self.status(disk).is_some_and(|status| status.failed.is_none() && status.slots_used > 0)
    }

    /// A disk that lists bad blocks of a volume to whoever would repair them.
    fn spoiled(&mut self) -> Option<Disk> {
        let replicas: Vec<(Vol, Disk)> = self
            .volumes()
            .flat_map(|volume| self.in_sync(volume).into_iter().map(move |disk| (volume, disk)))
            .collect();
        replicas.into_iter().find(|&(volume, disk)| self.lists_bad(volume, disk)).map(|(_, disk)| disk)
    }

    fn lists_bad(&mut self, volume: Vol, disk: Disk) -> bool {
        let Some(link) = self.observe_replica(volume, disk) else { return false };
        let listed = self.ask(link, Request::ListBad { from: ChunkIndex(0), slot: SlotIndex(0) });
        matches!(listed, Some(Reply::Bad { entries, .. }) if !entries.is_empty())
    }
}
