//! How links end: by the peer, by the caller, in the middle of things.

use crate::harness::{Loop, pattern, watched};
use ashlar_reactor::{Completion, DownCause, Framing, LinkId};
use ashlar_types::Duration;
use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

fn connected(framing: Framing) -> (Loop, LinkId, TcpStream) {
    let mut at = Loop::new();
    let (_, address) = at.reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), framing).unwrap();
    let peer = TcpStream::connect(address).unwrap();
    let link = at.accepted();
    (at, link, peer)
}

#[test]
fn a_reset_by_the_peer_is_told_from_a_close() {
    let (mut at, link, peer) = connected(Framing::Frames);
    // Closing with no time to linger resets the connection.
    setsockopt(&peer, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(peer);
    let end = at.next();
    assert!(matches!(end, Completion::LinkDown { link: down, reset: true, .. } if down == link), "{end:?}");

    let (mut at, link, peer) = connected(Framing::Frames);
    drop(peer);
    let end = at.next();
    assert!(
        matches!(end, Completion::LinkDown { link: down, cause: DownCause::Eof, reset: false } if down == link),
        "{end:?}"
    );
}

#[test]
fn a_link_closed_in_the_middle_of_a_send_frees_what_it_had_and_says_no_more() {
    let (mut at, link, mut peer) = connected(Framing::RawBytes);
    let (bytes, watch) = watched(64 << 20);
    at.reactor.send(link, [bytes]);
    peer.write_all(b"unread").unwrap();
    while at.reactor.queued_bytes(link) == 0 || at.next_within(Duration::ZERO).is_none() {}
    assert!(at.reactor.queued_bytes(link) > 0, "the peer does not read");
    at.reactor.close(link);
    while Arc::strong_count(&watch) > 1 {
        assert!(at.next_within(Duration::from_millis(1)).is_none());
    }
    assert_eq!(at.reactor.queued_bytes(link), 0);
    let mut all = Vec::new();
    // The end comes as an end or, with bytes unread, as a reset.
    let ended = peer.read_to_end(&mut all).map_err(|error| error.kind());
    assert!(matches!(ended, Ok(_) | Err(std::io::ErrorKind::ConnectionReset)), "{ended:?}");
    assert!(all.len() < 64 << 20);
}

#[test]
fn a_link_closed_in_the_middle_of_a_large_receive_says_no_more() {
    let (mut at, link, mut peer) = connected(Framing::Frames);
    let whole = crate::harness::frame(1, &Bytes::new(), &pattern(1 << 20, 1)).concat();
    peer.write_all(&whole[..100_000]).unwrap();
    assert!(at.next_within(Duration::from_millis(20)).is_none());
    let in_flight = at.reactor.operations_in_flight();
    at.reactor.close(link);
    assert!(at.next_within(Duration::from_millis(5)).is_none());
    assert_eq!(at.reactor.operations_in_flight(), in_flight - 1);
}

#[test]
fn a_connect_that_is_closed_says_no_more() {
    let mut at = Loop::new();
    let (_, address) = at.reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), Framing::RawBytes).unwrap();
    let link = at.reactor.connect_tcp(address, Duration::from_secs(10), Framing::RawBytes).unwrap();
    at.reactor.close(link);
    while let Some(completion) = at.next_within(Duration::from_millis(20)) {
        let about_the_other_end = match &completion {
            Completion::Accepted { link: other, .. } | Completion::LinkDown { link: other, .. } => *other != link,
            _ => false,
        };
        assert!(about_the_other_end, "{completion:?}");
    }
}

#[test]
fn the_last_bytes_arrive_even_if_the_peer_is_still_sending() {
    let (mut at, link, mut peer) = connected(Framing::RawBytes);
    let content = pattern(8 << 20, 2);
    let expected = content.clone();
    peer.write_all(b"requests that nobody reads any more").unwrap();
    let other = thread::spawn(move || {
        let mut all = Vec::new();
        peer.write_all(&[1; 100_000]).unwrap();
        peer.read_to_end(&mut all).unwrap();
        assert!(all == expected, "{} bytes of {}", all.len(), expected.len());
    });
    at.reactor.send(link, [content]);
    at.reactor.close_after_sent(link);
    at.reactor.send(link, [Bytes::from_static(b"too late")]);
    let end = at.next();
    assert!(
        matches!(end, Completion::LinkDown { link: down, cause: DownCause::Closed, reset: false } if down == link),
        "{end:?}"
    );
    other.join().unwrap();
}

#[test]
fn a_peer_that_does_not_take_the_last_bytes_is_left() {
    let (mut at, link, peer) = connected(Framing::RawBytes);
    let (bytes, watch) = watched(64 << 20);
    at.reactor.send(link, [bytes]);
    at.reactor.close_after_sent(link);
    let end = at.next();
    assert!(matches!(end, Completion::LinkDown { cause: DownCause::Failed(_), reset: false, .. }), "{end:?}");
    while Arc::strong_count(&watch) > 1 {
        assert!(at.next_within(Duration::from_millis(1)).is_none());
    }
    drop(peer);
}

#[test]
fn calls_with_the_name_of_a_link_that_is_gone_do_nothing_even_when_its_place_is_taken() {
    let (mut at, link, peer) = connected(Framing::RawBytes);
    drop(peer);
    assert!(matches!(at.next(), Completion::LinkDown { .. }));
    let (socket, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
    let fresh = at.reactor.adopt_socket(socket.into(), Framing::RawBytes).unwrap();
    assert_ne!(fresh, link);
    at.reactor.send(link, [Bytes::from_static(b"lost")]);
    at.reactor.pause_reading(link);
    at.reactor.resume_reading(link);
    at.reactor.close_after_sent(link);
    at.reactor.close(link);
    assert_eq!(at.reactor.stats().stale_calls, 5);
    at.reactor.send(fresh, [Bytes::from_static(b"arrives")]);
    assert!(at.next_within(Duration::ZERO).is_none());
    let mut got = [0; 7];
    other.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"arrives");
}
