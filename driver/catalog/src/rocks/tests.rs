//! The promises of MetaStore, on RocksDB.

use super::*;
use crate::store::{KeyValue, MetaStore, Op};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

async fn open(directory: &Path) -> MetaStore {
    MetaStore::Rocks(RocksStore::open(directory).await.unwrap())
}

fn put(key: &str, value: &str) -> Transaction {
    Transaction::default().put(key, value.as_bytes().to_vec())
}

async fn values(store: &MetaStore, range: KeyRange) -> Vec<(String, String)> {
    let text = |found: KeyValue| (found.key, String::from_utf8(found.value).unwrap());
    store.read(vec![range]).await.unwrap().ranges.remove(0).into_iter().map(text).collect()
}

fn revision(outcome: Outcome) -> Revision {
    match outcome {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("conflict"),
    }
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let first = revision(store.commit(put("a", "1")).await.unwrap());
    assert_eq!(store.commit(put("b", "1").expect_absent("a")).await.unwrap(), Outcome::Conflict);
    assert_eq!(values(&store, KeyRange::prefix("b")).await, []);
    let second = revision(store.commit(put("b", "2").expect("a", first).delete("a")).await.unwrap());
    assert!(second > first);
    assert_eq!(store.commit(put("a", "3").expect("a", first)).await.unwrap(), Outcome::Conflict);
    assert_eq!(values(&store, KeyRange::prefix("a")).await, []);
}

#[tokio::test]
async fn of_two_that_compare_with_the_same_revision_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let seen = revision(store.commit(put("k", "0")).await.unwrap());
    let tries: Vec<_> = (0..8)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(put("k", &i.to_string()).expect("k", seen)).await.unwrap() })
        })
        .collect();
    let mut won = 0;
    for one in tries {
        won += usize::from(one.await.unwrap() != Outcome::Conflict);
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn ranges_are_ordered_limited_and_of_one_revision() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    for key in ["v/2", "v/1", "v/3", "w/1", "v"] {
        store.commit(put(key, key)).await.unwrap();
    }
    let keys = |found: Vec<(String, String)>| found.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(values(&store, KeyRange::prefix("v/")).await), ["v/1", "v/2", "v/3"]);
    assert_eq!(keys(values(&store, KeyRange::prefix("v/").limited(2)).await), ["v/1", "v/2"]);
    assert_eq!(keys(values(&store, KeyRange::after("v/", "v/1")).await), ["v/2", "v/3"]);
    assert_eq!(keys(values(&store, KeyRange::one("v")).await), ["v"]);
}

#[tokio::test]
async fn a_reopened_catalog_has_everything_and_goes_on_counting() {
    let directory = tempfile::tempdir().unwrap();
    let before = revision(open(directory.path()).await.commit(put("a", "1")).await.unwrap());
    let store = open(directory.path()).await;
    assert_eq!(values(&store, KeyRange::prefix("a")).await, [("a".to_owned(), "1".to_owned())]);
    assert!(revision(store.commit(put("a", "2").expect("a", before)).await.unwrap()) > before);
}

#[tokio::test]
async fn a_second_process_is_refused_while_the_first_has_the_catalog() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path()).await;
    let second = RocksStore::open(directory.path()).await.unwrap_err();
    assert_eq!(second.kind(), CatalogErrorKind::InUse, "{second}");
}

#[tokio::test]
async fn a_catalog_of_a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).await);
    {
        let options = rocksdb::Options::default();
        let families = ["data", "leases", "meta"];
        let db = rocksdb::DB::open_cf(&options, directory.path(), families).unwrap();
        db.put_cf(db.cf_handle("meta").unwrap(), "format", 2u32.to_le_bytes()).unwrap();
    }
    assert_eq!(RocksStore::open(directory.path()).await.unwrap_err().kind(), CatalogErrorKind::Newer);
}

#[tokio::test]
async fn a_watch_delivers_every_change_from_its_revision_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.commit(put("v/1", "old")).await.unwrap();
    let from = revision(store.commit(put("v/1", "a")).await.unwrap());
    store.commit(put("w/1", "not asked for")).await.unwrap();
    let mut watch = store.watch("v/", from).await.unwrap();
    store.commit(Transaction::default().delete("v/1")).await.unwrap();
    store.commit(put("v/2", "b")).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = watch.next().await.unwrap().unwrap();
        seen.push((event.key, event.value.map(|value| String::from_utf8(value).unwrap())));
    }
    let expected = [("v/1", Some("a")), ("v/1", None), ("v/2", Some("b"))];
    assert_eq!(seen, expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned))));
}

#[tokio::test]
async fn a_watch_of_what_is_no_longer_kept_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let old = revision(open(directory.path()).await.commit(put("a", "1")).await.unwrap());
    let store = open(directory.path()).await;
    assert_eq!(store.watch("a", old).await.unwrap_err().kind(), CatalogErrorKind::Compacted);
    assert!(store.watch("a", Revision(old.0 + 1)).await.is_ok());
}

#[tokio::test]
async fn a_lease_that_runs_out_takes_its_keys_along() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut watch = store.watch("leader", Revision(1)).await.unwrap();
    // However slow this machine is: a lease that lives long enough to be used once.
    let mut ttl = Duration::from_millis(20);
    let short = loop {
        let lease = store.grant_lease(ttl).await.unwrap();
        if store.commit(Transaction::default().put_leased("leader/a", vec![], lease)).await.is_ok() {
            break lease;
        }
        ttl *= 2;
    };
    let long = store.grant_lease(Duration::from_secs(3600)).await.unwrap();
    store.commit(Transaction::default().put_leased("leader/b", vec![], long)).await.unwrap();
    while watch.next().await.unwrap().unwrap().value.is_some() {}
    assert_eq!(values(&store, KeyRange::prefix("leader/")).await.len(), 1);
    assert_eq!(store.keep_alive(short).await.unwrap_err().kind(), CatalogErrorKind::NotFound);
    let refused = store.commit(Transaction::default().put_leased("leader/a", vec![], short)).await.unwrap_err();
    assert_eq!(refused.kind(), CatalogErrorKind::NotFound);
    store.keep_alive(long).await.unwrap();
    store.revoke_lease(long).await.unwrap();
    store.revoke_lease(long).await.unwrap();
    assert_eq!(values(&store, KeyRange::prefix("leader/")).await.len(), 0);
}

#[tokio::test]
async fn leases_survive_a_restart_with_their_keys() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let lease = store.grant_lease(Duration::from_secs(3600)).await.unwrap();
    store.commit(Transaction::default().put_leased("leader", vec![], lease)).await.unwrap();
    drop(store);
    let store = open(directory.path()).await;
    store.keep_alive(lease).await.unwrap();
    assert!(store.grant_lease(Duration::from_secs(1)).await.unwrap() > lease);
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(values(&store, KeyRange::prefix("leader")).await.len(), 0);
}

/// Names the child of the next test, and its catalog.
const CHILD: &str = "ASHLAR_TEST_CATALOG_CHILD";

/// Not a test by itself: the child that commits until it is killed, and says what it committed.
#[tokio::test]
async fn child_that_commits() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let store = open(Path::new(&directory)).await;
    for i in 0u64.. {
        store.commit(put(&format!("k/{i:06}"), &i.to_string())).await.unwrap();
        println!("committed {i}");
        std::io::stdout().flush().unwrap();
    }
}

#[tokio::test]
async fn what_was_committed_before_a_kill_is_there_after() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rocks::tests::child_that_commits", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let committed =
            lines.filter_map(|line| line.unwrap().strip_prefix("committed ").map(|i| i.parse::<usize>().unwrap()));
        let last = committed.take(20 + 7 * round).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let found = values(&open(directory.path()).await, KeyRange::prefix("k/")).await;
        assert!(found.len() > last, "{} of {} there", found.len(), last + 1);
        assert!(
            found.iter().enumerate().all(|(i, (key, value))| *key == format!("k/{i:06}") && *value == i.to_string())
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Commit { ops: Vec<(u8, Option<u8>)>, compare: Option<(u8, bool)> },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ops = prop::collection::vec((0u8..6, prop::option::of(0u8..9)), 1..4);
    let commit =
        (ops, prop::option::of((0u8..6, any::<bool>()))).prop_map(|(ops, compare)| Step::Commit { ops, compare });
    prop::collection::vec(prop_oneof![12 => commit, 1 => Just(Step::Reopen)], 1..40)
}

/// What the store should hold: value and revision of each key.
type Model = BTreeMap<String, (Vec<u8>, Revision)>;

fn key(number: u8) -> String {
    format!("k{number}")
}

/// The transaction, and whether it should go through.
fn transaction(model: &Model, ops: &[(u8, Option<u8>)], compare: Option<(u8, bool)>) -> (Transaction, bool) {
    let mut transaction = Transaction::default();
    for &(number, value) in ops {
        transaction = match value {
            Some(value) => transaction.put(key(number), vec![value]),
            None => transaction.delete(key(number)),
        };
    }
    let Some((number, right)) = compare else { return (transaction, true) };
    let found = model.get(&key(number)).map(|(_, revision)| *revision);
    let transaction = match (found, right) {
        (Some(revision), true) => transaction.expect(key(number), revision),
        (Some(_), false) | (None, true) => transaction.expect_absent(key(number)),
        (None, false) => transaction.expect(key(number), Revision(1)),
    };
    (transaction, right)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_store_behaves_like_a_map_with_revisions(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let mut store = open(directory.path()).await;
            let mut model = Model::new();
            for step in steps {
                match step {
                    Step::Reopen => {
                        drop(store);
                        store = open(directory.path()).await;
                    }
                    Step::Commit { ops, compare } => {
                        let (transaction, right) = transaction(&model, &ops, compare);
                        let ops = transaction.ops.clone();
                        match store.commit(transaction).await.unwrap() {
                            Outcome::Conflict => prop_assert!(!right),
                            Outcome::Committed(revision) => {
                                prop_assert!(right);
                                for op in ops {
                                    match op {
                                        Op::Put { key, value, .. } => { model.insert(key, (value, revision)); }
                                        Op::Delete { key } => { model.remove(&key); }
                                    }
                                }
                            }
                        }
                    }
                }
                let found = store.read(vec![KeyRange::prefix("k")]).await.unwrap().ranges.remove(0);
                let found: Model = found.into_iter().map(|kv| (kv.key, (kv.value, kv.mod_revision))).collect();
                prop_assert_eq!(&found, &model);
            }
            Ok(())
        })?;
    }
}
