//! Flags, environment and file, parsed once into a validated configuration. Nothing is opened here but the
//! configuration file.
//!
//! A flag wins over its environment variable, both win over the file. Every value of the file has the name of
//! its flag.

mod arguments;

use crate::Error;
use ashlar_types::{ByteCount, ClusterId, NodeName, VolumeId, ZoneName};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use arguments::{Arguments, LogFormat};

/// Disks of one process.
pub const DISKS_MAX: usize = 64;
/// Links of one process.
pub const LINKS_MAX: usize = 1024;
/// A link that has sent nothing for so long is closed.
pub const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// What the program was asked to do.
#[derive(Clone, Debug)]
pub enum Command {
    Run(RunConfig),
    Format(FormatConfig),
    Inspect(InspectConfig),
}

#[derive(Clone, Debug)]
pub struct RunConfig {
    pub cluster: ClusterId,
    pub node: NodeName,
    pub zone: Option<ZoneName>,
    /// At least one, at most `DISKS_MAX`, no path twice.
    pub disks: Vec<DiskPaths>,
    pub listen: SocketAddr,
    pub rpc_listen: SocketAddr,
    /// `None`: no metrics are served.
    pub metrics_listen: Option<SocketAddr>,
    /// The control plane, `http://ADDRESS`; `None`: no heartbeats.
    pub control: Option<String>,
    /// Every block is compared with its checksum once in this time; `None`: never.
    pub scrub_period: Option<Duration>,
    /// The program that is asked what a disk's device says of its own health.
    pub smartctl: PathBuf,
    pub ready_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct FormatConfig {
    pub cluster: ClusterId,
    pub node: Option<NodeName>,
    pub disk: DiskPaths,
    /// `None`: as large as the file or device is.
    pub size: Option<ByteCount>,
    /// `None`: what suits the size.
    pub journal: Option<ByteCount>,
    pub json: bool,
}

#[derive(Clone, Debug)]
pub struct InspectConfig {
    pub disk: DiskPaths,
    pub volume: Option<VolumeId>,
    pub digest: bool,
    pub json: bool,
}

/// Where a disk is, and where its index is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPaths {
    pub disk: PathBuf,
    /// Directory that holds the index; `None`: `DISK.index`, for file disks only.
    pub index_parent: Option<PathBuf>,
}

impl DiskPaths {
    /// The directory of the index: `DISK.index` beside a file, `INDEX/NAME-OF-THE-DISK.index` with `--index INDEX`.
    pub fn index(&self) -> PathBuf {
        let mut name = self.disk.file_name().unwrap_or_default().to_os_string();
        name.push(".index");
        match &self.index_parent {
            Some(parent) => parent.join(name),
            None => self.disk.with_file_name(name),
        }
    }
}

/// The rule of ports that are not authenticated.
fn check_address(what: &'static str, address: SocketAddr, allow_any: bool) -> Result<SocketAddr, Error> {
    if address.ip().is_loopback() || allow_any {
        Ok(address)
    } else {
        Err(Error::NotLoopback { what, address: address.to_string() })
    }
}

fn any_loopback_port() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// A size for people: bytes, or a number with K, M, G or T (powers of 1024; `Ki` and `KiB` mean the same).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub ByteCount);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        let shift = match unit.trim_end_matches('B').trim_end_matches('i') {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(format!("{unit:?} is no unit; use K, M, G or T")),
        };
        let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a size"))?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))?;
        Ok(Size(ByteCount(bytes)))
    }
}

/// A path as it is given, but absolute: what is reported to others must not depend on a working directory.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::file("make absolute the path", path))
}

#[cfg(test)]
mod tests;
