//! A block device in memory that can be told to refuse writes.
//!
//! zram stores each page compressed, and a page that does not fit below `mem_limit` fails its write with EIO. Reads go
//! on, and so do writes of pages of zeros, which take no memory.

use super::taken_away;
use crate::wait_until;
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const CONTROL: &str = "/sys/class/zram-control";
const CLOSED_LIMIT: Duration = Duration::from_secs(10);

pub struct Zram {
    number: u32,
    device: PathBuf,
}

impl AsRef<Path> for Zram {
    fn as_ref(&self) -> &Path {
        &self.device
    }
}

impl Zram {
    /// A new device; `size` as the kernel reads it, for example `512M`.
    pub fn add(size: &str) -> Result<Zram> {
        let added = fs::read_to_string(Path::new(CONTROL).join("hot_add"));
        let added = added.with_context(|| {
            format!("{CONTROL}/hot_add: this test needs a kernel with zram (CONFIG_ZRAM; `modprobe zram`)")
        })?;
        let number = added.trim().parse().context("number of a zram device")?;
        let zram = Zram { number, device: PathBuf::from(format!("/dev/zram{number}")) };
        zram.set("disksize", size)?;
        ensure!(zram.device.exists(), "{} is missing: this test needs devtmpfs on /dev", zram.device.display());
        Ok(zram)
    }

    /// From now on writes fail with EIO.
    pub fn fail_writes(&self) -> Result<()> {
        self.set("mem_limit", "4K")
    }

    pub fn mend(&self) -> Result<()> {
        self.set("mem_limit", "0")
    }

    fn attribute(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/sys/block/zram{}/{name}", self.number))
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        let path = self.attribute(name);
        fs::write(&path, value).with_context(|| format!("write {value:?} to {}", path.display()))
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        let removed = wait_until("nobody to have the zram device open", CLOSED_LIMIT, || {
            self.set("reset", "1")?;
            fs::write(Path::new(CONTROL).join("hot_remove"), self.number.to_string())?;
            Ok(Some(()))
        });
        taken_away(&self.device.display().to_string(), removed);
    }
}
