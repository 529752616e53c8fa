//! Messages on links, and links that end: what the kernel's network stack would do.

use crate::names::{Link, MILLIS, Nanos, Node};
use crate::net::{Connection, Message, Way};
use crate::trace::Touch;
use crate::world::{Happening, World};
use ashlar_wire::Request;

impl World {
    pub fn send(&mut self, link: Link, way: Way, message: Message) {
        let at = self.net.arrival(link, way, self.now);
        self.agenda.add(at, Happening::Arrives { link, way, message });
    }

    /// A message comes to the end of its way: it is delivered, stands still at a cut, or finds nobody.
    pub fn arrives(&mut self, link: Link, way: Way, message: Message) {
        let (from, to) = self.net.link(link).ends(way);
        let cut = self.net.is_cut(from, to);
        let pipe = self.net.link(link).pipe(way);
        if cut || !pipe.stuck.is_empty() {
            if pipe.stuck.is_empty() {
                self.trace.count("state: link stands still at a cut");
            }
            self.net.link(link).pipe(way).stuck.push_back(message);
            return;
        }
        self.deliver(link, way, message);
    }

    fn deliver(&mut self, link: Link, way: Way, message: Message) {
        match way {
            Way::ToServer if self.server_has(link) => self.server_receives(link, message),
            // The process that had the link is gone. A node with power answers with a reset.
            Way::ToServer => {
                let node = self.net.link(link).server_node;
                if self.powered(node) && self.net.link(link).writer_open {
                    self.reset_reaches_writer(link);
                }
            }
            Way::ToWriter => self.writer_receives(link, message),
        }
    }

    fn server_has(&mut self, link: Link) -> bool {
        let Connection { disk, incarnation, server_open, .. } = *self.net.link(link);
        let server = &self.servers[disk.index()];
        server_open && server.process.is_some() && server.incarnation == incarnation
    }

    fn reset_reaches_writer(&mut self, link: Link) {
        let (from, to) = self.net.link(link).ends(Way::ToWriter);
        if !self.net.is_cut(from, to) {
            let at = self.now + self.net.delay(from, to);
            self.agenda.add(at, Happening::LinkLost { link, reset: true });
        }
    }

    /// The chunkserver's end of a link is gone with its process; with `silently` nobody tells the writer.
    pub fn server_end_gone(&mut self, link: Link, silently: bool) {
        self.net.link(link).server_open = false;
        if !silently {
            self.reset_reaches_writer(link);
        }
    }

    /// The writer's end of a link is gone with its process. What it had sent may still arrive, and then the end of
    /// the stream.
    pub fn writer_end_gone(&mut self, link: Link, silently: bool) {
        self.net.link(link).writer_open = false;
        if !silently {
            self.send(link, Way::ToServer, Message::End);
        }
    }

    /// A link is reset by the network: both ends hear it, each in its time, and what was on its way may be lost.
    pub fn reset_link(&mut self, link: Link) {
        let (writer_node, server_node) = self.net.link(link).ends(Way::ToServer);
        let (to_server, to_writer) =
            (self.net.delay(writer_node, server_node), self.net.delay(server_node, writer_node));
        // The chunkserver may hear of it long after what the writer had sent.
        let late = if self.net.rng.below(3) == 0 { self.net.rng.below(800 * MILLIS) } else { 0 };
        self.net.link(link).to_server.last += late;
        let at = self.net.arrival(link, Way::ToServer, self.now).max(self.now + to_server);
        self.agenda.add(at, Happening::Arrives { link, way: Way::ToServer, message: Message::End });
        self.agenda.add(self.now + to_writer, Happening::LinkLost { link, reset: true });
    }

    pub fn cut_path(&mut self, from: Node, to: Node, lasts: Nanos) {
        if from == to {
            return;
        }
        self.net.path(from, to).cut = true;
        self.trace.line(self.now, None, || format!("path {from} -> {to} is cut for {} ms", lasts / MILLIS));
        self.agenda.add(self.now + lasts, Happening::HealPath { from, to });
    }

    /// What stood still goes on, except where the stream was reset meanwhile.
    pub fn heal_path(&mut self, from: Node, to: Node) {
        if !self.net.is_cut(from, to) {
            return;
        }
        self.net.path(from, to).cut = false;
        self.trace.line(self.now, None, || format!("path {from} -> {to} is whole again"));
        for index in 0..self.net.links.len() {
            let link = Link(index as u32);
            for way in [Way::ToServer, Way::ToWriter] {
                if self.net.link(link).ends(way) == (from, to) {
                    self.release(link, way);
                }
            }
        }
    }

    fn release(&mut self, link: Link, way: Way) {
        let stuck = std::mem::take(&mut self.net.link(link).pipe(way).stuck);
        if stuck.is_empty() {
            return;
        }
        self.trace.count("state: late messages delivered after a cut");
        // At once: what was sent later on the same stream is already on its way and must not overtake.
        for message in stuck {
            self.deliver(link, way, message);
        }
    }

    pub fn touch_of_request(&self, link: Link, request: &Request) -> Option<Touch> {
        let writer = self.net.links[link.index()].writer;
        let volume = self.writers.get(writer.index())?.volume;
        crate::describe::touch_of_request(volume, request)
    }
}
