//! One attached volume on the I/O thread: the pure core, and everything that it acts on.
//!
//! ```text
//!   NBD, FUSE ──► Limiter ──► GuestTable ──► Core ──► Send ──► links to chunkservers
//!       ▲                          │  ▲  └──────► Propose, Notice ──► control plane
//!       └── answer ◄── Complete ◄──┘  └── Reply, LinkUp, LinkDown, Answer, Tick
//! ```
//!
//! Events go through one queue: what follows from an action (a connection that fails at once, the second half of a
//! partial write) is the next event, never a call into the core from within a call. So do guests' requests: an answer
//! may let the next ones of a client in, and these may be answered at once.

mod admission;
mod record;
mod snapshots;

use super::command::{Addresses, Ask, ClientsConnected, Detached, OpenFailure, answer};
use super::figures::GuestFigures;
use super::io::{Io, LinkOwner};
use super::links::{DiskLinks, GoneLink};
use super::notices;
use crate::frontend::Origin;
use crate::frontend::nbd::{Export, NbdServer};
use crate::guest::{GuestRequest, GuestResult, GuestTable, RequestKey};
use crate::limits::Limiter;
use crate::metrics::{Operation, VolumeMetrics};
use crate::settings::Settings;
use ashlar_reactor::{LinkId, now};
use ashlar_types::{DiskId, Duration, Epoch, Instant, VolumeId};
use ashlar_volume::{Action, Core, Ending, Event, GuestOp, Notice, Tag};
use ashlar_wire::{FrameHeader, Reply, decode_reply};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::path::Path;
use tokio::sync::oneshot;

/// An attach that is blocked for less is the usual course of things, and no event.
const BLOCKED_MIN: Duration = Duration::from_secs(1);
/// Least time between two questions for a record because a chunkserver was not where it should be.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Hosted {
    pub(super) id: VolumeId,
    pub(super) epoch: Epoch,
    pub(super) core: Core,
    pub(super) links: DiskLinks,
    pub(super) figures: GuestFigures,
    pub(super) metrics: VolumeMetrics,
    pub(super) ended: Option<Ending>,
    /// Too few replicas answer: since the core said so, no write has completed.
    pub(super) waits_for_replicas: bool,
    pub(super) settings_version: u64,
    limiter: Limiter<(RequestKey, GuestRequest)>,
    addresses: Addresses,
    record_asked: Option<Instant>,
    table: GuestTable,
    pending: HashMap<RequestKey, Pending>,
    next_key: u64,
    nbd: Option<NbdServer>,
    opening: Option<oneshot::Sender<Result<Epoch, OpenFailure>>>,
    detaching: Option<oneshot::Sender<Detached>>,
    snapshots: snapshots::Waiting,
    /// Why the volume does not serve yet.
    blocked: Option<Blocked>,
    /// Empty between turns; kept for their memory.
    calls: VecDeque<(Origin, GuestRequest)>,
    events: VecDeque<Event>,
    actions: Vec<Action>,
    operations: Vec<(Tag, GuestOp)>,
}

struct Blocked {
    reason: String,
    since: Instant,
    is_told: bool,
}

/// A guest's request that is under way.
struct Pending {
    origin: Origin,
    operation: Operation,
    bytes: u64,
    began: Instant,
}

impl Hosted {
    /// Begins to attach.
    pub(super) fn open(
        io: &mut Io,
        core: Core,
        addresses: Addresses,
        metrics: VolumeMetrics,
        settings: Settings,
        done: oneshot::Sender<Result<Epoch, OpenFailure>>,
    ) -> Hosted {
        metrics.limits.set(settings.limits);
        let mut hosted = Hosted {
            id: core.volume(),
            epoch: core.epoch(),
            core,
            links: DiskLinks::default(),
            figures: GuestFigures::default(),
            metrics,
            ended: None,
            waits_for_replicas: false,
            settings_version: settings.version,
            limiter: Limiter::new(now(), settings.limits),
            addresses,
            record_asked: None,
            table: GuestTable::default(),
            pending: HashMap::new(),
            next_key: 0,
            nbd: None,
            opening: Some(done),
            detaching: None,
            snapshots: snapshots::Waiting::default(),
            blocked: None,
            calls: VecDeque::new(),
            events: VecDeque::new(),
            actions: Vec::new(),
            operations: Vec::new(),
        };
        hosted.core.start(now(), &mut hosted.actions);
        hosted.perform_all(io);
        hosted.work_off(io);
        hosted
    }

    /// When something is to be done, if nothing else happens.
    pub(super) fn next_deadline(&self) -> Instant {
        self.core.next_deadline().min(self.limiter.next_due())
    }

    pub(super) fn feed(&mut self, io: &mut Io, event: Event) {
        self.events.push_back(event);
        self.work_off(io);
    }

    /// A guest's request from any front-end.
    pub(super) fn call(&mut self, io: &mut Io, origin: Origin, request: GuestRequest) {
        self.calls.push_back((origin, request));
        self.work_off(io);
    }

    fn work_off(&mut self, io: &mut Io) {
        loop {
            if let Some((origin, request)) = self.calls.pop_front() {
                self.submit(io, origin, request);
            } else if let Some(event) = self.events.pop_front() {
                self.core.handle(now(), event, &mut self.actions);
                self.perform_all(io);
            } else {
                return;
            }
        }
    }

    fn perform_all(&mut self, io: &mut Io) {
        let mut actions = mem::take(&mut self.actions);
        for action in actions.drain(..) {
            self.perform(io, action);
        }
        self.actions = actions;
    }

    fn perform(&mut self, io: &mut Io, action: Action) {
        match action {
            Action::Send { disk, session, frame } => self.links.send(&mut io.reactor, disk, session, &frame),
            Action::Complete { tag, result } => self.complete(io, tag, result),
            Action::Connect { disk } => self.connect(io, disk),
            Action::Disconnect { disk, session } => {
                let Some(gone) = self.links.disconnect(&mut io.reactor, disk, session) else { return };
                io.forget_links([gone.link]);
                self.doubt_address(io, &gone);
            }
            Action::Propose { proposal, epoch, version, change } => {
                io.asks.push(Ask::Propose { volume: self.id, epoch, version, proposal, change });
            }
            Action::Notice(notice) => self.notice(io, notice),
            Action::SnapshotTaken { id, result } => self.snapshot_taken(id, result),
            Action::Held { result, .. } => self.held(result),
            Action::Ended(ending) => self.become_ended(io, ending),
        }
    }

    // ----- guests

    fn complete(&mut self, io: &mut Io, tag: Tag, result: GuestResult) {
        let mut done = Vec::new();
        self.table.complete(tag, result, &mut self.operations, &mut done);
        self.queue_operations();
        for (key, result) in done {
            self.answer(io, key, result);
        }
    }

    fn queue_operations(&mut self) {
        self.events.extend(self.operations.drain(..).map(|(tag, op)| Event::Guest { tag, op }));
    }

    fn answer(&mut self, io: &mut Io, key: RequestKey, result: GuestResult) {
        let pending = self.pending.remove(&key).expect("a request is answered once");
        self.count(&pending, result.is_ok());
        match pending.origin {
            Origin::Fuse(reply) => reply.answer(result),
            Origin::Nbd(origin) => {
                let Some(nbd) = &mut self.nbd else { return };
                let mut calls = Vec::new();
                nbd.answer(&mut io.reactor, origin, result, &mut calls);
                self.calls.extend(calls);
            }
        }
    }

    fn count(&mut self, pending: &Pending, is_ok: bool) {
        let now = now();
        let figures = self.metrics.operation(pending.operation);
        figures.operations.inc();
        figures.latency.observe(now.since(pending.began).as_secs_f64());
        self.metrics.in_flight.dec();
        if pending.operation == Operation::Write {
            self.figures.gap.write_completed(now);
        }
        if !is_ok {
            figures.errors.inc();
            return;
        }
        figures.bytes.inc_by(pending.bytes);
        match pending.operation {
            Operation::Read => {
                self.figures.reads += 1;
                self.figures.read_bytes += pending.bytes;
            }
            Operation::Write => {
                self.waits_for_replicas = false;
                self.figures.writes += 1;
                self.figures.written_bytes += pending.bytes;
            }
            Operation::Discard | Operation::Flush => {}
        }
    }

    // ----- links to chunkservers

    fn connect(&mut self, io: &mut Io, disk: DiskId) {
        let near = io.companion.as_ref().and_then(|companion| companion.listener_of(disk));
        let connected = match (near, self.addresses.get(&disk)) {
            (Some(listener), _) => Some(self.links.connect_inner(&mut io.reactor, disk, listener)),
            (None, Some(&address)) => Some(self.links.connect(&mut io.reactor, disk, address)),
            (None, None) => None,
        };
        let connected = connected.and_then(|connected| {
            let warn = |error| tracing::warn!(volume = %self.id, %disk, %error, "begin to connect to a chunkserver");
            connected.map_err(warn).ok()
        });
        match connected {
            Some(link) => {
                io.links.insert(link, LinkOwner::Disk { volume: self.id, disk });
            }
            None => {
                self.ask_record(io);
                self.events.push_back(Event::LinkDown { disk, session: None, reset: false });
            }
        }
    }

    pub(super) fn link_up(&mut self, io: &mut Io, disk: DiskId, link: LinkId) {
        if let Some(session) = self.links.up(disk, link) {
            self.feed(io, Event::LinkUp { disk, session });
        }
    }

    pub(super) fn link_down(
        &mut self,
        io: &mut Io,
        disk: DiskId,
        link: LinkId,
        reset: bool,
        cause: &(dyn std::error::Error + 'static),
    ) {
        let Some(gone) = self.links.down(disk, link) else { return };
        match gone.session {
            Some(_) => tracing::info!(volume = %self.id, %disk, reset, cause, "a link to a chunkserver ended"),
            None => tracing::debug!(volume = %self.id, %disk, reset, cause, "a chunkserver cannot be connected to"),
        }
        self.doubt_address(io, &gone);
        self.feed(io, Event::LinkDown { disk, session: gone.session, reset });
    }

    pub(super) fn frame(&mut self, io: &mut Io, disk: DiskId, link: LinkId, frame: (&FrameHeader, Bytes, Bytes)) {
        let (header, body, data) = frame;
        match decode_reply(header, &body, data) {
            Ok(frame) => {
                if matches!(frame.message, Reply::Opened(_)) {
                    self.links.opened(disk, link);
                }
                self.feed(io, Event::Reply { disk, frame });
            }
            Err(error) => {
                tracing::warn!(volume = %self.id, %disk, %error, "a chunkserver sent what is no reply");
                io.reactor.close(link);
                io.forget_links([link]);
                self.link_down(io, disk, link, true, &error);
            }
        }
    }

    /// A chunkserver that was started anew may listen elsewhere. Where it was, somebody else may listen now: a link
    /// that stands says nothing before the disk has spoken.
    fn doubt_address(&mut self, io: &mut Io, gone: &GoneLink) {
        if !gone.opened {
            self.ask_record(io);
        }
    }

    fn ask_record(&mut self, io: &mut Io) {
        if self.record_asked.is_none_or(|asked| now().since(asked) >= RECORD_PAUSE) {
            self.refresh(io);
        }
    }

    /// There is a newer record, the control plane says.
    pub(super) fn refresh(&mut self, io: &mut Io) {
        self.record_asked = Some(now());
        io.asks.push(Ask::Record { volume: self.id });
    }

    // ----- NBD

    pub(super) fn serve_nbd(&mut self, io: &mut Io, path: &Path, read_only: bool) -> std::io::Result<()> {
        if self.nbd.is_some() {
            return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, "NBD is served already"));
        }
        let export = Export { name: self.id.to_string(), size: self.core.size(), read_only };
        let server = NbdServer::listen(&mut io.reactor, path, export)?;
        io.listeners.insert(server.listener(), self.id);
        self.nbd = Some(server);
        Ok(())
    }

    pub(super) fn stop_nbd(&mut self, io: &mut Io, force: bool) -> Result<(), ClientsConnected> {
        let clients = self.nbd.as_ref().map_or(0, NbdServer::serving);
        if clients > 0 && !force {
            return Err(ClientsConnected(clients));
        }
        if let Some(server) = self.nbd.take() {
            io.listeners.remove(&server.listener());
            io.forget_links(server.links().collect::<Vec<_>>());
            server.close(&mut io.reactor);
        }
        Ok(())
    }

    pub(super) fn nbd_accepted(&mut self, io: &mut Io, link: LinkId) {
        match &mut self.nbd {
            Some(server) => {
                if server.accept(&mut io.reactor, link) {
                    io.links.insert(link, LinkOwner::Nbd { volume: self.id });
                }
            }
            None => io.reactor.close(link),
        }
    }

    pub(super) fn nbd_received(&mut self, io: &mut Io, link: LinkId, bytes: Bytes) {
        let Some(server) = &mut self.nbd else { return };
        let mut calls = Vec::new();
        server.received(&mut io.reactor, link, bytes, &mut calls);
        self.calls.extend(calls);
        self.work_off(io);
    }

    /// To be called once in a while if true: an NBD client does not take its replies.
    pub(super) fn waits_for_clients(&self) -> bool {
        self.nbd.as_ref().is_some_and(NbdServer::waits_for_clients)
    }

    pub(super) fn nbd_go_on(&mut self, io: &mut Io) {
        let Some(server) = &mut self.nbd else { return };
        let mut calls = Vec::new();
        server.go_on(&mut io.reactor, &mut calls);
        self.calls.extend(calls);
        self.work_off(io);
    }

    pub(super) fn nbd_down(&mut self, link: LinkId) {
        if let Some(server) = &mut self.nbd {
            server.link_down(link);
        }
    }

    // ----- beginning and end

    fn notice(&mut self, io: &mut Io, notice: Notice) {
        match &notice {
            Notice::Serving { .. } => {
                self.blocked = None;
                if let Some(done) = self.opening.take() {
                    answer(done, Ok(self.epoch));
                }
            }
            Notice::AttachBlocked { reason } => {
                self.blocked = Some(Blocked { reason: reason.clone(), since: now(), is_told: false });
                return;
            }
            Notice::WritesHeld { id, duration } => self.hold_ended(*id, *duration),
            Notice::BelowMinReplicas => self.waits_for_replicas = true,
            Notice::Ejected { .. } => {
                self.metrics.ejections.inc();
            }
            Notice::InSync { copied_blocks, .. } => {
                self.metrics.resynced.inc_by(*copied_blocks);
            }
            Notice::Repaired { blocks, .. } => {
                self.metrics.repaired.inc_by(u64::from(*blocks));
            }
            _ => {}
        }
        self.tell(io, &notice);
    }

    fn tell(&self, io: &mut Io, notice: &Notice) {
        tracing::info!(volume = %self.id, epoch = %self.epoch, ?notice, "volume");
        io.asks.push(Ask::Event(notices::event(&io.node, self.id, notice)));
    }

    /// Makes an event of a blocked attach, if it lasts.
    pub(super) fn tell_blocked(&mut self, io: &mut Io) {
        let lasts = |blocked: &mut Blocked| !blocked.is_told && now().since(blocked.since) >= BLOCKED_MIN;
        let Some(mut blocked) = self.blocked.take_if(lasts) else { return };
        self.tell(io, &Notice::AttachBlocked { reason: blocked.reason.clone() });
        blocked.is_told = true;
        self.blocked = Some(blocked);
    }

    pub(super) fn detach(&mut self, io: &mut Io, done: oneshot::Sender<Detached>) {
        let connected = self.stop_nbd(io, true);
        debug_assert!(connected.is_ok(), "a forced stop is never refused");
        self.lift_limits(io);
        self.detaching = Some(done);
        match self.ended.clone() {
            Some(ending) => self.become_ended(io, ending),
            None => self.feed(io, Event::Detach),
        }
    }

    fn become_ended(&mut self, io: &mut Io, ending: Ending) {
        let links = self.links.disconnect_all(&mut io.reactor);
        io.forget_links(links);
        if let Some(done) = self.opening.take() {
            answer(done, Err(OpenFailure::Fenced));
        }
        if let Some(done) = self.detaching.take() {
            let detached = match ending {
                Ending::Clean => Detached::Clean,
                Ending::Fenced => Detached::Fenced,
                Ending::Unclean => Detached::Unclean,
            };
            answer(done, detached);
            io.gone.push(self.id);
        }
        self.ended = Some(ending);
        self.lift_limits(io);
    }

    /// Lets go of everything as it is; gives the last reason why the volume did not serve.
    pub(super) fn abandon(mut self, io: &mut Io) -> Option<String> {
        let links = self.links.disconnect_all(&mut io.reactor);
        io.forget_links(links);
        let connected = self.stop_nbd(io, true);
        debug_assert!(connected.is_ok(), "a forced stop is never refused");
        if let Some(done) = self.opening.take() {
            answer(done, Err(OpenFailure::GivenUp));
        }
        if let Some(done) = self.detaching.take() {
            answer(done, Detached::Gone);
        }
        self.blocked.map(|blocked| blocked.reason)
    }
}

#[cfg(test)]
mod tests;
