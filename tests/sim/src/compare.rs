//! Comparison: in some runs writers compare replicas, from their first moment on, under every fault. What they tell
//! must be so: replicas differ only if this disk lost something and nobody could know.
//!
//! In some of these runs that is done at the end: of a disk at rest a row of its index goes, with all that a slot's
//! version held, and nothing says that it was ever there. A round must find it.

use crate::format;
use crate::names::{Disk, MILLIS, Nanos, SECONDS, Vol, Writer};
use crate::world::{World, disk_of};
use ashlar_types::{ChunkIndex, Crc32, DiskId, Lsn, SlotIndex};
use std::collections::{BTreeMap, BTreeSet};

/// For a round, or two, whatever the period.
const ROUNDS_WITHIN: Nanos = 60 * SECONDS;
const WHOLE_WITHIN: Nanos = 60 * SECONDS;
/// Checkpoints are made, journals trimmed.
const AT_REST_AFTER: Nanos = 3 * SECONDS;

/// A slot as a read below a point shows it.
pub type Shown = (Vol, ChunkIndex, SlotIndex, Lsn);

#[derive(Default)]
pub struct Comparisons {
    pub told: BTreeSet<Shown>,
    /// This disk has lost something without a trace.
    planted: Option<Disk>,
}

impl World {
    pub fn replicas_differ(&mut self, writer: Writer, shown: Shown, said: &[(DiskId, Option<Crc32>)]) {
        self.comparisons.told.insert(shown);
        let planted = self.comparisons.planted.map(format::disk_id);
        let others = said.iter().filter(|(disk, _)| Some(*disk) != planted);
        let others: BTreeSet<_> = others.map(|(_, digest)| digest.map(|crc| crc.0)).collect();
        if others.len() > 1 {
            let (volume, chunk, slot, _) = shown;
            let said: Vec<_> = said.iter().map(|(disk, say)| (disk_of(*disk), say)).collect();
            let block = chunk.first_block().0 + slot.first_block().0;
            self.violated(format!("{writer} says that replicas differ: {said:?}"), Some((volume, block)));
        }
    }

    /// A round of every volume; then what was planted is found. Whether something was: then the run is over, for the
    /// replicas differ.
    pub fn compare_everything(&mut self) -> bool {
        if self.violation.is_some() || self.scenario.compare_period.is_none() {
            return false;
        }
        self.end_a_round();
        if self.violation.is_some() || !self.scenario.plants {
            return false;
        }
        let Some(changed) = self.lose_a_row() else { return false };
        self.end_a_round();
        if self.violation.is_none() && !changed.is_empty() {
            match changed.is_disjoint(&self.comparisons.told) {
                true => self.violated(format!("a round of comparison does not find {changed:?}"), None),
                false => self.trace.count("state: what was lost without a trace is found"),
            }
        }
        true
    }

    /// Each volume is compared from now on by the writer that it has, or by one that takes its place meanwhile.
    fn end_a_round(&mut self) {
        let rounds = |world: &World, writer: Writer| {
            world.writers[writer.index()].core.as_ref().map_or(0, |core| core.status().comparison.rounds)
        };
        let before: BTreeMap<Writer, u64> =
            self.living_writers().into_iter().map(|writer| (writer, rounds(self, writer))).collect();
        // The round that is under way may have passed what was lost since.
        let is_compared =
            |world: &World, writer: Writer| rounds(world, writer) >= before.get(&writer).copied().unwrap_or(0) + 2;
        let is_through = |world: &World| {
            world.volumes().all(|volume| world.current(volume).is_some_and(|writer| is_compared(world, writer)))
        };
        if !self.run_while(self.now + ROUNDS_WITHIN, |world| !is_through(world)) && self.violation.is_none() {
            self.violated("a writer does not end two rounds of comparison".to_owned(), None);
        }
        self.trace.count("state: replicas compared");
    }

    /// A disk loses a version of a slot, and nothing of it says so. What is shown otherwise since: nothing, if it was
    /// hidden, or is in the journal still. `None`: the disk has nothing to lose.
    fn lose_a_row(&mut self) -> Option<BTreeSet<Shown>> {
        self.run_until(self.now + AT_REST_AFTER);
        let disk = Disk(self.plant_rng.below(u64::from(self.scenario.nodes)) as u16);
        let index = &self.servers[disk.index()].medium.index;
        let rows: Vec<Vec<u8>> = index.keys().filter(|key| key.first() == Some(&b's')).cloned().collect();
        let row = rows.get(self.plant_rng.index(rows.len().max(1)))?;
        let before = self.content_of(disk);
        self.crash_server(disk, false);
        self.servers[disk.index()].medium.index.remove(row);
        self.comparisons.planted = Some(disk);
        self.trace.line(self.now, None, || format!("{disk} loses index row {row:02x?} without a trace"));
        self.trace.count("fault: a row of the index lost without a trace");
        self.start_server(disk);
        let is_whole = self.run_while(self.now + WHOLE_WITHIN, |world| world.sickness().is_some());
        if !is_whole && self.violation.is_none() {
            self.violated(format!("not healthy after {disk} was started again"), None);
        }
        self.run_until(self.now + 100 * MILLIS);
        let after = self.content_of(disk);
        // A volume that the disk was let go of has nothing there to compare.
        let changed = before.symmetric_difference(&after).map(|&(shown, _)| shown);
        Some(changed.filter(|(volume, ..)| self.in_sync(*volume).contains(&disk)).collect())
    }

    /// What the disk shows of each volume that it is in-sync in, but for zeros.
    fn content_of(&mut self, disk: Disk) -> BTreeSet<(Shown, [u32; 16])> {
        let mut content = BTreeSet::new();
        for volume in self.volumes().collect::<Vec<_>>() {
            if self.in_sync(volume).contains(&disk) {
                let slots = self.checksums_of(volume, disk).into_iter();
                let written = slots.filter(|(.., crcs)| *crcs != [Crc32::ZERO_BLOCK; 16]);
                content.extend(
                    written.map(|(chunk, slot, below, crcs)| ((volume, chunk, slot, below), crcs.map(|crc| crc.0))),
                );
            }
        }
        content
    }
}
