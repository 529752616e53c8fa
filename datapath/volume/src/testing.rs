//! Bench for tests of the core: a volume, its replicas, its catalog and a clock, in one thread. Nothing happens but
//! what a test lets happen: a replica can be down, or mute (it takes requests and its answers are kept back), the
//! catalog can be out of reach.

mod replica;

use crate::{Action, Config, Ending, Event, GuestError, GuestOp, Notice, ProposalId, SnapshotError, Tag, Volume};
use ashlar_types::*;
use ashlar_wire::{ReplyFrame, Request, RequestFrame};
use bytes::Bytes;
pub(crate) use replica::Replica;
use std::collections::{BTreeMap, VecDeque};

pub(crate) const OUT: fn(u64) -> MemberState = |raw| MemberState::Out { commit: Lsn::from_raw(raw) };

pub(crate) struct Bench {
    pub(crate) volume: Volume,
    pub(crate) now: Instant,
    pub(crate) replicas: Vec<Replica>,
    /// What the control plane holds.
    pub(crate) catalog: VolumeRecord,
    pub(crate) catalog_up: bool,
    /// The catalog does not look at proposals of this kind, by the name in their `Debug`.
    pub(crate) withheld: Option<&'static str>,
    /// Proposals that the catalog has not looked at.
    pub(crate) proposals: VecDeque<(ProposalId, u64, Change)>,
    /// Every proposal ever made.
    pub(crate) proposed: Vec<(ProposalId, Change)>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) snapshots: Vec<(SnapshotId, Result<Lsn, SnapshotError>)>,
    pub(crate) holds: Vec<(SnapshotId, Result<(), SnapshotError>)>,
    pub(crate) ended: Option<Ending>,
    pub(crate) completed: BTreeMap<Tag, Result<Bytes, GuestError>>,
    /// In the order sent, to each replica over its present link.
    pub(crate) requests: VecDeque<(usize, RequestFrame)>,
    pub(crate) mute: Vec<bool>,
    pub(crate) replies: VecDeque<(usize, ReplyFrame)>,
    next_session: u64,
    next_tag: u64,
}

pub(crate) fn disk(index: usize) -> DiskId {
    DiskId::from_u128(index as u128 + 1)
}

/// Three replicas in-sync, two needed, two chunks, clean.
pub(crate) fn record(states: &[MemberState]) -> VolumeRecord {
    let member = |(index, &state): (usize, &MemberState)| Member {
        disk: disk(index),
        node: format!("node-{index}").parse().unwrap(),
        zone: None,
        state,
    };
    VolumeRecord {
        cluster: ClusterId::from_u128(1),
        volume: VolumeId::from_u128(1),
        size: ByteCount(2 * CHUNK_BYTES),
        epoch: Epoch::new(5).unwrap(),
        version: 10,
        holder: None,
        served: Epoch::NONE,
        clean: true,
        min_replicas: 2,
        members: states.iter().enumerate().map(member).collect(),
        chunks: vec![ChunkRun { first: ChunkIndex(0), count: 2, members: (0..states.len() as u16).collect() }],
        declared_lost: vec![],
        snapshots: vec![],
        clones: Vec::new(),
        origin: None,
        last_change: None,
    }
}

impl Bench {
    pub(crate) fn new(record: VolumeRecord) -> Bench {
        let config = Config::new("node-0".parse().unwrap(), None);
        let now = Instant::from_nanos(1_000_000_000_000);
        let count = record.members.len();
        Bench {
            volume: Volume::new(config, record.clone(), now),
            now,
            replicas: (0..count).map(|_| Replica::default()).collect(),
            catalog: record,
            catalog_up: true,
            withheld: None,
            proposals: VecDeque::new(),
            proposed: vec![],
            notices: vec![],
            snapshots: vec![],
            holds: vec![],
            ended: None,
            completed: BTreeMap::new(),
            requests: VecDeque::new(),
            mute: vec![false; count],
            replies: VecDeque::new(),
            next_session: 1,
            next_tag: 1,
        }
    }

    /// Attached and served.
    pub(crate) fn serving(states: &[MemberState]) -> Bench {
        let mut bench = Bench::new(record(states));
        bench.start();
        assert!(bench.volume.status().serving, "{:?}", bench.volume.status().blocked);
        bench
    }

    pub(crate) fn start(&mut self) {
        self.event(Event::Tick);
        self.settle();
    }

    pub(crate) fn event(&mut self, event: Event) {
        let mut out = vec![];
        self.volume.handle(self.now, event, &mut out);
        for action in out {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { disk } => {
                let index = self.index(disk);
                self.replicas[index].connecting = true;
            }
            Action::Disconnect { disk, session } => {
                let index = self.index(disk);
                assert_eq!(self.replicas[index].session, Some(session));
                self.cut(index);
            }
            Action::Send { disk, session, frame } => {
                let index = self.index(disk);
                assert_eq!(self.replicas[index].session, Some(session), "a frame for a link that does not stand");
                self.requests.push_back((index, frame));
            }
            Action::Complete { tag, result } => {
                assert!(self.completed.insert(tag, result).is_none(), "completed twice");
            }
            Action::Propose { proposal, epoch, version, change } => {
                assert_eq!(epoch, self.catalog.epoch);
                self.proposed.push((proposal, change.clone()));
                self.proposals.push_back((proposal, version, change));
            }
            Action::Notice(notice) => self.notices.push(notice),
            Action::SnapshotTaken { id, result } => self.snapshots.push((id, result)),
            Action::Held { id, result } => self.holds.push((id, result)),
            Action::Ended(ending) => assert!(self.ended.replace(ending).is_none(), "ended twice"),
        }
    }

    fn index(&self, wanted: DiskId) -> usize {
        (0..self.replicas.len()).find(|&index| disk(index) == wanted).unwrap()
    }

    fn cut(&mut self, index: usize) {
        self.replicas[index].session = None;
        self.requests.retain(|(to, _)| *to != index);
        self.replies.retain(|(from, _)| *from != index);
    }

    /// Everything happens that can, without time passing.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// One thing that can happen; false if nothing can.
    pub(crate) fn step(&mut self) -> bool {
        if let Some(index) = (0..self.replicas.len()).find(|&index| self.replicas[index].connecting) {
            self.replicas[index].connecting = false;
            let event = if self.replicas[index].down {
                Event::LinkDown { disk: disk(index), session: None, reset: true }
            } else {
                let session = SessionId(self.next_session);
                self.next_session += 1;
                self.replicas[index].session = Some(session);
                Event::LinkUp { disk: disk(index), session }
            };
            self.event(event);
        } else if let Some(at) = self.replies.iter().position(|(from, _)| !self.mute[*from]) {
            let (from, frame) = self.replies.remove(at).unwrap();
            self.event(Event::Reply { disk: disk(from), frame });
        } else if let Some((to, frame)) = self.requests.pop_front() {
            if self.replicas[to].breaks && matches!(frame.message, Request::Write { .. }) {
                self.reset(to);
            } else {
                let reply = self.replicas[to].take(frame);
                self.replies.push_back((to, reply));
            }
        } else if let Some((id, version, change)) = self.proposals.pop_front_if(|(_, _, change)| {
            self.catalog_up && self.withheld.is_none_or(|name| !format!("{change:?}").starts_with(name))
        }) {
            let answer = self.decide(version, &change);
            self.event(Event::Answer { proposal: id, answer });
        } else {
            return false;
        }
        true
    }

    /// The catalog's rules, as far as a writer's proposals need them.
    pub(crate) fn decide(&mut self, version: u64, change: &Change) -> ChangeAnswer {
        let record = &mut self.catalog;
        if version + 1 == record.version && record.last_change.as_ref() == Some(change) {
            return ChangeAnswer::Applied { record: record.clone() };
        }
        if version != record.version {
            return ChangeAnswer::Refused { reason: "version".to_owned(), record: record.clone() };
        }
        match change {
            Change::Eject { disks, .. } if record.fewest_in_sync_without(disks) < record.min_replicas => {
                return ChangeAnswer::Refused { reason: "below minReplicas".to_owned(), record: record.clone() };
            }
            Change::OpenDirty => {
                record.clean = false;
                record.served = record.epoch;
            }
            Change::CloseClean => record.clean = true,
            Change::Snapshot(snapshot) => record.snapshots.push(*snapshot),
            _ => {}
        }
        for member in &mut record.members {
            member.state = match (change, member.state) {
                (Change::Eject { disks, commit, .. }, _) if disks.contains(&member.disk) => {
                    MemberState::Out { commit: *commit }
                }
                (Change::BeginReturn { disk }, MemberState::Out { commit }) if *disk == member.disk => {
                    MemberState::Syncing { commit }
                }
                (Change::Join { disk }, MemberState::Syncing { .. }) if *disk == member.disk => MemberState::InSync,
                (_, state) => state,
            };
        }
        record.version += 1;
        record.last_change = Some(change.clone());
        ChangeAnswer::Applied { record: record.clone() }
    }

    /// Lets time pass; whatever can happen does.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while self.volume.next_deadline() <= end {
            self.now = self.now.max(self.volume.next_deadline()) + Duration::from_nanos(1);
            self.event(Event::Tick);
            self.settle();
        }
        self.now = self.now.max(end);
    }

    /// The replica is gone, with its link.
    pub(crate) fn kill(&mut self, index: usize) {
        self.replicas[index].down = true;
        self.reset(index);
    }

    /// The link is gone; the replica is not.
    pub(crate) fn reset(&mut self, index: usize) {
        if let Some(session) = self.replicas[index].session {
            self.cut(index);
            self.event(Event::LinkDown { disk: disk(index), session: Some(session), reset: true });
        }
    }

    /// The replica can be reached again; the next attempt to connect is under way.
    pub(crate) fn come_back(&mut self, index: usize) {
        self.replicas[index].down = false;
        while !self.replicas[index].connecting {
            self.now = self.now.max(self.volume.next_deadline());
            self.event(Event::Tick);
        }
    }

    pub(crate) fn guest(&mut self, op: GuestOp) -> Tag {
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        self.event(Event::Guest { tag, op });
        tag
    }

    pub(crate) fn write(&mut self, start: u64, count: u64, fill: u8) -> Tag {
        let data = Bytes::from(vec![fill; (count * BLOCK_BYTES) as usize]);
        self.guest(GuestOp::Write { start: BlockIndex(start), data })
    }

    pub(crate) fn read(&mut self, start: u64, count: u32) -> Tag {
        self.read_below(start, count, Lsn::MAX)
    }

    pub(crate) fn read_below(&mut self, start: u64, count: u32, below: Lsn) -> Tag {
        self.guest(GuestOp::Read { start: BlockIndex(start), count: BlockCount(count), below })
    }

    pub(crate) fn all_done(&self) -> bool {
        (1..self.next_tag).all(|tag| self.is_done(Tag(tag)))
    }

    pub(crate) fn is_done(&self, tag: Tag) -> bool {
        matches!(self.completed.get(&tag), Some(Ok(_)))
    }

    /// What a completed read gave: the byte that each block is full of.
    pub(crate) fn bytes(&self, tag: Tag) -> Vec<u8> {
        let data = self.completed[&tag].as_ref().unwrap();
        let block = |bytes: &[u8]| {
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a torn block");
            bytes[0]
        };
        data.chunks(BLOCK_BYTES as usize).map(block).collect()
    }

    pub(crate) fn state(&self, index: usize) -> MemberState {
        self.volume.status().members[index].state
    }

    pub(crate) fn ejections(&self) -> usize {
        self.proposed.iter().filter(|(_, change)| matches!(change, Change::Eject { .. })).count()
    }
}
