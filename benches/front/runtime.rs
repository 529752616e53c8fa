//! The I/O thread: one reactor for the front-end's requests and the file, as in the datapath.

use crate::frontend::Origin;
use crate::frontend::fuse::FuseCall;
use crate::frontend::nbd::{Calls, Export, NbdServer};
use crate::guest::{GuestRequest, GuestResult, GuestTable, RequestKey};
use crate::local::LocalFile;
use anyhow::{Context, Result};
use ashlar_reactor::{Completion, Reactor, ReactorConfig, Waker};
use ashlar_types::{ByteCount, Instant};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// As in the datapath.
pub(crate) const FUSE_CALLS_MAX: usize = 256;

/// For FUSE threads.
#[derive(Clone)]
pub(crate) struct RuntimeHandle {
    calls: SyncSender<FuseCall>,
    stopping: Arc<AtomicBool>,
    waker: Waker,
}

/// The I/O thread has ended.
#[derive(Debug, thiserror::Error)]
#[error("the I/O thread has ended")]
pub(crate) struct Ended;

impl RuntimeHandle {
    pub(crate) fn call(&self, call: FuseCall) -> Result<(), Ended> {
        self.calls.send(call).map_err(|_| Ended)?;
        self.waker.wake();
        Ok(())
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.waker.wake();
    }
}

struct Runtime {
    reactor: Reactor,
    file: LocalFile,
    nbd: Option<NbdServer>,
    calls: Receiver<FuseCall>,
    stopping: Arc<AtomicBool>,
    table: GuestTable,
    waiting: HashMap<RequestKey, Origin>,
    next_key: u64,
}

/// Returns when the file is open and the socket, if one is wanted, can be connected to.
pub(crate) fn start(
    file: &Path,
    socket: Option<PathBuf>,
    size: ByteCount,
) -> Result<(RuntimeHandle, JoinHandle<Result<()>>)> {
    let (calls_in, calls) = sync_channel(FUSE_CALLS_MAX);
    let (made, handle) = sync_channel(1);
    let stopping = Arc::new(AtomicBool::new(false));
    let file = file.to_owned();
    let thread = std::thread::Builder::new().name("io-0".to_owned()).spawn(move || {
        // A reactor belongs to the thread that made it.
        let mut reactor = Reactor::new(ReactorConfig::default())?;
        let file = LocalFile::open(&mut reactor, &file)?;
        let export = Export { name: "local".to_owned(), size, read_only: false };
        let listen = |path: &PathBuf| NbdServer::listen(&mut reactor, path, export).context("listen");
        let nbd = socket.as_ref().map(listen).transpose()?;
        let handle = RuntimeHandle { calls: calls_in, stopping: stopping.clone(), waker: reactor.waker() };
        made.send(handle).expect("the thread that starts this one waits");
        let (table, waiting) = (GuestTable::default(), HashMap::new());
        Runtime { reactor, file, nbd, calls, stopping, table, waiting, next_key: 0 }.run()
    })?;
    match handle.recv() {
        Ok(handle) => Ok((handle, thread)),
        Err(_) => {
            let ended = thread.join().expect("the I/O thread does not panic");
            Err(ended.err().context("the I/O thread ends early with an error")?)
        }
    }
}

impl Runtime {
    fn run(mut self) -> Result<()> {
        let mut completions = vec![];
        while !self.stopping.load(Ordering::SeqCst) {
            self.reactor.wait(Instant::FAR, &mut completions)?;
            for completion in completions.drain(..) {
                self.completed(completion);
            }
        }
        if let Some(server) = self.nbd.take() {
            server.close(&mut self.reactor);
        }
        Ok(())
    }

    fn completed(&mut self, completion: Completion) {
        match completion {
            Completion::Woken => {
                while let Ok(FuseCall { request, reply, .. }) = self.calls.try_recv() {
                    self.submit(Origin::Fuse(reply), request);
                }
            }
            Completion::RawBytes { link, bytes } => self.on_nbd(|server, reactor, calls| {
                server.received(reactor, link, bytes, calls);
            }),
            Completion::Accepted { link, .. } => self.on_nbd(|server, reactor, _| {
                server.accept(reactor, link);
            }),
            Completion::LinkDown { link, .. } => self.on_nbd(|server, _, _| server.link_down(link)),
            other => {
                if let Some((tag, result)) = self.file.completed(other) {
                    let (mut operations, mut done) = (vec![], vec![]);
                    self.table.complete(tag, result, &mut operations, &mut done);
                    self.file.begin(&mut self.reactor, operations);
                    done.into_iter().for_each(|(key, result)| self.answer(key, result));
                }
                self.take_finished();
            }
        }
    }

    fn on_nbd(&mut self, act: impl FnOnce(&mut NbdServer, &mut Reactor, &mut Calls)) {
        let Some(server) = &mut self.nbd else { return };
        let mut calls = vec![];
        act(server, &mut self.reactor, &mut calls);
        calls.into_iter().for_each(|(origin, request)| self.submit(origin, request));
    }

    fn submit(&mut self, origin: Origin, request: GuestRequest) {
        let key = RequestKey(self.next_key);
        self.next_key += 1;
        self.waiting.insert(key, origin);
        let mut operations = vec![];
        if let Some(result) = self.table.submit(key, request, &mut operations) {
            self.answer(key, result);
        }
        self.file.begin(&mut self.reactor, operations);
        self.take_finished();
    }

    /// What the file answered without a completion.
    fn take_finished(&mut self) {
        while let Some((tag, result)) = self.file.finished() {
            let (mut operations, mut done) = (vec![], vec![]);
            self.table.complete(tag, result, &mut operations, &mut done);
            self.file.begin(&mut self.reactor, operations);
            done.into_iter().for_each(|(key, result)| self.answer(key, result));
        }
    }

    fn answer(&mut self, key: RequestKey, result: GuestResult) {
        match self.waiting.remove(&key).expect("who asked waits") {
            Origin::Fuse(reply) => reply.answer(result),
            Origin::Nbd(origin) => {
                self.on_nbd(|server, reactor, calls| server.answer(reactor, origin, result, calls));
            }
        }
    }
}
