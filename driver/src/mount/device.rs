//! Block devices as the kernel shows them.

use super::error::MountError;
use super::tools;
use nix::sys::stat::{major, minor};
use std::fmt;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// `major:minor`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    pub major: u64,
    pub minor: u64,
}

impl DeviceNumber {
    /// From `st_dev` or `st_rdev`.
    pub fn from_raw(raw: u64) -> DeviceNumber {
        DeviceNumber { major: major(raw), minor: minor(raw) }
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl fmt::Debug for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A block device that was there when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    pub path: PathBuf,
    pub number: DeviceNumber,
}

impl BlockDevice {
    pub fn open(path: &Path) -> Result<BlockDevice, MountError> {
        let metadata = fs::metadata(path).map_err(MountError::io(format!("look at device {}", path.display())))?;
        if !metadata.file_type().is_block_device() {
            return Err(MountError::Refused(format!("{} is not a block device", path.display())));
        }
        Ok(BlockDevice { path: path.to_owned(), number: DeviceNumber::from_raw(metadata.rdev()) })
    }

    pub fn size_bytes(&self) -> Result<u64, MountError> {
        let end = File::open(&self.path).and_then(|mut file| file.seek(SeekFrom::End(0)));
        end.map_err(MountError::io(format!("measure {}", self.path.display())))
    }

    pub fn is_read_only(&self) -> Result<bool, MountError> {
        let path = format!("/sys/dev/block/{}/ro", self.number);
        let text = fs::read_to_string(&path).map_err(MountError::io(format!("read {path}")))?;
        Ok(text.trim() == "1")
    }

    /// For raw block volumes: a read-only mount of a device node does not keep anyone from writing to the device.
    pub fn set_read_only(&self, read_only: bool) -> Result<(), MountError> {
        let flag = if read_only { "--setro" } else { "--setrw" };
        let output = tools::run("blockdev", [flag.as_ref(), self.path.as_os_str()])?;
        output.expect_success("blockdev")
    }

    /// Whether the device still answers: the one of a datapath that was killed does not.
    pub fn is_dead(&self) -> bool {
        match super::probe::read_first_block(&self.path) {
            Ok(()) => false,
            Err(error) => {
                tracing::info!(device = %self.path.display(), %error, "device does not answer");
                true
            }
        }
    }
}
