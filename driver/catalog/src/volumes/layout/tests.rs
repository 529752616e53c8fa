//! Chunks that come to other disks.

use super::super::tests::{create, disk, event, open, volume};
use super::*;
use crate::CatalogErrorKind;
use ashlar_types::{Epoch, Lsn, Member, MemberState};

/// Disk 4 in the place of disk 3.
fn replaced(record: &VolumeRecord) -> VolumeRecord {
    let mut next = record.clone();
    next.version += 1;
    next.epoch = Epoch::new(3).unwrap();
    let state = MemberState::Out { commit: Lsn::ZERO };
    next.members.push(Member { disk: disk(4), node: "n4".parse().unwrap(), zone: None, state });
    next.chunks[0].members = vec![0, 1, 3];
    next
}

#[tokio::test]
async fn a_disk_that_comes_is_claimed_and_one_that_goes_keeps_its_claim_until_it_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let made = create(&catalog, &volume(1, "a")).await;
    let claims = catalog.claims().await.unwrap();
    let next = replaced(&made.volume.record);
    let changed = catalog.change_holders(&made, next.clone(), &claims, None, vec![event()]).await.unwrap();
    drop(catalog);

    let catalog = open(directory.path()).await;
    assert_eq!(catalog.volume(made.volume.id()).await.unwrap().unwrap(), changed);
    let claim = made.volume.claim();
    let of = |claims: &Claims| [1, 2, 3, 4].map(|number| claims.of(disk(number)));
    assert_eq!(of(&catalog.claims().await.unwrap()), [claim; 4]);
    let (tombstones, _) = catalog.tombstones().await.unwrap();
    let expected = Tombstone { disk: disk(3), volume: made.volume.id(), epoch: next.epoch, claim };
    assert_eq!(tombstones, [expected]);

    // It does not come back before that is done.
    let claims = catalog.claims().await.unwrap();
    let mut back = changed.volume.record.clone();
    back.version += 1;
    back.chunks[0].members = vec![0, 1, 2];
    let early = catalog.change_holders(&changed, back.clone(), &claims, None, vec![event()]).await;
    assert_eq!(early.unwrap_err().kind(), CatalogErrorKind::Conflict);
    catalog.drop_tombstone(&expected, vec![]).await.unwrap();
    let claims = catalog.claims().await.unwrap();
    assert_eq!(claims.of(disk(3)).0, 0);
    catalog.change_holders(&changed, back, &claims, None, vec![event()]).await.unwrap();
}

#[tokio::test]
async fn space_that_was_promised_meanwhile_is_a_conflict() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let made = create(&catalog, &volume(1, "a")).await;
    let claims = catalog.claims().await.unwrap();
    let mut other = volume(2, "b");
    other.record.members[0].disk = disk(4);
    create(&catalog, &other).await;
    let changed = catalog.change_holders(&made, replaced(&made.volume.record), &claims, None, vec![event()]).await;
    assert_eq!(changed.unwrap_err().kind(), CatalogErrorKind::Conflict);
}

#[tokio::test]
async fn a_deleted_volume_leaves_one_tombstone_on_each_disk_that_ever_held_it() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let made = create(&catalog, &volume(1, "a")).await;
    let claims = catalog.claims().await.unwrap();
    let next = replaced(&made.volume.record);
    let changed = catalog.change_holders(&made, next, &claims, None, vec![event()]).await.unwrap();
    catalog.delete_volume(&changed, None, event()).await.unwrap();
    for tombstone in catalog.tombstones().await.unwrap().0 {
        catalog.drop_tombstone(&tombstone, vec![]).await.unwrap();
    }
    let claims = catalog.claims().await.unwrap();
    assert_eq!([1, 2, 3, 4].map(|number| claims.of(disk(number)).0), [0; 4]);
}

#[tokio::test]
async fn a_volume_is_repaired_until_that_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let made = create(&catalog, &volume(1, "a")).await;
    let mut held = made.volume.record.clone();
    (held.version, held.holder) = (held.version + 1, Some("n1".parse().unwrap()));
    let repaired = catalog.change_repair(&made, held.clone(), true, vec![event()]).await.unwrap();
    assert_eq!(catalog.volume(made.volume.id()).await.unwrap().unwrap(), repaired);
    assert!(repaired.volume.is_repaired);
    let over = catalog.change_repair(&repaired, held, false, vec![]).await.unwrap();
    assert_eq!(catalog.volume(made.volume.id()).await.unwrap().unwrap(), over);
    assert!(!over.volume.is_repaired);
}
