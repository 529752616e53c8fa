//! Waits until what was started really serves: a daemon has written its state file (it listens), the control plane
//! has had its heartbeat since the start, and a CSI service answers its probe.

use super::daemon::{Daemon, Kind};
use super::layout::Layout;
use super::process;
use crate::client;
use anyhow::{Context, bail};
use ashlar_rpc::control;
use ashlar_rpc::csi::{ProbeRequest, identity_client::IdentityClient};
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::UnixStream;
use tonic::transport::{Endpoint, Uri};

const POLL: Duration = Duration::from_millis(50);
/// One question; asked again until the deadline.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A daemon that was started.
#[derive(Debug)]
pub struct Started {
    pub name: String,
    pub pid: i32,
    /// Milliseconds since 1970 before it was started: a heartbeat from before is another process's.
    pub since_ms: u64,
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Until the daemon listens. Fails at once if it ends.
pub async fn listening(layout: &Layout, started: &Started, deadline: Instant) -> anyhow::Result<()> {
    let state_file = layout.state_file(&started.name);
    let name = &started.name;
    until(deadline, &format!("{name} does not listen yet"), async || {
        if !process::is_alive(started.pid) {
            bail!("{name} ended: {} (log: {})", process::log_tail(layout, name), layout.log(name).display());
        }
        Ok(if state_file.exists() { Ok(()) } else { Err(format!("see {}", layout.log(name).display())) })
    })
    .await
}

/// Until the control plane counts the nodes of `daemons` and their disks as alive, by heartbeats of the processes
/// that run now.
pub async fn reported(
    layout: &Layout,
    daemons: &[Daemon<'_>],
    started: &[Started],
    deadline: Instant,
) -> anyhow::Result<()> {
    until(deadline, "the cluster is not complete yet", async || {
        match tokio::time::timeout(ASK_TIMEOUT, missing(layout, daemons, started)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(what))) => return Ok(Err(what)),
            // The control plane may not accept calls in its first moment.
            Ok(Err(error)) => return Ok(Err(format!("{error:#}"))),
            Err(_) => return Ok(Err("the control plane does not answer".to_owned())),
        }
        Ok(Ok(()))
    })
    .await
}

/// What is not there yet, or nothing.
async fn missing(layout: &Layout, daemons: &[Daemon<'_>], started: &[Started]) -> anyhow::Result<Option<String>> {
    let mut client = client::connect(&layout.control_url()).await?;
    let nodes = client.list_nodes(control::ListNodesRequest {}).await.map_err(client::explain)?.into_inner().nodes;
    let disks = client.list_disks(control::ListDisksRequest {}).await.map_err(client::explain)?.into_inner().disks;
    for daemon in daemons {
        let Some(node) = daemon.node else { continue };
        let name = daemon.name();
        let since_ms = started.iter().find(|started| started.name == name).map_or(0, |started| started.since_ms);
        let view = nodes.iter().find(|view| view.name == node.name);
        let online = |disk: &&control::Disk| {
            disk.node == node.name && disk.state() == control::DiskState::Online && disk.last_heartbeat_ms >= since_ms
        };
        let serves = || view.is_some_and(|view| view.chunkserver_alive) && disks.iter().any(|disk| online(&disk));
        if daemon.has_disk(layout) && !serves() {
            return Ok(Some(format!("no disk of {name} yet (log: {})", layout.log(&name).display())));
        }
        let alive = match daemon.kind {
            Kind::Datapath => view.is_some_and(|view| view.datapath_alive && view.last_heartbeat_ms >= since_ms),
            Kind::Control | Kind::Chunkserver | Kind::Node => true,
        };
        if !alive {
            return Ok(Some(format!("no heartbeat of {name} yet (log: {})", layout.log(&name).display())));
        }
    }
    Ok(None)
}

/// Until the CSI service on the socket says that it is ready.
pub async fn csi_ready(socket: &Path, deadline: Instant) -> anyhow::Result<()> {
    until(deadline, &format!("the CSI service on {} is not ready yet", socket.display()), async || {
        Ok(match tokio::time::timeout(ASK_TIMEOUT, probe(socket.to_owned())).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err("it says that it is not".to_owned()),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err("no answer".to_owned()),
        })
    })
    .await
}

async fn probe(socket: PathBuf) -> anyhow::Result<bool> {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The address is not used: the connector knows the socket.
    let channel = Endpoint::from_static("http://csi").connect_with_connector(connector).await?;
    let answer = IdentityClient::new(channel).probe(ProbeRequest {}).await.map_err(client::explain)?;
    Ok(answer.into_inner().ready.unwrap_or(true))
}

/// Asks again and again until the answer is `Ok`; at the deadline the last reason is the error. A failure of `ask`
/// itself is final.
async fn until(
    deadline: Instant,
    what: &str,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Result<(), String>>,
) -> anyhow::Result<()> {
    loop {
        let Err(reason) = ask().await? else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(anyhow::anyhow!(reason)).with_context(|| format!("{what}, and the time is over"));
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn the_last_reason_is_told_at_the_deadline() {
        let error = runtime()
            .block_on(until(Instant::now(), "x is not ready", async || Ok(Err("n2 is silent".to_owned()))))
            .unwrap_err();
        assert_eq!(format!("{error:#}"), "x is not ready, and the time is over: n2 is silent");
    }

    #[test]
    fn a_final_failure_is_not_waited_out() {
        let far = Instant::now() + Duration::from_secs(3600);
        let error = runtime().block_on(until(far, "x", async || bail!("it ended"))).unwrap_err();
        assert_eq!(error.to_string(), "it ended");
    }
}
