//! Faults by which the content of a disk is no longer what its chunkserver left there, without its knowing: an older
//! image put back, an empty disk in its place, writes that never came or went elsewhere, flipped bits in the index and
//! in the journal's newest batches.
//!
//! Tolerance: one disk of the run (`World::rotten`) does so, or, once, two disks become empty while three replicas of
//! every chunk are in-sync (P2). A disk that forgets a promise could serve a writer that was fenced by it, and nobody
//! can tell that writer; so none of it happens while a replaced writer is alive.

use crate::format;
use crate::names::Disk;
use crate::scenario::Class;
use crate::world::World;
use crate::writer::WriterState;

impl World {
    pub fn strike_content(&mut self, class: Class) {
        if self.replaced_writer_lives() {
            return;
        }
        match class {
            Class::OldImage => self.put_back_an_image(),
            Class::EmptyDisk => self.empty_disk(self.rotten),
            Class::TwoEmptyDisks => self.empty_two_disks(),
            Class::LostWrite => self.servers[self.rotten.index()].ailment.lost_writes = 1,
            Class::MisdirectedWrite => self.servers[self.rotten.index()].ailment.misdirected_writes = 1,
            Class::IndexFlip => self.flip_in_index(),
            Class::NewestFlip => self.flip_in_newest_batch(),
            other => unreachable!("{other:?} leaves the content alone"),
        }
    }

    /// A writer that was replaced and does not know.
    pub fn replaced_writer_lives(&self) -> bool {
        self.living_writers().iter().any(|writer| {
            let state = &self.writers[writer.index()];
            state.epoch != self.catalog.record(state.volume).epoch
        })
    }

    /// Whether what this disk answers or recovers may be less than what it has promised, by no fault of its engine.
    pub fn lies(&self, disk: Disk) -> bool {
        let of_one = [Class::OldImage, Class::EmptyDisk, Class::LostWrite, Class::MisdirectedWrite, Class::NewestFlip];
        let on = |class: &Class| self.scenario.classes.iter().any(|(on, _)| on == class);
        self.emptied.contains(&disk) || disk == self.rotten && of_one.iter().any(on)
    }

    /// Whether bits of this disk may flip.
    pub fn may_lose_bits(&self, disk: Disk) -> bool {
        disk == self.rotten && self.scenario.classes.iter().any(|(on, _)| *on == Class::BitFlip)
    }

    /// The disk is taken out and an image of it from an earlier stop is put in; the first time, the image is made.
    fn put_back_an_image(&mut self) {
        let disk = self.rotten;
        self.crash_and_restart(disk);
        let server = &mut self.servers[disk.index()];
        match server.image.take() {
            Some(image) => {
                server.medium = image;
                self.trace.count("fault: older image put back");
                self.trace.line(self.now, None, || format!("{disk} is an older image of itself"));
                self.forgive(disk);
            }
            None => server.image = Some(server.medium.at_rest()),
        }
    }

    fn empty_disk(&mut self, disk: Disk) {
        self.crash_and_restart(disk);
        self.servers[disk.index()].medium = format::format_disk(disk, self.scenario.disk_slots);
        self.trace.count("fault: disk emptied");
        self.trace.line(self.now, None, || format!("{disk} is an empty disk"));
        self.emptied.insert(disk);
        self.forgive(disk);
    }

    /// Two disks of each chunk at once, one of them the one that may be rotten; the others then have everything.
    fn empty_two_disks(&mut self) {
        let three = |volume| self.catalog.record(volume).fewest_in_sync_without(&[]) >= 3;
        // A change in doubt, or one that a writer left behind, may let go of the third while the two are empty.
        let living: Vec<&WriterState> =
            self.living_writers().iter().map(|writer| &self.writers[writer.index()]).collect();
        let settled = |volume| living.iter().any(|state| state.volume == volume && state.is_settled());
        if !self.emptied.is_empty() || !self.volumes().all(|volume| three(volume) && settled(volume)) {
            return;
        }
        let other = Disk((self.rotten.0 + 1) % self.scenario.nodes);
        self.trace.count("fault: two disks emptied at once");
        self.empty_disk(self.rotten);
        self.empty_disk(other);
    }

    fn flip_in_index(&mut self) {
        let disk = self.rotten;
        let rng = &mut self.fault_rng;
        if let Some(row) = self.servers[disk.index()].medium.flip_in_index(rng) {
            self.trace.count("fault: bit flip in the index");
            self.trace.line(self.now, None, || format!("{disk} loses a bit of index row {row:02x?}"));
            self.crash_and_restart(disk);
        }
    }

    fn flip_in_newest_batch(&mut self) {
        let disk = self.rotten;
        self.crash_and_restart(disk);
        let rng = &mut self.fault_rng;
        if let Some(page) = self.servers[disk.index()].medium.flip_newest(rng) {
            self.trace.count("fault: bit flip in the newest batch");
            self.trace.line(self.now, None, || format!("{disk} loses a bit of page {page}, among the newest"));
            self.forgive(disk);
        }
    }
}
