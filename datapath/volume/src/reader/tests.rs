//! Who is asked, what is never shown, and how it ends.

use super::*;
use crate::ProposalId;
use crate::testing::{OUT, disk, record};
use ashlar_types::{BlockCount, BlockIndex, CHUNK_BYTES, Crc32, DiskId, MemberState, SessionId, SnapshotId};
use ashlar_wire::limits::BLOCKS_PER_FRAME_MAX;
use ashlar_wire::{BlockData, Frame, Opened, Refusal, Reply, Request, RequestFrame, Status};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const IN: MemberState = MemberState::InSync;

/// A chunkserver: every block of a volume is full of the low byte of its number.
#[derive(Default)]
struct Disk {
    down: bool,
    /// It takes requests and does not answer.
    mute: bool,
    bad: BTreeSet<u64>,
    /// It sends other bytes than it says, for these blocks.
    spoiled: BTreeSet<u64>,
    promised: u32,
    agreed: Option<u32>,
    syncing: bool,
    session: Option<SessionId>,
    asked: Vec<Request>,
}

struct Desk {
    reader: Reader,
    now: Instant,
    disks: Vec<Disk>,
    requests: VecDeque<(usize, RequestFrame)>,
    notices: Vec<Notice>,
    completed: BTreeMap<Tag, Result<Bytes, GuestError>>,
    ended: Option<Ending>,
    next_session: u64,
    next_tag: u64,
}

fn closed(states: &[MemberState]) -> VolumeRecord {
    let epoch = Epoch::new(5).unwrap();
    VolumeRecord { epoch, served: epoch, ..record(states) }
}

fn index_of(id: DiskId) -> usize {
    (0..).find(|&index| disk(index) == id).unwrap()
}

impl Desk {
    fn new(record: VolumeRecord) -> Desk {
        let now = Instant::from_nanos(1_000_000_000_000);
        let disks = record.members.iter().map(|_| Disk { promised: 5, ..Disk::default() }).collect();
        let reader = Reader::new(Config::new("node-0".parse().unwrap(), None), record, now);
        let (requests, notices, completed) = (VecDeque::new(), vec![], BTreeMap::new());
        Desk { reader, now, disks, requests, notices, completed, ended: None, next_session: 1, next_tag: 1 }
    }

    fn reading() -> Desk {
        let mut desk = Desk::new(closed(&[IN; 3]));
        desk.settle();
        assert!(desk.reader.status().serving);
        desk
    }

    fn event(&mut self, event: Event) {
        let mut out = vec![];
        self.reader.handle(self.now, event, &mut out);
        out.into_iter().for_each(|action| self.act(action));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { disk } => {
                let at = index_of(disk);
                if self.disks[at].down {
                    return self.event(Event::LinkDown { disk, session: None, reset: false });
                }
                let session = SessionId(self.next_session);
                self.next_session += 1;
                self.disks[at].session = Some(session);
                self.event(Event::LinkUp { disk, session });
            }
            Action::Disconnect { disk, session } => {
                let at = index_of(disk);
                assert_eq!(self.disks[at].session.take(), Some(session));
                self.requests.retain(|(of, _)| *of != at);
            }
            Action::Send { disk, session, frame } => {
                let at = index_of(disk);
                assert_eq!(self.disks[at].session, Some(session));
                assert_eq!((frame.epoch.number(), frame.commit), (5, Lsn::ZERO));
                self.requests.push_back((at, frame));
            }
            Action::Complete { tag, result } => {
                assert!(self.completed.insert(tag, result).is_none(), "a request is completed once");
            }
            Action::Notice(notice) => self.notices.push(notice),
            Action::Ended(ending) => self.ended = Some(ending),
            Action::SnapshotTaken { result, .. } => assert!(result.is_err()),
            Action::Held { result, .. } => assert!(result.is_err()),
            Action::Propose { .. } => panic!("a reader proposes nothing"),
        }
    }

    /// Everything that can happen at this moment.
    fn settle(&mut self) {
        self.event(Event::Tick);
        while let Some(at) = self.requests.iter().position(|(at, _)| !self.disks[*at].mute) {
            let (at, frame) = self.requests.remove(at).unwrap();
            self.answer(at, frame);
        }
    }

    fn answer(&mut self, at: usize, frame: RequestFrame) {
        let disk = &mut self.disks[at];
        let epoch = Epoch::new(disk.promised).unwrap();
        disk.asked.push(frame.message.clone());
        let refused = |status| Reply::Refused(Refusal { status, block: BlockIndex(0), reason: "no".to_owned() });
        let message = match frame.message {
            Request::Observe(_) if frame.epoch < epoch => refused(Status::Fenced),
            Request::Observe(_) => Reply::Opened(Opened {
                commit: Lsn::ZERO,
                floor: Lsn::ZERO,
                syncing: disk.syncing,
                last: Lsn::ZERO,
                agreed: Epoch::new(disk.agreed.unwrap_or(5)).unwrap(),
                session_before: SessionId(0),
            }),
            Request::Ping => Reply::Done,
            Request::Read { range, .. } => {
                let blocks = (0..u64::from(range.count.0)).map(|at| range.volume_start().0 + at);
                if blocks.clone().any(|block| disk.bad.contains(&block)) {
                    refused(Status::BadBlock)
                } else {
                    let byte = |block| [block as u8; 4096];
                    let sent = |block| if disk.spoiled.contains(&block) { [77; 4096] } else { byte(block) };
                    let crcs = blocks.clone().map(|block| Crc32::of_blocks(&byte(block)).next().unwrap()).collect();
                    Reply::Data(BlockData { crcs, data: blocks.flat_map(sent).collect::<Vec<u8>>().into() })
                }
            }
            other => panic!("an observer asks {other:?}"),
        };
        let reply = Frame { session: frame.session, request: frame.request, epoch, commit: Lsn::ZERO, message };
        self.event(Event::Reply { disk: crate::testing::disk(at), frame: reply });
    }

    fn fall(&mut self, at: usize) {
        self.disks[at].down = true;
        self.requests.retain(|(of, _)| *of != at);
        if let Some(session) = self.disks[at].session.take() {
            self.event(Event::LinkDown { disk: disk(at), session: Some(session), reset: true });
        }
    }

    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.reader.next_deadline() <= until {
            self.now = self.reader.next_deadline().max(self.now + Duration::from_millis(1));
            self.settle();
        }
        self.now = until;
        self.settle();
    }

    fn ask(&mut self, op: GuestOp) -> Tag {
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        self.event(Event::Guest { tag, op });
        tag
    }

    fn read(&mut self, start: u64, count: u32) -> Tag {
        self.ask(GuestOp::Read { start: BlockIndex(start), count: BlockCount(count), below: Lsn::MAX })
    }

    fn is_right(&self, tag: Tag, start: u64, count: u64) -> bool {
        let right =
            |bytes: &Bytes| bytes.chunks(4096).map(|block| block[0]).eq((0..count).map(|at| (start + at) as u8));
        matches!(self.completed.get(&tag), Some(Ok(bytes)) if bytes.len() as u64 == count * 4096 && right(bytes))
    }

    fn reads_of(&self, at: usize) -> usize {
        self.disks[at].asked.iter().filter(|request| matches!(request, Request::Read { .. })).count()
    }
}

#[test]
fn the_replica_on_this_node_is_read_and_large_reads_come_whole_and_in_order() {
    let mut desk = Desk::reading();
    let one = desk.read(3, 4);
    let large = desk.read(7, BLOCKS_PER_FRAME_MAX + 9);
    let across = desk.read(CHUNK_BYTES / 4096 - 2, 4);
    desk.settle();
    assert!(desk.is_right(one, 3, 4) && desk.is_right(large, 7, u64::from(BLOCKS_PER_FRAME_MAX) + 9));
    assert!(desk.is_right(across, CHUNK_BYTES / 4096 - 2, 4));
    assert_eq!((desk.reads_of(0), desk.reads_of(1), desk.reads_of(2)), (5, 0, 0));
    let served = Notice::Serving { reconciled_blocks: 0 };
    assert_eq!(desk.notices.iter().filter(|notice| **notice == served).count(), 1);
}

#[test]
fn writes_are_refused_and_a_flush_is_nothing() {
    let mut desk = Desk::reading();
    let start = BlockIndex(0);
    let write = desk.ask(GuestOp::Write { start, data: vec![0; 4096].into() });
    let discard = desk.ask(GuestOp::Discard { start, count: BlockCount(1) });
    let flush = desk.ask(GuestOp::Flush);
    let beyond = desk.read(2 * CHUNK_BYTES / 4096, 1);
    assert_eq!([&desk.completed[&write], &desk.completed[&discard]], [&Err(GuestError::ReadOnly); 2]);
    assert_eq!(desk.completed[&flush], Ok(Bytes::new()));
    assert_eq!(desk.completed[&beyond], Err(GuestError::OutOfRange));
    desk.event(Event::Snapshot { id: SnapshotId::from_u128(1), held: false });
    desk.event(Event::Unanswered { proposal: ProposalId(1) });
}

#[test]
fn a_bad_or_spoiled_block_is_read_elsewhere_and_bad_on_all_it_is_an_error() {
    let mut desk = Desk::reading();
    desk.disks[0].bad.insert(5);
    desk.disks[1].spoiled.insert(5);
    let read = desk.read(0, 16);
    desk.settle();
    assert!(desk.is_right(read, 0, 16));
    desk.disks[2].bad.insert(9);
    desk.disks[1].bad.insert(9);
    let scattered = desk.read(0, 16);
    desk.settle();
    assert!(desk.is_right(scattered, 0, 16), "no replica has all of it, and each block is good somewhere");
    desk.disks[2].bad.insert(5);
    let (lost, good) = (desk.read(0, 16), desk.read(6, 2));
    desk.settle();
    assert_eq!(desk.completed[&lost], Err(GuestError::Lost));
    assert!(desk.is_right(good, 6, 2));
}

#[test]
fn a_lost_link_and_a_silent_replica_move_their_reads_to_the_next() {
    let mut desk = Desk::reading();
    desk.disks[0].mute = true;
    desk.disks[1].mute = true;
    let read = desk.read(0, 1);
    desk.settle();
    desk.fall(0);
    desk.settle();
    assert!(desk.completed.is_empty(), "the second is silent");
    desk.pass(Duration::from_millis(600));
    assert!(desk.is_right(read, 0, 1));
    desk.disks[0].down = false;
    desk.disks[0].mute = false;
    desk.pass(Duration::from_secs(3));
    let before = desk.reads_of(0);
    let near = desk.read(1, 1);
    desk.settle();
    assert!(desk.is_right(near, 1, 1) && desk.reads_of(0) == before + 1, "the nearest again");
}

#[test]
fn with_nobody_there_reads_wait_without_an_error_and_go_on_when_one_comes_back() {
    let mut desk = Desk::reading();
    (0..3).for_each(|at| desk.fall(at));
    let reads: Vec<Tag> = (0..300).map(|start| desk.read(start, 1)).collect();
    desk.pass(Duration::from_secs(120));
    assert!(desk.completed.is_empty() && desk.ended.is_none());
    desk.disks[2].down = false;
    desk.pass(Duration::from_secs(3));
    assert!(reads.iter().enumerate().all(|(start, &tag)| desk.is_right(tag, start as u64, 1)));
}

#[test]
fn replicas_that_are_out_incomplete_or_of_the_past_are_never_read() {
    let mut desk = Desk::new(closed(&[OUT(3), IN, IN, IN]));
    desk.disks[1].syncing = true;
    desk.disks[2].agreed = Some(4);
    desk.disks[3].down = true;
    let read = desk.read(0, 1);
    desk.pass(Duration::from_secs(10));
    assert!(!desk.reader.status().serving && desk.completed.is_empty());
    assert!(desk.reader.status().blocked.is_some_and(|reason| reason.contains("back in time")));
    assert!(desk.disks[0].asked.is_empty(), "nobody even connects to it");
    desk.disks[3].down = false;
    desk.pass(Duration::from_secs(3));
    assert!(desk.is_right(read, 0, 1));
    assert_eq!((desk.reads_of(1), desk.reads_of(2), desk.reads_of(3)), (0, 0, 1));
}

#[test]
fn the_first_word_of_a_higher_epoch_is_the_end() {
    let mut desk = Desk::reading();
    desk.disks[0].mute = true;
    let unanswered = desk.read(0, 1);
    desk.settle();
    // The chunkserver ends the session when the next writer says its first word.
    desk.disks[0].promised = 6;
    desk.fall(0);
    (desk.disks[0].down, desk.disks[0].mute) = (false, false);
    desk.disks[1].mute = true;
    desk.pass(Duration::from_millis(100));
    assert_eq!(desk.ended, Some(Ending::Fenced));
    assert_eq!(desk.completed[&unanswered], Err(GuestError::Fenced));
    let later = desk.read(0, 1);
    assert_eq!(desk.completed[&later], Err(GuestError::Fenced));
    assert!(desk.disks.iter().all(|disk| disk.session.is_none()));
    assert_eq!(desk.reader.next_deadline(), Instant::FAR);
    let mut told = Desk::reading();
    let record = VolumeRecord { epoch: Epoch::new(6).unwrap(), version: 11, ..closed(&[IN; 3]) };
    told.event(Event::Record(record));
    assert_eq!(told.ended, Some(Ending::Fenced));
}

#[test]
fn a_disk_that_is_declared_lost_is_read_no_more_and_its_successor_not_yet() {
    let mut desk = Desk::reading();
    desk.disks.push(Disk { promised: 5, ..Disk::default() });
    let mut next = VolumeRecord { version: 11, ..closed(&[OUT(0), IN, IN, OUT(0)]) };
    next.chunks[0].members = vec![3, 1, 2];
    desk.event(Event::Record(VolumeRecord { version: 9, ..next.clone() }));
    assert!(desk.reader.status().members[0].connected, "an old record");
    desk.event(Event::Record(next));
    assert!(!desk.reader.status().members[0].connected && desk.reader.status().record_version == 11);
    let read = desk.read(0, 1);
    desk.settle();
    desk.pass(Duration::from_secs(2));
    assert!(desk.is_right(read, 0, 1));
    assert_eq!((desk.reads_of(0), desk.reads_of(1), desk.disks[3].asked.len()), (0, 1, 0));
}

#[test]
fn a_detach_ends_at_once_whatever_is_unanswered() {
    let mut desk = Desk::reading();
    (0..3).for_each(|at| desk.fall(at));
    let read = desk.read(0, 1);
    desk.event(Event::Detach);
    assert_eq!((desk.ended.clone(), &desk.completed[&read]), (Some(Ending::Clean), &Err(GuestError::Closed)));
    let later = desk.read(0, 1);
    assert_eq!(desk.completed[&later], Err(GuestError::Closed));
}

#[test]
fn what_is_asked_at_once_stays_within_the_window() {
    let mut desk = Desk::reading();
    desk.disks.iter_mut().for_each(|disk| disk.mute = true);
    let window = desk.reader.config.reads_inflight_max;
    let reads: Vec<Tag> = (0..3 * window as u64).map(|start| desk.read(start, 1)).collect();
    assert_eq!(desk.requests.len(), window);
    desk.disks.iter_mut().for_each(|disk| disk.mute = false);
    desk.settle();
    assert!(reads.iter().enumerate().all(|(start, &tag)| desk.is_right(tag, start as u64, 1)));
}
