//! Tests of `register`.

use super::*;

fn write(stamp: u64, start: Point, end: Point) -> Access {
    Access { kind: Kind::Write, stamp: Stamp(stamp), start, end }
}

fn read(stamp: u64, start: Point, end: Point) -> Access {
    Access { kind: Kind::Read, stamp: Stamp(stamp), start, end }
}

#[test]
fn plain_histories_pass() {
    assert_eq!(check(&[]), Ok(()));
    assert_eq!(check(&[read(0, 1, 2), write(1, 3, 4), read(1, 5, 6), write(0, 7, 8), read(0, 9, 10)]), Ok(()));
}

#[test]
fn concurrent_operations_may_fall_either_way() {
    assert_eq!(check(&[write(1, 1, 2), write(2, 3, 8), read(1, 4, 5), read(2, 6, 7)]), Ok(()));
    assert_eq!(check(&[write(1, 1, 10), write(2, 2, 9), read(2, 11, 12)]), Ok(()));
}

#[test]
fn an_acknowledged_write_is_never_lost() {
    assert!(check(&[write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)]).is_err());
    assert!(check(&[write(1, 1, 2), read(0, 3, 4)]).is_err());
}

#[test]
fn a_write_that_was_read_does_not_unhappen() {
    assert!(check(&[write(1, 1, 2), write(2, 3, NEVER), read(2, 4, 5), read(1, 6, 7)]).is_err());
}

#[test]
fn an_unanswered_write_may_happen_late_or_never() {
    assert_eq!(check(&[write(1, 1, 2), write(2, 3, NEVER), read(1, 4, 5), read(2, 6, 7)]), Ok(()));
    assert_eq!(check(&[write(1, 1, 2), write(2, 3, NEVER), read(1, 4, 5)]), Ok(()));
}

#[test]
fn a_value_from_nowhere_or_from_the_future_is_found() {
    assert!(check(&[read(9, 1, 2)]).is_err());
    assert!(check(&[read(1, 1, 2), write(1, 3, 4)]).is_err());
}

#[test]
fn discards_do_not_resurrect() {
    assert!(check(&[write(1, 1, 2), write(0, 3, 4), read(1, 5, 6)]).is_err());
    assert!(check(&[write(0, 1, 2), write(1, 3, 4), read(0, 5, 6)]).is_err());
}

#[test]
fn an_unanswered_discard_explains_zeros_once() {
    let mut history = vec![write(1, 1, 2), write(0, 3, NEVER), read(0, 4, 5), write(2, 6, 7), read(2, 8, 9)];
    assert_eq!(check(&history), Ok(()));
    history.push(read(0, 10, 11));
    assert!(check(&history).is_err());
    history.push(write(0, 2, NEVER));
    assert_eq!(check(&history), Ok(()));
}

/// Tries every order: is there one in which each read sees the latest write?
fn brute_force(history: &[Access], used: u32, value: Stamp) -> bool {
    let left = |i: &usize| used & (1 << i) == 0;
    let must = |i: &usize| history[*i].end != NEVER;
    if !(0..history.len()).any(|i| left(&i) && must(&i)) {
        return true;
    }
    (0..history.len()).filter(left).any(|i| {
        let access = history[i];
        let too_early = (0..history.len()).filter(left).any(|j| history[j].end < access.start);
        let sees = access.kind == Kind::Write || access.stamp == value;
        let next = if access.kind == Kind::Write { access.stamp } else { value };
        !too_early && sees && brute_force(history, used | 1 << i, next)
    })
}

#[test]
fn the_check_agrees_with_trying_every_order() {
    let mut rng = crate::rng::Rng::named(1, "histories");
    let (mut good, mut bad) = (0, 0);
    for _ in 0..30_000 {
        let count = rng.range(2, 7) as usize;
        let mut points: Vec<Point> = (1..=2 * count as u64).collect();
        (0..points.len()).rev().for_each(|i| points.swap(i, rng.index(i + 1)));
        let mut history = Vec::new();
        for i in 0..count {
            let (a, b) = (points[2 * i], points[2 * i + 1]);
            let (start, end) = (a.min(b), a.max(b));
            let kind = if rng.coin() { Kind::Write } else { Kind::Read };
            let end = if kind == Kind::Write && rng.below(3) == 0 { NEVER } else { end };
            history.push(Access { kind, stamp: Stamp::ZERO, start, end });
        }
        let mut written = vec![Stamp::ZERO];
        for (i, access) in history.iter_mut().enumerate().filter(|(_, access)| access.kind == Kind::Write) {
            access.stamp = if rng.below(3) == 0 { Stamp::ZERO } else { Stamp(i as u64 + 1) };
            written.push(access.stamp);
        }
        for access in history.iter_mut().filter(|access| access.kind == Kind::Read) {
            access.stamp = *rng.pick(&written);
        }
        let expected = brute_force(&history, 0, Stamp::ZERO);
        assert_eq!(check(&history).is_ok(), expected, "{history:?}: {:?}", check(&history));
        if expected { good += 1 } else { bad += 1 }
    }
    assert!(good > 1000 && bad > 1000, "{good} good and {bad} bad histories");
}
