//! The one place where a datapath and a chunkserver are in one process, on one thread and one ring: the replica on the
//! pod's own node is a function call away.

use anyhow::Context;
use ashlar_chunkserver::config::RunConfig;
use ashlar_chunkserver::process::{Chunkserver, EndsBy};
use ashlar_datapath::Companion;
use ashlar_reactor::{Completion, ListenerId, Reactor};
use ashlar_types::{DiskId, Duration, Instant};

/// For how long the disks are still served when the volumes of this node are gone: the nodes of a cluster that end
/// together need each other's disks until the last volume is closed.
const PATIENCE: Duration = Duration::from_secs(5);

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
