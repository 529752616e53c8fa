//! The network: directed paths between nodes (and the control plane), and links on them.
//!
//! A link is a byte stream: what is sent on one side arrives in order or not at all, but streams are not ordered
//! against each other, and what was sent on a link that its writer has given up may still arrive, after newer links
//! of the same writer. While a path is cut its streams stand still; when it heals they go on, unless they were
//! reset meanwhile.

use crate::names::{Disk, Link, MICROS, MILLIS, Nanos, Node, Writer};
use crate::rng::Rng;
use ashlar_types::SessionId;
use ashlar_wire::{ReplyFrame, RequestFrame};
use std::collections::VecDeque;

/// Between neighbouring places of nodes that are far apart.
const FAR: Nanos = 15 * MILLIS;

/// One direction between two nodes.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub cut: bool,
    /// Nothing is faster; on top of it comes what varies.
    pub distance: Nanos,
    pub delay_low: Nanos,
    pub delay_high: Nanos,
}

#[derive(Clone, Debug)]
pub enum Message {
    Request(RequestFrame),
    Reply(ReplyFrame),
    /// The sender ended the stream.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToWriter,
}

/// One direction of a link.
#[derive(Clone, Debug, Default)]
pub struct Pipe {
    /// When the last message that was sent arrives; later ones arrive no earlier.
    pub last: Nanos,
    /// Arrived at a cut, in order.
    pub stuck: VecDeque<Message>,
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub writer: Writer,
    pub disk: Disk,
    pub session: SessionId,
    pub writer_node: Node,
    pub server_node: Node,
    /// The chunkserver process that accepted it.
    pub incarnation: u32,
    pub writer_open: bool,
    pub server_open: bool,
    pub to_server: Pipe,
    pub to_writer: Pipe,
}

impl Connection {
    pub fn pipe(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::ToServer => &mut self.to_server,
            Way::ToWriter => &mut self.to_writer,
        }
    }

    pub fn ends(&self, way: Way) -> (Node, Node) {
        match way {
            Way::ToServer => (self.writer_node, self.server_node),
            Way::ToWriter => (self.server_node, self.writer_node),
        }
    }
}

pub struct Net {
    places: usize,
    paths: Vec<Path>,
    pub links: Vec<Connection>,
    pub rng: Rng,
}

impl Net {
    /// `nodes` nodes, and one place more for the control plane. If they are `far` apart, then in three places, so that
    /// replicas are at different distances.
    pub fn new(nodes: usize, far: bool, rng: Rng) -> Net {
        let places = nodes + 1;
        let place_of = |place: usize| if far { (place % 3) as Nanos * FAR } else { 0 };
        let mut paths = Vec::with_capacity(places * places);
        for (from, to) in (0..places * places).map(|index| (index / places, index % places)) {
            let (low, high) = if from == to { (4, 30) } else { (40, 400) };
            let distance = place_of(from).abs_diff(place_of(to));
            paths.push(Path { cut: false, distance, delay_low: low * MICROS, delay_high: high * MICROS });
        }
        Net { places, paths, links: Vec::new(), rng }
    }

    pub fn control_plane(&self) -> Node {
        Node(self.places as u16 - 1)
    }

    pub fn path(&mut self, from: Node, to: Node) -> &mut Path {
        &mut self.paths[from.index() * self.places + to.index()]
    }

    pub fn is_cut(&self, from: Node, to: Node) -> bool {
        self.paths[from.index() * self.places + to.index()].cut
    }

    pub fn delay(&mut self, from: Node, to: Node) -> Nanos {
        let Path { distance, delay_low, delay_high, .. } = *self.path(from, to);
        distance + self.rng.tail(delay_low, delay_high)
    }

    /// When something that is sent now on the link arrives.
    pub fn arrival(&mut self, link: Link, way: Way, now: Nanos) -> Nanos {
        let (from, to) = self.links[link.index()].ends(way);
        let at = now + self.delay(from, to);
        let pipe = self.links[link.index()].pipe(way);
        pipe.last = pipe.last.max(at);
        pipe.last
    }

    pub fn link(&mut self, link: Link) -> &mut Connection {
        &mut self.links[link.index()]
    }
}
