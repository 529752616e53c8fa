//! Epochs, sessions, observers, bounds, deletion.

use crate::testing::*;
use crate::{Deleted, Event, LinkId, OpToken};
use ashlar_types::{ByteCount, CHUNK_BYTES, ChunkIndex, Epoch, Lsn};
use ashlar_wire::limits::SESSION_REQUESTS_MAX;
use ashlar_wire::{Open, Reply, Request, Status};

#[test]
fn stale_epoch_is_refused_and_the_fence_survives_a_restart() {
    let mut rig = Rig::format(256);
    rig.opened(1, 5);
    let media = rig.crash(&mut Random::new(1));
    let mut rig = Rig::start(media);
    rig.settle();
    let Reply::Refused(refusal) = rig.open(1, 4) else { panic!() };
    assert_eq!(refusal.status, Status::Fenced);
    assert_eq!(rig.replies.last().unwrap().1.epoch, Epoch::new(5).unwrap());
    rig.opened(2, 5);
}

#[test]
fn opened_is_answered_when_the_promise_is_durable_and_what_came_before_it() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    let write = rig.send_frame(1, Lsn::ZERO, write(0, &[1; 16], lsn(1, 1)));
    let open = rig.send_open(2, 2);
    assert_eq!(rig.closed, [LinkId(1)], "the older session ends at once");
    rig.complete(rig.journal_writes()[0]);
    rig.complete(rig.journal_writes()[0]);
    assert!(rig.answer_to(open).is_none(), "data accepted before is not durable");
    rig.settle();
    assert!(matches!(rig.answer_to(open), Some(Reply::Opened(_))));
    assert!(rig.answer_to(write).is_none(), "nobody is there to hear it");
    let Reply::Reported { entries, next: None } = rig.ask(2, Request::Report { from: range(0, 1).chunk }) else {
        panic!()
    };
    assert_eq!((entries[0].prefix, entries[0].complete), (lsn(1, 1), true));
}

#[test]
fn a_lower_epoch_is_refused_while_the_higher_promise_is_on_its_way() {
    let mut rig = Rig::format(256);
    rig.send_open(1, 7);
    let low = rig.send_open(2, 6);
    let Some(Reply::Refused(refusal)) = rig.answer_to(low) else { panic!() };
    assert_eq!(refusal.status, Status::Fenced);
    assert_eq!(rig.closed, [LinkId(2)]);
    rig.settle();
    assert_eq!(rig.ask(1, Request::Ping), Reply::Done);
}

#[test]
fn a_new_session_of_the_same_epoch_drops_what_the_old_one_has_queued() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    // The first is being written, the second fills the next batch, the rest is queued.
    for i in 0..6 {
        rig.send(1, write(i * 64, &[i as u8 + 1; 30], lsn(1, 1 + i)));
    }
    let open = rig.send_open(2, 1);
    rig.settle();
    assert!(matches!(rig.answer_to(open), Some(Reply::Opened(_))));
    let Reply::Reported { entries, .. } = rig.ask(2, Request::Report { from: range(0, 1).chunk }) else { panic!() };
    let prefix = entries[0].prefix.counter();
    assert!(prefix < 6, "the queue is gone");
    for i in 0..6 {
        rig.write(2, write(i * 64, &[i as u8 + 1; 30], lsn(1, 1 + i)));
    }
    for i in 0..6 {
        rig.expect(2, i * 64, &[i as u8 + 1; 30]);
    }
    assert_eq!(rig.engine.status().counters.duplicates, prefix);
}

#[test]
fn the_commit_point_is_kept() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1], lsn(1, 1)));
    rig.send_frame(1, lsn(1, 1), write(0, &[2], lsn(1, 2)));
    rig.settle();
    let mut rig = Rig::start(rig.crash(&mut Random::new(5)));
    rig.settle();
    let Reply::Opened(opened) = rig.open(1, 2) else { panic!() };
    assert_eq!(opened.commit, lsn(1, 1));
}

#[test]
fn an_observer_reads_and_changes_nothing() {
    let mut rig = Rig::format(256);
    let Request::Open(open) = rig.open_request() else { panic!() };
    let reply = rig.ask(9, Request::Observe(open));
    assert!(matches!(reply, Reply::Refused(refusal) if refusal.status == Status::WrongDisk), "no replica, no zeros");
    rig.opened(1, 3);
    rig.write(1, write(0, &[1], lsn(3, 1)));
    assert!(matches!(rig.ask(2, Request::Observe(open)), Reply::Opened(_)));
    rig.expect(2, 0, &[1]);
    assert_eq!(rig.refused(2, write(0, &[1], lsn(3, 2))), Status::BadRequest);
    assert_eq!(rig.refused(2, Request::BeginSync { after: Lsn::ZERO }), Status::BadRequest);
    rig.write(1, write(0, &[2], lsn(3, 2)));
    assert_eq!(rig.engine.status().replicas[0].promised, Epoch::new(3).unwrap());
}

#[test]
fn an_observer_of_the_present_is_fenced_by_the_first_word_of_a_higher_epoch() {
    let mut rig = Rig::format(256);
    let Request::Open(open) = rig.open_request() else { panic!() };
    let epoch = |number| Epoch::new(number).unwrap();
    rig.opened(1, 3);
    rig.write(1, write(0, &[1], lsn(3, 1)));
    for (link, of) in [(2, epoch(3)), (3, Epoch::NONE)] {
        assert!(matches!(rig.ask_as(link, of.number(), Request::Observe(open)), Reply::Opened(_)));
        rig.expect(link, 0, &[1]);
    }
    rig.rest();
    let unanswered = rig.send(2, Request::Read { range: range(0, 1), below: Lsn::MAX });
    let unhurt = rig.send(3, Request::Read { range: range(0, 1), below: Lsn::MAX });
    let opening = rig.send_open(4, 4);
    assert_eq!(rig.closed, [LinkId(1), LinkId(2)], "before the promise is durable");
    assert!(rig.answer_to(opening).is_none());
    let early = rig.ask_as(5, 3, Request::Observe(open));
    assert!(matches!(early, Reply::Refused(refusal) if refusal.status == Status::Fenced));
    rig.settle();
    rig.write(4, write(0, &[2], lsn(4, 1)));
    assert!(rig.answer_to(unanswered).is_none() && rig.answer_to(unhurt).is_some());
    rig.expect(3, 0, &[2]);
    let mut rig = Rig::start(rig.crash(&mut Random::new(1)));
    rig.settle();
    let late = rig.ask_as(2, 3, Request::Observe(open));
    assert!(matches!(late, Reply::Refused(refusal) if refusal.status == Status::Fenced), "across a restart");
    for (link, of) in [(3, 4), (4, 5), (5, 0)] {
        assert!(matches!(rig.ask_as(link, of, Request::Observe(open)), Reply::Opened(_)));
    }
}

#[test]
fn a_link_that_does_not_begin_with_open_is_closed() {
    let mut rig = Rig::format(256);
    assert_eq!(rig.refused(4, Request::Ping), Status::BadRequest);
    assert_eq!(rig.closed, [LinkId(4)]);
    let Request::Open(mut open) = rig.open_request() else { panic!() };
    open.disk = ashlar_types::DiskId::from_u128(77);
    assert_eq!(rig.refused(5, Request::Open(open)), Status::WrongDisk);
}

#[test]
fn a_peer_with_too_much_unanswered_is_disconnected() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    for i in 0..=SESSION_REQUESTS_MAX as u64 {
        rig.send(1, write(0, &[1], lsn(1, 1 + i)));
    }
    assert_eq!(rig.closed, [LinkId(1)]);
    rig.settle();
    rig.opened(2, 1);
}

#[test]
fn requests_before_the_end_of_recovery_wait() {
    let mut rig = Rig::start(Rig::format(256).stop());
    let open = rig.send_open(1, 1);
    let gone = rig.send_open(2, 1);
    rig.handle(Event::LinkClosed { link: LinkId(2) });
    assert!(rig.answer_to(open).is_none());
    rig.settle();
    assert!(rig.recovered.is_some());
    assert!(matches!(rig.answer_to(open), Some(Reply::Opened(_))));
    assert!(rig.answer_to(gone).is_none());
}

#[test]
fn a_link_that_is_closed_at_the_end_of_recovery_is_not_served_any_further() {
    let mut rig = Rig::start(Media::format(256));
    rig.send(1, Request::Ping);
    rig.send_open(1, 4);
    rig.settle();
    assert_eq!((rig.replies.len(), &rig.closed[..]), (1, &[LinkId(1)][..]));
    assert!(rig.engine.status().replicas.is_empty(), "nobody opened anything");
    // The name of the writer is free.
    rig.opened(2, 4);
    assert_eq!(rig.closed.len(), 1);
}

#[test]
fn what_waits_for_the_end_of_recovery_is_bounded() {
    let mut rig = Rig::start(Rig::format(256).stop());
    for i in 0..100 {
        rig.send(1, write(0, &[1; 256], lsn(1, 1 + i)));
    }
    assert_eq!(rig.closed, [LinkId(1)]);
    rig.settle();
    rig.opened(2, 1);
}

#[test]
fn a_deleted_replica_stays_deleted_and_fenced() {
    let mut rig = Rig::format(256);
    rig.opened(1, 3);
    rig.write(1, write(0, &[1; 64], lsn(3, 1)));
    let delete = |op, epoch| Event::Delete { op: OpToken(op), volume: volume(), epoch: Epoch::new(epoch).unwrap() };
    rig.handle(delete(1, 2));
    assert!(matches!(&rig.deleted[..], [Err(_)]), "an older epoch deletes nothing");
    rig.handle(delete(2, 4));
    assert_eq!(rig.closed, [LinkId(1)]);
    let Reply::Refused(refusal) = rig.open(2, 9) else { panic!() };
    assert_eq!(refusal.status, Status::Deleted);
    rig.settle();
    assert_eq!(rig.deleted[1], Ok(Deleted::Gone));
    for round in 0..2 {
        assert_eq!(rig.engine.status().slots_used, 0, "round {round}");
        let Reply::Refused(refusal) = rig.open(3 + round, 4) else { panic!() };
        assert_eq!(refusal.status, Status::Deleted);
        if round == 1 {
            rig.rest();
        }
        rig = Rig::start(rig.crash(&mut Random::new(round)));
        rig.settle();
    }
    rig.opened(9, 5);
    rig.expect(9, 0, &[0; 64]);
    assert!(rig.media.index.keys().all(|key| key[0] != b's'), "nothing is left of it");
}

#[test]
fn a_failed_write_ends_the_life_of_the_disk_but_not_the_reads() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    rig.write(1, write(0, &[1], lsn(1, 1)));
    let first = rig.send(1, write(1, &[2], lsn(1, 2)));
    let second = rig.send(1, write(2, &[3], lsn(1, 3)));
    rig.break_op(rig.journal_writes()[0]);
    assert!(rig.failed.as_ref().unwrap().contains("journal"));
    for request in [first, second] {
        let Some(Reply::Refused(refusal)) = rig.answer_to(request) else { panic!() };
        assert_eq!(refusal.status, Status::DiskFailed);
    }
    assert_eq!(rig.refused(1, write(0, &[9], lsn(1, 4))), Status::DiskFailed);
    rig.expect(1, 0, &[1, 0, 0]);
    assert_eq!(rig.ask(1, Request::Ping), Reply::Done);
    let Reply::Refused(refusal) = rig.open(2, 2) else { panic!() };
    assert_eq!(refusal.status, Status::DiskFailed);
    assert!(rig.in_flight.is_empty(), "nothing is written any more");
}

#[test]
fn a_failed_flush_or_commit_ends_the_life_of_the_disk() {
    for broken in ["flush", "commit"] {
        let mut rig = Rig::format(256);
        rig.opened(1, 1);
        rig.write(1, write(0, &[1], lsn(1, 1)));
        rig.now = rig.engine.next_deadline();
        rig.handle(Event::Tick);
        rig.complete(0);
        if broken == "commit" {
            rig.complete(0);
        }
        rig.break_op(0);
        assert!(rig.failed.as_ref().unwrap().contains(broken), "{:?}", rig.failed);
        rig.expect(1, 0, &[1]);
    }
}

#[test]
fn a_volume_grows_under_its_writer_and_stays_grown() {
    let mut rig = Rig::format(256);
    rig.opened(1, 1);
    let Request::Open(open) = rig.open_request() else { panic!() };
    let beyond = |lsn| {
        let mut write = write(0, &[7], lsn);
        let Request::Write { range, .. } = &mut write else { panic!() };
        range.chunk = ChunkIndex((open.size.0 / CHUNK_BYTES) as u32);
        write
    };
    assert_eq!(rig.refused(1, beyond(lsn(1, 1))), Status::BadRequest);
    let grow = |size: u64| Request::Grow { size: ByteCount(size) };
    assert_eq!(rig.refused(1, grow(open.size.0 - CHUNK_BYTES)), Status::BadRequest);
    let grown = rig.send(1, grow(open.size.0 + CHUNK_BYTES));
    let written = rig.send(1, beyond(lsn(1, 1)));
    rig.settle();
    assert_eq!([rig.answer_to(grown), rig.answer_to(written)], [Some(&Reply::Done); 2]);
    let mut rig = Rig::start(rig.crash(&mut Random::new(3)));
    rig.settle();
    let replica = &rig.engine.status().replicas[0];
    assert_eq!((replica.size.0, replica.promised), (open.size.0 + CHUNK_BYTES, Epoch::new(1).unwrap()));
    assert!(matches!(rig.open(1, 2), Reply::Refused(refusal) if refusal.reason.contains("shrinks")));
}

#[test]
fn opened_says_what_was_before() {
    let mut rig = Rig::format(256);
    let Reply::Opened(first) = rig.open(1, 2) else { panic!() };
    assert_eq!((first.agreed, first.last), (Epoch::NONE, Lsn::ZERO));
    rig.write(1, Request::FinishSync);
    rig.write(1, write(0, &[1], lsn(2, 1)));
    rig.write(1, write(0, &[1], lsn(2, 2)));
    rig.rest();
    let mut rig = Rig::start(rig.crash(&mut Random::new(3)));
    rig.settle();
    let Reply::Opened(second) = rig.open(2, 3) else { panic!() };
    assert_eq!((second.agreed, second.last), (Epoch::new(2).unwrap(), lsn(2, 2)));
    let Reply::Opened(third) = rig.open(3, 3) else { panic!() };
    assert_eq!(third.agreed, Epoch::new(2).unwrap(), "a promise is no proof that it was made equal");
    let sessions = [first, second, third].map(|opened| opened.session_before);
    assert!(sessions[0] != sessions[1] && sessions[1] != sessions[2], "{sessions:?}");
}

#[test]
fn what_it_agreed_in_is_durable_when_it_is_answered_and_never_falls() {
    let mut rig = Rig::format(256);
    for epoch in [2, 4] {
        rig.opened(u64::from(epoch), epoch);
        rig.write(u64::from(epoch), Request::FinishSync);
        rig = Rig::start(rig.crash(&mut Random::new(u64::from(epoch))));
        rig.settle();
        let Reply::Opened(after) = rig.open(9, epoch + 1) else { panic!() };
        assert_eq!(after.agreed, Epoch::new(epoch).unwrap(), "replayed from the journal");
    }
    rig.rest();
    let mut rig = Rig::start(rig.crash(&mut Random::new(7)));
    rig.settle();
    let Reply::Opened(at_last) = rig.open(10, 6) else { panic!() };
    assert_eq!(at_last.agreed, Epoch::new(4).unwrap(), "read from the index");
}

#[test]
fn a_replica_that_has_not_agreed_in_what_it_served_under_says_for_good_that_it_is_incomplete() {
    let mut rig = Rig::format(256);
    rig.opened(1, 2);
    rig.write(1, Request::FinishSync);
    rig.write(1, write(0, &[1], lsn(2, 1)));
    let Request::Open(open) = rig.open_request() else { panic!() };
    let opened = |rig: &mut Rig, link: u64, epoch: u32, served: u32| {
        let served = Epoch::new(served).unwrap();
        match rig.ask_as(link, epoch, Request::Open(Open { served, ..open })) {
            Reply::Opened(opened) => opened,
            other => panic!("{other:?}"),
        }
    };
    assert!(!opened(&mut rig, 2, 4, 2).syncing, "it has agreed in epoch 2");
    assert!(opened(&mut rig, 3, 5, 4).syncing, "it has promised epoch 4, and was not made equal in it");
    let mut rig = Rig::start(rig.crash(&mut Random::new(3)));
    rig.settle();
    assert!(opened(&mut rig, 4, 6, 2).syncing, "asking for less does not mend it");
    let Reply::Reported { entries, .. } = rig.ask(4, Request::Report { from: ChunkIndex(0) }) else { panic!() };
    assert!(entries.iter().all(|entry| !entry.complete && entry.prefix == Lsn::ZERO));
    let mut blank = Rig::format(256);
    assert!(opened(&mut blank, 1, 5, 4).syncing, "an empty disk in its place");
}
