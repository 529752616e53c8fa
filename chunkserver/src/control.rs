//! The thread beside the I/O path: gRPC, metrics, heartbeat, signals (unless its owner ends the host), all on one
//! tokio runtime.

use crate::Error;
use crate::config::RunConfig;
use crate::heartbeat::Heartbeat;
use crate::metrics;
use crate::process::EndsBy;
use crate::rpc::ChunkserverService;
use crate::serve::HostHandle;
use crate::smart::{self, Reports};
use ashlar_rpc::control::chunkserver_server::ChunkserverServer;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};

/// How long calls that are being answered may take when the process ends.
const END_GRACE: Duration = Duration::from_millis(200);
const RPC_TIMEOUT: Duration = Duration::from_secs(30);
const RPC_CONCURRENCY_MAX: usize = 32;

/// What the thread serves, and as whom.
pub(crate) struct ControlPlan {
    pub(crate) config: RunConfig,
    pub(crate) ends_by: EndsBy,
    pub(crate) data_address: SocketAddr,
    pub(crate) rpc_address: SocketAddr,
    pub(crate) rpc: TcpListener,
    pub(crate) metrics: Option<TcpListener>,
}

pub(crate) struct ControlThread {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ControlThread {
    /// From here on the ports answer, and signals end the host.
    pub(crate) fn start(plan: ControlPlan, host: HostHandle) -> Result<ControlThread, Error> {
        let failed = |source| Error::Thread { name: "control", source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (end, ended) = oneshot::channel();
        let serving = Serving::new(&runtime, plan, host).map_err(failed)?;
        let run = move || {
            runtime.block_on(serving.until(ended));
            runtime.shutdown_timeout(END_GRACE);
        };
        let thread = thread::Builder::new().name("control".to_owned()).spawn(run).map_err(failed)?;
        Ok(ControlThread { end, thread })
    }

    /// Ends the thread. The host has ended already, so nothing can be answered any more.
    pub(crate) fn end(self) {
        // It may have ended by itself.
        let _ = self.end.send(());
        if self.thread.join().is_err() {
            tracing::error!("the control thread ended by a panic");
        }
    }
}

/// Everything that can fail at the start is done; what remains is to wait.
struct Serving {
    /// SIGTERM and SIGINT, where they end the host.
    signals: Option<(Signal, Signal)>,
    rpc: TcpIncoming,
    metrics: Option<tokio::net::TcpListener>,
    heartbeat: Option<(Heartbeat, Endpoint)>,
    service: ChunkserverService,
    host: HostHandle,
    smart: Reports,
}

impl Serving {
    fn new(runtime: &Runtime, plan: ControlPlan, host: HostHandle) -> io::Result<Serving> {
        let _context = runtime.enter();
        let ControlPlan { config, ends_by, data_address, rpc_address, rpc, metrics } = plan;
        let disks = config.disks.iter().map(|paths| paths.disk.clone()).collect();
        let smart = smart::watch(config.smartctl.clone(), disks);
        let heartbeat = match &config.control {
            Some(url) => {
                let endpoint = Endpoint::from_shared(url.clone()).map_err(io::Error::other)?;
                let beat = Heartbeat {
                    cluster: config.cluster,
                    node: config.node.clone(),
                    zone: config.zone.clone(),
                    data_address,
                    rpc_address,
                    host: host.clone(),
                    smart: smart.clone(),
                };
                Some((beat, endpoint))
            }
            None => None,
        };
        Ok(Serving {
            signals: match ends_by {
                EndsBy::Signal => Some((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)),
                EndsBy::Owner => None,
            },
            rpc: TcpIncoming::from(tokio::net::TcpListener::from_std(rpc)?).with_nodelay(Some(true)),
            metrics: metrics.map(tokio::net::TcpListener::from_std).transpose()?,
            heartbeat,
            service: ChunkserverService {
                node: config.node,
                address: data_address,
                host: host.clone(),
                smart: smart.clone(),
            },
            host,
            smart,
        })
    }

    async fn until(self, ended: oneshot::Receiver<()>) {
        let Serving { signals, rpc, metrics, heartbeat, service, host, smart } = self;
        if let Some(listener) = metrics {
            tokio::spawn(metrics::serve(listener, host.clone(), smart));
        }
        if let Some((beat, endpoint)) = heartbeat {
            tokio::spawn(beat.run(endpoint));
        }
        let server = Server::builder()
            .timeout(RPC_TIMEOUT)
            .concurrency_limit_per_connection(RPC_CONCURRENCY_MAX)
            .add_service(ChunkserverServer::new(service))
            .serve_with_incoming(rpc);
        let server = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "serve the control API");
            }
        });
        let signalled = async {
            let Some((mut terminate, mut interrupt)) = signals else { return std::future::pending::<()>().await };
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: the chunkserver ends"),
                _ = interrupt.recv() => tracing::info!("SIGINT: the chunkserver ends"),
            }
            // When the host is gone it has ended already.
            let _ = host.stop().await;
            std::future::pending::<()>().await
        };
        tokio::select! {
            _ = ended => {}
            () = signalled => {}
        }
        server.abort();
    }
}
