//! Who waits for the limits, on a volume whose chunkservers are nowhere.

use super::super::tests::opened;
use super::*;
use crate::frontend::nbd::testing::origin;
use crate::limits::Limit;
use crate::runtime::command::Detached;
use crate::runtime::tests::record;
use ashlar_reactor::{Framing, LinkId};
use ashlar_types::{ByteOffset, Duration};
use ashlar_volume::Event;
use bytes::Bytes;
use std::num::NonZeroU64;
use tokio::sync::oneshot;

fn settings(version: u64, operations: Option<u64>) -> Settings {
    let limit = |number| {
        let number = NonZeroU64::new(number).unwrap();
        Limit { per_second: number, burst: number }
    };
    Settings { version, limits: Limits { operations: operations.map(limit), bytes: None } }
}

/// A volume with two operations a second, and who asks it.
fn limited() -> (Io, Hosted, LinkId) {
    let (mut io, hosted) = opened(settings(1, Some(2)));
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let link = io.reactor.connect_tcp(nowhere, Duration::from_secs(1), Framing::RawBytes).unwrap();
    (io, hosted, link)
}

fn write(hosted: &mut Hosted, io: &mut Io, link: LinkId) {
    let request = GuestRequest::Write { offset: ByteOffset(0), data: Bytes::from_static(&[7; 4096]) };
    hosted.call(io, Origin::Nbd(origin(link)), request);
}

/// Requests that the core has, and that wait.
fn counts(hosted: &Hosted) -> (usize, usize) {
    (hosted.core.status().inflight, hosted.limiter.waiting())
}

#[test]
fn the_core_sees_nothing_of_what_is_held_back_until_it_is_due() {
    let (mut io, mut hosted, link) = limited();
    for _ in 0..5 {
        write(&mut hosted, &mut io, link);
    }
    assert_eq!(counts(&hosted), (2, 3));
    let due = hosted.limiter.next_due();
    assert!(hosted.next_deadline() <= due);
    assert!(due > now() && due <= now() + Duration::from_millis(500), "the first is due in half a second");
    hosted.admit_due(&mut io, Instant::ZERO);
    assert_eq!(counts(&hosted), (2, 3), "before that nothing goes");
    hosted.admit_due(&mut io, due);
    assert_eq!(counts(&hosted), (3, 2));
    assert!(hosted.limiter.next_due() > due, "there is one timer, and it is for the next");
    hosted.admit_due(&mut io, due + Duration::from_secs(1));
    assert_eq!(counts(&hosted), (5, 0));
    assert_eq!(hosted.pending.len(), 5, "nobody was answered");
}

#[test]
fn a_flush_waits_for_nothing() {
    let (mut io, mut hosted, link) = limited();
    for _ in 0..3 {
        write(&mut hosted, &mut io, link);
    }
    hosted.call(&mut io, Origin::Nbd(origin(link)), GuestRequest::Flush);
    assert_eq!(counts(&hosted), (2, 1));
    assert_eq!(hosted.pending.len(), 3, "it is answered already");
}

#[test]
fn time_that_a_write_is_held_back_is_no_gap() {
    let (mut io, mut hosted, link) = limited();
    for _ in 0..3 {
        write(&mut hosted, &mut io, link);
    }
    let later = now() + Duration::from_secs(3600);
    for _ in 0..2 {
        hosted.figures.gap.write_completed(now());
    }
    assert!(hosted.figures.gap.longest(later) < Duration::from_secs(60), "the third one does not count yet");
}

#[test]
fn limits_change_at_once_and_an_older_change_does_nothing() {
    let (mut io, mut hosted, link) = limited();
    for _ in 0..5 {
        write(&mut hosted, &mut io, link);
    }
    hosted.modify(&mut io, settings(1, None));
    assert_eq!(counts(&hosted), (2, 3));
    hosted.modify(&mut io, settings(3, None));
    assert_eq!((counts(&hosted), hosted.report().settings_version), ((5, 0), 3));
    hosted.modify(&mut io, settings(2, Some(1)));
    write(&mut hosted, &mut io, link);
    assert_eq!((counts(&hosted), hosted.report().settings_version), ((6, 0), 3));
}

#[test]
fn who_is_held_back_when_the_volume_is_fenced_gets_an_error() {
    let (mut io, mut hosted, link) = limited();
    for _ in 0..5 {
        write(&mut hosted, &mut io, link);
    }
    hosted.feed(&mut io, Event::Record(record(2)));
    assert_eq!(hosted.limiter.waiting(), 0);
    assert!(hosted.pending.is_empty(), "everyone was answered");
    hosted.modify(&mut io, settings(9, Some(1)));
    for _ in 0..5 {
        write(&mut hosted, &mut io, link);
    }
    assert!(hosted.pending.is_empty(), "errors are not held back");
}

#[test]
fn a_detach_waits_for_no_limit() {
    let (mut io, mut hosted, link) = limited();
    for _ in 0..5 {
        write(&mut hosted, &mut io, link);
    }
    let (done, mut detached) = oneshot::channel::<Detached>();
    hosted.detach(&mut io, done);
    assert_eq!(counts(&hosted), (5, 0), "the core drains them");
    assert!(detached.try_recv().is_err());
    hosted.modify(&mut io, settings(9, Some(1)));
    write(&mut hosted, &mut io, link);
    assert_eq!((hosted.limiter.waiting(), hosted.pending.len()), (0, 5), "who comes later is refused at once");
}
