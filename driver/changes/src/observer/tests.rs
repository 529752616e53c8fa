//! What an observer believes.

use super::*;

#[test]
fn every_block_that_was_spoiled_on_the_way_is_unreadable_and_no_other() {
    let mut blocks = BlockData::seal(vec![7; 4 * 4096].into());
    blocks.crcs[1] = Crc32(1);
    blocks.crcs[3] = Crc32(2);
    let content = checked(blocks.clone(), BlockCount(4)).unwrap();
    assert_eq!([0, 1, 2, 3].map(|at| content.block(at).is_some()), [true, false, true, false]);
    assert!(matches!(checked(blocks, BlockCount(5)), Err(ChangesError::Nonsense(_))));
}

#[test]
fn a_member_without_an_address_is_not_asked() {
    let record = crate::replicas::tests::record(1);
    let disk = record.members[0].disk;
    assert!(matches!(Observer::connect("", &record, disk), Err(ChangesError::NoAddress)));
}
