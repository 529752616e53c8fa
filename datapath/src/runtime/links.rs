//! Links to chunkservers, as one volume has them: at most one per disk, under a session number drawn at random.
//!
//! ```text
//!   (none) ──connect──► Connecting ──LinkUp──► Up(session) ──Opened──► Up(session, opened) ──► (none)
//! ```
//!
//! Before `Opened` nobody knows who listens at the address: it may be another's by now.

use ashlar_reactor::{Framing, LinkId, ListenerId, Reactor};
use ashlar_types::{DiskId, Duration, SessionId};
use ashlar_wire::{RequestFrame, encode_request};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

/// Longest wait for a chunkserver's kernel to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct DiskLinks {
    by_disk: BTreeMap<DiskId, DiskLink>,
}

struct DiskLink {
    link: LinkId,
    /// None while connecting.
    session: Option<SessionId>,
    opened: bool,
}

/// A link that is no more.
pub(super) struct GoneLink {
    pub(super) link: LinkId,
    /// If it stood.
    pub(super) session: Option<SessionId>,
    /// The disk that was meant has spoken on it.
    pub(super) opened: bool,
}

impl DiskLinks {
    /// Begins to connect to a chunkserver elsewhere; gives the link, whose fate the reactor reports.
    pub(super) fn connect(&mut self, reactor: &mut Reactor, disk: DiskId, address: SocketAddr) -> io::Result<LinkId> {
        let link = reactor.connect_tcp(address, CONNECT_TIMEOUT, Framing::Frames)?;
        Ok(self.connecting(disk, link))
    }

    /// The same to one that is on the reactor itself.
    pub(super) fn connect_inner(
        &mut self,
        reactor: &mut Reactor,
        disk: DiskId,
        listener: ListenerId,
    ) -> io::Result<LinkId> {
        let link = reactor.connect_inner(listener)?;
        Ok(self.connecting(disk, link))
    }

    fn connecting(&mut self, disk: DiskId, link: LinkId) -> LinkId {
        let before = self.by_disk.insert(disk, DiskLink { link, session: None, opened: false });
        assert!(before.is_none(), "at most one link per disk is asked for or stands");
        link
    }

    /// The link stands: gives its new session.
    pub(super) fn up(&mut self, disk: DiskId, link: LinkId) -> Option<SessionId> {
        let known = self.by_disk.get_mut(&disk).filter(|known| known.link == link)?;
        let session = draw_session();
        known.session = Some(session);
        Some(session)
    }

    /// The disk has let us in.
    pub(super) fn opened(&mut self, disk: DiskId, link: LinkId) {
        if let Some(known) = self.by_disk.get_mut(&disk).filter(|known| known.link == link) {
            known.opened = true;
        }
    }

    /// The link is gone: gives what it was, if it was still ours.
    pub(super) fn down(&mut self, disk: DiskId, link: LinkId) -> Option<GoneLink> {
        self.by_disk.get(&disk).filter(|known| known.link == link)?;
        self.by_disk.remove(&disk).map(DiskLink::gone)
    }

    /// Ends the link of the session; gives it, if there was one.
    pub(super) fn disconnect(&mut self, reactor: &mut Reactor, disk: DiskId, session: SessionId) -> Option<GoneLink> {
        let link = self.link_of(disk, session)?;
        reactor.close(link);
        self.by_disk.remove(&disk).map(DiskLink::gone)
    }

    pub(super) fn disconnect_all(&mut self, reactor: &mut Reactor) -> Vec<LinkId> {
        let links: Vec<LinkId> = std::mem::take(&mut self.by_disk).into_values().map(|known| known.link).collect();
        links.iter().for_each(|&link| reactor.close(link));
        links
    }

    pub(super) fn send(&self, reactor: &mut Reactor, disk: DiskId, session: SessionId, frame: &RequestFrame) {
        let Some(link) = self.link_of(disk, session) else { return };
        let encoded = encode_request(frame);
        reactor.send(link, [encoded.head, encoded.data]);
    }

    fn link_of(&self, disk: DiskId, session: SessionId) -> Option<LinkId> {
        self.by_disk.get(&disk).filter(|known| known.session == Some(session)).map(|known| known.link)
    }
}

impl DiskLink {
    fn gone(self) -> GoneLink {
        let DiskLink { link, session, opened } = self;
        GoneLink { link, session, opened }
    }
}

/// 64 random bits: the fixed bits of one half of a random UUID meet random ones of the other.
fn draw_session() -> SessionId {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    SessionId(high ^ low)
}
