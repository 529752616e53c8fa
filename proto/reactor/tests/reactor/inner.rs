//! Connections of a reactor with itself.

use crate::harness::{Loop, header, pattern};
use ashlar_reactor::{Completion, DownCause, Framing, LinkId, ListenerId, Peer, ReactorConfig};
use ashlar_types::{ByteCount, ByteOffset, Duration};
use ashlar_wire::WireError;
use bytes::{Bytes, BytesMut};
use std::io::Write;

/// The end that asked, and the end that the listener took.
fn connected(it: &mut Loop, framing: Framing) -> (LinkId, LinkId) {
    let (listener, _) = it.reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), framing).unwrap();
    connected_to(it, listener)
}

fn connected_to(it: &mut Loop, listener: ListenerId) -> (LinkId, LinkId) {
    let asking = it.reactor.connect_inner(listener).unwrap();
    let taking = match it.next() {
        Completion::Accepted { listener: from, link, peer: Peer::Inner } if from == listener => link,
        other => panic!("{other:?} instead of a connection"),
    };
    assert!(matches!(it.next(), Completion::LinkUp { link } if link == asking));
    (asking, taking)
}

fn encoded(request: u64, body: &[u8], data: &Bytes) -> [Bytes; 2] {
    let mut head = BytesMut::from(&header(request, body.len(), data.len()).encode()[..]);
    head.extend_from_slice(body);
    [head.freeze(), data.clone()]
}

fn nothing_more(it: &mut Loop) {
    assert!(it.next_within(Duration::from_millis(1)).is_none());
}

#[test]
fn frames_go_both_ways_in_order_and_aligned_data_is_not_copied() {
    let mut it = Loop::new();
    let (asking, taking) = connected(&mut it, Framing::Frames);
    let mut aligned = it.reactor.buffer_pool().take(8192);
    aligned.copy_from_slice(&pattern(8192, 3));
    let aligned = aligned.freeze();
    let unaligned = Bytes::from([&[0], &pattern(4096, 5)[..]].concat()).slice(1..);
    for (from, to) in [(asking, taking), (taking, asking)] {
        let before = it.reactor.stats().enters;
        it.reactor.send(from, encoded(1, b"body", &aligned));
        it.reactor.send(from, encoded(2, b"", &unaligned));
        it.reactor.send(from, encoded(3, b"x", &Bytes::new()));
        for (number, expected_body, expected) in
            [(1, &b"body"[..], &aligned), (2, b"", &unaligned), (3, b"x", &Bytes::new())]
        {
            let Completion::Frame { link, header, body, data } = it.next() else { panic!("a frame") };
            assert_eq!((link, header.request.0, &body[..], &data), (to, number, expected_body, expected));
            assert!(data.is_empty() || (data.as_ptr() as usize).is_multiple_of(4096));
            assert_eq!(data.as_ptr() == expected.as_ptr(), number == 1 || data.is_empty());
        }
        assert!(it.reactor.stats().enters <= before + 1, "no socket takes part");
    }
}

#[test]
fn raw_bytes_come_as_they_were_given_and_wait_while_reading_is_paused() {
    let mut it = Loop::new();
    let (asking, taking) = connected(&mut it, Framing::RawBytes);
    it.reactor.pause_reading(taking);
    it.reactor.send(asking, [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"two")]);
    assert_eq!(it.reactor.queued_bytes(asking), 6);
    nothing_more(&mut it);
    it.reactor.resume_reading(taking);
    assert_eq!(it.reactor.queued_bytes(asking), 0);
    assert_eq!(it.raw_bytes(taking, 6), b"onetwo");
    it.reactor.send(asking, [Bytes::from_static(b"three")]);
    assert_eq!(it.raw_bytes(taking, 5), b"three");
}

/// A file with so many reads of one page under way, and done as far as the kernel is concerned.
fn with_reads_done(it: &mut Loop, count: u64) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![7; 4096 * count as usize]).unwrap();
    let file = it.reactor.add_file(file);
    (0..count).for_each(|page| it.reactor.read(file, ByteOffset(4096 * page), ByteCount(4096), page));
}

fn is_read(completion: &Completion) -> bool {
    matches!(completion, Completion::Read { result: Ok(_), .. })
}

#[test]
fn what_follows_within_from_an_operation_comes_before_the_next_operations() {
    let mut it = Loop::new();
    let (asking, taking) = connected(&mut it, Framing::RawBytes);
    with_reads_done(&mut it, 64);
    let (mut reads, mut heard, mut ahead_most) = (0, 0, 0);
    while heard < 64 {
        match it.next() {
            completion if is_read(&completion) => {
                reads += 1;
                it.reactor.send(asking, [Bytes::from_static(b"x")]);
            }
            Completion::RawBytes { link, .. } if link == taking => heard += 1,
            other => panic!("{other:?}"),
        }
        ahead_most = ahead_most.max(reads - heard);
    }
    assert_eq!(reads, 64);
    assert!(ahead_most <= 8, "{ahead_most} reads were handed out before what followed from the first");
}

#[test]
fn two_that_never_cease_talking_keep_no_operation_away() {
    let mut it = Loop::new();
    let (asking, taking) = connected(&mut it, Framing::RawBytes);
    with_reads_done(&mut it, 16);
    it.reactor.send(asking, [Bytes::from_static(b"x")]);
    let mut reads = 0;
    while reads < 16 {
        match it.next() {
            completion if is_read(&completion) => reads += 1,
            Completion::RawBytes { link, bytes } => {
                it.reactor.send(if link == asking { asking } else { taking }, [bytes]);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_frame_that_waits_counts_with_its_data() {
    let mut it = Loop::new();
    let (asking, taking) = connected(&mut it, Framing::Frames);
    it.reactor.pause_reading(taking);
    let parts = encoded(1, b"body", &pattern(4096, 3));
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    it.reactor.send(asking, parts);
    assert_eq!(it.reactor.queued_bytes(asking), bytes);
    it.reactor.resume_reading(taking);
    assert!(matches!(it.next(), Completion::Frame { link, .. } if link == taking));
    assert_eq!(it.reactor.queued_bytes(asking), 0);
}

#[test]
fn whichever_end_goes_the_other_hears_of_it_after_what_was_sent() {
    for (ends, is_at_once) in [(0, true), (1, true), (0, false), (1, false)] {
        let mut it = Loop::new();
        let both: [LinkId; 2] = connected(&mut it, Framing::RawBytes).into();
        let (going, staying) = (both[ends], both[1 - ends]);
        it.reactor.send(going, [Bytes::from_static(b"last")]);
        it.reactor.send(staying, [Bytes::from_static(b"never taken")]);
        if is_at_once {
            it.reactor.close(going)
        } else {
            it.reactor.close_after_sent(going)
        }
        assert_eq!(it.raw_bytes(staying, 4), b"last");
        if !is_at_once {
            assert!(matches!(it.next(), Completion::LinkDown { link, cause: DownCause::Closed, .. } if link == going));
        }
        assert!(matches!(it.next(), Completion::LinkDown { link, cause: DownCause::Eof, .. } if link == staying));
        let stale = it.reactor.stats().stale_calls;
        it.reactor.send(staying, [Bytes::from_static(b"x")]);
        it.reactor.close(going);
        assert_eq!(it.reactor.stats().stale_calls, stale + 2);
        nothing_more(&mut it);
    }
}

#[test]
fn what_is_no_frame_ends_the_connection() {
    let mut it = Loop::new();
    let (asking, taking) = connected(&mut it, Framing::Frames);
    let [head, _] = encoded(1, b"body", &Bytes::new());
    it.reactor.send(asking, [head.slice(..head.len() - 1)]);
    let broken = DownCause::Protocol(WireError::Truncated).to_string();
    assert!(
        matches!(it.next(), Completion::LinkDown { link, cause, .. } if link == taking && cause.to_string() == broken)
    );
    assert!(matches!(it.next(), Completion::LinkDown { link, cause: DownCause::Eof, .. } if link == asking));
}

#[test]
fn a_listener_is_found_by_its_path_as_long_as_it_listens() {
    let mut it = Loop::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = it.reactor.listen_unix(&path, Framing::RawBytes).unwrap();
    assert_eq!(it.reactor.listener_at(&path), Some(listener));
    assert_eq!(it.reactor.listener_at(dir.path()), None);
    connected_to(&mut it, listener);
    it.reactor.close_listener(listener);
    assert_eq!(it.reactor.listener_at(&path), None);
}

#[test]
fn they_count_among_the_links_and_need_a_listener() {
    let mut it = Loop::with(ReactorConfig { links_max: 2, ..ReactorConfig::default() });
    let (listener, _) = it.reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), Framing::Frames).unwrap();
    let (asking, _) = connected_to(&mut it, listener);
    assert!(it.reactor.connect_inner(listener).is_err());
    it.reactor.close(asking);
    assert!(matches!(it.next(), Completion::LinkDown { .. }));
    connected_to(&mut it, listener);
    it.reactor.close_listener(listener);
    assert!(it.reactor.connect_inner(listener).is_err());
}
