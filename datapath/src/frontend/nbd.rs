//! An NBD server for one volume, on a Unix socket, run by the I/O thread. `negotiation` and `transmission` know the
//! protocol; here is who is connected, and how much each may have under way.
//!
//! - A connection has at most [`REQUESTS_MAX`] requests and about [`REQUEST_BYTES_MAX`] bytes under way, and about
//!   [`REPLY_BYTES_MAX`] bytes that its client has yet to take. At a bound nothing more is read from it until what has
//!   come is worked off, so its client is held back by its own socket.
//! - A reply is sent once per request, in the order in which the volume answers.
//! - An origin whose connection is gone is answered into the void: the name of a link is never reused.

#[cfg(feature = "fuzz")]
pub mod fuzz;
mod input;
mod negotiation;
mod protocol;
mod transmission;

use crate::frontend::Origin;
use crate::guest::{GuestRequest, GuestResult};
use ashlar_reactor::{Framing, LinkId, ListenerId, Reactor};
use ashlar_types::{ByteCount, ByteOffset};
use ashlar_volume::GuestError;
use bytes::{Bytes, BytesMut};
use input::Input;
pub(crate) use negotiation::Export;
use negotiation::{Agreement, Negotiation, Step};
use protocol::NbdError;
use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::mem;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use transmission::{Command, Cookie, Parsed};

/// Clients of one volume at a time.
const CONNECTIONS_MAX: usize = 64;
const REQUESTS_MAX: usize = 128;
const REQUEST_BYTES_MAX: u64 = 64 << 20;
const REPLY_BYTES_MAX: usize = 16 << 20;
const _: () =
    assert!(REQUEST_BYTES_MAX >= 2 * protocol::PAYLOAD_BYTES_MAX as u64, "the largest request never waits alone");

pub(crate) struct NbdServer {
    listener: ListenerId,
    path: PathBuf,
    export: Export,
    connections: HashMap<LinkId, Connection>,
}

/// Which request of which connection is to be answered.
pub(crate) struct NbdOrigin {
    link: LinkId,
    cookie: Cookie,
    /// Of a read: where it begins, as structured replies repeat it.
    read_at: Option<ByteOffset>,
    bytes: ByteCount,
}

struct Connection {
    phase: Phase,
    input: Input,
    requests: usize,
    request_bytes: u64,
    paused: bool,
    /// The client said goodbye: closed when everything is answered.
    leaving: bool,
}

enum Phase {
    Negotiating(Negotiation),
    Serving(Agreement),
}

/// What a connection asks of the volume.
pub(crate) type Calls = Vec<(Origin, GuestRequest)>;

impl NbdServer {
    /// Listens at `path`, where nothing is yet; only the daemon's user may connect.
    pub(crate) fn listen(reactor: &mut Reactor, path: &Path, export: Export) -> io::Result<NbdServer> {
        let listener = reactor.listen_unix(path, Framing::RawBytes)?;
        if let Err(error) = fs::set_permissions(path, Permissions::from_mode(0o600)) {
            reactor.close_listener(listener);
            return Err(error);
        }
        Ok(NbdServer { listener, path: path.to_owned(), export, connections: HashMap::new() })
    }

    /// The volume has grown. Clients that connect from now on are told; the protocol has no way to tell the others, but
    /// what they ask for is judged by the new size too.
    pub(crate) fn grow(&mut self, size: ByteCount) {
        self.export.size = self.export.size.max(size);
    }

    pub(crate) fn listener(&self) -> ListenerId {
        self.listener
    }

    /// Clients past the negotiation.
    pub(crate) fn serving(&self) -> usize {
        self.connections.values().filter(|connection| matches!(connection.phase, Phase::Serving(_))).count()
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.connections.keys().copied()
    }

    /// Greets the client; false if there are too many, and the link is closed.
    pub(crate) fn accept(&mut self, reactor: &mut Reactor, link: LinkId) -> bool {
        if self.connections.len() >= CONNECTIONS_MAX {
            tracing::warn!(export = self.export.name, "refuse an NBD client: {CONNECTIONS_MAX} are connected");
            reactor.close(link);
            return false;
        }
        let mut greeting = BytesMut::new();
        let phase = Phase::Negotiating(Negotiation::new(&mut greeting));
        reactor.send(link, [greeting.freeze()]);
        let input = Input::default();
        let connection = Connection { phase, input, requests: 0, request_bytes: 0, paused: false, leaving: false };
        self.connections.insert(link, connection);
        true
    }

    pub(crate) fn received(&mut self, reactor: &mut Reactor, link: LinkId, bytes: Bytes, calls: &mut Calls) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        connection.input.push(bytes);
        self.work_off(reactor, link, calls);
    }

    /// Sends the volume's answer; what waited behind it may follow.
    pub(crate) fn answer(&mut self, reactor: &mut Reactor, origin: NbdOrigin, result: GuestResult, calls: &mut Calls) {
        let Some(connection) = self.connections.get_mut(&origin.link) else { return };
        connection.requests -= 1;
        connection.request_bytes -= origin.bytes.0;
        let Phase::Serving(agreement) = connection.phase else {
            unreachable!("a client that negotiates asks for nothing")
        };
        let result = result.map_err(|error| (number_of(error), error));
        match (origin.read_at, result) {
            (Some(offset), Ok(data)) => {
                let head = transmission::read_head(agreement, origin.cookie, offset, data.len());
                reactor.send(origin.link, [head, data]);
            }
            (Some(_), Err((number, error))) => {
                let reply = transmission::read_error(agreement, origin.cookie, number, &error.to_string());
                reactor.send(origin.link, [reply]);
            }
            (None, result) => {
                let result = result.map(|_| ()).map_err(|(number, _)| number);
                reactor.send(origin.link, [transmission::simple_reply(origin.cookie, result)]);
            }
        }
        if connection.leaving && connection.requests == 0 {
            self.connections.remove(&origin.link);
            reactor.close_after_sent(origin.link);
        } else if connection.paused {
            self.work_off(reactor, origin.link, calls);
        }
    }

    /// Somebody waits for nothing but that its client takes replies, of which nobody will tell.
    pub(crate) fn waits_for_clients(&self) -> bool {
        self.connections.values().any(Connection::waits_for_its_client)
    }

    /// Goes on with those whose clients have taken replies.
    pub(crate) fn go_on(&mut self, reactor: &mut Reactor, calls: &mut Calls) {
        let waiting = self.connections.iter().filter(|(_, connection)| connection.waits_for_its_client());
        for link in waiting.map(|(&link, _)| link).collect::<Vec<_>>() {
            self.work_off(reactor, link, calls);
        }
    }

    pub(crate) fn link_down(&mut self, link: LinkId) {
        self.connections.remove(&link);
    }

    /// Ends every connection and removes the socket.
    pub(crate) fn close(self, reactor: &mut Reactor) {
        reactor.close_listener(self.listener);
        for &link in self.connections.keys() {
            reactor.close_after_sent(link);
        }
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "remove an NBD socket");
        }
    }

    /// Understands what came on the link, as far as bounds allow.
    fn work_off(&mut self, reactor: &mut Reactor, link: LinkId, calls: &mut Calls) {
        let connection = self.connections.get_mut(&link).expect("the caller has looked it up");
        if let Err(why) = connection.work_off(reactor, link, &self.export, calls) {
            tracing::debug!(export = self.export.name, why, "close an NBD connection");
            self.connections.remove(&link);
            reactor.close_after_sent(link);
        }
    }
}

impl Connection {
    fn has_room(&self) -> bool {
        self.requests < REQUESTS_MAX && self.request_bytes < REQUEST_BYTES_MAX
    }

    /// One that is full goes on with its next answer.
    fn waits_for_its_client(&self) -> bool {
        self.paused && !self.leaving && self.has_room()
    }

    fn pause(&mut self, reactor: &mut Reactor, link: LinkId) {
        if !mem::replace(&mut self.paused, true) {
            reactor.pause_reading(link);
        }
    }

    fn resume(&mut self, reactor: &mut Reactor, link: LinkId) {
        if mem::replace(&mut self.paused, false) {
            reactor.resume_reading(link);
        }
    }

    /// The error says why the connection ends.
    fn work_off(
        &mut self,
        reactor: &mut Reactor,
        link: LinkId,
        export: &Export,
        calls: &mut Calls,
    ) -> Result<(), &'static str> {
        if let Phase::Negotiating(negotiation) = &mut self.phase {
            if reactor.queued_bytes(link) > REPLY_BYTES_MAX {
                return Err("a client that asks and does not listen");
            }
            let mut output = BytesMut::new();
            let step = negotiation.advance(export, &mut self.input, &mut output);
            reactor.send(link, [output.freeze()]);
            match step {
                Step::Wait => return Ok(()),
                Step::Transmission(agreement) => self.phase = Phase::Serving(agreement),
                Step::Close(why) => return Err(why),
            }
        }
        let Phase::Serving(agreement) = self.phase else { unreachable!("negotiated above") };
        while !self.leaving {
            if !self.has_room() || reactor.queued_bytes(link) >= REPLY_BYTES_MAX {
                self.pause(reactor, link);
                return Ok(());
            }
            match transmission::parse(export, agreement, &mut self.input) {
                Parsed::Wait => {
                    self.resume(reactor, link);
                    return Ok(());
                }
                Parsed::Request { cookie, command } => calls.push(self.call(link, cookie, command)),
                Parsed::Answer { cookie, result } => {
                    reactor.send(link, [transmission::simple_reply(cookie, result)]);
                }
                Parsed::ReadRefused { cookie, error } => {
                    let why = "the range is not one that can be read";
                    reactor.send(link, [transmission::read_error(agreement, cookie, error, why)]);
                }
                Parsed::Disconnect if self.requests == 0 => return Err("the client said goodbye"),
                Parsed::Disconnect => self.leaving = true,
                Parsed::Close(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn call(&mut self, link: LinkId, cookie: Cookie, command: Command) -> (Origin, GuestRequest) {
        let mut read_at = None;
        let (bytes, request) = match command {
            Command::Read { offset, bytes } => {
                read_at = Some(offset);
                (bytes, GuestRequest::Read { offset, bytes })
            }
            Command::Write { offset, data } => (ByteCount(data.len() as u64), GuestRequest::Write { offset, data }),
            // These bring and take no bytes, however long their range.
            Command::Zero { offset, bytes } => (ByteCount(0), GuestRequest::Zero { offset, bytes }),
            Command::Trim { offset, bytes } => (ByteCount(0), GuestRequest::Trim { offset, bytes }),
            Command::Flush => (ByteCount(0), GuestRequest::Flush),
        };
        self.requests += 1;
        self.request_bytes += bytes.0;
        (Origin::Nbd(NbdOrigin { link, cookie, read_at, bytes }), request)
    }
}

fn number_of(error: GuestError) -> NbdError {
    match error {
        GuestError::NoSpace => NbdError::NoSpace,
        GuestError::OutOfRange => NbdError::Invalid,
        GuestError::ReadOnly => NbdError::NotPermitted,
        GuestError::Closed => NbdError::ShuttingDown,
        GuestError::Fenced | GuestError::Lost | GuestError::TimedOut => NbdError::Io,
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
