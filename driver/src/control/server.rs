//! Starting and stopping the control plane: opens the catalog, listens, serves until it is told to stop.

use super::clones::watch;
use super::service::Service;
use super::{Control, forgotten, reaper, repair};
use crate::config::ControlConfig;
use crate::csi::controller::ControllerService;
use crate::csi::metadata::MetadataService;
use crate::csi::{Socket, identity::IdentityService};
use crate::metrics::{Metrics, Page};
use crate::shutdown::Shutdown;
use crate::state_file::State;
use anyhow::Context;
use ashlar_catalog::{Catalog, MetaStore, RocksStore};
use ashlar_rpc::control::cluster_server::ClusterServer;
use ashlar_rpc::control::membership_server::MembershipServer;
use ashlar_rpc::control::registry_server::RegistryServer;
use ashlar_rpc::csi::controller_server::ControllerServer;
use ashlar_rpc::csi::group_controller_server::GroupControllerServer;
use ashlar_rpc::csi::identity_server::IdentityServer;
use ashlar_rpc::csi::snapshot_metadata_server::SnapshotMetadataServer;
use ashlar_types::ClusterId;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Calls of one connection that are worked on at a time; more wait.
const CALLS_PER_CONNECTION_MAX: usize = 256;

/// A control plane that listens and does not serve yet.
#[derive(Debug)]
pub struct ControlServer {
    control: Arc<Control>,
    listener: TcpListener,
    socket: Option<Socket>,
    page: Option<Page>,
}

impl ControlServer {
    /// Opens and binds everything, the catalog first: whoever holds it is the control plane.
    pub async fn bind(config: &ControlConfig) -> anyhow::Result<ControlServer> {
        let store = MetaStore::Rocks(RocksStore::open(&config.catalog).await?);
        let fresh = ClusterId::from_u128(uuid::Uuid::new_v4().as_u128());
        let catalog = Catalog::open(store, config.cluster, fresh).await?;
        let metrics = Metrics::default();
        let mut control = Control::new(catalog, config.heartbeat(), config.bounds(), metrics.clone()).await?;
        control.drain_beyond(config.bad_blocks_max);
        let control = Arc::new(control);
        let listener =
            TcpListener::bind(config.listen).await.with_context(|| format!("bind control API {}", config.listen))?;
        let socket = match &config.csi_socket {
            Some(path) => Some(Socket::bind(path).await?),
            None => None,
        };
        let page = match config.metrics_listen {
            Some(address) => Some(Page::bind(address, metrics, Some(control.clone())).await?),
            None => None,
        };
        Ok(ControlServer { control, listener, socket, page })
    }

    /// Where the control API listens.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.listener.local_addr().context("address of the control API")
    }

    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    fn state(&self, config: &ControlConfig) -> anyhow::Result<State> {
        let metrics = self.page.as_ref().map(Page::address).transpose()?;
        Ok(State {
            listen: Some(self.address()?),
            csi_socket: config.csi_socket.clone(),
            metrics,
            ..State::of_this_process(Some(self.control.catalog.cluster()))
        })
    }

    /// Serves until asked to stop. A server that fails ends all.
    pub async fn serve(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let control = self.control;
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let service = Service(control.clone());
        let api = Server::builder()
            .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
            .add_service(ClusterServer::new(service.clone()))
            .add_service(MembershipServer::new(service.clone()))
            .add_service(RegistryServer::new(service))
            .serve_with_incoming_shutdown(incoming, shutdown.clone().requested());
        let csi = async {
            let Some(socket) = self.socket else { return Ok(()) };
            let services = Server::builder()
                .add_service(IdentityServer::new(IdentityService))
                .add_service(ControllerServer::new(ControllerService::new(control.clone())))
                .add_service(GroupControllerServer::new(ControllerService::new(control.clone())))
                .add_service(SnapshotMetadataServer::new(MetadataService::new(control.clone())));
            socket.serve(services, shutdown.clone().requested()).await
        };
        let page = async {
            let Some(page) = self.page else { return Ok(()) };
            page.serve(shutdown.clone()).await
        };
        let background = async {
            let silence = control.registry.watch_silence(&control.catalog);
            let (reaper, clones) = (reaper::run(control.clone()), watch::run(control.clone()));
            let (forgotten, repair) = (forgotten::run(control.clone()), repair::run(control.clone()));
            tokio::join!(reaper, clones, forgotten, repair, silence);
        };
        let api = async { api.await.context("serve control API") };
        let all = async {
            tokio::select! {
                served = async { tokio::try_join!(api, csi, page) } => served.map(|_| ()),
                () = background => Ok(()),
            }
        };
        shutdown.clone().bounded(all).await.map(|_| ())
    }
}

/// `ashlar-driver control`.
pub async fn run(config: &ControlConfig, shutdown: Shutdown) -> anyhow::Result<()> {
    config.check()?;
    let server = ControlServer::bind(config).await?;
    let state = server.state(config)?;
    tracing::info!(cluster = %server.control.catalog.cluster(), listen = %server.address()?, "control plane serves");
    let _state_file = match &config.state_file {
        Some(path) => Some(state.write(path).with_context(|| format!("write state file {}", path.display()))?),
        None => None,
    };
    server.serve(shutdown).await
}
