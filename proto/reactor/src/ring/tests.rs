//! Tests of `ring`.

use super::*;
use crate::operation::WakeOp;
use crate::waker::Waker;

const LONG: Option<Duration> = Some(Duration::from_secs(20));

fn rings() -> [Ring; 2] {
    [Ring::new(8).unwrap(), Ring::on(IoUring::new(8).unwrap(), false).unwrap()]
}

fn wait_for_wake(ring: &mut Ring, waker: &Waker) -> OpKey {
    ring.start(Operation::Wake(WakeOp { waker: waker.clone(), count: Box::new([0; 8]) }))
}

fn reap_all(ring: &mut Ring) -> Vec<Done> {
    std::iter::from_fn(|| ring.reap()).collect()
}

#[test]
fn operations_complete_with_and_without_deferred_task_work_and_spinning() {
    for mut ring in rings() {
        for spin in [Duration::ZERO, Duration::from_millis(5)] {
            let waker = Waker::new().unwrap();
            let key = wait_for_wake(&mut ring, &waker);
            ring.enter(Some(Duration::ZERO), spin).unwrap();
            assert!(ring.reap().is_none());
            waker.wake();
            ring.enter(LONG, spin).unwrap();
            let done = reap_all(&mut ring);
            assert_eq!(
                done.iter().map(|done| (done.key, done.result.as_ref().ok())).collect::<Vec<_>>(),
                [(key, Some(&8))]
            );
        }
    }
}

#[test]
fn a_cancelled_operation_completes_once() {
    for mut ring in rings() {
        let key = wait_for_wake(&mut ring, &Waker::new().unwrap());
        ring.cancel(key);
        ring.enter(LONG, Duration::ZERO).unwrap();
        let done = reap_all(&mut ring);
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].result.as_ref().unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        ring.cancel(key);
        assert_eq!((ring.in_flight(), ring.overflow.len()), (0, 0));
    }
}

#[test]
fn more_than_the_queues_hold_is_handed_over_in_parts() {
    for mut ring in rings() {
        let waker = Waker::new().unwrap();
        let waiting: Vec<OpKey> = (0..500).map(|_| wait_for_wake(&mut ring, &waker)).collect();
        waiting.into_iter().for_each(|key| ring.cancel(key));
        let mut done = 0;
        while done < 500 {
            ring.enter(LONG, Duration::ZERO).unwrap();
            done += reap_all(&mut ring).len();
        }
        assert_eq!(ring.in_flight(), 0);
    }
}
