//! The run directory: NBD sockets in `nbd`, mount points in `fuse`, and the lock that makes it one datapath's own.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A Unix socket's path has 107 bytes at most (unix(7)); the longest below the run directory is "/nbd/" with a volume
/// id and ".sock".
const PATH_BYTES_MAX: usize = 107 - "/nbd/00000000-0000-0000-0000-000000000000.sock".len();

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunDirError {
    #[error("{step} {}", path.display())]
    Io { step: &'static str, path: PathBuf, source: io::Error },
    #[error("the run directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    #[error("the run directory {} is too long for sockets in it: {PATH_BYTES_MAX} bytes at most", .0.display())]
    TooLong(PathBuf),
}

/// Held as long as the process lives.
pub(crate) struct RunDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl RunDir {
    /// Makes the directory if need be, and locks it. Whatever a predecessor left in it stays.
    pub(crate) fn open(path: &Path) -> Result<RunDir, RunDirError> {
        let at = |step, path: &Path| {
            let path = path.to_owned();
            move |source| RunDirError::Io { step, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("make the run directory", path))?;
        let path = fs::canonicalize(path).map_err(at("find the run directory", path))?;
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(RunDirError::TooLong(path));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(at("protect the run directory", &path))?;
        let lock_path = path.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let file = file.map_err(at("open the lock", &lock_path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| RunDirError::InUse(path.clone()))?;
        Ok(RunDir { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes what this process needs in it; to be called when leftovers are cleaned.
    pub(crate) fn prepare(&self) -> Result<(), RunDirError> {
        for name in ["nbd", "fuse"] {
            let path = self.path.join(name);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| RunDirError::Io { step: "make", path, source })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_directory_belongs_to_one_process_and_one_user() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run");
        let held = RunDir::open(&path).unwrap();
        assert_eq!(fs::metadata(held.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(RunDir::open(&path), Err(RunDirError::InUse(_))));
        drop(held);
        assert!(RunDir::open(&path).is_ok());
        let long = directory.path().join("x".repeat(100));
        assert!(matches!(RunDir::open(&long), Err(RunDirError::TooLong(_))));
    }
}
