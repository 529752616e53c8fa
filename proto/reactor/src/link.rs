//! What a reactor knows about one connection.
//!
//! ```text
//!  connect ──► Connecting ──► Up ──► Draining ──► (gone)
//!  accept, adopt ────────────►┘
//! ```
//!
//! Every state may go at once (`close`, an error, the peer). At most one receive and one send are in flight per link;
//! their buffers are theirs until they complete, also when the link is gone by then.

use crate::aligned::AlignedBuf;
use crate::frames::FrameAssembler;
use crate::operation::{Parts, SendOp};
use crate::ring::OpKey;
use ashlar_types::Instant;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// How a link's incoming bytes are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As whole frames of the data protocol: [`crate::Completion::Frame`].
    Frames,
    /// As they come: [`crate::Completion::RawBytes`].
    RawBytes,
}

pub(crate) struct Link {
    pub(crate) socket: Rc<OwnedFd>,
    pub(crate) state: LinkState,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    Connecting {
        operation: OpKey,
        give_up: Instant,
    },
    Up,
    /// The caller is done with it: what is queued is sent, what comes is dropped, until the peer has seen the end and
    /// closes too. So the last bytes arrive: a socket that is closed with unread bytes in it makes the kernel reset
    /// the connection.
    Draining {
        give_up: Instant,
        /// Everything is sent and the peer was told that nothing more comes.
        ended: bool,
    },
}

pub(crate) struct Inbound {
    pub(crate) stream: Stream,
    pub(crate) in_flight: Option<OpKey>,
    pub(crate) paused: bool,
    /// Tells of the peer's end, which no receive does while the link is paused. Stays when reading goes on.
    pub(crate) watch: Option<OpKey>,
    /// The receive buffer, while no receive has it.
    pub(crate) buffer: Option<AlignedBuf>,
    /// The last receive emptied the socket.
    pub(crate) socket_empty: bool,
}

pub(crate) enum Stream {
    Frames(FrameAssembler),
    RawBytes,
}

pub(crate) struct Outbound {
    /// Not yet handed to the kernel.
    pub(crate) queue: Parts,
    pub(crate) in_flight: Option<OpKey>,
    /// How much the send in flight has to send.
    pub(crate) in_flight_bytes: usize,
    /// The last send, for its memory.
    pub(crate) spare: Option<SendOp>,
    /// The reactor has the link on its list of links with something to send.
    pub(crate) listed: bool,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd, framing: Framing, state: LinkState) -> Link {
        let stream = match framing {
            Framing::Frames => Stream::Frames(FrameAssembler::new()),
            Framing::RawBytes => Stream::RawBytes,
        };
        let inbound =
            Inbound { stream, in_flight: None, paused: false, watch: None, buffer: None, socket_empty: false };
        let outbound =
            Outbound { queue: Parts::new(), in_flight: None, in_flight_bytes: 0, spare: None, listed: false };
        Link { socket: Rc::new(socket), state, inbound, outbound }
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.outbound.queue.bytes() + self.outbound.in_flight_bytes
    }

    /// When the reactor has to end the link by itself.
    pub(crate) fn give_up(&self) -> Option<Instant> {
        match self.state {
            LinkState::Connecting { give_up, .. } | LinkState::Draining { give_up, .. } => Some(give_up),
            LinkState::Up => None,
        }
    }

    pub(crate) fn operations(&self) -> impl Iterator<Item = OpKey> {
        let connecting = match self.state {
            LinkState::Connecting { operation, .. } => Some(operation),
            LinkState::Up | LinkState::Draining { .. } => None,
        };
        [connecting, self.inbound.in_flight, self.inbound.watch, self.outbound.in_flight].into_iter().flatten()
    }
}
