//! The owner of the database: one loop that takes a request, compares, writes, and tells the watchers. Also the only
//! one that lets leases run out.

use super::database::{Batch, Database};
use super::{Answer, Request};
use crate::store::{
    Compare, Expected, KeyRange, LeaseId, Op, Outcome, Reading, Revision, Transaction, Watch, WatchEvent,
};
use crate::{CatalogError, CatalogErrorKind};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

/// Transactions whose changes a watch may still ask for.
const HISTORY_MAX: usize = 4096;
/// Transactions that a watcher may fall behind.
const WATCH_QUEUE_MAX: usize = 1024;

pub(super) struct Owner {
    database: Database,
    revision: Revision,
    last_lease: LeaseId,
    /// The first write that failed: whether it is on the disk is unknown, so nothing is written after it.
    failed: Option<String>,
    leases: BTreeMap<LeaseId, Lease>,
    /// Changes of the latest transactions, ascending and without a gap up to `revision`.
    history: VecDeque<Arc<Vec<WatchEvent>>>,
    watchers: broadcast::Sender<Arc<Vec<WatchEvent>>>,
}

struct Lease {
    ttl: Duration,
    ends: Instant,
    keys: BTreeSet<String>,
}

impl Owner {
    pub(super) fn open(directory: &Path) -> Result<Owner, CatalogError> {
        let database = Database::open(directory)?;
        let mut owner = Owner {
            revision: database.revision()?,
            last_lease: database.last_lease()?,
            failed: None,
            leases: BTreeMap::new(),
            history: VecDeque::new(),
            watchers: broadcast::channel(WATCH_QUEUE_MAX).0,
            database,
        };
        // Time spent closed is not held against a lease: its holder could not keep it alive.
        for (id, ttl) in owner.database.leases()? {
            owner.leases.insert(id, Lease { ttl, ends: Instant::now() + ttl, keys: BTreeSet::new() });
        }
        for (id, key) in owner.database.leased_keys()? {
            if let Some(lease) = owner.leases.get_mut(&id) {
                lease.keys.insert(key);
            }
        }
        Ok(owner)
    }

    /// Runs until every handle is dropped.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "start the catalog's timer"),
        };
        runtime.block_on(async {
            loop {
                let next_end = self.leases.values().map(|lease| lease.ends).min();
                let ended = tokio::time::sleep_until(next_end.unwrap_or_else(Instant::now));
                tokio::select! {
                    request = queue.recv() => match request {
                        Some(request) => self.handle(request),
                        None => return,
                    },
                    () = ended, if next_end.is_some() => self.end_leases(),
                }
            }
        });
    }

    fn handle(&mut self, request: Request) {
        // A caller that went away does not want its answer; what was committed stays committed.
        fn reply<T>(answer: Answer<T>, result: Result<T, CatalogError>) {
            let _gone = answer.send(result);
        }
        match request {
            Request::Commit(transaction, answer) => reply(answer, self.commit(transaction)),
            Request::Read(ranges, answer) => reply(answer, self.read(&ranges)),
            Request::Watch(prefix, from, answer) => reply(answer, self.watch(&prefix, from)),
            Request::GrantLease(ttl, answer) => reply(answer, self.grant_lease(ttl)),
            Request::KeepAlive(lease, answer) => reply(answer, self.keep_alive(lease)),
            Request::RevokeLease(lease, answer) => reply(answer, self.end_lease(lease)),
        }
    }

    fn commit(&mut self, transaction: Transaction) -> Result<Outcome, CatalogError> {
        for compare in &transaction.compares {
            if !self.holds(compare)? {
                return Ok(Outcome::Conflict);
            }
        }
        if transaction.ops.is_empty() {
            return Ok(Outcome::Committed(self.revision));
        }
        self.write(transaction.ops).map(Outcome::Committed)
    }

    fn holds(&self, compare: &Compare) -> Result<bool, CatalogError> {
        let found = self.database.get(&compare.key)?.map(|entry| entry.mod_revision);
        Ok(match compare.expected {
            Expected::Absent => found.is_none(),
            Expected::At(revision) => found == Some(revision),
        })
    }

    fn write(&mut self, ops: Vec<Op>) -> Result<Revision, CatalogError> {
        let revision = Revision(self.revision.0 + 1);
        let mut batch = Batch::default();
        for op in &ops {
            match op {
                Op::Put { key, value, lease } => {
                    if let Some(lease) = lease.filter(|lease| !self.leases.contains_key(lease)) {
                        return Err(no_lease(lease));
                    }
                    self.database.put(&mut batch, key, revision, *lease, value);
                }
                Op::Delete { key } => self.database.delete(&mut batch, key),
            }
        }
        self.database.put_revision(&mut batch, revision);
        self.store(batch)?;
        self.revision = revision;
        self.publish(revision, ops);
        Ok(revision)
    }

    fn store(&mut self, batch: Batch) -> Result<(), CatalogError> {
        if let Some(reason) = &self.failed {
            let text = format!("an earlier write to the catalog failed, restart the control plane: {reason}");
            return Err(CatalogError::new(CatalogErrorKind::Unavailable, text));
        }
        self.database.write(batch).inspect_err(|error| self.failed = Some(error.to_string()))
    }

    /// After the write: which keys a lease holds, and what watchers are told.
    fn publish(&mut self, revision: Revision, ops: Vec<Op>) {
        let mut events = Vec::with_capacity(ops.len());
        for op in ops {
            let (key, value, lease) = match op {
                Op::Put { key, value, lease } => (key, Some(value), lease),
                Op::Delete { key } => (key, None, None),
            };
            self.leases.values_mut().for_each(|lease| {
                lease.keys.remove(&key);
            });
            if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
                lease.keys.insert(key.clone());
            }
            events.push(WatchEvent { key, value, revision });
        }
        let events = Arc::new(events);
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(events.clone());
        // No receiver: nobody watches.
        let _watchers = self.watchers.send(events);
    }

    fn read(&self, ranges: &[KeyRange]) -> Result<Reading, CatalogError> {
        let ranges = ranges.iter().map(|range| self.database.range(range)).collect::<Result<_, _>>()?;
        Ok(Reading { revision: self.revision, ranges })
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, CatalogError> {
        let oldest_kept = self.revision.0 + 1 - self.history.len() as u64;
        if from.0 < oldest_kept {
            let text = format!("changes before revision {oldest_kept} are no longer kept, {} was asked for", from.0);
            return Err(CatalogError::new(CatalogErrorKind::Compacted, text));
        }
        let kept = self.history.iter().skip((from.0 - oldest_kept) as usize).flat_map(|events| events.iter());
        let backlog = kept.filter(|event| event.key.starts_with(prefix)).cloned().collect();
        Ok(Watch::new(prefix, backlog, self.watchers.subscribe()))
    }

    fn grant_lease(&mut self, ttl: Duration) -> Result<LeaseId, CatalogError> {
        let id = LeaseId(self.last_lease.0 + 1);
        let mut batch = Batch::default();
        self.database.put_lease(&mut batch, id, ttl);
        self.store(batch)?;
        self.last_lease = id;
        self.leases.insert(id, Lease { ttl, ends: Instant::now() + ttl, keys: BTreeSet::new() });
        Ok(id)
    }

    fn keep_alive(&mut self, id: LeaseId) -> Result<(), CatalogError> {
        let lease = self.leases.get_mut(&id).ok_or_else(|| no_lease(id))?;
        lease.ends = Instant::now() + lease.ttl;
        Ok(())
    }

    fn end_leases(&mut self) {
        let now = Instant::now();
        let ended: Vec<LeaseId> =
            self.leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(&id, _)| id).collect();
        for id in ended {
            if let Err(error) = self.end_lease(id) {
                tracing::error!(%error, lease = id.0, "end a lease");
                // Tried again after another period; meanwhile its keys stay, which errs on the side of a live holder.
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.ends = now + lease.ttl;
                }
            }
        }
    }

    fn end_lease(&mut self, id: LeaseId) -> Result<(), CatalogError> {
        let Some(lease) = self.leases.get(&id) else { return Ok(()) };
        let deletes: Vec<Op> = lease.keys.iter().map(|key| Op::Delete { key: key.clone() }).collect();
        let revision = Revision(self.revision.0 + u64::from(!deletes.is_empty()));
        let mut batch = Batch::default();
        lease.keys.iter().for_each(|key| self.database.delete(&mut batch, key));
        self.database.delete_lease(&mut batch, id);
        self.database.put_revision(&mut batch, revision);
        self.store(batch)?;
        self.leases.remove(&id);
        if !deletes.is_empty() {
            self.revision = revision;
            self.publish(revision, deletes);
        }
        Ok(())
    }
}

fn no_lease(lease: LeaseId) -> CatalogError {
    CatalogError::new(CatalogErrorKind::NotFound, format!("lease {} has run out", lease.0))
}
