//! Small chunkservers that answer, refuse, lie or go away.

use super::*;
use crate::span::{Span, What};
use crate::walk::{Scope, Walk};
use ashlar_types::{
    BLOCKS_PER_CHUNK, BlockIndex, ByteCount, CHUNK_BYTES, ChunkRun, ClusterId, DiskId, Member, SessionId, SlotIndex,
    VolumeId,
};
use ashlar_wire::limits::HEADER_BYTES;
use ashlar_wire::{
    BlockData, Frame, FrameHeader, Opened, Refusal, Reply, Request, Status, decode_request, encode_reply,
};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

const EPOCH: u32 = 3;

/// A record of two chunks with so many in-sync members, served in epoch 3.
pub(crate) fn record(members: u16) -> VolumeRecord {
    let member = |index: u16| Member {
        disk: DiskId::from_u128(u128::from(index) + 1),
        node: format!("n{index}").parse().unwrap(),
        zone: None,
        state: MemberState::InSync,
    };
    let epoch = Epoch::new(EPOCH).unwrap();
    VolumeRecord {
        cluster: ClusterId::from_u128(1),
        volume: VolumeId::from_u128(2),
        size: ByteCount(2 * CHUNK_BYTES),
        epoch,
        version: 1,
        holder: None,
        served: epoch,
        clean: true,
        min_replicas: 1,
        members: (0..members).map(member).collect(),
        chunks: vec![ChunkRun { first: ChunkIndex(0), count: 2, members: (0..members).collect() }],
        declared_lost: vec![],
        snapshots: vec![],
        clones: Vec::new(),
        origin: None,
        last_change: None,
    }
}

/// How a chunkserver behaves.
#[derive(Clone, Copy)]
struct Manner {
    agreed: u32,
    syncing: bool,
    /// This block of each chunk cannot be read.
    bad: Option<u64>,
    /// Requests that it answers after the first; then it goes away.
    answers: usize,
    is_stale: bool,
}

const GOOD: Manner = Manner { agreed: EPOCH, syncing: false, bad: None, answers: usize::MAX, is_stale: false };

/// Serves one connection after another; each block is full of its number within the chunk.
fn serve(manner: Manner) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut answered = 0;
            while answered <= manner.answers && answer(&mut stream, manner).is_some() {
                answered += 1;
            }
        }
    });
    address
}

fn answer(stream: &mut TcpStream, manner: Manner) -> Option<()> {
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).ok()?;
    let header = FrameHeader::decode(&head).unwrap();
    let mut body = vec![0; header.body_bytes as usize];
    stream.read_exact(&mut body).ok()?;
    let frame = decode_request(&header, &body, Bytes::new()).unwrap();
    let refused = |status| Reply::Refused(Refusal { status, block: BlockIndex(0), reason: "so".into() });
    let message = match frame.message {
        Request::Observe(_) => {
            let (agreed, session_before) = (Epoch::new(manner.agreed).unwrap(), SessionId(0));
            let zero = Lsn::ZERO;
            Reply::Opened(Opened {
                commit: zero,
                floor: zero,
                syncing: manner.syncing,
                last: zero,
                agreed,
                session_before,
            })
        }
        Request::ListBlocks { .. } | Request::Read { .. } if manner.is_stale => refused(Status::Stale),
        Request::ListBlocks { chunk, .. } => {
            let slot = SlotIndex(if chunk.0 == 0 { 1023 } else { 0 });
            Reply::Blocks(vec![SlotBlocks { slot, set: 0xFFFF, valid: 0xFF00 }])
        }
        Request::Read { range, .. } => {
            let blocks = range.start.0..range.end().0;
            match manner.bad.is_some_and(|bad| blocks.contains(&bad)) {
                true => refused(Status::BadBlock),
                false => Reply::Data(BlockData::seal(blocks.flat_map(|block| vec![block as u8; 4096]).collect())),
            }
        }
        other => panic!("{other:?}"),
    };
    let encoded = encode_reply(&Frame { message, ..frame_of(&frame) });
    stream.write_all(&encoded.head).and_then(|()| stream.write_all(&encoded.data)).ok()
}

fn frame_of(frame: &Frame<Request>) -> Frame<Reply> {
    Frame {
        session: frame.session,
        request: frame.request,
        epoch: Epoch::NONE,
        commit: Lsn::ZERO,
        message: Reply::Done,
    }
}

fn replicas(manners: &[Manner]) -> Replicas {
    let addresses = manners.iter().map(|&manner| serve(manner)).collect();
    Replicas::new(record(manners.len() as u16), addresses)
}

fn range(start: u64, count: u32) -> ChunkRange {
    ChunkRange { chunk: ChunkIndex(1), start: BlockIndex(start), count: BlockCount(count) }
}

fn is_content(data: &[u8], range: ChunkRange) -> bool {
    let expected: Vec<u8> = (range.start.0..range.end().0).flat_map(|block| vec![block as u8; 4096]).collect();
    data == expected
}

#[test]
fn each_block_comes_from_a_replica_that_has_it() {
    let manners = [Manner { bad: Some(5), ..GOOD }, Manner { bad: Some(6), ..GOOD }];
    let read = replicas(&manners).read(range(0, 16), Lsn::MAX).unwrap();
    assert!(is_content(&read, range(0, 16)));
}

#[test]
fn a_block_that_nobody_can_read_is_named() {
    let manners = [Manner { bad: Some(5), ..GOOD }; 2];
    let error = replicas(&manners).read(range(0, 16), Lsn::MAX).unwrap_err();
    let block = u64::from(BLOCKS_PER_CHUNK) + 5;
    assert!(matches!(error, ChangesError::Unreadable { block: found, .. } if found.0 == block), "{error}");
    assert!(error.to_string().contains("on n1"), "{error}");
}

#[test]
fn incomplete_old_stale_and_absent_replicas_are_passed_over() {
    let wrong = [
        Manner { syncing: true, ..GOOD },
        Manner { agreed: EPOCH - 1, ..GOOD },
        Manner { is_stale: true, ..GOOD },
        Manner { answers: 0, ..GOOD },
    ];
    for manner in wrong {
        let read = replicas(&[manner, GOOD]).read(range(0, 16), Lsn::MAX).unwrap();
        assert!(is_content(&read, range(0, 16)));
        let error = replicas(&[manner, manner]).list_blocks(ChunkIndex(0), FloorRange::ALL).unwrap_err();
        assert!(matches!(error, ChangesError::NoReplica { .. }), "{error}");
    }
    let mut unknown = Replicas::new(record(2), vec![String::new(), serve(GOOD)]);
    assert!(unknown.list_blocks(ChunkIndex(0), FloorRange::ALL).is_ok());
}

#[test]
fn members_that_are_not_in_sync_are_not_asked() {
    let mut record = record(2);
    record.members[0].state = MemberState::Out { commit: Lsn::ZERO };
    let mut replicas = Replicas::new(record, vec![serve(GOOD), String::new()]);
    assert!(replicas.list_blocks(ChunkIndex(0), FloorRange::ALL).is_err());
}

#[test]
fn one_that_goes_away_is_followed_by_the_next_and_asked_again_at_last() {
    let mut replicas = replicas(&[Manner { answers: 2, ..GOOD }, Manner { answers: 1, ..GOOD }]);
    for _ in 0..6 {
        assert!(is_content(&replicas.read(range(32, 4), Lsn::MAX).unwrap(), range(32, 4)));
    }
}

fn walked(scope: Scope, from: u64) -> Vec<Span> {
    all_of(Walk::new(scope, BlockIndex(from)))
}

fn all_of(mut walk: Walk) -> Vec<Span> {
    let mut replicas = replicas(&[GOOD]);
    let mut spans = vec![];
    while let Some(span) = walk.next(&mut replicas).unwrap() {
        spans.push(span);
    }
    spans
}

/// The last slot of the first chunk and the first of the second: half zeros, half data.
#[test]
fn a_walk_joins_what_adjoins_and_keeps_within_its_bounds() {
    let (first, size) = (u64::from(BLOCKS_PER_CHUNK) - 16, ByteCount(2 * CHUNK_BYTES));
    let span = |start: u64, blocks: u64, what| Span { start: BlockIndex(first + start), blocks, what };
    let content = Scope { base: None, target: Lsn::MAX, size };
    assert_eq!(walked(content, 0), [span(8, 8, What::Data), span(24, 8, What::Data)]);
    let delta = Scope { base: Some(Lsn::from_raw(1)), ..content };
    let (zeros, data) = (What::Zeros, What::Data);
    let all = [span(0, 8, zeros), span(8, 8, data), span(16, 8, zeros), span(24, 8, data)];
    assert_eq!(walked(delta, 0), all);
    assert_eq!(all_of(Walk::of_ranges(delta, BlockIndex(0))), [span(0, 32, data)]);
    assert_eq!(walked(delta, first + 10), [span(10, 6, data), span(16, 8, zeros), span(24, 8, data)]);
    let shorter = Scope { size: ByteCount((first + 12) * 4096), ..delta };
    assert_eq!(walked(shorter, 0), [span(0, 8, zeros), span(8, 4, data)]);
    assert!(walked(Scope { target: Lsn::from_raw(1), ..delta }, 0).is_empty(), "two snapshots at one point");
}

#[test]
fn a_volume_that_no_writer_ever_served_is_empty_and_nobody_is_asked() {
    let mut replicas = Replicas::new(VolumeRecord { served: Epoch::NONE, ..record(1) }, vec![String::new()]);
    let scope = Scope { base: None, target: Lsn::MAX, size: ByteCount(CHUNK_BYTES) };
    assert_eq!(Walk::new(scope, BlockIndex(0)).next(&mut replicas).unwrap(), None);
}
