//! The engine path: a node as one process (`ashlar-node`, the same crates) with the load in it too, on the same thread
//! and ring. What is left out is the way from a program to the front-end; the front-end itself is not: the load speaks
//! NBD to it, within the reactor.
//!
//! ```text
//!   bench ──order, one line of JSON──► process: load ──NBD, no socket──► volume ──no socket──► chunkserver of the node
//!         ◄──outcome, one line──────┘                                      └──TCP──► two other nodes
//! ```

use crate::job::{Job, Outcome};
use crate::load::Load;
use crate::target::Target;
use anyhow::{Context, Result, ensure};
use ashlar_chunkserver::config::RunConfig;
use ashlar_datapath::Companion;
use ashlar_node::{LocalChunkserver, NodeArguments};
use ashlar_reactor::{Completion, ListenerId, Reactor, Waker};
use ashlar_tests::{DevCluster, nbd_socket, wait_until};
use ashlar_types::{DiskId, Instant};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant as Clock};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// One is carried out at a time.
const ORDERS_MAX: usize = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    /// Where the volume's NBD server listens.
    socket: PathBuf,
    job: Job,
    span_bytes: u64,
    seed: u64,
}

/// The process that stands in for a node's daemon; it ends with this value, or with this process.
pub(crate) struct Engine {
    process: Child,
    orders: Option<ChildStdin>,
    outcomes: BufReader<ChildStdout>,
    socket: PathBuf,
}

impl Engine {
    /// Takes the place of the daemon of a node whose datapath and chunkserver are one process, and attaches the volume.
    pub(crate) fn in_place_of(cluster: &DevCluster, node: &str, volume: &str) -> Result<Engine> {
        let name = format!("datapath-{node}");
        let pid = cluster.daemon(&name)?.pid.with_context(|| format!("{name} runs"))?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline"))?;
        let arguments = line.split(|&byte| byte == 0).skip(1).filter(|argument| !argument.is_empty());
        let arguments: Vec<String> =
            arguments.map(|argument| String::from_utf8(argument.to_vec())).collect::<Result<_, _>>()?;
        cluster.kill(&name, Signal::SIGTERM)?;
        wait_until(&format!("{name} to end"), STOP_LIMIT, || Ok(cluster.daemon(&name)?.pid.is_none().then_some(())))?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg("engine")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(cluster.dir().join("engine.log"))?)
            .spawn()
            .context("start the engine")?;
        let orders = process.stdin.take();
        let outcomes = BufReader::new(process.stdout.take().context("an engine has an output")?);
        let mut engine = Engine { process, orders, outcomes, socket: PathBuf::new() };
        engine.socket = wait_until("the engine to attach the volume", START_LIMIT, || {
            ensure!(engine.process.try_wait()?.is_none(), "the engine has ended: see engine.log");
            // Until its first heartbeat nobody knows where it listens.
            Ok(cluster.attach(volume, node, "nbd").and_then(|uri| nbd_socket(&uri)).ok())
        })?;
        Ok(engine)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    pub(crate) fn run(&mut self, job: &Job, span_bytes: u64, seed: u64) -> Result<Outcome> {
        let order = Order { socket: self.socket.clone(), job: *job, span_bytes, seed };
        let orders = self.orders.as_mut().context("the engine takes orders until it ends")?;
        writeln!(orders, "{}", serde_json::to_string(&order)?).context("order a job of the engine")?;
        let mut line = String::new();
        self.outcomes.read_line(&mut line).context("hear from the engine")?;
        let outcome: Result<Outcome, String> = serde_json::from_str(&line).context("the engine has ended")?;
        outcome.map_err(|reason| anyhow::anyhow!("the engine: {reason}"))
    }

    /// Ends it as a signal ends a daemon, and waits for it.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.orders.take());
        let status = wait_until("the engine to end", STOP_LIMIT, || Ok(self.process.try_wait()?))?;
        ensure!(status.success(), "the engine ended with {status}");
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.orders.take());
        if wait_until("the engine to end", STOP_LIMIT, || Ok(self.process.try_wait()?)).is_err() {
            // Both can only fail when it has just ended.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// The process itself: serves as a node until its input ends, and carries out the orders that come there.
pub(crate) fn serve(arguments: NodeArguments) -> Result<()> {
    ashlar_node::run(arguments, LoadedNode::start)
}

/// The node's chunkserver, and the load.
struct LoadedNode {
    chunkserver: Box<LocalChunkserver>,
    orders: Receiver<Order>,
    running: Option<(Load, Target)>,
    done: Vec<usize>,
}

impl LoadedNode {
    fn start(config: &RunConfig, reactor: &mut Reactor) -> Result<LoadedNode> {
        let (sender, orders) = sync_channel(ORDERS_MAX);
        let waker = reactor.waker();
        std::thread::Builder::new().name("orders".to_owned()).spawn(move || {
            if let Err(error) = take_orders(&sender, &waker) {
                tracing::error!(error = format!("{error:#}"), "orders cannot be read");
            }
            // The input has ended, and so does the process: as by a signal.
            if let Err(error) = nix::sys::signal::raise(Signal::SIGTERM) {
                tracing::error!(%error, "end the process");
            }
        })?;
        let chunkserver = Box::new(LocalChunkserver::start(config, reactor)?);
        Ok(LoadedNode { chunkserver, orders, running: None, done: vec![] })
    }

    fn begin(&self, reactor: &mut Reactor, order: &Order) -> Result<(Load, Target)> {
        let target = Target::nbd_inner(reactor, &order.socket)?;
        Ok((Load::new(reactor, order.job, order.span_bytes, order.seed), target))
    }

    /// What the load is told to do; an outcome is said when it is over.
    fn go_on(&mut self, reactor: &mut Reactor) {
        if self.running.is_none()
            && let Ok(order) = self.orders.try_recv()
        {
            match self.begin(reactor, &order) {
                Ok(begun) => self.running = Some(begun),
                Err(error) => say(&Err(format!("{error:#}"))),
            }
        }
        let Some((load, target)) = &mut self.running else { return };
        let now = Clock::now();
        load.answered(&mut self.done, now);
        let ended = match load.go_on(reactor, target, now) {
            Ok(true) => return,
            Ok(false) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        };
        self.end_job(reactor, ended);
    }

    fn end_job(&mut self, reactor: &mut Reactor, ended: Result<(), String>) {
        let Some((load, target)) = self.running.take() else { return };
        target.close(reactor);
        self.done.clear();
        say(&ended.map(|()| load.outcome()));
    }
}

impl Companion for LoadedNode {
    fn handle(&mut self, reactor: &mut Reactor, completion: Completion) -> Option<Completion> {
        let completion = self.chunkserver.handle(reactor, completion)?;
        let (Completion::RawBytes { link, .. } | Completion::LinkUp { link } | Completion::LinkDown { link, .. }) =
            &completion
        else {
            return Some(completion);
        };
        let Some((_, target)) = self.running.as_mut().filter(|(_, target)| target.has_link(*link)) else {
            return Some(completion);
        };
        if let Err(error) = target.answers(completion, &mut self.done) {
            self.end_job(reactor, Err(format!("{error:#}")));
        }
        None
    }

    fn next_deadline(&mut self) -> Instant {
        let load = self.running.as_ref().map(|(load, _)| ashlar_reactor::now() + load.wait_at_most(Clock::now()));
        self.chunkserver.next_deadline().min(load.unwrap_or(Instant::FAR))
    }

    fn tick(&mut self, reactor: &mut Reactor) {
        self.chunkserver.tick(reactor);
        self.go_on(reactor);
    }

    fn listener_of(&self, disk: DiskId) -> Option<ListenerId> {
        self.chunkserver.listener_of(disk)
    }

    fn end(self: Box<Self>, reactor: &mut Reactor) -> Result<()> {
        self.chunkserver.end(reactor)
    }
}

fn take_orders(sender: &SyncSender<Order>, waker: &Waker) -> Result<()> {
    for line in std::io::stdin().lines() {
        let order = serde_json::from_str(&line?).context("an order is a line of JSON")?;
        sender.send(order).context("the load has ended")?;
        waker.wake();
    }
    Ok(())
}

/// The one who ordered may be gone; then this process is about to end.
fn say(outcome: &Result<Outcome, String>) {
    let line = serde_json::to_string(outcome).expect("plain data becomes JSON");
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        tracing::warn!(%error, "tell the outcome");
    }
}
