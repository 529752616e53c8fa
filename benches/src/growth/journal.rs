//! How long a chunkserver takes to serve again when it died with a full journal, beside reading as many bytes from a
//! file. The chunkserver itself tells how long its disk took from being opened to serving.

use super::{NODE, fresh_memory, raw_read, socket};
use crate::idle;
use crate::job::Job;
use crate::load;
use crate::target::Target;
use anyhow::Result;
use ashlar_reactor::{Reactor, ReactorConfig};
use ashlar_tests::{DevCluster, wait_until};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Duration;

const VOLUME: &str = "journalled";
const VICTIM: &str = "chunkserver-n3";
const VOLUME_BYTES: u64 = 256 << 20;
/// It dies after half of this: enough to fill a journal as far as it is let.
const FILLING: Duration = Duration::from_secs(20);
const FILLING_BYTES: u32 = 16 << 10;
const LIMIT: Duration = Duration::from_secs(120);

/// One death under load.
pub(crate) struct Restart {
    /// What the journal held.
    pub(crate) replayed_bytes: f64,
    /// Until the disk served; and the same with an empty journal.
    pub(crate) seconds: f64,
    pub(crate) empty_seconds: f64,
    /// Bytes a second from a file.
    pub(crate) raw_read: f64,
    /// Until as much memory was touched.
    pub(crate) memory_seconds: f64,
}

pub(crate) fn measure(cluster: &DevCluster, dir: &Path) -> Result<Restart> {
    cluster.cli(&["volume", "create", VOLUME, "--size", &VOLUME_BYTES.to_string(), "--node", NODE])?;
    let mut reactor = Reactor::new(ReactorConfig::default())?;
    let mut target = Target::nbd(&mut reactor, &socket(cluster, VOLUME)?)?;
    idle::wait_until_quiet(cluster)?;
    let empty_seconds = restart(cluster)?;
    let job = Job::write(FILLING_BYTES, 32).lasting(FILLING);
    let mut used = 0.0;
    load::run(&mut reactor, &mut target, &job, VOLUME_BYTES, 1, || {
        used = journal_used(cluster)?;
        cluster.kill(VICTIM, Signal::SIGKILL)
    })?;
    cluster.start(VICTIM)?;
    let seconds = replay_seconds(cluster)?;
    cluster.wait_in_sync(VOLUME, LIMIT)?;
    target.close(&mut reactor);
    drop(reactor);
    super::drop_volume(cluster, VOLUME)?;
    let raw_read = raw_read(dir, (used as u64).next_multiple_of(8 << 20).max(64 << 20))?;
    let memory_seconds = fresh_memory(used as u64);
    Ok(Restart { replayed_bytes: used, seconds, empty_seconds, raw_read, memory_seconds })
}

fn restart(cluster: &DevCluster) -> Result<f64> {
    cluster.kill(VICTIM, Signal::SIGKILL)?;
    cluster.start(VICTIM)?;
    let took = replay_seconds(cluster)?;
    cluster.wait_in_sync(VOLUME, LIMIT)?;
    idle::wait_until_quiet(cluster)?;
    Ok(took)
}

/// How long its only disk took from being opened to serving, once it serves.
fn replay_seconds(cluster: &DevCluster) -> Result<f64> {
    wait_until("the disk to serve", LIMIT, || {
        let serves = of_victim(cluster, "disk_serving")? > 0.0;
        Ok(if serves { Some(of_victim(cluster, "replay_milliseconds")? / 1e3) } else { None })
    })
}

fn journal_used(cluster: &DevCluster) -> Result<f64> {
    of_victim(cluster, "journal_used")
}

/// A figure of its disks, added up.
fn of_victim(cluster: &DevCluster, metric: &str) -> Result<f64> {
    let text = cluster.metrics(VICTIM)?;
    let is_it = |line: &&str| line.contains(metric) && !line.starts_with('#');
    let values = text.lines().filter(is_it).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(values.sum())
}
