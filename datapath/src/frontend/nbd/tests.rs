//! The server on a real reactor and a real socket, over a volume that is an array of bytes.

use super::testing::request;
use super::*;
use ashlar_reactor::{Completion, ReactorConfig};
use ashlar_types::{Duration, Instant};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};

const SIZE: usize = 4 << 20;
/// Two receives of the reactor, the first of which ended in the middle of a request.
const INPUT_BYTES_MAX: usize = 3 * (64 << 10);

/// What the volume answers in one turn: few, so that requests pile up.
const ANSWERS_PER_TURN: usize = 8;

/// The most that the server had of its clients.
#[derive(Default)]
struct Most {
    requests: usize,
    /// Bytes that were not understood yet.
    input: usize,
    /// Bytes of replies that were not sent yet.
    replies: usize,
}

fn serve<R: Send + 'static>(client: impl FnOnce(UnixStream) -> R + Send + 'static) -> (R, Most) {
    serve_telling(|stream, _| client(stream))
}

/// Serves until the client is done; gives what it returned. The client hears when one is held back for the replies
/// that it has not taken, and nothing else is to be done.
fn serve_telling<R: Send + 'static>(client: impl FnOnce(UnixStream, Receiver<()>) -> R + Send + 'static) -> (R, Most) {
    let (tell, told) = mpsc::sync_channel(1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let export = Export { name: "vol".to_owned(), size: ByteCount(SIZE as u64), read_only: false };
    let mut server = NbdServer::listen(&mut reactor, &path, export).unwrap();
    let waker = reactor.waker();
    let thread = std::thread::spawn(move || {
        let result = client(UnixStream::connect(path).unwrap(), told);
        waker.wake();
        result
    });
    let (mut content, mut waiting, mut most) = (vec![0; SIZE], VecDeque::new(), Most::default());
    let mut completions = Vec::new();
    loop {
        if waiting.is_empty() && server.waits_for_clients() {
            // Once is enough, and the client may have gone on.
            tell.try_send(()).ok();
        }
        let deadline = match (waiting.is_empty(), server.waits_for_clients()) {
            (false, _) => Instant::ZERO,
            (true, true) => reactor.now() + Duration::from_millis(1),
            (true, false) => Instant::FAR,
        };
        reactor.wait(deadline, &mut completions).unwrap();
        let mut calls = Calls::new();
        server.go_on(&mut reactor, &mut calls);
        for completion in completions.drain(..) {
            match completion {
                Completion::Accepted { link, .. } => assert!(server.accept(&mut reactor, link)),
                Completion::RawBytes { link, bytes } => server.received(&mut reactor, link, bytes, &mut calls),
                Completion::LinkDown { link, .. } => server.link_down(link),
                Completion::Woken => {
                    server.close(&mut reactor);
                    return (thread.join().unwrap(), most);
                }
                other => panic!("{other:?}"),
            }
        }
        waiting.extend(calls.drain(..));
        most.requests = most.requests.max(waiting.len());
        for (&link, connection) in &server.connections {
            most.input = most.input.max(connection.input.len());
            most.replies = most.replies.max(reactor.queued_bytes(link));
        }
        for (origin, request) in waiting.drain(..ANSWERS_PER_TURN.min(waiting.len())).collect::<Vec<_>>() {
            let Origin::Nbd(origin) = origin else { panic!("an NBD server makes NBD calls") };
            server.answer(&mut reactor, origin, perform(&mut content, request), &mut calls);
        }
        waiting.extend(calls);
    }
}

fn perform(content: &mut [u8], request: GuestRequest) -> GuestResult {
    match request {
        GuestRequest::Read { offset, bytes } => {
            Ok(Bytes::copy_from_slice(&content[offset.0 as usize..(offset.0 + bytes.0) as usize]))
        }
        GuestRequest::Write { offset, data } => {
            content[offset.0 as usize..][..data.len()].copy_from_slice(&data);
            Ok(Bytes::new())
        }
        GuestRequest::Zero { .. } => Err(GuestError::NoSpace),
        GuestRequest::Trim { .. } | GuestRequest::Flush => Ok(Bytes::new()),
    }
}

/// Through the negotiation, with structured replies and block sizes agreed on.
fn negotiated(mut stream: UnixStream) -> UnixStream {
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).unwrap();
    let mut hello = 3u32.to_be_bytes().to_vec();
    for (option, data) in [(8u32, &b""[..]), (7, b"\0\0\0\0\0\x01\0\x03")] {
        hello.extend(b"IHAVEOPT");
        hello.extend(option.to_be_bytes());
        hello.extend((data.len() as u32).to_be_bytes());
        hello.extend(data);
    }
    stream.write_all(&hello).unwrap();
    let mut replies = vec![0; 20 + (20 + 12) + (20 + 14) + 20];
    stream.read_exact(&mut replies).unwrap();
    stream
}

/// Error and cookie of a simple reply.
fn simple(stream: &mut UnixStream) -> (u32, u64) {
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], 0x6744_6698u32.to_be_bytes());
    let error = u32::from_be_bytes(reply[4..8].try_into().unwrap());
    (error, u64::from_be_bytes(reply[8..].try_into().unwrap()))
}

#[test]
fn a_client_with_too_much_under_way_is_held_back_and_loses_nothing() {
    const WRITES: u64 = 600;
    let (read, most) = serve(|stream| {
        let mut stream = negotiated(stream);
        let mut sender = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            for i in 0..WRITES {
                sender.write_all(&request(1, i, i * 4096, 4096)).unwrap();
                sender.write_all(&[i as u8; 4096]).unwrap();
            }
        });
        let mut answered: Vec<(u32, u64)> = (0..WRITES).map(|_| simple(&mut stream)).collect();
        writing.join().unwrap();
        answered.sort_unstable();
        assert_eq!(answered, (0..WRITES).map(|i| (0, i)).collect::<Vec<_>>());
        let bytes = WRITES as u32 * 4096;
        stream.write_all(&request(0, 7, 0, bytes)).unwrap();
        let mut reply = vec![0; 28 + bytes as usize];
        stream.read_exact(&mut reply).unwrap();
        reply.split_off(28)
    });
    assert!(read.chunks(4096).enumerate().all(|(i, block)| block.iter().all(|&byte| byte == i as u8)));
    assert!(most.requests <= REQUESTS_MAX, "{} were under way", most.requests);
    assert!(most.input <= INPUT_BYTES_MAX, "{} bytes were kept", most.input);
}

#[test]
fn a_client_that_does_not_take_its_replies_is_held_back_and_loses_nothing() {
    const READS: u64 = 40;
    let (cookies, most) = serve_telling(|stream, held_back| {
        let mut stream = negotiated(stream);
        for cookie in 0..READS {
            stream.write_all(&request(0, cookie, 0, SIZE as u32)).unwrap();
        }
        held_back.recv().unwrap();
        let mut reply = vec![0; 28 + SIZE];
        let mut next = || {
            stream.read_exact(&mut reply).unwrap();
            u64::from_be_bytes(reply[8..16].try_into().unwrap())
        };
        (0..READS).map(|_| next()).collect::<Vec<_>>()
    });
    assert!(cookies.into_iter().eq(0..READS));
    let bound = REPLY_BYTES_MAX + REQUEST_BYTES_MAX as usize + SIZE;
    assert!(most.replies <= bound, "{} bytes waited for the client", most.replies);
}

#[test]
fn errors_of_the_volume_reach_the_client_and_goodbye_waits_for_answers() {
    let (end, _) = serve(|stream| {
        let mut stream = negotiated(stream);
        let requests = [request(6, 1, 0, 4096), request(3, 2, 0, 0), request(4, 3, 0, 4096), request(2, 4, 0, 0)];
        stream.write_all(&requests.concat()).unwrap();
        assert_eq!([simple(&mut stream), simple(&mut stream), simple(&mut stream)], [(28, 1), (0, 2), (0, 3)]);
        stream.read(&mut [0]).unwrap()
    });
    assert_eq!(end, 0, "the server closes after the last answer");
}

#[test]
fn garbage_closes_one_connection_and_not_the_server() {
    serve(|mut garbled| {
        let address = garbled.peer_addr().unwrap();
        let mut sound = negotiated(UnixStream::connect(address.as_pathname().unwrap()).unwrap());
        garbled.read_exact(&mut [0; 18]).unwrap();
        garbled.write_all(&[0xff; 64]).unwrap();
        assert_eq!(garbled.read(&mut [0]).unwrap(), 0);
        sound.write_all(&request(3, 9, 0, 0)).unwrap();
        assert_eq!(simple(&mut sound), (0, 9));
    });
}

#[test]
fn what_a_dead_client_had_left_unread_is_not_written_after_a_later_client_s_write() {
    const OLD: u8 = 1;
    const NEW: u8 = 2;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let export = Export { name: "vol".to_owned(), size: ByteCount(SIZE as u64), read_only: false };
    let mut server = NbdServer::listen(&mut reactor, &path, export).unwrap();
    let waker = reactor.waker();
    let clients = std::thread::spawn(move || {
        let write = |stream: &mut UnixStream, fill: u8| {
            stream.write_all(&[request(1, 0, 0, 4096), vec![fill; 4096]].concat()).unwrap();
        };
        let mut first = negotiated(UnixStream::connect(&path).unwrap());
        (0..REQUESTS_MAX + 10).for_each(|_| write(&mut first, OLD));
        drop(first);
        let mut second = negotiated(UnixStream::connect(&path).unwrap());
        write(&mut second, NEW);
        assert_eq!(simple(&mut second), (0, 0));
        waker.wake();
    });
    // The volume answers none of the first client's writes before the second one has its answer.
    let (mut held, mut calls, mut completions) = (Vec::new(), Calls::new(), Vec::new());
    let mut is_answered = false;
    while !is_answered {
        reactor.wait(Instant::FAR, &mut completions).unwrap();
        for completion in completions.drain(..) {
            match completion {
                Completion::Accepted { link, .. } => assert!(server.accept(&mut reactor, link)),
                Completion::RawBytes { link, bytes } => server.received(&mut reactor, link, bytes, &mut calls),
                Completion::LinkDown { link, .. } => server.link_down(link),
                Completion::Woken => is_answered = true,
                other => panic!("{other:?}"),
            }
        }
        for (origin, request) in std::mem::take(&mut calls) {
            let Origin::Nbd(origin) = origin else { panic!("an NBD server makes NBD calls") };
            match request {
                GuestRequest::Write { data, .. } if data[0] == OLD => held.push(origin),
                _ => server.answer(&mut reactor, origin, Ok(Bytes::new()), &mut calls),
            }
        }
    }
    clients.join().unwrap();
    assert_eq!(held.len(), REQUESTS_MAX);
    held.into_iter().for_each(|origin| server.answer(&mut reactor, origin, Ok(Bytes::new()), &mut calls));
    assert!(calls.is_empty(), "{} old writes come after the new one", calls.len());
}
