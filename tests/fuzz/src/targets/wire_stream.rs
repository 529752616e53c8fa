//! A stream of frames as a link receives it, cut at places that the input names. However it is cut, the same frames
//! come out, and they are the stream's bytes.
//!
//! ```text
//! | mode 1 | cut 1 | stream |   mode: 1 = magic, version and checksums of every frame are made right
//! ```

use super::wire_message::check_message;
use ashlar_reactor::fuzz::{FrameStream, ReceivedFrame};
use ashlar_types::Crc32;
use ashlar_wire::limits::HEADER_BYTES;
use ashlar_wire::{MAGIC, VERSION, WireError};

pub(crate) fn run(input: &[u8]) {
    let [mode, cut, stream @ ..] = input else { return };
    let mut stream = stream.to_vec();
    if mode & 1 != 0 {
        seal_frames(&mut stream);
    }
    let whole = receive(&stream, stream.len().max(1), false);
    assert_eq!(whole, receive(&stream, usize::from(*cut) + 1, false), "the cut makes no difference");
    assert_eq!(whole, receive(&stream, usize::from(*cut) + 1, true), "nor do uneven cuts");
    let (frames, _) = whole;
    let received = frames.iter().flat_map(|frame| [&frame.header.encode()[..], &frame.body, &frame.data].concat());
    assert!(received.eq(stream.iter().copied().take(bytes_of(&frames))), "frames are the stream's bytes");
    for frame in frames {
        check_message(&frame.header, &frame.body, frame.data);
    }
}

fn receive(stream: &[u8], piece_bytes: usize, uneven: bool) -> (Vec<ReceivedFrame>, Result<(), WireError>) {
    let (mut link, mut frames, mut rest, mut next) = (FrameStream::default(), Vec::new(), stream, piece_bytes);
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(next.min(rest.len()));
        if let Err(error) = link.feed(piece, &mut frames) {
            return (frames, Err(error));
        }
        rest = left;
        next = if uneven { next * 3 % 8191 + 1 } else { next };
    }
    (frames, Ok(()))
}

fn bytes_of(frames: &[ReceivedFrame]) -> usize {
    frames.iter().map(|frame| HEADER_BYTES + frame.body.len() + frame.data.len()).sum()
}

/// Makes right what the fuzzer cannot guess, for every frame that lies wholly within the bytes.
fn seal_frames(stream: &mut [u8]) {
    let mut rest = stream;
    while rest.len() >= HEADER_BYTES {
        rest[..4].copy_from_slice(&MAGIC.to_le_bytes());
        rest[4] = VERSION;
        let length = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("4 bytes")) as usize;
        let (body_bytes, data_bytes) = (length(8), length(12));
        let body = rest.get(HEADER_BYTES..HEADER_BYTES.saturating_add(body_bytes));
        let body_crc = body.map_or(Crc32(0), Crc32::of);
        rest[56..60].copy_from_slice(&body_crc.0.to_le_bytes());
        let header_crc = Crc32::of(&rest[..60]);
        rest[60..64].copy_from_slice(&header_crc.0.to_le_bytes());
        let frame_bytes = HEADER_BYTES + body_bytes + data_bytes;
        let Some((_, after)) = rest.split_at_mut_checked(frame_bytes) else { return };
        rest = after;
    }
}
