//! A volume whose chunkservers are nowhere, on a real reactor, with a real NBD client.

use super::*;
use crate::frontend::nbd::testing::request;
use crate::metrics::Metrics;
use crate::runtime::io::Outbox;
use crate::runtime::tests::record;
use ashlar_reactor::{Completion, Reactor, ReactorConfig};
use ashlar_volume::GuestError;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use tokio::sync::mpsc;

const READ: u16 = 0;
const TRIM: u16 = 4;

/// Serves NBD until the client is done, and answers one of its reads a turn; gives what it returned.
fn serve<R: Send + 'static>(client: impl FnOnce(UnixStream) -> R + Send + 'static) -> R {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let waker = reactor.waker();
    let asks = Outbox::new(mpsc::channel(64).0);
    let node: ashlar_types::NodeName = "a".parse().unwrap();
    let config = ashlar_volume::Config::new(node.clone(), None);
    let mut io = Io { reactor, node, asks, links: HashMap::new(), listeners: HashMap::new(), gone: Vec::new() };
    let metrics = Metrics::new().for_volume(record(1).volume);
    let opened = oneshot::channel();
    let mut hosted = Hosted::open(&mut io, config, record(1), Addresses::new(), metrics, opened.0);
    hosted.serve_nbd(&mut io, &path, false).unwrap();
    let thread = std::thread::spawn(move || {
        let result = client(UnixStream::connect(path).unwrap());
        waker.wake();
        result
    });
    let mut completions = Vec::new();
    loop {
        let deadline = if hosted.pending.is_empty() { Instant::FAR } else { Instant::ZERO };
        io.reactor.wait(deadline, &mut completions).unwrap();
        if let Some(&key) = hosted.pending.keys().min() {
            hosted.answer(&mut io, key, Err(GuestError::NoSpace));
            hosted.work_off(&mut io);
        }
        for completion in completions.drain(..) {
            match completion {
                Completion::Accepted { link, .. } => hosted.nbd_accepted(&mut io, link),
                Completion::RawBytes { link, bytes } => hosted.nbd_received(&mut io, link, bytes),
                Completion::LinkDown { link, .. } => hosted.nbd_down(link),
                Completion::Woken => return thread.join().unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Through the negotiation, without a word about block sizes.
fn negotiated(mut stream: UnixStream) -> UnixStream {
    stream.read_exact(&mut [0; 18]).unwrap();
    let mut hello = 3u32.to_be_bytes().to_vec();
    hello.extend(b"IHAVEOPT");
    hello.extend(1u32.to_be_bytes());
    hello.extend(0u32.to_be_bytes());
    stream.write_all(&hello).unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    stream
}

#[test]
fn any_number_of_requests_that_need_no_volume_are_answered_in_order() {
    const READS: u64 = 400;
    const ALL: u64 = 300_000;
    let cookies = serve(|stream| {
        let mut stream = negotiated(stream);
        let mut sender = stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            let reads = (0..READS).flat_map(|cookie| request(READ, cookie, 0, 4096));
            // Less than a block: there is nothing to do for the volume.
            let trims = (READS..ALL).flat_map(|cookie| request(TRIM, cookie, 1, 1));
            sender.write_all(&reads.chain(trims).collect::<Vec<u8>>()).unwrap();
        });
        let mut replies = vec![0; 16 * ALL as usize];
        stream.read_exact(&mut replies).unwrap();
        sending.join().unwrap();
        replies.chunks(16).map(|reply| u64::from_be_bytes(reply[8..].try_into().unwrap())).collect::<Vec<_>>()
    });
    let trims = cookies.into_iter().filter(|&cookie| cookie >= READS);
    assert!(trims.eq(READS..ALL));
}
