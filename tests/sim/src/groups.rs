//! Snapshots of several volumes at one instant.
//!
//! The instant is when the last of the writers has said that it holds its writes. What a snapshot of the group gives is
//! checked as a read of its volume at just that instant: whatever was acknowledged before is in it, and nothing that
//! was begun after.

use crate::names::{MILLIS, Nanos, Vol, Writer};
use crate::snapshots::Taken;
use crate::trace::Touch;
use crate::world::{Happening, World};
use ashlar_types::{Duration, SnapshotId};
use ashlar_volume::{Event, SnapshotError};
use std::collections::{BTreeMap, BTreeSet};

/// One at a time: writes of a volume are held for one snapshot only.
#[derive(Default)]
pub struct Group {
    members: BTreeMap<Writer, (Vol, SnapshotId)>,
    waiting: BTreeSet<Writer>,
}

impl World {
    /// Of every volume that has a writer.
    pub fn ask_group(&mut self) {
        let at_most = Duration::from_millis(self.site_rng.range(20, 200));
        let mut group = Group::default();
        for volume in self.volumes().collect::<Vec<_>>() {
            let Some(writer) = self.current(volume) else { continue };
            let id = self.new_snapshot(volume);
            group.members.insert(writer, (volume, id));
            group.waiting.insert(writer);
            let delay = self.group_delay();
            self.agenda.add(self.now + delay, Happening::ToWriter { writer, event: Event::Hold { id, at_most } });
        }
        self.trace.count("event: group of snapshots asked");
        self.trace.line(self.now, None, || format!("a group of {} snapshots is asked for", group.members.len()));
        self.group = group;
    }

    fn group_delay(&mut self) -> Nanos {
        self.site_rng.range(0, 40) * MILLIS
    }

    /// A writer has answered that it holds its writes, or why not.
    pub fn held(&mut self, writer: Writer, id: SnapshotId, result: &Result<(), SnapshotError>) {
        self.trace.line(self.now, None, || format!("{writer} says of the hold for {id}: {result:?}"));
        let is_of_group = self.group.members.get(&writer).is_some_and(|(_, of)| *of == id);
        if !is_of_group {
            return;
        }
        if result.is_err() {
            self.trace.count("state: hold refused");
            self.group = Group::default();
            return;
        }
        if self.group.waiting.remove(&writer) && self.group.waiting.is_empty() {
            self.trace.count("state: group held");
            for (writer, (volume, id)) in std::mem::take(&mut self.group).members {
                let instant = self.history[volume.index()].next_point();
                self.trace.line(self.now, Touch::all(volume), || format!("{id} of {volume} is of this instant"));
                self.snapshots[volume.index()].insert(id, Taken::at(instant));
                let delay = self.group_delay();
                let event = Event::Snapshot { id, held: true };
                self.agenda.add(self.now + delay, Happening::ToWriter { writer, event });
            }
        }
    }
}
