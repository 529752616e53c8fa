//! Recovery over an index and a journal that anybody may have written: each with right checksums, as nothing else
//! would get past the first look. Then the disk serves, or refuses to, and after a rest it starts again.
//!
//! ```text
//! | rows 1 | rows x { key bytes 1, value bytes 1, key, value } | pages x { page 2, bytes 2, content } |
//! rows without their checksum; page below 0xC000: content of a header page, which is sealed; else a page full of the
//! byte `bytes`
//! ```

use super::index_row::seal_value;
use super::journal_batch::seal_pages;
use crate::disk::SparseDisk;
use crate::draw::Draw;
use crate::reach;
use crate::site::{CLUSTER, DISK, JOURNAL_BYTES, Site, superblock};
use ashlar_engine::LinkId;
use ashlar_types::{
    BLOCK_BYTES, ByteCount, CHUNK_BYTES, Epoch, FloorRange, Instant, Kept, Lsn, RequestId, SessionId, VolumeId,
};
use ashlar_wire::{Frame, Open, Request};
use bytes::Bytes;

/// Pages that one input brings.
const GIVEN_PAGES_MAX: usize = 64;
/// Rows of the index that one input brings, and one more.
const GIVEN_ROWS: u8 = 32;
/// Pages of the ring, and of sixteen slots.
const PAGES: u16 = (JOURNAL_BYTES / BLOCK_BYTES) as u16 + 256;
const FILLED: u16 = 0xC000;
const _: () = assert!(FILLED > PAGES);

pub(crate) fn run(input: &[u8]) {
    let mut draw = Draw::new(input);
    let mut disk = SparseDisk::default();
    for _ in 0..draw.byte() % GIVEN_ROWS {
        let (key_bytes, value_bytes) = (draw.below(64), draw.below(128));
        let (key, mut value) = (draw.bytes(key_bytes).to_vec(), draw.bytes(value_bytes).to_vec());
        seal_value(&key, &mut value);
        disk.index.insert(key, value);
    }
    for _ in 0..GIVEN_PAGES_MAX {
        if draw.is_empty() {
            break;
        }
        put_page(&mut draw, &mut disk);
    }
    let now = Instant::from_nanos(1_000_000_000);
    let Some(mut site) = Site::start(disk, now) else { return reach::note("index", &"refused") };
    site.settle();
    if site.failed {
        return;
    }
    assert!(site.recovered, "recovery comes to an end");
    serve(&mut site);
    let mut again = Site::start(site.disk.clone(), now).expect("an engine takes back the index that it wrote");
    again.settle();
    assert!(again.recovered || again.failed);
}

/// A page of the journal, or of the slots.
fn put_page(draw: &mut Draw, disk: &mut SparseDisk) {
    let place = u16::from_le_bytes([draw.byte(), draw.byte()]);
    let bytes = u16::from_le_bytes([draw.byte(), draw.byte()]);
    let mut page = vec![bytes as u8; BLOCK_BYTES as usize];
    if place < FILLED {
        let given = draw.bytes(usize::from(bytes) % page.len());
        page.fill(0);
        page[..given.len()].copy_from_slice(given);
        seal_pages(&mut page, DISK);
    }
    let at = u64::from(place % FILLED % PAGES) * BLOCK_BYTES;
    disk.pages.insert(superblock().layout.journal_offset.0 + at, Bytes::from(page));
}

/// A writer of each volume that might be there opens it and asks for what there is.
fn serve(site: &mut Site) {
    let requests = [
        Request::Report { from: ashlar_types::ChunkIndex(0) },
        Request::ListStale { from: ashlar_types::ChunkIndex(0), floors: FloorRange::ALL },
        Request::ListChanged {
            from: ashlar_types::ChunkIndex(0),
            until: ashlar_types::ChunkIndex(u32::MAX >> 12),
            after: Lsn::ZERO,
            floors: FloorRange::ALL,
        },
        Request::ReadSlot {
            chunk: ashlar_types::ChunkIndex(0),
            slot: ashlar_types::SlotIndex(0),
            floors: FloorRange::ALL,
        },
        Request::Usage,
        Request::ListBlocks { chunk: ashlar_types::ChunkIndex(0), floors: FloorRange::ALL },
        Request::Keep(Kept::default()),
        Request::FinishSync,
    ];
    for volume in site.engine.status().replicas.iter().map(|replica| replica.volume).chain([VolumeId::from_u128(0)]) {
        let size = ByteCount(2 * CHUNK_BYTES);
        let open = Request::Open(Open { cluster: CLUSTER, disk: DISK, volume, size, served: Epoch::NONE });
        let link = LinkId(volume.as_u128() as u64);
        for (number, message) in std::iter::once(open).chain(requests.clone()).enumerate() {
            if number > 0 && !site.stands(link) {
                break;
            }
            let (session, request) = (SessionId(1), RequestId(number as u64));
            site.request(link, Frame { session, request, epoch: Epoch::MAX, commit: Lsn::ZERO, message });
            site.settle();
        }
    }
}

/// The input that makes this disk; `None` if it has what an input cannot say.
pub(crate) fn input_of(disk: &SparseDisk) -> Option<Vec<u8>> {
    let mut input = vec![u8::try_from(disk.index.len()).ok().filter(|rows| *rows < GIVEN_ROWS)?];
    for (key, value) in &disk.index {
        let body = value.split_last_chunk::<4>()?.0;
        input.extend([key.len() as u8, body.len() as u8]);
        input.extend(key.iter().chain(body));
    }
    let first = superblock().layout.journal_offset.0;
    for (&at, page) in &disk.pages {
        let place = u16::try_from((at - first) / BLOCK_BYTES).ok().filter(|place| *place < PAGES)?;
        let is_header = page.starts_with(b"ASHLBTCH");
        if !is_header {
            input.extend((FILLED + place).to_le_bytes());
            input.extend([page[0], 0]);
            continue;
        }
        let used = page.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1).min(BLOCK_BYTES as usize - 1);
        input.extend(place.to_le_bytes());
        input.extend((used as u16).to_le_bytes());
        input.extend(&page[..used]);
    }
    Some(input)
}
