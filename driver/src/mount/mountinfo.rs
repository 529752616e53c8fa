//! The table of mounts, as `/proc/self/mountinfo` gives it (proc(5)):
//!
//! ```text
//! 36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//! id up dev  root  point       options    optional*  - type source    options of the superblock
//! ```

use super::device::DeviceNumber;
use super::error::MountError;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    pub device: DeviceNumber,
    /// Which part of the filesystem is mounted; `/` for the whole.
    pub root: PathBuf,
    pub point: PathBuf,
    /// Options of this mount, for example `rw,nosuid`.
    pub options: String,
    pub fs_type: String,
    pub source: String,
}

impl Mount {
    pub fn is_read_only(&self) -> bool {
        self.options.split(',').any(|option| option == "ro")
    }
}

/// In the order of mounting.
#[derive(Clone, Debug, Default)]
pub struct MountTable(Vec<Mount>);

impl MountTable {
    pub fn read() -> Result<MountTable, MountError> {
        let bytes = std::fs::read("/proc/self/mountinfo").map_err(MountError::io("read the table of mounts"))?;
        MountTable::parse(&bytes)
    }

    /// A line that is not understood is an error: a table with a hole would let us mount twice.
    pub fn parse(bytes: &[u8]) -> Result<MountTable, MountError> {
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let parse = |line: &[u8]| {
            parse_line(line).ok_or_else(|| MountError::Io {
                what: "read the table of mounts".to_owned(),
                source: std::io::Error::other(format!("line {:?} is not understood", String::from_utf8_lossy(line))),
            })
        };
        lines.map(parse).collect::<Result<_, _>>().map(MountTable)
    }

    /// What one sees at this path, which must be free of symlinks: the latest of the mounts there.
    pub fn top_at(&self, point: &Path) -> Option<&Mount> {
        self.0.iter().rev().find(|mount| mount.point == point)
    }

    pub fn of_device(&self, device: DeviceNumber) -> impl Iterator<Item = &Mount> {
        self.0.iter().filter(move |mount| mount.device == device)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Mount> {
        self.0.iter()
    }
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    // Between the options and the dash is any number of optional fields; there are at least six fields before it.
    let dash = 6 + fields.get(6..)?.iter().position(|field| *field == b"-")?;
    Some(Mount {
        id: text(fields.first()?)?.parse().ok()?,
        device: parse_device(fields.get(2)?)?,
        root: path(fields.get(3)?),
        point: path(fields.get(4)?),
        options: text(fields.get(5)?)?,
        fs_type: text(fields.get(dash + 1)?)?,
        source: String::from_utf8_lossy(&unescape(fields.get(dash + 2)?)).into_owned(),
    })
}

fn parse_device(field: &[u8]) -> Option<DeviceNumber> {
    let text = text(field)?;
    let (major, minor) = text.split_once(':')?;
    Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

fn text(field: &[u8]) -> Option<String> {
    String::from_utf8(field.to_vec()).ok()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'\\').then(|| tail.get(..3).and_then(octal)).flatten();
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
