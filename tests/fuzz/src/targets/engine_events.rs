//! Sequences of events into a chunkserver's engine: requests of any session and epoch, with any fields that the wire
//! lets pass; operations of the disk that end in any order, well or not; deletions, time, restarts, rot.

use crate::disk::SparseDisk;
use crate::draw::Draw;
use crate::site::{CLUSTER, DISK, Site, superblock};
use ashlar_engine::{Event, LinkId, OpToken};
use ashlar_types::{
    BLOCK_BYTES, Base, ByteCount, CHUNK_BYTES, Duration, Epoch, Instant, Kept, Lsn, RequestId, SessionId, VolumeId,
};
use ashlar_wire::{Frame, Request};
use bytes::Bytes;

const LINKS: usize = 4;
const EVENTS_MAX: usize = 400;

/// Who speaks: links and what their last `Open` said.
struct Peers {
    links: [LinkId; LINKS],
    epochs: [Epoch; LINKS],
    next_link: u64,
    next_request: u64,
}

pub(crate) fn run(input: &[u8]) {
    let mut draw = Draw::new(input);
    let now = Instant::from_nanos(1_000_000_000);
    let mut site = Site::start(SparseDisk::default(), now).expect("an empty index");
    if !draw.once_in(8) {
        site.settle();
    }
    let mut peers = Peers {
        links: std::array::from_fn(|at| LinkId(at as u64)),
        epochs: [Epoch::NONE; LINKS],
        next_link: LINKS as u64,
        next_request: 0,
    };
    for _ in 0..EVENTS_MAX {
        if draw.is_empty() {
            break;
        }
        site = step(&mut draw, site, &mut peers);
    }
    rest(&mut site);
}

fn step(draw: &mut Draw, mut site: Site, peers: &mut Peers) -> Site {
    match draw.byte() % 16 {
        0..=5 => ask(draw, &mut site, peers),
        6..=9 if !site.under_way.is_empty() => {
            let at = draw.below(site.under_way.len().min(256));
            site.complete(at);
        }
        10 => site.settle(),
        11 if !site.under_way.is_empty() && draw.once_in(4) => {
            let at = draw.below(site.under_way.len().min(256));
            site.break_op(at);
        }
        12 => {
            site.now = site.now + Duration::from_millis(u64::from(draw.byte()) * 30);
            site.event(Event::Tick);
        }
        13 => {
            let link = peers.links[draw.below(LINKS)];
            if site.stands(link) {
                site.event(Event::LinkClosed { link });
            }
        }
        14 if draw.once_in(4) => {
            peers.next_request += 1;
            let (op, volume) = (OpToken(peers.next_request), VolumeId::from_u128(u128::from(draw.byte() % 3)));
            site.event(Event::Delete { op, volume, epoch: draw.epoch() });
        }
        14 => {
            peers.next_request += 1;
            let op = OpToken(peers.next_request);
            let (volume, source) = (VolumeId::from_u128(u128::from(draw.byte() % 5)), draw.byte() % 5);
            let base = Base { volume: VolumeId::from_u128(u128::from(source)), point: draw.lsn() };
            let size = ByteCount(u64::from(crate::draw::CHUNKS) * CHUNK_BYTES);
            site.event(Event::Clone { op, volume, epoch: draw.epoch(), size, base });
        }
        15 => return disturb(draw, site),
        // What was no break above.
        11 => {
            peers.next_request += 1;
            let (op, volume) = (OpToken(peers.next_request), VolumeId::from_u128(u128::from(draw.byte() % 3)));
            let kept = Kept { live: vec![draw.lsn()], until: draw.lsn() };
            site.event(Event::KeepPoints { op, volume, epoch: draw.epoch(), kept });
        }
        _ => {}
    }
    site
}

/// A request, honest in its session and epoch more often than not.
fn ask(draw: &mut Draw, site: &mut Site, peers: &mut Peers) {
    let at = draw.below(LINKS);
    let mut message = draw.request(CLUSTER, DISK);
    if !site.stands(peers.links[at]) {
        // The shell never uses the name of a link again.
        peers.links[at] = LinkId(peers.next_link);
        peers.next_link += 1;
        if !draw.once_in(8) && !matches!(message, Request::Observe(_)) {
            message = Request::Open(draw_open(draw));
        }
        peers.epochs[at] = draw.epoch();
    }
    let link = peers.links[at];
    let session = SessionId(if draw.once_in(32) { draw.wide() } else { link.0 });
    let epoch = if draw.once_in(32) { draw.epoch() } else { peers.epochs[at] };
    peers.next_request += u64::from(!draw.once_in(32));
    let commit = if draw.once_in(4) { draw.lsn() } else { Lsn::ZERO };
    let frame = Frame { session, request: RequestId(peers.next_request), epoch, commit, message };
    site.request(link, frame);
}

fn draw_open(draw: &mut Draw) -> ashlar_wire::Open {
    let volume = VolumeId::from_u128(u128::from(draw.byte() % 5));
    let size = ashlar_types::ByteCount(u64::from(crate::draw::CHUNKS) * ashlar_types::CHUNK_BYTES);
    ashlar_wire::Open { cluster: CLUSTER, disk: DISK, volume, size, served: draw.epoch() }
}

/// A restart after all or part of what was under way, or a page that rots.
fn disturb(draw: &mut Draw, mut site: Site) -> Site {
    if draw.once_in(2) {
        let layout = superblock().layout;
        let written = site.disk.pages.len();
        let random = u64::from(draw.byte()) % (layout.total.0 / BLOCK_BYTES - 256) * BLOCK_BYTES;
        let page = match written {
            0 => layout.journal_offset.0 + random,
            _ => *site.disk.pages.keys().nth(draw.below(written.min(256))).expect("below their number"),
        };
        let mut content = site.disk.read(ashlar_types::ByteOffset(page), ashlar_types::ByteCount(BLOCK_BYTES)).to_vec();
        let at = draw.wide() as usize % content.len();
        content[at] ^= draw.byte() | 1;
        site.spoil(page, Bytes::from(content));
        return site;
    }
    while draw.once_in(2) && !site.under_way.is_empty() {
        let at = draw.below(site.under_way.len().min(256));
        site.complete(at);
    }
    let again = Site::start(site.disk.clone(), site.now).expect("an engine takes back the index that it wrote");
    if !draw.once_in(4) {
        let mut again = again;
        again.settle();
        return again;
    }
    again
}

/// Everything ends, checkpoints included, and the disk can be taken into service again.
fn rest(site: &mut Site) {
    site.settle();
    for _ in 0..64 {
        if site.engine.is_idle() {
            break;
        }
        site.now = site.now.max(site.engine.next_deadline());
        site.event(Event::Tick);
        site.settle();
    }
    let mut again = Site::start(site.disk.clone(), site.now).expect("an engine takes back the index that it wrote");
    again.settle();
    assert!(again.recovered || again.failed, "recovery comes to an end");
}
