//! What a predecessor that was killed left behind in the run directory: loop devices on files that nobody serves any
//! more, dead mounts, sockets. Cleaned up before anything is served, under the lock of the run directory, so that no
//! living datapath loses anything.

use crate::frontend::loopdev::devices_below;
use nix::mount::{MntFlags, umount2};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// `run_dir` must be canonical.
pub(crate) fn clean(run_dir: &Path) -> io::Result<()> {
    for device in devices_below(run_dir)? {
        // One that is still mounted goes with its last user; until then it answers with errors.
        match device.detach_when_unused() {
            Ok(()) => tracing::info!(device = %device.path().display(), "detached a loop device that was left behind"),
            Err(error) => tracing::warn!(device = %device.path().display(), %error, "detach a loop device left behind"),
        }
    }
    for mount_point in mounts_below(run_dir)? {
        match umount2(&mount_point, MntFlags::MNT_DETACH) {
            Ok(()) => tracing::info!(path = %mount_point.display(), "unmounted what was left behind"),
            Err(error) => tracing::warn!(path = %mount_point.display(), %error, "unmount what was left behind"),
        }
    }
    for directory in ["fuse", "nbd"] {
        match fs::remove_dir_all(run_dir.join(directory)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Mount points below the directory, the deepest first.
fn mounts_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let mut mounts: Vec<PathBuf> = table
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
        .filter(|path| path.starts_with(directory) && path != directory)
        .collect();
    mounts.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    Ok(mounts)
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits (proc_pid_mountinfo(5)).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.first_chunk::<3>().filter(|_| byte == b'\\');
        let digits = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) => {
                plain.push(value);
                rest = &after[3..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_mount_table_are_undone() {
        assert_eq!(unescape(br"/a\040b\134c"), b"/a b\\c");
        assert_eq!(unescape(br"/a\9"), br"/a\9");
    }

    #[test]
    fn nothing_is_mounted_below_a_new_directory() {
        let directory = tempfile::tempdir().unwrap();
        assert!(mounts_below(directory.path()).unwrap().is_empty());
        assert!(mounts_below(Path::new("/")).unwrap().contains(&PathBuf::from("/proc")));
    }
}
