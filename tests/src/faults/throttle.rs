//! A device that is slow for one process: blkio throttling, control groups version 1.

use super::taken_away;
use crate::wait_until;
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

const HIERARCHY: &str = "/sys/fs/cgroup/blkio";
const EMPTY_LIMIT: Duration = Duration::from_secs(10);

/// A control group of its own; what moved in is limited on one device.
pub struct Throttle {
    group: PathBuf,
    device: String,
}

impl Throttle {
    /// A name that nothing else has. No limit yet.
    pub fn new(name: &str, device: &Path) -> Result<Throttle> {
        let root = Path::new(HIERARCHY);
        ensure!(
            root.join("blkio.throttle.write_iops_device").exists(),
            "{HIERARCHY} has no blkio.throttle.*: this test needs CONFIG_BLK_DEV_THROTTLING and blkio mounted as \
             control groups version 1"
        );
        let number = fs::metadata(device).with_context(|| format!("look at {}", device.display()))?.rdev();
        let device = format!("{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number));
        let group = root.join(name);
        fs::create_dir(&group).with_context(|| format!("make {}", group.display()))?;
        Ok(Throttle { group, device })
    }

    /// From here on the process, with all its threads, gets so many operations a second of each kind; 0 is no limit.
    pub fn limit(&self, pid: i32, operations_per_second: u32) -> Result<()> {
        for kind in ["read", "write"] {
            let limit = format!("{} {operations_per_second}", self.device);
            self.set(&format!("blkio.throttle.{kind}_iops_device"), &limit)?;
        }
        self.set("cgroup.procs", &pid.to_string())
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        let path = self.group.join(name);
        fs::write(&path, value).with_context(|| format!("write {value:?} to {}", path.display()))
    }

    fn remove(&self) -> Result<()> {
        for pid in fs::read_to_string(self.group.join("cgroup.procs"))?.lines() {
            // One that has just ended needs no place.
            let _ = fs::write(Path::new(HIERARCHY).join("cgroup.procs"), pid);
        }
        wait_until("the control group to be empty", EMPTY_LIMIT, || Ok(Some(fs::remove_dir(&self.group)?)))
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        taken_away(&self.group.display().to_string(), self.remove());
    }
}
