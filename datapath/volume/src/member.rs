//! One disk as the writer sees it: its link, what was asked of it and not yet answered, its lease, how fast it is.
//!
//! ```text
//!            Connect              LinkUp: send Open           Opened
//!   down ──────────────► connecting ─────────► opening(session) ─────────► open(session)
//!     ▲ retry_at              │                     │                          │
//!     └───────────────────────┴─────────────────────┴──── LinkDown, silence ───┘
//! ```
//! Invariants:
//! - requests are outstanding only in `opening` (just the `Open`) and `open`;
//! - `lease_until` ≤ send time of an answered request of this epoch + lease;
//! - `serves_reads` implies in-sync by the known record, not leaving, not damaged.

use crate::config::Config;
use crate::history::History;
use crate::latency::Latency;
use crate::overlap::TurnId;
use ashlar_types::{
    ByteCount, ChunkIndex, DiskId, Duration, FloorRange, Instant, Lsn, Member as RecordMember, MemberState, Mutant,
    RequestId, SessionId, SlotIndex,
};
use ashlar_wire::Opened;
use std::collections::BTreeMap;

/// Why a member should be ejected.
#[derive(Clone, Debug)]
pub(crate) struct Suspicion {
    pub(crate) reason: String,
    pub(crate) since: Instant,
}

/// Index into `VolumeRecord::members`, which never reorders.
pub(crate) type MemberIndex = usize;

/// What a request was for, so that its answer finds its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Open,
    Ping,
    Grow,
    Keep,
    Write(Lsn),
    /// One question of a read.
    Read(TurnId, u32),
    Repair(TurnId),
    ListBad,
    /// Comparison, by number of the question.
    Digest(u64),
    /// Reconcile: reports of all chunks, from this one on.
    Report {
        from: ChunkIndex,
    },
    /// Reconcile of one chunk at one target.
    Job(usize),
    /// End of a reconcile.
    Agree,
    /// Return of this disk, by number of the attempt.
    Resync(u64),
    /// Listing of the source of a return.
    ResyncList(u64),
    CopyRead(CopyId),
    CopyFill(CopyId),
}

/// Number of a slot's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CopyId(pub(crate) u64);

/// One slot of one chunk, on its way to `target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CopyWhat {
    pub(crate) chunk: ChunkIndex,
    pub(crate) slot: SlotIndex,
    pub(crate) floors: FloorRange,
    pub(crate) target: MemberIndex,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) purpose: Purpose,
    pub(crate) sent: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Down { retry_at: Instant },
    Connecting,
    Opening { session: SessionId },
    Open { session: SessionId },
}

/// What a member's silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Fine,
    /// It is to be asked for a sign of life.
    Asked,
    Silent {
        since: Instant,
    },
}

pub(crate) struct Member {
    pub(crate) disk: DiskId,
    pub(crate) state: MemberState,
    /// One whose chunks were given to another disk is not needed any more.
    pub(crate) has_chunks: bool,
    /// 0: on this node, 1: in this zone, 2: elsewhere. Reads go to the lowest.
    pub(crate) distance: u8,
    pub(crate) link: Link,
    pub(crate) asked: BTreeMap<RequestId, Asked>,
    pub(crate) history: History,
    /// Size of the volume that its session knows.
    pub(crate) told_size: ByteCount,
    /// Which snapshots its session knows to keep; 0: none yet.
    pub(crate) told_kept: u64,
    next_request: u64,
    /// What it answered to `Open` in this epoch, the latest.
    pub(crate) opened: Option<Opened>,
    /// It promised our epoch, then; a promise outlives the link.
    pub(crate) promised_at: Option<Instant>,
    pub(crate) lease_until: Instant,
    /// When the latest request was sent that it has answered, as to its writer.
    pub(crate) heard: Instant,
    pub(crate) last_sent: Instant,
    pub(crate) backoff: Duration,
    pub(crate) suspect: Option<Suspicion>,
    /// Being ejected: serves no read any more (leave before publish).
    pub(crate) leaving: bool,
    /// Its history is unknown: everything must be copied when it returns.
    pub(crate) damaged: bool,
    /// Its content has gone back in time: nothing that it says of its history counts.
    pub(crate) gone_back: bool,
    /// It was damaged since it left: it returns as if new, whatever its commit point. Until it has joined.
    pub(crate) copy_whole: bool,
    /// A return that failed is tried again from here on, after a pause that doubles until one succeeds.
    pub(crate) returns_from: Instant,
    pub(crate) return_pause: Duration,
    /// It shall go, as was last said before this; asked for without a pause since.
    pub(crate) unwanted_until: Instant,
    pub(crate) unwanted_since: Instant,
    pub(crate) latency: Latency,
    pub(crate) slow_ejections: Vec<Instant>,
}

impl Member {
    pub(crate) fn new(record: &RecordMember, distance: u8, now: Instant) -> Member {
        Member {
            disk: record.disk,
            state: record.state,
            has_chunks: true,
            distance,
            link: Link::Down { retry_at: now },
            asked: BTreeMap::new(),
            history: History::default(),
            told_size: ByteCount(0),
            told_kept: 0,
            next_request: 1,
            opened: None,
            promised_at: None,
            lease_until: Instant::ZERO,
            heard: Instant::ZERO,
            last_sent: Instant::ZERO,
            backoff: Duration::ZERO,
            suspect: None,
            leaving: false,
            damaged: false,
            gone_back: false,
            copy_whole: false,
            returns_from: Instant::ZERO,
            return_pause: Duration::ZERO,
            unwanted_until: Instant::ZERO,
            unwanted_since: Instant::ZERO,
            latency: Latency::default(),
            slow_ejections: Vec::new(),
        }
    }

    pub(crate) fn in_sync(&self) -> bool {
        self.state == MemberState::InSync
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.link, Link::Open { .. })
    }

    pub(crate) fn is_asked_for_life(&self, since: Instant) -> bool {
        self.asked.values().any(|asked| asked.purpose == Purpose::Ping && asked.sent >= since)
    }

    pub(crate) fn suspect_of(&mut self, reason: impl Into<String>, since: Instant) {
        self.suspect = Some(Suspicion { reason: reason.into(), since });
    }

    pub(crate) fn serves_reads(&self) -> bool {
        (self.in_sync() || Mutant::OutServesReads.is_on()) && !self.leaving && !self.damaged && self.is_open()
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.link {
            Link::Opening { session } | Link::Open { session } => Some(session),
            Link::Down { .. } | Link::Connecting => None,
        }
    }

    /// Whether what is told of this session's link is of its present one; `None`: of one that is being made.
    pub(crate) fn is_linked_by(&self, session: Option<SessionId>) -> bool {
        match session {
            Some(session) => self.session() == Some(session),
            None => matches!(self.link, Link::Connecting),
        }
    }

    pub(crate) fn become_connecting(&mut self) {
        assert!(matches!(self.link, Link::Down { .. }));
        self.link = Link::Connecting;
    }

    pub(crate) fn become_opening(&mut self, session: SessionId) {
        assert!(matches!(self.link, Link::Connecting) && self.asked.is_empty());
        self.link = Link::Opening { session };
    }

    pub(crate) fn become_open(&mut self, opened: Opened, now: Instant) {
        let Link::Opening { session } = self.link else { panic!("only an opening link opens") };
        self.link = Link::Open { session };
        self.opened = Some(opened);
        // A promise holds from when it was first given, whatever becomes of the link.
        self.promised_at.get_or_insert(now);
        self.latency.restart();
    }

    /// Everything unanswered is forgotten; the caller has taken what it needs.
    pub(crate) fn become_down(&mut self, retry_at: Instant) {
        self.asked.clear();
        self.link = Link::Down { retry_at };
    }

    /// How long it may leave a request unanswered.
    pub(crate) fn silence_bound(&self, config: &Config) -> Duration {
        (self.latency.p99() * 20).clamp(config.silence_min, config.silence_max)
    }

    /// When something is to be done about it, if nothing else happens. `awake_since`: from when on this process is
    /// known not to have been stopped.
    pub(crate) fn deadline(&self, config: &Config, awake_since: Instant) -> Instant {
        match self.link {
            Link::Down { .. } if !self.has_chunks => Instant::FAR,
            Link::Down { retry_at } => retry_at,
            Link::Connecting => Instant::FAR,
            Link::Opening { .. } | Link::Open { .. } => match self.waiting_since() {
                Some(since) => since.max(awake_since) + self.silence_bound(config),
                None => self.last_sent + config.ping_interval,
            },
        }
    }

    /// Silence with a request unanswered is a fault; quiet with none is asked for a sign of life.
    pub(crate) fn sign_of_life(&self, config: &Config, awake_since: Instant, now: Instant) -> Sign {
        if self.session().is_none() {
            return Sign::Fine;
        }
        match self.waiting_since().map(|since| since.max(awake_since)) {
            Some(since) if now.since(since) >= self.silence_bound(config) => Sign::Silent { since },
            None if now.since(self.last_sent) >= config.ping_interval && self.is_open() => Sign::Asked,
            Some(_) | None => Sign::Fine,
        }
    }

    /// Doubles the pause before the next attempt, within bounds.
    pub(crate) fn lengthen_backoff(&mut self, min: Duration, max: Duration) -> Duration {
        self.backoff = (self.backoff * 2).clamp(min, max);
        self.backoff
    }

    pub(crate) fn ask(&mut self, purpose: Purpose, now: Instant) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.last_sent = now;
        self.asked.insert(id, Asked { purpose, sent: now });
        id
    }

    /// The oldest unanswered request: requests are numbered in the order sent.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.asked.first_key_value().map(|(_, asked)| asked.sent)
    }
}

#[cfg(test)]
mod tests;
