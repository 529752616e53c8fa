//! Memory of a chunkserver by what it stores: resident memory after a restart, at two amounts.

use super::{MIB, NODE, socket};
use crate::idle;
use crate::job::{Job, Pattern};
use crate::load;
use crate::target::Target;
use anyhow::{Context, Result};
use ashlar_reactor::{Reactor, ReactorConfig};
use ashlar_tests::DevCluster;
use nix::sys::signal::Signal;

const VOLUME: &str = "stored";
const CHUNKSERVER: &str = "chunkserver-n3";

/// (MiB stored, MiB resident) at each amount.
pub(crate) fn measure(cluster: &DevCluster, stored_mib: [u64; 2]) -> Result<Vec<(f64, f64)>> {
    let [_, most] = stored_mib;
    cluster.cli(&["volume", "create", VOLUME, "--size", &(most * MIB).to_string(), "--node", NODE])?;
    let mut found = vec![];
    for mib in stored_mib {
        eprintln!("memory with {mib} MiB stored");
        let mut reactor = Reactor::new(ReactorConfig::default())?;
        let mut target = Target::nbd(&mut reactor, &socket(cluster, VOLUME)?)?;
        let fill = Job::write(MIB as u32, 8).pattern(Pattern::Sequential);
        load::run(&mut reactor, &mut target, &fill, mib * MIB, 1, || Ok(()))?;
        target.close(&mut reactor);
        drop(reactor);
        idle::wait_until_quiet(cluster)?;
        cluster.detach(VOLUME)?;
        cluster.kill(CHUNKSERVER, Signal::SIGTERM)?;
        ashlar_tests::wait_until("the chunkserver to end", std::time::Duration::from_secs(60), || {
            Ok(cluster.daemon(CHUNKSERVER)?.pid.is_none().then_some(()))
        })?;
        cluster.start(CHUNKSERVER)?;
        // What is stored is looked at once, so that no table is left on the disk.
        let mut reactor = Reactor::new(ReactorConfig::default())?;
        let mut target = Target::nbd(&mut reactor, &socket(cluster, VOLUME)?)?;
        load::run(&mut reactor, &mut target, &fill.mixed(100), mib * MIB, 1, || Ok(()))?;
        target.close(&mut reactor);
        drop(reactor);
        idle::wait_until_quiet(cluster)?;
        cluster.detach(VOLUME)?;
        found.push((mib as f64, resident_mib(cluster)?));
    }
    Ok(found)
}

fn resident_mib(cluster: &DevCluster) -> Result<f64> {
    let pid = cluster.daemon(CHUNKSERVER)?.pid.context("the chunkserver runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
