//! Serving: a [`Host`] owns the disks and is driven by whoever owns the reactor.

mod handle;
mod host;
mod hosted;
mod links;

pub use handle::{
    CloneError, CloneOrder, DiskSnapshot, HostEvent, HostGone, HostHandle, HostSnapshot, LinkCounts, ReplicaError,
    Traffic,
};
pub use host::Host;
pub use hosted::FailedDisk;

use crate::Error;
use ashlar_reactor::Reactor;

/// Drives the host until it has ended: the loop of a process that has nothing else on its reactor.
pub fn drive(host: &mut Host, reactor: &mut Reactor) -> Result<(), Error> {
    let mut completions = Vec::new();
    while !host.has_ended(reactor.now()) {
        reactor.wait(host.next_deadline(), &mut completions)?;
        for completion in completions.drain(..) {
            // What is not the host's is of links that it has closed already.
            let _ = host.handle(reactor, completion);
        }
        host.tick(reactor);
    }
    Ok(())
}
