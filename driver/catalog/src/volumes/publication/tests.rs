//! What a volume is published for survives, and is compared with who holds it.

use crate::CatalogErrorKind;
use crate::volumes::tests::{create, event, open, volume};
use ashlar_types::{Epoch, NodeName, VolumeId, VolumeRecord};

#[tokio::test]
async fn what_a_volume_is_published_for_is_kept_with_its_holder() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let seen = create(&catalog, &volume(1, "a")).await;
    create(&catalog, &volume(2, "b")).await;
    let n1 = "n1".parse().unwrap();
    let next = VolumeRecord { version: 2, holder: Some("n1".parse().unwrap()), ..seen.volume.record.clone() };
    let published = catalog.publish(&seen, next.clone(), true, vec![event()]).await.unwrap();
    let late = catalog.publish(&seen, next, false, vec![event()]).await.unwrap_err();
    assert_eq!(late.kind(), CatalogErrorKind::Conflict);
    assert_eq!((catalog.used_by(&n1).await.unwrap(), catalog.used_by(&"n2".parse().unwrap()).await.unwrap()), (1, 0));
    drop(catalog);
    let catalog = open(directory.path()).await;
    let found = catalog.volume(VolumeId::from_u128(1)).await.unwrap().unwrap();
    assert!(found == published && found.volume.published_read_only);
    let unpublished = catalog.unpublish(&found).await.unwrap();
    assert!(!unpublished.volume.published_read_only);
    assert_eq!(catalog.volume(VolumeId::from_u128(1)).await.unwrap().unwrap(), unpublished);
}

#[tokio::test]
async fn readers_are_kept_and_a_writer_that_has_not_seen_them_is_a_conflict() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let seen = create(&catalog, &volume(1, "a")).await;
    let node = |name: &str| name.parse::<NodeName>().unwrap();
    let readers = vec![node("n1"), node("n2")];
    let read = catalog.change_readers(&seen, readers.clone(), vec![event()]).await.unwrap();
    let held = VolumeRecord { version: 2, holder: Some(node("n3")), ..seen.volume.record.clone() };
    let late = catalog.change_record(&seen, held.clone(), vec![event()]).await.unwrap_err();
    assert_eq!(late.kind(), CatalogErrorKind::Conflict);
    assert_eq!(catalog.used_by(&node("n2")).await.unwrap(), 1);
    let settling = VolumeRecord { holder: Some(node("n2")), ..held };
    let settling = catalog.change_record(&read, settling, vec![event()]).await.unwrap();
    assert_eq!(catalog.used_by(&node("n2")).await.unwrap(), 1, "held and read is one volume");
    let late = catalog.change_readers(&read, vec![], vec![event()]).await.unwrap_err();
    assert_eq!(late.kind(), CatalogErrorKind::Conflict);
    let settled = catalog.settle(&settling, Epoch::new(3).unwrap(), vec![event()]).await.unwrap();
    drop(catalog);
    let catalog = open(directory.path()).await;
    let found = catalog.volume(VolumeId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!(found.volume.settled.number(), 3);
    assert_eq!((&found, &found.volume.readers), (&settled, &readers));
}
