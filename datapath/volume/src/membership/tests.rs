//! Proposals and records.

use crate::testing::{Bench, Replica, disk};
use crate::{Ending, Event, Tag};
use ashlar_types::*;
use ashlar_wire::Request;
use std::collections::VecDeque;

const IN: MemberState = MemberState::InSync;

#[test]
fn an_unanswered_proposal_is_asked_again_unchanged() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.withheld = Some("Eject");
    bench.kill(1);
    bench.settle();
    let (first, version, change) = bench.proposals.pop_front().unwrap();
    // It was done; its answer was lost.
    bench.decide(version, &change);
    for _ in 0..3 {
        bench.event(Event::Unanswered { proposal: first });
        bench.advance(Duration::from_millis(200));
        let (again, same_version, same_change) = bench.proposals.pop_front().unwrap();
        assert_eq!((again, same_version, &same_change), (first, version, &change));
    }
    let write = bench.write(0, 1, 7);
    bench.settle();
    assert!(!bench.completed.contains_key(&write));
    let answer = bench.decide(version, &change);
    bench.withheld = None;
    bench.event(Event::Answer { proposal: first, answer });
    bench.settle();
    assert!(bench.is_done(write));
    assert_eq!(bench.ejections(), 4);
}

#[test]
fn a_refused_ejection_is_decided_again_by_the_new_record() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.withheld = Some("Eject");
    bench.kill(1);
    bench.settle();
    bench.catalog.version += 1;
    bench.catalog.last_change = None;
    bench.catalog.members[0].state = MemberState::Out { commit: Lsn::ZERO };
    bench.withheld = None;
    bench.settle();
    let again = bench.proposed.iter().filter(|(_, change)| matches!(change, Change::Eject { .. })).count();
    assert_eq!(again, 1, "below minReplicas now");
    let write = bench.write(0, 1, 7);
    bench.settle();
    assert!(!bench.completed.contains_key(&write));
    bench.replicas[1].down = false;
    bench.advance(Duration::from_secs(3));
    assert!(bench.is_done(write), "the one waited for came back");
}

/// The answer came, and lies unread: whoever was stopped says nothing of the silence of others.
#[test]
fn a_writer_that_was_stopped_ejects_nobody_for_it() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.mute[2] = true;
    bench.write(0, 1, 7);
    bench.now = bench.now + Duration::from_secs(6);
    bench.event(Event::Tick);
    bench.settle();
    assert_eq!(bench.ejections(), 0);
    bench.advance(Duration::from_secs(2));
    assert_eq!((bench.ejections(), bench.state(2) == IN), (1, false), "it is silent indeed");
}

/// Whoever hears nobody does not know who is gone.
#[test]
fn a_writer_that_is_cut_off_from_all_ejects_nobody() {
    let mut bench = Bench::serving(&[IN; 3]);
    let write = bench.write(0, 1, 7);
    bench.settle();
    assert!(bench.is_done(write));
    bench.advance(Duration::from_millis(100));
    bench.mute = vec![true; 3];
    // Missed before the others are.
    bench.reset(0);
    bench.replicas[0].down = true;
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.ejections(), 0);
    bench.mute = vec![false; 3];
    bench.advance(Duration::from_secs(3));
    let out = |index: usize| matches!(bench.state(index), MemberState::Out { .. });
    assert_eq!((bench.ejections(), out(0), out(1), out(2)), (1, true, false, false), "the others have spoken");
}

#[test]
fn a_silent_replica_is_ejected() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.mute[2] = true;
    let write = bench.write(0, 1, 7);
    bench.advance(Duration::from_millis(400));
    assert!(!bench.completed.contains_key(&write) && bench.ejections() == 0);
    bench.advance(Duration::from_millis(200));
    assert!(bench.is_done(write) && bench.ejections() == 1);
}

#[test]
fn a_record_that_moves_a_member_out_takes_effect_at_once() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.mute[2] = true;
    let write = bench.write(0, 1, 7);
    bench.settle();
    bench.catalog.version += 1;
    bench.catalog.members[2].state = MemberState::Out { commit: Lsn::ZERO };
    bench.catalog.declared_lost.push(disk(2));
    bench.event(Event::Record(bench.catalog.clone()));
    bench.settle();
    assert!(bench.is_done(write));
}

#[test]
fn a_record_that_does_not_fit_is_not_taken_over() {
    let mut bench = Bench::serving(&[IN; 3]);
    let mut fewer = VolumeRecord { version: 99, ..bench.catalog.clone() };
    fewer.members.pop();
    bench.event(Event::Record(fewer));
    let mut other = VolumeRecord { version: 100, ..bench.catalog.clone() };
    other.members.swap(0, 1);
    bench.event(Event::Record(other));
    let write = bench.write(0, 1, 7);
    bench.settle();
    assert!(bench.is_done(write));
}

#[test]
fn a_close_that_is_answered_with_a_newer_epoch_ends_once() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.catalog_up = false;
    bench.event(Event::Detach);
    let (proposal, _, change) = bench.proposals.pop_front().unwrap();
    assert_eq!(change, Change::CloseClean);
    let record = VolumeRecord { epoch: Epoch::new(6).unwrap(), version: 50, ..bench.catalog.clone() };
    bench.event(Event::Answer { proposal, answer: ChangeAnswer::Applied { record } });
    assert_eq!(bench.ended, Some(Ending::Fenced));
}

/// The others are far away: their sign of life takes longer than a new link to the one in question.
fn ejects_though_the_others_answer_late(fault: impl Fn(&mut Replica)) {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.advance(Duration::from_millis(100));
    fault(&mut bench.replicas[0]);
    bench.mute = vec![false, true, true];
    let write = bench.write(0, 1, 7);
    let mut late = VecDeque::new();
    for _ in 0..400 {
        // What they answered 30 ms ago comes now.
        bench.advance(Duration::from_millis(10));
        late.push_back(std::mem::take(&mut bench.replies));
        if late.len() > 3 {
            for (from, frame) in late.pop_front().unwrap() {
                bench.event(Event::Reply { disk: disk(from), frame });
            }
        }
    }
    assert!(bench.is_done(write) && bench.ejections() == 1);
}

#[test]
fn a_full_replica_is_ejected_though_the_others_answer_late() {
    ejects_though_the_others_answer_late(|replica| replica.full = true);
}

#[test]
fn one_that_breaks_at_a_write_is_ejected_though_the_others_answer_late() {
    ejects_though_the_others_answer_late(|replica| replica.breaks = true);
}

#[test]
fn one_that_refuses_and_cannot_be_let_go_of_is_not_asked_all_the_time() {
    let mut bench = Bench::serving(&[IN; 2]);
    bench.replicas[1].full = true;
    bench.write(0, 1, 7);
    bench.advance(Duration::from_secs(10));
    let opens = bench.replicas[1].log.iter().filter(|request| matches!(request, Request::Open(_))).count();
    assert!(opens <= 20, "{opens} sessions in ten seconds");
    bench.replicas[1].full = false;
    bench.advance(Duration::from_secs(2));
    assert!(bench.is_done(Tag(1)));
}
