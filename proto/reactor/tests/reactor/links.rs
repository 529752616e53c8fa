//! Connections: making them, holding the peer back, keeping order.

use crate::harness::{Loop, pattern};
use ashlar_reactor::{Completion, DownCause, Framing, Peer, ReactorConfig};
use ashlar_types::Duration;
use bytes::Bytes;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread;

const LOCALHOST: &str = "127.0.0.1:0";

#[test]
fn raw_bytes_go_both_ways_over_a_unix_socket() {
    let mut at = Loop::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = at.reactor.listen_unix(&path, Framing::RawBytes).unwrap();
    let mut peer = UnixStream::connect(&path).unwrap();
    let link = match at.next() {
        Completion::Accepted { listener: from, link, peer: Peer::Unix } if from == listener => link,
        other => panic!("{other:?} instead of a connection"),
    };
    let content = pattern(300_000, 1);
    let sent = content.clone();
    let other = thread::spawn(move || {
        peer.write_all(&sent).unwrap();
        let mut back = vec![0; sent.len()];
        peer.read_exact(&mut back).unwrap();
        (back, peer)
    });
    assert_eq!(at.raw_bytes(link, content.len()), content);
    at.reactor.send(link, [content.slice(..1), content.slice(1..)]);
    while at.reactor.queued_bytes(link) > 0 {
        assert!(at.next_within(Duration::from_millis(5)).is_none());
    }
    let (back, peer) = other.join().unwrap();
    assert_eq!(back, content);
    drop(peer);
    assert!(matches!(at.next(), Completion::LinkDown { cause: DownCause::Eof, reset: false, .. }));
}

#[test]
fn what_is_sent_before_the_link_is_up_arrives_after_it() {
    let mut at = Loop::new();
    let listener = TcpListener::bind(LOCALHOST).unwrap();
    let address = listener.local_addr().unwrap();
    let link = at.reactor.connect_tcp(address, Duration::from_secs(10), Framing::RawBytes).unwrap();
    at.reactor.send(link, [Bytes::from_static(b"early ")]);
    assert!(matches!(at.next(), Completion::LinkUp { link: up } if up == link));
    at.reactor.send(link, [Bytes::from_static(b"late")]);
    let (mut peer, _) = listener.accept().unwrap();
    assert!(at.next_within(Duration::ZERO).is_none());
    let mut all = [0; 10];
    peer.read_exact(&mut all).unwrap();
    assert_eq!(&all, b"early late");
}

#[test]
fn order_is_kept_through_partial_sends() {
    let mut at = Loop::new();
    let (_, address) = at.reactor.listen_tcp(LOCALHOST.parse().unwrap(), Framing::RawBytes).unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    let link = at.accepted();
    let content = pattern(24 << 20, 3);
    let expected = content.clone();
    let other = thread::spawn(move || {
        let mut all = vec![0; expected.len()];
        peer.read_exact(&mut all).unwrap();
        assert!(all == expected, "bytes were lost or swapped");
        // It stays open: its end would be told together with the last bytes sent.
        peer
    });
    let mut rest = content;
    let mut part_bytes = 1;
    while !rest.is_empty() {
        part_bytes = (part_bytes * 7 + 13) % 70_000;
        at.reactor.send(link, [rest.split_to(part_bytes.min(rest.len()))]);
        if at.reactor.queued_bytes(link) > 4 << 20 {
            assert!(at.next_within(Duration::ZERO).is_none());
        }
    }
    while at.reactor.queued_bytes(link) > 0 {
        assert!(at.next_within(Duration::from_millis(5)).is_none());
    }
    drop(other.join().unwrap());
}

#[test]
fn a_paused_link_holds_its_peer_back() {
    let mut at = Loop::new();
    let (_, address) = at.reactor.listen_tcp(LOCALHOST.parse().unwrap(), Framing::RawBytes).unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    let link = at.accepted();
    at.reactor.pause_reading(link);
    let content = pattern(32 << 20, 4);
    let sent = content.clone();
    let other = thread::spawn(move || peer.write_all(&sent).map(|()| peer).unwrap());
    let mut all = Vec::new();
    while let Some(completion) = at.next_within(Duration::from_millis(50)) {
        let Completion::RawBytes { bytes, .. } = completion else { panic!("{completion:?} instead of bytes") };
        all.extend_from_slice(&bytes);
    }
    assert!(all.len() <= 64 << 10, "{} bytes came on a paused link", all.len());
    assert!(!other.is_finished());
    at.reactor.resume_reading(link);
    all.extend(at.raw_bytes(link, content.len() - all.len()));
    assert!(all == content);
    other.join().unwrap();
}

#[test]
fn a_non_blocking_socket_can_be_adopted() {
    let mut at = Loop::new();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let link = at.reactor.adopt_socket(socket.into(), Framing::RawBytes).unwrap();
    assert!(at.next_within(Duration::ZERO).is_none());
    peer.write_all(b"hello").unwrap();
    assert_eq!(at.raw_bytes(link, 5), b"hello");
}

#[test]
fn a_refused_connection_is_a_reset() {
    let mut at = Loop::new();
    let address = TcpListener::bind(LOCALHOST).unwrap().local_addr().unwrap();
    let link = at.reactor.connect_tcp(address, Duration::from_secs(10), Framing::Frames).unwrap();
    match at.next() {
        Completion::LinkDown { link: down, cause: DownCause::Failed(error), reset: true } if down == link => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        other => panic!("{other:?} instead of a refusal"),
    }
}

/// A listener that never accepts and has room for one connection to wait.
fn full_listener() -> (std::os::fd::OwnedFd, SocketAddr, Vec<TcpStream>) {
    let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let address: SockaddrIn = getsockname(listener.as_raw_fd()).unwrap();
    let address = SocketAddr::V4(SocketAddrV4::from(address));
    let waiting = TcpStream::connect(address).unwrap();
    (listener, address, vec![waiting])
}

#[test]
fn connecting_ends_at_its_timeout() {
    let mut at = Loop::new();
    let (_listener, address, _waiting) = full_listener();
    let timeout = Duration::from_millis(100);
    let began = at.reactor.now();
    let link = at.reactor.connect_tcp(address, timeout, Framing::Frames).unwrap();
    match at.next() {
        Completion::LinkDown { link: down, cause: DownCause::ConnectTimedOut, reset: false } => assert_eq!(down, link),
        other => panic!("{other:?} instead of a timeout"),
    }
    assert!(at.reactor.now().since(began) >= timeout);
}

#[test]
fn links_are_bounded_and_those_that_wait_are_taken_when_one_ends() {
    let mut at = Loop::with(ReactorConfig { links_max: 2, ..ReactorConfig::default() });
    let (_, address) = at.reactor.listen_tcp(LOCALHOST.parse().unwrap(), Framing::RawBytes).unwrap();
    let mut peers: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let (first, _second) = (at.accepted(), at.accepted());
    assert!(at.next_within(Duration::from_millis(20)).is_none());
    let refused = at.reactor.connect_tcp(address, Duration::from_secs(1), Framing::RawBytes);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::QuotaExceeded);
    at.reactor.close(first);
    let third = at.accepted();
    peers[2].write_all(b"third").unwrap();
    assert_eq!(at.raw_bytes(third, 5), b"third");
}

#[test]
fn a_closed_listener_takes_no_connections_and_its_links_stay() {
    let mut at = Loop::new();
    let (listener, address) = at.reactor.listen_tcp(LOCALHOST.parse().unwrap(), Framing::RawBytes).unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    let link = at.accepted();
    at.reactor.close_listener(listener);
    assert!(at.next_within(Duration::from_millis(5)).is_none());
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    peer.write_all(b"still").unwrap();
    assert_eq!(at.raw_bytes(link, 5), b"still");
}

#[test]
fn the_end_of_a_paused_link_is_noticed_and_what_it_had_left_is_not_received() {
    let mut at = Loop::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    at.reactor.listen_unix(&path, Framing::RawBytes).unwrap();
    for resumed_between in [false, true] {
        let mut peer = UnixStream::connect(&path).unwrap();
        let link = at.accepted();
        at.reactor.pause_reading(link);
        if resumed_between {
            at.reactor.resume_reading(link);
            at.reactor.pause_reading(link);
        }
        // The receive that was in flight takes one byte or more; the rest stays where it is.
        peer.write_all(b"x").unwrap();
        assert_eq!(at.raw_bytes(link, 1), b"x");
        peer.write_all(b"left").unwrap();
        drop(peer);
        let end = at.next();
        assert!(matches!(end, Completion::LinkDown { cause: DownCause::Eof, reset: false, .. }), "{end:?}");
    }
}
