//! The table of the module, and blocks that a stream must name.

use super::*;
use ashlar_changes::What;
use ashlar_changes::stream::Content;
use ashlar_types::{ByteCount, ByteOffset, VolumeId};

const SIZE: u64 = 16 * BLOCK_BYTES;

fn identity() -> Identity {
    let (volume, snapshot) = (VolumeId::from_u128(1), SnapshotId::from_u128(2));
    Identity { volume, snapshot, base: None, size: ByteCount(SIZE) }
}

fn volume(state: Use) -> control::Volume {
    let record = control::VolumeRecord { clean: true, ..Default::default() };
    let name = "v".to_owned();
    control::Volume { name, size_bytes: SIZE, r#use: state as i32, record: Some(record), ..Default::default() }
}

fn span(start: u64, blocks: u64) -> Span {
    Span { start: BlockIndex(start), blocks, what: What::Data }
}

fn unmet(spans: &[Span]) -> Unmet {
    let mut unmet = Unmet::default();
    spans.iter().for_each(|span| unmet.add(*span).unwrap());
    unmet
}

fn frame(start: u64, blocks: u64) -> Frame {
    let (offset, length) = (ByteOffset(start * BLOCK_BYTES), ByteCount(blocks * BLOCK_BYTES));
    Frame { offset, length, content: Content::Zeros }
}

#[test]
fn volumes_in_use_unclean_or_too_small_are_refused() {
    let says = |change: fn(&mut control::Volume)| {
        let mut volume = volume(Use::Blank);
        change(&mut volume);
        check_target(&volume, &identity()).unwrap_err().to_string()
    };
    assert!(check_target(&volume(Use::Blank), &identity()).is_ok());
    let record = |volume: &mut control::Volume| volume.record.as_mut().unwrap().holder = "n1".into();
    assert!(says(record).contains("in use on n1"));
    assert!(says(|volume| volume.record.as_mut().unwrap().clean = false).contains("not detached cleanly"));
    assert!(says(|volume| volume.size_bytes = SIZE - BLOCK_BYTES).contains("expand it"));
    assert!(says(|volume| volume.record = None).contains("no record"));
}

#[test]
fn only_a_blank_volume_is_written_to_without_asking() {
    assert!(!full(&volume(Use::Blank), &identity(), false).unwrap().zero_gaps);
    for state in [Use::Formatting, Use::Used] {
        assert!(full(&volume(state), &identity(), false).is_err());
        assert!(full(&volume(state), &identity(), true).unwrap().zero_gaps);
    }
}

#[test]
fn what_was_written_since_the_base_needs_a_word_and_the_stream_must_have_it() {
    assert!(incremental("v", unmet(&[]), false).is_ok());
    assert!(incremental("v", unmet(&[span(3, 1)]), false).is_err());
    assert!(!incremental("v", unmet(&[span(3, 1)]), true).unwrap().zero_gaps);
}

#[test]
fn blocks_are_met_by_frames_that_hold_all_of_them() {
    let cases: [(&[Span], &[Frame], bool); 7] = [
        (&[], &[frame(0, 4)], true),
        (&[span(1, 2)], &[frame(0, 4)], true),
        (&[span(1, 6)], &[frame(0, 4), frame(4, 4)], true),
        (&[span(1, 6)], &[frame(0, 4), frame(5, 4)], false),
        (&[span(1, 1), span(3, 1)], &[frame(1, 1), frame(3, 1)], true),
        (&[span(0, 2)], &[frame(1, 4)], false),
        (&[span(1, 2), span(9, 1)], &[frame(0, 4)], false),
    ];
    for (spans, frames, expected) in cases {
        let mut unmet = unmet(spans);
        let met = frames.iter().try_for_each(|frame| unmet.meet(frame)).and_then(|()| unmet.finish());
        assert_eq!(met.is_ok(), expected, "{spans:?} {frames:?}");
    }
}
