//! The end of a run: faults stop, everything must become healthy by itself in bounded time, and then be equal and
//! readable.

use crate::names::{Disk, MILLIS, Nanos, Node, SECONDS, Vol};
use crate::server::Ailment;
use crate::world::{World, disk_of};
use ashlar_types::{DiskId, Member, MemberState, SLOT_BYTES, VolumeRecord};
use ashlar_volume::Event;

/// After the last fault: attached, answered, every replica in-sync.
const HEALTHY_WITHIN: Nanos = 60 * SECONDS;
const ANSWERED_WITHIN: Nanos = 20 * SECONDS;
/// Guests go on for this long without faults.
const LAST_REQUESTS: Nanos = 2 * SECONDS;

impl World {
    /// Ends every fault that still lasts.
    pub fn end_faults(&mut self) {
        self.quiet = true;
        self.trace.line(self.now, None, || "faults end".to_owned());
        self.scenario.calls_lost_ppm = 0;
        self.scenario.answers_lost_ppm = 0;
        self.catalog.up = true;
        for from in (0..=self.scenario.nodes).map(Node) {
            for to in (0..=self.scenario.nodes).map(Node) {
                self.heal_path(from, to);
                let path = self.net.path(from, to);
                path.delay_high = path.delay_high.min(MILLIS);
            }
        }
        for disk in self.disks() {
            self.servers[disk.index()].ailment = Ailment::default();
            let incarnation = self.servers[disk.index()].incarnation;
            self.resume_server(disk, incarnation);
        }
        for writer in self.living_writers() {
            self.writers[writer.index()].dies_after = None;
            self.resume_writer(writer);
            self.tell_writer(writer, Event::Pace { bytes_per_second: None, source: None });
        }
        for node in (0..self.scenario.nodes).map(Node) {
            self.power_on(node);
        }
        for disk in self.disks() {
            self.start_server(disk);
        }
    }

    /// Runs the healthy end of the run and its checks.
    pub fn finish(&mut self) {
        self.end_faults();
        self.run_until(self.now + LAST_REQUESTS);
        self.guests_active = false;
        let healthy = self.run_while(self.now + HEALTHY_WITHIN, |world| world.sickness().is_some());
        if self.violation.is_none() && !healthy {
            let sickness = self.sickness().unwrap_or_default();
            self.violated(format!("not healthy {} s after the last fault: {sickness}", HEALTHY_WITHIN / SECONDS), None);
        }
        self.scrub_everything();
        if self.compare_everything() {
            return;
        }
        self.read_everything();
        self.check_histories();
        self.close_everything();
        self.look_at_all_changes();
        self.audit();
        self.give_up_everything();
        self.delete_everything();
    }

    /// What is not yet as it should be, first thing first.
    pub fn sickness(&self) -> Option<String> {
        for writer in self.living_writers() {
            let state = &self.writers[writer.index()];
            if self.current(state.volume) != Some(writer) {
                return Some(format!("{writer} of {} was replaced and does not end", state.volume));
            }
        }
        if let Some(unfinished) = self.unfinished() {
            return Some(unfinished);
        }
        for volume in self.volumes() {
            let Some(writer) = self.current(volume) else { return Some(format!("{volume} is not attached")) };
            let state = &self.writers[writer.index()];
            if !state.serving {
                return Some(format!("{writer} does not serve {volume}"));
            }
            if let Some((tag, pending)) = state.guest.pending.first_key_value() {
                return Some(format!("{writer} does not answer request {} of {volume}: {pending:?}", tag.0));
            }
            let record = self.catalog.record(volume);
            let awaited = |member: &&Member| member.state != MemberState::InSync && holds(record, member.disk);
            if let Some(member) = record.members.iter().find(awaited) {
                let disk = disk_of(member.disk);
                return Some(format!("{disk} is {:?} in {volume}", member.state));
            }
        }
        None
    }

    /// Reads back every block that anyone ever touched, through the writer.
    fn read_everything(&mut self) {
        for volume in self.volumes().collect::<Vec<_>>() {
            let Some(writer) = self.current(volume) else { continue };
            let touched: Vec<u64> = self.touched(writer).into_iter().collect();
            for run in touched.chunk_by(|a, b| a + 1 == *b) {
                for part in run.chunks(64) {
                    self.issue_read(writer, part[0], part.len() as u32);
                }
            }
            self.read_all_snapshots(volume, writer);
        }
        let answered = self.run_while(self.now + ANSWERED_WITHIN, |world| {
            let waits =
                |volume: Vol| world.current(volume).is_some_and(|w| !world.writers[w.index()].guest.pending.is_empty());
            world.volumes().any(waits)
        });
        if self.violation.is_none() && !answered {
            self.violated("the last reads are not answered".to_owned(), None);
        }
    }

    pub fn check_histories(&mut self) {
        for volume in self.volumes_ever() {
            if let Err(found) = self.history[volume.index()].check() {
                self.violated(found.text, found.block.map(|block| (volume, block)));
            }
            self.check_snapshots(volume);
            self.check_changes(volume);
        }
    }

    fn close_everything(&mut self) {
        if self.violation.is_some() {
            return;
        }
        for volume in self.volumes().collect::<Vec<_>>() {
            self.sites[volume.index()].closing = true;
            self.detach(volume);
        }
        let closed = self.run_while(self.now + ANSWERED_WITHIN, |world| !world.living_writers().is_empty());
        if !closed && self.violation.is_none() {
            self.violated("a detach does not end".to_owned(), None);
        }
    }

    /// Every volume is deleted, and every place is free again but for what replaced disks still have.
    fn delete_everything(&mut self) {
        if self.violation.is_some() {
            return;
        }
        for volume in self.volumes().collect::<Vec<_>>() {
            self.bury(volume);
        }
        let deleted = self.run_while(self.now + ANSWERED_WITHIN, |world| world.unfinished().is_some());
        if self.violation.is_none() && !deleted {
            let left = self.unfinished().unwrap_or_default();
            self.violated(format!("volumes were deleted and {left}"), None);
        }
        for disk in self.disks() {
            // One that was to die soon when the faults ended may be down.
            let Some(process) = &self.servers[disk.index()].process else { continue };
            let status = process.engine.status();
            let used: u64 = status.replicas.iter().map(|replica| replica.used_bytes.0 / SLOT_BYTES).sum();
            if u64::from(status.slots_used) != used {
                let text = format!("{disk} has {} places in use and its replicas {used}", status.slots_used);
                return self.violated(text, None);
            }
        }
    }

    /// Disks that are in-sync in the volume.
    pub fn in_sync(&self, volume: Vol) -> Vec<Disk> {
        self.catalog.record(volume).in_sync().map(|member| disk_of(member.disk)).collect()
    }
}

/// A disk that was replaced has no chunk any more.
pub fn holds(record: &VolumeRecord, disk: DiskId) -> bool {
    let named = |&index: &u16| record.members[usize::from(index)].disk == disk;
    record.chunks.iter().any(|run| run.members.iter().any(named))
}
