//! Byte by byte: requests, and what must be sent for them.

use super::*;

fn export(read_only: bool) -> Export {
    Export { name: "vol".to_owned(), size: ByteCount(1 << 20), read_only }
}

fn request(flags: u16, kind: u16, offset: u64, length: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(7u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(data);
    bytes
}

fn parse_one(bytes: &[u8], agreement: Agreement, read_only: bool) -> Parsed {
    let mut input = Input::default();
    input.push(Bytes::copy_from_slice(bytes));
    parse(&export(read_only), agreement, &mut input)
}

const LAX: Agreement = Agreement { structured: false, block_sizes: false };
const STRICT: Agreement = Agreement { structured: true, block_sizes: true };

#[test]
fn requests_wait_until_they_are_whole() {
    let whole = request(1, 1, 4096, 4096, &[9; 4096]);
    let mut input = Input::default();
    for &byte in &whole[..whole.len() - 1] {
        input.push(Bytes::copy_from_slice(&[byte]));
        assert_eq!(parse(&export(false), STRICT, &mut input), Parsed::Wait);
    }
    input.push(Bytes::from_static(&[9]));
    let command = Command::Write { offset: ByteOffset(4096), data: Bytes::from(vec![9; 4096]) };
    assert_eq!(parse(&export(false), STRICT, &mut input), Parsed::Request { cookie: Cookie(7), command });
    assert_eq!(input.len(), 0);
}

#[test]
fn every_command_is_understood() {
    let (offset, bytes) = (ByteOffset(8192), ByteCount(4096));
    for (kind, flags, command) in [
        (0, 4, Command::Read { offset, bytes }),
        (4, 1, Command::Trim { offset, bytes }),
        (6, 3, Command::Zero { offset, bytes }),
    ] {
        let parsed = parse_one(&request(flags, kind, 8192, 4096, b""), STRICT, false);
        assert_eq!(parsed, Parsed::Request { cookie: Cookie(7), command });
    }
    let flush = parse_one(&request(0, 3, 0, 0, b""), STRICT, false);
    assert_eq!(flush, Parsed::Request { cookie: Cookie(7), command: Command::Flush });
    let cache = parse_one(&request(0, 5, 0, 4096, b""), STRICT, false);
    assert_eq!(cache, Parsed::Answer { cookie: Cookie(7), result: Ok(()) });
    assert_eq!(parse_one(&request(0, 2, 0, 0, b""), STRICT, false), Parsed::Disconnect);
}

#[test]
fn unaligned_requests_are_for_clients_that_were_not_told_of_block_sizes() {
    let read = request(0, 0, 512, 512, b"");
    assert!(matches!(parse_one(&read, LAX, false), Parsed::Request { .. }));
    let refused = Parsed::ReadRefused { cookie: Cookie(7), error: NbdError::Invalid };
    assert_eq!(parse_one(&read, STRICT, false), refused);
}

#[test]
fn what_is_not_allowed_is_answered_with_an_error() {
    use NbdError::{Invalid, NoSpace, NotPermitted};
    for (bytes, read_only, error) in [
        (request(0, 1, 0, 4096, &[0; 4096]), true, NotPermitted),
        (request(0, 4, 0, 4096, b""), true, NotPermitted),
        (request(0, 1, 1 << 20, 4096, &[0; 4096]), false, NoSpace),
        (request(0, 6, u64::MAX - 4095, 4096, b""), false, Invalid),
        (request(0, 6, 0, 0, b""), false, Invalid),
        (request(16, 6, 0, 4096, b""), false, Invalid),
        (request(0, 7, 0, 4096, b""), false, Invalid),
        (request(0, 99, 0, 4096, b""), false, Invalid),
        (request(0, 3, 0, 1, b""), false, Invalid),
    ] {
        let expected = Parsed::Answer { cookie: Cookie(7), result: Err(error) };
        assert_eq!(parse_one(&bytes, LAX, read_only), expected);
    }
    let beyond = parse_one(&request(0, 0, 1 << 20, 4096, b""), LAX, false);
    assert_eq!(beyond, Parsed::ReadRefused { cookie: Cookie(7), error: Invalid });
    let too_long = parse_one(&request(0, 0, 0, u32::MAX, b""), LAX, false);
    assert_eq!(too_long, Parsed::ReadRefused { cookie: Cookie(7), error: Invalid });
}

#[test]
fn what_cannot_be_understood_ends_the_connection() {
    assert!(matches!(parse_one(&[0; 28], LAX, false), Parsed::Close(_)));
    let oversize = request(0, 1, 0, PAYLOAD_BYTES_MAX + 1, b"");
    assert!(matches!(parse_one(&oversize, LAX, false), Parsed::Close(_)));
}

#[test]
fn replies_have_the_bytes_of_the_protocol() {
    assert_eq!(*simple_reply(Cookie(7), Ok(())), *b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x07");
    let refused = simple_reply(Cookie(7), Err(NbdError::NoSpace));
    assert_eq!(*refused, *b"\x67\x44\x66\x98\0\0\0\x1c\0\0\0\0\0\0\0\x07");
    assert_eq!(read_head(LAX, Cookie(7), ByteOffset(0), 512), simple_reply(Cookie(7), Ok(())));
    let head = read_head(STRICT, Cookie(7), ByteOffset(4096), 512);
    let expected = b"\x66\x8e\x33\xef\0\x01\0\x01\0\0\0\0\0\0\0\x07\0\0\x02\x08\0\0\0\0\0\0\x10\0";
    assert_eq!(*head, *expected);
    let error = read_error(STRICT, Cookie(7), NbdError::Io, "no");
    assert_eq!(*error, *b"\x66\x8e\x33\xef\0\x01\x80\x01\0\0\0\0\0\0\0\x07\0\0\0\x08\0\0\0\x05\0\x02no");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(tail in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
        let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
        bytes.extend(tail);
        for agreement in [LAX, STRICT] {
            parse_one(&bytes, agreement, false);
        }
    }
}
