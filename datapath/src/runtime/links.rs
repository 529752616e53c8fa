//! Links to chunkservers, as one volume has them: at most one per disk, under a session number drawn at random.
//!
//! ```text
//!   (none) ──connect──► Connecting ──LinkUp──► Up(session) ──► (none)
//! ```

use ashlar_reactor::{Framing, LinkId, Reactor};
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
}

impl DiskLinks {
    /// Begins to connect; gives the link, whose fate the reactor reports.
    pub(super) fn connect(&mut self, reactor: &mut Reactor, disk: DiskId, address: SocketAddr) -> io::Result<LinkId> {
        let link = reactor.connect_tcp(address, CONNECT_TIMEOUT, Framing::Frames)?;
        let before = self.by_disk.insert(disk, DiskLink { link, session: None });
        assert!(before.is_none(), "at most one link per disk is asked for or stands");
        Ok(link)
    }

    /// The link stands: gives its new session.
    pub(super) fn up(&mut self, disk: DiskId, link: LinkId) -> Option<SessionId> {
        let known = self.by_disk.get_mut(&disk).filter(|known| known.link == link)?;
        let session = draw_session();
        known.session = Some(session);
        Some(session)
    }

    /// The link is gone: gives the session that it had, if it stood.
    pub(super) fn down(&mut self, disk: DiskId, link: LinkId) -> Option<Option<SessionId>> {
        let known = self.by_disk.get(&disk).is_some_and(|known| known.link == link);
        known.then(|| self.by_disk.remove(&disk).expect("it is known").session)
    }

    /// Ends the link of the session; gives it, if there was one.
    pub(super) fn disconnect(&mut self, reactor: &mut Reactor, disk: DiskId, session: SessionId) -> Option<LinkId> {
        let link = self.link_of(disk, session)?;
        self.by_disk.remove(&disk);
        reactor.close(link);
        Some(link)
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

/// 64 random bits: the fixed bits of one half of a random UUID meet random ones of the other.
fn draw_session() -> SessionId {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    SessionId(high ^ low)
}
