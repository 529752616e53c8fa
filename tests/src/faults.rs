//! Disks and links that fail when they are told to: kernel devices below a chunkserver, and a network of a test's own.
//!
//! | fault | made with |
//! | --- | --- |
//! | write EIO, at will | `Zram`: a memory limit that no page fits into |
//! | write ENOSPC, flush EIO | `LoopDisk` on a full `Tmpfs` |
//! | read EIO | `LoopDisk` whose file was cut off |
//! | slow disk | `Throttle`: blkio of control groups, version 1 |
//! | slow link | `in_own_network` and `slow_port`: a token bucket on a port of loopback |
//!
//! What the kernel of a machine lacks is an error that names it. Each value takes away what it made when it is dropped;
//! what cannot be taken away fails the test. The order matters: a chunkserver ends before its device goes.

use anyhow::{Context, Result};
use std::{fs, path::Path};

mod loop_disk;
mod network;
mod throttle;
mod zram;

pub use loop_disk::{LoopDisk, LoopMode, Tmpfs};
pub use network::{fast_ports, in_own_network, slow_port};
pub use throttle::Throttle;
pub use zram::Zram;

/// Writes and flushes that a block device was ever asked for and has answered, in whatever way.
pub fn changes_asked(device: &Path) -> Result<u64> {
    let name = device.file_name().and_then(|name| name.to_str()).context("name of a device")?;
    let stat = fs::read_to_string(Path::new("/sys/block").join(name).join("stat")).context("read a device's stat")?;
    let figures: Vec<u64> = stat.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    // Documentation/block/stat.rst of the kernel: the 5th is writes, the 16th flushes.
    let [writes, flushes] = [4, 15].map(|at| figures.get(at).copied());
    writes.zip(flushes).map(|(writes, flushes)| writes + flushes).context("17 figures in a device's stat")
}

/// Outcome of taking something away in a `drop`.
fn taken_away(what: &str, outcome: Result<()>) {
    match outcome {
        Ok(()) => {}
        // A second panic would end the process before the rest is taken away.
        Err(error) if std::thread::panicking() => eprintln!("{what} stays: {error:#}"),
        Err(error) => panic!("{what} stays: {error:#}"),
    }
}
