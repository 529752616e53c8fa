//! A disk as the operating system has it: a file or block device, opened for direct I/O and for this process alone.
//!
//! - Whoever has a [`Medium`] has the lock on it; the lock ends with the file.
//! - A disk is opened in the order lock, superblock, index: nothing of a disk that is in use is even read.

use crate::Error;
use crate::config::DiskPaths;
use crate::index::Index;
use ashlar_engine::{IndexLoad, SUPERBLOCK_BYTES, Superblock, SuperblockError};
use ashlar_reactor::BufferPool;
use ashlar_types::{ByteCount, ClusterId, DiskId};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Both copies of the superblock.
const START_BYTES: usize = 2 * SUPERBLOCK_BYTES;

/// Why a file or device cannot be used as a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskRefusal {
    #[error("another process uses it")]
    InUse,
    #[error("it is neither a file nor a block device")]
    WrongKind,
    #[error("the index of a block device needs a place: give --index")]
    IndexNeeded,
    #[error("{0}")]
    Superblock(#[from] SuperblockError),
}

/// A locked file or block device.
#[derive(Debug)]
pub struct Medium {
    path: PathBuf,
    file: File,
    size: ByteCount,
    is_device: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

impl Medium {
    pub fn open(path: &Path, access: Access) -> Result<Medium, Error> {
        Medium::open_with(path, OpenOptions::new().read(true).write(access == Access::ReadWrite))
    }

    /// Makes a file, which nobody else may read: it will hold what users store. `None` if something is there already.
    pub fn create(path: &Path) -> Result<Option<Medium>, Error> {
        match Medium::open_with(path, OpenOptions::new().read(true).write(true).create_new(true).mode(0o600)) {
            Ok(medium) => Ok(Some(medium)),
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_with(path: &Path, options: &mut OpenOptions) -> Result<Medium, Error> {
        let refused = |reason| Error::Disk { path: path.to_path_buf(), reason };
        // Looked at before the open: opening a FIFO would wait, opening a tape would rewind it.
        let kind = std::fs::metadata(path).map(|metadata| metadata.file_type());
        let is_device = kind.as_ref().is_ok_and(|kind| kind.is_block_device());
        if kind.is_ok_and(|kind| !kind.is_file() && !kind.is_block_device()) {
            return Err(refused(DiskRefusal::WrongKind));
        }
        // Without O_CREAT, O_EXCL on a block device means: nobody has it mounted or claimed.
        let exclusive = if is_device { OFlag::O_EXCL } else { OFlag::empty() };
        options.custom_flags((OFlag::O_DIRECT | exclusive).bits());
        let mut file = options.open(path).map_err(|source| match source.kind() {
            io::ErrorKind::ResourceBusy => refused(DiskRefusal::InUse),
            _ => Error::File { doing: "open the disk", path: path.to_path_buf(), source },
        })?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => refused(DiskRefusal::InUse),
            TryLockError::Error(source) => Error::File { doing: "lock the disk", path: path.to_path_buf(), source },
        })?;
        // The end is where a device ends, too; its metadata does not tell.
        let size = file.seek(SeekFrom::End(0)).map_err(Error::file("measure the disk", path))?;
        Ok(Medium { path: path.to_path_buf(), file, size: ByteCount(size), is_device })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn size(&self) -> ByteCount {
        self.size
    }

    pub fn is_device(&self) -> bool {
        self.is_device
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The file, whose lock ends when it is closed.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// The superblock, if this is a disk of the cluster (of any cluster with `None`).
    pub fn superblock(&self, cluster: Option<ClusterId>) -> Result<Superblock, Error> {
        let present = START_BYTES.min(usize::try_from(self.size.0).unwrap_or(START_BYTES)) / SUPERBLOCK_BYTES;
        let start = readable_copies(present, |copy, offset| self.file.read_exact_at(copy, offset));
        let start = &start.map_err(Error::file("read the superblock of", &self.path))?[..];
        let decoded = match (Superblock::decode(start, self.size, cluster.unwrap_or(ClusterId::from_u128(0))), cluster)
        {
            (Err(SuperblockError::OtherCluster { found, .. }), None) => Superblock::decode(start, self.size, found),
            (decoded, _) => decoded,
        };
        decoded.map_err(|error| Error::Disk { path: self.path.clone(), reason: error.into() })
    }
}

/// Those copies of the superblock that can be read, of `present`: each is read by itself, or one bad sector would take
/// both. An error if none can.
fn readable_copies(present: usize, mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let (mut copies, mut failure) = (Vec::new(), None);
    let mut copy = BufferPool::new(0).take(SUPERBLOCK_BYTES);
    for index in 0..present {
        match read(&mut copy, (index * SUPERBLOCK_BYTES) as u64) {
            Ok(()) => copies.extend_from_slice(&copy),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if copies.is_empty() => Err(error),
        Some(error) => {
            tracing::warn!(%error, "one copy of a superblock cannot be read");
            Ok(copies)
        }
        None => Ok(copies),
    }
}

/// A disk with its index: everything that an engine needs.
#[derive(Debug)]
pub struct OpenDisk {
    pub paths: DiskPaths,
    pub medium: Medium,
    pub superblock: Superblock,
    pub index: Index,
    /// What the index holds.
    pub rows: IndexLoad,
}

/// A disk that cannot be used; its id, if at least that could be read.
#[derive(Debug)]
pub struct DiskFailure {
    pub id: Option<DiskId>,
    pub error: Error,
}

impl OpenDisk {
    /// For writing. While another process has the disk, `busy` is asked again and again whether to go on trying: a
    /// process that was killed is gone before the kernel has given up its io_uring, which holds the disk's file.
    pub fn open_when_free(
        paths: &DiskPaths,
        cluster: ClusterId,
        mut busy: impl FnMut() -> bool,
    ) -> Result<OpenDisk, DiskFailure> {
        loop {
            match OpenDisk::open(paths, Some(cluster), Access::ReadWrite) {
                Err(DiskFailure { error: Error::Disk { reason: DiskRefusal::InUse, .. }, .. }) if busy() => {}
                outcome => return outcome,
            }
        }
    }

    /// With `ReadOnly` neither disk nor index is changed.
    pub fn open(paths: &DiskPaths, cluster: Option<ClusterId>, access: Access) -> Result<OpenDisk, DiskFailure> {
        let unknown = |error| DiskFailure { id: None, error };
        let medium = Medium::open(&paths.disk, access).map_err(unknown)?;
        let superblock = medium.superblock(cluster).map_err(unknown)?;
        let known = |error| DiskFailure { id: Some(superblock.disk), error };
        check_index_place(&medium, paths).map_err(known)?;
        let index = Index::open(&paths.index(), superblock.disk, access).map_err(known)?;
        let mut rows = IndexLoad::new(superblock);
        index.for_each_row(|key, value| rows.row(key, value)).map_err(known)?;
        Ok(OpenDisk { paths: paths.clone(), medium, superblock, index, rows })
    }
}

/// An index beside a device node would be in a file system that the next boot empties.
pub(crate) fn check_index_place(medium: &Medium, paths: &DiskPaths) -> Result<(), Error> {
    if medium.is_device && paths.index_parent.is_none() {
        return Err(Error::Disk { path: paths.disk.clone(), reason: DiskRefusal::IndexNeeded });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_copy_of_the_superblock_that_cannot_be_read_leaves_the_other() {
        let bad_sectors = |bad: &'static [u64]| {
            readable_copies(2, move |copy, offset| {
                copy.fill(1 + (offset / SUPERBLOCK_BYTES as u64) as u8);
                match bad.iter().any(|sector| (offset..offset + copy.len() as u64).contains(sector)) {
                    true => Err(io::Error::from_raw_os_error(nix::libc::EIO)),
                    false => Ok(()),
                }
            })
        };
        assert_eq!(bad_sectors(&[]).unwrap(), [[1; SUPERBLOCK_BYTES], [2; SUPERBLOCK_BYTES]].concat());
        assert_eq!(bad_sectors(&[512]).unwrap(), [2; SUPERBLOCK_BYTES]);
        assert_eq!(bad_sectors(&[4608]).unwrap(), [1; SUPERBLOCK_BYTES]);
        assert_eq!(bad_sectors(&[0, 8191]).unwrap_err().raw_os_error(), Some(nix::libc::EIO));
    }
}
