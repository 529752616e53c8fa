//! Inputs to begin with, made of real values: the golden frames of the wire, the disk of an engine at work, messages
//! that our own programs would send. The fuzzer makes everything else of them.

use crate::disk::SparseDisk;
use crate::site::{CLUSTER, DISK, Site, superblock};
use crate::targets::{engine_recover, journal_batch};
use ashlar_changes::stream::{Identity, Writer};
use ashlar_engine::{Event, LinkId};
use ashlar_rpc::convert::{answer_to_proto, proposal_to_proto, record_to_proto};
use ashlar_rpc::{control, csi};
use ashlar_types::{
    BLOCK_BYTES, BLOCKS_PER_SLOT, Base, BlockCount, BlockIndex, ByteCount, ByteOffset, CHUNK_BYTES, Change,
    ChangeAnswer, ChunkIndex, ChunkRange, Epoch, FloorRange, Instant, Kept, Lsn, MemberState, RequestId, SessionId,
    SlotIndex, Snapshot, SnapshotId, VolumeId,
};
use ashlar_wire::{BlockData, Frame, Open, Reply, Request, SlotContent, encode_reply, encode_request};
use prost::Message;
use std::fs;
use std::path::Path;

type Inputs = Vec<Vec<u8>>;

/// Inputs by the name of their target. Targets that take sequences of events begin with nothing.
pub fn all() -> Vec<(&'static str, Inputs)> {
    let disks = disks();
    vec![
        ("wire_message", golden_frames().iter().map(|frame| message_input(frame)).collect()),
        ("wire_stream", golden_frames().chunks(4).chain([&short_copies()[..]]).map(stream_input).collect()),
        ("superblock", vec![superblock_input()]),
        ("journal_batch", disks.iter().flat_map(batch_inputs).collect()),
        ("index_row", disks.iter().flat_map(row_inputs).collect()),
        ("engine_recover", disks.iter().map(|disk| engine_recover::input_of(disk).expect("a small disk")).collect()),
        ("nbd", nbd_inputs()),
        ("control_api", control_inputs()),
        ("names", names_inputs()),
        ("export_stream", stream_inputs()),
    ]
}

/// Header and body of every message, without data.
fn golden_frames() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/wire/tests/golden");
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("the wire's fixtures").map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| unhex(&fs::read_to_string(path).expect("a fixture"))).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("two digits");
    digits.chunks(2).map(byte).collect()
}

fn data_bytes(frame: &[u8]) -> usize {
    u32::from_le_bytes(frame[12..16].try_into().expect("4 bytes")) as usize
}

fn message_input(frame: &[u8]) -> Vec<u8> {
    let blocks = data_bytes(frame) / BLOCK_BYTES as usize;
    [&[frame[5], blocks as u8, 7, 5], &frame[64..]].concat()
}

/// A slot on its way, with one block: those of the fixtures have more than a stream has room for.
fn short_copies() -> [Vec<u8>; 2] {
    let blocks = BlockData::seal(vec![7; BLOCK_BYTES as usize].into());
    let content = SlotContent { stamp: at(3), set: 0b1100, valid: 0b1000, blocks };
    let (session, request, commit) = (SessionId(1), RequestId(1), Lsn::ZERO);
    let message = Request::Fill {
        chunk: ChunkIndex(0),
        slot: SlotIndex(0),
        floors: FloorRange::ALL,
        into: Lsn::ZERO,
        content: content.clone(),
    };
    let fill = encode_request(&Frame { session, request, epoch: epoch(), commit, message });
    let message = Reply::Slot(content);
    let slot = encode_reply(&Frame { session, request, epoch: epoch(), commit, message });
    [fill.head.to_vec(), slot.head.to_vec()]
}

/// Frames one after the other; data, where a frame has some and there is room for it.
fn stream_input(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut input = vec![1, 16];
    for frame in frames {
        if input.len() + frame.len() + data_bytes(frame) < 11 << 10 {
            input.extend(frame);
            input.resize(input.len() + data_bytes(frame), 7);
        }
    }
    input
}

fn superblock_input() -> Vec<u8> {
    let mut input = vec![3];
    input.extend(superblock().layout.total.0.to_le_bytes());
    for _ in 0..2 {
        let mut copy = superblock().encode()[..512].to_vec();
        copy[16..32].fill(0); // The target's cluster.
        input.extend(copy);
    }
    input
}

fn batch_inputs(disk: &SparseDisk) -> Inputs {
    let mut inputs = vec![];
    for page in disk.pages.values().filter(|page| page.starts_with(b"ASHLBTCH")) {
        let records = u32::from_le_bytes(page[52..56].try_into().expect("4 bytes")) as usize;
        inputs.push([&[2], &page[..64 + records]].concat());
        let first = usize::from(u16::from_le_bytes(page[66..68].try_into().expect("2 bytes")));
        inputs.push([&[0], &page[64..64 + first]].concat());
        if page[12..14] == [0, 0] {
            inputs.push([&[2], &long_header(&page[..64], &page[64..64 + first])[..]].concat());
        }
    }
    assert_eq!(journal_batch::DISK, DISK);
    inputs
}

/// A header of two pages: the same record, which has no payload, again and again.
fn long_header(head: &[u8], record: &[u8]) -> Vec<u8> {
    let count = BLOCK_BYTES as usize / record.len() + 1;
    let mut header = [head, &record.repeat(count)[..]].concat();
    header[10..12].copy_from_slice(&(count as u16).to_le_bytes());
    header[52..56].copy_from_slice(&((count * record.len()) as u32).to_le_bytes());
    header
}

fn row_inputs(disk: &SparseDisk) -> Inputs {
    let row = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        let body = &value[..value.len() - 4];
        [&[1, key.len() as u8], &key[..], body].concat()
    };
    disk.index.iter().map(row).collect()
}

/// What a peer asks of an engine, one after the other.
struct Peer {
    site: Site,
    requests: u64,
}

impl Peer {
    /// Of an empty disk's engine, with a volume of two chunks.
    fn new() -> Peer {
        let now = Instant::from_nanos(1_000_000_000);
        let mut site = Site::start(SparseDisk::default(), now).expect("an empty index");
        site.settle();
        let mut peer = Peer { site, requests: 0 };
        let (volume, size) = (VolumeId::from_u128(1), ByteCount(2 * CHUNK_BYTES));
        peer.ask(Request::Open(Open { cluster: CLUSTER, disk: DISK, volume, size, served: Epoch::NONE }));
        peer
    }

    fn ask(&mut self, message: Request) {
        self.requests += 1;
        let (session, request) = (SessionId(1), RequestId(self.requests));
        let frame = Frame { session, request, epoch: epoch(), commit: Lsn::ZERO, message };
        self.site.request(LinkId(1), frame);
        self.site.settle();
    }

    fn write(&mut self, start: u64, count: u32, lsn: u64) {
        self.write_under(Lsn::ZERO, start, count, lsn);
    }

    fn write_under(&mut self, floor: Lsn, start: u64, count: u32, lsn: u64) {
        let range = range(start, count);
        let blocks = BlockData::seal(vec![lsn as u8; count as usize * BLOCK_BYTES as usize].into());
        self.ask(Request::Write { range, lsn: at(lsn), floor, blocks });
    }

    /// Time passes until the checkpoint is done.
    fn rest(&mut self) {
        while !self.site.engine.is_idle() {
            self.site.now = self.site.now.max(self.site.engine.next_deadline());
            self.site.event(Event::Tick);
            self.site.settle();
        }
    }
}

fn epoch() -> Epoch {
    Epoch::new(3).expect("small")
}

fn at(counter: u64) -> Lsn {
    Lsn::from_raw(Lsn::start_of(epoch()).raw() + counter)
}

fn range(start: u64, count: u32) -> ChunkRange {
    ChunkRange { chunk: ChunkIndex(0), start: BlockIndex(start), count: BlockCount(count) }
}

/// The disk of an engine at work.
fn disks() -> Vec<SparseDisk> {
    [plain_disks(), snapshot_disks(), clone_disks()].concat()
}

/// A snapshot, overwritten, and given up: its versions are made one.
fn snapshot_disks() -> Vec<SparseDisk> {
    let mut peer = Peer::new();
    peer.write(3, 20, 1);
    peer.write_under(at(2), 4, 1, 3);
    peer.write_under(at(4), 5, 1, 5);
    let mut disks = vec![peer.site.disk.clone()];
    peer.ask(Request::Keep(Kept { live: vec![at(4)], until: at(6) }));
    peer.rest();
    disks.push(peer.site.disk);
    disks
}

/// A clone that is made, half flat and flat; its source deleted while it is read.
fn clone_disks() -> Vec<SparseDisk> {
    let mut peer = Peer::new();
    peer.write(3, 20, 1);
    peer.ask(Request::Discard { range: range(4, 1), lsn: at(2), floor: Lsn::ZERO });
    let base = Base { volume: VolumeId::from_u128(1), point: at(3) };
    let (op, volume, size) = (ashlar_engine::OpToken(1), VolumeId::from_u128(2), ByteCount(CHUNK_BYTES));
    peer.site.event(Event::Clone { op, volume, epoch: epoch(), size, base });
    peer.site.settle();
    let mut disks = vec![peer.site.disk.clone()];
    let (op, volume) = (ashlar_engine::OpToken(2), VolumeId::from_u128(1));
    peer.site.event(Event::Delete { op, volume, epoch: epoch() });
    peer.site.settle();
    disks.push(peer.site.disk.clone());
    // Time passes until a slot is flat, and then until all is.
    while peer.site.engine.status().counters.flattened_slots == 0 {
        peer.site.now = peer.site.now.max(peer.site.engine.next_deadline());
        peer.site.event(Event::Tick);
        peer.site.settle();
        disks.push(peer.site.disk.clone());
    }
    peer.rest();
    disks.push(peer.site.disk);
    disks
}

/// Before and after a checkpoint, in the middle of a return, and deleted.
fn plain_disks() -> Vec<SparseDisk> {
    let mut peer = Peer::new();
    peer.write(3, 2, 1);
    peer.write(16, BLOCKS_PER_SLOT, 2);
    peer.write(30, 4, 3);
    let mut disks = vec![peer.site.disk.clone()];
    peer.rest();
    peer.ask(Request::Discard { range: range(20, 30), lsn: at(4), floor: Lsn::ZERO });
    let blocks = BlockData::seal(vec![1; 2 * BLOCK_BYTES as usize].into());
    peer.ask(Request::Repair { range: range(3, 2), below: Lsn::MAX, blocks: blocks.clone() });
    disks.push(peer.site.disk.clone());
    peer.ask(Request::BeginSync { after: at(2) });
    peer.write(40, 1, 5);
    let (slots, floors) = ([0, 1].map(SlotIndex).into_iter().collect(), FloorRange::ALL);
    peer.ask(Request::MarkStale { chunk: ChunkIndex(0), after: at(1), floors, into: Lsn::ZERO, slots });
    disks.push(peer.site.disk.clone());
    peer.rest();
    let content = SlotContent { stamp: at(3), set: 0b11000, valid: 0b11000, blocks };
    peer.ask(Request::Fill { chunk: ChunkIndex(0), slot: SlotIndex(0), floors, into: Lsn::ZERO, content });
    peer.ask(Request::VoidStale { chunk: ChunkIndex(0) });
    peer.ask(Request::AdoptPrefix { chunk: ChunkIndex(0), prefix: at(5) });
    peer.ask(Request::CompleteChunk { chunk: ChunkIndex(0), prefix: at(5) });
    peer.ask(Request::FinishSync);
    disks.push(peer.site.disk.clone());
    let (op, volume) = (ashlar_engine::OpToken(1), VolumeId::from_u128(1));
    peer.site.event(Event::Delete { op, volume, epoch: epoch() });
    peer.site.settle();
    disks.push(peer.site.disk);
    disks
}

fn nbd_inputs() -> Inputs {
    const HEAD: &str = "49484156454f5054";
    let go = format!("{HEAD} 00000007 00000008 00000000 0001 0003");
    let request =
        |kind: u16, offset: u64, length: u32| format!("25609513 0000 {kind:04x} {:016x} {offset:016x} {length:08x}", 7);
    let conversations = [
        format!("{HEAD} 00000008 00000000 {go} {} {}", request(0, 4096, 8192), request(3, 0, 0)),
        format!("{go} {} {}", request(4, 4096, 8192), request(2, 0, 0)),
        format!("{HEAD} 00000001 00000003 766f6c {} {:0>1024} {}", request(1, 512, 512), "", request(6, 0, 512)),
        format!("{HEAD} 00000003 00000000 {HEAD} 00000006 0000000b 00000003 766f6c 0001 0001 {HEAD} 00000002 00000000"),
        format!("{HEAD} 0000000a 00000000 {HEAD} 00000005 00000000 {go} {}", request(5, 0, 4096)),
    ];
    let input = |(number, text): (usize, &String)| [vec![4 | u8::from(number == 4), 10], unhex(text)].concat();
    conversations.iter().enumerate().map(input).collect()
}

fn control_inputs() -> Inputs {
    let out = MemberState::Out { commit: at(9) };
    let record = crate::attachment::record([MemberState::InSync, out, MemberState::InSync], 2, false);
    let disk = crate::attachment::disk(1);
    let message = record_to_proto(&record, |_| "127.0.0.1:9000".to_owned());
    let changes = [
        Change::Eject { disks: vec![disk], commit: at(9), reason: "silent".to_owned() },
        Change::BeginReturn { disk },
        Change::Join { disk },
        Change::AbandonReturn { disk },
        Change::CloseClean,
        Change::OpenDirty,
        Change::Snapshot(Snapshot { id: SnapshotId::from_u128(5), point: at(9) }),
    ];
    let mut inputs = vec![[vec![0], message.encode_to_vec()].concat()];
    for change in &changes {
        let proposal = proposal_to_proto(record.volume.to_string(), record.epoch, record.version, change);
        inputs.push([vec![1], proposal.encode_to_vec()].concat());
    }
    for answer in [
        ChangeAnswer::Applied { record: record.clone() },
        ChangeAnswer::Refused { reason: "version".to_owned(), record: record.clone() },
        ChangeAnswer::Fenced { epoch: epoch() },
    ] {
        inputs.push([vec![2], answer_to_proto(&answer, |_| String::new()).encode_to_vec()].concat());
    }
    let attach = control::AttachVolumeRequest { volume: message.volume.clone(), ..Default::default() };
    inputs.push([vec![3], attach.encode_to_vec()].concat());
    let create = control::CreateVolumeRequest { name: "pvc-1".to_owned(), ..Default::default() };
    inputs.push([vec![5], create.encode_to_vec()].concat());
    let parameters = [("replicas".to_owned(), "3".to_owned())].into();
    let create = csi::CreateVolumeRequest { name: "pvc-1".to_owned(), parameters, ..Default::default() };
    inputs.push([vec![6], create.encode_to_vec()].concat());
    let stage =
        csi::NodeStageVolumeRequest { staging_target_path: "/var/lib/kubelet/x".to_owned(), ..Default::default() };
    inputs.push([vec![7], stage.encode_to_vec()].concat());
    inputs
}

fn names_inputs() -> Inputs {
    let texts = ["node-1.example", "00000000-0000-0000-0000-00000000000a", "pvc_1", "../../etc", "a\nb", "\u{e9}"];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// An exported snapshot and what changed since one, each as it is, cut off and with another byte.
fn stream_inputs() -> Inputs {
    let stream = |base: Option<SnapshotId>| {
        let (volume, snapshot) = (VolumeId::from_u128(1), SnapshotId::from_u128(2));
        let identity = Identity { volume, snapshot, base, size: ByteCount(CHUNK_BYTES) };
        let mut bytes = vec![u8::from(base.is_some())];
        let mut writer = Writer::begin(identity, &mut bytes).expect("memory takes it");
        writer.data(ByteOffset(0), &[7; BLOCK_BYTES as usize]).expect("memory takes it");
        if base.is_some() {
            writer.zeros(ByteOffset(8 * BLOCK_BYTES), ByteCount(BLOCK_BYTES)).expect("memory takes it");
        }
        writer.finish().expect("memory takes it");
        bytes
    };
    let whole = [stream(None), stream(Some(SnapshotId::from_u128(3)))];
    let mut damaged = whole[0].clone();
    damaged[300] ^= 1;
    let more = [&whole[0][..], &[0]].concat();
    let mut newer = whole[0].clone();
    newer[9] = 2;
    let cut = whole[0][..200].to_vec();
    whole.into_iter().chain([damaged, more, newer, cut, b"\0notes".to_vec()]).collect()
}
