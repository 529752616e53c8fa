//! Sessions: which link speaks for which volume, and what it has unanswered.
//!
//! ```text
//!            Open / Observe                  newer Open, Delete, too much unanswered, LinkClosed
//!   (none) ────────────────► writer/observer ───────────────────────────────────────────────────► (none)
//! ```
//! Invariants: a volume has at most one writer; a link's unanswered requests <= `SESSION_REQUESTS_MAX`, their data
//! (what a write brings, what a read asks for) <= `SESSION_DATA_BYTES_MAX`. A link that is not here gets no reply.

use crate::LinkId;
use ashlar_types::{ByteCount, ChunkIndex, Epoch, Lsn, Mutant, RequestId, SessionId, VolumeId};
use ashlar_wire::limits::{SESSION_DATA_BYTES_MAX, SESSION_REQUESTS_MAX};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Writer {
        epoch: Epoch,
    },
    /// `epoch`: of the record that it reads the present by; `NONE`: of no record, or it reads below snapshots.
    Observer {
        epoch: Epoch,
    },
}

pub(crate) struct Link {
    pub(crate) volume: VolumeId,
    pub(crate) role: Role,
    pub(crate) session: SessionId,
    /// Of the volume, as the link was opened, or as it has grown since.
    pub(crate) size: ByteCount,
    /// The highest commit point heard on this link.
    pub(crate) commit: Lsn,
    /// The first write refused in a chunk. Later ones must not get before it: its retry would be taken for a
    /// duplicate.
    holes: BTreeMap<ChunkIndex, Lsn>,
    requests: usize,
    data_bytes: usize,
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyTo {
    pub(crate) link: LinkId,
    pub(crate) volume: VolumeId,
    pub(crate) session: SessionId,
    pub(crate) request: RequestId,
    pub(crate) data_bytes: usize,
}

#[derive(Default)]
pub(crate) struct Sessions {
    links: BTreeMap<LinkId, Link>,
    writers: BTreeMap<VolumeId, LinkId>,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn get(&self, link: LinkId) -> Option<&Link> {
        self.links.get(&link)
    }

    pub(crate) fn begin(&mut self, link: LinkId, volume: VolumeId, size: ByteCount, role: Role, session: SessionId) {
        let (commit, holes) = (Lsn::ZERO, BTreeMap::new());
        let entry = Link { volume, role, session, size, commit, holes, requests: 0, data_bytes: 0 };
        assert!(self.links.insert(link, entry).is_none(), "a link begins once");
        if let Role::Writer { .. } = role {
            assert!(self.writers.insert(volume, link).is_none(), "a volume has one writer");
        }
    }

    pub(crate) fn end(&mut self, link: LinkId) -> Option<Link> {
        let ended = self.links.remove(&link)?;
        if let Role::Writer { .. } = ended.role {
            let is_latest = self.writer_of(ended.volume) == Some(link);
            assert!(is_latest || Mutant::OlderSessionNotEnded.is_on());
            if is_latest {
                self.writers.remove(&ended.volume);
            }
        }
        Some(ended)
    }

    /// For deliberate bugs: the session of a writer goes on although a newer one begins; for reads alone, or for all.
    pub(crate) fn outlive(&mut self, link: LinkId) {
        let entry = self.links.get_mut(&link).expect("the link has a session");
        self.writers.remove(&entry.volume);
        if Mutant::ReadComparesNoEpoch.is_on() {
            entry.role = Role::Observer { epoch: Epoch::NONE };
        }
    }

    pub(crate) fn writer_of(&self, volume: VolumeId) -> Option<LinkId> {
        self.writers.get(&volume).copied()
    }

    /// The epoch of the volume's writer, whether its promise is durable or not.
    pub(crate) fn writer_epoch(&self, volume: VolumeId) -> Epoch {
        let role = self.writer_of(volume).map(|link| self.links[&link].role);
        match role {
            Some(Role::Writer { epoch }) => epoch,
            _ => Epoch::NONE,
        }
    }

    /// The links that observe a volume.
    pub(crate) fn observers_of(&self, volume: VolumeId) -> Vec<LinkId> {
        self.observers(volume).map(|(link, _)| link).collect()
    }

    /// Those of them that read the present by the record of an older epoch.
    pub(crate) fn observers_before(&self, volume: VolumeId, epoch: Epoch) -> Vec<LinkId> {
        let is_older = |of: &Epoch| *of != Epoch::NONE && *of < epoch;
        self.observers(volume).filter(|(_, of)| is_older(of)).map(|(link, _)| link).collect()
    }

    fn observers(&self, volume: VolumeId) -> impl Iterator<Item = (LinkId, Epoch)> {
        self.links.iter().filter_map(move |(&id, link)| match link.role {
            Role::Observer { epoch } if link.volume == volume => Some((id, epoch)),
            _ => None,
        })
    }

    pub(crate) fn grow(&mut self, link: LinkId, size: ByteCount) {
        self.links.get_mut(&link).expect("the link has a session").size = size;
    }

    pub(crate) fn hear_commit(&mut self, link: LinkId, commit: Lsn) {
        let entry = self.links.get_mut(&link).expect("the link has a session");
        entry.commit = entry.commit.max(commit);
    }

    /// A write of the chunk is refused.
    pub(crate) fn open_hole(&mut self, link: LinkId, chunk: ChunkIndex, lsn: Lsn) {
        let holes = &mut self.links.get_mut(&link).expect("the link has a session").holes;
        let first = holes.entry(chunk).or_insert(lsn);
        *first = lsn.min(*first);
    }

    /// Whether a write would come before an older one that was refused.
    pub(crate) fn leaves_hole(&self, link: LinkId, chunk: ChunkIndex, lsn: Lsn) -> bool {
        self.links.get(&link).and_then(|link| link.holes.get(&chunk)).is_some_and(|&hole| lsn > hole)
    }

    /// A write of the chunk is accepted.
    pub(crate) fn close_hole(&mut self, link: LinkId, chunk: ChunkIndex, lsn: Lsn) {
        let Some(link) = self.links.get_mut(&link) else { return };
        if link.holes.get(&chunk) == Some(&lsn) {
            link.holes.remove(&chunk);
        }
    }

    /// Counts a request that is to be answered; false when the peer has more unanswered than it may.
    pub(crate) fn admit(&mut self, to: ReplyTo) -> bool {
        let Some(link) = self.links.get_mut(&to.link) else { return false };
        link.requests += 1;
        link.data_bytes += to.data_bytes;
        link.requests <= SESSION_REQUESTS_MAX && link.data_bytes <= SESSION_DATA_BYTES_MAX
    }

    /// The request is answered; false when nobody is there to hear it.
    pub(crate) fn settle(&mut self, to: ReplyTo) -> bool {
        let Some(link) = self.links.get_mut(&to.link) else { return false };
        assert!(link.requests > 0 && link.data_bytes >= to.data_bytes, "a request is answered once");
        link.requests -= 1;
        link.data_bytes -= to.data_bytes;
        true
    }
}
