//! `dev up` and `dev start`: makes the disks, starts what does not run, waits until it serves.

use super::daemon::{self, CHUNKSERVER, Daemon, Kind, PROGRAMS, format_arguments, program_path};
use super::layout::{Layout, NodePorts, Wish};
use super::process;
use super::ready::{self, Started};
use super::{down, status};
use crate::args::{DevDown, DevUp};
use crate::progress::Progress;
use crate::size::format_size;
use anyhow::{Context, bail, ensure};
use ashlar_types::ByteCount;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

pub async fn up(dir: &Path, wish: DevUp) -> anyhow::Result<()> {
    for program in PROGRAMS {
        program_path(program)?;
    }
    Layout::refuse_foreign(dir)?;
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let lock = Layout::lock(dir)?;
    let shape = Wish {
        nodes: wish.nodes,
        disk_size: wish.disk_size,
        journal_size: wish.journal_size,
        rebuild_grace_ms: wish.rebuild_grace_ms,
        control_options: &wish.control_options,
        zones: &wish.zones,
        scrub_period: wish.scrub_period.as_deref(),
        one_process: wish.one_process,
        disks: &wish.disks,
    };
    let layout = Layout::open_or_create(dir, shape)?;
    let mut interrupts = Interrupts::listen()?;
    let work = async {
        format_disks(&layout).await?;
        start_all(&layout, Instant::now() + wish.timeout).await
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = interrupts.next() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(error) = outcome {
        // What cannot become a cluster is not left running half.
        let stopped = down::down_locked(&layout, &DevDown { purge: false, force: false }).await;
        return Err(match stopped {
            Ok(()) => error,
            Err(stop_error) => error.context(format!("stopping it again failed too ({stop_error:#})")),
        });
    }
    drop(lock);
    status::print_summary(&layout);
    if wish.detach {
        return Ok(());
    }
    eprintln!("The cluster runs. Ctrl-C stops it.");
    interrupts.next().await;
    eprintln!("stopping");
    down::down(dir, DevDown { purge: false, force: false }).await
}

/// `dev start NAME`.
pub async fn start_one(dir: &Path, name: &str) -> anyhow::Result<()> {
    let layout = Layout::open(dir)?;
    let _lock = Layout::lock(dir)?;
    let daemon = daemon::by_name(&layout, name)?;
    let running = process::running(&layout)?;
    if let Some(pid) = running.get(name) {
        bail!("{name} runs already (pid {pid})");
    }
    let progress = Progress::spinner(format!("starting {name}"));
    let deadline = Instant::now() + std::time::Duration::from_secs(120);
    let started = [start(&layout, &daemon)?];
    ready::listening(&layout, &started[0], deadline).await?;
    progress.say(format!("waiting for {name}"));
    // Without a control plane there is nobody to report to.
    if running.contains_key(Kind::Control.name()) {
        ready::reported(&layout, &[daemon], &started, deadline).await?;
    }
    match daemon.csi_socket(&layout) {
        Some(socket) => ready::csi_ready(&socket, deadline).await,
        None => Ok(()),
    }
}

fn start(layout: &Layout, daemon: &Daemon<'_>) -> anyhow::Result<Started> {
    let since_ms = ready::now_ms();
    Ok(Started { pid: process::start(layout, daemon)?, name: daemon.name(), since_ms })
}

/// Starts what does not run, kind by kind: each kind finds the ones below it.
async fn start_all(layout: &Layout, deadline: Instant) -> anyhow::Result<()> {
    let progress = Progress::spinner("starting");
    let daemons = daemon::all(layout);
    let running = process::running(layout)?;
    let mut started = Vec::new();
    for kind in Kind::START_ORDER {
        progress.say(format!("starting {}", kind.name()));
        let first = started.len();
        for daemon in daemons.iter().filter(|daemon| daemon.kind == kind && !running.contains_key(&daemon.name())) {
            started.push(start(layout, daemon)?);
        }
        for one in &started[first..] {
            ready::listening(layout, one, deadline).await?;
        }
    }
    progress.say("waiting for heartbeats");
    ready::reported(layout, &daemons, &started, deadline).await?;
    for socket in daemons.iter().filter_map(|daemon| daemon.csi_socket(layout)) {
        ready::csi_ready(&socket, deadline).await?;
    }
    Ok(())
}

/// Makes the disks that are missing, all at once.
async fn format_disks(layout: &Layout) -> anyhow::Result<()> {
    let missing: Vec<&NodePorts> = layout.file.nodes.iter().filter(|node| !layout.is_formatted(node)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    check_space(layout, missing.iter().filter(|node| node.disk.is_none()).count())?;
    let size = format_size(ByteCount(layout.file.disk_size_bytes));
    let _progress = Progress::spinner(format!("writing {} disks of {size}", missing.len()));
    let mut formats = JoinSet::new();
    for node in missing {
        let program = program_path(CHUNKSERVER)?;
        let (disk, unfinished) = (layout.disk(node), layout.unfinished_disk(node));
        if node.disk.is_some() {
            let arguments = format_arguments(layout, node, &disk);
            formats.spawn(format_given(program, arguments, disk, layout.formatted_mark(node)));
        } else {
            let arguments = format_arguments(layout, node, &unfinished);
            formats.spawn(format_disk(program, arguments, unfinished, disk));
        }
    }
    while let Some(done) = formats.join_next().await {
        done.context("wait for a disk to be formatted")??;
    }
    Ok(())
}

/// A disk file is written in full, so the space is needed now.
fn check_space(layout: &Layout, disks: usize) -> anyhow::Result<()> {
    let stat = nix::sys::statvfs::statvfs(&layout.dir).context("look for free space")?;
    let free = ByteCount(stat.blocks_available() as u64 * stat.fragment_size() as u64);
    let needed = ByteCount(layout.file.disk_size_bytes.saturating_mul(disks as u64));
    ensure!(
        needed < free,
        "{disks} disks need {} in {}, and {} are free: use a smaller --disk-size",
        format_size(needed),
        layout.dir.display(),
        format_size(free)
    );
    Ok(())
}

/// In a directory of its own that is renamed when the disk is whole: what an interrupted run left is begun anew.
async fn format_disk(
    program: PathBuf,
    arguments: Vec<OsString>,
    unfinished: PathBuf,
    disk: PathBuf,
) -> anyhow::Result<()> {
    let (Some(from), Some(to)) = (unfinished.parent(), disk.parent()) else { bail!("a disk lies in a directory") };
    if from.exists() {
        fs::remove_dir_all(from).with_context(|| format!("remove the unfinished {}", from.display()))?;
    }
    fs::create_dir_all(from).with_context(|| format!("make {}", from.display()))?;
    run_format(&program, arguments, &unfinished).await?;
    fs::rename(from, to).with_context(|| format!("rename {} to {}", from.display(), to.display()))
}

/// A disk that is not ours, where it is. What an interrupted run left on it is for its owner to clear away: the
/// formatting says what is in its way.
async fn format_given(program: PathBuf, arguments: Vec<OsString>, disk: PathBuf, mark: PathBuf) -> anyhow::Result<()> {
    run_format(&program, arguments, &disk).await?;
    fs::write(&mark, []).with_context(|| format!("write {}", mark.display()))
}

async fn run_format(program: &Path, arguments: Vec<OsString>, disk: &Path) -> anyhow::Result<()> {
    let mut command = std::process::Command::new(program);
    process::clean_environment(command.args(arguments).stdin(Stdio::null()));
    let output = tokio::process::Command::from(command).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("run {}", program.display()))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("formatting {} failed ({}): {reason}", disk.display(), output.status);
    }
    Ok(())
}

/// Ctrl-C and SIGTERM.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn listen() -> anyhow::Result<Interrupts> {
        Ok(Interrupts { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
