//! Clones in the catalog: source and clone change together or not at all.

use super::*;
use crate::UseState;
use crate::volumes::tests::{create, disk, event, open, volume};
use ashlar_types::{Base, ByteCount, ClonePoint, Lsn, Origin};

fn point() -> Lsn {
    Lsn::from_raw(77)
}

/// A clone of volume 1, and what the source's record becomes with it.
fn clone_of(source: &StoredVolume, id: u128, name: &str) -> (Volume, VolumeRecord) {
    let mut clone = volume(id, name);
    clone.source = Some(ContentSource::Snapshot(SnapshotId::from_u128(4)));
    clone.use_state = UseState::Used;
    clone.record.snapshots = Vec::new();
    clone.record.origin = Some(Origin { base: Base { volume: source.volume.id(), point: point() }, is_made: false });
    let mut next = next_of(source);
    next.clones.push(ClonePoint { clone: clone.id(), point: point() });
    (clone, next)
}

fn next_of(seen: &StoredVolume) -> VolumeRecord {
    VolumeRecord { version: seen.volume.record.version + 1, ..seen.volume.record.clone() }
}

fn released(seen: &StoredVolume) -> VolumeRecord {
    VolumeRecord { clones: Vec::new(), ..next_of(seen) }
}

async fn found(catalog: &Catalog, id: u128) -> StoredVolume {
    catalog.volume(VolumeId::from_u128(id)).await.unwrap().unwrap()
}

/// Volume 1 and its clone 2.
async fn with_clone(catalog: &Catalog) -> (StoredVolume, StoredVolume) {
    let source = create(catalog, &volume(1, "a")).await;
    let (clone, next) = clone_of(&source, 2, "b");
    let claims = catalog.claims().await.unwrap();
    let made = catalog.create_clone(&clone, &claims, (&source, next), None, event()).await.unwrap();
    (found(catalog, 1).await, made)
}

#[tokio::test]
async fn a_clone_is_there_with_its_point_its_claims_and_its_name_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let before = create(&catalog, &volume(1, "a")).await;
    let one_claim = catalog.claims().await.unwrap().of(disk(1));
    let (clone, next) = clone_of(&before, 2, "b");
    let claims = catalog.claims().await.unwrap();
    catalog.change_record(&before, next_of(&before), vec![]).await.unwrap();
    let stale = catalog.create_clone(&clone, &claims, (&before, next), None, event()).await.unwrap_err();
    assert_eq!(stale.kind(), CatalogErrorKind::Conflict, "the source has changed since it was read");
    assert!(catalog.volume(clone.id()).await.unwrap().is_none() && catalog.clones().await.unwrap().0.is_empty());

    let source = found(&catalog, 1).await;
    let (clone, next) = clone_of(&source, 2, "b");
    let made = catalog.create_clone(&clone, &claims, (&source, next), None, event()).await.unwrap();
    drop(catalog);
    let catalog = open(directory.path()).await;
    assert_eq!(found(&catalog, 2).await, made, "a clone survives a restart in every field");
    assert_eq!(made.volume, clone);
    assert_eq!(found(&catalog, 1).await.volume.record.clones, [ClonePoint { clone: clone.id(), point: point() }]);
    assert_eq!(catalog.clones().await.unwrap().0, [clone.id()]);
    assert_eq!(catalog.claims().await.unwrap().of(disk(1)), ByteCount(2 * one_claim.0));
    let (taken, next) = clone_of(&found(&catalog, 1).await, 3, "b");
    let (claims, source) = (catalog.claims().await.unwrap(), found(&catalog, 1).await);
    let refused = catalog.create_clone(&taken, &claims, (&source, next), None, event()).await.unwrap_err();
    assert_eq!(refused.kind(), CatalogErrorKind::Exists);
}

#[tokio::test]
async fn a_clone_that_is_made_still_reads_from_its_source() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (_, clone) = with_clone(&catalog).await;
    let mut next = next_of(&clone);
    next.origin = next.origin.map(|origin| Origin { is_made: true, ..origin });
    let made = catalog.change_record(&clone, next, vec![event()]).await.unwrap();
    assert!(found(&catalog, 2).await == made && made.volume.record.origin.unwrap().is_made);
    assert_eq!(catalog.clones().await.unwrap().0.len(), 1);
}

#[tokio::test]
async fn a_flat_clone_and_its_source_part_in_one_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (source, clone) = with_clone(&catalog).await;
    let flat = VolumeRecord { origin: None, ..next_of(&clone) };
    let alone = catalog.flatten_clone(&clone, flat.clone(), None, event()).await.unwrap_err();
    assert_eq!(alone.kind(), CatalogErrorKind::Conflict, "the source is there and must let go of the point");
    let parted = catalog.flatten_clone(&clone, flat, Some((&source, released(&source))), event()).await.unwrap();
    assert_eq!(found(&catalog, 2).await, parted);
    assert!(found(&catalog, 1).await.volume.record.clones.is_empty() && catalog.clones().await.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_clone_outlives_its_source() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (source, clone) = with_clone(&catalog).await;
    catalog.delete_volume(&source, None, event()).await.unwrap();
    let late = VolumeRecord { origin: None, ..next_of(&clone) };
    let wrong = Some((&source, released(&source)));
    let wrong = catalog.flatten_clone(&clone, late.clone(), wrong, event()).await.unwrap_err();
    assert_eq!(wrong.kind(), CatalogErrorKind::Conflict, "a source that is gone is not brought back");
    catalog.flatten_clone(&clone, late, None, event()).await.unwrap();
    assert!(catalog.clones().await.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_clone_that_is_deleted_lets_go_of_its_source() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (source, clone) = with_clone(&catalog).await;
    let gone = catalog.delete_volume(&clone, Some((&source, released(&source))), event()).await.unwrap();
    assert_eq!(gone.len(), 3);
    assert!(found(&catalog, 1).await.volume.record.clones.is_empty() && catalog.clones().await.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_snapshot_that_was_taken_for_the_clone_goes_with_its_beginning_and_meets_no_name_of_people() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let source = create(&catalog, &volume(1, "a")).await;
    let name: ashlar_types::VolumeName = "b".repeat(128).parse().unwrap();
    let own = crate::SnapshotInfo {
        id: SnapshotId::from_u128(9),
        name: name.clone(),
        volume: source.volume.id(),
        group: None,
        size: source.volume.record.size,
        created_ms: 5,
        is_ready: false,
        content: None,
        for_clone: true,
    };
    let theirs = crate::SnapshotInfo { id: SnapshotId::from_u128(8), for_clone: false, ..own.clone() };
    catalog.begin_snapshot(&theirs).await.unwrap();
    let own = catalog.begin_snapshot(&own).await.unwrap();
    assert_eq!(catalog.snapshot_by_name(&name).await.unwrap().unwrap().snapshot, theirs);
    assert_eq!(catalog.snapshot_for_clone(&name).await.unwrap().unwrap(), own);
    assert_eq!(catalog.snapshots_for_clones().await.unwrap().0, std::slice::from_ref(&own));
    let (clone, next) = clone_of(&source, 2, "b");
    let claims = catalog.claims().await.unwrap();
    catalog.create_clone(&clone, &claims, (&source, next), Some(&own), event()).await.unwrap();
    assert!(catalog.snapshot(own.snapshot.id).await.unwrap().is_none());
    assert!(catalog.snapshots_for_clones().await.unwrap().0.is_empty());
    assert!(catalog.snapshot_by_name(&name).await.unwrap().is_some());
}
