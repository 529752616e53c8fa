//! A stream of `ashlar snapshot export`. What is taken lies within the volume, ascending, and is written to the same
//! bytes again; what is taken as the beginning of one is a beginning of it.
//!
//! ```text
//! | mode 1 | the stream |        mode: 1 = marks, sequence and checksums are right
//! ```

use crate::reach;
use ashlar_changes::stream::{Content, DATA_BYTES_MAX, Reader, Writer, scan};
use ashlar_types::Crc32;

const HEADER_BYTES: usize = 128;
const HEAD_BYTES: usize = 48;

pub(crate) fn run(input: &[u8]) {
    let [mode, bytes @ ..] = input else { return };
    let mut bytes = bytes.to_vec();
    if mode & 1 != 0 {
        seal(&mut bytes);
    }
    let mut reader = match Reader::open(bytes.as_slice()) {
        Ok(reader) => reader,
        Err(error) => return reach::note("refused", &error),
    };
    let identity = reader.identity();
    reach::note("opened", &if identity.base.is_some() { "incremental" } else { "full" });
    let mut writer = Writer::begin(identity, Vec::new()).expect("memory takes it");
    let mut end = 0;
    let whole = loop {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                assert!(frame.offset.0 >= end && frame.length.0 > 0, "frames ascend");
                end = frame.offset.0 + frame.length.0;
                assert!(end <= identity.size.0, "a frame lies within the volume");
                match &frame.content {
                    Content::Data(data) => {
                        reach::note("frame", &"data");
                        assert!(data.len() as u64 == frame.length.0 && frame.length.0 <= DATA_BYTES_MAX);
                        writer.data(frame.offset, data).expect("memory takes it");
                    }
                    Content::Zeros => {
                        reach::note("frame", &"zeros");
                        writer.zeros(frame.offset, frame.length).expect("memory takes it");
                    }
                }
            }
            Ok(None) => break true,
            Err(error) => {
                reach::note("broken", &error);
                break false;
            }
        }
    };
    check_scan(identity, &bytes, whole);
    let (written, totals) = writer.finish().expect("memory takes it");
    let frames = &written[..written.len() - HEAD_BYTES];
    assert!(bytes.starts_with(frames), "what was taken is written to the same bytes");
    if whole {
        reach::note("stream", &"whole");
        assert_eq!(written, bytes);
        assert_eq!(totals, reader.totals());
    }
}

fn check_scan(identity: ashlar_changes::stream::Identity, bytes: &[u8], whole: bool) {
    if let Ok(found) = scan(identity, bytes) {
        let found = found.expect("a header is there");
        assert_eq!(found.is_complete(), whole);
        assert!(found.bytes() <= bytes.len() as u64, "no more is kept than is there");
    }
}

/// Marks, version, sequence and checksums as they must be, for as many frames as there are.
pub(crate) fn seal(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    bytes[..8].copy_from_slice(b"ASHLSTRM");
    bytes[8..10].copy_from_slice(&1u16.to_le_bytes());
    put_crc(bytes, 0, HEADER_BYTES - 4);
    let (mut at, mut sequence) = (HEADER_BYTES, 1u64);
    while bytes.len() >= at + HEAD_BYTES {
        let data = at + HEAD_BYTES;
        let is_data = bytes[at + 4..at + 6] == [1, 0];
        let length = u64::from_le_bytes(bytes[at + 24..at + 32].try_into().expect("8 bytes"));
        let length = if is_data { length.min((bytes.len() - data) as u64) as usize } else { 0 };
        let before = Crc32::of(&bytes[..at]);
        bytes[at..at + 4].copy_from_slice(b"ASHF");
        bytes[at + 8..at + 16].copy_from_slice(&sequence.to_le_bytes());
        bytes[at + 32..at + 36].copy_from_slice(&before.0.to_le_bytes());
        if is_data {
            let crc = Crc32::of(&bytes[data..data + length]);
            bytes[at + 36..at + 40].copy_from_slice(&crc.0.to_le_bytes());
        }
        put_crc(bytes, at, HEAD_BYTES - 4);
        (at, sequence) = (data + length, sequence + 1);
    }
}

/// Of the `length` bytes from `at` on, behind them.
fn put_crc(bytes: &mut [u8], at: usize, length: usize) {
    let crc = Crc32::of(&bytes[at..at + length]);
    bytes[at + length..at + length + 4].copy_from_slice(&crc.0.to_le_bytes());
}
