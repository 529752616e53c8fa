//! The corpora in the repository: `corpus/<target>/<checksum>`. Small, so that a clone stays small:
//! files <= `FILES_MAX`, bytes <= `BYTES_MAX`, per target.

use ashlar_types::Crc32;
use std::path::{Path, PathBuf};
use std::{fs, io};

pub const FILES_MAX: usize = 140;
pub const BYTES_MAX: usize = 200 << 10;

pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Every input of the target, in the order of their names. None for a target without a corpus.
pub fn inputs(target: &str) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    read(&folder(target))
}

/// The files of a folder, in the order of their names.
pub(crate) fn read(folder: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut paths = match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
        Err(error) => return Err(error),
    };
    paths.sort();
    paths.into_iter().map(|path| fs::read(&path).map(|bytes| (path, bytes))).collect()
}

/// Adds inputs that are not there yet; says how many.
pub fn add(target: &str, inputs: &[Vec<u8>]) -> io::Result<usize> {
    let folder = folder(target);
    fs::create_dir_all(&folder)?;
    let mut added = 0;
    for input in inputs {
        let path = folder.join(format!("{:08x}-{}", Crc32::of(input).0, input.len()));
        if !path.exists() {
            fs::write(path, input)?;
            added += 1;
        }
    }
    Ok(added)
}
