//! Sessions over TCP: what is acknowledged is there after a kill; epochs fence; garbage disturbs nobody.

use crate::client::{Client, VOLUME, content, open, range, write};
use crate::daemon::{CLUSTER, Daemon, Disks};
use ashlar_types::{ChunkIndex, ClusterId, DiskId, Lsn};
use ashlar_wire::{Reply, Request, Status};
use std::time::{Duration, Instant};

#[test]
fn acknowledged_writes_are_there_after_a_kill() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let mut client = Client::open(daemon.address("data_address"), disks.ids[0], 1);
    let (small, large) = (content(1, 3), content(2, 256));
    client.done(write(1, 1, 5, &small));
    client.done(write(1, 2, 1000, &large));
    client.done(Request::Discard { range: range(0, 6, 1), lsn: Lsn::from_raw(lsn(1, 3)), floor: Lsn::ZERO });
    daemon.kill();

    let daemon = disks.serve();
    let mut client = Client::open(daemon.address("data_address"), disks.ids[0], 2);
    assert_eq!(client.read(5, 1), small[..4096]);
    assert!(client.read(6, 1).iter().all(|&byte| byte == 0));
    assert_eq!(client.read(7, 1), small[8192..]);
    assert_eq!(client.read(1000, 256), large);
    let reports = match client.ask(Request::Report { from: ChunkIndex(0) }).unwrap() {
        Reply::Reported { entries, next: None } => entries,
        other => panic!("{other:?}"),
    };
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].prefix.raw(), reports[0].complete), (lsn(1, 3), true));
}

#[test]
fn many_writes_in_flight_are_answered_in_order_and_survive_a_term() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let mut client = Client::open(daemon.address("data_address"), disks.ids[0], 1);
    for number in 0..500 {
        client.send(write(1, number + 1, number * 7 % 3000, &content(number, 1))).unwrap();
    }
    let requests: Vec<u64> = (0..500).map(|_| client.receive().unwrap().request.0).collect();
    assert!(requests.is_sorted(), "answers of one chunk come in the order of its journal");
    assert!(daemon.terminate().success());

    let report = disks.inspect(0, &[]);
    assert_eq!(report["replicas"][0]["volume"], VOLUME.to_string());
    let daemon = disks.serve();
    let mut client = Client::open(daemon.address("data_address"), disks.ids[0], 2);
    for number in 0..500 {
        assert_eq!(client.read(number * 7 % 3000, 1), content(number, 1), "write {number}");
    }
}

#[test]
fn a_stale_epoch_is_refused_before_and_after_a_restart() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let address = daemon.address("data_address");
    let mut old = Client::open(address, disks.ids[0], 4);
    old.done(write(4, 1, 0, &content(1, 1)));
    let mut new = Client::open(address, disks.ids[0], 5);
    new.done(write(5, 1, 0, &content(2, 1)));
    // The old writer's link is ended by the newer session.
    old.send(write(4, 2, 0, &content(3, 1))).ok();
    old.expect_ended();
    let refused = |address| Client::connect(address, 4).refused(Request::Open(open(CLUSTER, disks.ids[0])));
    assert_eq!(refused(address), Status::Fenced);
    daemon.kill();

    let daemon = disks.serve();
    assert_eq!(refused(daemon.address("data_address")), Status::Fenced);
    assert_eq!(Client::open(daemon.address("data_address"), disks.ids[0], 5).read(0, 1), content(2, 1));
}

#[test]
fn each_disk_of_a_process_has_its_own_replicas() {
    let disks = Disks::format(3, 48);
    let daemon = disks.serve();
    let address = daemon.address("data_address");
    let mut clients: Vec<Client> = disks.ids.iter().map(|&disk| Client::open(address, disk, 1)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.done(write(1, 1, 0, &content(number as u64, 1)));
    }
    daemon.kill();
    let daemon = disks.serve();
    for (number, &disk) in disks.ids.iter().enumerate() {
        let mut client = Client::open(daemon.address("data_address"), disk, 1);
        assert_eq!(client.read(0, 1), content(number as u64, 1));
    }
}

#[test]
fn garbage_ends_its_own_link_and_disturbs_no_other() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let address = daemon.address("data_address");
    let mut good = Client::open(address, disks.ids[0], 1);
    good.done(write(1, 1, 0, &content(1, 1)));

    let mut flipped = valid_open_bytes(disks.ids[0]);
    flipped[20] ^= 1;
    let mut other_version = valid_open_bytes(disks.ids[0]);
    other_version[4] = 9;
    let mut oversized = valid_open_bytes(disks.ids[0]);
    oversized[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".repeat(8), flipped, other_version, oversized, vec![0; 4096]] {
        let mut bad = Client::connect(address, 1);
        // The link may end before everything is taken.
        bad.send_bytes(&bytes).ok();
        bad.expect_ended();
    }
    let mut not_opened = Client::connect(address, 1);
    not_opened.send(Request::Ping).unwrap();
    not_opened.expect_ended();

    good.done(write(1, 2, 1, &content(2, 1)));
    assert_eq!(good.read(0, 2), [content(1, 1), content(2, 1)].concat());
    let metrics = crate::ports::get(daemon.address("metrics_address"), "/metrics");
    assert!(metrics.contains("ashlar_chunkserver_protocol_errors_total 6"), "{metrics}");
}

#[test]
fn a_replayed_frame_is_answered_and_changes_nothing() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let mut client = Client::open(daemon.address("data_address"), disks.ids[0], 1);
    client.done(write(1, 1, 0, &content(1, 1)));
    client.done(write(1, 2, 0, &content(2, 1)));
    client.done(write(1, 1, 0, &content(1, 1)));
    assert_eq!(client.read(0, 1), content(2, 1));
}

#[test]
fn a_session_with_a_disk_or_cluster_that_is_not_here_is_refused() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let address = daemon.address("data_address");
    let unknown = DiskId::from_u128(99);
    for wrong in [open(CLUSTER, unknown), open(ClusterId::from_u128(0xbad), disks.ids[0])] {
        let mut client = Client::connect(address, 1);
        assert_eq!(client.refused(Request::Open(wrong)), Status::WrongDisk);
        client.expect_ended();
    }
    let mut client = Client::open(address, disks.ids[0], 1);
    client.send(Request::Open(open(CLUSTER, unknown))).unwrap();
    client.expect_ended();
}

#[test]
fn a_full_disk_refuses_writes_and_keeps_what_it_has() {
    let disks = Disks::format(1, 32);
    let daemon = disks.serve();
    let mut client = Client::open(daemon.address("data_address"), disks.ids[0], 1);
    let data = content(7, 256);
    let mut written = 0;
    let status = loop {
        let start = written * 256;
        assert!(start < 16384, "a disk of 32 MiB takes no 64 MiB");
        match client.ask(write(1, written + 1, start, &data)).unwrap() {
            Reply::Done => written += 1,
            Reply::Refused(refusal) => break refusal.status,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(status, Status::NoSpace);
    assert!(written > 0);
    for number in 0..written {
        assert_eq!(client.read(number * 256, 256), data);
    }
    // What is there can be written again: no new place is needed for small writes. In a new session, as in the
    // old one nothing may pass the write that was refused.
    let mut client = Client::open(daemon.address("data_address"), disks.ids[0], 2);
    client.done(write(2, 1, 0, &content(8, 1)));
    assert_eq!(client.read(0, 1), content(8, 1));
}

#[test]
fn requests_that_make_no_sense_are_refused_and_the_session_goes_on() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let mut client = Client::open(daemon.address("data_address"), disks.ids[0], 1);
    assert_eq!(client.refused(Request::Read { range: range(4000, 0, 1), below: Lsn::MAX }), Status::BadRequest);
    let Request::Write { range, lsn, floor, mut blocks } = write(1, 1, 0, &content(1, 1)) else { unreachable!() };
    blocks.crcs[0].0 ^= 1;
    assert_eq!(client.refused(Request::Write { range, lsn, floor, blocks }), Status::BadRequest);
    client.done(write(1, 1, 0, &content(1, 1)));
    assert_eq!(client.read(0, 1), content(1, 1));
}

#[test]
fn an_idle_chunkserver_uses_no_cpu() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let mut client = Client::open(daemon.address("data_address"), disks.ids[0], 1);
    client.done(write(1, 1, 0, &content(1, 1)));
    // Idle begins when the checkpoint that follows the write is done; the metrics tell.
    let trimmed = format!("ashlar_chunkserver_journal_used_bytes{{disk=\"{}\"}} 0\n", disks.ids[0]);
    let until = Instant::now() + std::time::Duration::from_secs(60);
    while !crate::ports::get(daemon.address("metrics_address"), "/metrics").contains(&trimmed) {
        assert!(Instant::now() < until, "no checkpoint");
    }
    let before = cpu_ticks(&daemon);
    // A read with a timeout is the wait: nothing comes.
    client.expect_silence(std::time::Duration::from_secs(2));
    let used = cpu_ticks(&daemon) - before;
    assert!(used <= 2, "{used} ticks of 10 ms in two seconds");
}

/// User and system time of all threads, in ticks of 10 ms.
fn cpu_ticks(daemon: &Daemon) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn lsn(epoch: u32, counter: u64) -> u64 {
    Lsn::start_of(ashlar_types::Epoch::new(epoch).unwrap()).raw() + counter
}

fn valid_open_bytes(disk: DiskId) -> Vec<u8> {
    let frame = ashlar_wire::RequestFrame {
        session: ashlar_types::SessionId(1),
        request: ashlar_types::RequestId(1),
        epoch: ashlar_types::Epoch::new(1).unwrap(),
        commit: Lsn::ZERO,
        message: Request::Open(open(CLUSTER, disk)),
    };
    ashlar_wire::encode_request(&frame).head.to_vec()
}

#[test]
fn links_leave_descriptors_to_everything_else() {
    let disks = Disks::format(1, 64);
    let daemon = Daemon::start_with_descriptors(&disks, 64, 128);
    let address = daemon.address("data_address");
    let _writer = Client::open(address, disks.ids[0], 1);
    let mut links = Vec::new();
    loop {
        let mut client = Client::connect(address, 1);
        client.send(Request::Observe(open(CLUSTER, disks.ids[0]))).unwrap();
        if !client.is_answered_within(Duration::from_secs(1)) {
            break;
        }
        links.push(client);
    }
    assert!((40..64).contains(&links.len()), "{} links are taken", links.len());
    let metrics = crate::ports::get(daemon.address("metrics_address"), "/metrics");
    assert!(metrics.contains("ashlar_chunkserver_"), "{metrics}");
}
