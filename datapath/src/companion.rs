//! Who shares the I/O thread and its reactor with the volumes: in a node daemon, the chunkserver of the node.

use ashlar_reactor::{Completion, ListenerId, Reactor};
use ashlar_types::{DiskId, Instant};

pub trait Companion {
    /// Works on what completed, if it is its own; gives back the rest.
    fn handle(&mut self, reactor: &mut Reactor, completion: Completion) -> Option<Completion>;

    /// When [`Companion::tick`] is due at the latest.
    fn next_deadline(&mut self) -> Instant;

    /// Called in every turn of the loop, after its completions.
    fn tick(&mut self, reactor: &mut Reactor);

    /// Where the disk's chunkserver is connected to within the reactor, if it is here.
    fn listener_of(&self, disk: DiskId) -> Option<ListenerId>;

    /// The volumes are gone, and nobody else uses the reactor any more: returns when the companion has ended.
    fn end(self: Box<Self>, reactor: &mut Reactor) -> anyhow::Result<()>;
}

/// Makes a companion on the I/O thread, before any volume is there.
pub type MakeCompanion = Box<dyn FnOnce(&mut Reactor) -> anyhow::Result<Box<dyn Companion>> + Send>;
