//! How much processor time a cluster uses while nobody asks it for anything.

use crate::costs::ticks;
use anyhow::{Context, Result};
use ashlar_tests::DevCluster;
use std::{
    fs,
    time::{Duration, Instant},
};

const QUIET_LIMIT: Duration = Duration::from_secs(120);
const QUIET_LOOK: Duration = Duration::from_millis(500);
const QUIET_PERCENT: f64 = 5.0;
const SETTLED_PERCENT: f64 = 15.0;

/// Share of one core that all daemons together use, in percent, over `duration`.
pub(crate) fn percent_of_a_core(cluster: &DevCluster, duration: Duration) -> Result<f64> {
    percent_of(&pids(cluster)?, duration)
}

pub(crate) fn pids(cluster: &DevCluster) -> Result<Vec<i32>> {
    Ok(cluster.daemons()?.into_iter().filter_map(|daemon| daemon.pid).collect())
}

fn percent_of(pids: &[i32], duration: Duration) -> Result<f64> {
    let ticks_per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("clock ticks")?;
    let (start, before) = (Instant::now(), sum_of(pids)?);
    while start.elapsed() < duration {
        std::thread::park_timeout(duration.saturating_sub(start.elapsed()));
    }
    let used = (sum_of(pids)? - before) as f64 / ticks_per_second as f64;
    Ok(100.0 * used / start.elapsed().as_secs_f64())
}

/// Waits until the daemons rest: what they do behind answered writes (applying, checkpoints) would otherwise be charged
/// to the next figure, to the baseline's as well, because all share one disk.
pub(crate) fn wait_until_quiet(cluster: &DevCluster) -> Result<()> {
    wait_until_resting(&pids(cluster)?)
}

/// The same of any processes.
pub(crate) fn wait_until_resting(pids: &[i32]) -> Result<()> {
    ashlar_tests::wait_until("the daemons to rest", QUIET_LIMIT, || {
        Ok((percent_of(pids, QUIET_LOOK)? < QUIET_PERCENT).then_some(()))
    })
}

/// The same of daemons that are never wholly at rest: at most `limit`, and until they do little.
pub(crate) fn settle(pids: &[i32], limit: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < limit && percent_of(pids, QUIET_LOOK)? > SETTLED_PERCENT {}
    Ok(())
}

fn sum_of(pids: &[i32]) -> Result<u64> {
    let of = |pid: &i32| -> Result<u64> {
        ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?)
    };
    pids.iter().map(of).sum()
}
