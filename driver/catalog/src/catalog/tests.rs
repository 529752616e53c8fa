//! Identity of the cluster, and the ring of events.

use super::*;
use crate::{EVENTS_KEPT, Event, RocksStore};
use ashlar_types::VolumeId;
use std::path::Path;

async fn store(directory: &Path) -> MetaStore {
    MetaStore::Rocks(RocksStore::open(directory).await.unwrap())
}

const A: ClusterId = ClusterId::from_u128(1);
const B: ClusterId = ClusterId::from_u128(2);

#[tokio::test]
async fn the_cluster_is_made_once_and_another_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path()).await;
    assert_eq!(Catalog::open(store.clone(), None, A).await.unwrap().cluster(), A);
    assert_eq!(Catalog::open(store.clone(), None, B).await.unwrap().cluster(), A);
    let refused = Catalog::open(store.clone(), Some(B), B).await.unwrap_err();
    assert_eq!(refused.kind(), CatalogErrorKind::OtherCluster);
}

fn event(text: &str) -> Event {
    Event::new(7, "test", text)
}

#[tokio::test]
async fn events_are_numbered_kept_and_followed() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(store(directory.path()).await, None, A).await.unwrap();
    let volume = VolumeId::from_u128(9);
    let (none, mut feed) = catalog.events(None, 10).await.unwrap();
    assert!(none.is_empty());
    catalog.append_events(vec![event("a"), event("b").of_volume(volume).figure("n", 3)]).await.unwrap();
    drop(catalog);
    let catalog = Catalog::open(store(directory.path()).await, None, A).await.unwrap();
    catalog.append_events(vec![event("c")]).await.unwrap();
    let (all, _) = catalog.events(None, 2).await.unwrap();
    assert_eq!(all.iter().map(|event| (event.sequence, event.text.as_str())).collect::<Vec<_>>(), [(2, "b"), (3, "c")]);
    let (of_volume, _) = catalog.events(Some(volume), 10).await.unwrap();
    assert_eq!(of_volume.len(), 1);
    assert_eq!(of_volume[0].figures["n"], "3");
    assert_eq!(feed.next().await.unwrap().unwrap().text, "a");
    assert_eq!(feed.next().await.unwrap().unwrap().text, "b");
    assert!(feed.next().await.unwrap().is_none(), "the catalog that was followed is closed");
}

#[tokio::test]
async fn a_caller_that_goes_away_in_mid_commit_disturbs_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(store(directory.path()).await, None, A).await.unwrap();
    for _ in 0..20 {
        // Polled once: the transaction is with the store, its answer is never taken.
        let gone = tokio::time::timeout(std::time::Duration::ZERO, catalog.append_events(vec![event("gone")])).await;
        catalog.append_events(vec![event("stays")]).await.unwrap();
        drop(gone);
    }
    let (all, _) = catalog.events(None, usize::MAX).await.unwrap();
    assert_eq!(all.iter().filter(|event| event.text == "stays").count(), 20);
    assert!(all.windows(2).all(|pair| pair[0].sequence + 1 == pair[1].sequence));
}

#[tokio::test]
async fn the_ring_of_events_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(store(directory.path()).await, None, A).await.unwrap();
    let many = vec![event("x"); EVENTS_KEPT as usize + 40];
    catalog.append_events(many).await.unwrap();
    let (all, _) = catalog.events(None, usize::MAX).await.unwrap();
    assert_eq!(all.len() as u64, EVENTS_KEPT);
    assert_eq!(all[0].sequence, 41);
}

#[tokio::test]
async fn long_texts_of_events_are_cut() {
    let long = Event::new(1, "test", "é".repeat(5000)).figure("n", "x".repeat(5000));
    assert!(long.text.len() <= 1000 && long.figures["n"].len() <= 1000);
}
