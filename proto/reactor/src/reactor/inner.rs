//! Connections of a reactor with itself: two of its users talk as if over a socket, and there is none.
//!
//! ```text
//!   send(one end) ──► completion of the other end, with the next wait        paused: kept until reading goes on
//! ```
//!
//! - What is sent on one end is a completion of the other at once: no copy, no system call, no wake-up. The one
//!   exception are data that do not start on a page border: a frame's always do, and they keep no buffer of the
//!   sender's alive, so they are copied.
//! - An end lives as long as the other: whichever goes, the other hears `LinkDown` after what was sent before.
//! - `inner.len()` is even, and `peer` names an end whose `peer` is this one.

use super::Reactor;
use crate::limits::ALIGNMENT;
use crate::link::Framing;
use crate::{Completion, DownCause, LinkId, ListenerId, Peer};
use ashlar_wire::limits::HEADER_BYTES;
use ashlar_wire::{FrameHeader, WireError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::mem;

/// One end.
pub(super) struct InnerEnd {
    peer: LinkId,
    framing: Framing,
    paused: bool,
    /// What came while it was paused, and its bytes.
    kept: VecDeque<Completion>,
    kept_bytes: usize,
}

impl Reactor {
    /// Connects to a listener of this reactor: ends with `LinkUp` for the link, and the listener has `Accepted` its
    /// other end. Fails for want of links, or if the listener is gone.
    pub fn connect_inner(&mut self, listener: ListenerId) -> io::Result<LinkId> {
        self.check_links_max()?;
        let framing = self.framing_of(listener).ok_or(io::ErrorKind::ConnectionRefused)?;
        // Each end is named by the other, so one is named before it knows its own.
        let end = |peer| InnerEnd { peer, framing, paused: false, kept: VecDeque::new(), kept_bytes: 0 };
        let asking = LinkId(self.inner.insert(end(LinkId::from_u64(0))));
        let taking = LinkId(self.inner.insert(end(asking)));
        self.inner.get_mut(asking.0).expect("inserted above").peer = taking;
        self.ready.push(Completion::Accepted { listener, link: taking, peer: Peer::Inner });
        self.ready.push(Completion::LinkUp { link: asking });
        Ok(asking)
    }

    pub(super) fn send_inner(&mut self, link: LinkId, parts: impl IntoIterator<Item = Bytes>) {
        let Some(end) = self.inner.get(link.0) else {
            self.stats.stale_calls += 1;
            return;
        };
        let (to, framing) = (end.peer, end.framing);
        let mut parts = parts.into_iter().filter(|part| !part.is_empty());
        match framing {
            Framing::RawBytes => parts.for_each(|bytes| {
                let count = bytes.len();
                self.deliver_inner(to, Completion::RawBytes { link: to, bytes }, count);
            }),
            Framing::Frames => {
                let (head, data) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                assert!(parts.next().is_none(), "a frame is sent as its head and its data");
                let count = head.len() + data.len();
                match self.inner_frame(to, &head, data) {
                    Ok(frame) => self.deliver_inner(to, frame, count),
                    Err(error) => self.break_inner(to, error),
                }
            }
        }
    }

    /// Bytes that the other end, which is paused, has not taken.
    pub(super) fn queued_inner(&self, link: LinkId) -> usize {
        let peer = self.inner.get(link.0).and_then(|end| self.inner.get(end.peer.0));
        peer.map_or(0, |peer| peer.kept_bytes)
    }

    pub(super) fn pause_inner(&mut self, link: LinkId) {
        match self.inner.get_mut(link.0) {
            Some(end) => end.paused = true,
            None => self.stats.stale_calls += 1,
        }
    }

    pub(super) fn resume_inner(&mut self, link: LinkId) {
        match self.inner.get_mut(link.0) {
            Some(end) => {
                (end.paused, end.kept_bytes) = (false, 0);
                self.ready.extend(mem::take(&mut end.kept));
            }
            None => self.stats.stale_calls += 1,
        }
    }

    pub(super) fn close_inner(&mut self, link: LinkId) {
        match self.inner.remove(link.0) {
            Some(end) => self.end_inner(end.peer, DownCause::Eof),
            None => self.stats.stale_calls += 1,
        }
    }

    /// What was sent is with the other end already.
    pub(super) fn close_inner_after_sent(&mut self, link: LinkId) {
        self.ready.retain(|completion| completion.link() != Some(link));
        let Some(end) = self.inner.get(link.0) else {
            self.stats.stale_calls += 1;
            return;
        };
        let peer = end.peer;
        self.end_inner(link, DownCause::Closed);
        self.end_inner(peer, DownCause::Eof);
    }

    fn inner_frame(&self, link: LinkId, head: &Bytes, data: Bytes) -> Result<Completion, WireError> {
        let (first, _) = head.split_first_chunk::<HEADER_BYTES>().ok_or(WireError::Truncated)?;
        let header = FrameHeader::decode(first)?;
        let body = head.slice(HEADER_BYTES..);
        if body.len() != header.body_bytes as usize || data.len() != header.data_bytes as usize {
            return Err(WireError::Truncated);
        }
        let data = if (data.as_ptr() as usize).is_multiple_of(ALIGNMENT) { data } else { self.aligned_copy(&data) };
        Ok(Completion::Frame { link, header, body, data })
    }

    fn aligned_copy(&self, data: &[u8]) -> Bytes {
        if data.is_empty() {
            return Bytes::new();
        }
        let mut buffer = self.pool.take(data.len());
        buffer.copy_from_slice(data);
        buffer.freeze()
    }

    fn deliver_inner(&mut self, to: LinkId, completion: Completion, bytes: usize) {
        let end = self.inner.get_mut(to.0).expect("an end lives as long as the other");
        if end.paused {
            end.kept_bytes += bytes;
            end.kept.push_back(completion);
        } else {
            self.ready.push(completion);
        }
    }

    /// What was sent is no frame: both ends are over.
    fn break_inner(&mut self, to: LinkId, error: WireError) {
        let peer = self.inner.get(to.0).expect("an end lives as long as the other").peer;
        self.end_inner(to, DownCause::Protocol(error));
        self.end_inner(peer, DownCause::Eof);
    }

    /// Forgets one end, which hears of it; what it had not taken while paused is lost.
    fn end_inner(&mut self, link: LinkId, cause: DownCause) {
        if self.inner.remove(link.0).is_some() {
            self.ready.push(Completion::LinkDown { link, cause, reset: false });
            self.accept_below_bound();
        }
    }
}
