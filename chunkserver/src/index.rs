//! The durable index of one disk: a RocksDB beside the disk. Keys and values are the engine's; this file stores
//! them in order.
//!
//! ```text
//! column family   key            value
//! default         the engine's   the engine's
//! identity        "format"       u32, little-endian: 1
//!                 "disk"         disk id, 16 bytes little-endian
//!                 "node"         name of the node on which the disk was formatted, for people; may be missing
//! ```
//!
//! - An index belongs to the disk whose id it holds. A disk with another's index, or with none, would serve
//!   nonsense as data, so both are refused; an index is made by `format` only.
//! - A commit is one write batch with a sync: all of it is durable when it returns, or none.
//! - A log that is damaged in its middle is an error. RocksDB's default would drop what follows the damage, and
//!   with it commits for which the journal has been trimmed already.

mod writer;

use crate::Error;
use crate::disk::Access;
use ashlar_engine::IndexEdit;
use ashlar_types::{DiskId, NodeName};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, IteratorMode, Options, ReadOptions, WriteBatch,
    WriteOptions,
};
use std::path::{Path, PathBuf};

pub use writer::{IndexDone, IndexJob, IndexWriter};

const FORMAT: u32 = 1;
const IDENTITY: &str = "identity";
const COLUMN_FAMILIES: [&str; 2] = ["default", IDENTITY];
const CACHE_BYTES: usize = 8 << 20;
const WRITE_BUFFER_BYTES: usize = 8 << 20;
const LOG_BYTES_MAX: u64 = 32 << 20;
const OPEN_FILES_MAX: i32 = 128;

pub struct Index {
    db: DB,
    path: PathBuf,
}

impl Index {
    /// Makes the index of a new disk. What exists is never touched: a directory must be empty.
    pub fn create(path: &Path, disk: DiskId, node: Option<&NodeName>) -> Result<(), Error> {
        check_absent(path)?;
        std::fs::create_dir_all(path).map_err(Error::file("create the index", path))?;
        let mut options = options();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_error_if_exists(true);
        let db = DB::open_cf(&options, path, COLUMN_FAMILIES).map_err(failed(path, "create"))?;
        let identity = db.cf_handle(IDENTITY).expect("opened above");
        let mut batch = WriteBatch::default();
        batch.put_cf(identity, "format", FORMAT.to_le_bytes());
        batch.put_cf(identity, "disk", disk.as_u128().to_le_bytes());
        if let Some(node) = node {
            batch.put_cf(identity, "node", node.as_str());
        }
        db.write_opt(batch, &synced()).map_err(failed(path, "write the identity"))?;
        let parent = path.parent().unwrap_or(path);
        let sync = std::fs::File::open(parent).and_then(|directory| directory.sync_all());
        sync.map_err(Error::file("flush the directory", parent))
    }

    pub fn open(path: &Path, disk: DiskId, access: Access) -> Result<Index, Error> {
        if !path.join("CURRENT").exists() {
            return Err(Error::Index { path: path.to_path_buf(), reason: "there is none".to_owned() });
        }
        let db = match access {
            Access::ReadWrite => DB::open_cf(&options(), path, COLUMN_FAMILIES),
            Access::ReadOnly => DB::open_cf_for_read_only(&options(), path, COLUMN_FAMILIES, false),
        };
        let index = Index { db: db.map_err(failed(path, "open"))?, path: path.to_path_buf() };
        index.check_identity(disk)?;
        Ok(index)
    }

    /// Every key with its value, in ascending order of the keys.
    pub fn for_each_row(&self, mut take: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        // It is read once, at the start: what the cache would keep of it is never asked for.
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        for row in self.db.iterator_opt(IteratorMode::Start, options) {
            let (key, value) = row.map_err(failed(&self.path, "read"))?;
            take(&key, &value);
        }
        Ok(())
    }

    /// Applies all edits, durably, or none.
    pub fn commit(&self, edits: &[IndexEdit]) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for edit in edits {
            match edit {
                IndexEdit::Put { key, value } => batch.put(key, value),
                IndexEdit::Delete { key } => batch.delete(key),
                IndexEdit::DeleteRange { from, until } => batch.delete_range(from, until),
            }
        }
        self.db.write_opt(batch, &synced()).map_err(failed(&self.path, "commit to"))
    }

    fn check_identity(&self, disk: DiskId) -> Result<(), Error> {
        let identity = self.db.cf_handle(IDENTITY).expect("opened with the others");
        let get = |key| self.db.get_cf(identity, key).map_err(failed(&self.path, "read the identity"));
        let wrong = |reason: String| Err(Error::Index { path: self.path.clone(), reason });
        let Some(format) = get("format")?.and_then(|bytes| bytes.try_into().ok().map(u32::from_le_bytes)) else {
            return wrong("it has no identity".to_owned());
        };
        if format != FORMAT {
            return wrong(format!("it has format {format}, this program knows {FORMAT}"));
        }
        match get("disk")?.and_then(|bytes| bytes.try_into().ok().map(u128::from_le_bytes)) {
            Some(found) if found == disk.as_u128() => Ok(()),
            Some(found) => wrong(format!("it belongs to disk {}, not to {disk}", DiskId::from_u128(found))),
            None => wrong("it does not say to which disk it belongs".to_owned()),
        }
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({})", self.path.display())
    }
}

/// An error if something is at `path` that `create` could spoil.
pub(crate) fn check_absent(path: &Path) -> Result<(), Error> {
    match std::fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::File { doing: "look into the index", path: path.to_path_buf(), source }),
        Ok(true) => Ok(()),
        Ok(false) => {
            Err(Error::WouldOverwrite { path: path.to_path_buf(), reason: "the directory is not empty".to_owned() })
        }
    }
}

/// Small buffers, no compression (the values are checksums, which do not compress), nothing that runs on a timer.
fn options() -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_paranoid_checks(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_keep_log_file_num(2);
    options
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(rocksdb::Error) -> Error {
    move |error| Error::Index { path: path.to_path_buf(), reason: format!("{doing}: {error}") }
}

#[cfg(test)]
mod tests;
