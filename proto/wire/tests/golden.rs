//! The bytes of protocol version 2, one fixture a message. A change here breaks every running peer: it needs a new
//! version instead. `ASHLAR_BLESS=1 cargo test -p ashlar-wire --test golden` writes the fixture of a message that has
//! none yet.

use ashlar_types::{
    BlockCount, BlockIndex, ByteCount, ChunkIndex, ChunkRange, ClusterId, Crc32, DiskId, Epoch, FloorRange, Kept, Lsn,
    RequestId, SessionId, SlotIndex, SlotSet, VolumeId,
};
use ashlar_wire::{
    BadBlocks, BlockData, ChangedSlots, ChunkReport, EncodedFrame, Frame, FrameHeader, Held, Open, Opened, Refusal,
    Reply, Request, SlotBlocks, SlotContent, SlotDigest, Status, decode_reply, decode_request, encode_reply,
    encode_request,
};
use bytes::Bytes;
use std::{env, fs, path::PathBuf};

fn frame<M>(message: M) -> Frame<M> {
    Frame {
        session: SessionId(0x0102_0304_0506_0708),
        request: RequestId(0x1112),
        epoch: Epoch::new(5).unwrap(),
        commit: Lsn::from_raw(0x0000_0500_0000_0009),
        message,
    }
}

fn blocks(count: usize) -> BlockData {
    BlockData::seal((0..count * 4096).map(|i| (i / 4096 * 7 + i % 251) as u8).collect())
}

fn requests() -> Vec<(&'static str, Request)> {
    let range = ChunkRange { chunk: ChunkIndex(3), start: BlockIndex(17), count: BlockCount(2) };
    let (lsn, floor, chunk, slot) = (Lsn::from_raw(0x0000_0500_0000_000a), Lsn::ZERO, ChunkIndex(3), SlotIndex(1));
    let slots: SlotSet = [0, 65, 1023].map(SlotIndex).into_iter().collect();
    let (floors, into) = (FloorRange { from: Lsn::from_raw(7), below: lsn }, Lsn::from_raw(9));
    let content = SlotContent { stamp: lsn, set: 0b1101, valid: 0b1001, blocks: blocks(2) };
    let open = Open {
        cluster: ClusterId::from_u128(0xc1),
        disk: DiskId::from_u128(0xd1),
        volume: VolumeId::from_u128(0xe1),
        size: ByteCount(1 << 30),
        served: lsn.epoch(),
    };
    vec![
        ("open", Request::Open(open)),
        ("observe", Request::Observe(open)),
        ("report", Request::Report { from: chunk }),
        ("write", Request::Write { range, lsn, floor, blocks: blocks(2) }),
        ("discard", Request::Discard { range, lsn, floor }),
        ("read", Request::Read { range, below: Lsn::MAX }),
        ("repair", Request::Repair { range, below: lsn, blocks: blocks(2) }),
        ("list_changed", Request::ListChanged { from: ChunkIndex(0), until: ChunkIndex(16), after: lsn, floors }),
        ("mark_stale", Request::MarkStale { chunk, after: lsn, floors, into, slots }),
        ("list_stale", Request::ListStale { from: chunk, floors }),
        ("read_slot", Request::ReadSlot { chunk, slot, floors }),
        ("fill", Request::Fill { chunk, slot, floors, into, content }),
        ("complete_chunk", Request::CompleteChunk { chunk, prefix: lsn }),
        ("void_stale", Request::VoidStale { chunk }),
        ("begin_sync", Request::BeginSync { after: lsn }),
        ("adopt_prefix", Request::AdoptPrefix { chunk, prefix: lsn }),
        ("finish_sync", Request::FinishSync),
        ("grow", Request::Grow { size: ByteCount(3 << 30) }),
        ("keep", Request::Keep(Kept { live: vec![Lsn::from_raw(7), lsn], until: lsn.next() })),
        ("usage", Request::Usage),
        ("list_blocks", Request::ListBlocks { chunk, floors }),
        ("list_bad", Request::ListBad { from: chunk, slot }),
        ("digest", Request::Digest { chunk, below: lsn }),
        ("ping", Request::Ping),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    let (chunk, prefix) = (ChunkIndex(3), Lsn::from_raw(0x0000_0500_0000_000a));
    let slots: SlotSet = [2, 700].map(SlotIndex).into_iter().collect();
    let refusal =
        Refusal { status: Status::BadBlock, block: BlockIndex(17), reason: "checksum of block 17".to_owned() };
    vec![
        (
            "opened",
            Reply::Opened(Opened {
                commit: prefix,
                floor: Lsn::ZERO,
                syncing: true,
                last: prefix.next(),
                agreed: prefix.epoch(),
                session_before: SessionId(0x0102_0304_0506_0708),
            }),
        ),
        (
            "reported",
            Reply::Reported {
                entries: vec![ChunkReport { chunk, prefix, complete: false }],
                next: Some(ChunkIndex(9)),
            },
        ),
        ("data", Reply::Data(blocks(2))),
        ("changed", Reply::Changed { entries: vec![ChangedSlots { chunk, prefix, slots }], next: None }),
        ("slot", Reply::Slot(SlotContent { stamp: prefix, set: 0b111, valid: 0b11, blocks: blocks(2) })),
        ("held", Reply::Held(vec![Held { floor: Lsn::ZERO, slots: 12 }, Held { floor: prefix, slots: 3 }])),
        ("blocks", Reply::Blocks(vec![SlotBlocks { slot: SlotIndex(7), set: 0b1011, valid: 0b1001 }])),
        (
            "bad",
            Reply::Bad { entries: vec![BadBlocks { chunk, slot: SlotIndex(7), below: prefix, blocks: 5 }], more: true },
        ),
        (
            "digests",
            Reply::Digests { entries: vec![SlotDigest { slot: SlotIndex(7), digest: Crc32(9) }], unknown: slots },
        ),
        ("done", Reply::Done),
        ("refused", Reply::Refused(refusal)),
    ]
}

fn hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(32).map(|bytes| line(bytes) + "\n").collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Header and body as the fixture has them; the data is the same for every run and is left out.
fn fixture(name: &str, encoded: &EncodedFrame) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v2_{name}.hex"));
    if !path.exists() && env::var_os("ASHLAR_BLESS").is_some() {
        fs::write(&path, hex(&encoded.head)).unwrap();
    }
    unhex(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn header_of(bytes: &[u8]) -> FrameHeader {
    FrameHeader::decode(bytes[..64].try_into().unwrap()).unwrap()
}

#[test]
fn requests_have_the_bytes_of_version_2() {
    for (name, request) in requests() {
        let encoded = encode_request(&frame(request.clone()));
        let bytes = fixture(name, &encoded);
        assert_eq!(hex(&encoded.head), hex(&bytes), "{name}");
        let data: Bytes = encoded.data.clone();
        assert_eq!(decode_request(&header_of(&bytes), &bytes[64..], data).unwrap(), frame(request), "{name}");
    }
}

#[test]
fn replies_have_the_bytes_of_version_2() {
    for (name, reply) in replies() {
        let encoded = encode_reply(&frame(reply.clone()));
        let bytes = fixture(name, &encoded);
        assert_eq!(hex(&encoded.head), hex(&bytes), "{name}");
        assert_eq!(decode_reply(&header_of(&bytes), &bytes[64..], encoded.data).unwrap(), frame(reply), "{name}");
    }
}

#[test]
fn every_opcode_has_a_fixture() {
    let covered = requests().len() + replies().len();
    assert_eq!(covered, ashlar_wire::Opcode::ALL.len());
}
