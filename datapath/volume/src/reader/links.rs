//! A reader's links: an observer's session with each replica that is in-sync.

use super::Reader;
use crate::Action;
use crate::member::{Link, MemberIndex, Purpose, Sign};
use ashlar_types::{DiskId, Duration, Epoch, Instant, Lsn, SessionId};
use ashlar_wire::{Frame, Open, Opened, Reply, ReplyFrame, Request, Status};

impl Reader {
    pub(super) fn link_up(&mut self, now: Instant, disk: DiskId, session: SessionId, out: &mut Vec<Action>) {
        let Some(index) = self.index_of(disk) else { return };
        if !matches!(self.members[index].link, Link::Connecting) {
            return;
        }
        self.members[index].become_opening(session);
        let (cluster, volume, size) = (self.record.cluster, self.record.volume, self.record.size);
        let open = Open { cluster, disk, volume, size, served: Epoch::NONE };
        self.send(now, index, Purpose::Open, Request::Observe(open), out);
    }

    pub(super) fn link_down(&mut self, now: Instant, disk: DiskId, session: Option<SessionId>) {
        let Some(index) = self.index_of(disk) else { return };
        if self.members[index].is_linked_by(session) {
            self.lose_link(now, index);
        }
    }

    /// Ends the link from our side. While the volume is not read yet, that is why.
    pub(super) fn drop_link(&mut self, now: Instant, index: MemberIndex, reason: &str, out: &mut Vec<Action>) {
        let member = &self.members[index];
        let Some(session) = member.session() else { return };
        let disk = member.disk;
        out.push(Action::Disconnect { disk, session });
        self.lose_link(now, index);
        self.say_blocked(format!("disk {disk}: {reason}"), out);
    }

    /// What was asked over it is asked of others.
    fn lose_link(&mut self, now: Instant, index: MemberIndex) {
        let (min, max) = (self.config.reconnect_min, self.config.reconnect_max);
        let member = &mut self.members[index];
        let pause = member.lengthen_backoff(min, max);
        let asked: Vec<Purpose> = member.asked.values().map(|asked| asked.purpose).collect();
        member.become_down(now + pause);
        for purpose in asked {
            if let Purpose::Read(piece, _) = purpose {
                self.withdraw(piece, index);
            }
        }
    }

    pub(super) fn send(
        &mut self,
        now: Instant,
        index: MemberIndex,
        purpose: Purpose,
        message: Request,
        out: &mut Vec<Action>,
    ) {
        let epoch = self.record.epoch;
        let member = &mut self.members[index];
        let session = member.session().expect("requests go over a link that stands");
        let request = member.ask(purpose, now);
        let frame = Frame { session, request, epoch, commit: Lsn::ZERO, message };
        out.push(Action::Send { disk: member.disk, session, frame });
    }

    pub(super) fn reply(&mut self, now: Instant, disk: DiskId, frame: ReplyFrame, out: &mut Vec<Action>) {
        let Some(index) = self.index_of(disk) else { return };
        let member = &mut self.members[index];
        if member.session() != Some(frame.session) {
            return;
        }
        let Some(asked) = member.asked.remove(&frame.request) else { return };
        if asked.purpose != Purpose::Open {
            member.backoff = Duration::ZERO;
        }
        if matches!(asked.purpose, Purpose::Read(..)) {
            member.latency.record(now.since(asked.sent), now);
        }
        match (asked.purpose, frame.message) {
            // A volume is deleted under an epoch above all that were granted.
            (_, Reply::Refused(refusal))
                if matches!(refusal.status, Status::Fenced | Status::Deleted) && frame.epoch > self.record.epoch =>
            {
                self.become_fenced(frame.epoch, out);
            }
            (Purpose::Open, Reply::Opened(opened)) => self.opened(now, index, opened, out),
            (Purpose::Ping, Reply::Done) => {}
            (Purpose::Read(piece, _), Reply::Data(blocks)) => self.answered(piece, index, blocks, out),
            (Purpose::Read(piece, _), Reply::Refused(refusal)) if refusal.status == Status::BadBlock => {
                self.found_bad(piece, index, out);
            }
            (Purpose::Read(piece, _), Reply::Refused(refusal)) if refusal.status == Status::Stale => {
                self.withdraw(piece, index);
            }
            (purpose, reply) => {
                if let Purpose::Read(piece, _) = purpose {
                    self.withdraw(piece, index);
                }
                let reason = match reply {
                    Reply::Refused(refusal) => format!("{:?}: {}", refusal.status, refusal.reason),
                    _ => "answer of the wrong kind".to_owned(),
                };
                self.distrust(now, index, &reason, out);
            }
        }
    }

    fn opened(&mut self, now: Instant, index: MemberIndex, opened: Opened, out: &mut Vec<Action>) {
        if opened.syncing {
            return self.distrust(now, index, "replica is incomplete", out);
        }
        if opened.agreed < self.record.served {
            return self.distrust(now, index, "replica has gone back in time", out);
        }
        self.members[index].become_open(opened, now);
        self.unpark_all();
    }

    /// It would most likely answer the same again: not at once.
    fn distrust(&mut self, now: Instant, index: MemberIndex, reason: &str, out: &mut Vec<Action>) {
        self.members[index].backoff = self.config.reconnect_max;
        self.drop_link(now, index, reason, out);
    }

    pub(super) fn check_silence(&mut self, now: Instant, out: &mut Vec<Action>) {
        for index in 0..self.members.len() {
            match self.members[index].sign_of_life(&self.config, Instant::ZERO, now) {
                Sign::Silent { since } => {
                    let reason = format!("silent for {} ms", now.since(since).as_millis());
                    self.drop_link(now, index, &reason, out);
                }
                Sign::Asked => self.send(now, index, Purpose::Ping, Request::Ping, out),
                Sign::Fine => {}
            }
        }
    }

    fn index_of(&self, disk: DiskId) -> Option<MemberIndex> {
        self.members.iter().position(|member| member.disk == disk)
    }
}
