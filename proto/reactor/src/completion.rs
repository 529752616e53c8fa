//! Everything that a reactor reports.

use crate::{LinkId, ListenerId};
use ashlar_wire::{FrameHeader, WireError};
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;

/// One thing that happened. Those of one link come in the order in which they happened; a link's last one is
/// `LinkDown`.
#[derive(Debug)]
pub enum Completion {
    /// `Ok` has exactly the bytes asked for, in a page-aligned buffer. Past the end of the file: `UnexpectedEof`.
    Read { token: u64, result: io::Result<Bytes> },
    /// `Ok`: all of it is written; on stable media if it was asked to be durable. `Err`: any part of it may be
    /// written.
    Write { token: u64, result: io::Result<()> },
    /// `Ok`: every write that had completed when the flush was asked for is on stable media.
    Flush { token: u64, result: io::Result<()> },
    /// A peer connected. The link is up.
    Accepted { listener: ListenerId, link: LinkId, peer: Peer },
    /// A connection that was asked for stands.
    LinkUp { link: LinkId },
    /// The link ended, or could not be made. Nothing more comes from it. `reset`: the peer's kernel refused or reset
    /// the connection, so whatever listened there is gone, at least for now.
    LinkDown { link: LinkId, cause: DownCause, reset: bool },
    /// A whole frame of a link with [`crate::Framing::Frames`]: the header is checked, body and data are not; `data`
    /// starts on a page border in memory.
    Frame { link: LinkId, header: FrameHeader, body: Bytes, data: Bytes },
    /// What came on a link with [`crate::Framing::RawBytes`], cut anywhere, never empty.
    RawBytes { link: LinkId, bytes: Bytes },
    /// [`crate::Waker::wake`] was called since the last `Woken`.
    Woken,
}

impl Completion {
    pub(crate) fn link(&self) -> Option<LinkId> {
        match self {
            Completion::Accepted { link, .. }
            | Completion::LinkUp { link }
            | Completion::LinkDown { link, .. }
            | Completion::Frame { link, .. }
            | Completion::RawBytes { link, .. } => Some(*link),
            Completion::Read { .. } | Completion::Write { .. } | Completion::Flush { .. } | Completion::Woken => None,
        }
    }
}

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// A process on this machine.
    Unix,
    /// Who shares the reactor.
    Inner,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum DownCause {
    /// What [`crate::Reactor::close_after_sent`] began is done.
    #[error("closed after everything was sent")]
    Closed,
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Eof,
    #[error("no connection within the given time")]
    ConnectTimedOut,
    /// What came is no frame of the protocol.
    #[error("the peer breaks the protocol")]
    Protocol(#[source] WireError),
    #[error("the connection failed")]
    Failed(#[source] io::Error),
}
