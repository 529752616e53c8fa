//! Faults that strike at random times, and their ends.

use crate::names::{Disk, Link, MICROS, MILLIS, Nanos, Node, SECONDS, Vol, Writer};
use crate::scenario::Class;
use crate::world::{Happening, World};

/// A wait of 1.25 leases (2.5 s) by a clock that is 5 % fast, less this, is longer than a lease (2 s) by one 5 % slow.
const LEAP_NEAR_MAX: Nanos = 200 * MILLIS;
const LEAP_FAR_MAX: Nanos = 30 * SECONDS;
/// Longer than such a wait.
const LEAPS_APART: Nanos = 3 * SECONDS;

impl World {
    /// A class of faults strikes, and sets the time of its next strike.
    pub fn strike(&mut self, class: Class, every: Nanos) {
        if self.quiet {
            return;
        }
        self.trace.count(class.name());
        self.trace.line(self.now, None, || format!("strikes: {class:?}"));
        match class {
            Class::ServerCrash => {
                let disk = self.any_disk();
                self.crash_and_restart(disk);
            }
            Class::WriterCrash => {
                if let Some(writer) = self.any_writer() {
                    self.crash_writer(writer, false);
                }
            }
            Class::NodePowerCut => {
                let node = self.any_node();
                self.power_cut(node);
            }
            Class::TotalPowerCut => self.power_cut_all(),
            Class::CutOneWay | Class::CutBothWays => self.cut_some_path(class == Class::CutBothWays),
            Class::IsolateNode => {
                let (node, lasts) = (self.any_node(), self.some_time(100 * MILLIS, 6 * SECONDS));
                self.isolate(node, lasts);
            }
            Class::SlowPath => self.slow_some_path(),
            Class::ResetLink => self.reset_some_link(),
            Class::PauseServer => {
                let (disk, lasts) = (self.any_disk(), self.some_time(50 * MILLIS, 6 * SECONDS));
                self.pause_server(disk, lasts);
            }
            Class::PauseWriter => {
                let lasts = self.some_time(50 * MILLIS, 6 * SECONDS);
                if let Some(writer) = self.any_writer() {
                    self.pause_writer(writer, lasts);
                }
            }
            Class::CatalogOutage => {
                let lasts = self.some_time(100 * MILLIS, 8 * SECONDS);
                self.catalog.up = false;
                self.agenda.add(self.now + lasts, Happening::CatalogUp);
            }
            Class::ForceAttach => {
                let volume = self.any_volume();
                self.attach(volume);
            }
            Class::Detach => {
                let volume = self.any_volume();
                self.detach(volume);
            }
            Class::DeclareLost => self.declare_some_disk_lost(),
            Class::Grow => {
                let volume = self.any_volume();
                self.grow_volume(volume);
            }
            Class::Replace => {
                let volume = self.any_volume();
                self.replace_some_disk(volume);
            }
            Class::Snapshot => {
                let volume = self.any_volume();
                self.some_snapshot(volume);
            }
            class if Class::DECAY.contains(&class) => self.strike_content(class),
            _ => self.strike_disk(class),
        }
        let after = self.fault_rng.range(every / 4, every * 7 / 4);
        self.agenda.add(self.now + after, Happening::Strike { class, every });
    }

    fn strike_disk(&mut self, class: Class) {
        let disk = self.any_disk();
        let errors = self.fault_rng.range(1, 3) as u32;
        let server = &mut self.servers[disk.index()];
        match class {
            Class::DiskSlow => {
                server.ailment.slowness = self.fault_rng.range(5, 400);
                server.ailment.slow_until = self.now + self.fault_rng.range(100, 4000) * MILLIS;
            }
            Class::WriteError => server.ailment.write_errors = 1,
            Class::ReadError => self.servers[self.rotten.index()].ailment.read_errors = errors,
            Class::FlushError => server.ailment.flush_errors = 1,
            Class::CommitError => server.ailment.commit_errors = 1,
            Class::BitFlip => {
                let rotten = self.rotten;
                if let Some(page) = self.servers[rotten.index()].medium.flip_bit(&mut self.fault_rng) {
                    self.trace.line(self.now, None, || format!("{rotten} loses a bit of page {page}"));
                    // What is only in the journal is read again by replay alone.
                    if self.fault_rng.coin() {
                        self.crash_and_restart(rotten);
                    }
                }
            }
            other => unreachable!("{other:?} strikes no disk"),
        }
    }

    /// An operator declares a disk lost: with proof when its node is off, rashly when enough others seem to be there.
    fn declare_some_disk_lost(&mut self) {
        let (disk, volume) = (self.any_disk(), self.any_volume());
        let proof = !self.powered(self.servers[disk.index()].node);
        if self.catalog.up && self.catalog.declare_lost(volume, self.id_of(disk), proof) {
            self.trace.count("fault: disk declared lost");
            self.trace.line(self.now, None, || format!("{disk} is declared lost for {volume}, proof: {proof}"));
        }
    }

    fn some_time(&mut self, low: Nanos, high: Nanos) -> Nanos {
        self.fault_rng.tail(low, high)
    }

    pub fn any_node(&mut self) -> Node {
        Node(self.fault_rng.below(u64::from(self.scenario.nodes)) as u16)
    }

    pub fn any_disk(&mut self) -> Disk {
        Disk(self.fault_rng.below(u64::from(self.scenario.nodes)) as u16)
    }

    fn any_volume(&mut self) -> Vol {
        let volumes: Vec<Vol> = self.volumes().collect();
        *self.fault_rng.pick(&volumes)
    }

    pub fn living_writers(&self) -> Vec<Writer> {
        (0..self.writers.len() as u32).map(Writer).filter(|w| self.writers[w.index()].core.is_some()).collect()
    }

    fn any_writer(&mut self) -> Option<Writer> {
        let living = self.living_writers();
        (!living.is_empty()).then(|| *self.fault_rng.pick(&living))
    }

    pub fn crash_and_restart(&mut self, disk: Disk) {
        self.crash_server(disk, false);
        let after = self.some_time(20 * MILLIS, 5 * SECONDS);
        self.agenda.add(self.now + after, Happening::StartServer { disk });
    }

    pub fn power_cut(&mut self, node: Node) {
        if !self.powered(node) {
            return;
        }
        self.lose_power(node);
        let after = self.some_time(100 * MILLIS, 6 * SECONDS);
        self.agenda.add(self.now + after, Happening::PowerOn { node });
    }

    pub fn power_cut_all(&mut self) {
        for node in (0..self.scenario.nodes).map(Node) {
            self.power_cut(node);
        }
    }

    fn lose_power(&mut self, node: Node) {
        self.trace.line(self.now, None, || format!("{node} loses power"));
        self.node_power[node.index()] = false;
        for writer in self.living_writers() {
            if self.writers[writer.index()].node == node {
                self.crash_writer(writer, true);
            }
        }
        for disk in self.disks() {
            if self.servers[disk.index()].node == node {
                self.crash_server(disk, true);
            }
        }
    }

    pub fn power_on(&mut self, node: Node) {
        self.node_power[node.index()] = true;
        for disk in self.disks() {
            if self.servers[disk.index()].node == node {
                self.start_server(disk);
            }
        }
    }

    /// A node hears nobody and nobody hears it, the control plane included. Its own chunkserver it does hear.
    pub fn isolate(&mut self, node: Node, lasts: Nanos) {
        for other in (0..=self.scenario.nodes).map(Node) {
            self.cut_path(node, other, lasts);
            self.cut_path(other, node, lasts);
        }
    }

    fn cut_some_path(&mut self, both_ways: bool) {
        let from = self.any_node();
        let to = Node(self.fault_rng.below(u64::from(self.scenario.nodes) + 1) as u16);
        let lasts = self.some_time(50 * MILLIS, 8 * SECONDS);
        let (from, to) = if self.fault_rng.coin() { (from, to) } else { (to, from) };
        self.cut_path(from, to, lasts);
        if both_ways {
            self.cut_path(to, from, lasts);
        }
    }

    fn slow_some_path(&mut self) {
        let (from, to) = (self.any_node(), self.any_node());
        let high = self.fault_rng.range(1, 600) * MILLIS;
        let path = self.net.path(from, to);
        let slow = path.delay_high >= MILLIS;
        path.delay_high = if slow { 400 * MICROS } else { high };
    }

    fn reset_some_link(&mut self) {
        let open: Vec<Link> = (0..self.net.links.len() as u32)
            .map(Link)
            .filter(|link| self.net.links[link.index()].writer_open && self.net.links[link.index()].server_open)
            .collect();
        if !open.is_empty() {
            let link = *self.fault_rng.pick(&open);
            self.trace.line(self.now, None, || format!("{link} is reset"));
            self.reset_link(link);
        }
    }

    pub fn pause_server(&mut self, disk: Disk, lasts: Nanos) {
        let incarnation = self.servers[disk.index()].incarnation;
        if let Some(process) = &mut self.servers[disk.index()].process
            && process.paused.is_none()
        {
            process.paused = Some(Vec::new());
            self.trace.line(self.now, None, || format!("{disk} chunkserver is stopped for {} ms", lasts / MILLIS));
            self.agenda.add(self.now + lasts, Happening::ResumeServer { disk, incarnation });
        }
    }

    pub fn resume_server(&mut self, disk: Disk, incarnation: u32) {
        if self.servers[disk.index()].incarnation != incarnation {
            return;
        }
        let Some(process) = &mut self.servers[disk.index()].process else { return };
        let Some(backlog) = process.paused.take() else { return };
        self.trace.line(self.now, None, || format!("{disk} chunkserver goes on"));
        for happening in backlog {
            self.happens(happening);
        }
        self.set_server_tick(disk);
    }

    /// A node's clock is ahead all at once. Where a writer waits until another's leases have run out, that must be less
    /// than what the wait is longer than a lease, drift counted: more is beyond the contract.
    pub fn clock_leaps(&mut self, every: Nanos) {
        if self.quiet {
            return;
        }
        let node = Node(self.leap_rng.below(u64::from(self.scenario.nodes)) as u16);
        let mut writers = self.living_writers();
        writers.retain(|writer| self.writers[writer.index()].node == node);
        let waits = |writer: &Writer| {
            let core = self.writers[writer.index()].core.as_ref();
            core.is_some_and(|core| !core.status().serving)
        };
        let is_far = !writers.iter().any(waits) && self.leap_rng.coin();
        let (low, high) = if is_far { (LEAP_NEAR_MAX, LEAP_FAR_MAX) } else { (1, LEAP_NEAR_MAX) };
        let by = self.leap_rng.range(low, high);
        self.trace.count(if is_far { "fault: clock leaps far" } else { "fault: clock leaps" });
        self.trace.line(self.now, None, || format!("{node} has a clock that leaps ahead by {} ms", by / MILLIS));
        self.clocks[node.index()].offset += by;
        for writer in writers {
            self.set_writer_tick(writer);
        }
        for disk in self.disks() {
            if self.servers[disk.index()].node == node {
                self.set_server_tick(disk);
            }
        }
        let after = LEAPS_APART + self.leap_rng.below(every);
        self.agenda.add(self.now + after, Happening::ClockLeaps { every });
    }

    pub fn pause_writer(&mut self, writer: Writer, lasts: Nanos) {
        let state = &mut self.writers[writer.index()];
        if state.core.is_some() && state.paused.is_none() {
            state.paused = Some(Vec::new());
            self.trace.line(self.now, None, || format!("{writer} is stopped for {} ms", lasts / MILLIS));
            self.agenda.add(self.now + lasts, Happening::ResumeWriter { writer });
        }
    }

    pub fn resume_writer(&mut self, writer: Writer) {
        let Some(backlog) = self.writers[writer.index()].paused.take() else { return };
        self.trace.line(self.now, None, || format!("{writer} goes on"));
        for happening in backlog {
            self.happens(happening);
        }
        self.set_writer_tick(writer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use ashlar_types::Duration;
    use ashlar_volume::Config;

    #[test]
    fn a_leap_during_a_wait_for_leases_is_less_than_the_wait_has_to_spare() {
        let config = Config::new("n0".parse().unwrap(), None);
        let drift = f64::from(Clock::DRIFT_PPM_MAX) / 1e6;
        let shortest_wait = (config.fence_wait() - Duration::from_nanos(LEAP_NEAR_MAX)).div_f64(1.0 + drift);
        let longest_lease = config.lease.div_f64(1.0 - drift);
        assert!(shortest_wait > longest_lease, "{shortest_wait:?}, {longest_lease:?}");
        assert!(Duration::from_nanos(LEAPS_APART) > config.fence_wait().div_f64(1.0 - drift), "one leap during a wait");
    }
}
