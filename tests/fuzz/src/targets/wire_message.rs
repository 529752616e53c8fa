//! One message: header fields, body and data, with right checksums. What decodes encodes to the same bytes.
//!
//! ```text
//! | opcode 1 | data blocks 1 | fill 1 | epoch 1 | body |
//! ```

use crate::reach;
use ashlar_types::{BLOCK_BYTES, Crc32, Epoch, Lsn, RequestId, SessionId};
use ashlar_wire::limits::{BLOCKS_PER_FRAME_MAX, HEADER_BYTES};
use ashlar_wire::{EncodedFrame, FrameHeader, Opcode, decode_reply, decode_request, encode_reply, encode_request};
use bytes::Bytes;

pub(crate) fn run(input: &[u8]) {
    let [opcode, blocks, fill, epoch, body @ ..] = input else { return };
    let Some(opcode) = Opcode::from_number(*opcode) else { return };
    let data_bytes = usize::from(*blocks).min(BLOCKS_PER_FRAME_MAX as usize) * BLOCK_BYTES as usize;
    let header = FrameHeader {
        opcode,
        body_bytes: body.len() as u32,
        data_bytes: data_bytes as u32,
        session: SessionId(u64::from(*fill)),
        request: RequestId(7),
        epoch: Epoch::new(u32::from(*epoch)).expect("a small epoch"),
        commit: Lsn::from_raw(u64::from(*epoch) << 40),
        body_crc: Crc32::of(body),
    };
    let read_back = FrameHeader::decode(&header.encode());
    assert_eq!(read_back, Ok(header), "a header survives its bytes");
    check_message(&header, body, Bytes::from(vec![*fill; data_bytes]));
}

/// Decodes in both directions; at most one of them knows the opcode.
pub(super) fn check_message(header: &FrameHeader, body: &[u8], data: Bytes) {
    let request = decode_request(header, body, data.clone());
    let reply = decode_reply(header, body, data.clone());
    assert!(request.is_err() || reply.is_err(), "an opcode belongs to one direction");
    if let Ok(request) = request {
        reach::note("request", &request.message);
        assert_same(&encode_request(&request), header, body, &data);
    }
    if let Ok(reply) = reply {
        reach::note("reply", &reply.message);
        assert_same(&encode_reply(&reply), header, body, &data);
    }
}

fn assert_same(encoded: &EncodedFrame, header: &FrameHeader, body: &[u8], data: &Bytes) {
    assert_eq!(encoded.head[..HEADER_BYTES], header.encode(), "the header's bytes");
    assert_eq!(&encoded.head[HEADER_BYTES..], body, "the body's bytes");
    assert_eq!(&encoded.data, data, "the data");
}
