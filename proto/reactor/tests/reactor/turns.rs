//! The loop itself: waking, deadlines, rest, and the end.

use crate::harness::{Loop, watched};
use ashlar_reactor::{Completion, Framing, ReactorConfig};
use ashlar_types::{ByteOffset, Duration, Instant};
use nix::time::{ClockId, clock_gettime};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

#[test]
fn another_thread_wakes_the_loop() {
    let mut at = Loop::new();
    let waker = at.reactor.waker();
    for _ in 0..100 {
        let waker = waker.clone();
        let other = thread::spawn(move || waker.wake());
        assert!(matches!(at.next(), Completion::Woken));
        other.join().unwrap();
    }
}

#[test]
fn a_wake_up_before_the_wait_is_not_lost_and_many_are_one() {
    let mut at = Loop::new();
    let waker = at.reactor.waker();
    (0..10).for_each(|_| waker.wake());
    assert!(matches!(at.next(), Completion::Woken));
    assert!(at.next_within(Duration::from_millis(1)).is_none());
    waker.wake();
    assert!(matches!(at.next(), Completion::Woken));
}

#[test]
fn what_is_queued_before_a_wake_up_is_seen_after_it() {
    let mut at = Loop::new();
    let (waker, (sender, receiver)) = (at.reactor.waker(), std::sync::mpsc::channel());
    let other = thread::spawn(move || {
        for number in 0..20_000 {
            sender.send(number).unwrap();
            waker.wake();
        }
    });
    let mut expected = 0;
    while expected < 20_000 {
        assert!(matches!(at.next(), Completion::Woken));
        for number in receiver.try_iter() {
            assert_eq!(number, expected);
            expected += 1;
        }
    }
    other.join().unwrap();
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let mut at = Loop::new();
    let mut completions = Vec::new();
    let began = at.reactor.now();
    at.reactor.wait(began + Duration::from_millis(30), &mut completions).unwrap();
    let waited = at.reactor.now().since(began);
    assert!(completions.is_empty() && waited >= Duration::from_millis(30), "{waited:?}");
    at.reactor.wait(Instant::ZERO, &mut completions).unwrap();
    assert!(completions.is_empty());
}

#[test]
fn an_idle_loop_rests_even_if_it_may_spin() {
    let mut at = Loop::with(ReactorConfig { spin_max: Duration::from_micros(50), ..Default::default() });
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let link = at.reactor.adopt_socket(socket.into(), Framing::RawBytes).unwrap();
    at.reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), Framing::Frames).unwrap();
    // A busy time first, so that there is a spin to be given up.
    for _ in 0..100 {
        std::io::Write::write_all(&mut peer, b"x").unwrap();
        at.raw_bytes(link, 1);
    }
    let (enters, cpu) = (at.reactor.stats().enters, thread_cpu());
    for _ in 0..20 {
        assert!(at.next_within(Duration::from_millis(20)).is_none());
    }
    let (enters, cpu) = (at.reactor.stats().enters - enters, thread_cpu() - cpu);
    assert!(cpu < Duration::from_millis(20), "{cpu:?} of 400 ms");
    assert!(enters <= 60, "{enters} system calls in 20 waits");
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

#[test]
fn a_dropped_reactor_has_waited_for_everything_in_flight() {
    let mut at = Loop::new();
    let (bytes, watch) = watched(16 << 20);
    let (socket, peer) = UnixStream::pair().unwrap();
    let link = at.reactor.adopt_socket(socket.into(), Framing::RawBytes).unwrap();
    at.reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), Framing::Frames).unwrap();
    let file = at.reactor.add_file(tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    at.reactor.send(link, [bytes.clone()]);
    at.reactor.write(file, ByteOffset(0), vec![bytes.clone()], true, 0);
    at.reactor.flush(file, 0);
    assert!(at.next_within(Duration::ZERO).is_none());
    assert!(at.reactor.operations_in_flight() >= 4);
    drop(bytes);
    assert_eq!(Arc::strong_count(&watch), 2);
    drop(at);
    assert_eq!(Arc::strong_count(&watch), 1);
    drop(peer);
}

#[test]
fn what_is_asked_for_and_never_waited_for_is_freed_too() {
    let mut at = Loop::new();
    let (bytes, watch) = watched(1 << 20);
    let file = at.reactor.add_file(tempfile::tempfile().unwrap());
    at.reactor.write(file, ByteOffset(0), vec![bytes], false, 0);
    drop(at);
    assert_eq!(Arc::strong_count(&watch), 1);
}
