//! What is in RocksDB, byte by byte, and how it is read and written. No rule of transactions is here.
//!
//! | family | key | value |
//! | --- | --- | --- |
//! | `data` | key, ASCII | mod_revision u64 LE, lease u64 LE (0: none), value |
//! | `leases` | lease u64 BE | ttl in ms u64 LE |
//! | `meta` | `format` | u32 LE, 1 |
//! | `meta` | `revision`, `lease` | u64 LE: the highest in use |

use crate::store::{KeyRange, KeyValue, LeaseId, Revision};
use crate::{CatalogError, CatalogErrorKind};
use rocksdb::{ColumnFamily, DB, DBRecoveryMode, Direction, ErrorKind, IteratorMode, LogLevel, Options, WriteOptions};
use std::path::Path;

/// The only format so far. A higher number is of a newer version and refused.
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 16;
const WRITE_BUFFER_BYTES: usize = 4 << 20;
const WAL_BYTES_MAX: u64 = 16 << 20;

pub(super) struct Database {
    db: DB,
}

/// Changes that are written together, synced.
#[derive(Default)]
pub(super) struct Batch(rocksdb::WriteBatch);

/// One value of the `data` family with its header.
pub(super) struct Entry {
    pub(super) mod_revision: Revision,
    pub(super) lease: Option<LeaseId>,
    pub(super) value: Vec<u8>,
}

impl Database {
    pub(super) fn open(directory: &Path) -> Result<Database, CatalogError> {
        let context = || format!("open catalog {}", directory.display());
        std::fs::create_dir_all(directory)
            .map_err(|error| CatalogError::because(CatalogErrorKind::Unavailable, context(), error))?;
        let db = DB::open_cf(&options(), directory, ["data", "leases", "meta"]).map_err(|error| {
            // RocksDB tells of its LOCK file in words only.
            let locked = error.kind() == ErrorKind::IOError && error.as_ref().to_lowercase().contains("lock");
            match locked {
                true => CatalogError::because(
                    CatalogErrorKind::InUse,
                    format!("{}: another process has it", context()),
                    error,
                ),
                false => CatalogError::because(kind_of(&error), context(), error),
            }
        })?;
        let database = Database { db };
        database.check_format()?;
        Ok(database)
    }

    fn check_format(&self) -> Result<(), CatalogError> {
        let Some(bytes) = self.meta("format")? else {
            let mut batch = Batch::default();
            batch.0.put_cf(self.family("meta"), "format", FORMAT.to_le_bytes());
            return self.write(batch);
        };
        match bytes.as_slice().try_into().map(u32::from_le_bytes) {
            Ok(FORMAT) => Ok(()),
            Ok(newer) => {
                let text = format!("catalog has format {newer}, this version knows {FORMAT}");
                Err(CatalogError::new(CatalogErrorKind::Newer, text))
            }
            Err(_) => Err(corrupt("catalog's format number is damaged")),
        }
    }

    pub(super) fn revision(&self) -> Result<Revision, CatalogError> {
        self.meta_number("revision").map(Revision)
    }

    pub(super) fn last_lease(&self) -> Result<LeaseId, CatalogError> {
        self.meta_number("lease").map(LeaseId)
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Entry>, CatalogError> {
        let bytes = self.db.get_cf(self.family("data"), key).map_err(|error| failed(format!("read {key}"), error))?;
        bytes.map(|bytes| decode(key, &bytes)).transpose()
    }

    pub(super) fn range(&self, range: &KeyRange) -> Result<Vec<KeyValue>, CatalogError> {
        let mut found = Vec::new();
        let from = IteratorMode::From(range.start.as_bytes(), Direction::Forward);
        for item in self.db.iterator_cf(self.family("data"), from) {
            if found.len() == range.limit {
                break;
            }
            let (key, bytes) = item.map_err(|error| failed(format!("read from {}", range.start), error))?;
            let key = String::from_utf8(key.into_vec()).map_err(|_| corrupt("a key is not text"))?;
            if key >= range.end {
                break;
            }
            let entry = decode(&key, &bytes)?;
            found.push(KeyValue { key, value: entry.value, mod_revision: entry.mod_revision });
        }
        Ok(found)
    }

    /// Every key that is attached to a lease.
    pub(super) fn leased_keys(&self) -> Result<Vec<(LeaseId, String)>, CatalogError> {
        let mut found = Vec::new();
        for item in self.db.iterator_cf(self.family("data"), IteratorMode::Start) {
            let (key, bytes) = item.map_err(|error| failed("read the catalog".to_owned(), error))?;
            let key = String::from_utf8(key.into_vec()).map_err(|_| corrupt("a key is not text"))?;
            if let Some(lease) = decode(&key, &bytes)?.lease {
                found.push((lease, key));
            }
        }
        Ok(found)
    }

    pub(super) fn leases(&self) -> Result<Vec<(LeaseId, std::time::Duration)>, CatalogError> {
        let mut found = Vec::new();
        for item in self.db.iterator_cf(self.family("leases"), IteratorMode::Start) {
            let (key, ttl) = item.map_err(|error| failed("read leases".to_owned(), error))?;
            let id = key.as_ref().try_into().map(u64::from_be_bytes).map_err(|_| corrupt("a lease's id is damaged"))?;
            let ttl =
                ttl.as_ref().try_into().map(u64::from_le_bytes).map_err(|_| corrupt("a lease's time is damaged"))?;
            found.push((LeaseId(id), std::time::Duration::from_millis(ttl)));
        }
        Ok(found)
    }

    pub(super) fn put(&self, batch: &mut Batch, key: &str, revision: Revision, lease: Option<LeaseId>, value: &[u8]) {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + value.len());
        bytes.extend_from_slice(&revision.0.to_le_bytes());
        bytes.extend_from_slice(&lease.map_or(0, |lease| lease.0).to_le_bytes());
        bytes.extend_from_slice(value);
        batch.0.put_cf(self.family("data"), key, bytes);
    }

    pub(super) fn delete(&self, batch: &mut Batch, key: &str) {
        batch.0.delete_cf(self.family("data"), key);
    }

    pub(super) fn put_lease(&self, batch: &mut Batch, lease: LeaseId, ttl: std::time::Duration) {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        batch.0.put_cf(self.family("leases"), lease.0.to_be_bytes(), ttl_ms.to_le_bytes());
        batch.0.put_cf(self.family("meta"), "lease", lease.0.to_le_bytes());
    }

    pub(super) fn delete_lease(&self, batch: &mut Batch, lease: LeaseId) {
        batch.0.delete_cf(self.family("leases"), lease.0.to_be_bytes());
    }

    pub(super) fn put_revision(&self, batch: &mut Batch, revision: Revision) {
        batch.0.put_cf(self.family("meta"), "revision", revision.0.to_le_bytes());
    }

    /// Returns when the batch is on stable media.
    pub(super) fn write(&self, batch: Batch) -> Result<(), CatalogError> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.db.write_opt(batch.0, &synced).map_err(|error| failed("write to the catalog".to_owned(), error))
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, CatalogError> {
        self.db.get_cf(self.family("meta"), name).map_err(|error| failed(format!("read meta {name}"), error))
    }

    fn meta_number(&self, name: &str) -> Result<u64, CatalogError> {
        match self.meta(name)? {
            None => Ok(0),
            Some(bytes) => bytes
                .as_slice()
                .try_into()
                .map(u64::from_le_bytes)
                .map_err(|_| corrupt(&format!("catalog's {name} number is damaged"))),
        }
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("families are opened with the database")
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // A torn record at the end of the log was never acknowledged. A bad one before the end is corruption, and opening
    // fails.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_background_jobs(2);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    // No work when idle.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn decode(key: &str, bytes: &[u8]) -> Result<Entry, CatalogError> {
    let Some((header, value)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(corrupt(&format!("value of {key} has {} bytes", bytes.len())));
    };
    let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    let lease = Some(number(8)).filter(|&lease| lease != 0).map(LeaseId);
    Ok(Entry { mod_revision: Revision(number(0)), lease, value: value.to_vec() })
}

fn failed(context: String, error: rocksdb::Error) -> CatalogError {
    CatalogError::because(kind_of(&error), context, error)
}

fn corrupt(text: &str) -> CatalogError {
    CatalogError::new(CatalogErrorKind::Corrupt, text)
}

fn kind_of(error: &rocksdb::Error) -> CatalogErrorKind {
    match error.kind() {
        ErrorKind::Corruption => CatalogErrorKind::Corrupt,
        _ => CatalogErrorKind::Unavailable,
    }
}
