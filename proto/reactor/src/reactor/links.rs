//! Connections: making, sending, receiving, ending.
//!
//! - What is sent on a link arrives in order, or the link ends. Everything queued in a turn goes out in one system
//!   call.
//! - After `LinkDown`, `close`, or the end of `close_after_sent` the link's name names nothing; its buffers are freed
//!   when the kernel is done with them.

use super::{Deadline, Reactor};
use crate::clock;
use crate::frames::{DirectData, RawFrame};
use crate::limits::{
    KEEPALIVE_IDLE_SECONDS, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_PROBES, LINGER_MS, RAW_COPY_BYTES_MAX, RECEIVE_BYTES,
};
use crate::link::{Framing, Link, LinkState, Stream};
use crate::operation::{ConnectOp, Operation, ReceiveOp, SendOp, WatchEndOp};
use crate::ring::OpKey;
use crate::{Completion, DownCause, LinkId, Peer};
use ashlar_types::Duration;
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{self, AddressFamily, Shutdown, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

impl Reactor {
    /// Begins to connect; ends with `LinkUp` or, after `timeout` at the latest, with `LinkDown`. What is sent before
    /// `LinkUp` waits. Fails at once only for want of links or descriptors.
    pub fn connect_tcp(&mut self, address: SocketAddr, timeout: Duration, framing: Framing) -> io::Result<LinkId> {
        self.check_links_max()?;
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        prepare_tcp(&socket)?;
        let link = LinkId(self.links.insert(Link::new(socket, framing, LinkState::Up)));
        let give_up = clock::now() + timeout;
        let state = self.links.get_mut(link.0).expect("inserted above");
        let address = Box::new(SockaddrStorage::from(address));
        let connect = ConnectOp { link, socket: state.socket.clone(), address };
        let operation = self.ring.start(Operation::Connect(connect));
        state.state = LinkState::Connecting { operation, give_up };
        self.deadlines.insert((give_up, Deadline::GiveUp(link)));
        Ok(link)
    }

    /// Takes over a connected stream socket. The link is up.
    pub fn adopt_socket(&mut self, socket: OwnedFd, framing: Framing) -> io::Result<LinkId> {
        self.check_links_max()?;
        // On a non-blocking socket the ring's operations would fail instead of waiting.
        let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
        fcntl(&socket, FcntlArg::F_SETFL(flags.difference(OFlag::O_NONBLOCK)))?;
        prepare(&socket, super::listeners::peer_of(&socket)?)?;
        let link = LinkId(self.links.insert(Link::new(socket, framing, LinkState::Up)));
        self.start_receive(link);
        Ok(link)
    }

    /// Queues the parts; they go out with the next `wait`, in one call with whatever else is queued. The caller
    /// bounds what it queues, by what its peer has yet to answer or by [`Self::queued_bytes`]. On a link that is gone
    /// or closing nothing happens.
    ///
    /// On a link with [`Framing::Frames`] the parts are one whole frame, header and body in the first.
    pub fn send(&mut self, link: LinkId, parts: impl IntoIterator<Item = Bytes>) {
        if link.is_inner() {
            return self.send_inner(link, parts);
        }
        match self.links.get_mut(link.0) {
            Some(open) if !matches!(open.state, LinkState::Draining { .. }) => {
                parts.into_iter().for_each(|part| open.outbound.queue.push(part));
                self.list_to_send(link);
            }
            _ => self.stats.stale_calls += 1,
        }
    }

    /// Bytes that were given to `send` and that the kernel has not taken yet; zero for a link that is gone.
    pub fn queued_bytes(&self, link: LinkId) -> usize {
        if link.is_inner() {
            return self.queued_inner(link);
        }
        self.links.get(link.0).map_or(0, Link::queued_bytes)
    }

    /// Receives no more, so that the peer is held back, once what the receive in flight brings is delivered: 64 KiB
    /// or a frame. If the peer ends the connection meanwhile, the link ends, and what it had sent is never received.
    pub fn pause_reading(&mut self, link: LinkId) {
        if link.is_inner() {
            return self.pause_inner(link);
        }
        match self.links.get_mut(link.0) {
            Some(open) => {
                open.inbound.paused = true;
                if open.inbound.watch.is_none() {
                    let watch = WatchEndOp { link, socket: open.socket.clone() };
                    open.inbound.watch = Some(self.ring.start(Operation::WatchEnd(watch)));
                }
            }
            None => self.stats.stale_calls += 1,
        }
    }

    pub fn resume_reading(&mut self, link: LinkId) {
        if link.is_inner() {
            return self.resume_inner(link);
        }
        match self.links.get_mut(link.0) {
            Some(open) => {
                open.inbound.paused = false;
                self.start_receive(link);
            }
            None => self.stats.stale_calls += 1,
        }
    }

    /// Ends the link at once. What is queued is lost; no further completion names the link.
    pub fn close(&mut self, link: LinkId) {
        self.ready.retain(|completion| completion.link() != Some(link));
        if link.is_inner() {
            return self.close_inner(link);
        }
        if !self.remove_link(link) {
            self.stats.stale_calls += 1;
        }
    }

    /// Ends the link when what is queued was sent and the peer has seen it, or two seconds from now. Nothing that
    /// comes is delivered any more, `LinkDown` excepted. A link that is not up yet ends at once.
    pub fn close_after_sent(&mut self, link: LinkId) {
        if link.is_inner() {
            return self.close_inner_after_sent(link);
        }
        let Some(open) = self.links.get_mut(link.0) else {
            self.stats.stale_calls += 1;
            return;
        };
        match open.state {
            LinkState::Draining { .. } => self.stats.stale_calls += 1,
            LinkState::Connecting { .. } => self.end_link(link, DownCause::Closed),
            LinkState::Up => {
                let give_up = clock::now() + Duration::from_millis(LINGER_MS);
                open.state = LinkState::Draining { give_up, ended: false };
                open.inbound.paused = false;
                self.deadlines.insert((give_up, Deadline::GiveUp(link)));
                self.ready.retain(|completion| completion.link() != Some(link));
                self.start_receive(link);
                self.list_to_send(link);
            }
        }
    }

    pub(super) fn check_links_max(&self) -> io::Result<()> {
        if self.links.len() + self.inner.len() < self.links_max {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the reactor's links are at their bound"))
    }

    fn list_to_send(&mut self, link: LinkId) {
        let Some(open) = self.links.get_mut(link.0) else { return };
        if !mem::replace(&mut open.outbound.listed, true) {
            self.to_send.push(link);
        }
    }

    /// Starts a send for every link that has something queued and none in flight.
    pub(super) fn start_sends(&mut self) {
        let mut to_send = mem::take(&mut self.to_send);
        for id in to_send.drain(..) {
            let Some(link) = self.links.get_mut(id.0) else { continue };
            link.outbound.listed = false;
            if link.outbound.in_flight.is_some() || matches!(link.state, LinkState::Connecting { .. }) {
                // The end of what is in flight lists the link again.
                continue;
            }
            if !link.outbound.queue.is_empty() {
                let spare = link.outbound.spare.take();
                let mut send = spare.unwrap_or_else(|| SendOp::new(id, link.socket.clone()));
                mem::swap(&mut send.parts, &mut link.outbound.queue);
                link.outbound.in_flight_bytes = send.parts.bytes();
                link.outbound.in_flight = Some(self.ring.start(Operation::Send(send)));
            } else if let LinkState::Draining { ended, .. } = &mut link.state {
                *ended = true;
                shut_down(&link.socket, Shutdown::Write);
            }
        }
        self.to_send = to_send;
    }

    pub(super) fn start_receive(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id.0) else { return };
        let connecting = matches!(link.state, LinkState::Connecting { .. });
        if link.inbound.in_flight.is_some() || link.inbound.paused || connecting {
            return;
        }
        let draining = matches!(link.state, LinkState::Draining { .. });
        let direct = match &mut link.inbound.stream {
            Stream::Frames(assembler) if !draining => assembler.take_direct(),
            Stream::Frames(_) | Stream::RawBytes => None,
        };
        let is_direct = direct.is_some();
        let at_most = match &link.inbound.stream {
            Stream::Frames(assembler) => assembler.receive_bytes(),
            Stream::RawBytes => RECEIVE_BYTES,
        };
        let DirectData { buffer, filled } = direct.unwrap_or_else(|| {
            let buffer = link.inbound.buffer.take().unwrap_or_else(|| self.pool.take(RECEIVE_BYTES));
            DirectData { buffer, filled: 0 }
        });
        let bytes_max = if is_direct { buffer.len() - filled } else { at_most };
        let receive = ReceiveOp {
            link: id,
            socket: link.socket.clone(),
            buffer,
            filled,
            bytes_max,
            direct: is_direct,
            poll_first: link.inbound.socket_empty && self.ring.is_modern(),
        };
        link.inbound.in_flight = Some(self.ring.start(Operation::Receive(receive)));
    }

    pub(super) fn finish_connect(&mut self, connect: ConnectOp, result: io::Result<usize>) {
        let id = connect.link;
        let Some(link) = self.links.get_mut(id.0) else { return };
        let LinkState::Connecting { give_up, .. } = link.state else { panic!("a link connects once") };
        match result {
            Ok(_) => {
                link.state = LinkState::Up;
                self.deadlines.remove(&(give_up, Deadline::GiveUp(id)));
                self.ready.push(Completion::LinkUp { link: id });
                self.start_receive(id);
                self.list_to_send(id);
            }
            Err(error) => self.end_link(id, DownCause::Failed(error)),
        }
    }

    pub(super) fn finish_send(&mut self, mut send: SendOp, key: OpKey, result: io::Result<usize>) {
        let id = send.link;
        let Some(link) = self.links.get_mut(id.0) else { return };
        assert_eq!(link.outbound.in_flight.take(), Some(key), "one send is in flight per link");
        let count = match result {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return self.end_link(id, DownCause::Failed(error)),
        };
        self.stats.sent_bytes += count as u64;
        send.parts.advance(count);
        link.outbound.in_flight_bytes = send.parts.bytes();
        if send.parts.is_empty() {
            link.outbound.spare = Some(send);
            self.list_to_send(id);
        } else {
            link.outbound.in_flight = Some(self.ring.start(Operation::Send(send)));
        }
    }

    pub(super) fn finish_receive(
        &mut self,
        receive: ReceiveOp,
        key: OpKey,
        result: io::Result<usize>,
        socket_has_more: bool,
    ) {
        let id = receive.link;
        let Some(link) = self.links.get_mut(id.0) else { return };
        assert_eq!(link.inbound.in_flight.take(), Some(key), "one receive is in flight per link");
        link.inbound.socket_empty = !socket_has_more;
        let received = match result {
            Ok(0) => {
                let cause = match link.state {
                    LinkState::Draining { ended: true, .. } => DownCause::Closed,
                    _ => DownCause::Eof,
                };
                return self.end_link(id, cause);
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return self.end_link(id, DownCause::Failed(error)),
        };
        self.stats.received_bytes += received as u64;
        match self.deliver(receive, received) {
            Ok(()) => self.start_receive(id),
            Err(cause) => self.end_link(id, cause),
        }
    }

    /// The peer has ended the connection. Where reading goes on, a receive tells so, after what came before.
    pub(super) fn finish_watch_end(&mut self, watch: &WatchEndOp, key: OpKey) {
        let id = watch.link;
        let Some(link) = self.links.get_mut(id.0) else { return };
        assert_eq!(link.inbound.watch.take(), Some(key), "one watch is in flight per link");
        if link.inbound.paused {
            self.end_link(id, DownCause::Eof);
        }
    }

    /// Turns what a receive brought into completions, and keeps its buffer for the next.
    fn deliver(&mut self, receive: ReceiveOp, received: usize) -> Result<(), DownCause> {
        let id = receive.link;
        let ReceiveOp { buffer, filled, direct, .. } = receive;
        let Some(link) = self.links.get_mut(id.0) else { return Ok(()) };
        if matches!(link.state, LinkState::Draining { .. }) {
            link.inbound.buffer = (!direct).then_some(buffer);
            return Ok(());
        }
        match &mut link.inbound.stream {
            Stream::Frames(assembler) if direct => {
                let frame = assembler.put_direct(DirectData { buffer, filled: filled + received });
                self.ready.extend(frame.map(|frame| frame_completion(id, frame)));
                Ok(())
            }
            Stream::Frames(assembler) => {
                let mut frames = mem::take(&mut self.frames);
                let fed = assembler.feed(&buffer[..received], &self.pool, &mut frames);
                link.inbound.buffer = Some(buffer);
                self.ready.extend(frames.drain(..).map(|frame| frame_completion(id, frame)));
                self.frames = frames;
                fed.map_err(DownCause::Protocol)
            }
            Stream::RawBytes if received <= RAW_COPY_BYTES_MAX => {
                let bytes = Bytes::copy_from_slice(&buffer[..received]);
                link.inbound.buffer = Some(buffer);
                self.ready.extend((received > 0).then_some(Completion::RawBytes { link: id, bytes }));
                Ok(())
            }
            Stream::RawBytes => {
                let mut buffer = buffer;
                buffer.truncate(received);
                self.ready.push(Completion::RawBytes { link: id, bytes: buffer.freeze() });
                Ok(())
            }
        }
    }

    /// A deadline of the link is over.
    pub(super) fn give_up(&mut self, id: LinkId) {
        let Some(link) = self.links.get(id.0) else { return };
        let cause = match link.state {
            LinkState::Connecting { .. } => DownCause::ConnectTimedOut,
            LinkState::Draining { ended: true, .. } => DownCause::Closed,
            LinkState::Draining { ended: false, .. } => DownCause::Failed(io::ErrorKind::TimedOut.into()),
            LinkState::Up => return,
        };
        self.end_link(id, cause);
    }

    fn end_link(&mut self, id: LinkId, cause: DownCause) {
        if self.remove_link(id) {
            let reset = is_reset(&cause);
            self.ready.push(Completion::LinkDown { link: id, cause, reset });
        }
    }

    /// Forgets the link. Operations that have its socket and its buffers end soon, and free them.
    fn remove_link(&mut self, id: LinkId) -> bool {
        let Some(link) = self.links.remove(id.0) else { return false };
        if let Some(instant) = link.give_up() {
            self.deadlines.remove(&(instant, Deadline::GiveUp(id)));
        }
        for operation in link.operations() {
            self.ring.cancel(operation);
        }
        // The peer hears of it now, not when the last operation lets go of the socket.
        shut_down(&link.socket, Shutdown::Both);
        self.accept_below_bound();
        true
    }
}

fn frame_completion(link: LinkId, frame: RawFrame) -> Completion {
    let RawFrame { header, body, data } = frame;
    Completion::Frame { link, header, body, data }
}

fn is_reset(cause: &DownCause) -> bool {
    let DownCause::Failed(error) = cause else { return false };
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    matches!(errno, Errno::ECONNRESET | Errno::ECONNREFUSED | Errno::EPIPE)
}

fn shut_down(socket: &OwnedFd, how: Shutdown) {
    match socket::shutdown(socket.as_raw_fd(), how) {
        Ok(()) | Err(Errno::ENOTCONN) => {}
        Err(errno) => tracing::debug!(%errno, "shut down a socket"),
    }
}

pub(super) fn prepare(socket: &OwnedFd, peer: Peer) -> io::Result<()> {
    match peer {
        Peer::Tcp(_) => prepare_tcp(socket),
        Peer::Unix | Peer::Inner => Ok(()),
    }
}

/// Small frames must not wait for acknowledgements of earlier ones. A peer that is gone without a word, with its node,
/// must not keep its link for ever when nothing is on its way to it: links are bounded, and at the bound nobody else
/// gets in.
fn prepare_tcp(socket: &OwnedFd) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_SECONDS)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_SECONDS)?;
    Ok(setsockopt(socket, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReactorConfig;
    use ashlar_types::Instant;
    use nix::sys::socket::getsockopt;

    #[test]
    fn a_peer_that_is_gone_without_a_word_does_not_keep_its_link_for_ever() {
        let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
        let (_, address) = reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), Framing::Frames).unwrap();
        let made = reactor.connect_tcp(address, Duration::from_secs(10), Framing::Frames).unwrap();
        let (mut completions, mut links) = (Vec::new(), vec![made]);
        while links.len() < 2 {
            reactor.wait(Instant::FAR, &mut completions).unwrap();
            links.extend(completions.drain(..).filter_map(|completion| match completion {
                Completion::Accepted { link, .. } => Some(link),
                _ => None,
            }));
        }
        for link in links {
            let socket = &reactor.links.get(link.0).unwrap().socket;
            assert!(getsockopt(socket, sockopt::KeepAlive).unwrap());
            let idle = getsockopt(socket, sockopt::TcpKeepIdle).unwrap();
            let interval = getsockopt(socket, sockopt::TcpKeepInterval).unwrap();
            let probes = getsockopt(socket, sockopt::TcpKeepCount).unwrap();
            assert!(idle + interval * probes <= 120, "{idle} s, then {probes} times {interval} s");
        }
    }
}
