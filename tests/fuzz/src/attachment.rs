//! An attached volume whose replicas and catalog say what they like; and what must hold of it whatever they say.
//!
//! Rules: at most one link is asked for or stands per disk; frames go over a link that stands, within the bounds of a
//! session; a guest's request is completed once, with the bytes that it asked for; after the end nothing is sent.

use crate::reach;
use ashlar_types::{
    BLOCK_BYTES, ByteCount, CHUNK_BYTES, Change, ChunkIndex, ChunkRun, ClusterId, DiskId, Duration, Epoch, Instant,
    Member, MemberState, SessionId, SnapshotId, VolumeId, VolumeRecord,
};
use ashlar_volume::{Action, Config, Event, GuestOp, ProposalId, Tag, Volume};
use ashlar_wire::limits::{SESSION_DATA_BYTES_MAX, SESSION_REQUESTS_MAX};
use ashlar_wire::{Request, RequestFrame};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const MEMBERS: usize = 3;
/// With those that the catalog adds.
pub(crate) const MEMBERS_MAX: usize = 5;
pub(crate) const CHUNKS: u32 = crate::draw::CHUNKS;

pub(crate) enum Link {
    Down,
    Connecting,
    Up(SessionId),
}

pub(crate) struct Attachment {
    pub(crate) volume: Volume,
    pub(crate) now: Instant,
    pub(crate) links: [Link; MEMBERS_MAX],
    /// Sent and not answered, over links that stand.
    pub(crate) sent: Vec<(usize, RequestFrame)>,
    pub(crate) proposals: Vec<(ProposalId, Change)>,
    /// The catalog's.
    pub(crate) record: VolumeRecord,
    pub(crate) ended: bool,
    /// Bytes that each request of the guest gives when it is well.
    guests: BTreeMap<Tag, usize>,
    /// Asked for and not answered.
    snapshots: BTreeSet<SnapshotId>,
    /// Holds that were asked for and not answered.
    holds: Vec<SnapshotId>,
    next_tag: u64,
    next_session: u64,
    out: Vec<Action>,
}

pub(crate) fn disk(index: usize) -> DiskId {
    DiskId::from_u128(index as u128 + 1)
}

pub(crate) fn member(index: usize, state: MemberState) -> Member {
    let node = format!("node-{index}").parse().expect("a name");
    Member { disk: disk(index), node, zone: None, state }
}

pub(crate) fn record(states: [MemberState; MEMBERS], min_replicas: u8, clean: bool) -> VolumeRecord {
    VolumeRecord {
        cluster: ClusterId::from_u128(1),
        volume: VolumeId::from_u128(1),
        size: ByteCount(u64::from(CHUNKS) * CHUNK_BYTES),
        epoch: Epoch::new(5).expect("small"),
        version: 10,
        holder: None,
        served: Epoch::new(4).expect("small"),
        clean,
        min_replicas,
        members: (0..MEMBERS).map(|index| member(index, states[index])).collect(),
        chunks: vec![
            ChunkRun { first: ChunkIndex(0), count: 2, members: vec![0, 1, 2] },
            ChunkRun { first: ChunkIndex(2), count: CHUNKS - 2, members: vec![1, 2] },
        ],
        declared_lost: vec![],
        snapshots: vec![],
        clones: Vec::new(),
        origin: None,
        last_change: None,
    }
}

impl Attachment {
    pub(crate) fn start(config: Config, record: VolumeRecord) -> Attachment {
        let now = Instant::from_nanos(1_000_000_000_000);
        let mut attachment = Attachment {
            volume: Volume::new(config, record.clone(), now),
            now,
            links: [const { Link::Down }; MEMBERS_MAX],
            sent: vec![],
            proposals: vec![],
            record,
            ended: false,
            guests: BTreeMap::new(),
            snapshots: BTreeSet::new(),
            holds: Vec::new(),
            next_tag: 0,
            next_session: 0,
            out: vec![],
        };
        attachment.event(Event::Tick);
        attachment
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.volume.handle(self.now, event, &mut self.out);
        for action in std::mem::take(&mut self.out) {
            self.take(action);
        }
        assert_eq!(self.volume.status().inflight, self.guests.len(), "every request of the guest is accounted for");
    }

    pub(crate) fn guest(&mut self, op: GuestOp) {
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        let bytes = if let GuestOp::Read { count, .. } = &op { count.bytes().0 as usize } else { 0 };
        self.guests.insert(tag, bytes);
        self.event(Event::Guest { tag, op });
    }

    pub(crate) fn snapshot(&mut self, id: SnapshotId, held: bool) {
        self.snapshots.insert(id);
        self.event(Event::Snapshot { id, held });
    }

    pub(crate) fn hold(&mut self, id: SnapshotId, at_most: Duration) {
        self.holds.push(id);
        self.event(Event::Hold { id, at_most });
    }

    /// A fresh session for a link that was asked for.
    pub(crate) fn connect(&mut self, index: usize) {
        if matches!(self.links[index], Link::Connecting) {
            self.next_session += 1;
            let session = SessionId(self.next_session);
            self.links[index] = Link::Up(session);
            self.event(Event::LinkUp { disk: disk(index), session });
        }
    }

    /// The link breaks, or could not be made.
    pub(crate) fn cut(&mut self, index: usize, reset: bool) {
        let session = match std::mem::replace(&mut self.links[index], Link::Down) {
            Link::Down => return,
            Link::Connecting => None,
            Link::Up(session) => Some(session),
        };
        self.sent.retain(|(to, _)| *to != index);
        self.event(Event::LinkDown { disk: disk(index), session, reset });
    }

    fn take(&mut self, action: Action) {
        let is_answer = matches!(action, Action::Complete { .. } | Action::SnapshotTaken { .. } | Action::Held { .. });
        assert!(!self.ended || is_answer || matches!(action, Action::Disconnect { .. }), "{action:?}");
        reach::note("action", &action);
        match action {
            Action::Connect { disk } => {
                let link = &mut self.links[index_of(disk)];
                assert!(matches!(link, Link::Down), "one link per disk");
                *link = Link::Connecting;
            }
            Action::Disconnect { disk, session } => {
                let index = index_of(disk);
                assert!(matches!(self.links[index], Link::Up(ours) if ours == session), "a link that stands is ended");
                self.links[index] = Link::Down;
                self.sent.retain(|(to, _)| *to != index);
            }
            Action::Send { disk, session, frame } => {
                let index = index_of(disk);
                assert!(matches!(self.links[index], Link::Up(ours) if ours == session), "sent over a link that stands");
                assert_eq!((frame.session, frame.epoch), (session, self.volume.status().epoch));
                reach::note("request", &frame.message);
                self.sent.push((index, frame));
                self.check_session(index);
            }
            Action::Complete { tag, result } => {
                let bytes = self.guests.remove(&tag).expect("a request is completed once");
                reach::note(
                    "guest",
                    &result.as_ref().map_or("refused", |data| if data.is_empty() { "done" } else { "read" }),
                );
                if let Ok(data) = result {
                    assert_eq!(data.len(), bytes, "a guest gets what it asked for");
                }
            }
            Action::Propose { proposal, change, .. } => {
                reach::note("change", &change);
                self.proposals.retain(|(other, _)| *other != proposal);
                self.proposals.push((proposal, change));
            }
            Action::Notice(notice) => reach::note("notice", &notice),
            Action::SnapshotTaken { id, result } => {
                assert!(self.snapshots.remove(&id), "one that was asked for is answered once");
                reach::note("snapshot", &result.map_or("refused", |_| "taken"));
            }
            Action::Held { id, result } => {
                let at = self.holds.iter().position(|asked| *asked == id);
                self.holds.remove(at.expect("a hold that was asked for is answered once"));
                reach::note("hold", &result.map_or("refused", |()| "held"));
            }
            Action::Ended(why) => {
                reach::note("ended", &why);
                self.ended = true;
                self.sent.clear();
            }
        }
    }

    /// A chunkserver ends a session that has more unanswered than this.
    fn check_session(&self, index: usize) {
        let ours = || self.sent.iter().filter(|(to, _)| *to == index);
        assert!(ours().count() <= SESSION_REQUESTS_MAX, "requests of a session are bounded");
        let bytes: usize = ours().map(|(_, frame)| data_bytes(&frame.message)).sum();
        assert!(bytes <= SESSION_DATA_BYTES_MAX, "bytes of a session are bounded");
    }
}

fn index_of(disk: DiskId) -> usize {
    disk.as_u128() as usize - 1
}

fn data_bytes(request: &Request) -> usize {
    match request {
        Request::Write { blocks, .. } | Request::Repair { blocks, .. } => blocks.data.len(),
        Request::Fill { content, .. } => content.blocks.data.len(),
        Request::Read { range, .. } => (u64::from(range.count.0) * BLOCK_BYTES) as usize,
        Request::ReadSlot { .. } => ashlar_types::SLOT_BYTES as usize,
        _ => 0,
    }
}
