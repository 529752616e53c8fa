//! How long a chunkserver takes to serve again when it died with a full journal, beside reading as many bytes from a
//! file. The whole start is taken for the replay: what an empty start takes varies by more than a short replay takes.

use super::{NODE, raw_read, socket};
use crate::idle;
use crate::job::Job;
use crate::load;
use crate::target::Target;
use anyhow::Result;
use ashlar_reactor::{Reactor, ReactorConfig};
use ashlar_tests::DevCluster;
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

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
    /// Its whole start; and one with an empty journal.
    pub(crate) seconds: f64,
    pub(crate) empty_seconds: f64,
    /// Bytes a second from a file.
    pub(crate) raw_read: f64,
}

pub(crate) fn measure(cluster: &DevCluster, dir: &Path) -> Result<Restart> {
    cluster.cli(&["volume", "create", VOLUME, "--size", &VOLUME_BYTES.to_string(), "--node", NODE])?;
    let mut reactor = Reactor::new(ReactorConfig::default())?;
    let mut target = Target::nbd(&mut reactor, &socket(cluster, VOLUME)?)?;
    idle::wait_until_quiet(cluster)?;
    let empty = restart(cluster)?;
    let job = Job::write(FILLING_BYTES, 32).lasting(FILLING);
    let mut used = 0.0;
    load::run(&mut reactor, &mut target, &job, VOLUME_BYTES, 1, || {
        used = journal_used(cluster)?;
        cluster.kill(VICTIM, Signal::SIGKILL)
    })?;
    let began = Instant::now();
    cluster.start(VICTIM)?;
    let full = began.elapsed();
    cluster.wait_in_sync(VOLUME, LIMIT)?;
    target.close(&mut reactor);
    drop(reactor);
    super::drop_volume(cluster, VOLUME)?;
    let raw_read = raw_read(dir, (used as u64).next_multiple_of(8 << 20).max(64 << 20))?;
    let (seconds, empty_seconds) = (full.as_secs_f64(), empty.as_secs_f64());
    Ok(Restart { replayed_bytes: used, seconds, empty_seconds, raw_read })
}

fn restart(cluster: &DevCluster) -> Result<Duration> {
    cluster.kill(VICTIM, Signal::SIGKILL)?;
    let began = Instant::now();
    cluster.start(VICTIM)?;
    let took = began.elapsed();
    cluster.wait_in_sync(VOLUME, LIMIT)?;
    idle::wait_until_quiet(cluster)?;
    Ok(took)
}

fn journal_used(cluster: &DevCluster) -> Result<f64> {
    let text = cluster.metrics(VICTIM)?;
    let is_it = |line: &&str| line.contains("journal_used") && !line.starts_with('#');
    let values = text.lines().filter(is_it).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(values.sum())
}
