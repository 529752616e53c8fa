//! The return of a disk that was out.

use crate::testing::{Bench, OUT, disk, record};
use crate::{Event, Notice};
use ashlar_types::*;
use ashlar_wire::{Request, Status};

const IN: MemberState = MemberState::InSync;

/// Two in-sync, one out at lsn 100 which it shares with the others; they hold one newer slot.
fn one_is_out() -> Bench {
    let mut bench = Bench::new(record(&[IN, IN, OUT(100)]));
    for index in 0..3 {
        bench.replicas[index].had(0, 0, 90, 1);
        bench.replicas[index].had(0, 400, 100, 2);
    }
    for index in 0..2 {
        bench.replicas[index].had(0, 401, 110, 3);
        bench.replicas[index].had(1, 7, 120, 4);
    }
    bench.replicas[2].down = true;
    bench.start();
    assert!(bench.volume.status().serving);
    bench
}

fn fills(bench: &Bench, index: usize) -> usize {
    bench.replicas[index].log.iter().filter(|request| matches!(request, Request::Fill { .. })).count()
}

fn same(bench: &Bench) -> bool {
    let blocks = |index: usize| &bench.replicas[index].blocks;
    blocks(0) == blocks(1) && blocks(1) == blocks(2)
}

fn name(request: &Request) -> String {
    format!("{request:?}").split([' ', '{', '(']).next().unwrap().to_owned()
}

#[test]
fn a_return_copies_changed_slots_only_and_joins_last() {
    let mut bench = one_is_out();
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.state(2), IN);
    assert_eq!(fills(&bench, 2), 2);
    assert!(same(&bench));
    let changes: Vec<_> = bench.proposed.iter().map(|(_, change)| change.clone()).collect();
    assert_eq!(changes[1..], [Change::BeginReturn { disk: disk(2) }, Change::Join { disk: disk(2) }]);
    let names: Vec<String> = bench.replicas[2].log.iter().map(name).filter(|name| name != "Ping").collect();
    assert_eq!((&*names[0], &*names[1]), ("Open", "Report"), "{names:?}");
    let (begun, first) =
        (names.iter().position(|name| name == "BeginSync"), names.iter().position(|name| name == "Fill"));
    assert!(begun < first && begun.is_some());
    assert_eq!(names.last().unwrap(), "FinishSync");
}

#[test]
fn its_own_unacknowledged_tail_is_copied_over() {
    let mut bench = one_is_out();
    bench.replicas[2].had(1, 900, 130, 66);
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.state(2), IN);
    assert_eq!(bench.replicas[2].byte(1, 900), 0);
    assert!(same(&bench));
}

#[test]
fn writes_go_on_during_the_return_and_are_not_copied_over() {
    let mut bench = one_is_out();
    bench.replicas[2].down = false;
    let mut tags = vec![];
    for round in 0..200 {
        tags.push(bench.write(395 + round % 16, 2, round as u8 + 1));
        bench.now = bench.now + Duration::from_millis(5);
        bench.event(Event::Tick);
        for _ in 0..3 {
            bench.step();
        }
    }
    bench.advance(Duration::from_secs(3));
    assert!(tags.iter().all(|tag| bench.is_done(*tag)));
    assert_eq!(bench.state(2), IN);
    assert!(same(&bench));
}

#[test]
fn a_failure_of_the_joiner_ends_its_return_only() {
    for refused in ["BeginSync", "MarkStale", "AdoptPrefix", "ListStale", "Fill", "FinishSync"] {
        let mut bench = one_is_out();
        bench.replicas[2].down = false;
        bench.replicas[2].refuse = Some((refused, Status::NoSpace));
        let mut tags = vec![];
        for i in 0..40 {
            tags.push(bench.write(i, 1, 9));
            bench.advance(Duration::from_millis(50));
        }
        assert!(bench.notices.iter().any(|notice| matches!(notice, Notice::ReturnAbandoned { .. })), "{refused}");
        bench.advance(Duration::from_secs(5));
        assert!(tags.iter().all(|tag| bench.is_done(*tag)));
        assert_eq!((bench.state(0), bench.state(1), bench.state(2)), (IN, IN, IN), "{refused}");
        assert_eq!(bench.ejections(), 0);
        assert!(same(&bench), "{refused}");
    }
}

#[test]
fn a_write_that_the_joiner_refuses_ends_its_return_only() {
    let mut bench = one_is_out();
    bench.come_back(2);
    while !bench.replicas[2].log.iter().any(|request| name(request) == "AdoptPrefix") {
        assert!(bench.step(), "{:?} {:?}", bench.replicas[2].log, bench.notices);
    }
    bench.replicas[2].refuse = Some(("Write", Status::NoSpace));
    let write = bench.write(0, 1, 9);
    bench.settle();
    assert!(bench.is_done(write));
    assert!(bench.notices.iter().any(|notice| matches!(notice, Notice::ReturnAbandoned { .. })));
    bench.advance(Duration::from_secs(3));
    assert_eq!((bench.state(2), bench.ejections()), (IN, 0));
    assert!(same(&bench));
}

#[test]
fn a_return_that_fails_again_and_again_is_tried_less_and_less_often() {
    let mut bench = one_is_out();
    bench.replicas[2].down = false;
    let abandoned = |bench: &Bench| {
        let failures = bench.notices.iter().filter(|notice| matches!(notice, Notice::ReturnAbandoned { .. }));
        failures.map(|notice| format!("{notice:?}")).collect::<Vec<_>>()
    };
    for second in 0..120 {
        // It is full, or slow: each return comes to nothing, over a link that opens again at once.
        for at in 0..4 {
            bench.replicas[2].refuse = Some(("BeginSync", Status::NoSpace));
            bench.write(second * 4 + at, 1, 9);
            bench.advance(Duration::from_millis(250));
        }
    }
    let failures = abandoned(&bench);
    assert!((8..=20).contains(&failures.len()), "{} attempts in two minutes", failures.len());
    assert!(failures.iter().all(|failure| failure.contains("NoSpace")), "{failures:?}");
    bench.replicas[2].refuse = None;
    bench.advance(Duration::from_secs(9));
    assert_eq!((bench.state(2), bench.ejections()), (IN, 0));
    assert!(same(&bench));
}

#[test]
fn a_lost_link_of_either_side_at_every_step_leaves_equal_replicas() {
    for victim in 0..3 {
        for steps in 0..60 {
            let mut bench = one_is_out();
            bench.come_back(2);
            let mut tags = vec![bench.write(400, 1, 8)];
            for _ in 0..steps {
                bench.step();
            }
            tags.push(bench.write(401, 1, 9));
            bench.reset(victim);
            tags.push(bench.write(402, 1, 10));
            bench.advance(Duration::from_secs(6));
            assert!(tags.iter().all(|tag| bench.is_done(*tag)), "{victim} {steps}");
            assert_eq!((bench.state(0), bench.state(1), bench.state(2)), (IN, IN, IN), "{victim} {steps}");
            assert!(same(&bench), "{victim} {steps}");
            let read = bench.read(400, 3);
            bench.settle();
            assert_eq!(bench.bytes(read), [8, 9, 10]);
        }
    }
}

#[test]
fn one_that_reconnects_while_its_join_is_in_doubt_gets_what_it_missed_before_newer_writes() {
    let mut bench = one_is_out();
    bench.withheld = Some("Join");
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(2));
    assert!(matches!(bench.proposed.last().unwrap().1, Change::Join { .. }));
    bench.kill(2);
    let missed = bench.write(401, 1, 50);
    bench.settle();
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(2));
    let newer = bench.write(402, 1, 51);
    bench.settle();
    bench.withheld = None;
    bench.advance(Duration::from_secs(2));
    assert!(bench.is_done(missed) && bench.is_done(newer));
    assert_eq!(bench.state(2), IN);
    assert!(same(&bench), "a write that was skipped was taken for done");
}

#[test]
fn a_join_that_a_record_tells_of_counts_whatever_becomes_of_its_answer() {
    let mut bench = one_is_out();
    bench.withheld = Some("Join");
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(2));
    let (proposal, version, change) = bench.proposals.pop_front().unwrap();
    bench.decide(version, &change);
    bench.catalog.version += 1;
    bench.catalog.last_change = None;
    let record = bench.catalog.clone();
    bench.event(Event::Record(record.clone()));
    let answer = ChangeAnswer::Refused { reason: "version".to_owned(), record };
    bench.event(Event::Answer { proposal, answer });
    bench.advance(Duration::from_secs(2));
    assert_eq!(bench.ejections(), 0);
    assert_eq!(bench.state(2), IN);
    assert!(!bench.notices.iter().any(|notice| matches!(notice, Notice::ReturnAbandoned { .. })));
}

#[test]
fn the_joint_phase_begins_before_finish_sync_and_lasts_until_the_answer() {
    let mut bench = one_is_out();
    bench.withheld = Some("Join");
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(2));
    bench.mute[2] = true;
    let write = bench.write(0, 1, 9);
    bench.settle();
    assert!(!bench.completed.contains_key(&write), "it may be in-sync by the catalog already");
    let read = bench.read(400, 1);
    bench.mute[2] = false;
    bench.settle();
    assert!(bench.is_done(write) && bench.is_done(read));
}

#[test]
fn writes_stuck_below_min_replicas_do_not_keep_another_from_returning() {
    let mut bench = one_is_out();
    bench.kill(1);
    // In the slot that the one that returns lacks: nobody but it can make up for the one that is gone.
    let stuck = bench.write(402, 1, 9);
    bench.advance(Duration::from_secs(2));
    assert!(!bench.completed.contains_key(&stuck));
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(5));
    assert_eq!((bench.state(2), bench.is_done(stuck)), (IN, true), "{:?}", bench.notices);
    assert!(matches!(bench.state(1), MemberState::Out { .. }));
    assert_eq!(bench.replicas[2].byte(0, 401), 3);
}

#[test]
fn answers_of_an_earlier_stay_do_not_count_for_a_return() {
    let mut bench = Bench::serving(&[IN; 3]);
    // Durable on the one that leaves, not on one that stays: in flight throughout.
    bench.mute[0] = true;
    let write = bench.write(0, 1, 9);
    bench.settle();
    bench.reset(2);
    bench.settle();
    assert!(matches!(bench.state(2), MemberState::Out { .. }));
    bench.replicas[2].log.clear();
    for _ in 0..40 {
        bench.now = bench.now + Duration::from_millis(10);
        bench.event(Event::Tick);
        bench.settle();
    }
    let again = bench.replicas[2].log.iter().filter(|request| matches!(request, Request::Write { .. })).count();
    assert_eq!(again, 1, "its own tail is stale since BeginSync, so it needs the write once more");
    bench.mute[0] = false;
    bench.advance(Duration::from_secs(3));
    assert!(bench.is_done(write) && same(&bench));
}

#[test]
fn no_source_at_the_moment_of_a_copy_blocks_no_slot_for_ever() {
    let mut tried = 0;
    for steps in 0..80 {
        let mut bench = one_is_out();
        bench.come_back(2);
        for _ in 0..steps {
            bench.step();
        }
        bench.reset(0);
        bench.reset(1);
        for _ in 0..3 {
            bench.step();
        }
        bench.advance(Duration::from_secs(5));
        let write = bench.write(400, 4, 5);
        let other = bench.write(16384 + 7, 1, 6);
        bench.settle();
        assert!(bench.is_done(write) && bench.is_done(other), "{steps}");
        tried += 1;
    }
    assert_eq!(tried, 80);
}

#[test]
fn one_whose_journal_was_damaged_is_copied_whole() {
    for was_out in [true, false] {
        let mut bench = one_is_out();
        bench.replicas[2].down = false;
        if !was_out {
            bench.advance(Duration::from_secs(3));
            bench.kill(2);
            bench.replicas[2].down = false;
        }
        bench.replicas[2].distrust();
        bench.replicas[2].blocks.clear();
        bench.replicas[2].stamps.clear();
        bench.replicas[2].log.clear();
        bench.replicas[2].refuse = Some(("MarkStale", Status::NoSpace));
        bench.advance(Duration::from_secs(6));
        assert_eq!(bench.state(2), IN, "{:?}", bench.notices);
        assert!(same(&bench), "older than its commit point, and gone: {was_out}");
        let begun = bench.replicas[2].log.iter().filter(|request| name(request) == "BeginSync").cloned();
        assert_eq!(
            begun.collect::<Vec<_>>(),
            [Request::BeginSync { after: Lsn::ZERO }, Request::BeginSync { after: Lsn::ZERO }]
        );
    }
}

#[test]
fn one_that_says_that_it_lost_more_than_what_came_after_is_copied_whole() {
    let mut bench = one_is_out();
    bench.catalog.version += 1;
    bench.catalog.members[2].state = MemberState::Syncing { commit: Lsn::from_raw(100) };
    bench.event(Event::Record(bench.catalog.clone()));
    bench.replicas[2].distrust();
    bench.replicas[2].blocks.clear();
    bench.replicas[2].stamps.clear();
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(6));
    assert_eq!(bench.state(2), IN, "{:?}", bench.notices);
    assert!(same(&bench));
}

#[test]
fn a_damaged_replica_that_cannot_be_ejected_takes_no_writes() {
    let mut bench = one_is_out();
    bench.kill(1);
    bench.replicas[1].distrust();
    bench.replicas[1].blocks.clear();
    bench.replicas[1].stamps.clear();
    bench.replicas[1].down = false;
    bench.replicas[1].log.clear();
    bench.advance(Duration::from_secs(1));
    let write = bench.write(0, 1, 9);
    bench.advance(Duration::from_secs(2));
    let wrote = bench.replicas[1].log.iter().any(|request| matches!(request, Request::Write { .. }));
    assert!(!wrote, "its prefix must not grow over what it lost");
    assert!(!bench.completed.contains_key(&write));
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(20));
    assert!(bench.is_done(write));
    assert_eq!((bench.state(0), bench.state(1), bench.state(2)), (IN, IN, IN));
    assert!(same(&bench));
}

/// What it answered beyond its commit point is its own tail: the return takes that back.
#[test]
fn a_return_that_is_cut_off_is_no_loss_of_what_was_answered_before() {
    let mut bench = Bench::serving(&[IN; 3]);
    let first = bench.write(400, 1, 5);
    bench.settle();
    assert!(bench.is_done(first));
    bench.mute[1] = true;
    let write = bench.write(0, 1, 7);
    bench.settle();
    bench.kill(2);
    bench.mute[1] = false;
    bench.settle();
    assert!(bench.is_done(write) && matches!(bench.state(2), MemberState::Out { .. }));
    bench.come_back(2);
    while !bench.replicas[2].log.iter().any(|request| name(request) == "Fill") {
        assert!(bench.step(), "{:?}", bench.replicas[2].log);
    }
    bench.reset(2);
    bench.advance(Duration::from_secs(5));
    assert_eq!(bench.state(2), IN);
    let begun = |request: &&Request| matches!(request, Request::BeginSync { after } if *after == Lsn::ZERO);
    assert_eq!(bench.replicas[2].log.iter().filter(begun).count(), 0, "copied whole");
}

#[test]
fn pages_that_lead_nowhere_end_the_return() {
    let mut bench = one_is_out();
    bench.replicas[2].in_circles = true;
    bench.replicas[2].down = false;
    for _ in 0..10 {
        bench.advance(Duration::from_millis(300));
    }
    assert!(bench.notices.iter().any(|notice| matches!(notice, Notice::ReturnAbandoned { .. })));
    bench.replicas[2].in_circles = false;
    bench.advance(Duration::from_secs(10));
    assert_eq!(bench.state(2), IN);
}

/// A return of hours is not thrown away because somebody gave up a snapshot.
#[test]
fn a_join_that_is_refused_for_its_version_is_proposed_again() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.kill(2);
    bench.write(0, 1, 1);
    bench.advance(Duration::from_secs(2));
    bench.withheld = Some("Join");
    bench.come_back(2);
    bench.settle();
    assert!(matches!(bench.state(2), MemberState::Syncing { .. }));
    (bench.catalog.version, bench.catalog.last_change) = (bench.catalog.version + 1, None);
    bench.withheld = None;
    bench.settle();
    assert_eq!(bench.state(2), IN);
    let abandoned = |notice: &Notice| matches!(notice, Notice::ReturnAbandoned { .. });
    assert!(!bench.notices.iter().any(abandoned), "{:?}", bench.notices);
}
