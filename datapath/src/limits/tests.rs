//! The limiter against its promises, under any order of requests, times and changes.

use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn limit(per_second: u64, burst: u64) -> Option<Limit> {
    Some(Limit { per_second: NonZeroU64::new(per_second).unwrap(), burst: NonZeroU64::new(burst).unwrap() })
}

fn operations(per_second: u64, burst: u64) -> Limits {
    Limits { operations: limit(per_second, burst), bytes: None }
}

fn bytes(per_second: u64, burst: u64) -> Limits {
    Limits { operations: None, bytes: limit(per_second, burst) }
}

/// What went and when, in nanoseconds.
#[derive(Default)]
struct Log(Vec<(u64, usize, u64)>);

impl Log {
    fn take_due(&mut self, limiter: &mut Limiter<usize>, now: u64) {
        while let Some(Admitted { item, bytes, waited }) = limiter.next(at(now)) {
            assert!(waited.as_nanos() <= u128::from(now));
            self.0.push((now, item, bytes.0));
        }
    }

    fn offer(&mut self, limiter: &mut Limiter<usize>, now: u64, item: usize, cost: u64) {
        self.take_due(limiter, now);
        if let Some(item) = limiter.offer(at(now), ByteCount(cost), item) {
            self.0.push((now, item, cost));
        }
    }

    /// Goes from one due time to the next, each of which lets the first one go, until nobody waits.
    fn drain(&mut self, limiter: &mut Limiter<usize>, from: u64) -> u64 {
        let mut now = from;
        while limiter.waiting() > 0 {
            let (due, before) = (limiter.next_due().as_nanos(), self.0.len());
            assert!(due < u64::MAX, "somebody waits for ever");
            if due > now {
                assert_eq!(limiter.next(at(due - 1)), None, "it would go too early");
            }
            now = now.max(due);
            self.take_due(limiter, now);
            assert!(self.0.len() > before, "what is due goes");
        }
        now
    }

    fn items(&self) -> Vec<usize> {
        self.0.iter().map(|&(_, item, _)| item).collect()
    }

    /// Of every window that begins and ends with a request: `burst + per_second * window`, and what a request was
    /// larger than the burst.
    fn check_windows(&self, limit: Limit, cost: impl Fn(u64) -> u64) {
        let (rate, burst) = (u128::from(limit.per_second.get()), u128::from(limit.burst.get()));
        let excess = self.0.iter().map(|&(.., bytes)| u128::from(cost(bytes)).saturating_sub(burst)).max().unwrap_or(0);
        for (first, &(from, ..)) in self.0.iter().enumerate() {
            let mut sum = 0;
            for &(until, _, bytes) in &self.0[first..] {
                sum += u128::from(cost(bytes));
                let window = u128::from(until - from);
                let allowed = (burst + excess) * u128::from(SECOND) + rate * window;
                assert!(sum * u128::from(SECOND) <= allowed, "{sum} within {window} ns under {limit:?}");
            }
        }
    }
}

fn any_limit() -> impl Strategy<Value = Option<Limit>> {
    let rate = prop_oneof![1u64..20, 1u64..1_000_000, Just(u64::MAX)];
    let burst = prop_oneof![1u64..10, 1u64..1_000_000, Just(u64::MAX)];
    prop::option::weighted(0.8, (rate, burst).prop_map(|(rate, burst)| limit(rate, burst).unwrap()))
}

fn any_limits() -> impl Strategy<Value = Limits> {
    (any_limit(), any_limit()).prop_map(|(operations, bytes)| Limits { operations, bytes })
}

/// Pauses in nanoseconds and costs.
fn any_requests() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let pause = prop_oneof![3 => Just(0), 3 => 0u64..SECOND, 1 => 0u64..1_000 * SECOND];
    let cost = prop_oneof![Just(0u64), 1u64..10, 1u64..2_000_000];
    prop::collection::vec((pause, cost), 1..60)
}

proptest! {
    #[test]
    fn no_window_holds_more_than_burst_and_rate_and_all_go_in_order(
        limits in any_limits(),
        requests in any_requests()
    ) {
        let (mut limiter, mut log, mut now) = (Limiter::new(at(7), limits), Log::default(), 7);
        for (item, &(pause, cost)) in requests.iter().enumerate() {
            now += pause;
            log.offer(&mut limiter, now, item, cost);
        }
        log.drain(&mut limiter, now);
        prop_assert_eq!(log.items(), (0..requests.len()).collect::<Vec<_>>());
        if let Some(limit) = limits.operations {
            log.check_windows(limit, |_| 1);
        }
        if let Some(limit) = limits.bytes {
            log.check_windows(limit, |bytes| bytes);
        }
    }

    /// What is offered all at once is through as early as the rates allow: nobody starves, and nothing is rounded away.
    #[test]
    fn the_rate_is_used_up(
        per_second in 1u64..1_000_000,
        burst in 1u64..1000,
        costs in prop::collection::vec(0u64..2000, 1..80)
    ) {
        let (mut limiter, mut log) = (Limiter::new(at(0), bytes(per_second, burst)), Log::default());
        for (item, &cost) in costs.iter().enumerate() {
            log.offer(&mut limiter, 0, item, cost);
        }
        let end = u128::from(log.drain(&mut limiter, 0));
        let sum: u128 = costs.iter().map(|&cost| u128::from(cost)).sum();
        // The last one may leave a debt, and each may be late by part of a nanosecond.
        prop_assert!(end <= (sum * u128::from(SECOND)).div_ceil(u128::from(per_second)) + costs.len() as u128);
    }

    #[test]
    fn changes_keep_the_order_and_neither_lose_nor_repeat(
        steps in prop::collection::vec((any_requests(), any_limits()), 1..8)
    ) {
        let (mut limiter, mut log, mut now, mut count) = (Limiter::new(at(0), Limits::default()), Log::default(), 0, 0);
        for (requests, limits) in steps {
            for (pause, cost) in requests {
                now += pause;
                log.offer(&mut limiter, now, count, cost);
                count += 1;
                prop_assert_eq!(log.0.len() + limiter.waiting(), count);
            }
            limiter.change(at(now), limits);
            prop_assert_eq!(limiter.is_limited(), limits != Limits::default());
            log.take_due(&mut limiter, now);
        }
        limiter.change(at(now), Limits::default());
        log.take_due(&mut limiter, now);
        prop_assert_eq!(limiter.waiting(), 0, "without limits nobody waits");
        prop_assert_eq!(log.items(), (0..count).collect::<Vec<_>>());
    }

    /// However often the same limits are set, nobody gets more by it.
    #[test]
    fn setting_limits_again_gives_no_burst(requests in any_requests()) {
        let limits = bytes(1000, 5000);
        let (mut limiter, mut log, mut now) = (Limiter::new(at(0), limits), Log::default(), 0);
        for (item, &(pause, cost)) in requests.iter().enumerate() {
            now += pause;
            log.offer(&mut limiter, now, item, cost);
            limiter.change(at(now), limits);
        }
        log.drain(&mut limiter, now);
        log.check_windows(limits.bytes.unwrap(), |bytes| bytes);
    }
}

#[test]
fn without_limits_everything_goes_at_once() {
    let mut limiter = Limiter::new(at(5), Limits::default());
    assert!(!limiter.is_limited());
    for item in 0..1000 {
        assert_eq!(limiter.offer(at(5), ByteCount(u64::MAX), item), Some(item));
    }
    assert_eq!((limiter.waiting(), limiter.next_due()), (0, Instant::FAR));
}

#[test]
fn a_request_above_the_burst_goes_from_full_and_the_next_wait_for_its_debt() {
    let mut limiter = Limiter::new(at(0), bytes(100, 10));
    assert_eq!(limiter.offer(at(0), ByteCount(50), 'a'), Some('a'));
    assert_eq!(limiter.offer(at(0), ByteCount(1), 'b'), None);
    assert_eq!(limiter.offer(at(0), ByteCount(50), 'c'), None);
    // 40 of debt and the 1 itself.
    assert_eq!(limiter.next_due(), at(SECOND * 41 / 100));
    let admitted = limiter.next(at(SECOND * 41 / 100)).unwrap();
    assert_eq!((admitted.item, admitted.waited), ('b', Duration::from_millis(410)));
    assert_eq!(limiter.next_due(), at(SECOND * 51 / 100), "full again");
}

#[test]
fn a_higher_limit_lets_those_who_wait_go_earlier() {
    let mut limiter = Limiter::new(at(0), operations(1, 1));
    assert_eq!(limiter.offer(at(0), ByteCount(0), 0), Some(0));
    assert_eq!(limiter.offer(at(0), ByteCount(0), 1), None);
    assert_eq!(limiter.next_due(), at(SECOND));
    limiter.change(at(SECOND / 2), operations(1000, 1));
    // Half of it had come in.
    assert_eq!(limiter.next_due(), at(SECOND / 2 + SECOND / 2000));
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let mut limiter = Limiter::new(at(0), Limits { operations: limit(u64::MAX, u64::MAX), bytes: limit(1, 1) });
    assert_eq!(limiter.offer(at(0), ByteCount(u64::MAX), 0), Some(0));
    assert_eq!(limiter.offer(at(1), ByteCount(1), 1), None);
    assert_eq!(limiter.next_due(), Instant::FAR, "in 584 thousand million years");
    limiter.change(at(u64::MAX - 1), Limits { operations: limit(1, 1), bytes: limit(u64::MAX, u64::MAX) });
    limiter.change(at(u64::MAX - 1), Limits::default());
    assert!(limiter.next(at(u64::MAX - 1)).is_some());
}
