//! The I/O thread: one loop that owns a reactor and the volumes on it. Nothing on the way of a guest's request leaves
//! the thread, but for the front-end's own hop.
//!
//! ```text
//!      ┌──────────────────────────────── turn ────────────────────────────────┐
//!      wait ──► completions ──► commands, FUSE calls (if woken) ──► due volumes ──► hand over asks
//!        ▲  sends of the whole turn go out with the next wait, in one system call      │
//!        └─────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! - A volume belongs to one thread. Several threads are several of these loops, each with the volumes that were
//!   given to it.
//! - A companion that shares the thread (the node's chunkserver, in a node daemon) is shown every completion first.
//! - A panic of this thread ends the process: a writer that lost its state must not look alive.

mod command;
mod figures;
mod hosted;
mod io;
mod links;
mod notices;
mod report;

use crate::companion::MakeCompanion;
use crate::config::Config;
use crate::frontend::Origin;
use crate::frontend::fuse::FuseCall;
use crate::metrics::Metrics;
use ashlar_reactor::{Completion, LinkId, Reactor, ReactorConfig, now};
use ashlar_types::{DiskId, Epoch, Instant, VolumeId};
use ashlar_volume::{Core, Event, GuestError, Reader, Volume};
pub(crate) use command::{
    ASKS_MAX, Addresses, Ask, ClientsConnected, Command, Detached, Ended, FUSE_CALLS_MAX, Granted, OpenFailure, Role,
    RuntimeHandle, Taken,
};
use command::{COMMANDS_MAX, VOLUMES_MAX, answer};
use hosted::Hosted;
use io::{HAND_OVER_PAUSE, Io, LinkOwner, Outbox};
pub(crate) use report::PHASE_FENCED;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

pub(crate) struct Runtime {
    io: Io,
    commands: mpsc::Receiver<Command>,
    fuse_calls: Receiver<FuseCall>,
    volumes: BTreeMap<VolumeId, Hosted>,
    core_config: ashlar_volume::Config,
    metrics: Metrics,
}

/// Starts the I/O thread. It ends when told to, or aborts the process.
pub(crate) fn spawn(
    config: &Config,
    metrics: Metrics,
    asks: mpsc::Sender<Ask>,
    companion: Option<MakeCompanion>,
) -> anyhow::Result<(RuntimeHandle, JoinHandle<anyhow::Result<()>>)> {
    let (commands_in, commands) = mpsc::channel(COMMANDS_MAX);
    let (fuse_in, fuse_calls) = sync_channel(FUSE_CALLS_MAX);
    let (made, waker) = std::sync::mpsc::sync_channel(1);
    let (node, zone, compare_period) = (config.node.clone(), config.zone.clone(), config.scrub_period);
    let run = move || {
        // A reactor belongs to the thread that made it.
        let mut reactor = Reactor::new(ReactorConfig::default())?;
        let companion = companion.map(|make| make(&mut reactor)).transpose()?;
        made.send(reactor.waker()).expect("the thread that starts this one waits");
        let core_config = ashlar_volume::Config { compare_period, ..ashlar_volume::Config::new(node.clone(), zone) };
        let asks = Outbox::new(asks);
        let (links, listeners) = (HashMap::new(), HashMap::new());
        let io = Io { reactor, companion, node, asks, links, listeners, gone: Vec::new() };
        Runtime { io, commands, fuse_calls, volumes: BTreeMap::new(), core_config, metrics }.run()
    };
    let thread = std::thread::Builder::new().name("io-0".to_owned()).spawn(move || match abort_on_panic(run) {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the I/O thread cannot go on");
            Err(error)
        }
    })?;
    match waker.recv() {
        Ok(waker) => Ok((RuntimeHandle::new(commands_in, fuse_in, waker), thread)),
        Err(_) => match thread.join().expect("a panic has aborted the process") {
            Err(error) => Err(error),
            Ok(()) => unreachable!("the thread ends without an error only when told to"),
        },
    }
}

fn abort_on_panic<T>(run: impl FnOnce() -> T) -> T {
    struct Abort;
    impl Drop for Abort {
        fn drop(&mut self) {
            if std::thread::panicking() {
                std::process::abort();
            }
        }
    }
    let _abort = Abort;
    run()
}

impl Runtime {
    fn run(mut self) -> anyhow::Result<()> {
        let mut completions = Vec::new();
        loop {
            let deadline = self.next_deadline();
            self.io.reactor.wait(deadline, &mut completions)?;
            let mut is_woken = false;
            for completion in completions.drain(..) {
                is_woken |= matches!(completion, Completion::Woken);
                self.completed(completion);
            }
            if is_woken && self.take_calls().is_break() {
                let Io { mut reactor, companion, .. } = self.io;
                return companion.map_or(Ok(()), |companion| companion.end(&mut reactor));
            }
            self.tick();
            self.io.asks.hand_over();
            self.forget_gone();
        }
    }

    /// Who waited for the end of one may attach it anew at once, before the turn is over.
    fn forget_gone(&mut self) {
        for volume in std::mem::take(&mut self.io.gone) {
            self.volumes.remove(&volume);
        }
    }

    fn next_deadline(&mut self) -> Instant {
        let companion = self.io.companion.as_mut().map_or(Instant::FAR, |companion| companion.next_deadline());
        let volumes = self.volumes.values().map(Hosted::next_deadline).min().unwrap_or(Instant::FAR).min(companion);
        let waits = !self.io.asks.is_empty() || self.volumes.values().any(Hosted::waits_for_clients);
        if waits { volumes.min(now() + HAND_OVER_PAUSE) } else { volumes }
    }

    fn tick(&mut self) {
        let now = now();
        for hosted in self.volumes.values_mut() {
            if hosted.core.next_deadline() <= now {
                hosted.feed(&mut self.io, Event::Tick);
            }
            hosted.admit_due(&mut self.io, now);
            if hosted.waits_for_clients() {
                hosted.nbd_go_on(&mut self.io);
            }
        }
        if let Some(companion) = &mut self.io.companion {
            companion.tick(&mut self.io.reactor);
        }
    }

    fn completed(&mut self, completion: Completion) {
        let others = match &mut self.io.companion {
            Some(companion) => companion.handle(&mut self.io.reactor, completion),
            None => Some(completion),
        };
        let Some(completion) = others else { return };
        match completion {
            Completion::Frame { link, header, body, data } => {
                self.on_disk_link(link, |hosted, io, disk| hosted.frame(io, disk, link, (&header, body, data)));
            }
            Completion::RawBytes { link, bytes } => {
                if let Some(hosted) = self.owner_of(link) {
                    self.volumes.get_mut(&hosted).expect("owners are known").nbd_received(&mut self.io, link, bytes);
                }
            }
            Completion::LinkUp { link } => {
                self.on_disk_link(link, |hosted, io, disk| hosted.link_up(io, disk, link));
            }
            Completion::LinkDown { link, cause, reset } => {
                let Some(owner) = self.io.links.remove(&link) else { return };
                let Some(hosted) = self.volumes.get_mut(&owner.volume()) else { return };
                match owner {
                    LinkOwner::Disk { disk, .. } => hosted.link_down(&mut self.io, disk, link, reset, &cause),
                    LinkOwner::Nbd { .. } => hosted.nbd_down(link),
                }
            }
            Completion::Accepted { listener, link, .. } => {
                let volume = self.io.listeners.get(&listener).and_then(|volume| self.volumes.get_mut(volume));
                match volume {
                    Some(hosted) => hosted.nbd_accepted(&mut self.io, link),
                    None => self.io.reactor.close(link),
                }
            }
            Completion::Woken => {}
            Completion::Read { .. } | Completion::Write { .. } | Completion::Flush { .. } => {
                unreachable!("a datapath has no files of its own")
            }
        }
    }

    fn owner_of(&self, link: LinkId) -> Option<VolumeId> {
        let volume = self.io.links.get(&link)?.volume();
        self.volumes.contains_key(&volume).then_some(volume)
    }

    fn on_disk_link(&mut self, link: LinkId, act: impl FnOnce(&mut Hosted, &mut Io, DiskId)) {
        let Some(&LinkOwner::Disk { volume, disk }) = self.io.links.get(&link) else { return };
        if let Some(hosted) = self.volumes.get_mut(&volume) {
            act(hosted, &mut self.io, disk);
        }
    }

    /// What other threads sent. Whatever was queued before the wake-up is there.
    fn take_calls(&mut self) -> ControlFlow<()> {
        while let Ok(FuseCall { volume, epoch, request, reply }) = self.fuse_calls.try_recv() {
            match self.volumes.get_mut(&volume).filter(|hosted| hosted.epoch == epoch) {
                Some(hosted) => hosted.call(&mut self.io, Origin::Fuse(reply), request),
                None => reply.answer(Err(GuestError::Closed)),
            }
        }
        while let Ok(command) = self.commands.try_recv() {
            if matches!(command, Command::Stop) {
                return ControlFlow::Break(());
            }
            self.obey(command);
        }
        ControlFlow::Continue(())
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open { granted, role, done } => self.open(granted, role, done),
            Command::Abandon { volume, done } => {
                let reason = self.volumes.remove(&volume).and_then(|hosted| hosted.abandon(&mut self.io));
                answer(done, reason);
            }
            Command::Progress { volume, done } => {
                let hosted = self.volumes.get(&volume);
                answer(done, hosted.map(|hosted| hosted.core.status().reconciled_blocks));
            }
            Command::ServeNbd { volume, path, read_only, done } => {
                let result = match self.volumes.get_mut(&volume) {
                    Some(hosted) => hosted.serve_nbd(&mut self.io, &path, read_only),
                    None => Err(std::io::Error::new(std::io::ErrorKind::NotFound, "the volume is not attached")),
                };
                answer(done, result);
            }
            Command::StopNbd { volume, force, done } => {
                let hosted = self.volumes.get_mut(&volume);
                answer(done, hosted.map_or(Ok(()), |hosted| hosted.stop_nbd(&mut self.io, force)));
            }
            Command::Detach { volume, done } => match self.volumes.get_mut(&volume) {
                Some(hosted) => hosted.detach(&mut self.io, done),
                None => answer(done, Detached::Gone),
            },
            Command::Answered { volume, epoch, proposal, answer, addresses } => {
                self.learn_addresses(volume, addresses);
                self.feed_writer(volume, epoch, Event::Answer { proposal, answer });
            }
            Command::Unanswered { volume, epoch, proposal } => {
                self.feed_writer(volume, epoch, Event::Unanswered { proposal });
            }
            Command::Refresh { volume } => self.tell(volume, |hosted, io| hosted.refresh(io)),
            Command::Modify { volume, settings, done } => {
                let hosted = self.volumes.get_mut(&volume);
                answer(done, hosted.map(|hosted| hosted.modify(&mut self.io, settings)).is_some());
            }
            Command::Steer { volume, words } => self.tell(volume, |hosted, io| hosted.steer(io, words)),
            Command::Record { volume, record, addresses } => {
                self.tell(volume, |hosted, io| hosted.adopt(io, record, addresses));
            }
            Command::Grow { volume, record, addresses, done } => {
                let size = self.volumes.get_mut(&volume).map(|hosted| hosted.grow(&mut self.io, record, addresses));
                answer(done, size);
            }
            Command::Snapshot { volume, id, held, done } => match self.volumes.get_mut(&volume) {
                Some(hosted) => hosted.snapshot(&mut self.io, id, held, done),
                None => answer(done, None),
            },
            Command::Hold { volume, id, at_most, done } => match self.volumes.get_mut(&volume) {
                Some(hosted) => hosted.hold(&mut self.io, id, at_most, done),
                None => answer(done, None),
            },
            Command::Report { done } => {
                self.volumes.values_mut().for_each(|hosted| hosted.tell_blocked(&mut self.io));
                answer(done, self.volumes.values().map(Hosted::report).collect());
            }
            Command::Stop => unreachable!("the loop ends before"),
        }
    }

    /// No matter if the volume is not here.
    fn tell(&mut self, volume: VolumeId, what: impl FnOnce(&mut Hosted, &mut Io)) {
        if let Some(hosted) = self.volumes.get_mut(&volume) {
            what(hosted, &mut self.io);
        }
    }

    fn open(&mut self, granted: Granted, role: Role, done: oneshot::Sender<Result<Epoch, OpenFailure>>) {
        let Granted { record, addresses, io_timeout, settings } = granted;
        let volume = record.volume;
        self.forget_gone();
        let refusal = match () {
            () if self.volumes.contains_key(&volume) => Some(OpenFailure::AlreadyOpen),
            () if self.volumes.len() >= VOLUMES_MAX => Some(OpenFailure::TooMany),
            () => None,
        };
        if let Some(refusal) = refusal {
            return answer(done, Err(refusal));
        }
        let config = ashlar_volume::Config { io_timeout, ..self.core_config.clone() };
        let metrics = self.metrics.for_volume(volume);
        let core = match role {
            Role::Writer => Core::Writer(Box::new(Volume::new(config, record, now()))),
            Role::Reader => Core::Reader(Box::new(Reader::new(config, record, now()))),
        };
        let hosted = Hosted::open(&mut self.io, core, addresses, metrics, settings, done);
        self.volumes.insert(volume, hosted);
    }

    fn learn_addresses(&mut self, volume: VolumeId, addresses: Addresses) {
        if let Some(hosted) = self.volumes.get_mut(&volume) {
            hosted.learn_addresses(addresses);
        }
    }

    /// Only if it is still the attachment that is meant: numbers of proposals begin anew with each.
    fn feed_writer(&mut self, volume: VolumeId, epoch: Epoch, event: Event) {
        if let Some(hosted) = self.volumes.get_mut(&volume).filter(|hosted| hosted.epoch == epoch) {
            hosted.feed(&mut self.io, event);
        }
    }
}

#[cfg(test)]
mod tests;
