//! Where a volume is used: its hot blocks, and who attaches it, where, when. What Kubernetes and the CSI services
//! do to a volume.

use crate::format;
use crate::names::{MILLIS, Node, Vol, Writer};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::trace::Touch;
use crate::world::{Happening, World};
use crate::writer::WriterState;
use ashlar_types::{BLOCKS_PER_CHUNK, BLOCKS_PER_SLOT};
use ashlar_volume::Event;

pub struct Site {
    /// First blocks of the slots where the guests work.
    pub hot: Vec<u64>,
    /// The writer that was attached last.
    pub current: Option<Writer>,
    /// Where the next writer must run.
    pub next_node: Option<Node>,
    /// The run is over: nobody attaches any more.
    pub closing: bool,
}

impl Site {
    pub fn draw(scenario: &Scenario, rng: &mut Rng) -> Site {
        let (slot, chunk) = (u64::from(BLOCKS_PER_SLOT), u64::from(BLOCKS_PER_CHUNK));
        // Neighbours on both sides of a chunk border, the rest anywhere.
        let mut hot = vec![chunk - slot, 0];
        let slots = u64::from(scenario.hot_slots).max(8);
        while hot.len() < usize::from(scenario.hot_slots) {
            hot.push(rng.below(u64::from(format::CHUNKS)) * chunk + rng.below(slots / 2) * slot);
        }
        Site { hot, current: None, next_node: None, closing: false }
    }

    /// Guests of a clone work where those of its source do.
    pub fn for_clone(&self) -> Site {
        Site { hot: self.hot.clone(), current: None, next_node: None, closing: false }
    }
}

impl World {
    pub fn current(&self, volume: Vol) -> Option<Writer> {
        self.sites[volume.index()].current.filter(|writer| self.writers[writer.index()].core.is_some())
    }

    /// Sees to it that the volume is attached, and looks again later.
    pub fn supervise(&mut self, volume: Vol) {
        if self.sites[volume.index()].closing || self.clones.gone.contains(&volume) {
            return;
        }
        if self.current(volume).is_none() {
            self.attach(volume);
        }
        self.publish_record(volume);
        let after = self.site_rng.range(100, 900) * MILLIS;
        self.agenda.add(self.now + after, Happening::Supervise { volume });
    }

    /// Now and then a writer hears the record unasked, and perhaps late.
    fn publish_record(&mut self, volume: Vol) {
        if self.site_rng.below(4) > 0 || !self.catalog.up {
            return;
        }
        let late = self.site_rng.tail(MILLIS, 1500 * MILLIS);
        let plane = self.net.control_plane();
        for writer in self.living_writers() {
            let WriterState { volume: of, node, .. } = self.writers[writer.index()];
            if of == volume && !self.net.is_cut(plane, node) {
                let event = Event::Record(self.catalog.record(volume).clone());
                self.agenda.add(self.now + late, Happening::ToWriter { writer, event });
            }
        }
    }

    /// Attaches the volume anew, in place of whoever has it.
    pub fn attach(&mut self, volume: Vol) {
        let is_made = self.catalog.record(volume).origin.is_none_or(|origin| origin.is_made);
        if !is_made || self.sites[volume.index()].closing || self.clones.gone.contains(&volume) {
            return;
        }
        let chosen = self.sites[volume.index()].next_node.take();
        let node = chosen.unwrap_or_else(|| Node(self.site_rng.below(u64::from(self.scenario.nodes)) as u16));
        let plane = self.net.control_plane();
        if !self.powered(node) || !self.catalog.up || self.net.is_cut(node, plane) {
            return;
        }
        let held_elsewhere = self
            .catalog
            .record(volume)
            .holder
            .as_ref()
            .is_some_and(|holder| *holder != crate::catalog::node_name(node));
        let record = match self.catalog.grant(volume, node, held_elsewhere) {
            Ok(record) => record,
            Err(refusal) => {
                self.violated(format!("grant of {volume} is refused: {refusal}"), None);
                return;
            }
        };
        self.trace.count("state: epoch granted");
        if self.net.is_cut(plane, node) || self.net.rng.chance(self.scenario.answers_lost_ppm) {
            let epoch = record.epoch;
            self.trace
                .line(self.now, Touch::all(volume), || format!("grant of epoch {epoch} of {volume} is never heard of"));
            self.trace.count("fault: grant lost");
            return;
        }
        // Another attempt on the same node ends the older one there; elsewhere it lives on until it hears that it
        // is fenced.
        let writer = self.start_writer(volume, node, record);
        self.sites[volume.index()].current = Some(writer);
    }

    pub fn detach(&mut self, volume: Vol) {
        let Some(writer) = self.current(volume) else { return };
        let state = &mut self.writers[writer.index()];
        if !state.serving || state.detaching {
            return;
        }
        state.detaching = true;
        self.trace.line(self.now, Touch::all(volume), || format!("{volume} is detached from {writer}"));
        self.tell_writer(writer, Event::Detach);
    }
}
