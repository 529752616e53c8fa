//! A disk of the past.

use super::*;
use crate::Notice;
use crate::testing::{Bench, OUT, Replica, disk, record};
use ashlar_types::*;

const IN: MemberState = MemberState::InSync;

fn opened(agreed: u32, session: u64, last: u64) -> Opened {
    Opened {
        commit: Lsn::ZERO,
        floor: Lsn::ZERO,
        syncing: false,
        last: Lsn::from_raw(last),
        agreed: Epoch::new(agreed).unwrap(),
        session_before: SessionId(session),
    }
}

fn served(epoch: u32) -> Epoch {
    Epoch::new(epoch).unwrap()
}

#[test]
fn the_first_session_is_known_by_what_it_agreed_in_alone() {
    let mut history = History::default();
    history.note_attempt(SessionId(1));
    assert_eq!(history.note_opened(&opened(4, 99, 0), served(4)), None);
    let mut history = History::default();
    history.note_attempt(SessionId(1));
    assert!(history.note_opened(&opened(3, 99, 0), served(4)).is_some());
}

#[test]
fn the_session_before_is_the_last_opened_or_an_unanswered_attempt() {
    let mut history = History::default();
    for session in 1..=3 {
        history.note_attempt(SessionId(session));
    }
    assert_eq!(history.note_opened(&opened(0, 99, 0), Epoch::NONE), None, "of the writer before");
    history.note_attempt(SessionId(4));
    assert_eq!(history.note_opened(&opened(0, 2, 0), Epoch::NONE), None, "2 came late, after 3");
    history.note_attempt(SessionId(5));
    assert!(history.note_opened(&opened(0, 3, 0), Epoch::NONE).is_some(), "4 was opened since");
}

#[test]
fn an_unanswered_attempt_that_was_told_of_does_not_come_again() {
    let mut history = History::default();
    for session in 1..=2 {
        history.note_attempt(SessionId(session));
    }
    assert_eq!(history.note_opened(&opened(4, 1, 0), served(4)), None, "1 had become durable");
    history.note_attempt(SessionId(3));
    assert!(history.note_opened(&opened(4, 1, 0), served(4)).is_some(), "2 was opened since");
}

#[test]
fn attempts_are_remembered_within_bounds() {
    let mut history = History::default();
    history.note_attempt(SessionId(1000));
    assert_eq!(history.note_opened(&opened(0, 0, 0), Epoch::NONE), None);
    for session in 0..200 {
        history.note_attempt(SessionId(session));
    }
    assert_eq!(history.unanswered.len(), ATTEMPTS_MAX);
    assert_eq!(history.note_opened(&opened(0, 1000, 0), Epoch::NONE), None, "the last opened is not forgotten");
}

#[test]
fn what_it_answered_durable_it_must_have() {
    let mut history = History::default();
    history.note_attempt(SessionId(1));
    assert_eq!(history.note_opened(&opened(0, 0, 0), Epoch::NONE), None);
    history.note_answer(Lsn::from_raw(7));
    history.note_answer(Lsn::from_raw(6));
    history.note_attempt(SessionId(2));
    assert!(history.note_opened(&opened(0, 1, 6), Epoch::NONE).is_some());
    history.note_attempt(SessionId(3));
    assert_eq!(history.note_opened(&opened(0, 2, 7), Epoch::NONE), None);
}

fn ejecting(bench: &Bench, index: usize) -> Vec<&str> {
    let reasons = bench.notices.iter().filter_map(|notice| match notice {
        Notice::Ejecting { disk: of, reason } if *of == disk(index) => Some(reason.as_str()),
        _ => None,
    });
    reasons.collect()
}

/// Puts an older image back; the link with the process is lost.
fn put_back(bench: &mut Bench, index: usize, image: &Replica) {
    bench.kill(index);
    bench.replicas[index] = image.clone();
    (bench.replicas[index].down, bench.replicas[index].session) = (true, None);
    bench.come_back(index);
    bench.settle();
}

fn block(bench: &mut Bench, at: u64) -> Vec<u8> {
    let read = bench.read(at, 1);
    bench.settle();
    bench.bytes(read)
}

/// Two replicas in-sync, of which none may be ejected, and a third that cannot be reached yet.
fn two_of_three() -> Bench {
    let mut bench = Bench::new(record(&[IN, IN, OUT(0)]));
    bench.replicas[2].down = true;
    bench.start();
    assert!(bench.volume.status().serving);
    bench
}

#[test]
fn one_that_has_lost_an_answered_write_while_served_is_not_read_and_is_made_whole() {
    let mut bench = two_of_three();
    bench.write(0, 1, 1);
    bench.settle();
    let image = bench.replicas[0].clone();
    bench.write(0, 1, 2);
    bench.settle();
    put_back(&mut bench, 0, &image);
    assert_eq!(block(&mut bench, 0), [2], "the nearest replica has the older block");
    bench.come_back(2);
    bench.advance(Duration::from_secs(20));
    assert!(ejecting(&bench, 0)[0].contains("lost writes"), "{:?}", ejecting(&bench, 0));
    assert_eq!((bench.state(0), bench.state(2)), (IN, IN));
    assert_eq!(bench.replicas[0].byte(0, 0), 2);
}

#[test]
fn an_image_from_before_the_last_session_is_found_out_though_no_write_is_missing() {
    let mut bench = two_of_three();
    bench.write(0, 1, 1);
    bench.settle();
    let image = bench.replicas[1].clone();
    bench.reset(1);
    bench.come_back(1);
    bench.settle();
    put_back(&mut bench, 1, &image);
    bench.come_back(2);
    bench.advance(Duration::from_secs(20));
    assert!(ejecting(&bench, 1)[0].contains("last session"), "{:?}", ejecting(&bench, 1));
}

#[test]
fn one_that_only_lost_its_link_is_not_suspected() {
    let mut bench = two_of_three();
    for round in 0..5 {
        bench.write(round, 1, 1);
        bench.settle();
        bench.reset(0);
        bench.come_back(0);
        bench.settle();
    }
    bench.come_back(2);
    bench.advance(Duration::from_secs(20));
    assert_eq!((bench.ejections(), bench.state(2)), (0, IN));
}

#[test]
fn an_image_of_an_earlier_epoch_is_no_source_of_a_reconcile_however_long_its_history() {
    let served = Epoch::new(3).unwrap();
    let mut bench = Bench::new(VolumeRecord { clean: false, served, ..record(&[IN; 3]) });
    for replica in &mut bench.replicas {
        replica.agreed = served;
        replica.had(0, 0, 90, 1);
    }
    // A tail that nobody acknowledged, and that a reconcile since has taken away.
    bench.replicas[1].had(0, 5, 99, 66);
    bench.replicas[1].agreed = Epoch::new(2).unwrap();
    bench.start();
    bench.advance(Duration::from_secs(5));
    assert!(bench.volume.status().serving, "{:?}", bench.volume.status().blocked);
    for replica in &bench.replicas {
        assert_eq!((replica.byte(0, 5), replica.byte(0, 0)), (0, 1));
    }
}

#[test]
fn one_that_is_out_and_was_not_made_equal_when_it_served_is_copied_whole() {
    let served = Epoch::new(3).unwrap();
    let left_at = Lsn::start_of(served).raw() + 7;
    let mut bench = Bench::new(VolumeRecord { served, ..record(&[IN, IN, OUT(left_at)]) });
    for replica in &mut bench.replicas {
        replica.agreed = served;
        replica.had(0, 0, 90, 1);
    }
    bench.replicas[2].had(0, 5, 99, 66);
    bench.replicas[2].agreed = Epoch::new(2).unwrap();
    bench.start();
    bench.advance(Duration::from_secs(5));
    assert_eq!(bench.state(2), IN);
    assert_eq!((bench.replicas[2].byte(0, 5), bench.replicas[2].byte(0, 0)), (0, 1));
}

#[test]
fn one_that_was_copied_whole_is_no_longer_of_the_past() {
    let served = Epoch::new(3).unwrap();
    let mut bench = Bench::new(VolumeRecord { served, ..record(&[IN, OUT(Lsn::start_of(served).raw())]) });
    bench.replicas[0].agreed = served;
    bench.replicas[0].had(0, 0, 90, 1);
    bench.start();
    bench.advance(Duration::from_secs(5));
    assert_eq!(bench.state(1), IN, "an empty disk in the place of one that was out");
    bench.reset(1);
    bench.come_back(1);
    let write = bench.write(0, 1, 2);
    bench.advance(Duration::from_secs(5));
    assert!(bench.is_done(write) && bench.ejections() == 0);
}

#[test]
fn replicas_that_are_all_of_the_past_are_not_served() {
    let served = Epoch::new(3).unwrap();
    let mut bench = Bench::new(VolumeRecord { served, ..record(&[IN; 3]) });
    for replica in &mut bench.replicas {
        replica.agreed = Epoch::new(2).unwrap();
    }
    bench.start();
    bench.advance(Duration::from_secs(5));
    assert!(!bench.volume.status().serving);
    assert!(bench.volume.status().blocked.unwrap().contains("has lost writes"));
}

#[test]
fn a_clean_close_is_no_proof_of_what_became_of_a_disk_since() {
    let mut bench = Bench::new(record(&[IN; 3]));
    for replica in &mut bench.replicas {
        replica.had(0, 0, 90, 1);
    }
    for index in [0, 2] {
        bench.replicas[index].had(0, 5, 91, 2);
    }
    bench.start();
    assert!(bench.volume.status().serving);
    assert_eq!(bench.replicas[1].byte(0, 5), 2);
}

#[test]
fn the_last_one_of_the_present_is_waited_for_and_never_ejected() {
    let served = Epoch::new(3).unwrap();
    let mut bench = Bench::new(VolumeRecord { clean: false, served, ..record(&[IN; 3]) });
    for replica in &mut bench.replicas[1..] {
        replica.agreed = Epoch::new(2).unwrap();
    }
    bench.replicas[0].agreed = served;
    bench.replicas[0].had(0, 0, 90, 1);
    bench.replicas[0].down = true;
    bench.start();
    bench.advance(Duration::from_secs(10));
    assert_eq!((bench.volume.status().serving, bench.ejections()), (false, 0));
    bench.come_back(0);
    bench.advance(Duration::from_secs(5));
    assert!(bench.volume.status().serving);
    assert!(bench.replicas.iter().all(|replica| replica.byte(0, 0) == 1));
}

#[test]
fn while_served_the_damaged_are_ejected_and_not_the_one_that_only_lost_its_link() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.withheld = Some("Eject");
    bench.write(0, 1, 1);
    bench.settle();
    let image = bench.replicas[1].clone();
    bench.write(0, 1, 2);
    bench.settle();
    bench.catalog.version += 1;
    put_back(&mut bench, 1, &image);
    bench.kill(0);
    bench.withheld = None;
    bench.advance(Duration::from_millis(400));
    let at = |wanted: &dyn Fn(&Change) -> bool| bench.proposed.iter().position(|(_, change)| wanted(change)).unwrap();
    let ejects =
        |index: usize| move |change: &Change| matches!(change, Change::Eject { disks, .. } if *disks == [disk(index)]);
    assert!(at(&|change| *change == Change::Join { disk: disk(1) }) < at(&ejects(0)), "{:?}", bench.proposed);
    assert_eq!(bench.replicas[1].byte(0, 0), 2);
}
