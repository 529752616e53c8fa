//! The whole device below a disk: below its file the filesystem's device, below a partition the disk that it is of,
//! below a loop device its file, below a mapped device its only part. From sysfs.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Devices on devices.
const LAYERS_MAX: u32 = 8;

/// Its node in /dev, or why there is none to be asked.
pub(super) fn below(disk: &Path) -> Result<PathBuf, String> {
    below_path(Path::new("/sys"), disk, LAYERS_MAX)
}

pub(super) fn below_path(sys: &Path, path: &Path, layers: u32) -> Result<PathBuf, String> {
    let metadata = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let number = if metadata.file_type().is_block_device() { metadata.rdev() } else { metadata.dev() };
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let link = sys.join("dev/block").join(format!("{major}:{minor}"));
    match fs::canonicalize(&link) {
        Ok(folder) => below_device(sys, &folder, layers),
        Err(_) => Err("it lies on a filesystem without a block device of its own".to_owned()),
    }
}

/// `folder`: of a block device in sysfs.
pub(super) fn below_device(sys: &Path, folder: &Path, layers: u32) -> Result<PathBuf, String> {
    let Some(name) = folder.file_name() else { return Err("sysfs names no device".to_owned()) };
    if layers == 0 {
        return Err(format!("there are too many devices below {}", name.display()));
    }
    if folder.join("partition").exists() {
        let whole = folder.parent().ok_or_else(|| format!("partition {} is of no device", name.display()))?;
        return below_device(sys, whole, layers - 1);
    }
    if let Ok(file) = fs::read_to_string(folder.join("loop/backing_file")) {
        return below_path(sys, Path::new(file.trim_end_matches('\n')), layers - 1);
    }
    let parts = fs::read_dir(folder.join("slaves")).map(|parts| parts.flatten().collect()).unwrap_or(vec![]);
    match parts.as_slice() {
        [] => Ok(Path::new("/dev").join(name)),
        [part] => {
            let part = fs::canonicalize(part.path()).map_err(|error| format!("{}: {error}", part.path().display()))?;
            below_device(sys, &part, layers - 1)
        }
        parts => Err(format!("{} consists of {} devices", name.display(), parts.len())),
    }
}

#[cfg(test)]
mod tests;
