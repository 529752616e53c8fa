//! `dev down`: unmounts, detaches and stops everything, in the order in which nothing has to wait for something that
//! is gone.

use super::daemon::{self, Daemon, Kind};
use super::layout::Layout;
use super::leftovers;
use super::process;
use crate::args::DevDown;
use crate::progress::Progress;
use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// After this long without an end, a daemon is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn down(dir: &Path, how: DevDown) -> anyhow::Result<()> {
    let layout = Layout::open(dir)?;
    let _lock = Layout::lock(dir)?;
    down_locked(&layout, &how).await
}

/// For who holds the lock.
pub async fn down_locked(layout: &Layout, how: &DevDown) -> anyhow::Result<()> {
    let progress = Progress::spinner("stopping");
    // Nobody mounts anything from here on.
    stop_kind(layout, Kind::Node, Signal::SIGTERM).await?;
    progress.say("unmounting");
    if how.force {
        // What waits for a volume gets an error and ends.
        stop_kind(layout, Kind::Datapath, Signal::SIGKILL).await?;
    }
    for mount in leftovers::find(&layout.dir)?.mounts {
        if how.force { leftovers::unmount_lazily(&mount)? } else { leftovers::unmount(&mount).await? }
    }
    progress.say("detaching volumes");
    stop_kind(layout, Kind::Datapath, Signal::SIGTERM).await?;
    remove_leftovers(layout).await?;
    progress.say("stopping chunkservers");
    stop_kind(layout, Kind::Chunkserver, Signal::SIGTERM).await?;
    stop_kind(layout, Kind::Control, Signal::SIGTERM).await?;
    if how.purge { purge(layout) } else { Ok(()) }
}

async fn stop_kind(layout: &Layout, kind: Kind, signal: Signal) -> anyhow::Result<()> {
    let names: Vec<String> =
        daemon::all(layout).iter().filter(|daemon| daemon.kind == kind).map(Daemon::name).collect();
    stop(layout, &names, signal).await
}

async fn stop(layout: &Layout, names: &[String], signal: Signal) -> anyhow::Result<()> {
    send(layout, names, signal)?;
    // One that was stopped (SIGSTOP) hears SIGTERM only after this.
    send(layout, names, Signal::SIGCONT)?;
    let left = process::wait_gone(layout, names, STOP_TIMEOUT).await?;
    if left.is_empty() {
        return Ok(());
    }
    eprintln!("ashlar: {} did not stop in {} s and is killed", left.join(", "), STOP_TIMEOUT.as_secs());
    send(layout, &left, Signal::SIGKILL)?;
    let left = process::wait_gone(layout, &left, KILL_TIMEOUT).await?;
    if left.is_empty() { Ok(()) } else { bail!("{} cannot be killed", left.join(", ")) }
}

fn send(layout: &Layout, names: &[String], signal: Signal) -> anyhow::Result<()> {
    let running = process::running(layout)?;
    for (name, pid) in running.iter().filter(|(name, _)| names.contains(name)) {
        process::signal(name, *pid, signal)?;
    }
    Ok(())
}

/// What datapaths that were killed left in the kernel.
async fn remove_leftovers(layout: &Layout) -> anyhow::Result<()> {
    let leftovers = leftovers::find(&layout.dir)?;
    for found in &leftovers.loops {
        leftovers::detach_loop(found).await?;
    }
    for mount in leftovers.mounts.iter().chain(&leftovers.fuse_mounts) {
        leftovers::unmount_lazily(mount)?;
    }
    Ok(())
}

fn purge(layout: &Layout) -> anyhow::Result<()> {
    if let Some(point) = leftovers::mounted_below(&layout.dir)? {
        bail!("{} is still mounted; nothing was deleted", point.display());
    }
    fs::remove_dir_all(&layout.dir).with_context(|| format!("delete {}", layout.dir.display()))
}

/// `dev kill NAME`.
pub async fn kill(dir: &Path, name: &str, signal: &str) -> anyhow::Result<()> {
    let layout = Layout::open(dir)?;
    let upper = signal.to_ascii_uppercase();
    let long = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let signal: Signal = long.parse().ok().with_context(|| format!("{signal:?} is not a signal"))?;
    let running = process::running(&layout)?;
    let names: Vec<String> = match name {
        "all" => running.keys().cloned().collect(),
        name => {
            daemon::by_name(&layout, name)?;
            running.keys().filter(|running| *running == name).cloned().collect()
        }
    };
    if names.is_empty() {
        bail!("{name} does not run");
    }
    send(&layout, &names, signal)?;
    if signal == Signal::SIGKILL {
        let left = process::wait_gone(&layout, &names, KILL_TIMEOUT).await?;
        anyhow::ensure!(left.is_empty(), "{} cannot be killed", left.join(", "));
    }
    Ok(())
}
