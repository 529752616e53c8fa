//! Every message survives its bytes; no bytes bring the decoder down.

use super::*;
use crate::message::{
    BlockData, ChangedSlots, ChunkReport, Held, Open, Opened, Refusal, Reply, Request, SlotBlocks, SlotContent,
    SlotDigest, Status,
};
use ashlar_types::{
    BlockCount, BlockIndex, ByteCount, ChunkIndex, ChunkRange, ClusterId, DiskId, Epoch, FloorRange, Kept, Lsn,
    RequestId, SessionId, SlotIndex, SlotSet, VolumeId,
};
use proptest::prelude::*;

fn range() -> impl Strategy<Value = ChunkRange> {
    (0u32..1 << 20, 0u64..16_128, 1u32..=256).prop_map(|(chunk, start, count)| ChunkRange {
        chunk: ChunkIndex(chunk),
        start: BlockIndex(start),
        count: BlockCount(count),
    })
}

fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn::from_raw)
}

fn chunk() -> impl Strategy<Value = ChunkIndex> {
    (0u32..1 << 20).prop_map(ChunkIndex)
}

fn slot() -> impl Strategy<Value = SlotIndex> {
    (0u16..1024).prop_map(SlotIndex)
}

fn slots() -> impl Strategy<Value = SlotSet> {
    proptest::collection::vec(slot(), 0..20).prop_map(|slots| slots.into_iter().collect())
}

fn blocks(count: u32, fill: u8) -> BlockData {
    BlockData::seal(Bytes::from(vec![fill; count as usize * 4096]))
}

fn content() -> impl Strategy<Value = SlotContent> {
    (lsn(), any::<u16>(), any::<u16>(), any::<u8>()).prop_map(|(stamp, set, valid, fill)| SlotContent {
        stamp,
        set,
        valid: valid & set,
        blocks: blocks((valid & set).count_ones(), fill),
    })
}

fn floors() -> impl Strategy<Value = FloorRange> {
    (any::<u64>(), any::<u64>()).prop_filter_map("an empty range", |(one, other)| {
        let floors = FloorRange { from: Lsn::from_raw(one.min(other)), below: Lsn::from_raw(one.max(other)) };
        floors.is_valid().then_some(floors)
    })
}

fn kept() -> impl Strategy<Value = Kept> {
    (proptest::collection::btree_set(1u64..1 << 40, 0..20), 0u64..1 << 20).prop_map(|(live, more)| {
        let until = live.last().copied().unwrap_or(0) + more;
        Kept { live: live.into_iter().map(Lsn::from_raw).collect(), until: Lsn::from_raw(until) }
    })
}

fn open() -> impl Strategy<Value = Open> {
    (any::<u128>(), any::<u128>(), any::<u128>(), 1u64..1 << 30).prop_map(|(cluster, disk, volume, size)| Open {
        cluster: ClusterId::from_u128(cluster),
        disk: DiskId::from_u128(disk),
        volume: VolumeId::from_u128(volume),
        size: ByteCount(size * 4096),
        served: Lsn::from_raw(size << 20).epoch(),
    })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        open().prop_map(Request::Open),
        open().prop_map(Request::Observe),
        chunk().prop_map(|from| Request::Report { from }),
        (range(), lsn(), lsn(), any::<u8>()).prop_map(|(range, lsn, floor, fill)| Request::Write {
            range,
            lsn,
            floor,
            blocks: blocks(range.count.0, fill)
        }),
        (range(), lsn(), lsn()).prop_map(|(range, lsn, floor)| Request::Discard { range, lsn, floor }),
        (range(), lsn()).prop_map(|(range, below)| Request::Read { range, below }),
        (range(), lsn(), any::<u8>()).prop_map(|(range, below, fill)| Request::Repair {
            range,
            below,
            blocks: blocks(range.count.0, fill)
        }),
        (chunk(), chunk(), lsn(), floors()).prop_map(|(from, until, after, floors)| Request::ListChanged {
            from,
            until,
            after,
            floors
        }),
        (chunk(), lsn(), floors(), slots()).prop_map(|(chunk, after, floors, slots)| Request::MarkStale {
            chunk,
            after,
            floors,
            into: floors.from,
            slots
        }),
        (chunk(), floors()).prop_map(|(from, floors)| Request::ListStale { from, floors }),
        (chunk(), slot(), floors()).prop_map(|(chunk, slot, floors)| Request::ReadSlot { chunk, slot, floors }),
        (chunk(), slot(), floors(), content()).prop_map(|(chunk, slot, floors, content)| Request::Fill {
            chunk,
            slot,
            floors,
            into: Lsn::from_raw(floors.below.raw() - 1),
            content
        }),
        (chunk(), lsn()).prop_map(|(chunk, prefix)| Request::CompleteChunk { chunk, prefix }),
        chunk().prop_map(|chunk| Request::VoidStale { chunk }),
        lsn().prop_map(|after| Request::BeginSync { after }),
        (chunk(), lsn()).prop_map(|(chunk, prefix)| Request::AdoptPrefix { chunk, prefix }),
        Just(Request::FinishSync),
        any::<u64>().prop_map(|size| Request::Grow { size: ByteCount(size) }),
        kept().prop_map(Request::Keep),
        Just(Request::Usage),
        (chunk(), floors()).prop_map(|(chunk, floors)| Request::ListBlocks { chunk, floors }),
        (chunk(), lsn()).prop_map(|(chunk, below)| Request::Digest { chunk, below }),
        Just(Request::Ping),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let report =
        (chunk(), lsn(), any::<bool>()).prop_map(|(chunk, prefix, complete)| ChunkReport { chunk, prefix, complete });
    let changed = (chunk(), lsn(), slots()).prop_map(|(chunk, prefix, slots)| ChangedSlots { chunk, prefix, slots });
    prop_oneof![
        ((lsn(), lsn(), lsn()), any::<bool>(), any::<u64>()).prop_map(|((commit, floor, last), syncing, session)| {
            let (agreed, session_before) = (commit.epoch(), SessionId(session));
            Reply::Opened(Opened { commit, floor, syncing, last, agreed, session_before })
        }),
        (proptest::collection::vec(report, 0..40), proptest::option::of(chunk()))
            .prop_map(|(entries, next)| Reply::Reported { entries, next }),
        (0u32..4, any::<u8>()).prop_map(|(count, fill)| Reply::Data(blocks(count, fill))),
        (proptest::collection::vec(changed, 0..20), proptest::option::of(chunk()))
            .prop_map(|(entries, next)| Reply::Changed { entries, next }),
        content().prop_map(Reply::Slot),
        proptest::collection::btree_map(any::<u64>(), any::<u64>(), 0..9).prop_map(|held| {
            let held = held.into_iter().map(|(floor, slots)| Held { floor: Lsn::from_raw(floor), slots });
            Reply::Held(held.collect())
        }),
        proptest::collection::vec((slot(), any::<u16>(), any::<u16>()), 0..9).prop_map(|blocks| {
            let blocks = blocks.into_iter().map(|(slot, set, valid)| SlotBlocks { slot, set, valid: set & valid });
            Reply::Blocks(blocks.collect())
        }),
        (proptest::collection::btree_map(0u16..1024, any::<u32>(), 0..20), slots()).prop_map(|(digests, unknown)| {
            let digests = digests.into_iter();
            let entries = digests.map(|(slot, digest)| SlotDigest { slot: SlotIndex(slot), digest: Crc32(digest) });
            Reply::Digests { entries: entries.collect(), unknown }
        }),
        Just(Reply::Done),
        (proptest::sample::select(Status::ALL), 0u64..16_384, "[a-zé]{0,200}").prop_map(
            |(status, block, mut reason)| {
                reason.truncate(
                    reason
                        .char_indices()
                        .map(|(at, c)| at + c.len_utf8())
                        .take_while(|&end| end <= 256)
                        .last()
                        .unwrap_or(0),
                );
                Reply::Refused(Refusal { status, block: BlockIndex(block), reason })
            }
        ),
    ]
}

fn frame<M>(message: M) -> Frame<M> {
    Frame {
        session: SessionId(0x1122_3344_5566_7788),
        request: RequestId(9),
        epoch: Epoch::new(7).unwrap(),
        commit: Lsn::from_raw(77),
        message,
    }
}

fn parts(encoded: &EncodedFrame) -> (FrameHeader, &[u8], Bytes) {
    let header = FrameHeader::decode(encoded.head[..HEADER_BYTES].try_into().unwrap()).unwrap();
    (header, &encoded.head[HEADER_BYTES..], encoded.data.clone())
}

proptest! {
    #[test]
    fn a_request_survives_its_bytes(message in request()) {
        let encoded = encode_request(&frame(message.clone()));
        let (header, body, data) = parts(&encoded);
        prop_assert_eq!(decode_request(&header, body, data), Ok(frame(message)));
    }

    #[test]
    fn a_reply_survives_its_bytes(message in reply()) {
        let encoded = encode_reply(&frame(message.clone()));
        let (header, body, data) = parts(&encoded);
        prop_assert_eq!(decode_reply(&header, body, data), Ok(frame(message)));
    }

    #[test]
    fn a_cut_body_is_an_error(message in request(), keep in 0.0f64..1.0) {
        let encoded = encode_request(&frame(message));
        let (mut header, body, data) = parts(&encoded);
        let cut = (body.len() as f64 * keep) as usize;
        if cut < body.len() {
            header.body_bytes = cut as u32;
            header.body_crc = Crc32::of(&body[..cut]);
            prop_assert!(decode_request(&header, &body[..cut], data).is_err());
        }
    }

    #[test]
    fn no_body_brings_the_decoder_down(
        body in proptest::collection::vec(any::<u8>(), 0..400),
        blocks in 0usize..3,
        opcode in proptest::sample::select(Opcode::ALL),
    ) {
        let data = Bytes::from(vec![0; blocks * 4096]);
        let header = FrameHeader {
            opcode,
            body_bytes: body.len() as u32,
            data_bytes: data.len() as u32,
            session: SessionId(1),
            request: RequestId(1),
            epoch: Epoch::NONE,
            commit: Lsn::ZERO,
            body_crc: Crc32::of(&body),
        };
        let _ = decode_request(&header, &body, data.clone());
        let _ = decode_reply(&header, &body, data);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed(bit in 0usize..512) {
        let ping = encode_request(&frame(Request::Ping));
        let mut head: [u8; HEADER_BYTES] = ping.head[..HEADER_BYTES].try_into().unwrap();
        head[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(FrameHeader::decode(&head).is_err());
    }

    #[test]
    fn no_header_brings_the_decoder_down(bytes in any::<[u8; 32]>(), more in any::<[u8; 32]>()) {
        let mut head = [0; HEADER_BYTES];
        head[..32].copy_from_slice(&bytes);
        head[32..].copy_from_slice(&more);
        prop_assert!(FrameHeader::decode(&head).is_err());
    }
}

#[test]
fn a_flipped_bit_of_the_body_is_noticed() {
    let encoded = encode_request(&frame(Request::BeginSync { after: Lsn::from_raw(5) }));
    let (header, body, data) = parts(&encoded);
    let mut body = body.to_vec();
    body[3] ^= 4;
    assert_eq!(decode_request(&header, &body, data), Err(WireError::BodyChecksum));
}

#[test]
fn data_that_no_message_asked_for_is_an_error() {
    let encoded = encode_request(&frame(Request::Ping));
    let (mut header, body, _) = parts(&encoded);
    header.data_bytes = 4096;
    let answer = decode_request(&header, body, Bytes::from(vec![0; 4096]));
    assert_eq!(answer, Err(WireError::TrailingBytes(4096)));
}

#[test]
fn a_next_page_that_is_none_has_no_number() {
    let encoded = encode_reply(&frame(Reply::Changed { entries: vec![], next: None }));
    let (mut header, body, data) = parts(&encoded);
    let mut body = body.to_vec();
    body[1] = 3;
    header.body_crc = Crc32::of(&body);
    assert_eq!(decode_reply(&header, &body, data), Err(WireError::Field("next chunk")));
}

#[test]
fn a_reply_is_not_taken_for_a_request() {
    let encoded = encode_reply(&frame(Reply::Done));
    let (header, body, data) = parts(&encoded);
    assert_eq!(decode_request(&header, body, data), Err(WireError::Opcode(Opcode::Done as u8)));
}

#[test]
fn oversized_lengths_are_refused_before_anything_is_allocated() {
    let reseal = |at: usize, value: u32| {
        let mut head: [u8; HEADER_BYTES] =
            encode_request(&frame(Request::Ping)).head[..HEADER_BYTES].try_into().unwrap();
        head[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let crc = Crc32::of(&head[..60]);
        head[60..].copy_from_slice(&crc.0.to_le_bytes());
        FrameHeader::decode(&head)
    };
    assert_eq!(reseal(8, u32::MAX), Err(WireError::BodyTooLong(u32::MAX)));
    assert_eq!(reseal(12, 2 << 20), Err(WireError::DataLength(2 << 20)));
    assert_eq!(reseal(12, 4097), Err(WireError::DataLength(4097)));
    assert_eq!(reseal(36, 1), Err(WireError::Reserved));
}
