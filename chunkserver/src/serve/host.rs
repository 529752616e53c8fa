//! The disks of a process on one reactor: what completes becomes an engine's event, what an engine asks for
//! becomes an operation.
//!
//! ```text
//!              frame, link                     Event                    Read, Write, Flush
//!  reactor ───────────────────► Links ────────────────► Engine ────────────────────────────► reactor
//!     ▲  read, write, flush ended                       │    │ Commit
//!     └──────────── waker ◄──────── IndexWriter ◄───────┼────┘
//!                                                       └──► Reply, CloseLink ──► reactor
//! ```
//!
//! - One thread owns all of it. A host is driven: its owner waits on the reactor and hands over what completes,
//!   so that a node daemon can drive a datapath on the same reactor. What is not the host's, [`Host::handle`]
//!   gives back.
//! - The host decides nothing about replicas. It decides which disk a link is about, and when a link is over.
//! - Everything is bounded by others: links by the reactor, requests and operations by the engines, answers not
//!   taken by `Links`.

use super::handle::{
    CloneError, CloneOrder, EVENTS_MAX, HostCommand, HostEvent, HostHandle, HostSnapshot, LinkCounts, ReplicaError,
};
use super::hosted::{FailedDisk, HostedDisk, is_host_token, operation_of, token_of};
use super::links::Links;
use crate::Error;
use crate::disk::OpenDisk;
use crate::index::{IndexJob, IndexWriter};
use ashlar_engine::{Action, CloneRefusal, Deleted, DiskError, Engine, EngineConfig, Event, OpToken};
use ashlar_reactor::{Completion, Framing, LinkId, ListenerId, Reactor};
use ashlar_types::{
    BLOCKS_PER_SLOT, ByteCount, ChunkIndex, ClusterId, DiskId, Duration, Instant, SLOT_BYTES, SlotIndex, VolumeId,
};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

mod admission;

/// How long a host that ends waits for its disks to become quiet. What is not done by then, replay does at the
/// next start.
const STOP_GRACE: Duration = Duration::from_secs(2);

type DeleteAnswer = oneshot::Sender<Result<Deleted, ReplicaError>>;
type KeepAnswer = oneshot::Sender<Result<(), ReplicaError>>;
type CloneAnswer = oneshot::Sender<Result<(), CloneError>>;

pub struct Host {
    cluster: ClusterId,
    disks: Vec<HostedDisk>,
    by_id: HashMap<DiskId, usize>,
    failed: Vec<FailedDisk>,
    listener: Option<ListenerId>,
    links: Links,
    counts: LinkCounts,
    index: IndexWriter,
    commands: mpsc::Receiver<HostCommand>,
    /// Answers that are due to whoever asked for a deletion, by the number that the engine was given.
    deletions: HashMap<(usize, OpToken), DeleteAnswer>,
    /// The same for clones.
    clonings: HashMap<(usize, OpToken), CloneAnswer>,
    /// And for points that are to be kept.
    keepings: HashMap<(usize, OpToken), KeepAnswer>,
    next_order: u64,
    events: VecDeque<HostEvent>,
    next_event: u64,
    /// When a protocol error was last logged: a hostile peer must not fill the log.
    protocol_error_logged: Option<Instant>,
    /// When the host ends at the latest.
    stop_at: Option<Instant>,
    /// Scratch space: empty between events.
    actions: Vec<Action>,
}

impl Host {
    /// Takes the disks into service: their replay begins. `failed` are the disks that could not be opened.
    pub fn start(
        cluster: ClusterId,
        scrub_period: Option<Duration>,
        disks: Vec<OpenDisk>,
        mut failed: Vec<FailedDisk>,
        reactor: &mut Reactor,
    ) -> Result<(Host, HostHandle), Error> {
        let now = reactor.now();
        let (handle, commands) = HostHandle::new(reactor.waker());
        let (mut hosted, mut indexes) = (Vec::new(), Vec::new());
        for disk in disks {
            let OpenDisk { paths, medium, superblock, index, rows } = disk;
            let path = paths.disk;
            let config = EngineConfig { scrub_period, started_unix_ms: unix_ms(), ..EngineConfig::default() };
            match Engine::new(config, rows, now) {
                Ok(engine) => {
                    hosted.push(HostedDisk {
                        id: superblock.disk,
                        path,
                        capacity: ByteCount(u64::from(superblock.layout.slot_count) * SLOT_BYTES),
                        engine,
                        file: reactor.add_file(medium.into_file()),
                        operations: 0,
                        traffic: Default::default(),
                    });
                    indexes.push(index);
                }
                Err(source) => {
                    let reason = Error::Recover { path: path.clone(), source }.to_string();
                    failed.push(FailedDisk { id: Some(superblock.disk), path, reason });
                }
            }
        }
        let mut host = Host {
            cluster,
            by_id: hosted.iter().enumerate().map(|(index, disk)| (disk.id, index)).collect(),
            disks: hosted,
            failed,
            listener: None,
            links: Links::default(),
            counts: LinkCounts::default(),
            index: IndexWriter::start(indexes, reactor.waker())?,
            commands,
            deletions: HashMap::new(),
            clonings: HashMap::new(),
            keepings: HashMap::new(),
            next_order: 0,
            events: VecDeque::new(),
            next_event: 1,
            protocol_error_logged: None,
            stop_at: None,
            actions: Vec::new(),
        };
        host.start_disks(reactor);
        Ok((host, handle))
    }

    /// Takes connections; gives the address with the port that was chosen.
    pub fn listen(&mut self, reactor: &mut Reactor, address: SocketAddr) -> Result<SocketAddr, Error> {
        assert!(self.listener.is_none(), "a host listens once");
        let listening = reactor.listen_tcp(address, Framing::Frames);
        let (listener, address) = listening.map_err(|source| Error::Listen { address: address.to_string(), source })?;
        self.listener = Some(listener);
        Ok(address)
    }

    /// Id, path and, if it cannot be used, the reason, of every disk.
    pub fn disk_states(&self) -> impl Iterator<Item = (Option<DiskId>, &Path, Option<&str>)> {
        let hosted = self.disks.iter().map(|disk| (Some(disk.id), disk.path.as_path(), None));
        hosted.chain(self.failed.iter().map(|disk| (disk.id, disk.path.as_path(), Some(disk.reason.as_str()))))
    }

    /// The listener that a connection within the reactor goes to, if the disk is here.
    pub fn listener_of(&self, disk: DiskId) -> Option<ListenerId> {
        self.listener.filter(|_| self.by_id.contains_key(&disk))
    }

    /// Somebody is connected.
    pub fn has_links(&self) -> bool {
        self.links.len() > 0
    }

    /// Works on what completed. Gives back what is not the host's.
    pub fn handle(&mut self, reactor: &mut Reactor, completion: Completion) -> Option<Completion> {
        match completion {
            Completion::Read { token, result } if is_host_token(token) => {
                let (disk, op) = operation_of(token);
                self.operation_ended(reactor, disk, Event::ReadDone { op, result: result.map_err(disk_error) });
            }
            Completion::Write { token, result } | Completion::Flush { token, result } if is_host_token(token) => {
                let (disk, op) = operation_of(token);
                self.operation_ended(reactor, disk, Event::WriteDone { op, result: result.map_err(disk_error) });
            }
            Completion::Accepted { listener, link, .. } if self.listener == Some(listener) => {
                self.counts.accepted += 1;
                self.links.accept(link, reactor.now());
            }
            Completion::Frame { link, header, body, data } => match self.links.get(link) {
                Some(_) => self.frame(reactor, link, &header, &body, data),
                None => return Some(Completion::Frame { link, header, body, data }),
            },
            Completion::LinkDown { link, cause, reset } => match self.links.remove(link) {
                Some(gone) => {
                    tracing::debug!(link = link.as_u64(), %cause, "link ended");
                    if matches!(cause, ashlar_reactor::DownCause::Protocol(_)) {
                        self.note_protocol_error(reactor.now(), &cause);
                    }
                    self.link_closed(reactor, link, gone.disk);
                }
                None => return Some(Completion::LinkDown { link, cause, reset }),
            },
            Completion::Woken => {
                self.woken(reactor);
                // Others on the same reactor may be meant as well.
                return Some(Completion::Woken);
            }
            other => return Some(other),
        }
        None
    }

    /// When [`Host::tick`] is due at the latest.
    pub fn next_deadline(&mut self) -> Instant {
        let engines = self.disks.iter().map(|disk| disk.engine.next_deadline()).min().unwrap_or(Instant::FAR);
        engines.min(self.links.next_deadline()).min(self.stop_at.unwrap_or(Instant::FAR))
    }

    /// Does what time has made due. To be called after every wait.
    pub fn tick(&mut self, reactor: &mut Reactor) {
        let now = reactor.now();
        for disk in 0..self.disks.len() {
            if self.disks[disk].engine.next_deadline() <= now {
                self.event(reactor, disk, Event::Tick);
            }
        }
        while let Some(link) = self.links.next_overdue(now) {
            tracing::debug!(link = link.as_u64(), "no first frame came");
            self.counts.silent += 1;
            self.links.remove(link);
            reactor.close(link);
        }
    }

    /// The host was asked to end, and has ended: every disk is quiet, or the time is over.
    pub fn has_ended(&self, now: Instant) -> bool {
        self.stop_at.is_some_and(|stop_at| now >= stop_at || self.disks.iter().all(HostedDisk::is_idle))
    }

    fn start_disks(&mut self, reactor: &mut Reactor) {
        for index in 0..self.failed.len() {
            let FailedDisk { id, path, reason } = self.failed[index].clone();
            tracing::error!(path = %path.display(), reason, "disk cannot be used");
            // One with an id has its state in every beat, and the control plane tells of the change.
            if id.is_none() {
                self.note("disk-failed", None, None, reason);
            }
        }
        for disk in 0..self.disks.len() {
            let mut actions = std::mem::take(&mut self.actions);
            self.disks[disk].engine.start(&mut actions);
            self.perform(reactor, disk, actions);
        }
    }

    fn operation_ended(&mut self, reactor: &mut Reactor, disk: usize, event: Event) {
        self.disks[disk].operations -= 1;
        self.event(reactor, disk, event);
    }

    fn event(&mut self, reactor: &mut Reactor, disk: usize, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.disks[disk].engine.handle(reactor.now(), event, &mut actions);
        self.perform(reactor, disk, actions);
    }

    /// Does what the engine asked for, in its order, and keeps the empty `actions` for the next event.
    fn perform(&mut self, reactor: &mut Reactor, disk: usize, mut actions: Vec<Action>) {
        for action in actions.drain(..) {
            self.act(reactor, disk, action);
        }
        self.actions = actions;
    }

    fn act(&mut self, reactor: &mut Reactor, disk: usize, action: Action) {
        let hosted = &mut self.disks[disk];
        match action {
            Action::Reply { link, frame } => self.reply(reactor, LinkId::from_u64(link.0), &frame),
            Action::CloseLink { link } => {
                let link = LinkId::from_u64(link.0);
                if self.links.remove(link).is_some() {
                    reactor.close_after_sent(link);
                }
            }
            Action::Read { op, offset, bytes } => {
                hosted.operations += 1;
                reactor.read(hosted.file, offset, bytes, token_of(disk, op));
            }
            Action::Write { op, offset, parts, durable } => {
                hosted.operations += 1;
                reactor.write(hosted.file, offset, parts, durable, token_of(disk, op));
            }
            Action::Flush { op } => {
                hosted.operations += 1;
                reactor.flush(hosted.file, token_of(disk, op));
            }
            Action::Commit { op, edits } => {
                hosted.operations += 1;
                hosted.traffic.index_commits += 1;
                self.index.commit(IndexJob { disk, op, edits });
            }
            Action::Deleted { op, result } => self.deleted(disk, op, result),
            Action::Cloned { op, result } => self.cloned(disk, op, result),
            Action::PointsKept { op, result } => self.points_kept(disk, op, result),
            Action::ScrubFound { volume, chunk, slot, blocks } => {
                self.scrub_found(disk, volume, (chunk, slot), blocks);
            }
            Action::ScrubEnded { slots, found_blocks } => {
                let id = hosted.id;
                tracing::info!(disk = %id, slots, found_blocks, "every block of the disk was verified");
                let text = format!("every block was verified: {slots} slots, {found_blocks} blocks found bad");
                self.note("scrub-ended", Some(id), None, text);
            }
            Action::Recovered { replayed_records, lost_blocks } => self.recovered(disk, replayed_records, lost_blocks),
            Action::Failed { reason } => {
                tracing::error!(disk = %hosted.id, reason, "disk failed: it takes no more writes");
            }
        }
    }

    fn scrub_found(&mut self, disk: usize, volume: VolumeId, (chunk, slot): (ChunkIndex, SlotIndex), blocks: u16) {
        let id = self.disks[disk].id;
        let bad = (0..BLOCKS_PER_SLOT).filter(|block| blocks & (1 << block) != 0);
        let first = slot.first_block().0;
        let list: Vec<String> = bad.map(|block| (first + u64::from(block)).to_string()).collect();
        let (chunk, list) = (chunk.0, list.join(", "));
        tracing::warn!(disk = %id, %volume, chunk, blocks = list, "scrub has found bad blocks");
        self.note("scrub-found", Some(id), Some(volume), format!("bad in chunk {chunk}: block {list}"));
    }

    fn recovered(&mut self, disk: usize, replayed_records: u64, lost_blocks: u64) {
        let HostedDisk { id, path, .. } = &self.disks[disk];
        tracing::info!(disk = %id, path = %path.display(), replayed_records, lost_blocks, "disk serves");
        let text = format!("{replayed_records} records replayed, {lost_blocks} blocks lost");
        let kind = if lost_blocks == 0 { "disk-serves" } else { "disk-serves-with-lost-blocks" };
        self.note(kind, Some(*id), None, text);
    }

    fn woken(&mut self, reactor: &mut Reactor) {
        while let Some(done) = self.index.next_done() {
            self.operation_ended(reactor, done.disk, Event::Committed { op: done.op, result: done.result });
        }
        while let Ok(command) = self.commands.try_recv() {
            self.command(reactor, command);
        }
    }

    fn command(&mut self, reactor: &mut Reactor, command: HostCommand) {
        match command {
            // Whoever asked may have gone; then nobody misses the answer.
            HostCommand::Snapshot { answer } => drop(answer.send(self.snapshot())),
            HostCommand::Delete { disk, volume, epoch, answer } => {
                let Some(&index) = self.by_id.get(&disk) else {
                    return drop(answer.send(Err(ReplicaError::NoSuchDisk(disk))));
                };
                let op = self.next_order();
                self.deletions.insert((index, op), answer);
                self.event(reactor, index, Event::Delete { op, volume, epoch });
            }
            HostCommand::KeepPoints { disk, volume, epoch, kept, answer } => {
                let Some(&index) = self.by_id.get(&disk) else {
                    return drop(answer.send(Err(ReplicaError::NoSuchDisk(disk))));
                };
                let op = self.next_order();
                self.keepings.insert((index, op), answer);
                self.event(reactor, index, Event::KeepPoints { op, volume, epoch, kept });
            }
            HostCommand::Clone { order, answer } => {
                let CloneOrder { disk, volume, epoch, size, base } = order;
                let Some(&index) = self.by_id.get(&disk) else {
                    return drop(answer.send(Err(CloneError::NoSuchDisk(disk))));
                };
                let op = self.next_order();
                self.clonings.insert((index, op), answer);
                self.event(reactor, index, Event::Clone { op, volume, epoch, size, base });
            }
            HostCommand::Space { disk, volume, chunks, points, answer } => {
                let space = match self.by_id.get(&disk) {
                    None => Err(ReplicaError::NoSuchDisk(disk)),
                    Some(&index) => self.disks[index].engine.space(volume, chunks, &points).map_err(ReplicaError::from),
                };
                drop(answer.send(space));
            }
            HostCommand::Stop => self.stop(reactor),
        }
    }

    fn next_order(&mut self) -> OpToken {
        self.next_order += 1;
        OpToken(self.next_order)
    }

    fn deleted(&mut self, disk: usize, op: OpToken, result: Result<Deleted, String>) {
        let answer = self.deletions.remove(&(disk, op)).expect("a deletion is answered once");
        drop(answer.send(result.map_err(ReplicaError::Refused)));
    }

    fn points_kept(&mut self, disk: usize, op: OpToken, result: Result<(), String>) {
        let answer = self.keepings.remove(&(disk, op)).expect("what is to be kept is answered once");
        drop(answer.send(result.map_err(ReplicaError::Refused)));
    }

    fn cloned(&mut self, disk: usize, op: OpToken, result: Result<(), CloneRefusal>) {
        let answer = self.clonings.remove(&(disk, op)).expect("a clone is answered once");
        drop(answer.send(result.map_err(CloneError::Refused)));
    }

    /// Ends the links, and gives the engines, now idle, time for the checkpoint that saves the next start its replay.
    pub fn stop(&mut self, reactor: &mut Reactor) {
        if self.stop_at.is_some() {
            return;
        }
        self.stop_at = Some(reactor.now() + STOP_GRACE);
        if let Some(listener) = self.listener.take() {
            reactor.close_listener(listener);
        }
        for link in self.links.names() {
            let disk = self.links.remove(link).and_then(|gone| gone.disk);
            reactor.close_after_sent(link);
            self.link_closed(reactor, link, disk);
        }
    }

    fn snapshot(&self) -> HostSnapshot {
        let failed = self.failed.iter().map(FailedDisk::snapshot);
        HostSnapshot {
            disks: self.disks.iter().map(HostedDisk::snapshot).chain(failed).collect(),
            links: LinkCounts { open: self.links.len() as u64, ..self.counts },
            events: self.events.iter().cloned().collect(),
        }
    }

    fn note(&mut self, kind: &'static str, disk: Option<DiskId>, volume: Option<VolumeId>, text: String) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        let (sequence, time_ms) = (self.next_event, unix_ms());
        self.events.push_back(HostEvent { sequence, time_ms, kind, disk, volume, text });
        self.next_event += 1;
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

fn disk_error(error: io::Error) -> DiskError {
    DiskError { text: error.to_string() }
}
