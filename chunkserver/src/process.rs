//! The daemon: disks and data port on a reactor, the control API, metrics, heartbeat and signals on a second thread.
//! The reactor is the main thread's, or that of whoever has the chunkserver in its own process.
//!
//! ```text
//!  main thread     reactor ── Host ── engines          everything on the path of an I/O
//!  "index"         RocksDB commits                     once per checkpoint
//!  "control"       tokio: gRPC, metrics, heartbeat     asks the host through HostHandle
//! ```
//! Order of the start: ring → open disks → ports → ready file → loop. Nothing is served before all ports are open.

use crate::Error;
use crate::config::RunConfig;
use crate::control::{ControlPlan, ControlThread};
use crate::descriptors;
use crate::disk::{DiskFailure, OpenDisk};
use crate::serve::{FailedDisk, Host, drive};
use ashlar_reactor::{Reactor, ReactorConfig};
use ashlar_types::DiskId;
use serde::Serialize;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For how long disks that another process has are tried again at the start.
const IN_USE_PATIENCE: Duration = Duration::from_secs(5);
const IN_USE_POLL: Duration = Duration::from_millis(20);

/// What the ready file says.
#[derive(Debug, Serialize)]
struct Ready {
    pid: u32,
    cluster: String,
    node: String,
    data_address: SocketAddr,
    rpc_address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    disks: Vec<ReadyDisk>,
}

#[derive(Debug, Serialize)]
struct ReadyDisk {
    /// Missing when the superblock could not be read.
    id: Option<String>,
    path: PathBuf,
    failure: Option<String>,
}

/// Serves the disks until SIGTERM or SIGINT. An error if not one of them can be used.
pub fn run(config: &RunConfig) -> Result<(), Error> {
    let links_max = descriptors::links_max()?;
    let mut reactor = Reactor::new(ReactorConfig { links_max, ..ReactorConfig::default() })?;
    let Chunkserver { mut host, control } = Chunkserver::start(config, &mut reactor, EndsBy::Signal)?;
    drive(&mut host, &mut reactor)?;
    // The indexes are closed, and the locks of the disks given back, before the process says goodbye.
    drop(host);
    drop(reactor);
    control.end();
    tracing::info!("chunkserver ended");
    Ok(())
}

/// A thread that has panicked leaves an invariant broken that the others rely on. What is durable is safe; the
/// process starts again.
pub fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

/// What ends a chunkserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndsBy {
    /// SIGTERM or SIGINT.
    Signal,
    /// Whoever has it in its process.
    Owner,
}

/// A chunkserver that serves, driven by whoever owns the reactor.
pub struct Chunkserver {
    pub host: Host,
    control: ControlThread,
}

impl Chunkserver {
    /// Opens the disks and the ports. An error if not one disk can be used.
    pub fn start(config: &RunConfig, reactor: &mut Reactor, ends_by: EndsBy) -> Result<Chunkserver, Error> {
        if let Some(path) = &config.ready_file {
            remove_stale(path)?;
        }
        let (disks, failed) = open_disks(config)?;
        let (mut host, handle) = Host::start(config.cluster, config.scrub_period, disks, failed, reactor)?;
        if host.disk_states().all(|(_, _, failure)| failure.is_some()) {
            let reasons: Vec<&str> = host.disk_states().filter_map(|(_, _, failure)| failure).collect();
            return Err(Error::NoDisk(reasons.join("; ")));
        }
        let data_address = host.listen(reactor, config.listen)?;
        let rpc = listen(config.rpc_listen)?;
        let metrics = config.metrics_listen.map(listen).transpose()?;
        let rpc_address = local_address(&rpc)?;
        let metrics_address = metrics.as_ref().map(local_address).transpose()?;
        let ready = Ready::new(config, &host, data_address, rpc_address, metrics_address);
        let plan = ControlPlan { config: config.clone(), ends_by, data_address, rpc_address, rpc, metrics };
        let control = ControlThread::start(plan, handle)?;
        if let Some(path) = &config.ready_file {
            write_ready(path, &ready)?;
        }
        let disks = ready.disks.len();
        tracing::info!(node = %config.node, data = %data_address, rpc = %rpc_address, disks, "chunkserver is up");
        Ok(Chunkserver { host, control })
    }

    /// The host has ended: gives back the indexes and the ports.
    pub fn end(self) {
        drop(self.host);
        self.control.end();
        tracing::info!("chunkserver ended");
    }
}

impl Ready {
    fn new(
        config: &RunConfig,
        host: &Host,
        data_address: SocketAddr,
        rpc_address: SocketAddr,
        metrics_address: Option<SocketAddr>,
    ) -> Ready {
        let disk = |(id, path, failure): (Option<DiskId>, &Path, Option<&str>)| ReadyDisk {
            id: id.map(|id| id.to_string()),
            path: path.to_path_buf(),
            failure: failure.map(str::to_owned),
        };
        Ready {
            pid: std::process::id(),
            cluster: config.cluster.to_string(),
            node: config.node.to_string(),
            data_address,
            rpc_address,
            metrics_address,
            disks: host.disk_states().map(disk).collect(),
        }
    }
}

/// Opens every disk that can be opened; waits for those that a process that was killed still holds. An error only if
/// none can.
fn open_disks(config: &RunConfig) -> Result<(Vec<OpenDisk>, Vec<FailedDisk>), Error> {
    let (mut disks, mut failed, mut first_error) = (Vec::<OpenDisk>::new(), Vec::new(), None);
    let deadline = Instant::now() + IN_USE_PATIENCE;
    let go_on = || {
        std::thread::sleep(IN_USE_POLL);
        Instant::now() < deadline
    };
    for paths in &config.disks {
        match OpenDisk::open_when_free(paths, config.cluster, go_on) {
            Ok(disk) if disks.iter().any(|other| other.superblock.disk == disk.superblock.disk) => {
                let reason = "another disk of this process has the same id: one is a copy of the other".to_owned();
                failed.push(FailedDisk { id: None, path: paths.disk.clone(), reason });
            }
            Ok(disk) => disks.push(disk),
            Err(DiskFailure { id, error }) => {
                failed.push(FailedDisk { id, path: paths.disk.clone(), reason: with_sources(&error) });
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) if disks.is_empty() => Err(error),
        _ => Ok((disks, failed)),
    }
}

/// An error with what caused it, in one line.
fn with_sources(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors repeat their cause.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| Error::Listen { address: address.to_string(), source })
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|source| Error::Listen { address: "a bound port".to_owned(), source })
}

/// A file of an earlier run must not be taken for this one's.
fn remove_stale(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove the old", path)(error)),
        _ => Ok(()),
    }
}

/// Whole or not at all: written beside, then renamed.
fn write_ready(path: &Path, ready: &Ready) -> Result<(), Error> {
    let mut name = path.as_os_str().to_os_string();
    name.push(".new");
    let beside = PathBuf::from(name);
    let text = serde_json::to_string_pretty(ready).expect("plain data becomes JSON");
    let written = std::fs::File::create(&beside).and_then(|mut file| writeln!(file, "{text}"));
    written.and_then(|()| std::fs::rename(&beside, path)).map_err(Error::file("write", path))
}
