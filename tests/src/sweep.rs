//! What a dev cluster could leave behind on the machine, found by its folder: processes, mounts, loop devices, files.
//!
//! A cluster's folder is its own and has a name that nothing else has, so whatever refers to a path below it belongs
//! to the cluster. Order matters: filesystems first, then the loop devices below them, then the FUSE mounts that hold
//! the loop devices' files; and the processes before all, because a mount that still has a server may wait for it.

use crate::{run, wait_until};
use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a killed process may take to go: the kernel may have to give up on its I/O first.
const EXIT_LIMIT: Duration = Duration::from_secs(20);

/// What is there at one moment.
#[derive(Debug, Default)]
pub struct Leftovers {
    pub processes: Vec<(Pid, String)>,
    pub mounts: Vec<PathBuf>,
    pub loops: Vec<PathBuf>,
}

impl Leftovers {
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.mounts.is_empty() && self.loops.is_empty()
    }

    /// Looks for everything that refers to `dir`.
    pub fn of(dir: &Path) -> Result<Leftovers> {
        let loops = loops_on(dir)?;
        Ok(Leftovers { processes: processes_of(dir)?, mounts: mounts_of(dir, &loops)?, loops })
    }
}

impl std::fmt::Display for Leftovers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let processes = self.processes.iter().map(|(pid, name)| format!("process {pid} ({name})"));
        let mounts = self.mounts.iter().map(|path| format!("mount {}", path.display()));
        let loops = self.loops.iter().map(|path| format!("loop device {}", path.display()));
        f.write_str(&processes.chain(mounts).chain(loops).collect::<Vec<_>>().join(", "))
    }
}

/// Kills what runs on `dir`, then takes down its mounts and loop devices. The folder itself stays.
pub fn sweep(dir: &Path) -> Result<()> {
    kill_processes(dir)?;
    sweep_devices(dir)
}

/// Takes down mounts and loop devices, as a node that reboots loses them. No process is touched.
pub fn sweep_devices(dir: &Path) -> Result<()> {
    let loops = loops_on(dir)?;
    // A loop device that was lazily detached goes when its last user does: so filesystems first, and FUSE mounts
    // last.
    let (on_loops, rest): (Vec<_>, Vec<_>) = mounts(dir, &loops)?.into_iter().partition(|mount| mount.on_loop);
    for mount in on_loops {
        unmount(&mount.point)?;
    }
    for device in &loops {
        detach(device)?;
    }
    for mount in rest {
        unmount(&mount.point)?;
    }
    wait_until("loop devices to be free", EXIT_LIMIT, || Ok(loops_on(dir)?.is_empty().then_some(())))
}

fn kill_processes(dir: &Path) -> Result<()> {
    for (pid, _) in processes_of(dir)? {
        // Gone meanwhile is as good.
        let _ = kill(pid, Signal::SIGKILL);
    }
    wait_until("killed processes to end", EXIT_LIMIT, || Ok(processes_of(dir)?.is_empty().then_some(())))
}

fn unmount(point: &Path) -> Result<()> {
    match umount2(point, MntFlags::MNT_DETACH) {
        // It may have gone with a mount above it.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("unmount {}", point.display())),
    }
}

fn detach(device: &Path) -> Result<()> {
    let output = run("losetup", [Path::new("--detach"), device])?;
    if !output.success && backing_file(device).is_some() {
        anyhow::bail!("losetup --detach {}: {}", device.display(), output.stderr.trim());
    }
    Ok(())
}

/// Processes with an argument that names a path in `dir`. Zombies have no arguments and so are not among them;
/// neither is this process.
fn processes_of(dir: &Path) -> Result<Vec<(Pid, String)>> {
    let needle = dir.as_os_str().as_bytes();
    let mut found = vec![];
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A process may end while it is looked at.
        let Ok(arguments) = fs::read(entry.path().join("cmdline")) else { continue };
        let ours = pid != std::process::id() as i32 && arguments.windows(needle.len()).any(|window| window == needle);
        if ours {
            let name = arguments.split(|&byte| byte == 0).next().unwrap_or_default();
            found.push((Pid::from_raw(pid), String::from_utf8_lossy(name).into_owned()));
        }
    }
    Ok(found)
}

struct Mount {
    point: PathBuf,
    on_loop: bool,
}

fn mounts_of(dir: &Path, loops: &[PathBuf]) -> Result<Vec<PathBuf>> {
    Ok(mounts(dir, loops)?.into_iter().map(|mount| mount.point).collect())
}

/// Mounts at or below `dir` and those of the given devices wherever they are; the last mounted first.
fn mounts(dir: &Path, loops: &[PathBuf]) -> Result<Vec<Mount>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
    let mut found: Vec<Mount> = text.lines().filter_map(|line| mount_of(line, dir, loops)).collect();
    found.reverse();
    Ok(found)
}

/// One line of mountinfo (proc_pid_mountinfo(5)): `36 35 98:0 /root /mount/point options - type source options`.
fn mount_of(line: &str, dir: &Path, loops: &[PathBuf]) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let point = PathBuf::from(unescape(front.split(' ').nth(4)?));
    let source = PathBuf::from(unescape(back.split(' ').nth(1)?));
    let on_loop = source.starts_with("/dev") && source.to_string_lossy().starts_with("/dev/loop");
    (point.starts_with(dir) || loops.contains(&source)).then_some(Mount { point, on_loop })
}

/// Space, tab, newline and backslash are written in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Loop devices whose file lies, or lay, below `dir`.
fn loops_on(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in fs::read_dir("/sys/block").context("read /sys/block")? {
        let device = Path::new("/dev").join(entry?.file_name());
        if backing_file(&device).is_some_and(|file| file.starts_with(dir)) {
            found.push(device);
        }
    }
    found.sort();
    Ok(found)
}

fn backing_file(device: &Path) -> Option<PathBuf> {
    let name = device.file_name()?;
    let text = fs::read_to_string(Path::new("/sys/block").join(name).join("loop/backing_file")).ok()?;
    Some(PathBuf::from(text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_place_or_its_device() {
        let dir = Path::new("/var/tmp/x y");
        let line = |point: &str, source: &str| format!("36 35 98:0 / {point} rw,noatime shared:1 - ext4 {source} rw");
        let loops = [PathBuf::from("/dev/loop3")];
        assert!(mount_of(&line("/var/tmp/x\\040y/a", "/dev/loop3"), dir, &loops).unwrap().on_loop);
        assert!(!mount_of(&line("/var/tmp/x\\040y/a", "ashlar"), dir, &loops).unwrap().on_loop);
        assert!(mount_of(&line("/elsewhere", "/dev/loop3"), dir, &loops).is_some());
        assert!(mount_of(&line("/elsewhere", "/dev/loop4"), dir, &loops).is_none());
    }

    #[test]
    fn an_empty_folder_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Leftovers::of(dir.path()).unwrap().is_empty());
        sweep(dir.path()).unwrap();
    }
}
