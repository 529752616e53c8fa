//! Sequences of events into the replication core of a volume: a guest's requests, links that come and go, answers that
//! fit and answers that no honest replica gives, records and answers of the catalog, time.

use crate::attachment::{Attachment, CHUNKS, Link, MEMBERS, MEMBERS_MAX, disk, member, record};
use crate::draw::Draw;
use ashlar_types::{
    BLOCK_BYTES, BLOCKS_PER_CHUNK, BLOCKS_PER_SLOT, BlockCount, BlockIndex, CHUNK_BYTES, Change, ChangeAnswer,
    ChunkIndex, DiskId, Duration, Epoch, Instant, Lsn, MemberState, RequestId, SessionId, Snapshot, SnapshotId,
    VolumeRecord,
};
use ashlar_volume::{Config, Event, GuestOp, ProposalId};
use ashlar_wire::{BlockData, ChangedSlots, ChunkReport, Frame, Reply, ReplyFrame, Request, RequestFrame, SlotContent};
use bytes::Bytes;

const EVENTS_MAX: usize = 600;

pub(crate) fn run(input: &[u8]) {
    let mut draw = Draw::new(input);
    let states = std::array::from_fn(|_| if draw.once_in(4) { state(&mut draw) } else { MemberState::InSync });
    let mut config = Config::new("node-0".parse().expect("a name"), None);
    config.compare_period = Some(Duration::from_secs(60));
    config.io_timeout = draw.once_in(4).then(|| Duration::from_secs(3));
    let start = record(states, draw.byte() % 3 + 1, draw.once_in(2));
    let mut volume = Attachment::start(config, start);
    for _ in 0..EVENTS_MAX {
        if draw.is_empty() {
            break;
        }
        step(&mut draw, &mut volume);
    }
}

fn step(draw: &mut Draw, volume: &mut Attachment) {
    match draw.byte() % 16 {
        0..=2 => volume.guest(guest_op(draw)),
        3 => volume.connect(draw.below(MEMBERS_MAX)),
        4 => (0..MEMBERS_MAX).for_each(|index| volume.connect(index)),
        5 if draw.once_in(4) => volume.cut(draw.below(MEMBERS_MAX), draw.once_in(2)),
        6 | 7 => answer_one(draw, volume),
        8 => answer_all(draw, volume),
        9 => stray_reply(draw, volume),
        10 => pass_time(draw, volume),
        11 | 12 => answer_proposal(draw, volume),
        13 => stray_answer(draw, volume),
        14 => {
            let record = drawn_record(draw, volume);
            volume.event(Event::Record(record));
        }
        15 if draw.once_in(8) => volume.event(Event::Detach),
        15 if draw.once_in(2) => volume.snapshot(snapshot_id(draw), draw.once_in(4)),
        15 if draw.once_in(4) => volume.hold(snapshot_id(draw), Duration::from_millis(u64::from(draw.byte()) * 10)),
        15 if draw.once_in(2) => volume.event(steer(draw)),
        _ => stray_link(draw, volume),
    }
}

/// A word of the control plane: who shall go, and how fast copies are.
fn steer(draw: &mut Draw) -> Event {
    match draw.byte() % 4 {
        0 => Event::Pace { bytes_per_second: None, source: None },
        1 => Event::Pace {
            bytes_per_second: Some(if draw.once_in(2) { 0 } else { draw.wide() }),
            source: draw.once_in(2).then(|| disk(draw.below(MEMBERS_MAX))),
        },
        _ => Event::LetGo { disk: disk(draw.below(MEMBERS_MAX)) },
    }
}

fn snapshot_id(draw: &mut Draw) -> SnapshotId {
    SnapshotId::from_u128(u128::from(draw.byte() % 8))
}

fn state(draw: &mut Draw) -> MemberState {
    match draw.byte() % 3 {
        0 => MemberState::InSync,
        1 => MemberState::Syncing { commit: draw.lsn() },
        _ => MemberState::Out { commit: draw.lsn() },
    }
}

fn guest_op(draw: &mut Draw) -> GuestOp {
    let end = u64::from(CHUNKS) * u64::from(BLOCKS_PER_CHUNK);
    let start = match draw.byte() % 8 {
        0 => draw.wide(),
        1 => u64::from(BLOCKS_PER_CHUNK) * u64::from(draw.byte() % 4 + 1) - u64::from(draw.byte() % 2),
        2 => end - u64::from(draw.byte()),
        _ => u64::from(draw.byte()),
    };
    let start = BlockIndex(start);
    let count = if draw.once_in(16) { u32::from(draw.byte()) * 3 } else { u32::from(draw.byte() % 20) };
    match draw.byte() % 8 {
        0..=2 => GuestOp::Read { start, count: BlockCount(count), below: draw.view() },
        3..=5 => GuestOp::Write { start, data: vec![draw.byte(); count as usize * BLOCK_BYTES as usize].into() },
        6 => GuestOp::Discard { start, count: BlockCount(if draw.once_in(4) { draw.wide() as u32 } else { count }) },
        _ => GuestOp::Flush,
    }
}

/// One request that was sent is answered: as a sound replica may, or with anything.
fn answer_one(draw: &mut Draw, volume: &mut Attachment) {
    if volume.sent.is_empty() {
        return;
    }
    let at = draw.below(volume.sent.len().min(256));
    let honest = !draw.once_in(4);
    answer(draw, volume, at, honest);
}

fn answer_all(draw: &mut Draw, volume: &mut Attachment) {
    for _ in 0..volume.sent.len() {
        if !volume.sent.is_empty() {
            answer(draw, volume, 0, true);
        }
    }
}

fn answer(draw: &mut Draw, volume: &mut Attachment, at: usize, honest: bool) {
    let (index, frame) = volume.sent.remove(at);
    let message = match honest || draw.once_in(2) {
        true => fitting_reply(draw, &frame),
        false => draw.reply(),
    };
    let message = if honest { message } else { rotten(message) };
    let epoch = if honest { frame.epoch } else { draw.epoch() };
    let frame = ReplyFrame { session: frame.session, request: frame.request, epoch, commit: Lsn::ZERO, message };
    volume.event(Event::Reply { disk: disk(index), frame });
}

/// Of the right kind and shape; what it says may still be a lie.
fn fitting_reply(draw: &mut Draw, frame: &RequestFrame) -> Reply {
    let data = |count: u32| BlockData::seal(Bytes::from(vec![7; count as usize * BLOCK_BYTES as usize]));
    match &frame.message {
        Request::Open(_) | Request::Observe(_) => {
            let commit = if draw.once_in(4) { draw.lsn() } else { Lsn::ZERO };
            Reply::Opened(draw.opened(commit))
        }
        Request::Report { from } => {
            let report = |chunk| ChunkReport { chunk, prefix: draw.lsn(), complete: !draw.once_in(4) };
            let entries = (from.0..CHUNKS).map(ChunkIndex).map(report).collect();
            Reply::Reported { entries, next: None }
        }
        Request::Read { range, .. } => Reply::Data(data(range.count.0)),
        Request::ListChanged { from, until, .. } => {
            let changed = |chunk| ChangedSlots { chunk, prefix: draw.lsn(), slots: draw.slots() };
            let entries = (from.0..until.0.min(from.0 + CHUNKS)).map(ChunkIndex).map(changed).collect();
            Reply::Changed { entries, next: None }
        }
        Request::ListStale { .. } => {
            let chunks = if draw.once_in(2) { CHUNKS } else { 0 };
            let changed = |chunk| ChangedSlots { chunk, prefix: Lsn::ZERO, slots: draw.slots() };
            let entries = (0..chunks).map(ChunkIndex).map(changed).collect();
            Reply::Changed { entries, next: None }
        }
        Request::ListBad { .. } => Reply::Bad { entries: draw.bad_blocks(), more: draw.once_in(2) },
        Request::Digest { .. } => draw.digests(),
        Request::ReadSlot { .. } => Reply::Slot(SlotContent {
            stamp: draw.lsn(),
            set: u16::MAX,
            valid: u16::MAX,
            blocks: data(BLOCKS_PER_SLOT),
        }),
        _ => Reply::Done,
    }
}

/// With a first block whose checksum is another content's.
fn rotten(mut message: Reply) -> Reply {
    if let Reply::Data(blocks) | Reply::Slot(SlotContent { blocks, .. }) = &mut message
        && let Some(crc) = blocks.crcs.first_mut()
    {
        crc.0 ^= 1;
    }
    message
}

/// A frame that answers nothing, or something else.
fn stray_reply(draw: &mut Draw, volume: &mut Attachment) {
    let disk = if draw.once_in(8) { DiskId::from_u128(77) } else { disk(draw.below(MEMBERS_MAX)) };
    let session = SessionId(u64::from(draw.byte() % 16));
    let request = RequestId(u64::from(draw.byte()));
    let frame = Frame { session, request, epoch: draw.epoch(), commit: draw.lsn(), message: draw.reply() };
    // What a replica answers is answered.
    volume.sent.retain(|(_, sent)| sent.session != session || sent.request != request);
    volume.event(Event::Reply { disk, frame });
}

/// A link that ended long ago ends once more, or one that nobody asked for.
fn stray_link(draw: &mut Draw, volume: &mut Attachment) {
    let index = draw.below(MEMBERS_MAX);
    let session = SessionId(u64::from(draw.byte() % 16));
    if !matches!(volume.links[index], Link::Up(ours) if ours == session) {
        volume.event(Event::LinkDown { disk: disk(index), session: Some(session), reset: draw.once_in(2) });
    }
}

fn pass_time(draw: &mut Draw, volume: &mut Attachment) {
    if draw.once_in(2) {
        volume.now = volume.now + Duration::from_millis(u64::from(draw.byte()) * 10);
    } else if volume.volume.next_deadline() != Instant::FAR {
        volume.now = volume.now.max(volume.volume.next_deadline()) + Duration::from_nanos(1);
    }
    volume.event(Event::Tick);
    assert!(volume.volume.next_deadline() >= volume.now, "a deadline that has passed is dealt with");
}

/// As the catalog answers: applied, if it wants to.
fn answer_proposal(draw: &mut Draw, volume: &mut Attachment) {
    let Some((proposal, change)) = volume.proposals.pop() else { return };
    if draw.once_in(8) {
        return volume.event(Event::Unanswered { proposal });
    }
    let mut record = volume.record.clone();
    record.version = record.version.saturating_add(1);
    if draw.once_in(4) {
        let answer = ChangeAnswer::Refused { reason: "refused".to_owned(), record: volume.record.clone() };
        return volume.event(Event::Answer { proposal, answer });
    }
    apply(&mut record, &change);
    volume.record = record.clone();
    volume.event(Event::Answer { proposal, answer: ChangeAnswer::Applied { record } });
}

fn apply(record: &mut VolumeRecord, change: &Change) {
    for member in &mut record.members {
        member.state = match (change, member.state) {
            (Change::Eject { disks, commit, .. }, _) if disks.contains(&member.disk) => {
                MemberState::Out { commit: *commit }
            }
            (Change::BeginReturn { disk }, MemberState::Out { commit }) if *disk == member.disk => {
                MemberState::Syncing { commit }
            }
            (Change::Join { disk }, _) if *disk == member.disk => MemberState::InSync,
            (Change::AbandonReturn { disk }, MemberState::Syncing { commit }) if *disk == member.disk => {
                MemberState::Out { commit }
            }
            (_, state) => state,
        };
    }
    record.clean = match change {
        Change::CloseClean => true,
        Change::OpenDirty => false,
        _ => record.clean,
    };
    if let Change::Snapshot(snapshot) = change {
        record.snapshots.push(*snapshot);
    }
    record.last_change = Some(change.clone());
}

/// An answer of any kind to any proposal.
fn stray_answer(draw: &mut Draw, volume: &mut Attachment) {
    let proposal = match volume.proposals.last() {
        Some((proposal, _)) if draw.once_in(2) => *proposal,
        _ => ProposalId(u64::from(draw.byte() % 16)),
    };
    let record = drawn_record(draw, volume);
    let answer = match draw.byte() % 8 {
        0 => ChangeAnswer::Fenced { epoch: draw.epoch() },
        1..=4 => ChangeAnswer::Applied { record },
        _ => ChangeAnswer::Refused { reason: "refused".to_owned(), record },
    };
    volume.event(Event::Answer { proposal, answer });
}

/// The catalog's record with changes that the control API's conversion lets pass.
fn drawn_record(draw: &mut Draw, volume: &mut Attachment) -> VolumeRecord {
    let mut record = volume.record.clone();
    record.version = record.version.wrapping_add(u64::from(draw.byte() % 4)).wrapping_sub(1);
    for _ in 0..draw.byte() % 4 {
        change_record(draw, &mut record);
    }
    // The conversion refuses a table that names members that there are not.
    record.chunks.iter_mut().for_each(|run| run.members.retain(|&at| usize::from(at) < record.members.len()));
    if draw.once_in(2) {
        volume.record = record.clone();
    }
    record
}

fn change_record(draw: &mut Draw, record: &mut VolumeRecord) {
    let count = record.members.len();
    match draw.byte() % 15 {
        0 => record.clean ^= true,
        1 => record.min_replicas = draw.byte() % 5,
        2 => record.epoch = if draw.once_in(4) { draw.epoch() } else { Epoch::new(5).expect("small") },
        3 if count > 1 && draw.once_in(4) => record.members.swap(0, 1),
        4 if draw.once_in(4) => record.members.truncate(draw.below(MEMBERS)),
        5 => record.version = draw.wide(),
        6 => record.declared_lost.push(disk(draw.below(MEMBERS))),
        13 => drop(record.snapshots.pop()),
        14 => {
            let last = record.snapshots.last().map_or(Lsn::ZERO, |snapshot| snapshot.point);
            let (id, point) = (SnapshotId::from_u128(u128::from(draw.byte() % 16)), draw.lsn().max(last));
            if point > Lsn::ZERO {
                record.snapshots.push(Snapshot { id, point });
            }
        }
        7 if count < MEMBERS_MAX => record.members.push(member(count, state(draw))),
        8 if record.size.0 < 8 * CHUNK_BYTES => {
            record.size.0 += CHUNK_BYTES;
            record.chunks.last_mut().expect("a volume has chunks").count += 1;
        }
        9 => {
            let run = draw.below(record.chunks.len());
            let holds = draw.byte();
            record.chunks[run].members = (0..count as u16).filter(|&index| holds >> index & 1 != 0).collect();
        }
        _ => {
            let at = draw.below(MEMBERS_MAX);
            if let Some(member) = record.members.get_mut(at) {
                member.state = state(draw);
            }
        }
    }
}
