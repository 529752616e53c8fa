//! Mounts and loop devices of a development cluster, as the kernel lists them, and how they are removed.

use anyhow::{Context, bail};
use nix::mount::{MntFlags, umount2};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// An unmount writes back what is dirty; on a volume that waits for replicas it waits with it.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    pub fs_type: String,
    /// `major:minor`.
    pub device: String,
}

impl Mount {
    fn is_fuse(&self) -> bool {
        self.fs_type == "fuse" || self.fs_type.starts_with("fuse.")
    }
}

/// A loop device on a file of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// For example `loop3`.
    pub name: String,
    /// `major:minor`.
    pub device: String,
}

/// What the kernel still has of the cluster in `dir`.
#[derive(Debug)]
pub struct Leftovers {
    /// Filesystems and devices that somebody uses, the latest first. They may lie outside `dir`, if their device is
    /// of the cluster.
    pub mounts: Vec<Mount>,
    /// The files under the loop devices.
    pub fuse_mounts: Vec<Mount>,
    pub loops: Vec<Loop>,
}

pub fn find(dir: &Path) -> anyhow::Result<Leftovers> {
    let table = fs::read("/proc/self/mountinfo").context("read the table of mounts")?;
    let loops = find_loops(dir)?;
    let (mut mounts, mut fuse_mounts) = (Vec::new(), Vec::new());
    for mount in parse_mounts(&table) {
        let below = mount.point.starts_with(dir);
        if below && mount.is_fuse() {
            fuse_mounts.push(mount);
        } else if below || loops.iter().any(|found| found.device == mount.device) {
            mounts.push(mount);
        }
    }
    mounts.reverse();
    fuse_mounts.reverse();
    Ok(Leftovers { mounts, fuse_mounts, loops })
}

fn find_loops(dir: &Path) -> anyhow::Result<Vec<Loop>> {
    let mut loops = Vec::new();
    for entry in fs::read_dir("/sys/block").context("list block devices")? {
        let entry = entry?;
        // Absent when nothing is bound to the device, or as soon as it is freed.
        let Ok(backing) = fs::read(entry.path().join("loop/backing_file")) else { continue };
        let backing = PathBuf::from(OsString::from_vec(backing.trim_ascii_end().to_vec()));
        if backing.starts_with(dir) {
            let device = fs::read_to_string(entry.path().join("dev")).context("read the number of a loop device")?;
            loops.push(Loop {
                name: entry.file_name().to_string_lossy().into_owned(),
                device: device.trim().to_owned(),
            });
        }
    }
    Ok(loops)
}

/// Lines of mountinfo (proc(5)); a line that is not understood is none of ours.
fn parse_mounts(table: &[u8]) -> Vec<Mount> {
    table.split(|&byte| byte == b'\n').filter_map(parse_mount).collect()
}

fn parse_mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let separator = fields.iter().position(|field| *field == b"-")?;
    Some(Mount {
        device: String::from_utf8(fields.get(2)?.to_vec()).ok()?,
        point: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        fs_type: String::from_utf8(fields.get(separator + 1)?.to_vec()).ok()?,
    })
}

/// `\040` and the like: three octal digits for what would break the line.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

/// Unmounts after writing back. In a process of its own: one that hangs in the kernel must not take this one with it.
pub async fn unmount(mount: &Mount) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new("umount");
    command.arg("--").arg(&mount.point).stdin(Stdio::null()).stdout(Stdio::null());
    let Ok(output) = tokio::time::timeout(UNMOUNT_TIMEOUT, command.output()).await else {
        bail!(
            "{} is still being written back after {} s, its volume may wait for replicas: start them, or use --force",
            mount.point.display(),
            UNMOUNT_TIMEOUT.as_secs()
        );
    };
    let output = output.context("run umount")?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{} (stop what uses it, or use --force)", String::from_utf8_lossy(&output.stderr).trim())
}

/// Takes the mount out of the tree at once, whatever uses it.
pub fn unmount_lazily(mount: &Mount) -> anyhow::Result<()> {
    match umount2(&mount.point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // Gone meanwhile.
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("unmount {}", mount.point.display())),
    }
}

pub async fn detach_loop(found: &Loop) -> anyhow::Result<()> {
    let path = Path::new("/dev").join(&found.name);
    let output = tokio::process::Command::new("losetup").arg("--detach").arg(&path).stdin(Stdio::null()).output().await;
    let output = output.context("run losetup")?;
    // A device whose datapath freed it meanwhile needs nothing.
    if output.status.success() || !Path::new("/sys/block").join(&found.name).join("loop/backing_file").exists() {
        return Ok(());
    }
    bail!("detach {}: {}", path.display(), String::from_utf8_lossy(&output.stderr).trim())
}

/// Whether anything is mounted in `dir`: then nothing there may be deleted.
pub fn mounted_below(dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo").context("read the table of mounts")?;
    Ok(parse_mounts(&table).into_iter().map(|mount| mount.point).find(|point| point.starts_with(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_and_without_optional_fields() {
        let table = b"36 35 98:0 /r /mnt/a\\040b rw,noatime master:1 - ext4 /dev/loop0 rw,errors=continue\n\
                      37 35 0:50 / /x/n1/run/v rw - fuse.ashlar ashlar rw\n\
                      not a line\n";
        let mounts = parse_mounts(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, Path::new("/mnt/a b"));
        assert_eq!((mounts[0].device.as_str(), mounts[0].fs_type.as_str()), ("98:0", "ext4"));
        assert!(mounts[1].is_fuse() && !mounts[0].is_fuse());
    }

    #[test]
    fn backslashes_that_are_no_escape_stay() {
        assert_eq!(unescape(b"a\\134b\\x\\07"), b"a\\b\\x\\07");
    }
}
