//! Directed schedules: the few interleavings that leases, fences and the steps of attach, eject and return exist for,
//! which random faults hardly ever find. Each is drawn anew from the seed in every round: which node, how long, when.

use crate::names::{Disk, MICROS, MILLIS, Nanos, Node, SECONDS, Vol, Writer};
use crate::scenario::Directed;
use crate::world::{Happening, World};
use crate::writer::Call;

/// Writes that a guest sends before its writer is stopped, so that answers come to the sleeper.
const WRITES_BEFORE_SLEEP: u32 = 4;
/// Writes that only the replica beside a zombie gets.
const COLD_WRITES: u32 = 3;

/// A later part of a round.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    /// The two nodes hear each other, and nobody else hears them.
    CutOff { nodes: [Node; 2], lasts: Nanos },
    /// The node hears none of the first so many places any more.
    Deafen { node: Node, places: u16, lasts: Nanos },
    /// The two nodes do not hear each other.
    Part { nodes: [Node; 2], lasts: Nanos },
    /// The link of whoever has the volume now to the disk is reset.
    Reset { volume: Vol, disk: Disk },
    /// Whoever has the volume now dies.
    KillCurrent { volume: Vol },
    /// The disk's chunkserver dies and comes back soon.
    Bounce { disk: Disk },
}

impl Move {
    /// For the hash of the trace.
    pub fn number(self) -> u64 {
        match self {
            Move::CutOff { nodes: [a, b], .. } => u64::from(a.0) << 16 | u64::from(b.0),
            Move::Deafen { node, .. } => 5 << 32 | u64::from(node.0),
            Move::Part { nodes: [a, b], .. } => 3 << 32 | u64::from(a.0) << 16 | u64::from(b.0),
            Move::Reset { volume, disk } => 4 << 32 | u64::from(volume.0) << 16 | u64::from(disk.0),
            Move::KillCurrent { volume } => 1 << 32 | u64::from(volume.0),
            Move::Bounce { disk } => 2 << 32 | u64::from(disk.0),
        }
    }
}

impl World {
    /// One round of the seed's directed schedule; the next follows.
    pub fn directed_step(&mut self, step: u32) {
        if self.quiet {
            return;
        }
        let volume = Vol((step % u32::from(self.scenario.volumes)) as u16);
        let lasts = match self.scenario.directed {
            None => return,
            Some(Directed::Zombie { beside_its_replica }) => self.make_a_zombie(volume, beside_its_replica),
            Some(Directed::Relay { beside_its_replica }) => self.make_a_relay(volume, beside_its_replica),
            Some(Directed::Sleeper) => self.make_a_sleeper(volume),
            Some(Directed::DyingWriter) => self.give_the_writer_work(step),
            Some(Directed::LostEjection) => self.lose_an_ejection(volume),
            Some(Directed::Usurper) => self.usurp(volume),
            Some(Directed::Flapping) => self.flap(volume, step),
            Some(Directed::DyingPeer) => self.make_writers_start(volume),
            Some(Directed::FullDisk) => self.note_full_disk(),
            Some(Directed::SlowPromise) => self.slow_a_promise(volume),
        };
        let pause = match self.scenario.directed {
            Some(Directed::Flapping) => self.fault_rng.range(50, 900),
            _ => self.fault_rng.range(500, 3000),
        };
        self.agenda.add(self.now + lasts + pause * MILLIS, Happening::DirectedStep { step: step + 1 });
    }

    pub fn make_move(&mut self, next: Move) {
        if self.quiet {
            return;
        }
        match next {
            Move::CutOff { nodes, lasts } => self.cut_off(nodes, lasts),
            Move::Bounce { disk } => self.bounce(disk),
            Move::Deafen { node, places, lasts } => {
                (0..places).map(Node).for_each(|other| self.cut_path(other, node, lasts));
            }
            Move::Part { nodes: [a, b], lasts } => {
                self.cut_path(a, b, lasts);
                self.cut_path(b, a, lasts);
            }
            Move::Reset { volume, disk } => {
                if let Some(writer) = self.current(volume) {
                    self.reset_link_between(writer, disk);
                }
            }
            Move::KillCurrent { volume } => {
                if let Some(writer) = self.current(volume) {
                    self.crash_writer(writer, false);
                }
            }
        }
    }

    fn soon(&mut self, low: Nanos, high: Nanos, next: Move) -> Nanos {
        let at = self.now + self.fault_rng.tail(low, high);
        self.agenda.add(at, Happening::Move { next });
        at
    }

    fn serving(&self, volume: Vol) -> Option<Writer> {
        self.current(volume).filter(|writer| self.writers[writer.index()].serving)
    }

    fn cut_off(&mut self, nodes: [Node; 2], lasts: Nanos) {
        for other in (0..=self.scenario.nodes).map(Node).filter(|other| !nodes.contains(other)) {
            for node in nodes {
                self.cut_path(node, other, lasts);
                self.cut_path(other, node, lasts);
            }
        }
    }

    /// The writer's node, and the one whose replica it will keep.
    fn zombie_nodes(&mut self, old: Writer, beside_its_replica: bool) -> [Node; 2] {
        let old_node = self.writers[old.index()].node;
        [old_node, if beside_its_replica { old_node } else { self.other_node(&[old_node]) }]
    }

    /// The old writer hears one replica only, and the new one cannot reach that one.
    fn make_a_zombie(&mut self, volume: Vol, beside_its_replica: bool) -> Nanos {
        let Some(old) = self.serving(volume) else { return 300 * MILLIS };
        let lasts = self.fault_rng.range(2500, 7000) * MILLIS;
        let nodes = self.zombie_nodes(old, beside_its_replica);
        self.trace.count("directed: zombie");
        self.cut_off(nodes, lasts);
        self.write_cold(old, COLD_WRITES);
        let new_node = self.other_node(&nodes);
        self.attach_soon(volume, new_node);
        lasts
    }

    /// The new writer dies soon after its attach, before or after it serves, and the third one comes at once.
    fn make_a_relay(&mut self, volume: Vol, beside_its_replica: bool) -> Nanos {
        let Some(old) = self.serving(volume) else { return 300 * MILLIS };
        let lasts = self.fault_rng.range(2500, 7000) * MILLIS;
        let nodes = self.zombie_nodes(old, beside_its_replica);
        self.trace.count("directed: relay");
        self.cut_off(nodes, lasts);
        self.write_cold(old, COLD_WRITES);
        let (second, third) = (self.other_node(&nodes), self.other_node(&nodes));
        self.agenda.add(self.now + MILLIS, Happening::AttachAt { volume, node: second });
        let dies = self.soon(10 * MILLIS, 1200 * MILLIS, Move::KillCurrent { volume });
        self.agenda.add(dies + MILLIS, Happening::AttachAt { volume, node: third });
        lasts
    }

    /// The writer is stopped for longer than its lease while another takes the volume. Answers to what it had sent
    /// wait for it.
    fn make_a_sleeper(&mut self, volume: Vol) -> Nanos {
        let Some(old) = self.serving(volume) else { return 300 * MILLIS };
        let lasts = self.fault_rng.range(500, 5000) * MILLIS;
        let old_node = self.writers[old.index()].node;
        self.trace.count("directed: sleeper");
        if self.fault_rng.coin() {
            self.write_some(old, WRITES_BEFORE_SLEEP);
        }
        self.pause_writer(old, lasts);
        if self.fault_rng.coin() {
            // The new writer cannot reach the replica beside the old one, so it has to wait out the lease.
            // Answers to what it had sent come before the cut. The control plane neither may tell it that it was
            // replaced.
            let places = self.scenario.nodes + u16::from(self.fault_rng.coin());
            self.soon(2 * MILLIS, 20 * MILLIS, Move::Deafen { node: old_node, places, lasts: lasts + SECONDS });
        }
        let new_node = self.other_node(&[old_node]);
        self.attach_soon(volume, new_node);
        lasts
    }

    /// Ejections and returns, between whose steps the writers of this schedule die.
    fn give_the_writer_work(&mut self, step: u32) -> Nanos {
        self.trace.count("directed: dying writer");
        let disk: Disk = self.any_disk();
        match step % 4 {
            0 => self.power_cut(self.servers[disk.index()].node),
            1 if self.fault_rng.below(3) == 0 => self.power_cut_all(),
            _ => self.crash_and_restart(disk),
        }
        SECONDS
    }

    /// The writer gives up a replica that it can reach again at once, and never hears whether the catalog took that in.
    fn lose_an_ejection(&mut self, volume: Vol) -> Nanos {
        let Some(old) = self.serving(volume) else { return 300 * MILLIS };
        let lasts = self.fault_rng.range(2000, 5000) * MILLIS;
        let beside = self.fault_rng.coin();
        let nodes @ [old_node, kept] = self.zombie_nodes(old, beside);
        self.trace.count("directed: ejection without an answer");
        let plane = self.net.control_plane();
        self.cut_path(plane, old_node, lasts);
        let given_up = self.disks().find(|disk| self.servers[disk.index()].node == kept);
        if let Some(disk) = given_up {
            self.reset_link_between(old, disk);
        }
        let at = self.soon(10 * MILLIS, 800 * MILLIS, Move::CutOff { nodes, lasts });
        let node = self.other_node(&nodes);
        self.agenda.add(at + MILLIS, Happening::AttachAt { volume, node });
        lasts
    }

    fn reset_link_between(&mut self, writer: Writer, disk: Disk) {
        if let Some(&link) = self.writers[writer.index()].links.get(&disk) {
            self.reset_link(link);
        }
    }

    fn note_full_disk(&mut self) -> Nanos {
        self.trace.count("directed: small disk");
        0
    }

    /// What the old writer sent before the promise becomes durable late, or not at all.
    fn slow_a_promise(&mut self, volume: Vol) -> Nanos {
        let Some(old) = self.serving(volume) else { return 300 * MILLIS };
        self.trace.count("directed: slow promise");
        let (disk, old_node) = (self.any_disk(), self.writers[old.index()].node);
        let kept = self.servers[disk.index()].node;
        let lasts = self.fault_rng.range(200, 1500) * MILLIS;
        for other in (0..self.scenario.nodes).map(Node).filter(|other| *other != kept && *other != old_node) {
            self.cut_path(old_node, other, lasts);
            self.cut_path(other, old_node, lasts);
        }
        let slowness = self.fault_rng.range(20, 200);
        let ailment = &mut self.servers[disk.index()].ailment;
        (ailment.slowness, ailment.slow_until) = (slowness, self.now + lasts);
        self.write_cold(old, COLD_WRITES);
        let node = self.other_node(&[old_node]);
        let after = self.fault_rng.tail(MILLIS, 40 * MILLIS);
        self.agenda.add(self.now + after, Happening::AttachAt { volume, node });
        if self.fault_rng.coin() {
            self.soon(after, after + 200 * MILLIS, Move::Bounce { disk });
        }
        lasts
    }

    /// The old writer is not cut off from anything; it only reads. Those who promised to the new one die at once, or
    /// the new one loses the replica beside the old one.
    fn usurp(&mut self, volume: Vol) -> Nanos {
        let Some(old) = self.serving(volume) else { return 300 * MILLIS };
        self.trace.count("directed: usurper");
        self.writers[old.index()].guest.reads_only = true;
        let node = self.other_node(&[self.writers[old.index()].node]);
        self.agenda.add(self.now, Happening::AttachAt { volume, node });
        let old_node = self.writers[old.index()].node;
        if self.fault_rng.coin() {
            let lasts = self.fault_rng.range(1000, 4000) * MILLIS;
            self.soon(20 * MILLIS, 400 * MILLIS, Move::Part { nodes: [node, old_node], lasts });
        } else {
            for disk in self.disks().filter(|_| self.fault_rng.coin()).collect::<Vec<_>>() {
                self.soon(MILLIS, 300 * MILLIS, Move::Bounce { disk });
            }
        }
        SECONDS
    }

    /// The disk of this seed that is never well for long: not the one that loses bits, which nobody compares.
    fn flap(&mut self, volume: Vol, step: u32) -> Nanos {
        self.trace.count("directed: flapping disk");
        let disk = Disk((self.rotten.0 + 1) % self.scenario.nodes);
        if step.is_multiple_of(2) {
            self.bounce(disk);
            return 0;
        }
        // Slow, and its links break: what is sent again finds the first copy on its way to the medium.
        let lasts = self.fault_rng.range(50, 400) * MILLIS;
        let slowness = self.fault_rng.range(20, 200);
        let ailment = &mut self.servers[disk.index()].ailment;
        (ailment.slowness, ailment.slow_until) = (slowness, self.now + lasts);
        for _ in 0..2 {
            self.soon(MILLIS, lasts, Move::Reset { volume, disk });
        }
        lasts
    }

    fn bounce(&mut self, disk: Disk) {
        let power = self.fault_rng.coin();
        self.crash_server(disk, power);
        let after = self.fault_rng.tail(5 * MILLIS, 400 * MILLIS);
        self.agenda.add(self.now + after, Happening::StartServer { disk });
    }

    /// Attaches, ejections and returns, between whose steps chunkservers die.
    fn make_writers_start(&mut self, volume: Vol) -> Nanos {
        self.trace.count("directed: dying peer");
        if self.fault_rng.coin() {
            self.make_move(Move::KillCurrent { volume });
        } else {
            let disk = self.any_disk();
            self.bounce(disk);
        }
        0
    }

    /// The step after which this schedule strikes has been made.
    pub fn strike_between_steps(&mut self, writer: Writer, peer: Option<Disk>) {
        if self.scenario.directed != Some(Directed::DyingPeer) {
            self.trace.count("fault: writer dies between two steps");
            self.crash_writer(writer, false);
            return;
        }
        let disk = match peer {
            Some(peer) if self.fault_rng.below(3) > 0 => peer,
            _ => self.any_disk(),
        };
        let (here, there) = (self.writers[writer.index()].node, self.servers[disk.index()].node);
        let lasts = self.fault_rng.tail(20 * MILLIS, 5 * SECONDS);
        self.trace.count("fault: chunkserver is lost between two steps");
        self.trace.line(self.now, None, || format!("{disk} is struck after a step of {writer}"));
        match self.fault_rng.below(3) {
            0 => self.cut_path(here, there, lasts),
            1 => self.cut_path(there, here, lasts),
            // Not now: messages of the same event are still to be sent.
            _ => {
                self.soon(MICROS, 2 * MILLIS, Move::Bounce { disk });
            }
        }
        let more = self.fault_rng.tail(1, 120) as u32;
        let state = &mut self.writers[writer.index()];
        state.dies_after = Some(state.steps + more);
    }

    /// In the flapping schedule a call may arrive a second time, when much has changed.
    pub fn repeat_call_late(&mut self, call: &Call, arrives: Nanos) {
        if self.scenario.directed == Some(Directed::Flapping) && self.fault_rng.coin() && !self.quiet {
            self.trace.count("fault: call to the control plane arrives twice");
            let late = self.fault_rng.tail(20 * MILLIS, 4 * SECONDS);
            self.agenda.add(arrives + late, Happening::CallArrives { call: call.clone(), asked: self.now });
        }
    }

    fn attach_soon(&mut self, volume: Vol, node: Node) {
        let after = self.fault_rng.range(0, 800) * MILLIS;
        self.agenda.add(self.now + after, Happening::AttachAt { volume, node });
    }

    fn other_node(&mut self, not: &[Node]) -> Node {
        let others: Vec<Node> = (0..self.scenario.nodes).map(Node).filter(|node| !not.contains(node)).collect();
        *self.fault_rng.pick(&others)
    }

    /// After which step of its protocol the writer that starts now dies, or a chunkserver does.
    pub fn death_of_next_writer(&mut self) -> Option<u32> {
        let strikes = matches!(self.scenario.directed, Some(Directed::DyingWriter | Directed::DyingPeer));
        let dies = strikes && !self.quiet && self.fault_rng.below(4) > 0;
        dies.then(|| self.fault_rng.tail(1, 120) as u32)
    }
}
