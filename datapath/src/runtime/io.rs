//! What the volumes of one I/O thread share: the reactor, who owns which link, and the way to the control plane.

use super::command::Ask;
use crate::companion::Companion;
use ashlar_reactor::{LinkId, ListenerId, Reactor};
use ashlar_types::{DiskId, Duration, NodeName, VolumeId};
use std::collections::{HashMap, VecDeque};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Asks that wait because the channel is full. Beyond, events are dropped and counted; proposals never are: a volume
/// has few at a time.
const WAITING_EVENTS_MAX: usize = 4096;
/// How soon to try again to hand over what waits.
pub(super) const HAND_OVER_PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Io {
    pub(super) reactor: Reactor,
    pub(super) companion: Option<Box<dyn Companion>>,
    pub(super) node: NodeName,
    pub(super) asks: Outbox,
    pub(super) links: HashMap<LinkId, LinkOwner>,
    pub(super) listeners: HashMap<ListenerId, VolumeId>,
    /// Volumes that are to be forgotten at the end of the turn.
    pub(super) gone: Vec<VolumeId>,
}

/// Whose link it is. The companion knows its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkOwner {
    Disk { volume: VolumeId, disk: DiskId },
    Nbd { volume: VolumeId },
}

impl LinkOwner {
    pub(super) fn volume(self) -> VolumeId {
        match self {
            LinkOwner::Disk { volume, .. } | LinkOwner::Nbd { volume } => volume,
        }
    }
}

impl Io {
    pub(super) fn forget_links(&mut self, links: impl IntoIterator<Item = LinkId>) {
        for link in links {
            self.links.remove(&link);
        }
    }
}

/// Hands asks to the gRPC thread, in order, without ever waiting for it.
pub(super) struct Outbox {
    sender: mpsc::Sender<Ask>,
    waiting: VecDeque<Ask>,
    dropped_events: u64,
}

impl Outbox {
    pub(super) fn new(sender: mpsc::Sender<Ask>) -> Outbox {
        Outbox { sender, waiting: VecDeque::new(), dropped_events: 0 }
    }

    pub(super) fn push(&mut self, ask: Ask) {
        if matches!(ask, Ask::Event(_)) && self.waiting.len() >= WAITING_EVENTS_MAX {
            self.dropped_events += 1;
            tracing::warn!(dropped = self.dropped_events, "an event is dropped: too many wait for the control plane");
            return;
        }
        self.waiting.push_back(ask);
        self.hand_over();
    }

    pub(super) fn hand_over(&mut self) {
        while let Some(ask) = self.waiting.pop_front() {
            match self.sender.try_send(ask) {
                Ok(()) => {}
                Err(TrySendError::Full(ask)) => return self.waiting.push_front(ask),
                // The gRPC thread has ended, and this one is about to be told so.
                Err(TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
