//! Links to chunkservers: making them, sending over them, taking answers, noticing that they are silent.

use crate::Action;
use crate::member::{Asked, Link, Member, MemberIndex, Purpose, Sign};
use crate::membership::ejects;
use crate::volume::{Phase, Volume};
use ashlar_types::{BlockIndex, Change, DiskId, Duration, Epoch, Instant, MemberState, Mutant, RequestId, SessionId};
use ashlar_wire::{Frame, Open, Opened, Refusal, Reply, ReplyFrame, Request, Status};

/// Answers between two looks at how slow a replica is.
const SLOW_CHECKED_EVERY: u64 = 16;
/// A listing whose next page does not lie further on would never end.
pub(crate) const PAGE_STANDS_STILL: &str = "a page that leads nowhere";
const SLOW_LASTS: Duration = Duration::from_secs(1);
const SLOW_WINDOW: Duration = Duration::from_secs(600);
const SLOW_EJECTIONS_MAX: usize = 3;

impl Volume {
    pub(crate) fn connect_members(&mut self, now: Instant, out: &mut Vec<Action>) {
        connect_due(&mut self.members, now, out);
    }

    pub(crate) fn link_up(&mut self, now: Instant, disk: DiskId, session: SessionId, out: &mut Vec<Action>) {
        let Some(index) = self.index_of(disk) else { return };
        if !matches!(self.members[index].link, Link::Connecting) {
            return;
        }
        self.members[index].become_opening(session);
        self.members[index].history.note_attempt(session);
        self.members[index].told_size = self.record.size;
        self.members[index].told_kept = 0;
        let (cluster, volume, size) = (self.record.cluster, self.record.volume, self.record.size);
        let open = Open { cluster, disk, volume, size, served: self.agreed_when_last_in_sync(index) };
        self.send(now, index, Purpose::Open, Request::Open(open), out);
    }

    pub(crate) fn link_down(
        &mut self,
        now: Instant,
        disk: DiskId,
        session: Option<SessionId>,
        reset: bool,
        out: &mut Vec<Action>,
    ) {
        let Some(index) = self.index_of(disk) else { return };
        if self.members[index].is_linked_by(session) {
            let reason = if reset { "link reset" } else { "link ended" };
            self.lose_link(now, index, reason, out);
        }
    }

    /// Ends the link from our side.
    pub(crate) fn drop_link(&mut self, now: Instant, index: MemberIndex, reason: &str, out: &mut Vec<Action>) {
        let member = &self.members[index];
        if let Some(session) = member.session() {
            out.push(Action::Disconnect { disk: member.disk, session });
            self.lose_link(now, index, reason, out);
        }
    }

    /// The link is gone. An in-sync replica without a link is a candidate for ejection until it opens again.
    fn lose_link(&mut self, now: Instant, index: MemberIndex, reason: &str, out: &mut Vec<Action>) {
        let (min, max) = (self.config.reconnect_min, self.config.reconnect_max);
        let member = &mut self.members[index];
        let pause = member.lengthen_backoff(min, max);
        let asked: Vec<Asked> = member.asked.values().copied().collect();
        member.become_down(now + pause);
        if member.in_sync() && member.suspect.is_none() {
            member.suspect_of(reason, now);
        }
        for Asked { purpose, .. } in asked {
            self.interrupted(now, index, purpose, out);
        }
        self.reconcile_lost_link(index);
        self.heal_lost_link(now, index, out);
        self.compare_lost_link(now, index);
        self.resync_lost_link(now, index, reason, out);
    }

    fn interrupted(&mut self, now: Instant, index: MemberIndex, purpose: Purpose, out: &mut Vec<Action>) {
        match purpose {
            Purpose::Read(turn, number) => self.read_interrupted(now, index, turn, number, out),
            Purpose::Repair(turn) => self.repair_ended(index, turn, false, out),
            Purpose::CopyRead(copy) | Purpose::CopyFill(copy) => self.copy_interrupted(now, copy, out),
            // Writes go again on the next session, which begins with the size; the others belong to machines that hear
            // of the lost link as such.
            Purpose::Write(_)
            | Purpose::Open
            | Purpose::Ping
            | Purpose::Grow
            | Purpose::Keep
            | Purpose::ListBad
            | Purpose::Digest(_)
            | Purpose::Report { .. }
            | Purpose::Job(_)
            | Purpose::Agree => {}
            Purpose::Resync(_) | Purpose::ResyncList(_) => {}
        }
    }

    pub(crate) fn send(
        &mut self,
        now: Instant,
        index: MemberIndex,
        purpose: Purpose,
        message: Request,
        out: &mut Vec<Action>,
    ) {
        let commit = self.commit_point();
        let member = &mut self.members[index];
        let session = member.session().expect("requests go over a link that stands");
        let request = member.ask(purpose, now);
        let frame = Frame { session, request, epoch: self.epoch, commit, message };
        out.push(Action::Send { disk: member.disk, session, frame });
    }

    pub(crate) fn reply(&mut self, now: Instant, disk: DiskId, frame: ReplyFrame, out: &mut Vec<Action>) {
        let Some(index) = self.index_of(disk) else { return };
        // A volume is deleted under an epoch above all that were granted, a replica that it no longer needs is not.
        let (is_fenced, is_deleted) = match &frame.message {
            Reply::Refused(refusal) => (refusal.status == Status::Fenced, refusal.status == Status::Deleted),
            _ => (false, false),
        };
        if (is_fenced || is_deleted) && frame.epoch > self.epoch {
            return self.become_fenced(frame.epoch, out);
        }
        if is_fenced {
            return;
        }
        let member = &mut self.members[index];
        if member.session() != Some(frame.session) {
            return;
        }
        let Some(asked) = self.take_asked(now, index, frame.request, &frame.message) else { return };
        if matches!(frame.message, Reply::Refused(Refusal { status: Status::SessionEnded, .. })) {
            self.members[index].asked.insert(frame.request, asked);
            self.drop_link(now, index, "session ended by the chunkserver", out);
            return;
        }
        self.dispatch(now, index, asked.purpose, frame.message, out);
    }

    /// Any answer that only a replica which counts us as the writer gives renews the lease, dated from when the
    /// request was sent.
    fn take_asked(&mut self, now: Instant, index: MemberIndex, request: RequestId, reply: &Reply) -> Option<Asked> {
        let lease = self.config.lease;
        let member = &mut self.members[index];
        let asked = member.asked.remove(&request)?;
        if speaks_to_its_writer(reply) {
            let from = if Mutant::LeaseFromReply.is_on() { now } else { asked.sent };
            member.lease_until = member.lease_until.max(from + lease);
            member.heard = member.heard.max(asked.sent);
            // A link that opens and then breaks at whatever is sent is not worth more than one that does not open.
            if asked.purpose != Purpose::Open {
                member.backoff = Duration::ZERO;
            }
        }
        if matches!(asked.purpose, Purpose::Write(_) | Purpose::Read(..)) {
            member.latency.record(now.since(asked.sent), now);
            if member.latency.samples().is_multiple_of(SLOW_CHECKED_EVERY) {
                self.judge_slowness(now, index);
            }
        }
        Some(asked)
    }

    fn dispatch(&mut self, now: Instant, index: MemberIndex, purpose: Purpose, message: Reply, out: &mut Vec<Action>) {
        match (purpose, message) {
            (Purpose::Open, Reply::Opened(opened)) => self.opened(now, index, opened, out),
            (Purpose::Ping | Purpose::Grow | Purpose::Keep, Reply::Done) => {}
            (Purpose::Write(lsn), Reply::Done) => self.write_answered(now, index, lsn, out),
            (Purpose::Read(turn, number), Reply::Data(blocks)) => {
                self.read_answered(now, index, turn, number, Ok(blocks), out)
            }
            (Purpose::Read(turn, number), Reply::Refused(refusal)) => {
                let bad = refusal.status == Status::BadBlock;
                self.read_answered(now, index, turn, number, Err(bad), out);
                if !bad {
                    self.refused(now, index, &refusal, out);
                }
            }
            (Purpose::ListBad, Reply::Bad { entries, more }) => self.bad_listed(now, index, &entries, more, out),
            (Purpose::Digest(question), reply @ (Reply::Digests { .. } | Reply::Refused(_))) => {
                self.digests_answered(now, question, index, reply, out);
            }
            (Purpose::Repair(turn), reply) => self.repair_ended(index, turn, reply == Reply::Done, out),
            (Purpose::CopyRead(copy), reply) => self.copy_read(now, copy, index, reply, out),
            (Purpose::CopyFill(copy), reply) => self.copy_filled(now, copy, reply, out),
            (Purpose::Report { from }, Reply::Reported { entries, next }) => match next {
                Some(next) if next <= from => self.drop_link(now, index, PAGE_STANDS_STILL, out),
                next => self.reported(now, index, entries, next, out),
            },
            (Purpose::Job(job), reply) => self.job_answered(now, job, reply, out),
            (Purpose::Agree, Reply::Done) => self.agreed(index),
            // Stale blocks of a chunk that it does not hold. It is equal where that counts; when it is opened again it
            // will be taken for one of the past, and copied whole.
            (Purpose::Agree, Reply::Refused(Refusal { status: Status::Incomplete, .. })) => self.agreed(index),
            (Purpose::Resync(attempt), reply) => self.resync_answered(now, attempt, reply, out),
            (Purpose::ResyncList(attempt), reply) => self.resync_listed(now, attempt, reply, out),
            (_, Reply::Refused(refusal)) => self.refused(now, index, &refusal, out),
            (_, _) => self.drop_link(now, index, "answer of the wrong kind", out),
        }
    }

    /// A request that a sound replica does not refuse. What was sent after it on the same link may or may not stand,
    /// so the link ends and everything unanswered goes again in order. Not at once: it would most likely refuse again,
    /// and until then the others, for whose sake it may be ejected, have time for a sign of life.
    pub(crate) fn refused(&mut self, now: Instant, index: MemberIndex, refusal: &Refusal, out: &mut Vec<Action>) {
        let reason = format!("{:?}: {}", refusal.status, refusal.reason);
        let member = &mut self.members[index];
        if member.in_sync() {
            member.suspect_of(reason.clone(), now);
        }
        member.backoff = self.config.reconnect_max;
        self.drop_link(now, index, &reason, out);
    }

    fn opened(&mut self, now: Instant, index: MemberIndex, opened: Opened, out: &mut Vec<Action>) {
        if opened.commit.max(opened.floor) > self.lsn {
            let reason = "commit point or floor of a write to come".to_owned();
            let refusal = Refusal { status: Status::BadRequest, block: BlockIndex(0), reason };
            self.refused(now, index, &refusal, out);
            return;
        }
        self.reported_commit = self.reported_commit.max(opened.commit);
        self.floor = self.floor.max(opened.floor);
        self.members[index].damaged = false;
        // One that lost its link while its `Join` is in doubt: perhaps it is in-sync already, so it must miss no write.
        let takes_writes = self.takes_writes(index);
        let served = self.agreed_when_last_in_sync(index);
        let member = &mut self.members[index];
        member.become_open(opened, now);
        let gone_back = member.history.note_opened(&opened, served);
        // Once found out it stays so until it is made whole: its next session will look as if nothing had been.
        member.gone_back |= gone_back.is_some();
        // What it would be given up for is over, unless it is incomplete as a whole or being ejected already.
        member.suspect = None;
        member.damaged = takes_writes && (opened.syncing || member.gone_back);
        // A return that was cut off leaves it syncing by the catalog: one that is out and yet incomplete was damaged.
        member.copy_whole |= opened.syncing && matches!(member.state, MemberState::Out { .. });
        member.copy_whole |= member.gone_back && !member.in_sync();
        if member.damaged {
            member.suspect_of(gone_back.unwrap_or("replica is incomplete"), now);
        }
        if !self.proposals.is_ejecting(member.disk) {
            member.leaving = false;
        }
        self.tell_size(now, index, out);
        self.tell_kept(now, index, out);
        if matches!(self.phase, Phase::Serving) && takes_writes && !self.members[index].damaged {
            self.resend_writes(now, index, out);
            self.ask_again(now, out);
        }
    }

    /// The volume may have grown since the session was opened.
    pub(crate) fn tell_size(&mut self, now: Instant, index: MemberIndex, out: &mut Vec<Action>) {
        let size = self.record.size;
        if self.members[index].is_open() && self.members[index].told_size < size {
            self.members[index].told_size = size;
            self.send(now, index, Purpose::Grow, Request::Grow { size }, out);
        }
    }

    /// The epoch in which a member must have agreed, or its content is not what it was. One that is out had everything
    /// before its commit point, which is not before the epoch in which it served.
    fn agreed_when_last_in_sync(&self, index: MemberIndex) -> Epoch {
        match self.members[index].state {
            MemberState::InSync => self.record.served,
            MemberState::Syncing { commit } | MemberState::Out { commit } => commit.epoch(),
        }
    }

    pub(crate) fn check_silence(&mut self, now: Instant, index: MemberIndex, out: &mut Vec<Action>) {
        match self.members[index].sign_of_life(&self.config, self.awake_since, now) {
            Sign::Silent { since } => {
                let reason = format!("silent for {} ms", now.since(since).as_millis());
                self.drop_link(now, index, &reason, out);
            }
            Sign::Asked => self.send(now, index, Purpose::Ping, Request::Ping, out),
            Sign::Fine => {}
        }
    }

    /// Slow is a fault: a replica that for a second holds back the others is given up before it times out. At most
    /// three times in ten minutes, so that a cluster that is slow as a whole does not tear itself apart.
    fn judge_slowness(&mut self, now: Instant, index: MemberIndex) {
        let others = self.members.iter().enumerate().filter(|(other, member)| *other != index && member.serves_reads());
        let next_slowest = others.map(|(_, member)| member.latency.mean()).max().unwrap_or(Duration::MAX);
        let slow_min = self.config.slow_min;
        let disk = self.members[index].disk;
        let spare = self.fewest_sound_without(&[disk]) >= self.record.min_replicas;
        let member = &mut self.members[index];
        let slow = member.latency.mean() > slow_min.max(next_slowest.saturating_mul(10));
        let lasting = member.latency.slow_for(slow, now) >= SLOW_LASTS;
        member.slow_ejections.retain(|at| now.since(*at) < SLOW_WINDOW);
        if lasting && spare && member.serves_reads() && member.slow_ejections.len() < SLOW_EJECTIONS_MAX {
            member.slow_ejections.push(now);
            member.suspect_of(format!("slow: {} ms on average", member.latency.mean().as_millis()), now);
        }
    }

    /// Reads may be completed: see DESIGN §5.3. Leases of |in-sync| − minReplicas + 1 members meet every set that
    /// could have promised a newer epoch. While a change of membership is in doubt that must hold of the sets before
    /// and after it, and besides everybody who stays must hold one.
    pub(crate) fn leases_hold(&self, now: Instant) -> bool {
        if Mutant::LeaseIgnored.is_on() {
            return true;
        }
        let enough = |counts: &dyn Fn(&Member) -> bool| {
            let set = || self.members.iter().filter(|member| counts(member));
            let needed = (set().count() + 1).saturating_sub(usize::from(self.record.min_replicas)).max(1);
            set().filter(|member| member.lease_until > now).count() >= needed.min(set().count())
        };
        let Some(change) = self.proposals.outstanding_membership() else { return enough(&Member::in_sync) };
        let stays = |member: &Member| member.in_sync() && !ejects(change, member.disk);
        let all = self.members.iter().filter(|member| stays(member)).all(|member| member.lease_until > now);
        let joins = |member: &Member| matches!(change, Change::Join { disk } if *disk == member.disk);
        all && enough(&Member::in_sync) && enough(&|member| stays(member) || joins(member))
    }
}

/// Asks for links to those that are needed and have none, when it is time.
pub(crate) fn connect_due(members: &mut [Member], now: Instant, out: &mut Vec<Action>) {
    for member in members {
        if member.has_chunks && matches!(member.link, Link::Down { retry_at } if retry_at <= now) {
            member.become_connecting();
            out.push(Action::Connect { disk: member.disk });
        }
    }
}

/// Ends every link, for good.
pub(crate) fn disconnect_all(members: &mut [Member], out: &mut Vec<Action>) {
    for member in members {
        if let Some(session) = member.session() {
            out.push(Action::Disconnect { disk: member.disk, session });
        }
        member.become_down(Instant::FAR);
    }
}

/// Refusals that come before the session is looked at say nothing of whom the replica has promised since.
fn speaks_to_its_writer(reply: &Reply) -> bool {
    match reply {
        Reply::Refused(refusal) => {
            matches!(refusal.status, Status::BadBlock | Status::Stale | Status::Incomplete | Status::NoSpace)
        }
        _ => true,
    }
}
