//! MetaStore: the seam below the catalog. An ordered key-value store with compare-and-swap transactions, reads of
//! several ranges at one revision, watches and leases; no more than etcd offers, so that etcd can be the second
//! variant.
//!
//! ```text
//! revision   1          2                    3
//!            put a      put a, delete b      delete lease 7 → deletes its keys
//! ```
//! Invariants, for every variant:
//! - a transaction that changes anything takes the next revision, and all its changes carry it;
//! - a transaction is answered only when it is on stable media;
//! - a comparison is with the key's latest change (`mod_revision`), 0 for a key that does not exist;
//! - a watch delivers every change from its first revision on, in order, or ends with [`CatalogErrorKind::Compacted`].

use crate::rocks::RocksStore;
use crate::{CatalogError, CatalogErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// Number of a committed transaction. 0: before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// A lease; keys attached to it are deleted when it runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A key with its value and the revision of its latest change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: String,
    pub value: Vec<u8>,
    pub mod_revision: Revision,
}

/// Keys of one reading, ascending, at most `limit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key.
    pub start: String,
    /// First key that is not read.
    pub end: String,
    pub limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Absent,
    At(Revision),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub key: String,
    pub expected: Expected,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put { key: String, value: Vec<u8>, lease: Option<LeaseId> },
    Delete { key: String },
}

/// All of `ops`, if every comparison holds; nothing otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed(Revision),
    /// A comparison failed; nothing was changed.
    Conflict,
}

/// Several ranges as they were at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub revision: Revision,
    pub ranges: Vec<Vec<KeyValue>>,
}

/// One change of one key. `value` is `None` when the key was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    pub key: String,
    pub value: Option<Vec<u8>>,
    pub revision: Revision,
}

/// The engine below. Two known engines are an enum; etcd is the one to come.
#[derive(Clone, Debug)]
pub enum MetaStore {
    Rocks(RocksStore),
}

impl MetaStore {
    pub async fn commit(&self, transaction: Transaction) -> Result<Outcome, CatalogError> {
        assert!(
            transaction.ops.len() <= TRANSACTION_OPS_MAX,
            "{} operations in one transaction",
            transaction.ops.len()
        );
        match self {
            MetaStore::Rocks(store) => store.commit(transaction).await,
        }
    }

    pub async fn read(&self, ranges: Vec<KeyRange>) -> Result<Reading, CatalogError> {
        match self {
            MetaStore::Rocks(store) => store.read(ranges).await,
        }
    }

    /// Changes of keys that begin with `prefix`, from revision `from` on.
    pub async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, CatalogError> {
        match self {
            MetaStore::Rocks(store) => store.watch(prefix, from).await,
        }
    }

    pub async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, CatalogError> {
        match self {
            MetaStore::Rocks(store) => store.grant_lease(ttl).await,
        }
    }

    /// Begins the lease's time anew; [`CatalogErrorKind::NotFound`] when it has run out.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<(), CatalogError> {
        match self {
            MetaStore::Rocks(store) => store.keep_alive(lease).await,
        }
    }

    /// Ends the lease and deletes its keys. A lease that has run out is no error.
    pub async fn revoke_lease(&self, lease: LeaseId) -> Result<(), CatalogError> {
        match self {
            MetaStore::Rocks(store) => store.revoke_lease(lease).await,
        }
    }
}

/// Most operations of one transaction: etcd's default limit.
pub const TRANSACTION_OPS_MAX: usize = 128;

impl KeyRange {
    /// One key, if it exists.
    pub fn one(key: impl Into<String>) -> KeyRange {
        let start: String = key.into();
        KeyRange { end: format!("{start}\0"), start, limit: 1 }
    }

    /// Every key that begins with `prefix`, which must not be empty.
    pub fn prefix(prefix: &str) -> KeyRange {
        KeyRange { start: prefix.to_owned(), end: after_prefix(prefix), limit: usize::MAX }
    }

    /// Keys that begin with `prefix` and sort after `key`.
    pub fn after(prefix: &str, key: &str) -> KeyRange {
        KeyRange { start: format!("{key}\0"), end: after_prefix(prefix), limit: usize::MAX }
    }

    pub fn limited(self, limit: usize) -> KeyRange {
        KeyRange { limit, ..self }
    }
}

/// The first key that sorts after every key with this prefix. Keys are ASCII, so the last character can be raised by
/// one.
fn after_prefix(prefix: &str) -> String {
    assert!(prefix.is_ascii() && !prefix.is_empty());
    let (head, last) = prefix.split_at(prefix.len() - 1);
    format!("{head}{}", char::from(last.as_bytes()[0] + 1))
}

impl Transaction {
    pub fn expect_absent(mut self, key: impl Into<String>) -> Transaction {
        self.compares.push(Compare { key: key.into(), expected: Expected::Absent });
        self
    }

    pub fn expect(mut self, key: impl Into<String>, revision: Revision) -> Transaction {
        self.compares.push(Compare { key: key.into(), expected: Expected::At(revision) });
        self
    }

    pub fn put(mut self, key: impl Into<String>, value: Vec<u8>) -> Transaction {
        self.ops.push(Op::Put { key: key.into(), value, lease: None });
        self
    }

    pub fn put_leased(mut self, key: impl Into<String>, value: Vec<u8>, lease: LeaseId) -> Transaction {
        self.ops.push(Op::Put { key: key.into(), value, lease: Some(lease) });
        self
    }

    pub fn delete(mut self, key: impl Into<String>) -> Transaction {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }

    /// Both or none.
    pub fn and(mut self, other: Transaction) -> Transaction {
        self.compares.extend(other.compares);
        self.ops.extend(other.ops);
        self
    }
}

/// Changes as they are committed. Bounded: one who reads too slowly gets [`CatalogErrorKind::Compacted`] and begins
/// with a new reading.
#[derive(Debug)]
pub struct Watch {
    prefix: String,
    backlog: std::collections::VecDeque<WatchEvent>,
    live: broadcast::Receiver<Arc<Vec<WatchEvent>>>,
}

impl Watch {
    pub(crate) fn new(
        prefix: &str,
        backlog: Vec<WatchEvent>,
        live: broadcast::Receiver<Arc<Vec<WatchEvent>>>,
    ) -> Watch {
        Watch { prefix: prefix.to_owned(), backlog: backlog.into(), live }
    }

    /// The next change; waits for it. `None` when the store is closed.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, CatalogError> {
        loop {
            if let Some(event) = self.backlog.pop_front() {
                return Ok(Some(event));
            }
            match self.live.recv().await {
                Ok(events) => {
                    let matching = events.iter().filter(|event| event.key.starts_with(&self.prefix));
                    self.backlog.extend(matching.cloned());
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(None),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let text = format!("watch of {:?} fell {missed} transactions behind", self.prefix);
                    return Err(CatalogError::new(CatalogErrorKind::Compacted, text));
                }
            }
        }
    }
}
