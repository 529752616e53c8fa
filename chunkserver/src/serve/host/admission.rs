//! What comes in on a link, and what goes back: from bytes to an engine's event, and which engine.

use super::Host;
use crate::serve::links::{LinkFault, QUEUED_BYTES_MAX};
use ashlar_engine::Event;
use ashlar_reactor::{LinkId, Reactor};
use ashlar_types::{BlockIndex, Duration, Epoch, Instant, Lsn};
use ashlar_wire::limits::REASON_BYTES_MAX;
use ashlar_wire::{
    FrameHeader, Open, Refusal, Reply, ReplyFrame, Request, RequestFrame, Status, decode_request, encode_reply,
};
use bytes::Bytes;
use std::fmt::Display;

/// Protocol errors are counted always, and logged no more often than this.
const PROTOCOL_ERROR_LOG_INTERVAL: Duration = Duration::from_secs(10);

impl Host {
    /// A frame of a link of this host.
    pub(super) fn frame(
        &mut self,
        reactor: &mut Reactor,
        link: LinkId,
        header: &FrameHeader,
        body: &[u8],
        data: Bytes,
    ) {
        let frame = match decode_request(header, body, data) {
            Ok(frame) => frame,
            Err(error) => return self.end_faulty(reactor, link, &error),
        };
        if reactor.queued_bytes(link) > QUEUED_BYTES_MAX {
            return self.end_faulty(reactor, link, &LinkFault::DoesNotRead);
        }
        let disk = self.links.get(link).expect("the link is the host's").disk;
        match (disk, named_disk(&frame)) {
            (None, None) => self.end_faulty(reactor, link, &LinkFault::NotOpened),
            (None, Some(open)) => self.bind(reactor, link, open, frame),
            (Some(disk), Some(open)) if self.disks[disk].id != open.disk || self.cluster != open.cluster => {
                self.end_faulty(reactor, link, &LinkFault::OtherDisk);
            }
            (Some(disk), _) => self.request(reactor, link, disk, frame),
        }
    }

    pub(super) fn reply(&mut self, reactor: &mut Reactor, link: LinkId, frame: &ReplyFrame) {
        // A link may end while the engine works for it.
        if self.links.get(link).is_none() {
            return;
        }
        let encoded = encode_reply(frame);
        reactor.send(link, [encoded.head, encoded.data]);
    }

    /// Tells the engine, if the link was about a disk, that it ended.
    pub(super) fn link_closed(&mut self, reactor: &mut Reactor, link: LinkId, disk: Option<usize>) {
        if let Some(disk) = disk {
            self.event(reactor, disk, Event::LinkClosed { link: ashlar_engine::LinkId(link.as_u64()) });
        }
    }

    pub(super) fn note_protocol_error(&mut self, now: Instant, error: &dyn Display) {
        self.counts.protocol_errors += 1;
        if self.protocol_error_logged.is_none_or(|logged| now.since(logged) >= PROTOCOL_ERROR_LOG_INTERVAL) {
            self.protocol_error_logged = Some(now);
            let so_far = self.counts.protocol_errors;
            tracing::warn!(%error, so_far, "a peer broke the protocol; its link is closed");
        }
    }

    /// The first frame: it names the disk that the link is about.
    fn bind(&mut self, reactor: &mut Reactor, link: LinkId, open: Open, frame: RequestFrame) {
        match self.disk_for(&open) {
            Ok(disk) => {
                self.links.bind(link, disk);
                self.request(reactor, link, disk, frame);
            }
            Err(refusal) => {
                self.counts.wrong_disk += 1;
                tracing::info!(disk = %open.disk, volume = %open.volume, reason = refusal.reason, "session refused");
                self.reply(reactor, link, &refusal_frame(&frame, refusal));
                self.links.remove(link);
                reactor.close_after_sent(link);
            }
        }
    }

    fn disk_for(&self, open: &Open) -> Result<usize, Refusal> {
        if open.cluster != self.cluster {
            let reason = format!("this is cluster {}, not {}", self.cluster, open.cluster);
            return Err(refusal(Status::WrongDisk, reason));
        }
        if let Some(&disk) = self.by_id.get(&open.disk) {
            return Ok(disk);
        }
        match self.failed.iter().find(|failed| failed.id == Some(open.disk)) {
            Some(failed) => Err(refusal(Status::DiskFailed, failed.reason.clone())),
            None => Err(refusal(Status::WrongDisk, format!("disk {} is not here", open.disk))),
        }
    }

    fn request(&mut self, reactor: &mut Reactor, link: LinkId, disk: usize, frame: RequestFrame) {
        self.disks[disk].count(&frame.message);
        self.event(reactor, disk, Event::Request { link: ashlar_engine::LinkId(link.as_u64()), frame });
    }

    /// Ends a link whose peer broke the protocol. Nothing that it sent is answered any more: who sends garbage
    /// cannot be trusted to read.
    fn end_faulty(&mut self, reactor: &mut Reactor, link: LinkId, error: &dyn Display) {
        self.note_protocol_error(reactor.now(), error);
        let disk = self.links.remove(link).and_then(|gone| gone.disk);
        reactor.close(link);
        self.link_closed(reactor, link, disk);
    }
}

fn named_disk(frame: &RequestFrame) -> Option<Open> {
    match &frame.message {
        Request::Open(open) | Request::Observe(open) => Some(*open),
        _ => None,
    }
}

fn refusal(status: Status, mut reason: String) -> Refusal {
    while reason.len() > REASON_BYTES_MAX {
        reason.pop();
    }
    Refusal { status, block: BlockIndex(0), reason }
}

fn refusal_frame(asked: &RequestFrame, refusal: Refusal) -> ReplyFrame {
    ReplyFrame {
        session: asked.session,
        request: asked.request,
        epoch: Epoch::NONE,
        commit: Lsn::ZERO,
        message: Reply::Refused(refusal),
    }
}
