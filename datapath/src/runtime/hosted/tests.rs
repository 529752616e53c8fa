//! A volume whose chunkservers are nowhere, or not where they were, on a real reactor, with a real NBD client.

use super::*;
use crate::frontend::nbd::testing::request;
use crate::metrics::Metrics;
use crate::runtime::io::Outbox;
use crate::runtime::tests::record;
use ashlar_reactor::{Completion, Reactor, ReactorConfig};
use ashlar_types::{BlockIndex, Lsn};
use ashlar_volume::{GuestError, Volume};
use ashlar_wire::{Refusal, Reply, ReplyFrame, Status, encode_reply};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use tokio::sync::mpsc;

const READ: u16 = 0;
const TRIM: u16 = 4;

fn io(asks: mpsc::Sender<Ask>) -> Io {
    let reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let (node, asks) = ("a".parse().unwrap(), Outbox::new(asks));
    let (links, listeners) = (HashMap::new(), HashMap::new());
    Io { reactor, companion: None, node, asks, links, listeners, gone: Vec::new() }
}

/// A volume that has just been granted.
pub(super) fn opened(settings: Settings) -> (Io, Hosted) {
    let mut io = io(mpsc::channel(64).0);
    let config = ashlar_volume::Config::new(io.node.clone(), None);
    let metrics = Metrics::new().for_volume(record(1).volume);
    let done = oneshot::channel().0;
    let core = Core::Writer(Box::new(Volume::new(config, record(1), now())));
    let hosted = Hosted::open(&mut io, core, Addresses::new(), metrics, settings, done);
    (io, hosted)
}

/// Serves NBD until the client is done, and answers one of its reads a turn; gives what it returned.
fn serve<R: Send + 'static>(client: impl FnOnce(UnixStream) -> R + Send + 'static) -> R {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let (mut io, mut hosted) = opened(Settings::default());
    let waker = io.reactor.waker();
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

/// Whether a volume that finds `stranger` at the address of its disks asks where they are, before it tries again.
fn asks_where_its_disks_are(stranger: fn(TcpStream)) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(stranger));
    let (asks_in, mut asks) = mpsc::channel(64);
    let mut io = io(asks_in);
    let addresses: Addresses = record(1).members.iter().map(|member| (member.disk, address)).collect();
    let disks = addresses.len();
    let metrics = Metrics::new().for_volume(record(1).volume);
    let config = ashlar_volume::Config::new(io.node.clone(), None);
    let core = Core::Writer(Box::new(Volume::new(config, record(1), now())));
    let mut hosted = Hosted::open(&mut io, core, addresses, metrics, Settings::default(), oneshot::channel().0);
    let (mut completions, mut connected) = (Vec::new(), 0);
    while connected <= disks {
        let deadline = hosted.core.next_deadline();
        io.reactor.wait(deadline, &mut completions).unwrap();
        for completion in completions.drain(..) {
            let owner = |io: &Io, link| match io.links[&link] {
                LinkOwner::Disk { disk, .. } => disk,
                LinkOwner::Nbd { .. } => panic!("the link is a disk's"),
            };
            match completion {
                Completion::LinkUp { link } => {
                    connected += 1;
                    let disk = owner(&io, link);
                    hosted.link_up(&mut io, disk, link);
                }
                Completion::Frame { link, header, body, data } => {
                    let disk = owner(&io, link);
                    hosted.frame(&mut io, disk, link, (&header, body, data));
                }
                Completion::LinkDown { link, cause, reset } => {
                    let disk = owner(&io, link);
                    hosted.link_down(&mut io, disk, link, reset, &cause);
                }
                other => panic!("{other:?}"),
            }
        }
        hosted.feed(&mut io, Event::Tick);
    }
    std::iter::from_fn(|| asks.try_recv().ok()).any(|ask| matches!(ask, Ask::Record { .. }))
}

/// Refuses what is asked first, as the chunkserver of another disk does.
fn another_chunkserver(mut stream: TcpStream) {
    let mut head = [0; ashlar_wire::limits::HEADER_BYTES];
    // The last one comes when the test is over.
    if stream.read_exact(&mut head).is_err() {
        return;
    }
    let FrameHeader { session, request, body_bytes, .. } = FrameHeader::decode(&head).unwrap();
    stream.read_exact(&mut vec![0; body_bytes as usize]).unwrap();
    let reason = "the disk is not here".to_owned();
    let refusal = Refusal { status: Status::WrongDisk, block: BlockIndex(0), reason };
    let message = Reply::Refused(refusal);
    let answer = encode_reply(&ReplyFrame { session, request, epoch: Epoch::NONE, commit: Lsn::ZERO, message });
    stream.write_all(&answer.head).unwrap();
}

#[test]
fn who_finds_somebody_else_at_a_disk_s_address_asks_where_it_is() {
    assert!(asks_where_its_disks_are(another_chunkserver));
    assert!(asks_where_its_disks_are(drop));
}
