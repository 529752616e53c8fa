//! Volumes that grow, and disks that are out and are replaced by others: what an operator and a rebuild do to a record.

use crate::format;
use crate::names::{Disk, Node, Vol};
use crate::world::{World, disk_of};
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

    /// The chunks of a disk that is out go to one that has none of the volume, or has them from long ago.
    pub fn replace_some_disk(&mut self, volume: Vol) {
        let record = self.catalog.record(volume);
        let gone = record.members.iter().find(|member| {
            matches!(member.state, MemberState::Out { .. }) && crate::finish::holds(record, member.disk)
        });
        // What it has of the volume is still to be deleted.
        let is_buried = |disk: &Disk| self.clones.tombstones.contains_key(&(volume, *disk));
        let is_free = |disk: &Disk| record.member(format::disk_id(*disk)).is_none() && !is_buried(disk);
        let (Some(gone), Some(free)) = (gone.map(|member| member.disk), self.disks().find(is_free)) else { return };
        if !self.catalog.up {
            return;
        }
        let node = crate::catalog::node_name(Node(free.0));
        let with = Member { disk: format::disk_id(free), node, zone: None, state: MemberState::InSync };
        self.catalog.replace(volume, gone, with);
        self.trace.count("event: disk replaced");
        let gone = disk_of(gone);
        self.trace.line(self.now, None, || format!("{free} takes the place of {gone} in {volume}"));
    }
}
