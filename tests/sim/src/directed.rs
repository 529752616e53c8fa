//! Directed schedules: the few interleavings that leases and fences exist for, which random faults hardly ever find.

use crate::names::{Disk, MILLIS, Nanos, Node, SECONDS, Vol, Writer};
use crate::scenario::Directed;
use crate::world::{Happening, World};

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
            Some(Directed::Sleeper) => self.make_a_sleeper(volume),
            Some(Directed::DyingWriter) => self.give_the_writer_work(step),
        };
        let after = lasts + self.fault_rng.range(500, 3000) * MILLIS;
        self.agenda.add(self.now + after, Happening::DirectedStep { step: step + 1 });
    }

    fn serving(&self, volume: Vol) -> Option<Writer> {
        self.current(volume).filter(|writer| self.writers[writer.index()].serving)
    }

    /// The old writer hears one replica only, and the new one cannot reach that one.
    fn make_a_zombie(&mut self, volume: Vol, beside_its_replica: bool) -> Nanos {
        let Some(old) = self.serving(volume) else { return 300 * MILLIS };
        let lasts = self.fault_rng.range(2500, 7000) * MILLIS;
        let old_node = self.writers[old.index()].node;
        self.trace.count("directed: zombie");
        let kept = match beside_its_replica {
            true => old_node,
            false => self.other_node(&[old_node]),
        };
        for other in (0..=self.scenario.nodes).map(Node).filter(|&other| other != kept && other != old_node) {
            for (from, to) in [(old_node, other), (other, old_node), (kept, other), (other, kept)] {
                self.cut_path(from, to, lasts);
            }
        }
        let new_node = self.other_node(&[old_node, kept]);
        self.attach_soon(volume, new_node);
        lasts
    }

    /// The writer is stopped for longer than its lease while another takes the volume.
    fn make_a_sleeper(&mut self, volume: Vol) -> Nanos {
        let Some(old) = self.serving(volume) else { return 300 * MILLIS };
        let lasts = self.fault_rng.range(500, 5000) * MILLIS;
        let old_node = self.writers[old.index()].node;
        self.trace.count("directed: sleeper");
        self.pause_writer(old, lasts);
        if self.fault_rng.coin() {
            // The new writer cannot reach the replica beside the old one, so it has to wait out the lease.
            for other in (0..self.scenario.nodes).map(Node) {
                self.cut_path(other, old_node, lasts + SECONDS);
            }
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

    fn attach_soon(&mut self, volume: Vol, node: Node) {
        let after = self.fault_rng.range(0, 800) * MILLIS;
        self.agenda.add(self.now + after, Happening::AttachAt { volume, node });
    }

    fn other_node(&mut self, not: &[Node]) -> Node {
        let others: Vec<Node> = (0..self.scenario.nodes).map(Node).filter(|node| !not.contains(node)).collect();
        *self.fault_rng.pick(&others)
    }

    /// After which step of its protocol the writer that starts now dies.
    pub fn death_of_next_writer(&mut self) -> Option<u32> {
        let dies = self.scenario.directed == Some(Directed::DyingWriter) && !self.quiet && self.fault_rng.below(4) > 0;
        dies.then(|| self.fault_rng.tail(1, 120) as u32)
    }
}
