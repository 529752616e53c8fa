//! Each rule of readers by name.

use super::*;
use crate::membership::tests::volume;
use crate::membership::{apply, grant, release_by_force, reserve};
use ashlar_types::{Change, ChangeAnswer};
use proptest::prelude::*;

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn proposed(record: &VolumeRecord, change: Change) -> VolumeRecord {
    match apply(record, record.epoch, record.version, &change) {
        ChangeAnswer::Applied { record } => record,
        other => panic!("not applied: {other:?}"),
    }
}

fn opened() -> VolumeRecord {
    proposed(&grant(&volume(), &node("a")).unwrap(), Change::OpenDirty)
}

fn closed() -> VolumeRecord {
    proposed(&opened(), Change::CloseClean)
}

fn first() -> Epoch {
    Epoch::new(1).unwrap()
}

fn reading<'a>(record: &'a VolumeRecord, readers: &'a [NodeName]) -> Reading<'a> {
    Reading { record, readers, settled: first() }
}

#[test]
fn a_volume_is_settled_when_who_said_so_closed_and_nobody_came_after() {
    let is_settled = |record: &VolumeRecord| reading(record, &[]).is_settled();
    assert!(is_settled(&closed()));
    assert!(!Reading { settled: Epoch::NONE, ..reading(&closed(), &[]) }.is_settled(), "nobody said so");
    assert!(!Reading { settled: Epoch::NONE, ..reading(&volume(), &[]) }.is_settled(), "never served");
    assert!(!is_settled(&opened()) && !is_settled(&release_by_force(&opened())), "not closed");
    let granted = grant(&closed(), &node("a")).unwrap();
    assert!(!is_settled(&granted) && !is_settled(&release_by_force(&granted)), "another epoch was granted");
    assert!(!is_settled(&reserve(&closed(), &node("a")).unwrap()), "held");
}

#[test]
fn only_a_reader_that_serves_the_volume_says_that_it_is_settled() {
    let (a, b) = (node("a"), node("b"));
    let readers = [a.clone(), b.clone()];
    let said = |record: &VolumeRecord, by| Reading { settled: Epoch::NONE, ..reading(record, &readers) }.settle(by);
    assert_eq!(said(&opened(), &a), Ok(first()));
    assert_eq!(said(&opened(), &b), Err(Refusal::BeingSettled { holder: a.clone() }));
    assert_eq!(said(&closed(), &a), Err(Refusal::NotSettled), "closed before it was said");
    assert_eq!(said(&grant(&opened(), &a).unwrap(), &a), Err(Refusal::NotSettled), "attached anew, not served yet");
    assert_eq!(said(&reserve(&volume(), &a).unwrap(), &a), Err(Refusal::NotSettled));
}

#[test]
fn a_volume_that_is_held_gets_no_reader_unless_a_reader_makes_it_ready() {
    let held = opened();
    assert_eq!(reading(&held, &[]).add(&node("b")), Err(Refusal::Held { holder: node("a") }));
    assert_eq!(reading(&held, &[node("a")]).add(&node("b")), Ok(vec![node("a"), node("b")]));
    assert_eq!(reading(&held, &[node("b")]).add(&node("b")), Ok(vec![node("b")]), "repeated");
}

#[test]
fn readers_are_bounded_and_a_refusal_says_so() {
    let many: Vec<NodeName> = (0..READERS_MAX).map(|number| node(&format!("n{number}"))).collect();
    let record = volume();
    let reading = reading(&record, &many);
    let refused = reading.add(&node("one-more")).unwrap_err();
    assert!(refused.to_string().contains("256"), "{refused}");
    assert!(reading.add(&many[7]).is_ok());
    assert_eq!(reading.remove(Some(&many[0])).len(), READERS_MAX - 1);
    assert_eq!(reading.remove(None), vec![]);
}

#[test]
fn with_readers_nothing_changes_the_volume_and_the_refusal_names_them() {
    let readers: Vec<NodeName> = (0..10).map(|number| node(&format!("n{number}"))).collect();
    let record = volume();
    let refused = |readers| reading(&record, readers).allow_change().unwrap_err().to_string();
    let many = refused(&readers);
    assert!(many.contains("nodes n0, n1,") && many.contains("and 2 more") && many.contains("unpublish"), "{many}");
    assert!(refused(&readers[..1]).contains("node n0:"));
    assert_eq!(reading(&record, &[]).allow_change(), Ok(()));
}

#[test]
fn one_reader_makes_it_ready_while_the_others_wait() {
    let (a, b, stranger) = (node("a"), node("b"), node("c"));
    let readers = [a.clone(), b.clone()];
    let (free, held, settled) = (volume(), reserve(&volume(), &a).unwrap(), closed());
    assert_eq!(reading(&free, &readers).allow_settling(&a), Ok(()));
    assert_eq!(reading(&held, &readers).allow_settling(&a), Ok(()), "after a crash");
    assert_eq!(reading(&held, &readers).allow_settling(&b), Err(Refusal::BeingSettled { holder: a.clone() }));
    assert_eq!(reading(&held, &readers).allow_reading(&a), Err(Refusal::BeingSettled { holder: a.clone() }));
    assert_eq!(reading(&free, &readers).allow_reading(&a), Err(Refusal::NotSettled));
    assert_eq!(reading(&settled, &readers).allow_settling(&b), Err(Refusal::Settled));
    assert_eq!(reading(&settled, &readers).allow_reading(&b), Ok(()));
    let refused = Refusal::NotPublished { node: stranger.clone() };
    assert_eq!(reading(&free, &readers).allow_settling(&stranger), Err(refused.clone()));
    assert_eq!(reading(&settled, &readers).allow_reading(&stranger), Err(refused));
}

proptest! {
    /// Whatever is tried in whatever order: once a node may attach as a reader, no epoch is granted to anybody until
    /// the last reader is gone, and the record's epoch stays the served one.
    #[test]
    fn no_epoch_is_granted_while_anybody_may_read(steps in prop::collection::vec((0u8..9, 0usize..3), 0..80)) {
        let nodes = [node("a"), node("b"), node("c")];
        let (mut record, mut readers, mut settled) = (volume(), Vec::new(), Epoch::NONE);
        for (step, at) in steps {
            let node = &nodes[at];
            let before = record.clone();
            let reading = Reading { record: &before, readers: &readers, settled };
            let was_read = readers.iter().any(|reader| reading.allow_reading(reader).is_ok());
            let serves = record.served == record.epoch && record.served > Epoch::NONE;
            // Who closed is followed by nobody under its epoch, whoever the volume is reserved for since.
            let is_open = record.holder.is_some() && !(record.clean && serves);
            let readers_next = match step {
                0 => reading.add(node).unwrap_or(readers.clone()),
                1 => reading.remove(Some(node)),
                _ => readers.clone(),
            };
            match step {
                2 if reading.allow_settling(node).is_ok() || reading.allow_change().is_ok() => {
                    record = reserve(&record, node).unwrap_or(record);
                }
                3 if reading.allow_grant(node).is_ok() => record = grant(&record, node).unwrap_or(record),
                4 if is_open && record.epoch > Epoch::NONE => {
                    record = proposed(&record, Change::OpenDirty);
                }
                5 => settled = reading.settle(node).unwrap_or(settled),
                6 if serves && is_open => record = proposed(&record, Change::CloseClean),
                7 => record = release_by_force(&record),
                _ => {}
            }
            readers = readers_next;
            if was_read && !readers.is_empty() {
                prop_assert!(record.epoch == before.epoch && record.holder.is_none());
                prop_assert_eq!(record.served, record.epoch);
            }
        }
    }
}
