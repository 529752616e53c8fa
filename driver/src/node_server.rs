//! Starting and stopping the CSI service of a node: Identity and Node on one socket, metrics beside it.

use crate::config::NodeConfig;
use crate::csi::node::{NodeService, NodeSettings};
use crate::csi::{Socket, identity::IdentityService};
use crate::metrics::{Metrics, Page};
use crate::shutdown::Shutdown;
use crate::state_file::State;
use anyhow::Context;
use ashlar_rpc::csi::identity_server::IdentityServer;
use ashlar_rpc::csi::node_server::NodeServer;
use tonic::transport::Server;

/// `ashlar-driver node`: serves until asked to stop. Mounts stay as they are; they outlive the service.
pub async fn run(config: &NodeConfig, shutdown: Shutdown) -> anyhow::Result<()> {
    config.check()?;
    let settings = NodeSettings {
        node: config.node.clone(),
        zone: config.zone.clone(),
        control: config.control.clone(),
        kubelet_dir: config.kubelet_dir.clone(),
    };
    let metrics = Metrics::default();
    let service = NodeService::open(settings, metrics.clone()).context("set up the node service")?;
    let socket = Socket::bind(&config.csi_socket).await?;
    let page = match config.metrics_listen {
        Some(address) => Some(Page::bind(address, metrics, None).await?),
        None => None,
    };
    let state = State {
        csi_socket: Some(config.csi_socket.clone()),
        metrics: page.as_ref().map(Page::address).transpose()?,
        ..State::of_this_process(None)
    };
    tracing::info!(node = %config.node, socket = %config.csi_socket.display(), "node service serves");
    let _state_file = match &config.state_file {
        Some(path) => Some(state.write(path).with_context(|| format!("write state file {}", path.display()))?),
        None => None,
    };
    let csi = async {
        let services =
            Server::builder().add_service(IdentityServer::new(IdentityService)).add_service(NodeServer::new(service));
        socket.serve(services, shutdown.clone().requested()).await
    };
    let page = async {
        let Some(page) = page else { return Ok(()) };
        page.serve(shutdown.clone()).await
    };
    shutdown.clone().bounded(async { tokio::try_join!(csi, page) }).await.map(|_| ())
}
