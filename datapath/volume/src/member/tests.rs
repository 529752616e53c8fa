//! The link's machine.

use super::*;
use ashlar_types::{Epoch, NodeName};

fn member() -> Member {
    let record = RecordMember {
        disk: DiskId::from_u128(1),
        node: "n".parse::<NodeName>().unwrap(),
        zone: None,
        state: MemberState::InSync,
    };
    Member::new(&record, 0, Instant::ZERO)
}

fn opened() -> Opened {
    Opened {
        commit: Lsn::ZERO,
        floor: Lsn::ZERO,
        syncing: false,
        last: Lsn::ZERO,
        agreed: Epoch::NONE,
        session_before: SessionId(0),
    }
}

#[test]
fn a_promise_outlives_the_link() {
    let mut member = member();
    member.become_connecting();
    member.become_opening(SessionId(1));
    member.ask(Purpose::Open, Instant::from_nanos(1));
    assert!(!member.serves_reads());
    member.asked.clear();
    member.become_open(opened(), Instant::from_nanos(2));
    assert!(member.serves_reads());
    member.become_down(Instant::from_nanos(3));
    assert!(!member.serves_reads() && member.promised_at.is_some() && member.asked.is_empty());
}

#[test]
fn one_that_leaves_serves_no_read() {
    let mut member = member();
    member.become_connecting();
    member.become_opening(SessionId(1));
    member.become_open(opened(), Instant::ZERO);
    member.leaving = true;
    assert!(!member.serves_reads());
}

#[test]
#[should_panic]
fn a_link_does_not_open_before_it_stands() {
    member().become_open(opened(), Instant::ZERO);
}

#[test]
fn pauses_between_attempts_grow_within_bounds() {
    let mut member = member();
    let (min, max) = (Duration::from_millis(20), Duration::from_millis(100));
    let pauses: Vec<_> = (0..4).map(|_| member.lengthen_backoff(min, max).as_millis()).collect();
    assert_eq!(pauses, [20, 40, 80, 100]);
}
