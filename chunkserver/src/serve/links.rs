//! The connections of a host: which disk each belongs to, and which have yet to say so.
//!
//! ```text
//!  accept ──► silent (until the first frame, at most FIRST_FRAME_TIMEOUT) ──► bound to one disk ──► gone
//! ```
//!
//! What a session may have unanswered is bounded by its engine; that a peer takes its answers is bounded here.

use crate::config::FIRST_FRAME_TIMEOUT;
use ashlar_reactor::LinkId;
use ashlar_types::Instant;
use ashlar_wire::limits::SESSION_DATA_BYTES_MAX;
use std::collections::{HashMap, VecDeque};

/// Answers that a peer has not taken. Twice the session's bound of data: answers have headers and bodies, too.
pub(crate) const QUEUED_BYTES_MAX: usize = 2 * SESSION_DATA_BYTES_MAX;

/// Why a link is ended although its bytes were well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkFault {
    #[error("the peer asks and does not take the answers: {QUEUED_BYTES_MAX} bytes wait for it")]
    DoesNotRead,
    #[error("the first request is neither Open nor Observe")]
    NotOpened,
    #[error("the link is about one disk and Open names another")]
    OtherDisk,
}

/// One connection.
#[derive(Debug, Default)]
pub(crate) struct HostLink {
    /// Index of the disk that the first frame named.
    pub(crate) disk: Option<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Links {
    links: HashMap<LinkId, HostLink>,
    /// Links by the instant at which their first frame is due; those that have sent it, or are gone, are skipped.
    silent: VecDeque<(Instant, LinkId)>,
}

impl Links {
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn accept(&mut self, link: LinkId, now: Instant) {
        let earlier = self.links.insert(link, HostLink::default());
        assert!(earlier.is_none(), "the reactor never reuses a name");
        // Links that have gone leave their entries; this keeps them no longer than the timeout.
        self.next_deadline();
        self.silent.push_back((now + FIRST_FRAME_TIMEOUT, link));
    }

    pub(crate) fn get(&self, link: LinkId) -> Option<&HostLink> {
        self.links.get(&link)
    }

    /// The first frame of the link named the disk.
    pub(crate) fn bind(&mut self, link: LinkId, disk: usize) {
        let bound = self.links.get_mut(&link).expect("its frame was just taken");
        assert!(bound.disk.is_none(), "a link is bound once");
        bound.disk = Some(disk);
    }

    pub(crate) fn remove(&mut self, link: LinkId) -> Option<HostLink> {
        self.links.remove(&link)
    }

    /// The names of all links.
    pub(crate) fn names(&self) -> Vec<LinkId> {
        self.links.keys().copied().collect()
    }

    /// When the next first frame is overdue.
    pub(crate) fn next_deadline(&mut self) -> Instant {
        while let Some(&(due, link)) = self.silent.front() {
            if self.is_silent(link) {
                return due;
            }
            self.silent.pop_front();
        }
        Instant::FAR
    }

    /// A link whose first frame is overdue.
    pub(crate) fn next_overdue(&mut self, now: Instant) -> Option<LinkId> {
        (self.next_deadline() <= now).then(|| self.silent.pop_front().expect("it has a deadline").1)
    }

    fn is_silent(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| link.disk.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_types::Duration;

    #[test]
    fn only_silent_links_are_overdue() {
        let mut links = Links::default();
        let name = LinkId::from_u64;
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        (1..=3).for_each(|number| links.accept(name(number), at(number)));
        links.bind(name(1), 0);
        links.remove(name(2));
        assert_eq!(links.next_deadline(), at(3) + FIRST_FRAME_TIMEOUT);
        assert_eq!(links.next_overdue(at(4)), None);
        assert_eq!(links.next_overdue(at(3) + FIRST_FRAME_TIMEOUT), Some(name(3)));
        assert_eq!(links.next_deadline(), Instant::FAR);
    }
}
