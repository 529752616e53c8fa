//! Where the volume's chunks lie, and how that may change under a writer: the volume grows, and a disk that is out is
//! replaced by another, which is out as well and then returns like one that has nothing (DESIGN §6, "Return").
//!
//! Invariants:
//! - members are added at the end, never removed and never reordered, as long as this writer lives: their indexes stay;
//! - no chunk gains or loses an in-sync holder by it: what was acknowledged by all still is.

use crate::Action;
use crate::member::Member;
use crate::volume::Volume;
use ashlar_types::{ChunkIndex, Geometry, Instant, MEMBERS_MAX, VolumeRecord};

impl Volume {
    /// Why a record cannot be one of this volume's future: a fault elsewhere, which must not stop I/O.
    pub(crate) fn layout_fault(&self, record: &VolumeRecord) -> Option<&'static str> {
        let known = self.members.iter().map(|member| member.disk);
        let named = record.members.iter().map(|member| member.disk);
        if record.members.len() > MEMBERS_MAX || !named.take(self.members.len()).eq(known) {
            return Some("names other disks");
        }
        if record.size < self.record.size || Geometry::new(record.size).is_err() {
            return Some("has another size");
        }
        let fresh_is_out = record.members[self.members.len()..].iter().all(|member| !member.state.is_in_sync());
        if !fresh_is_out || !self.keeps_holders(record) {
            return Some("moves chunks of disks in-sync");
        }
        None
    }

    /// Every chunk that there was has the same holders among the members that are in-sync. Looked at where either table
    /// has a border; between two borders nothing changes.
    fn keeps_holders(&self, record: &VolumeRecord) -> bool {
        let holders = |chunk: ChunkIndex, of: &VolumeRecord| {
            let members = of.members_of(chunk).iter().map(|&index| usize::from(index));
            let known = members.filter(|&index| index < self.members.len());
            let in_sync = known.filter(|&index| record.members[index].state.is_in_sync());
            in_sync.fold(0u64, |mask, index| mask | 1 << index)
        };
        let chunks = self.geometry.chunk_count();
        let borders = self.record.chunks.iter().chain(&record.chunks).map(|run| run.first);
        borders.filter(|chunk| chunk.0 < chunks).all(|chunk| holders(chunk, &self.record) == holders(chunk, record))
    }

    /// Takes over the record with its layout; `layout_fault` found nothing.
    pub(crate) fn take_layout(&mut self, now: Instant, record: VolumeRecord, out: &mut Vec<Action>) {
        for member in &record.members[self.members.len()..] {
            self.members.push(Member::new(member, self.config.distance(member), now));
        }
        self.geometry = Geometry::new(record.size).expect("checked by the caller");
        self.record = record;
        self.note_chunks();
        self.note_points();
        for index in 0..self.members.len() {
            self.tell_size(now, index, out);
            if !self.members[index].has_chunks {
                self.drop_link(now, index, "another disk has its chunks", out);
            }
        }
    }

    pub(crate) fn note_chunks(&mut self) {
        let held = held_by_chunks(&self.record);
        for (index, member) in self.members.iter_mut().enumerate() {
            member.has_chunks = held & (1 << index) != 0;
        }
    }
}

/// The members that hold chunks.
pub(crate) fn held_by_chunks(record: &VolumeRecord) -> u64 {
    record.chunks.iter().flat_map(|run| &run.members).fold(0u64, |mask, &index| mask | 1 << index)
}

#[cfg(test)]
mod tests;
