//! Reads a device where a filesystem, a partition table, a RAID member or an encrypted volume would show: its first
//! and its last MiB. What is found can forbid formatting and never allows it.

use super::error::MountError;
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub const AREA_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    Zeros,
    /// The first byte that is not zero.
    Data {
        at_bytes: u64,
    },
    Unreadable(String),
}

/// The device must not be in use: it is opened exclusively.
pub fn probe(device: &Path) -> Probe {
    match open(device, false).and_then(|mut file| first_nonzero(&mut file)) {
        Ok(None) => Probe::Zeros,
        Ok(Some(at_bytes)) => Probe::Data { at_bytes },
        Err(error) => Probe::Unreadable(error.to_string()),
    }
}

/// Zeroes both areas, durably.
pub fn wipe(device: &Path) -> Result<(), MountError> {
    let wipe = || {
        let mut file = open(device, true)?;
        for (start, length) in areas(&mut file)? {
            file.seek(SeekFrom::Start(start))?;
            file.write_all(&vec![0; length])?;
        }
        file.sync_all()
    };
    wipe().map_err(MountError::io(format!("wipe {}", device.display())))
}

/// Reads the first block past the cache.
pub fn read_first_block(device: &Path) -> io::Result<()> {
    // Without O_DIRECT the page cache of a mounted filesystem would answer for a device that is gone. With it the
    // buffer must be aligned, which a page-sized part of a larger buffer can always be made to be.
    let mut file = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(device)?;
    let mut buffer = vec![0u8; 2 * 4096];
    let start = buffer.as_ptr().align_offset(4096);
    file.read_exact(&mut buffer[start..start + 4096])
}

/// `O_EXCL` on a block device fails while it is mounted or claimed by somebody else.
fn open(device: &Path, write: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(write).custom_flags(OFlag::O_EXCL.bits()).open(device)
}

/// Start and length of the first and the last MiB; they may overlap.
fn areas(file: &mut File) -> io::Result<[(u64, usize); 2]> {
    let size = file.seek(SeekFrom::End(0))?;
    if size == 0 {
        return Err(io::Error::other("the device has no size"));
    }
    let length = size.min(AREA_BYTES);
    Ok([(0, length as usize), (size - length, length as usize)])
}

fn first_nonzero(file: &mut File) -> io::Result<Option<u64>> {
    for (start, length) in areas(file)? {
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
            return Ok(Some(start + at as u64));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const SIZE: u64 = 8 << 20;

    fn device(at_bytes: Option<u64>) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        if let Some(at) = at_bytes {
            file.as_file().write_all_at(&[1], at).unwrap();
        }
        file
    }

    #[test]
    fn one_byte_in_either_area_is_found() {
        assert_eq!(probe(device(None).path()), Probe::Zeros);
        for at_bytes in [0, 1080, AREA_BYTES - 1, SIZE - AREA_BYTES, SIZE - 1] {
            assert_eq!(probe(device(Some(at_bytes)).path()), Probe::Data { at_bytes });
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_blank() {
        let directory = tempfile::tempdir().unwrap();
        let empty = tempfile::NamedTempFile::new().unwrap();
        for path in [directory.path(), &directory.path().join("absent"), empty.path()] {
            assert!(matches!(probe(path), Probe::Unreadable(_)), "{}", path.display());
        }
    }

    #[test]
    fn a_wiped_device_probes_as_zeros_and_keeps_the_rest() {
        let file = device(Some(0));
        file.as_file().write_all_at(&[7], SIZE / 2).unwrap();
        file.as_file().write_all_at(&[1], SIZE - 1).unwrap();
        wipe(file.path()).unwrap();
        assert_eq!(probe(file.path()), Probe::Zeros);
        let mut byte = [0];
        file.as_file().read_exact_at(&mut byte, SIZE / 2).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn a_device_smaller_than_both_areas_is_read_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        assert_eq!(probe(file.path()), Probe::Zeros);
        file.as_file().write_all_at(&[1], 4095).unwrap();
        assert_eq!(probe(file.path()), Probe::Data { at_bytes: 4095 });
    }
}
