//! The one place where a datapath and a chunkserver are in one process, on one thread and one ring: the replica on the
//! pod's own node is a function call away.

use anyhow::{Context, ensure};
use ashlar_chunkserver::config::{Arguments, Command, RunConfig};
use ashlar_chunkserver::process::{self, Chunkserver, EndsBy};
use ashlar_datapath::{Companion, Config, RunFlags};
use ashlar_reactor::{Completion, ListenerId, Reactor};
use ashlar_types::{DiskId, Duration, Instant};
use clap::Parser;

/// For how long the disks are still served when the volumes of this node are gone: the nodes of a cluster that end
/// together need each other's disks until the last volume is closed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a node is told: options of the datapath, then `--`, then those of the chunkserver's `run`.
#[derive(Debug, clap::Args)]
pub struct NodeArguments {
    #[command(flatten)]
    datapath: RunFlags,
    /// Options of `ashlar-chunkserver run`.
    #[arg(last = true, value_name = "CHUNKSERVER OPTIONS", allow_hyphen_values = true)]
    chunkserver: Vec<String>,
}

/// Serves as a node until SIGTERM or SIGINT. `make` is given what starts the chunkserver, on the I/O thread.
pub fn run<C: Companion + 'static>(
    arguments: NodeArguments,
    make: impl FnOnce(&RunConfig, &mut Reactor) -> anyhow::Result<C> + Send + 'static,
) -> anyhow::Result<()> {
    let words = ["ashlar-node --", "run"].map(str::to_owned).into_iter().chain(arguments.chunkserver);
    let Command::Run(chunkserver) = Arguments::parse_from(words).command()? else {
        unreachable!("the command is `run`")
    };
    let datapath = Config::from_flags(arguments.datapath)?;
    ensure!(
        datapath.node == chunkserver.node && datapath.zone == chunkserver.zone,
        "--node and --zone must be the same before and after `--`: both are of one node"
    );
    ashlar_datapath::start_logging();
    process::abort_on_panic();
    // One thread: it serves gRPC and nothing else.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let companion = move |reactor: &mut Reactor| Ok(Box::new(make(&chunkserver, reactor)?) as Box<dyn Companion>);
    runtime.block_on(ashlar_datapath::run(datapath, Some(Box::new(companion))))
}

/// The chunkserver of this node, beside its datapath.
pub struct LocalChunkserver(Chunkserver);

impl LocalChunkserver {
    pub fn start(config: &RunConfig, reactor: &mut Reactor) -> anyhow::Result<LocalChunkserver> {
        let chunkserver = Chunkserver::start(config, reactor, EndsBy::Owner).context("start the chunkserver")?;
        Ok(LocalChunkserver(chunkserver))
    }

    /// Drives the host alone until `is_over`.
    fn drive(
        &mut self,
        reactor: &mut Reactor,
        until: Instant,
        is_over: impl Fn(&LocalChunkserver, Instant) -> bool,
    ) -> anyhow::Result<()> {
        let mut completions = Vec::new();
        while !is_over(self, reactor.now()) {
            reactor.wait(self.next_deadline().min(until), &mut completions)?;
            for completion in completions.drain(..) {
                // What is not the host's is of volumes that are gone.
                let _ = self.handle(reactor, completion);
            }
            self.tick(reactor);
        }
        Ok(())
    }
}

impl Companion for LocalChunkserver {
    fn handle(&mut self, reactor: &mut Reactor, completion: Completion) -> Option<Completion> {
        self.0.host.handle(reactor, completion)
    }

    fn next_deadline(&mut self) -> Instant {
        self.0.host.next_deadline()
    }

    fn tick(&mut self, reactor: &mut Reactor) {
        self.0.host.tick(reactor);
    }

    fn listener_of(&self, disk: DiskId) -> Option<ListenerId> {
        self.0.host.listener_of(disk)
    }

    fn end(mut self: Box<Self>, reactor: &mut Reactor) -> anyhow::Result<()> {
        let until = reactor.now() + PATIENCE;
        self.drive(reactor, until, |local, now| now >= until || !local.0.host.has_links())?;
        self.0.host.stop(reactor);
        self.drive(reactor, Instant::FAR, |local, now| local.0.host.has_ended(now))?;
        self.0.end();
        Ok(())
    }
}
