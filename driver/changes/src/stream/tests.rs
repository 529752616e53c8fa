//! A stream survives its bytes; no other bytes are taken; an interrupted one goes on to the same bytes.

use super::*;
use ashlar_types::{BLOCK_BYTES, ByteCount, ByteOffset, SnapshotId, VolumeId};
use proptest::prelude::*;

const SIZE: u64 = 64 * BLOCK_BYTES;

fn identity(base: Option<u128>) -> Identity {
    Identity {
        volume: VolumeId::from_u128(1),
        snapshot: SnapshotId::from_u128(2),
        base: base.map(SnapshotId::from_u128),
        size: ByteCount(SIZE),
    }
}

fn write(frames: &[Frame], writer: &mut Writer<&mut Vec<u8>>) {
    for frame in frames {
        match &frame.content {
            Content::Data(data) => writer.data(frame.offset, data),
            Content::Zeros => writer.zeros(frame.offset, frame.length),
        }
        .unwrap();
    }
}

fn stream(identity: Identity, frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(identity, &mut bytes).unwrap();
    write(frames, &mut writer);
    writer.finish().unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<(Identity, Vec<Frame>, Totals)> {
    let mut reader = Reader::open(bytes)?;
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        frames.push(frame);
    }
    Ok((reader.identity(), frames, reader.totals()))
}

fn data(block: u64, fill: u8) -> Frame {
    let (offset, length) = (ByteOffset(block * BLOCK_BYTES), ByteCount(BLOCK_BYTES));
    Frame { offset, length, content: Content::Data(vec![fill; BLOCK_BYTES as usize]) }
}

fn zeros(block: u64, blocks: u64) -> Frame {
    let (offset, length) = (ByteOffset(block * BLOCK_BYTES), ByteCount(blocks * BLOCK_BYTES));
    Frame { offset, length, content: Content::Zeros }
}

fn small() -> Vec<Frame> {
    vec![data(0, 0xA5), zeros(3, 9), data(63, 0)]
}

/// Ascending frames: gaps and lengths in blocks, kind, fill.
fn frames() -> impl Strategy<Value = Vec<Frame>> {
    proptest::collection::vec((0u64..4, 1u64..4, any::<Option<u8>>()), 0..9).prop_map(|parts| {
        let mut at = 0;
        let frame = |(gap, blocks, fill): (u64, u64, Option<u8>)| {
            let (offset, length) = (ByteOffset((at + gap) * BLOCK_BYTES), ByteCount(blocks * BLOCK_BYTES));
            at += gap + blocks;
            let content = fill.map_or(Content::Zeros, |fill| Content::Data(vec![fill; length.0 as usize]));
            Frame { offset, length, content }
        };
        parts.into_iter().map(frame).filter(|frame| frame.offset.0 + frame.length.0 <= SIZE).collect()
    })
}

proptest! {
    #[test]
    fn a_stream_survives_its_bytes(frames in frames(), base: Option<u128>) {
        let bytes = stream(identity(base), &frames);
        let (found, read, totals) = read(&bytes).unwrap();
        prop_assert_eq!(found, identity(base));
        prop_assert_eq!(&read, &frames);
        prop_assert_eq!(totals.frames, frames.len() as u64);
        let sum = |zeros: bool| {
            let of_kind = frames.iter().filter(|frame| (frame.content == Content::Zeros) == zeros);
            of_kind.map(|frame| frame.length.0).sum::<u64>()
        };
        prop_assert_eq!((totals.data.0, totals.zeros.0), (sum(false), sum(true)));
    }

    /// Cut off anywhere, with anything behind the cut.
    #[test]
    fn an_interrupted_stream_goes_on_to_the_same_bytes(
        frames in frames(), cut: prop::sample::Index, torn in proptest::collection::vec(any::<u8>(), 0..99)
    ) {
        let whole = stream(identity(None), &frames);
        let mut bytes = whole[..cut.index(whole.len())].to_vec();
        if bytes.len() > 128 {
            bytes.extend(torn);
        }
        let Some(found) = scan(identity(None), bytes.as_slice()).unwrap() else {
            prop_assert!(bytes.len() < 128);
            return Ok(());
        };
        prop_assert!(!found.is_complete());
        bytes.truncate(found.bytes() as usize);
        let done = found.totals().frames as usize;
        let mut writer = Writer::go_on(found, &mut bytes);
        write(&frames[done..], &mut writer);
        writer.finish().unwrap();
        prop_assert_eq!(bytes, whole);
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let whole = stream(identity(Some(3)), &small());
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn every_truncation_is_refused_as_one_and_everything_behind_the_end() {
    let whole = stream(identity(None), &small());
    for length in 0..whole.len() {
        assert!(
            matches!(read(&whole[..length]), Err(StreamError::Truncated { at }) if at == length as u64),
            "{length}"
        );
    }
    let more = [&whole[..], &[0]].concat();
    assert!(matches!(read(&more), Err(StreamError::Trailing { at }) if at == whole.len() as u64));
    assert!(matches!(scan(identity(None), more.as_slice()), Err(StreamError::Trailing { .. })));
}

/// Frames that are whole in themselves, but of another stream, in another order, twice or missing.
#[test]
fn whole_frames_in_the_wrong_place_are_refused() {
    let [one, other] = [1, 2].map(|fill| stream(identity(None), &[data(0, fill), data(1, 7), data(2, 7)]));
    let frame = |at: usize| 128 + at * (48 + 4096)..128 + (at + 1) * (48 + 4096);
    let put = |parts: &[&[u8]]| parts.concat();
    let header = &one[..128];
    let end = &one[frame(3).start..];
    let [first, second, third] = [0, 1, 2].map(|at| &one[frame(at)]);
    assert!(read(&put(&[header, first, second, third, end])).is_ok());
    for wrong in [
        put(&[header, first, third, end]),
        put(&[header, first, third, second, end]),
        put(&[header, first, first, second, third, end]),
        put(&[header, first, second, end]),
        put(&[header, &other[frame(0)], second, third, end]),
        put(&[header, first, second, &other[frame(2)], end]),
    ] {
        assert!(matches!(read(&wrong), Err(StreamError::Damaged { .. })));
    }
}

#[test]
fn later_versions_and_foreign_files_are_told_apart() {
    let mut bytes = stream(identity(None), &[]);
    bytes[8] = 2;
    assert!(matches!(read(&bytes), Err(StreamError::Newer(2))));
    assert!(matches!(scan(identity(None), bytes.as_slice()), Err(StreamError::Newer(2))));
    assert!(matches!(read(&[b'x'; 500]), Err(StreamError::Foreign)));
    assert!(matches!(scan(identity(None), &b"notes"[..]), Err(StreamError::Foreign)));
}

#[test]
fn an_export_does_not_go_on_with_another_stream() {
    let bytes = stream(identity(Some(9)), &small());
    assert!(matches!(scan(identity(None), bytes.as_slice()), Err(StreamError::Other { .. })));
    let found = scan(identity(Some(9)), bytes.as_slice()).unwrap().unwrap();
    assert!(found.is_complete() && found.bytes() == bytes.len() as u64);
    assert!(scan(identity(Some(9)), &bytes[..0]).unwrap().is_none());
}

#[test]
#[should_panic(expected = "a frame beyond the end of the volume")]
fn what_no_reader_takes_is_not_written() {
    let _ = Writer::begin(identity(None), Vec::new()).unwrap().zeros(ByteOffset(SIZE), ByteCount(BLOCK_BYTES));
}
