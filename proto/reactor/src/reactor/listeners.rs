//! Sockets that take connections. Each has one accept in flight, except at `links_max` (then it waits for a link to
//! end) and after an accept that failed for want of descriptors or memory (then it pauses, or it would fail again at
//! once, for ever).

use super::{Deadline, Reactor};
use crate::clock;
use crate::limits::ACCEPT_PAUSE_MS;
use crate::link::{Framing, Link, LinkState};
use crate::operation::{AcceptOp, Operation};
use crate::ring::OpKey;
use crate::{Completion, LinkId, ListenerId, Peer};
use ashlar_types::{Duration, Instant};
use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, getpeername};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub(super) struct Listener {
    socket: Rc<OwnedFd>,
    framing: Framing,
    /// Where it listens, if that is a path.
    path: Option<PathBuf>,
    accept: Accept,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Accept {
    InFlight(OpKey),
    /// Until this instant.
    Paused(Instant),
    /// Until a link ends.
    AtBound,
}

impl Reactor {
    /// Takes connections at `address` from now on; gives the address with the port that was chosen if none was asked
    /// for.
    pub fn listen_tcp(&mut self, address: SocketAddr, framing: Framing) -> io::Result<(ListenerId, SocketAddr)> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        Ok((self.add_listener(listener.into(), framing, None), address))
    }

    /// Takes connections at a path where nothing is yet. Who may connect is a matter of the directory's permissions.
    pub fn listen_unix(&mut self, path: &Path, framing: Framing) -> io::Result<ListenerId> {
        let listener = UnixListener::bind(path)?;
        Ok(self.add_listener(listener.into(), framing, Some(path.to_owned())))
    }

    /// The listener of this reactor at a path, to connect to within it.
    pub fn listener_at(&self, path: &Path) -> Option<ListenerId> {
        let found = self.listeners.iter().find(|(_, listener)| listener.path.as_deref() == Some(path));
        found.map(|(key, _)| ListenerId(key))
    }

    /// Takes no further connections. Links that it took stay.
    pub fn close_listener(&mut self, listener: ListenerId) {
        let Some(closed) = self.listeners.remove(listener.0) else {
            self.stats.stale_calls += 1;
            return;
        };
        match closed.accept {
            Accept::InFlight(operation) => self.ring.cancel(operation),
            Accept::Paused(until) => {
                self.deadlines.remove(&(until, Deadline::AcceptAgain(listener)));
            }
            Accept::AtBound => {}
        }
    }

    pub(super) fn framing_of(&self, listener: ListenerId) -> Option<Framing> {
        self.listeners.get(listener.0).map(|listener| listener.framing)
    }

    fn add_listener(&mut self, socket: OwnedFd, framing: Framing, path: Option<PathBuf>) -> ListenerId {
        let listener = Listener { socket: Rc::new(socket), framing, path, accept: Accept::AtBound };
        let id = ListenerId(self.listeners.insert(listener));
        self.start_accept(id);
        id
    }

    pub(super) fn start_accept(&mut self, id: ListenerId) {
        let at_bound = self.check_links_max().is_err();
        let Some(listener) = self.listeners.get_mut(id.0) else { return };
        if at_bound {
            tracing::warn!(links = self.links_max, "links are at their bound, accept no more");
            listener.accept = Accept::AtBound;
            return;
        }
        let accept = AcceptOp { listener: id, socket: listener.socket.clone() };
        listener.accept = Accept::InFlight(self.ring.start(Operation::Accept(accept)));
    }

    /// A link ended.
    pub(super) fn accept_below_bound(&mut self) {
        let waiting: Vec<ListenerId> = self
            .listeners
            .iter()
            .filter(|(_, listener)| listener.accept == Accept::AtBound)
            .map(|(key, _)| ListenerId(key))
            .collect();
        for listener in waiting {
            self.start_accept(listener);
        }
    }

    pub(super) fn finish_accept(&mut self, accept: AcceptOp, result: io::Result<usize>, accepted: Option<OwnedFd>) {
        let id = accept.listener;
        let Some(listener) = self.listeners.get(id.0) else { return };
        let framing = listener.framing;
        match result {
            Ok(_) => {
                let socket = accepted.expect("an accept that succeeded has a socket");
                self.add_accepted(id, socket, framing);
                self.start_accept(id);
            }
            Err(error) if is_about_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
                self.start_accept(id);
            }
            Err(error) => {
                tracing::warn!(%error, pause_ms = ACCEPT_PAUSE_MS, "accept fails");
                self.pause_accepting(id);
            }
        }
    }

    fn add_accepted(&mut self, listener: ListenerId, socket: OwnedFd, framing: Framing) {
        let peer = match peer_of(&socket) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::debug!(%error, "a connection ended when it was accepted");
                return;
            }
        };
        if let Err(error) = super::links::prepare(&socket, peer) {
            tracing::debug!(%error, "a connection ended when it was accepted");
            return;
        }
        let link = LinkId(self.links.insert(Link::new(socket, framing, LinkState::Up)));
        self.ready.push(Completion::Accepted { listener, link, peer });
        self.start_receive(link);
    }

    fn pause_accepting(&mut self, id: ListenerId) {
        let until = clock::now() + Duration::from_millis(ACCEPT_PAUSE_MS);
        let Some(listener) = self.listeners.get_mut(id.0) else { return };
        listener.accept = Accept::Paused(until);
        self.deadlines.insert((until, Deadline::AcceptAgain(id)));
    }
}

/// Errors that belong to the connection that was to be accepted; the next one may be sound (accept(2)).
fn is_about_one_connection(error: &io::Error) -> bool {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    matches!(
        errno,
        Errno::ECONNABORTED
            | Errno::EINTR
            | Errno::EPROTO
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ENOPROTOOPT
    )
}

pub(super) fn peer_of(socket: &OwnedFd) -> io::Result<Peer> {
    let address = getpeername::<SockaddrStorage>(socket.as_raw_fd())?;
    if let Some(&v4) = address.as_sockaddr_in() {
        return Ok(Peer::Tcp(SocketAddr::V4(v4.into())));
    }
    if let Some(&v6) = address.as_sockaddr_in6() {
        return Ok(Peer::Tcp(SocketAddr::V6(v6.into())));
    }
    Ok(Peer::Unix)
}
