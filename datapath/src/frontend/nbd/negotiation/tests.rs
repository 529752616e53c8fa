//! Byte by byte: what a client sends and what it must get.

use super::*;

fn export() -> Export {
    Export { name: "vol".to_owned(), size: ByteCount(0x1000_0000), read_only: false }
}

/// Runs a whole conversation given at once; checks that cutting it into single bytes gives the same.
fn converse(client: &[u8]) -> (Vec<u8>, Step) {
    let whole = converse_in_pieces(client, client.len().max(1));
    assert_eq!(whole, converse_in_pieces(client, 1));
    whole
}

fn converse_in_pieces(client: &[u8], piece_bytes: usize) -> (Vec<u8>, Step) {
    let (mut input, mut output) = (Input::default(), BytesMut::new());
    let mut negotiation = Negotiation::new(&mut output);
    output.clear();
    let mut step = Step::Wait;
    for piece in client.chunks(piece_bytes) {
        input.push(Bytes::copy_from_slice(piece));
        if step == Step::Wait {
            step = negotiation.advance(&export(), &mut input, &mut output);
        }
    }
    (output.to_vec(), step)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

const FLAGS: &str = "00000003";
const HEAD: &str = "49484156454f5054";

fn client(options: &str) -> Vec<u8> {
    hex(&format!("{FLAGS} {options}"))
}

#[test]
fn greeting_is_fixed_newstyle_without_zeroes() {
    let mut output = BytesMut::new();
    Negotiation::new(&mut output);
    assert_eq!(output, hex("4e42444d41474943 49484156454f5054 0003"));
}

#[test]
fn go_brings_size_flags_and_block_sizes() {
    let go = format!("{HEAD} 00000007 00000008 00000000 0001 0003");
    let (sent, step) = converse(&client(&go));
    assert_eq!(step, Step::Transmission(Agreement { structured: false, block_sizes: true }));
    let expected = "0003e889045565a9 00000007 00000003 0000000c 0000 0000000010000000 05ed
                    0003e889045565a9 00000007 00000003 0000000e 0003 00001000 00001000 02000000
                    0003e889045565a9 00000007 00000001 00000000";
    assert_eq!(sent, hex(expected));
}

#[test]
fn export_name_ends_the_negotiation_with_or_without_zeroes() {
    let by_name = format!("{HEAD} 00000001 00000003 766f6c");
    let (sent, step) = converse(&client(&by_name));
    assert_eq!(step, Step::Transmission(Agreement::default()));
    assert_eq!(sent, hex("0000000010000000 05ed"));
    let (sent, _) = converse(&hex(&format!("00000001 {by_name}")));
    assert_eq!(sent.len(), 10 + 124);
}

#[test]
fn structured_replies_are_agreed_once_asked_for() {
    let options = format!("{HEAD} 00000008 00000000 {HEAD} 00000007 00000006 00000000 0000");
    let (sent, step) = converse(&client(&options));
    assert_eq!(step, Step::Transmission(Agreement { structured: true, block_sizes: false }));
    assert_eq!(sent[..20], hex("0003e889045565a9 00000008 00000001 00000000"));
}

#[test]
fn list_info_and_abort_are_answered() {
    let options =
        format!("{HEAD} 00000003 00000000 {HEAD} 00000006 0000000b 00000003 766f6c 0001 0001 {HEAD} 00000002 00000000");
    let (sent, step) = converse(&client(&options));
    assert!(matches!(step, Step::Close(_)));
    assert_eq!(sent[..27], hex("0003e889045565a9 00000003 00000002 00000007 00000003 766f6c"));
    let named = hex("0003e889045565a9 00000006 00000003 00000005 0001 766f6c");
    assert!(sent.windows(named.len()).any(|window| window == named));
    assert_eq!(sent[sent.len() - 20..], hex("0003e889045565a9 00000002 00000001 00000000"));
}

#[test]
fn options_that_are_not_offered_are_refused_and_the_conversation_goes_on() {
    let go = format!("{HEAD} 00000007 00000006 00000000 0000");
    for (option, refusal) in [
        ("00000005 00000000", 0x8000_0001u32),
        ("0000000b 00000000", 0x8000_0001),
        ("0000000a 00000000", 0x8000_0003),
        ("00000003 00000001 00", 0x8000_0003),
        ("00000008 00000001 00", 0x8000_0003),
        ("00000007 00000004 00000000", 0x8000_0003),
        ("00000007 00000006 ffffffff 0000", 0x8000_0003),
        ("00000007 00000006 00000000 0005", 0x8000_0003),
        ("00000006 00000007 00000001 78 0000", 0x8000_0006),
    ] {
        let (sent, step) = converse(&client(&format!("{HEAD} {option} {go}")));
        assert!(matches!(step, Step::Transmission(_)), "{option}: {step:?}");
        assert_eq!(sent[12..16], refusal.to_be_bytes(), "{option}");
    }
}

#[test]
fn clients_that_break_the_protocol_are_closed() {
    for bytes in [
        hex("00000000"),
        hex("00000007"),
        client("4948415645000000 00000007 00000000"),
        client(&format!("{HEAD} 00000007 00010001")),
        client(&format!("{HEAD} 00000001 00000001 78")),
    ] {
        let (_, step) = converse(&bytes);
        assert!(matches!(step, Step::Close(_)), "{bytes:02x?}: {step:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_negotiation_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let mut client = client(HEAD);
        client.extend(bytes);
        converse(&client);
    }
}
