//! Each rule of membership by name.

use super::*;
use ashlar_types::{ByteCount, ChunkIndex, ChunkRun, ClusterId, VolumeId};
use proptest::prelude::*;

const A: DiskId = DiskId::from_u128(10);
const B: DiskId = DiskId::from_u128(11);
const C: DiskId = DiskId::from_u128(12);

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub(crate) fn volume() -> VolumeRecord {
    let member = |disk| Member { disk, node: node("n"), zone: None, state: MemberState::InSync };
    VolumeRecord {
        cluster: ClusterId::from_u128(1),
        volume: VolumeId::from_u128(2),
        size: ByteCount(1 << 30),
        epoch: Epoch::NONE,
        version: 1,
        holder: None,
        served: Epoch::NONE,
        clean: true,
        min_replicas: 2,
        members: [A, B, C].map(member).to_vec(),
        chunks: vec![ChunkRun { first: ChunkIndex(0), count: 16, members: vec![0, 1, 2] }],
        declared_lost: vec![],
        snapshots: vec![],
        clones: Vec::new(),
        origin: None,
        last_change: None,
    }
}

fn eject_change(disks: &[DiskId]) -> Change {
    Change::Eject { disks: disks.to_vec(), commit: Lsn::from_raw(7), reason: "silent".to_owned() }
}

fn applied(answer: ChangeAnswer) -> VolumeRecord {
    match answer {
        ChangeAnswer::Applied { record } => record,
        other => panic!("not applied: {other:?}"),
    }
}

#[test]
fn a_second_node_is_refused_while_the_first_holds() {
    let held = grant(&volume(), &node("a")).unwrap();
    assert_eq!(grant(&held, &node("b")), Err(Refusal::Held { holder: node("a") }));
    let again = grant(&held, &node("a")).unwrap();
    assert!(again.epoch > held.epoch);
}

#[test]
fn an_older_epoch_changes_nothing() {
    let old = grant(&volume(), &node("a")).unwrap();
    let new = grant(&release_by_force(&old), &node("b")).unwrap();
    let answer = apply(&new, old.epoch, new.version, &Change::OpenDirty);
    assert_eq!(answer, ChangeAnswer::Fenced { epoch: new.epoch });
}

#[test]
fn an_ejection_never_goes_below_min_replicas() {
    let record = grant(&volume(), &node("a")).unwrap();
    let two = applied(apply(&record, record.epoch, record.version, &eject_change(&[C])));
    let answer = apply(&two, two.epoch, two.version, &eject_change(&[B]));
    assert!(matches!(answer, ChangeAnswer::Refused { .. }));
    assert!(matches!(
        apply(&record, record.epoch, record.version, &eject_change(&[B, C])),
        ChangeAnswer::Refused { .. }
    ));
}

#[test]
fn a_proposal_asked_again_is_answered_as_the_first_time() {
    let record = grant(&volume(), &node("a")).unwrap();
    let after = applied(apply(&record, record.epoch, record.version, &eject_change(&[C])));
    assert_eq!(applied(apply(&after, record.epoch, record.version, &eject_change(&[C]))), after);
    assert!(matches!(apply(&after, record.epoch, record.version, &eject_change(&[B])), ChangeAnswer::Refused { .. }));
}

#[test]
fn a_disk_becomes_in_sync_only_by_way_of_syncing() {
    let record = grant(&volume(), &node("a")).unwrap();
    let out = applied(apply(&record, record.epoch, record.version, &eject_change(&[C])));
    assert!(matches!(apply(&out, out.epoch, out.version, &Change::Join { disk: C }), ChangeAnswer::Refused { .. }));
    let syncing = applied(apply(&out, out.epoch, out.version, &Change::BeginReturn { disk: C }));
    assert_eq!(syncing.member(C).unwrap().state, MemberState::Syncing { commit: Lsn::from_raw(7) });
    let joined = applied(apply(&syncing, syncing.epoch, syncing.version, &Change::Join { disk: C }));
    assert_eq!(joined.in_sync().count(), 3);
}

#[test]
fn going_below_min_replicas_needs_proof_that_the_disk_is_off() {
    let record = grant(&volume(), &node("a")).unwrap();
    let two = declare_lost(&record, C, false).unwrap();
    assert!(matches!(declare_lost(&two, B, false), Err(Refusal::NeedsProof { .. })));
    let one = declare_lost(&two, B, true).unwrap();
    assert_eq!(one.declared_lost, [C, B]);
    assert!(declare_lost(&one, A, true).is_err(), "the last replica is never given up");
}

#[test]
fn before_the_first_grant_nobody_is_a_writer() {
    let reserved = reserve(&volume(), &node("a")).unwrap();
    for change in [Change::CloseClean, Change::OpenDirty, eject_change(&[C])] {
        let answer = apply(&reserved, Epoch::NONE, reserved.version, &change);
        assert!(matches!(answer, ChangeAnswer::Refused { .. }), "{answer:?}");
    }
}

#[test]
fn a_proposal_that_no_writer_can_mean_changes_nothing() {
    let record = grant(&volume(), &node("a")).unwrap();
    let refused = |version, change: Change| match apply(&record, record.epoch, version, &change) {
        ChangeAnswer::Refused { record: known, .. } => assert_eq!(known, record),
        other => panic!("not refused: {other:?}"),
    };
    refused(u64::MAX, Change::OpenDirty);
    refused(record.version, eject_change(&[C, C]));
    let commit = Lsn::start_of(record.epoch.next().unwrap());
    refused(record.version, Change::Eject { disks: vec![C], commit, reason: "silent".to_owned() });
}

proptest! {
    #[test]
    fn versions_grow_and_chunks_keep_min_replicas(steps in proptest::collection::vec((0u8..6, 0usize..3), 1..60)) {
        let mut record = grant(&volume(), &node("a")).unwrap();
        for (kind, disk) in steps {
            let disk = [A, B, C][disk];
            let change = match kind {
                0 => eject_change(&[disk]),
                1 => Change::BeginReturn { disk },
                2 => Change::Join { disk },
                3 => Change::AbandonReturn { disk },
                4 => Change::CloseClean,
                _ => Change::OpenDirty,
            };
            if let ChangeAnswer::Applied { record: next } = apply(&record, record.epoch, record.version, &change) {
                prop_assert_eq!(next.version, record.version + 1);
                prop_assert!(next.fewest_in_sync_without(&[]) >= next.min_replicas);
                record = next;
            }
        }
    }
}

fn spare() -> Member {
    Member { disk: DiskId::from_u128(13), node: node("d"), zone: None, state: MemberState::InSync }
}

#[test]
fn a_disk_in_sync_is_not_replaced_and_the_chunks_of_another_go_to_the_new_one() {
    let record = grant(&volume(), &node("a")).unwrap();
    assert_eq!(replace(&record, C, spare()), Err(Refusal::InSync { disk: C }));
    let out = applied(apply(&record, record.epoch, record.version, &eject_change(&[B])));
    assert_eq!(replace(&out, DiskId::from_u128(99), spare()), Err(Refusal::NotAMember { disk: DiskId::from_u128(99) }));
    assert_eq!(replace(&out, B, Member { disk: C, ..spare() }), Err(Refusal::AlreadyAMember { disk: C }));
    let next = replace(&out, B, spare()).unwrap();
    assert_eq!(next.chunks[0].members, [0, 3, 2], "known indexes stay");
    assert_eq!(next.members[3].state, MemberState::Out { commit: Lsn::ZERO });
    assert_eq!(next.fewest_in_sync_without(&[]), 2);
    let granted = grant(&next, &node("a")).unwrap();
    let disks: Vec<DiskId> = granted.members.iter().map(|member| member.disk).collect();
    assert_eq!((disks, &granted.chunks[0].members), (vec![A, C, spare().disk], &vec![0, 2, 1]));
}

#[test]
fn one_that_was_declared_lost_is_remembered_until_a_writer_has_waited_for_its_leases() {
    let record = grant(&volume(), &node("a")).unwrap();
    let lost = replace(&declare_lost(&record, C, false).unwrap(), C, spare()).unwrap();
    let granted = grant(&release_by_force(&lost), &node("b")).unwrap();
    assert_eq!((granted.members.len(), &granted.declared_lost), (3, &vec![C]));
    let closed = applied(apply(&granted, granted.epoch, granted.version, &Change::CloseClean));
    assert_eq!(closed.declared_lost, [C], "it has not served, and may not have waited");
    let serving = applied(apply(&granted, granted.epoch, granted.version, &Change::OpenDirty));
    assert_eq!((serving.served, serving.declared_lost.is_empty()), (granted.epoch, true));
    let again = declare_lost(&serving, B, true).unwrap();
    let closed = applied(apply(&again, again.epoch, again.version, &Change::CloseClean));
    assert_eq!((again.declared_lost, closed.declared_lost), (vec![B], vec![]));
}

/// Its writer may be cut off from the control plane, beside the disk that returns to it, and read there.
#[test]
fn one_that_goes_while_it_returns_is_remembered_too() {
    let record = grant(&volume(), &node("a")).unwrap();
    let returning = with_state(&record, C, MemberState::Syncing { commit: Lsn::ZERO });
    let wide = with_state(&widen(&record, B, fresh(D)).unwrap(), D, MemberState::Syncing { commit: Lsn::ZERO });
    assert_eq!(replace(&returning, C, spare()).unwrap().declared_lost, [C]);
    assert_eq!(narrow(&wide, D).unwrap().declared_lost, [D]);
    let lost = declare_lost(&returning, C, false).unwrap();
    assert_eq!((&lost.declared_lost, declare_lost(&lost, C, false).unwrap().declared_lost), (&vec![C], vec![C]));
    assert_eq!(narrow(&widen(&record, B, fresh(D)).unwrap(), D).unwrap().declared_lost, [], "it never began");
}

#[test]
fn a_volume_grows_and_never_shrinks() {
    let grown = grow(&volume(), ByteCount(3 << 30)).unwrap();
    assert_eq!((grown.size, grown.chunks[0].count), (ByteCount(3 << 30), 48));
    assert_eq!(grown.members_of(ChunkIndex(47)), [0, 1, 2]);
    assert!(matches!(grow(&grown, ByteCount(1 << 30)), Err(Refusal::Size { .. })));
    assert!(matches!(grow(&grown, ByteCount(5)), Err(Refusal::Size { .. })));
}

#[test]
fn min_replicas_changes_only_between_two_writers_the_last_of_which_closed() {
    let fresh = volume();
    assert_eq!(set_min_replicas(&fresh, 2), Ok(fresh.clone()), "as it is");
    let one = set_min_replicas(&fresh, 1).unwrap();
    assert_eq!((one.min_replicas, one.version, one.epoch), (1, fresh.version + 1, fresh.epoch));
    assert_eq!(set_min_replicas(&one, 3).unwrap().min_replicas, 3);
    for min in [0, 4, u8::MAX] {
        assert_eq!(set_min_replicas(&fresh, min), Err(Refusal::MinReplicas { min, replicas: 3 }));
    }

    let held = grant(&fresh, &node("a")).unwrap();
    assert_eq!(set_min_replicas(&held, 1), Err(Refusal::MinReplicasInUse));
    assert_eq!(set_min_replicas(&held, 2), Ok(held.clone()), "no change is no change of a writer's rules");
    let open = applied(apply(&held, held.epoch, held.version, &Change::OpenDirty));
    let taken = release_by_force(&open);
    for min in [1, 3] {
        assert_eq!(set_min_replicas(&taken, min), Err(Refusal::MinReplicasUnclean));
    }
    let closed = applied(apply(&open, open.epoch, open.version, &Change::CloseClean));
    assert_eq!(set_min_replicas(&closed, 1).unwrap().min_replicas, 1);
}

/// It was taken away before it opened, and may open still: then it learns of the change first.
#[test]
fn a_writer_that_opens_after_min_replicas_has_changed_knows_of_it() {
    let held = grant(&volume(), &node("a")).unwrap();
    let next = set_min_replicas(&release_by_force(&held), 1).unwrap();
    match apply(&next, held.epoch, held.version, &Change::OpenDirty) {
        ChangeAnswer::Refused { record, .. } => assert_eq!(record.min_replicas, 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn min_replicas_never_rises_above_what_is_in_sync() {
    let record = grant(&volume(), &node("a")).unwrap();
    let two = applied(apply(&record, record.epoch, record.version, &eject_change(&[C])));
    let closed = applied(apply(&two, two.epoch, two.version, &Change::CloseClean));
    assert_eq!(set_min_replicas(&closed, 3), Err(Refusal::BelowMinReplicas { in_sync: 2, min: 3 }));
}

const D: DiskId = DiskId::from_u128(13);

fn fresh(disk: DiskId) -> Member {
    Member { disk, node: node("m"), zone: None, state: MemberState::InSync }
}

fn with_state(record: &VolumeRecord, disk: DiskId, state: MemberState) -> VolumeRecord {
    changed(record, |record| set_state(record, disk, state))
}

#[test]
fn one_that_comes_beside_another_has_nothing_and_holds_its_chunks_too() {
    let wide = widen(&volume(), B, fresh(D)).unwrap();
    assert_eq!(wide.chunks[0].members, [0, 1, 2, 3]);
    assert_eq!(wide.member(D).unwrap().state, MemberState::Out { commit: Lsn::ZERO });
    assert_eq!(wide.fewest_in_sync_without(&[]), 3, "nobody left for it");
    assert_eq!(widen(&wide, B, fresh(D)), Err(Refusal::AlreadyAMember { disk: D }));
    assert_eq!(widen(&volume(), D, fresh(D)), Err(Refusal::NotAMember { disk: D }));
}

#[test]
fn one_goes_only_when_it_is_out_and_another_has_what_it_had() {
    let wide = widen(&volume(), B, fresh(D)).unwrap();
    assert_eq!(narrow(&wide, B), Err(Refusal::InSync { disk: B }));
    let out = with_state(&wide, B, MemberState::Out { commit: Lsn::from_raw(9) });
    let alone = [A, C]
        .into_iter()
        .fold(out.clone(), |record, disk| with_state(&record, disk, MemberState::Out { commit: Lsn::ZERO }));
    assert_eq!(narrow(&alone, B), Err(Refusal::NoOther { disk: B }));
    let whole = with_state(&out, D, MemberState::InSync);
    let gone = narrow(&whole, B).unwrap();
    assert_eq!(gone.chunks[0].members, [0, 2, 3]);
    assert_eq!(gone.members.len(), 4, "a writer's indexes stay");
    assert_eq!(narrow(&gone, B).unwrap(), gone, "twice is once");
    // Given up instead: the new one goes again.
    let back = narrow(&with_state(&wide, D, MemberState::Syncing { commit: Lsn::ZERO }), D).unwrap();
    assert_eq!(back.chunks, volume().chunks);
    assert_eq!(widen(&gone, B, fresh(DiskId::from_u128(14))), Err(Refusal::HoldsNothing { disk: B }));
}

#[test]
fn a_disk_that_lost_its_chunks_comes_again_under_a_later_epoch_only() {
    let first = grant(&volume(), &node("a")).unwrap();
    let out = with_state(&first, C, MemberState::Out { commit: Lsn::from_raw(9) });
    let replaced = replace(&out, C, fresh(D)).unwrap();
    // Its deletion fences this epoch.
    assert_eq!(replace(&with_state(&replaced, B, MemberState::Out { commit: Lsn::ZERO }), B, fresh(C)), member(C));
    assert_eq!(widen(&replaced, B, fresh(C)), member(C));
    let next = grant(&release_by_force(&replaced), &node("b")).unwrap();
    assert!(next.epoch > replaced.epoch && next.member(C).is_none());
    assert!(widen(&next, B, fresh(C)).is_ok());
}

fn member(disk: DiskId) -> Result<VolumeRecord, Refusal> {
    Err(Refusal::AlreadyAMember { disk })
}

#[test]
fn without_a_writer_one_goes_at_once_if_the_last_one_closed() {
    let wide = with_state(&widen(&volume(), B, fresh(D)).unwrap(), D, MemberState::InSync);
    let gone = retire(&wide, B).unwrap();
    assert_eq!((&gone.chunks[0].members[..], gone.version), (&[0, 2, 3][..], wide.version + 1));
    let held = reserve(&wide, &node("a")).unwrap();
    assert_eq!(retire(&held, B), Err(Refusal::Held { holder: node("a") }));
    let unclean = VolumeRecord { clean: false, ..wide.clone() };
    assert_eq!(retire(&unclean, B), Err(Refusal::NotClosed));
    let alone = widen(&volume(), B, fresh(D)).unwrap();
    assert_eq!(retire(&alone, B), Err(Refusal::OthersMissing { disk: B }));
}

#[test]
fn what_was_replaced_is_kept_while_too_few_others_can_be_counted_on() {
    let out = with_state(&volume(), C, MemberState::Out { commit: Lsn::from_raw(9) });
    let replaced = replace(&out, C, fresh(D)).unwrap();
    assert!(may_forget(&replaced, |_| true, false));
    assert!(!may_forget(&replaced, |disk| disk != A, false), "one is left");
    assert!(may_forget(&replaced, |disk| disk != A, true), "its place is needed");
    assert!(!may_forget(&replaced, |_| false, true), "it may be the last");
}

#[test]
fn nobody_goes_where_too_few_would_be_left() {
    let mut two = volume();
    two.chunks[0].members = vec![0, 1];
    let out = with_state(&two, B, MemberState::Out { commit: Lsn::ZERO });
    assert_eq!(narrow(&out, B), Err(Refusal::BelowMinReplicas { in_sync: 1, min: 2 }));
}

#[test]
fn members_and_holders_are_bounded() {
    let disks = |from: u128| (from..).map(DiskId::from_u128);
    let mut wide = volume();
    for disk in disks(100).take(HOLDERS_MAX - 3) {
        wide = widen(&wide, A, fresh(disk)).unwrap();
    }
    assert_eq!(widen(&wide, A, fresh(D)), Err(Refusal::TooManyHolders));
    let mut moved = volume();
    for disk in disks(200).take(MEMBERS_MAX - 3) {
        let last = moved.members[usize::from(moved.chunks[0].members[2])].disk;
        let out = with_state(&moved, last, MemberState::Out { commit: Lsn::ZERO });
        moved = replace(&out, last, fresh(disk)).unwrap();
    }
    let last = moved.members[usize::from(moved.chunks[0].members[2])].disk;
    let out = with_state(&moved, last, MemberState::Out { commit: Lsn::ZERO });
    assert_eq!(replace(&out, last, fresh(D)), Err(Refusal::TooManyMembers));
    let granted = grant(&out, &node("a")).unwrap();
    assert_eq!(granted.members.len(), 3, "a new writer knows none of those that went");
    assert!(replace(&granted, last, fresh(D)).is_ok());
}
