//! A disk that was removed, and who was about to use it.

use super::*;
use crate::volumes::tests::{create, disk, event, open, volume};
use crate::{CatalogErrorKind, DataLoss, DiskFate, Node};

fn kept(number: u128) -> Disk {
    let node = format!("n{number}").parse().unwrap();
    let path = "/dev/x".to_owned();
    Disk {
        id: disk(number),
        node,
        path,
        capacity_bytes: 1 << 40,
        fate: DiskFate::Usable,
        is_draining: false,
        judged_blocks: 0,
        judged_failing: false,
    }
}

async fn register(catalog: &Catalog, number: u128) {
    let node = Node {
        name: format!("n{number}").parse().unwrap(),
        zone: None,
        datapath_rpc: String::new(),
        chunkserver_rpc: String::new(),
        chunkserver_data: String::new(),
        is_draining: false,
    };
    catalog.register(&node, &[kept(number)], vec![]).await.unwrap();
}

#[tokio::test]
async fn a_removed_disk_is_remembered_and_nothing_else_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    register(&catalog, 4).await;
    let claims = catalog.claims().await.unwrap();
    let removed = catalog.remove_disk(&kept(4), 5, &claims, &[], vec![event()]).await.unwrap();
    drop(catalog);
    let catalog = open(directory.path()).await;
    assert_eq!(catalog.removed_disks().await.unwrap(), [removed]);
    assert!(catalog.disks().await.unwrap().is_empty());
}

#[tokio::test]
async fn whoever_is_promised_space_there_and_the_removal_exclude_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    for number in 1..=3 {
        register(&catalog, number).await;
    }
    // Nothing was ever promised there, neither when the removal was judged nor when the placement was.
    let before = catalog.claims().await.unwrap();
    catalog.remove_disk(&kept(3), 5, &before, &[], vec![]).await.unwrap();
    let late = catalog.create_volume(&volume(1, "a"), &before, &[], event()).await.unwrap_err();
    assert_eq!(late.kind(), CatalogErrorKind::Conflict);
    create(&catalog, &volume(1, "a")).await;
    let late = catalog.remove_disk(&kept(2), 5, &before, &[], vec![]).await.unwrap_err();
    assert_eq!(late.kind(), CatalogErrorKind::Conflict);
}

#[tokio::test]
async fn a_volume_that_is_given_up_with_the_disk_is_found_changed_by_who_read_it_before() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    register(&catalog, 3).await;
    let made = create(&catalog, &volume(1, "a")).await;
    let claims = catalog.claims().await.unwrap();
    let next = Volume { data_lost: Some(DataLoss { disk: disk(3), at_ms: 5 }), ..made.volume.clone() };
    catalog.remove_disk(&kept(3), 5, &claims, &[(made.clone(), next.clone())], vec![event(), event()]).await.unwrap();
    let found = catalog.volume(made.volume.id()).await.unwrap().unwrap();
    assert_eq!(found.volume, next);
    let mut attached = made.volume.record.clone();
    attached.version += 1;
    let raced = catalog.change_record(&made, attached, vec![]).await.unwrap_err();
    assert_eq!(raced.kind(), CatalogErrorKind::Conflict);
}
