//! A loop device whose file lies in memory: on a filesystem that can be filled to the last page, and in a file that can
//! be cut off.

use super::taken_away;
use crate::{run_ok, wait_until};
use anyhow::{Context, Result};
use nix::{
    fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise},
    mount::{MntFlags, MsFlags, mount, umount2},
};
use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::Duration,
};

const CLOSED_LIMIT: Duration = Duration::from_secs(10);
const FILLER: &str = "filler";
/// More than any file is given ahead.
const AHEAD_BYTES_MAX: u64 = 64 << 20;

/// A filesystem in memory, of limited size.
pub struct Tmpfs {
    dir: PathBuf,
}

impl Tmpfs {
    /// `dir` is made.
    pub fn mount(dir: &Path, size_bytes: u64) -> Result<Tmpfs> {
        fs::create_dir(dir).with_context(|| format!("make {}", dir.display()))?;
        let options = format!("size={size_bytes},mode=0700");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("ashlar-test"), dir, Some("tmpfs"), flags, Some(options.as_str())).context("mount a tmpfs")?;
        Ok(Tmpfs { dir: dir.to_owned() })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes every page that is free, and first those that files were given ahead of what they will hold.
    pub fn fill(&self) -> Result<()> {
        give_back_what_lies_beyond_the_end(&self.dir)?;
        let mut filler = File::create(self.dir.join(FILLER)).context("make the filler")?;
        let page = [0x66; 4096];
        loop {
            match filler.write_all(&page) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("fill a tmpfs"),
            }
        }
    }

    /// Gives them back.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.dir.join(FILLER)).context("remove the filler")
    }
}

/// RocksDB takes space for its log in large steps, and would not notice for long that there is no more.
fn give_back_what_lies_beyond_the_end(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            give_back_what_lies_beyond_the_end(&path)?;
        } else {
            let length = fs::metadata(&path)?.len().next_multiple_of(4096);
            punch(&path, length, AHEAD_BYTES_MAX)?;
        }
    }
    Ok(())
}

fn punch(file: &Path, offset_bytes: u64, length_bytes: u64) -> Result<()> {
    let opened = File::options().write(true).open(file).with_context(|| format!("open {}", file.display()))?;
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&opened, flags, offset_bytes as i64, length_bytes as i64).context("punch a hole")
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = wait_until("nobody to use the tmpfs", CLOSED_LIMIT, || {
            umount2(&self.dir, MntFlags::empty())?;
            Ok(Some(()))
        });
        taken_away(&self.dir.display().to_string(), unmounted);
    }
}

/// How writes get from the loop device to its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopMode {
    /// Past the page cache: a write that fails, fails at once.
    Direct,
    /// Into the page cache: a write succeeds, and the flush after it fails.
    Buffered,
}

/// A loop device on a file.
pub struct LoopDisk {
    device: PathBuf,
    file: PathBuf,
}

impl AsRef<Path> for LoopDisk {
    fn as_ref(&self) -> &Path {
        &self.device
    }
}

impl LoopDisk {
    /// Makes the file, without any space taken.
    pub fn new(file: &Path, size_bytes: u64, mode: LoopMode) -> Result<LoopDisk> {
        let made = File::create_new(file).with_context(|| format!("make {}", file.display()))?;
        made.set_len(size_bytes).context("give the file its size")?;
        let direct = format!("--direct-io={}", if mode == LoopMode::Direct { "on" } else { "off" });
        let path = file.to_str().context("a path in UTF-8")?;
        let device = run_ok("losetup", ["--find", "--show", &direct, path]).context("this test needs loop devices")?;
        Ok(LoopDisk { device: PathBuf::from(device.trim()), file: file.to_owned() })
    }

    /// The file ends here: reads of what lay beyond fail with EIO, or give zeros once something is written still
    /// further on.
    pub fn cut_off(&self, bytes: u64) -> Result<()> {
        let file = File::options().write(true).open(&self.file).context("open the file of a loop device")?;
        file.set_len(bytes).context("cut off the file of a loop device")
    }

    /// The page cache forgets what it takes for written: what a flush failed to write is seen as it is on the disk.
    pub fn forget_cache(&self) -> Result<()> {
        let file = File::open(&self.file).context("open the file of a loop device")?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).context("empty the page cache of a file")
    }

    /// Gives back the space of everything from here on; it reads as zeros, and a write of it needs space anew.
    pub fn make_sparse_from(&self, offset_bytes: u64) -> Result<()> {
        let length = fs::metadata(&self.file)?.len() - offset_bytes;
        punch(&self.file, offset_bytes, length)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let detached = run_ok("losetup", [Path::new("--detach"), &self.device]).and_then(|_| {
            let name = self.device.file_name().context("name of a loop device")?;
            let backing = Path::new("/sys/block").join(name).join("loop/backing_file");
            let gone = || Ok((fs::read_to_string(&backing).ok() != self.file_line()).then_some(()));
            wait_until("the loop device to be free", CLOSED_LIMIT, gone)
        });
        taken_away(&self.device.display().to_string(), detached);
    }
}

impl LoopDisk {
    /// What sysfs says of a device that is on our file.
    fn file_line(&self) -> Option<String> {
        Some(format!("{}\n", self.file.display()))
    }
}
