//! Snapshots in the catalog: names are taken once, and nothing is lost between writing and reading.

use super::*;
use crate::{MetaStore, RocksStore};
use ashlar_types::ClusterId;
use std::path::Path;

async fn open(directory: &Path) -> Catalog {
    let store = MetaStore::Rocks(RocksStore::open(directory).await.unwrap());
    Catalog::open(store, None, ClusterId::from_u128(1)).await.unwrap()
}

fn snapshot(number: u128, name: &str) -> SnapshotInfo {
    SnapshotInfo {
        id: SnapshotId::from_u128(number),
        name: name.parse().unwrap(),
        volume: VolumeId::from_u128(9),
        group: None,
        size: ByteCount(1 << 30),
        created_ms: 5,
        is_ready: false,
        content: None,
        for_clone: false,
    }
}

fn event() -> Event {
    Event::new(1, "test", "t")
}

#[tokio::test]
async fn a_snapshot_is_kept_from_its_beginning_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let begun = catalog.begin_snapshot(&snapshot(1, "a")).await.unwrap();
    assert_eq!(begun.snapshot, snapshot(1, "a"));
    drop(catalog);
    let catalog = open(directory.path()).await;
    let name = "a".parse().unwrap();
    let found = catalog.snapshot_by_name(&name).await.unwrap().unwrap();
    assert_eq!(found, begun);
    catalog.delete_snapshot(&found, None, event()).await.unwrap();
    assert_eq!(catalog.snapshot_by_name(&name).await.unwrap(), None);
    catalog.begin_snapshot(&snapshot(2, "a")).await.unwrap();
    let late = catalog.delete_snapshot(&found, None, event()).await.unwrap_err();
    assert_eq!(late.kind(), CatalogErrorKind::Conflict);
}

#[tokio::test]
async fn a_snapshot_from_before_its_content_was_kept_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let id = SnapshotId::from_u128(1);
    let old = r#"{"format":1,"body":{"name":"a","volume":"00000000-0000-0000-0000-000000000009","size_bytes":1073741824,
        "created_ms":5,"ready":true}}"#;
    let put = Transaction::default().put(keys::snapshot(id), old.as_bytes().to_vec());
    catalog.store().commit(put).await.unwrap();
    let read = catalog.snapshot(id).await.unwrap().unwrap();
    assert_eq!(read.snapshot, SnapshotInfo { is_ready: true, ..snapshot(1, "a") });
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    catalog.begin_snapshot(&snapshot(1, "a")).await.unwrap();
    let taken = catalog.begin_snapshot(&snapshot(2, "a")).await.unwrap_err();
    assert_eq!(taken.kind(), CatalogErrorKind::Exists);
    assert_eq!(catalog.snapshot(SnapshotId::from_u128(2)).await.unwrap(), None, "nothing of it was kept");
}

#[tokio::test]
async fn pages_have_them_all_and_one_bad_value_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    for number in 1..=5 {
        catalog.begin_snapshot(&snapshot(number, &format!("s{number}"))).await.unwrap();
    }
    let bad = Transaction::default().put(keys::snapshot(SnapshotId::from_u128(3)), b"{}".to_vec());
    catalog.store().commit(bad).await.unwrap();
    let (mut after, mut found, mut unreadable) = (None, vec![], 0);
    loop {
        let page = catalog.snapshots(after, 2).await.unwrap();
        found.extend(page.snapshots.into_iter().map(|seen| seen.snapshot.id.as_u128()));
        unreadable += page.unreadable.len();
        after = page.last;
        if !page.more {
            break;
        }
    }
    assert_eq!((found, unreadable), (vec![1, 2, 4, 5], 1));
}
