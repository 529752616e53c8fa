//! Frames over real connections: whole, in order, aligned, or the link ends.

use crate::harness::{Loop, frame, header, pattern};
use ashlar_reactor::{Completion, DownCause, Framing, LinkId, Reactor, ReactorConfig};
use ashlar_types::{Duration, Instant};
use ashlar_wire::limits::DATA_BYTES_MAX;
use ashlar_wire::{FrameHeader, WireError};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;

fn listening() -> (Loop, SocketAddr) {
    let mut at = Loop::new();
    let (_, address) = at.reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), Framing::Frames).unwrap();
    (at, address)
}

fn next_frame(at: &mut Loop) -> (FrameHeader, Bytes, Bytes) {
    match at.next() {
        Completion::Frame { header, body, data, .. } => (header, body, data),
        other => panic!("{other:?} instead of a frame"),
    }
}

#[test]
fn frames_arrive_whole_in_pieces_and_in_bulk() {
    let (mut at, address) = listening();
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_nodelay(true).unwrap();
    at.accepted();
    let frames = [(0, 0), (40, 4096), (7, 0), (900, 65536)].map(|(body, data)| (pattern(body, 1), pattern(data, 2)));
    let stream: Vec<u8> = frames.iter().zip(0..).flat_map(|((body, data), n)| frame(n, body, data).concat()).collect();
    for piece_bytes in [1000, 20_000, stream.len()] {
        for piece in stream.chunks(piece_bytes) {
            peer.write_all(piece).unwrap();
        }
        for (number, (body, data)) in frames.iter().enumerate() {
            let (got_header, got_body, got_data) = next_frame(&mut at);
            assert_eq!(got_header, header(number as u64, body.len(), data.len()));
            assert_eq!((&got_body, &got_data), (body, data));
            assert!(got_data.is_empty() || (got_data.as_ptr() as usize).is_multiple_of(4096));
        }
    }
}

#[test]
fn a_header_beyond_the_limits_ends_the_link() {
    let (mut at, address) = listening();
    let mut peer = TcpStream::connect(address).unwrap();
    let accepted = at.accepted();
    let too_long = header(0, 0, DATA_BYTES_MAX + 4096);
    peer.write_all(&too_long.encode()).unwrap();
    match at.next() {
        Completion::LinkDown { link, cause: DownCause::Protocol(error), reset: false } => {
            assert_eq!((link, error), (accepted, WireError::DataLength(too_long.data_bytes)));
        }
        other => panic!("{other:?} instead of the end of the link"),
    }
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_stranger_is_disconnected_after_the_frames_before() {
    let (mut at, address) = listening();
    let mut peer = TcpStream::connect(address).unwrap();
    at.accepted();
    let mut stream = frame(5, &Bytes::new(), &Bytes::new()).concat();
    stream.extend_from_slice(&[b'G'; 64]);
    peer.write_all(&stream).unwrap();
    assert_eq!(next_frame(&mut at).0.request.0, 5);
    let end = at.next();
    assert!(matches!(end, Completion::LinkDown { cause: DownCause::Protocol(WireError::Magic(_)), .. }), "{end:?}");
}

/// Answers every frame with the same frame, until its peer closes.
fn echo(addresses: mpsc::Sender<SocketAddr>) {
    let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let (_, address) = reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), Framing::Frames).unwrap();
    addresses.send(address).unwrap();
    let mut completions = Vec::new();
    loop {
        reactor.wait(Instant::FAR, &mut completions).unwrap();
        for completion in completions.drain(..) {
            match completion {
                Completion::Accepted { .. } => {}
                Completion::Frame { link, header, body, data } => {
                    reactor.send(link, [Bytes::copy_from_slice(&header.encode()), body, data]);
                }
                Completion::LinkDown { .. } => return,
                other => panic!("{other:?} instead of frames"),
            }
        }
    }
}

fn connect(at: &mut Loop, address: SocketAddr) -> LinkId {
    let link = at.reactor.connect_tcp(address, Duration::from_secs(10), Framing::Frames).unwrap();
    assert!(matches!(at.next(), Completion::LinkUp { link: up } if up == link));
    link
}

#[test]
fn largest_frames_go_both_ways_between_two_reactors() {
    let (sender, addresses) = mpsc::channel();
    let other = thread::spawn(move || echo(sender));
    let mut at = Loop::new();
    let link = connect(&mut at, addresses.recv().unwrap());
    let contents: Vec<Bytes> = (0..8).map(|seed| pattern(DATA_BYTES_MAX, seed)).collect();
    let body = pattern(1100, 9);
    let (mut sent, mut received) = (0, 0);
    while received < 200 {
        while sent < 200 && sent < received + 6 {
            at.reactor.send(link, frame(sent, &body, &contents[sent as usize % 8]));
            sent += 1;
        }
        let (header, got_body, data) = next_frame(&mut at);
        assert_eq!(header.request.0, received);
        assert!(got_body == body && data == contents[received as usize % 8]);
        assert_eq!(data.as_ptr() as usize % 4096, 0);
        received += 1;
    }
    assert_eq!(at.reactor.queued_bytes(link), 0);
    at.reactor.close(link);
    other.join().unwrap();
}

#[test]
fn what_is_queued_in_a_turn_goes_out_in_one_call() {
    let (sender, addresses) = mpsc::channel();
    let other = thread::spawn(move || echo(sender));
    let mut at = Loop::new();
    let link = connect(&mut at, addresses.recv().unwrap());
    let before = at.reactor.stats();
    let data = pattern(4096, 1);
    (0..64).for_each(|n| at.reactor.send(link, frame(n, &Bytes::new(), &data)));
    for n in 0..64 {
        assert_eq!(next_frame(&mut at).0.request.0, n);
    }
    let after = at.reactor.stats();
    assert_eq!(after.sent_bytes - before.sent_bytes, 64 * (64 + 4096));
    assert!(after.enters - before.enters < 64, "{} calls for 64 frames both ways", after.enters - before.enters);
    at.reactor.close(link);
    other.join().unwrap();
}
