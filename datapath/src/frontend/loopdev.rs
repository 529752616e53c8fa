//! Loop devices, by way of `losetup`, checked against what the kernel says in sysfs.
//!
//! A device of this module has direct I/O and 4096-byte sectors, or it does not exist: with buffered I/O a write
//! would be acknowledged out of the page cache, and a smaller sector would make every database page a
//! read-modify-write.

use ashlar_types::{BLOCK_BYTES, ByteCount};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// How long to wait until somebody who looks at the device (udev does) has closed it.
const RELEASE_TRIES: u32 = 40;
const RELEASE_PAUSE: Duration = Duration::from_millis(50);
/// How long to wait until the device has the size of its file.
const GROW_TRIES: u32 = 100;
const GROW_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoopError {
    #[error("run losetup")]
    Run(#[source] io::Error),
    #[error("losetup says: {0}")]
    Refused(String),
    #[error("losetup names no device: {0:?}")]
    NoDevice(String),
    #[error("{device}: {what} is {found}, not {expected}")]
    Unfit { device: String, what: &'static str, found: String, expected: String },
    #[error("read {}", path.display())]
    Sysfs { path: PathBuf, source: io::Error },
    #[error("look at {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is still open somewhere", .0.display())]
    InUse(PathBuf),
}

#[derive(Debug)]
pub(crate) struct LoopDevice {
    /// "/dev/loop3"
    path: PathBuf,
    /// What it stands on.
    file: PathBuf,
}

impl LoopDevice {
    /// Blocks until the kernel has opened the file and read from the device.
    pub(crate) fn attach(file: &Path, size: ByteCount, read_only: bool) -> Result<LoopDevice, LoopError> {
        let sector = BLOCK_BYTES.to_string();
        let mut arguments = vec!["--find", "--show", "--direct-io=on", "--sector-size", &sector];
        if read_only {
            arguments.push("--read-only");
        }
        let printed = losetup(arguments.iter().map(OsStr::new).chain([file.as_os_str()]))?;
        let path = PathBuf::from(printed.trim());
        if path.parent() != Some(Path::new("/dev")) || path.file_name().is_none() {
            return Err(LoopError::NoDevice(printed));
        }
        let device = LoopDevice { path, file: file.to_owned() };
        match device.check(size) {
            Ok(()) => Ok(device),
            Err(error) => {
                if let Err(error) = device.detach_when_unused() {
                    tracing::warn!(device = %device.path.display(), %error, "let go of an unfit loop device");
                }
                Err(error)
            }
        }
    }

    /// Takes over the size of its file, which has grown. Under load the kernel may miss the new size at first: an
    /// answer to its question that a write overtook is dropped.
    pub(crate) fn grow(&self, size: ByteCount) -> Result<(), LoopError> {
        let mut tries = 0;
        loop {
            fs::metadata(&self.file).map_err(|source| LoopError::Open { path: self.file.clone(), source })?;
            losetup([OsStr::new("--set-capacity"), self.path.as_os_str()])?;
            match self.check(size) {
                Err(LoopError::Unfit { .. }) if tries < GROW_TRIES => {
                    tries += 1;
                    thread::sleep(GROW_PAUSE);
                }
                checked => return checked,
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Mounted, part of another device, or opened exclusively. Who has it open otherwise cannot be seen.
    pub(crate) fn is_in_use(&self) -> Result<bool, LoopError> {
        if !self.is_attached() {
            // Taken away by hand: its number may be another's by now.
            return Ok(false);
        }
        match OpenOptions::new().read(true).custom_flags(libc::O_EXCL | libc::O_CLOEXEC).open(&self.path) {
            Ok(_) => Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(true),
            // Nothing is attached to it any more.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(false),
            Err(source) => Err(LoopError::Open { path: self.path.clone(), source }),
        }
    }

    /// Detaches, and waits until the kernel has let go of the file.
    pub(crate) fn detach(&self) -> Result<(), LoopError> {
        if !self.is_attached() {
            return Ok(());
        }
        self.detach_when_unused()?;
        for _ in 0..RELEASE_TRIES {
            if !self.is_attached() {
                return Ok(());
            }
            thread::sleep(RELEASE_PAUSE);
        }
        Err(LoopError::InUse(self.path.clone()))
    }

    /// The kernel detaches at once, or when the last user has closed the device.
    pub(crate) fn detach_when_unused(&self) -> Result<(), LoopError> {
        losetup([OsStr::new("--detach"), self.path.as_os_str()]).map(|_| ())
    }

    /// Whether the device still stands on its file.
    pub(crate) fn is_attached(&self) -> bool {
        backing_file(self.path.file_name()).is_some_and(|backing| backing == self.file)
    }

    fn check(&self, size: ByteCount) -> Result<(), LoopError> {
        let expected = [
            ("direct I/O", "loop/dio", "1".to_owned()),
            ("sector size", "queue/logical_block_size", BLOCK_BYTES.to_string()),
            ("size in 512-byte sectors", "size", (size.0 / 512).to_string()),
            ("backing file", "loop/backing_file", self.file.display().to_string()),
        ];
        let name = self.path.file_name().expect("attach has checked the name");
        for (what, attribute, expected) in expected {
            let path = Path::new("/sys/block").join(name).join(attribute);
            let found = fs::read_to_string(&path).map_err(|source| LoopError::Sysfs { path, source })?;
            if found.trim_end() != expected {
                let device = self.path.display().to_string();
                return Err(LoopError::Unfit { device, what, found: found.trim_end().to_owned(), expected });
            }
        }
        Ok(())
    }
}

/// Devices that stand on files below `directory`.
pub(crate) fn devices_below(directory: &Path) -> io::Result<Vec<LoopDevice>> {
    let mut devices = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        if let Some(file) = backing_file(Some(&name)).filter(|file| file.starts_with(directory)) {
            devices.push(LoopDevice { path: Path::new("/dev").join(&name), file });
        }
    }
    Ok(devices)
}

/// None for what is no loop device, or stands on nothing.
fn backing_file(name: Option<&OsStr>) -> Option<PathBuf> {
    let path = Path::new("/sys/block").join(name?).join("loop/backing_file");
    fs::read_to_string(path).ok().map(|text| PathBuf::from(text.trim_end()))
}

fn losetup<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<String, LoopError> {
    let output = Command::new("losetup").args(arguments).stdin(Stdio::null()).output().map_err(LoopError::Run)?;
    if !output.status.success() {
        return Err(LoopError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_was_taken_away_is_in_nobodys_use() {
        let gone = LoopDevice { path: "/dev/loop-of-nobody".into(), file: "/run/gone/volume".into() };
        assert!(!gone.is_attached());
        assert!(!gone.is_in_use().unwrap(), "whatever has its number now is another's");
        gone.detach().unwrap();
    }
}
