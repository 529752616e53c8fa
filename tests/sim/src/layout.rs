//! Volumes that grow, and disks that are out and are replaced by others: what an operator and a rebuild do to a record.

use crate::format;
use crate::names::{Disk, Node, Vol};
use crate::world::{Happening, World, disk_of};
use ashlar_types::{BLOCKS_PER_CHUNK, BLOCKS_PER_SLOT, ByteCount, CHUNK_BYTES, Member, MemberState};

impl World {
    pub fn chunks(&self, volume: Vol) -> u32 {
        (self.catalog.record(volume).size.0 / CHUNK_BYTES) as u32
    }

    /// One chunk more. Guests work on both sides of the old end as soon as their writer knows.
    pub fn grow_volume(&mut self, volume: Vol) {
        let chunks = self.chunks(volume);
        if !self.catalog.up || chunks == format::CHUNKS_MAX {
            return;
        }
        self.catalog.grow(volume, ByteCount(u64::from(chunks + 1) * CHUNK_BYTES));
        self.trace.count("event: volume grown");
        self.trace.line(self.now, None, || format!("{volume} grows to {} chunks", chunks + 1));
        let end = u64::from(chunks) * u64::from(BLOCKS_PER_CHUNK);
        self.sites[volume.index()].hot.extend([end - u64::from(BLOCKS_PER_SLOT), end]);
    }

    /// The chunks of a disk that is out go to one that has none of the volume. A clone that is not made yet follows its
    /// source.
    pub fn replace_some_disk(&mut self, volume: Vol) {
        let record = self.catalog.record(volume);
        let gone = record.members.iter().find(|member| {
            matches!(member.state, MemberState::Out { .. }) && crate::finish::holds(record, member.disk)
        });
        let free = self.disks().find(|&disk| self.may_come(volume, disk));
        let (Some(gone), Some(free)) = (gone.map(|member| member.disk), free) else { return };
        if !self.catalog.up || record.origin.is_some_and(|origin| !origin.is_made) {
            return;
        }
        let node = crate::catalog::node_name(Node(free.0));
        let with = Member { disk: format::disk_id(free), node, zone: None, state: MemberState::InSync };
        self.catalog.replace(volume, gone, with);
        self.trace.count("event: disk replaced");
        let gone = disk_of(gone);
        self.trace.line(self.now, None, || format!("{free} takes the place of {gone} in {volume}"));
        self.check_comer(volume, free);
        self.leave_behind(volume, gone);
    }

    /// It is no member, and nothing of the volume is still to be deleted there.
    pub fn may_come(&self, volume: Vol, disk: Disk) -> bool {
        let is_member = self.catalog.record(volume).member(format::disk_id(disk)).is_some();
        !is_member && !self.clones.tombstones.contains_key(&(volume, disk))
    }

    /// In the change that takes its chunks from the disk: what it has is to be deleted, and the deletion fences the
    /// epoch of that change.
    pub fn leave_behind(&mut self, volume: Vol, disk: Disk) {
        let epoch = self.catalog.record(volume).epoch;
        self.clones.tombstones.insert((volume, disk), epoch);
        self.clones.left_behind.insert((volume, disk), epoch);
        self.agenda.add(self.now, Happening::Reap { volume });
    }

    /// A disk has been given chunks. One that had some before would refuse every writer up to the epoch that their
    /// deletion has fenced, and stay out.
    pub fn check_comer(&mut self, volume: Vol, disk: Disk) {
        let Some(&fenced) = self.clones.left_behind.get(&(volume, disk)) else { return };
        self.trace.count("event: disk chosen again");
        let epoch = self.catalog.record(volume).epoch;
        if epoch <= fenced || self.clones.tombstones.contains_key(&(volume, disk)) {
            self.violated(format!("{disk} is chosen for {volume} again under {epoch}, and refuses {fenced}"), None);
        }
    }
}
