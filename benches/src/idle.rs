//! How much processor time a cluster uses while nobody asks it for anything.

use anyhow::{Context, Result};
use ashlar_tests::DevCluster;
use std::{
    fs,
    time::{Duration, Instant},
};

const QUIET_LIMIT: Duration = Duration::from_secs(120);
const QUIET_LOOK: Duration = Duration::from_millis(500);
const QUIET_PERCENT: f64 = 5.0;

/// Share of one core that all daemons together use, in percent, over `duration`.
pub(crate) fn percent_of_a_core(cluster: &DevCluster, duration: Duration) -> Result<f64> {
    let pids: Vec<i32> = cluster.daemons()?.into_iter().filter_map(|daemon| daemon.pid).collect();
    let ticks_per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("clock ticks")?;
    let (start, before) = (Instant::now(), ticks(&pids)?);
    while start.elapsed() < duration {
        std::thread::park_timeout(duration - start.elapsed());
    }
    let used = (ticks(&pids)? - before) as f64 / ticks_per_second as f64;
    Ok(100.0 * used / start.elapsed().as_secs_f64())
}

/// Waits until the daemons rest: what they do behind answered writes (applying, checkpoints) would otherwise be charged
/// to the next figure, to the baseline's as well, because all share one disk.
pub(crate) fn wait_until_quiet(cluster: &DevCluster) -> Result<()> {
    ashlar_tests::wait_until("the daemons to rest", QUIET_LIMIT, || {
        Ok((percent_of_a_core(cluster, QUIET_LOOK)? < QUIET_PERCENT).then_some(()))
    })
}

/// User and system time of the processes, from fields 14 and 15 of /proc/PID/stat (proc(5)).
fn ticks(pids: &[i32]) -> Result<u64> {
    let of = |pid: &i32| -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
        let after_name = stat.rsplit_once(')').context("stat has a name in brackets")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    pids.iter().map(of).sum()
}
