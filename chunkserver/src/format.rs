//! Makes an Ashlar disk of an empty file or block device, and never of anything else.
//!
//! Order: lock → every byte is zero → write zeros everywhere → flush → index → superblock → flush file and
//! directory. The superblock is last, so a disk whose formatting was cut off is no disk; what is left of it is
//! zeros, and formatting may be tried again.
//!
//! Every byte is written although it is zero already: a file's unwritten extents double the cost of each first
//! durable write to them, as the file system must then journal the change of the extent too. Cost: one
//! sequential pass of writing (and of reading, where something was there before).

use crate::Error;
use crate::config::FormatConfig;
use crate::disk::{Access, Medium, check_index_place};
use crate::index::{Index, check_absent};
use ashlar_engine::{DiskLayout, Superblock};
use ashlar_reactor::BufferPool;
use ashlar_types::{BLOCK_BYTES, ByteCount, DiskId};
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const STRIDE_BYTES: u64 = 8 << 20;
/// Writes in flight: enough to keep a device busy.
const WRITERS: usize = 4;
const JOURNAL_BYTES_MIN: u64 = 8 << 20;
const JOURNAL_BYTES_MAX: u64 = 256 << 20;

const _: () = assert!(STRIDE_BYTES.is_multiple_of(BLOCK_BYTES));

/// What was made.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Formatted {
    pub disk: String,
    pub cluster: String,
    pub path: PathBuf,
    pub index: PathBuf,
    pub size_bytes: u64,
    pub journal_bytes: u64,
    pub slots: u32,
}

/// Formats. On an error nothing that existed before has changed, unless the device itself failed.
pub fn format(config: &FormatConfig) -> Result<Formatted, Error> {
    let path = &config.disk.disk;
    let created = match path.exists() {
        true => None,
        false => Medium::create(path)?,
    };
    let is_new = created.is_some();
    let medium = created.map_or_else(|| Medium::open(path, Access::ReadWrite), Ok)?;
    let outcome = format_medium(config, &medium);
    if outcome.is_err() && is_new {
        // What this call made. The lock is still held, so nobody else has taken it for a disk.
        std::fs::remove_file(path).map_err(Error::file("remove the half-made disk", path))?;
    }
    outcome
}

fn format_medium(config: &FormatConfig, medium: &Medium) -> Result<Formatted, Error> {
    let path = medium.path();
    let index = config.disk.index();
    check_index_place(medium, &config.disk)?;
    check_absent(&index)?;
    let size = disk_size(config, medium)?;
    let journal = config.journal.unwrap_or_else(|| default_journal(size));
    let layout = DiskLayout::new(size, journal).map_err(|source| Error::Layout { path: path.to_path_buf(), source })?;
    let disk = DiskId::from_u128(uuid::Uuid::new_v4().as_u128());
    check_blank(medium)?;
    write_zeros(medium, size)?;
    let made = Index::create(&index, disk, config.node.as_ref())
        .and_then(|()| write_superblock(medium, &Superblock { cluster: config.cluster, disk, layout }));
    if let Err(error) = made {
        // It was absent or empty above. What stays of it only makes the next attempt say so.
        let _ = std::fs::remove_dir_all(&index);
        return Err(error);
    }
    Ok(Formatted {
        disk: disk.to_string(),
        cluster: config.cluster.to_string(),
        path: path.to_path_buf(),
        index,
        size_bytes: size.0,
        journal_bytes: journal.0,
        slots: layout.slot_count,
    })
}

/// A device has its size, a new file takes the one that was asked for.
fn disk_size(config: &FormatConfig, medium: &Medium) -> Result<ByteCount, Error> {
    let present = ByteCount(medium.size().0 / BLOCK_BYTES * BLOCK_BYTES);
    let wrong = |reason: String| Err(Error::WouldOverwrite { path: medium.path().to_path_buf(), reason });
    match config.size {
        None if present.0 == 0 => Err(Error::Config("--size is missing: the file has no size yet".to_owned())),
        None => Ok(present),
        Some(size) if !size.0.is_multiple_of(BLOCK_BYTES) => {
            Err(Error::Config(format!("--size {size} is not a multiple of {BLOCK_BYTES}")))
        }
        Some(size) if medium.size().0 == 0 && !medium.is_device() => Ok(size),
        Some(size) if size == medium.size() || (medium.is_device() && size <= present) => Ok(size),
        Some(size) => wrong(format!("it has {} bytes, --size says {size}", medium.size())),
    }
}

fn default_journal(size: ByteCount) -> ByteCount {
    let sixteenth = size.0 / 16 / (1 << 20) * (1 << 20);
    ByteCount(sixteenth.clamp(JOURNAL_BYTES_MIN, JOURNAL_BYTES_MAX))
}

/// Refuses a disk that holds any byte other than zero.
fn check_blank(medium: &Medium) -> Result<(), Error> {
    let path = medium.path();
    let holds_data = |at: u64| Error::WouldOverwrite {
        path: path.to_path_buf(),
        reason: format!("it holds data (at byte {at}), and data is never overwritten; delete it yourself if it may go"),
    };
    let mut buffer = BufferPool::new(0).take(STRIDE_BYTES as usize);
    let mut offset = 0;
    while offset < medium.size().0 {
        let wanted = STRIDE_BYTES.min(medium.size().0 - offset) as usize;
        // A direct read of a file's last, partial block takes a whole block's room.
        let room = wanted.next_multiple_of(BLOCK_BYTES as usize);
        let count = read_up_to(medium.file(), &mut buffer[..room], offset).map_err(Error::file("read", path))?;
        if count < wanted {
            return Err(Error::file("read", path)(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some(at) = buffer[..wanted].iter().position(|&byte| byte != 0) {
            return Err(holds_data(offset + at as u64));
        }
        offset += wanted as u64;
    }
    Ok(())
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if !done.is_multiple_of(BLOCK_BYTES as usize) {
            break;
        }
    }
    Ok(done)
}

fn write_zeros(medium: &Medium, size: ByteCount) -> Result<(), Error> {
    let path = medium.path();
    if !medium.is_device() {
        // One allocation instead of thousands keeps the file in few extents, and says at once when there is no
        // room for it.
        match fallocate(medium.file(), FallocateFlags::empty(), 0, size.0 as i64) {
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(Error::file("allocate", path)(errno.into())),
        }
    }
    let next = AtomicU64::new(0);
    let pool = BufferPool::new(0);
    let write = || -> io::Result<()> {
        let mut zeros = pool.take(STRIDE_BYTES as usize);
        zeros.fill(0);
        loop {
            let offset = next.fetch_add(STRIDE_BYTES, Ordering::Relaxed);
            if offset >= size.0 {
                return Ok(());
            }
            let count = STRIDE_BYTES.min(size.0 - offset) as usize;
            medium.file().write_all_at(&zeros[..count], offset)?;
        }
    };
    let written: io::Result<()> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    });
    written.map_err(Error::file("write zeros to", path))?;
    medium.file().sync_all().map_err(Error::file("flush", path))
}

fn write_superblock(medium: &Medium, superblock: &Superblock) -> Result<(), Error> {
    let path = medium.path();
    let page = superblock.encode();
    let mut both = BufferPool::new(0).take(2 * page.len());
    both[..page.len()].copy_from_slice(&page);
    both[page.len()..].copy_from_slice(&page);
    medium.file().write_all_at(&both, 0).map_err(Error::file("write the superblock of", path))?;
    medium.file().sync_all().map_err(Error::file("flush", path))?;
    if medium.is_device() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(path);
    let sync = File::open(parent).and_then(|directory| directory.sync_all());
    sync.map_err(Error::file("flush the directory", parent))
}

#[cfg(test)]
mod tests;
