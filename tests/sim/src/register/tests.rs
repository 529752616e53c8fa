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
