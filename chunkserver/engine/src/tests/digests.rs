//! Digests: the same for replicas that read the same, another one for each that does not.

use crate::testing::*;
use ashlar_types::{Base, ChunkIndex, Crc32, FloorRange, Lsn, SlotIndex, SlotSet, VolumeId};
use ashlar_wire::{Reply, Request, Status};
use std::collections::BTreeMap;

const CLONE: VolumeId = VolumeId::from_u128(0xC1);
const CHUNK: ChunkIndex = ChunkIndex(0);

fn under(floor: Lsn, request: Request) -> Request {
    match request {
        Request::Write { range, lsn, blocks, .. } => Request::Write { range, lsn, floor, blocks },
        Request::Discard { range, lsn, .. } => Request::Discard { range, lsn, floor },
        other => other,
    }
}

fn digests(rig: &mut Rig, link: u64, below: Lsn) -> (BTreeMap<SlotIndex, Crc32>, SlotSet) {
    let reply = rig.ask(link, Request::Digest { chunk: CHUNK, below });
    let Reply::Digests { entries, unknown } = reply else { panic!("{reply:?}") };
    (entries.into_iter().map(|entry| (entry.slot, entry.digest)).collect(), unknown)
}

fn present(rig: &mut Rig) -> BTreeMap<SlotIndex, Crc32> {
    let (known, unknown) = digests(rig, 1, Lsn::MAX);
    assert!(unknown.is_empty());
    known
}

#[test]
fn a_digest_says_what_is_read_and_not_how_it_came_to_be() {
    let (mut at_once, mut by_parts) = (Rig::format(256), Rig::format(256));
    for rig in [&mut at_once, &mut by_parts] {
        rig.opened(1, 1);
    }
    at_once.write(1, write(16, &[1, 2, 3], lsn(1, 9)));
    by_parts.write(1, write(16, &[1, 8, 8, 8], lsn(1, 1)));
    by_parts.write(1, write(32, &[7; 16], lsn(1, 2)));
    by_parts.write(1, under(lsn(1, 3), write(17, &[2, 3], lsn(1, 4))));
    by_parts.write(1, under(lsn(1, 3), discard(19, 1, lsn(1, 5))));
    by_parts.write(1, under(lsn(1, 3), discard(32, 16, lsn(1, 6))));
    by_parts.write(1, under(lsn(1, 3), write(50, &[0], lsn(1, 7))));
    let expected = present(&mut at_once);
    assert_eq!(expected.keys().copied().collect::<Vec<_>>(), [SlotIndex(1)], "zeros are left out, written or not");
    assert_eq!(present(&mut by_parts), expected);
    by_parts.rest();
    assert_eq!(present(&mut by_parts), expected, "merged, and in place");
    let before = digests(&mut by_parts, 1, lsn(1, 3)).0;
    assert_ne!(before, expected, "a view is of its moment");
    at_once.write(1, write(18, &[4], lsn(1, 10)));
    assert_ne!(present(&mut at_once), expected);
}

#[test]
fn what_a_clone_shows_of_its_base_is_in_its_digests() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1, 2], lsn(1, 1)));
    rig.write(1, write(16, &[5; 16], lsn(1, 2)));
    let point = lsn(1, 10);
    let of_source = present(&mut rig);
    rig.write(1, under(point, write(1, &[9], lsn(1, 11))));
    assert_eq!(rig.make_clone(CLONE, 1, Base { volume: volume(), point }), Ok(()));
    rig.opened_volume(2, 2, CLONE);
    assert_eq!(digests(&mut rig, 2, Lsn::MAX).0, of_source);
    rig.rest();
    assert_eq!(rig.base_of(CLONE), None, "it is flat");
    assert_eq!(digests(&mut rig, 2, Lsn::MAX).0, of_source);
}

#[test]
fn what_awaits_a_copy_is_not_said() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1], lsn(1, 1)));
    rig.write(1, write(16, &[2], lsn(1, 2)));
    let slots: SlotSet = [SlotIndex(1)].into_iter().collect();
    let (floors, into) = (FloorRange::ALL, Lsn::ZERO);
    rig.write(1, Request::MarkStale { chunk: CHUNK, after: lsn(1, 2), floors, into, slots });
    assert_eq!(rig.refused(1, Request::Digest { chunk: CHUNK, below: Lsn::MAX }), Status::Stale);
    assert_eq!(rig.refused(1, Request::Digest { chunk: ChunkIndex(1 << 19), below: Lsn::MAX }), Status::BadRequest);
}

#[test]
fn what_was_lost_is_told_as_unknown() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1], lsn(1, 1)));
    rig.write(1, write(16, &[2], lsn(1, 2)));
    rig.rest();
    let mut media = rig.stop();
    let is_row = |key: &[u8]| key[0] == b's';
    let row = media.index.iter_mut().filter(|(key, _)| is_row(key)).nth(1).expect("two slots have rows").1;
    row[8] ^= 1;
    let mut rig = Rig::start(media);
    rig.settle();
    rig.opened(1, 2);
    let (known, unknown) = digests(&mut rig, 1, Lsn::MAX);
    assert_eq!(known.keys().copied().collect::<Vec<_>>(), [SlotIndex(0)]);
    assert_eq!(unknown.iter().collect::<Vec<_>>(), [SlotIndex(1)]);
}
