//! Groups in the catalog: a group and the snapshots that it names begin together.

use super::*;
use crate::{MetaStore, RocksStore};
use ashlar_types::{ByteCount, ClusterId};
use std::path::Path;

async fn open(directory: &Path) -> Catalog {
    let store = MetaStore::Rocks(RocksStore::open(directory).await.unwrap());
    Catalog::open(store, None, ClusterId::from_u128(1)).await.unwrap()
}

fn group(number: u128, name: &str, first: u128) -> (GroupInfo, Vec<SnapshotInfo>) {
    let id = GroupId::from_u128(number);
    let members: Vec<_> = (first..first + 2).map(|n| (VolumeId::from_u128(n), SnapshotId::from_u128(n))).collect();
    let snapshot = |&(volume, id_of): &(VolumeId, SnapshotId)| SnapshotInfo {
        id: id_of,
        name: format!("{name}.{}", id_of.as_u128()).parse().unwrap(),
        volume,
        group: Some(id),
        size: ByteCount(1 << 30),
        created_ms: 5,
        is_ready: false,
        content: None,
        for_clone: false,
    };
    let snapshots = members.iter().map(snapshot).collect();
    let name = name.parse().unwrap();
    (GroupInfo { id, name, created_ms: 5, members, held_us: 0, is_ready: false }, snapshots)
}

fn event() -> Event {
    Event::new(1, "test", "t")
}

#[tokio::test]
async fn a_group_is_kept_from_its_beginning_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (first, snapshots) = group(1, "g", 10);
    let begun = catalog.begin_group(&first, &snapshots).await.unwrap();
    let of_first = catalog.snapshot(SnapshotId::from_u128(10)).await.unwrap().unwrap();
    assert_eq!(of_first.snapshot, snapshots[0]);
    let (again, others) = group(1, "g", 20);
    let restarted = catalog.restart_group(&begun, &again, &others).await.unwrap();
    assert_eq!(catalog.restart_group(&begun, &again, &others).await.unwrap_err().kind(), CatalogErrorKind::Exists);
    let ready = catalog.complete_group(&restarted, 7, 1500, event()).await.unwrap();
    drop(catalog);
    let catalog = open(directory.path()).await;
    let found = catalog.group_by_name(&"g".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(found, ready);
    assert_eq!(found.group, GroupInfo { created_ms: 7, held_us: 1500, is_ready: true, ..again });
    catalog.delete_group(&found, event()).await.unwrap();
    assert_eq!(catalog.group_by_name(&"g".parse().unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn nothing_of_a_group_is_kept_when_one_of_its_names_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (first, snapshots) = group(1, "g", 10);
    catalog.begin_snapshot(&snapshots[1]).await.unwrap();
    let taken = catalog.begin_group(&first, &snapshots).await.unwrap_err();
    assert_eq!(taken.kind(), CatalogErrorKind::Exists);
    assert_eq!(catalog.group(first.id).await.unwrap(), None);
    assert_eq!(catalog.snapshot(snapshots[0].id).await.unwrap(), None);
}

#[tokio::test]
async fn pages_have_them_all_and_one_bad_value_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    for number in 1..=5 {
        let (of, snapshots) = group(number, &format!("g{number}"), number * 10);
        catalog.begin_group(&of, &snapshots).await.unwrap();
    }
    let bad = Transaction::default().put(keys::group(GroupId::from_u128(3)), b"{}".to_vec());
    catalog.store().commit(bad).await.unwrap();
    let (mut after, mut found, mut unreadable) = (None, vec![], 0);
    loop {
        let page = catalog.groups(after, 2).await.unwrap();
        found.extend(page.groups.into_iter().map(|seen| seen.group.id.as_u128()));
        unreadable += page.unreadable.len();
        after = page.last;
        if !page.more {
            break;
        }
    }
    assert_eq!((found, unreadable), (vec![1, 2, 4, 5], 1));
}
