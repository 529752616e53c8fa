//! The group that may read and write a volume (Kubernetes' fsGroup, which a kubelet leaves to a driver that offers
//! VOLUME_MOUNT_GROUP). ext4 and xfs have no mount option for it, so the files are given to the group: each may be read
//! and written by it, and each directory hands it on to what is made in it.
//!
//! The root is changed last, and what has a root that is as it should be is left alone: a volume is walked once, a walk
//! that was cut off begins again, and a pod that starts again does not wait for its files to be counted.
//!
//! What is walked was written by a pod: nothing is reached through a symlink, only by descriptors that are held.

use super::error::MountError;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Gid, fchownat};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::Permissions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::str::FromStr;

/// Directories within each other; each is a descriptor held while what is in it is walked.
const DEPTH_MAX: usize = 200;
const FILE_BITS: u32 = 0o060;
/// With the bit that hands the group on.
const DIRECTORY_BITS: u32 = 0o2070;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(u32);

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Group {
    type Err = MountError;

    /// A number: names mean nothing on a node.
    fn from_str(text: &str) -> Result<Group, MountError> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // The highest number means "leave it" to chown.
        match text.parse::<u32>().ok().filter(|&id| digits && id != u32::MAX) {
            Some(id) => Ok(Group(id)),
            None => {
                let shown: String = text.chars().take(64).collect();
                Err(MountError::Unsupported(format!("volume_mount_group {shown:?} is not the number of a group")))
            }
        }
    }
}

impl Group {
    /// Gives the filesystem with this root directory to the group.
    pub fn take_over(self, root: &OwnedFd) -> Result<(), MountError> {
        let stat = fstat(root).map_err(MountError::io("look at the volume's root"))?;
        if self.has(&stat) {
            return Ok(());
        }
        tracing::info!(group = self.0, "giving the files of a volume to a group");
        self.walk(root, 0)?;
        self.change(root, &stat)
    }

    fn has(self, stat: &FileStat) -> bool {
        stat.st_gid == self.0 && stat.st_mode & DIRECTORY_BITS == DIRECTORY_BITS
    }

    fn walk(self, directory: &OwnedFd, depth: usize) -> Result<(), MountError> {
        if depth == DEPTH_MAX {
            let text = format!("the volume has directories more than {DEPTH_MAX} deep: give them to the group by hand");
            return Err(MountError::Refused(text));
        }
        for name in names_in(directory)? {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let opened = match openat(directory, name.as_os_str(), flags, Mode::empty()) {
                Ok(opened) => opened,
                // Removed by whoever uses it meanwhile.
                Err(Errno::ENOENT) => continue,
                Err(error) => return Err(failed(&name)(error)),
            };
            let stat = fstat(&opened).map_err(failed(&name))?;
            if kind(&stat) == SFlag::S_IFDIR {
                self.walk(&opened, depth + 1)?;
            }
            self.change(&opened, &stat)?;
        }
        Ok(())
    }

    fn change(self, opened: &OwnedFd, stat: &FileStat) -> Result<(), MountError> {
        let what = "give a file to the volume's group";
        fchownat(opened, c"", None, Some(Gid::from_raw(self.0)), AtFlags::AT_EMPTY_PATH)
            .map_err(MountError::io(what))?;
        let bits = match kind(stat) {
            SFlag::S_IFDIR => DIRECTORY_BITS,
            SFlag::S_IFREG => FILE_BITS,
            _ => return Ok(()),
        };
        let permissions = Permissions::from_mode(stat.st_mode & 0o7777 | bits);
        std::fs::set_permissions(by_descriptor(opened), permissions).map_err(MountError::io(what))
    }
}

/// All of them before the first is changed, so that a directory is read by one descriptor at a time.
fn names_in(directory: &OwnedFd) -> Result<Vec<OsString>, MountError> {
    let listed =
        std::fs::read_dir(by_descriptor(directory)).map_err(MountError::io("read a directory of the volume"))?;
    let names = listed.map(|entry| entry.map(|entry| entry.file_name()));
    names.collect::<Result<_, _>>().map_err(MountError::io("read a directory of the volume"))
}

/// A path that leads to exactly what is held: a name could lead elsewhere by now.
fn by_descriptor(held: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()))
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn failed(name: &OsStr) -> impl FnOnce(Errno) -> MountError {
    MountError::io(format!("look at {:?} on the volume", name.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn only_numbers_name_a_group() {
        assert_eq!("1000".parse::<Group>().unwrap(), Group(1000));
        for bad in ["", "root", "-1", "+1", "1 ", "4294967295", "4294967296", "0x1"] {
            let error = bad.parse::<Group>().unwrap_err().to_string();
            assert!(error.contains("volume_mount_group"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn files_are_given_to_the_group_once_and_nothing_behind_a_symlink_is() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        fs::set_permissions(outside.path().join("secret"), Permissions::from_mode(0o600)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "x").unwrap();
        fs::set_permissions(root.join("a/b/file"), Permissions::from_mode(0o600)).unwrap();
        symlink(outside.path(), root.join("a/link")).unwrap();
        symlink(outside.path().join("secret"), root.join("secret")).unwrap();
        // Without root one can give files to one's own group only.
        let own = nix::unistd::getegid().as_raw();
        let group = Group(if nix::unistd::geteuid().is_root() { 4242 } else { own });
        let opened: OwnedFd = File::open(root).unwrap().into();
        group.take_over(&opened).unwrap();
        let seen = |path: &str| {
            let metadata = fs::symlink_metadata(root.join(path)).unwrap();
            (metadata.gid(), metadata.mode() & 0o7777)
        };
        assert_eq!(seen("a/b/file"), (group.0, 0o660));
        assert_eq!((seen("a/b").0, seen("a/b").1 & 0o2070), (group.0, 0o2070));
        assert_eq!((seen("").0, seen("").1 & 0o2070), (group.0, 0o2070));
        let secret = fs::metadata(outside.path().join("secret")).unwrap();
        assert_eq!((secret.gid(), secret.mode() & 0o777), (own, 0o600));
        fs::set_permissions(root.join("a/b/file"), Permissions::from_mode(0o600)).unwrap();
        group.take_over(&opened).unwrap();
        assert_eq!(seen("a/b/file").1, 0o600, "a root that is as it should be is not walked again");
    }
}
