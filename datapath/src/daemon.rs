//! The running process: brings the parts up in order, waits for a signal, brings them down in order.

use crate::attachments::Attachments;
use crate::companion::MakeCompanion;
use crate::config::Config;
use crate::control::{ControlPlane, EventLog, heartbeat, serve_asks};
use crate::descriptors;
use crate::frontend::{leftovers, reclaim};
use crate::metrics::Metrics;
use crate::rpc::DatapathService;
use crate::run_dir::RunDir;
use crate::runtime::{self, ASKS_MAX, Command};
use anyhow::Context;
use ashlar_rpc::control::datapath_server::DatapathServer;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing_subscriber::EnvFilter;

/// What the state file says once the daemon is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub pid: u32,
    pub node: String,
    pub rpc_address: SocketAddr,
    pub metrics_address: SocketAddr,
    pub run_dir: String,
}

/// Runs until SIGTERM or SIGINT; no other thread may run yet. An error means that the daemon did not come up, or that
/// a part of it failed. The companion, if there is one, ends last.
pub async fn run(config: Config, companion: Option<MakeCompanion>) -> anyhow::Result<()> {
    if let Err(error) = reclaim::mark_as_io_flusher() {
        tracing::info!(%error, "memory pressure may stall the node: CAP_SYS_RESOURCE is missing");
    }
    descriptors::allow().context("allow more open files")?;
    let run_dir = RunDir::open(&config.run_dir)?;
    let config = Arc::new(Config { run_dir: run_dir.path().to_owned(), ..config });
    leftovers::clean(run_dir.path()).context("clean up what a predecessor left behind")?;
    run_dir.prepare()?;
    // Taken before anything is served, so that an early signal is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let rpc = TcpListener::bind(config.rpc_listen).await.context("listen for gRPC")?;
    let metrics_listener = TcpListener::bind(config.metrics_listen).await.context("listen for metrics")?;
    let (rpc_address, metrics_address) = (rpc.local_addr()?, metrics_listener.local_addr()?);

    let metrics = Metrics::new();
    let (asks_in, asks) = mpsc::channel(ASKS_MAX);
    let spawned = runtime::spawn(&config, metrics.clone(), asks_in, companion);
    let (runtime, io_thread) = spawned.context("start the I/O thread")?;
    let control = ControlPlane::new(config.clone()).context("prepare for the control plane")?;
    let attachments = Attachments::new(config.clone(), control.clone(), runtime.clone());
    let events = EventLog::default();
    let service = DatapathServer::new(DatapathService::new(attachments.clone()));
    // A group's writes are held while its answers are on their way: they wait for no acknowledgement of TCP's.
    let incoming = TcpIncoming::from(rpc).with_nodelay(Some(true));
    let serving = Server::builder().add_service(service).serve_with_incoming(incoming);
    let mut parts = tokio::task::JoinSet::new();
    parts.spawn(async move { serving.await.context("serve gRPC") });
    parts.spawn(async move { metrics.serve(metrics_listener).await.context("serve metrics") });
    parts.spawn(never(heartbeat(control.clone(), attachments.clone(), events.clone(), rpc_address)));
    parts.spawn(never(serve_asks(control, runtime.clone(), events, asks)));

    write_state(&config, rpc_address, metrics_address).context("write the state file")?;
    tracing::info!(node = %config.node, %rpc_address, %metrics_address, "the datapath is up");

    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = parts.join_next() => ended,
        () = runtime.ended() => anyhow::bail!("the I/O thread has ended"),
    };
    tracing::info!("the datapath goes down");
    attachments.shut_down().await;
    runtime.send(Command::Stop).await?;
    tokio::task::spawn_blocking(move || io_thread.join()).await?.expect("a panic has aborted the process")?;
    remove_state(&config.state_file)?;
    match failed {
        Some(ended) => ended?,
        None => Ok(()),
    }
}

/// To standard error, as `ASHLAR_LOG` says.
pub fn start_logging() {
    // fuser warns when a mount is gone that was taken away on purpose.
    let filter = EnvFilter::try_from_env("ASHLAR_LOG").unwrap_or_else(|_| EnvFilter::new("info,fuser=error"));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal).with_writer(std::io::stderr).init();
}

async fn never(part: impl Future<Output = ()>) -> anyhow::Result<()> {
    part.await;
    Ok(())
}

/// Whole or not at all: a reader never sees half of it.
fn write_state(config: &Config, rpc_address: SocketAddr, metrics_address: SocketAddr) -> anyhow::Result<()> {
    let state = State {
        pid: std::process::id(),
        node: config.node.to_string(),
        rpc_address,
        metrics_address,
        run_dir: config.run_dir.display().to_string(),
    };
    let mut partial = config.state_file.clone().into_os_string();
    partial.push(".partial");
    fs::write(&partial, serde_json::to_vec_pretty(&state)?)?;
    fs::rename(&partial, &config.state_file)?;
    Ok(())
}

fn remove_state(path: &Path) -> anyhow::Result<()> {
    fs::remove_file(path).with_context(|| format!("remove the state file {}", path.display()))
}
