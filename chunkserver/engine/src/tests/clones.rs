//! Clones: what they show, what stays for them, how they become flat. Link 1 writes to the source, link 2 to the clone.

use crate::testing::*;
use crate::{Action, CloneRefusal, Deleted, Event};
use ashlar_types::{Base, ChunkIndex, Epoch, FloorRange, Kept, Lsn, SlotIndex, SlotSet, VolumeId};
use ashlar_wire::{Reply, Request, SlotBlocks, SlotContent, Status};

const CLONE: VolumeId = VolumeId::from_u128(0xC1);
const SECOND: VolumeId = VolumeId::from_u128(0xC2);
const CHUNK: ChunkIndex = ChunkIndex(0);

fn point() -> Lsn {
    lsn(1, 10)
}

fn base() -> Base {
    Base { volume: volume(), point: point() }
}

fn under(floor: Lsn, request: Request) -> Request {
    match request {
        Request::Write { range, lsn, blocks, .. } => Request::Write { range, lsn, floor, blocks },
        Request::Discard { range, lsn, .. } => Request::Discard { range, lsn, floor },
        other => other,
    }
}

fn read(rig: &mut Rig, link: u64, start: u64, count: u32) -> Vec<u8> {
    let reply = rig.ask(link, Request::Read { range: range(start, count), below: Lsn::MAX });
    let Reply::Data(blocks) = reply else { panic!("{reply:?}") };
    blocks.data.chunks(PAGE).map(|block| block[0]).collect()
}

fn slot(rig: &mut Rig, link: u64, slot: u16) -> SlotContent {
    let request = Request::ReadSlot { chunk: CHUNK, slot: SlotIndex(slot), floors: FloorRange::ALL };
    let Reply::Slot(content) = rig.ask(link, request) else { panic!() };
    content
}

fn listed(rig: &mut Rig, link: u64) -> Vec<SlotBlocks> {
    let Reply::Blocks(blocks) = rig.ask(link, Request::ListBlocks { chunk: CHUNK, floors: FloorRange::ALL }) else {
        panic!()
    };
    blocks
}

fn changed(rig: &mut Rig, link: u64, after: Lsn) -> Vec<u16> {
    let until = ChunkIndex(1);
    let request = Request::ListChanged { from: CHUNK, until, after, floors: FloorRange::ALL };
    let Reply::Changed { entries, .. } = rig.ask(link, request) else { panic!() };
    entries.iter().flat_map(|entry| entry.slots.iter().map(|slot| slot.0).collect::<Vec<_>>()).collect()
}

fn keep(rig: &mut Rig, link: u64, live: &[Lsn], until: Lsn) {
    rig.write(link, Request::Keep(Kept { live: live.to_vec(), until }));
}

/// A source with slots 0 and 1 before the point, block 1 written after it; and its clone, nothing of which is flat.
fn cloned() -> Rig {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1, 2, 3, 4], lsn(1, 1)));
    rig.write(1, write(16, &[5; 16], lsn(1, 2)));
    rig.write(1, under(point(), write(1, &[9], lsn(1, 11))));
    assert_eq!(rig.make_clone(CLONE, 1, base()), Ok(()));
    rig.opened_volume(2, 2, CLONE);
    rig
}

#[test]
fn a_clone_shows_its_source_before_the_point_and_is_written_on_its_own() {
    let mut rig = cloned();
    assert_eq!(read(&mut rig, 2, 0, 5), [1, 2, 3, 4, 0]);
    rig.write(2, under(point(), write(2, &[7], lsn(2, 1))));
    rig.write(1, under(point(), write(3, &[8], lsn(1, 12))));
    let ways: [fn(&mut Rig); 2] = [Rig::settle, Rig::rest];
    for way in ways {
        way(&mut rig);
        assert_eq!(read(&mut rig, 2, 0, 5), [1, 2, 7, 4, 0]);
        assert_eq!(read(&mut rig, 1, 0, 5), [1, 9, 3, 8, 0]);
    }
    assert_eq!(rig.base_of(CLONE), None, "at rest it is flat");
}

#[test]
fn making_a_clone_touches_no_slot() {
    let mut rig = cloned();
    let used = rig.engine.status().slots_used;
    rig.make_clone(SECOND, 1, base()).unwrap();
    assert_eq!(rig.engine.status().slots_used, used);
    let journalled = rig.engine.status().counters.journal_bytes;
    rig.make_clone(SECOND, 1, base()).unwrap();
    assert!(rig.engine.status().counters.journal_bytes - journalled <= 4096);
}

#[test]
fn a_clone_inherits_history_up_to_the_point() {
    let mut rig = cloned();
    let opened = rig.opened_volume(3, 3, CLONE);
    assert_eq!((opened.floor, opened.syncing), (point(), false));
    assert!(opened.commit <= point() && opened.last <= point());
    let Reply::Reported { entries, .. } = rig.ask(3, Request::Report { from: CHUNK }) else { panic!() };
    let entries: Vec<_> = entries.iter().map(|entry| (entry.chunk, entry.prefix, entry.complete)).collect();
    assert_eq!(entries, [(CHUNK, point(), true)], "a disk that lacks something of it is noticed");
}

#[test]
fn a_clone_has_promised_its_epoch() {
    let mut rig = cloned();
    rig.make_clone(SECOND, 5, base()).unwrap();
    let open = match rig.open_request() {
        Request::Open(open) => Request::Open(ashlar_wire::Open { volume: SECOND, ..open }),
        other => other,
    };
    let Reply::Refused(refusal) = rig.ask_as(9, 4, open) else { panic!() };
    assert_eq!(refusal.status, Status::Fenced);
}

#[test]
fn making_a_clone_again_changes_nothing_whatever_became_of_it() {
    let mut rig = cloned();
    assert_eq!(rig.make_clone(CLONE, 1, base()), Ok(()));
    rig.write(2, under(point(), write(0, &[7], lsn(2, 1))));
    rig.rest();
    assert_eq!(rig.base_of(CLONE), None);
    assert_eq!(rig.make_clone(CLONE, 1, base()), Ok(()));
    assert_eq!(read(&mut rig, 2, 0, 3), [7, 2, 3]);
}

#[test]
fn what_cannot_be_cloned_is_refused_with_the_reason() {
    let mut rig = cloned();
    let other = VolumeId::from_u128(0xDD);
    assert_eq!(rig.make_clone(SECOND, 1, Base { volume: other, ..base() }), Err(CloneRefusal::NotHere));
    assert_eq!(rig.make_clone(SECOND, 1, Base { point: Lsn::ZERO, ..base() }), Err(CloneRefusal::NotHere));
    assert_eq!(rig.make_clone(CLONE, 1, Base { point: lsn(1, 9), ..base() }), Err(CloneRefusal::Exists));
    assert_eq!(rig.make_clone(volume(), 1, base()), Err(CloneRefusal::Exists), "no volume reads from itself");
    rig.delete(CLONE, 2).unwrap();
    assert_eq!(rig.make_clone(CLONE, 2, base()), Err(CloneRefusal::Exists), "a late word brings nothing back");
    keep(&mut rig, 1, &[], lsn(1, 11));
    assert_eq!(rig.make_clone(SECOND, 1, base()), Err(CloneRefusal::NotHere), "the point was given up");
    rig.write(1, Request::BeginSync { after: lsn(1, 11) });
    let later = Base { point: lsn(1, 20), ..base() };
    assert_eq!(rig.make_clone(SECOND, 1, later), Err(CloneRefusal::Incomplete));
}

#[test]
fn a_deleted_source_is_cloned_while_a_clone_keeps_that_point() {
    let mut rig = cloned();
    assert_eq!(rig.delete(volume(), 1), Ok(Deleted::Kept));
    assert_eq!(rig.make_clone(SECOND, 1, Base { point: lsn(1, 9), ..base() }), Err(CloneRefusal::NotHere));
    assert_eq!(rig.make_clone(SECOND, 1, base()), Ok(()));
    rig.opened_volume(3, 2, SECOND);
    assert_eq!(read(&mut rig, 3, 0, 5), [1, 2, 3, 4, 0]);
}

#[test]
fn a_discard_leaves_zeros_over_the_base_and_nothing_over_nothing() {
    let mut rig = cloned();
    rig.write(2, under(point(), discard(1, 2, lsn(2, 1))));
    rig.write(2, under(point(), discard(64, 32, lsn(2, 2))));
    assert_eq!(read(&mut rig, 2, 0, 5), [1, 0, 0, 4, 0]);
    assert_eq!(listed(&mut rig, 2)[0], SlotBlocks { slot: SlotIndex(0), set: 0b1111, valid: 0b1001 });
    assert_eq!(changed(&mut rig, 2, lsn(2, 0)), [0], "what was never there is not listed");
}

/// A replica that is flat and one that is not must be taken for equal.
#[test]
fn a_clone_says_of_itself_what_it_will_say_when_it_is_flat() {
    let mut rig = cloned();
    rig.write(1, write(40, &[6], lsn(1, 12)));
    rig.write(2, under(point(), write(1, &[7], lsn(2, 1))));
    let say = |rig: &mut Rig| {
        let stamps: Vec<Lsn> = (0..3).map(|at| slot(rig, 2, at).stamp).collect();
        (listed(rig, 2), stamps, changed(rig, 2, lsn(1, 1)), changed(rig, 2, lsn(1, 2)), changed(rig, 2, Lsn::ZERO))
    };
    let before = say(&mut rig);
    assert_eq!((&before.2[..], &before.3[..], &before.4[..]), (&[0, 1, 2][..], &[0, 2][..], &[0, 1, 2][..]));
    rig.rest();
    assert_eq!(rig.base_of(CLONE), None);
    assert_eq!(say(&mut rig), before);
}

#[test]
fn no_merge_joins_what_a_clone_tells_apart_whatever_the_writer_says() {
    let mut rig = cloned();
    let unread = lsn(1, 20);
    rig.write(1, under(unread, write(2, &[8], lsn(1, 21))));
    // The source's writer wants none of its points any more.
    keep(&mut rig, 1, &[], unread);
    while rig.engine.status().counters.merges == 0 {
        rig.go_on(1, &mut Random::new(1));
    }
    assert!(rig.base_of(CLONE).is_some(), "merges come first");
    assert_eq!(read(&mut rig, 2, 0, 4), [1, 2, 3, 4]);
    rig.rest();
    assert_eq!(read(&mut rig, 2, 0, 4), [1, 2, 3, 4]);
    assert_eq!(read(&mut rig, 1, 0, 4), [1, 9, 8, 4]);
}

#[test]
fn a_deleted_source_keeps_what_its_clones_read_and_no_more() {
    let mut rig = cloned();
    let used = rig.engine.status().slots_used;
    rig.write(1, under(point(), write(64, &[8; 16], lsn(1, 12))));
    assert_eq!(rig.engine.status().slots_used, used + 1);
    assert_eq!(rig.delete(volume(), 1), Ok(Deleted::Kept));
    assert_eq!(rig.engine.status().slots_used, used - 1, "what was written after the point is gone");
    assert_eq!(read(&mut rig, 2, 0, 5), [1, 2, 3, 4, 0]);
    assert_eq!(rig.delete(volume(), 1), Ok(Deleted::Kept), "it says so again");
    let mut rig = Rig::start(rig.stop());
    rig.settle();
    rig.opened_volume(2, 3, CLONE);
    assert_eq!(read(&mut rig, 2, 16, 2), [5, 5]);
    assert_eq!(rig.delete(CLONE, 3), Ok(Deleted::Gone));
    assert_eq!(rig.delete(volume(), 1), Ok(Deleted::Gone));
    assert_eq!(rig.engine.status().slots_used, 0);
}

/// Its writer would find it empty, and what is there is not its any more.
#[test]
fn a_deleted_source_is_not_opened_again_while_it_is_read() {
    let mut rig = cloned();
    rig.delete(volume(), 1).unwrap();
    let open = rig.open_request();
    let Reply::Refused(refusal) = rig.ask_as(5, 7, open) else { panic!() };
    assert_eq!(refusal.status, Status::Deleted);
    rig.rest();
    assert_eq!(rig.base_of(CLONE), None);
    rig.opened(6, 7);
    assert_eq!(read(&mut rig, 6, 0, 4), [0; 4]);
    assert_eq!(read(&mut rig, 2, 0, 4), [1, 2, 3, 4]);
}

#[test]
fn a_chain_is_read_through_whatever_of_it_is_deleted() {
    let mut rig = cloned();
    rig.write(2, under(point(), write(0, &[7], lsn(2, 1))));
    let second = Base { volume: CLONE, point: lsn(2, 5) };
    rig.write(2, under(second.point, write(1, &[8], lsn(2, 6))));
    assert_eq!(rig.make_clone(SECOND, 2, second), Ok(()));
    rig.opened_volume(3, 3, SECOND);
    assert_eq!(rig.delete(CLONE, 2), Ok(Deleted::Kept));
    assert_eq!(read(&mut rig, 3, 0, 5), [7, 2, 3, 4, 0]);
    assert_eq!(rig.delete(volume(), 1), Ok(Deleted::Kept), "through the one that was deleted before");
    let mut rig = Rig::start(rig.crash(&mut Random::new(5)));
    rig.settle();
    rig.opened_volume(3, 4, SECOND);
    assert_eq!(read(&mut rig, 3, 0, 5), [7, 2, 3, 4, 0]);
    rig.rest();
    assert_eq!(rig.base_of(SECOND), None);
    assert_eq!(read(&mut rig, 3, 0, 5), [7, 2, 3, 4, 0]);
    assert_eq!((rig.delete(CLONE, 2), rig.delete(volume(), 1)), (Ok(Deleted::Gone), Ok(Deleted::Gone)));
    assert_eq!(rig.engine.status().slots_used, 2, "what the last one shows is its own");
}

/// The copy comes from a replica that has never had block 2.
#[test]
fn a_copy_hides_the_base_where_it_brings_nothing() {
    let mut rig = cloned();
    let slots: SlotSet = [SlotIndex(0)].into_iter().collect();
    let (floors, into) = (FloorRange::ALL, Lsn::ZERO);
    rig.write(2, Request::MarkStale { chunk: CHUNK, after: lsn(1, 0), floors, into, slots });
    let ask = Request::Read { range: range(0, 1), below: Lsn::MAX };
    assert_eq!(rig.refused(2, ask), Status::Stale, "a mark hides the base");
    let content = SlotContent { stamp: lsn(1, 1), set: 0b1011, valid: 0b1011, blocks: blocks(&[1, 2, 4]) };
    rig.write(2, Request::Fill { chunk: CHUNK, slot: SlotIndex(0), floors, into, content });
    rig.write(2, Request::CompleteChunk { chunk: CHUNK, prefix: point() });
    for _ in 0..2 {
        assert_eq!(read(&mut rig, 2, 0, 5), [1, 2, 0, 4, 0]);
        rig.rest();
    }
    assert_eq!(rig.base_of(CLONE), None);
}

/// What it shows of its base is copied like everything else; a clone of it waits for that.
#[test]
fn a_return_from_nothing_shows_nothing_of_its_base() {
    let mut rig = cloned();
    let second = Base { volume: CLONE, point: lsn(2, 5) };
    assert_eq!(rig.make_clone(SECOND, 2, second), Ok(()));
    rig.opened_volume(3, 3, SECOND);
    rig.write(2, Request::BeginSync { after: Lsn::ZERO });
    let ask = || Request::Read { range: range(0, 1), below: Lsn::MAX };
    assert_eq!((rig.refused(2, ask()), rig.refused(3, ask())), (Status::Stale, Status::Stale));
    assert_eq!(rig.refused(2, Request::FinishSync), Status::Incomplete);
    rig.rest();
    assert_eq!(rig.base_of(SECOND), Some(second));
    let (floors, into) = (FloorRange { from: Lsn::ZERO, below: lsn(2, 5) }, Lsn::ZERO);
    let contents = [(0, 15, vec![1, 2, 3, 4]), (1, u16::MAX, vec![5; 16])];
    for (slot, set, fills) in contents {
        let content = SlotContent { stamp: lsn(1, 2), set, valid: set, blocks: blocks(&fills) };
        rig.write(2, Request::Fill { chunk: CHUNK, slot: SlotIndex(slot), floors, into, content });
    }
    rig.write(2, Request::FinishSync);
    rig.rest();
    for (clone, link) in [(CLONE, 2), (SECOND, 3)] {
        assert_eq!((rig.base_of(clone), read(&mut rig, link, 0, 5)), (None, vec![1, 2, 3, 4, 0]));
    }
}

/// The clone was out when the others became flat, and its source's writer has forgotten the point.
#[test]
fn a_copy_across_the_point_of_a_clone_is_never_shown_by_it() {
    let mut rig = cloned();
    let slots: SlotSet = [SlotIndex(0)].into_iter().collect();
    let (floors, into) = (FloorRange::ALL, Lsn::ZERO);
    rig.write(1, Request::MarkStale { chunk: CHUNK, after: lsn(1, 11), floors, into, slots });
    let content = SlotContent { stamp: lsn(1, 30), set: 15, valid: 15, blocks: blocks(&[6; 4]) };
    rig.write(1, Request::Fill { chunk: CHUNK, slot: SlotIndex(0), floors, into, content });
    assert_eq!(read(&mut rig, 1, 0, 4), [6; 4]);
    for _ in 0..2 {
        let ask = Request::Read { range: range(0, 1), below: Lsn::MAX };
        assert_eq!(rig.refused(2, ask), Status::BadBlock);
        assert_eq!(read(&mut rig, 2, 16, 1), [5]);
        rig.rest();
    }
}

#[test]
fn nobody_writes_to_a_source_below_its_clones() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1, 2, 3, 4], lsn(1, 1)));
    rig.make_clone(CLONE, 1, base()).unwrap();
    let mut rig = Rig::start(rig.crash(&mut Random::new(7)));
    rig.settle();
    assert_eq!(rig.opened_volume(2, 2, volume()).floor, point());
}

#[test]
fn a_return_that_lacks_little_keeps_its_base() {
    let mut rig = cloned();
    rig.write(2, Request::BeginSync { after: lsn(2, 0) });
    rig.rest();
    assert_eq!(rig.base_of(CLONE), Some(base()), "nothing is made flat in a return");
    rig.write(2, Request::FinishSync);
    assert_eq!(read(&mut rig, 2, 0, 4), [1, 2, 3, 4]);
    rig.rest();
    assert_eq!(rig.base_of(CLONE), None);
}

fn place_of(rig: &Rig, fill: u8) -> usize {
    let data = rig.media.superblock.layout.data_offset.0 as usize;
    let page = rig.media.bytes[data..].chunks(PAGE).position(|page| page.iter().all(|&byte| byte == fill));
    data + page.expect("the content is in place") * PAGE
}

/// A clone whose source is in place, with a block that rots there.
fn rotten() -> Rig {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1, 2, 3, 4], lsn(1, 1)));
    rig.rest();
    let at = place_of(&rig, 2);
    rig.flip(at);
    assert_eq!(rig.make_clone(CLONE, 1, base()), Ok(()));
    rig.opened_volume(2, 2, CLONE);
    rig
}

#[test]
fn a_bad_block_of_the_base_is_repaired_in_the_clone() {
    let mut rig = rotten();
    let ask = || Request::Read { range: range(1, 1), below: Lsn::MAX };
    assert_eq!(rig.refused(2, ask()), Status::BadBlock);
    rig.write(2, Request::Repair { range: range(1, 1), below: Lsn::MAX, blocks: blocks(&[2]) });
    assert_eq!(read(&mut rig, 2, 0, 4), [1, 2, 3, 4]);
    assert_eq!(rig.refused(1, ask()), Status::BadBlock, "the source is for its own writer");
    rig.rest();
    assert_eq!((read(&mut rig, 2, 0, 4), rig.base_of(CLONE)), (vec![1, 2, 3, 4], None));
    let stamp = slot(&mut rig, 2, 0).stamp;
    assert_eq!(stamp, lsn(1, 1));
}

#[test]
fn a_bad_block_of_the_base_is_lost_to_a_flat_clone_until_it_is_repaired() {
    let mut rig = rotten();
    rig.rest();
    assert_eq!(rig.base_of(CLONE), None);
    assert_eq!(rig.refused(2, Request::Read { range: range(0, 4), below: Lsn::MAX }), Status::BadBlock);
    rig.write(2, Request::Repair { range: range(1, 1), below: Lsn::MAX, blocks: blocks(&[2]) });
    assert_eq!(read(&mut rig, 2, 0, 4), [1, 2, 3, 4]);
}

#[test]
fn a_stale_block_of_the_base_is_waited_for_and_lost_when_the_base_is_deleted() {
    for is_deleted in [false, true] {
        let mut rig = cloned();
        let slots: SlotSet = [SlotIndex(0)].into_iter().collect();
        let (floors, into) = (FloorRange { from: Lsn::ZERO, below: point() }, Lsn::ZERO);
        rig.write(1, Request::MarkStale { chunk: CHUNK, after: lsn(1, 11), floors, into, slots });
        assert_eq!(rig.refused(2, Request::Read { range: range(0, 1), below: Lsn::MAX }), Status::Stale);
        rig.rest();
        assert_eq!(rig.base_of(CLONE), Some(base()), "the rest of it waits, and does not spin");
        if is_deleted {
            rig.delete(volume(), 1).unwrap();
            rig.rest();
            assert_eq!(rig.refused(2, Request::Read { range: range(0, 1), below: Lsn::MAX }), Status::BadBlock);
            rig.write(2, Request::Repair { range: range(0, 4), below: Lsn::MAX, blocks: blocks(&[1, 2, 3, 4]) });
        } else {
            let content = SlotContent { stamp: lsn(1, 1), set: 15, valid: 15, blocks: blocks(&[1, 2, 3, 4]) };
            rig.write(1, Request::Fill { chunk: CHUNK, slot: SlotIndex(0), floors, into, content });
            rig.rest();
        }
        assert_eq!((read(&mut rig, 2, 0, 4), rig.base_of(CLONE)), (vec![1, 2, 3, 4], None));
        assert_eq!(read(&mut rig, 2, 16, 2), [5, 5]);
    }
}

#[test]
fn flattening_leaves_the_disk_its_headroom_and_goes_on_when_there_is_room() {
    let mut rig = Rig::format(128);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1; 16], lsn(1, 1)));
    assert_eq!(rig.make_clone(CLONE, 1, base()), Ok(()));
    let mut counter = 20;
    let other = VolumeId::from_u128(0xE0);
    rig.opened_volume(4, 1, other);
    loop {
        counter += 1;
        match rig.ask(4, write(counter * 16, &[7; 16], lsn(1, counter))) {
            Reply::Done => {}
            Reply::Refused(refusal) => break assert_eq!(refusal.status, Status::NoSpace),
            reply => panic!("{reply:?}"),
        }
    }
    rig.rest();
    assert_eq!(rig.base_of(CLONE), Some(base()));
    rig.delete(other, 1).unwrap();
    rig.rest();
    assert_eq!(rig.base_of(CLONE), None);
}

/// A trap: a place that is given to a slot while a discard of it is on its way belongs to that slot, whatever the
/// discard leaves to copy.
#[test]
fn a_discard_on_its_way_while_a_slot_is_made_flat_gives_no_place_to_two_slots() {
    for floor in [Lsn::ZERO, point()] {
        for steps in 0..40 {
            let mut rig = cloned();
            rig.go_on(steps, &mut Random::new(steps + 1));
            rig.send(2, under(floor, discard(0, 32, lsn(2, 1))));
            rig.send(2, under(floor, write(20, &[7], lsn(2, 2))));
            rig.go_on(steps % 7, &mut Random::new(steps + 2));
            rig.send(2, under(floor, write(300, &[8; 16], lsn(2, 3))));
            rig.rest();
            let expected = [0, 0, 0, 0, 7, 0];
            assert_eq!(read(&mut rig, 2, 16, 6), expected, "{floor} {steps}");
            assert_eq!((read(&mut rig, 2, 0, 4), read(&mut rig, 2, 300, 2)), (vec![0; 4], vec![8, 8]));
            assert_eq!(read(&mut rig, 1, 16, 6), [5; 6]);
            let mut rig = Rig::start(rig.stop());
            rig.settle();
            assert_eq!(rig.recovered.map(|(_, lost)| lost), Some(0), "{floor} {steps}");
        }
    }
}

#[test]
fn a_clone_that_is_deleted_while_it_is_made_flat_leaves_nothing() {
    for steps in 0..40 {
        let mut rig = cloned();
        rig.go_on(steps, &mut Random::new(steps + 1));
        rig.handle(Event::Delete { op: crate::OpToken(77), volume: CLONE, epoch: Epoch::new(2).unwrap() });
        rig.rest();
        assert_eq!(rig.deleted, [Ok(Deleted::Gone)]);
        assert_eq!(rig.delete(volume(), 1), Ok(Deleted::Gone));
        assert_eq!(rig.engine.status().slots_used, 0, "after {steps} steps");
    }
}

#[test]
fn a_failed_disk_makes_no_clones() {
    let mut rig = cloned();
    rig.send(1, under(point(), write(0, &[1], lsn(1, 12))));
    rig.handle(Event::Clone {
        op: crate::OpToken(77),
        volume: SECOND,
        epoch: Epoch::new(1).unwrap(),
        size: ashlar_types::ByteCount(1 << 30),
        base: base(),
    });
    let at = rig.in_flight.iter().position(|action| matches!(action, Action::Write { .. })).unwrap();
    rig.break_op(at);
    assert_eq!(rig.cloned, [Err(CloneRefusal::DiskFailed)]);
    assert_eq!(rig.make_clone(SECOND, 1, base()), Err(CloneRefusal::DiskFailed));
}
