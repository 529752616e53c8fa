//! The CSI node service: brings a volume's device up on this node, makes and checks its filesystem, mounts it and
//! shows it to pods.
//!
//! One operation per volume at a time. An operation that was begun is carried through even when its caller has given
//! up: it runs as a task of its own that holds the volume's permit, so that the caller's next try cannot run beside
//! it.

mod cluster;
mod expand;
mod publish;
mod readers;
mod request;
mod stage;
mod stats;

use super::inflight::InFlight;
use super::{TOPOLOGY_NODE, TOPOLOGY_ZONE};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::mount::{KubeletDir, MountError};
use ashlar_rpc::NODE_VOLUMES_MAX;
use ashlar_rpc::csi::{
    self, NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
    NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest,
    NodeUnstageVolumeResponse, Topology, node_service_capability,
};
use ashlar_types::{NodeName, ZoneName};
use cluster::Cluster;
use std::path::PathBuf;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// What the service is started with.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    pub node: NodeName,
    pub zone: Option<ZoneName>,
    /// URL of the control plane.
    pub control: String,
    /// Staging and target paths lie below it. Must exist.
    pub kubelet_dir: PathBuf,
}

#[derive(Clone, Debug)]
pub struct NodeService {
    shared: Arc<Shared>,
    inflight: InFlight,
    metrics: Metrics,
}

/// What every operation needs.
#[derive(Debug)]
struct Shared {
    node: NodeName,
    zone: Option<ZoneName>,
    cluster: Cluster,
    kubelet: KubeletDir,
}

impl NodeService {
    /// Must be called within a tokio runtime. The control plane need not be there yet.
    pub fn open(settings: NodeSettings, metrics: Metrics) -> Result<NodeService> {
        let cluster = Cluster::new(&settings.control, settings.node.clone())?;
        let kubelet = KubeletDir::open(&settings.kubelet_dir)?;
        let shared = Arc::new(Shared { node: settings.node, zone: settings.zone, cluster, kubelet });
        Ok(NodeService { shared, inflight: InFlight::default(), metrics })
    }

    /// Runs an operation on a volume to its end, whether or not the caller waits for it.
    async fn operate<T, F>(
        &self,
        name: &'static str,
        volume: String,
        work: F,
    ) -> std::result::Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let answer = self.carry_through(name, volume, work).await;
        self.metrics.count_csi(name, answer.as_ref().err().map_or(Code::Ok, Status::code));
        answer
    }

    async fn carry_through<T, F>(
        &self,
        name: &'static str,
        volume: String,
        work: F,
    ) -> std::result::Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let permit = self.inflight.begin(&volume)?;
        let task = tokio::spawn(async move {
            let _permit = permit;
            let outcome = work.await;
            match &outcome {
                Ok(_) => tracing::debug!(operation = name, volume, "done"),
                Err(error) => tracing::warn!(operation = name, volume, %error, "failed"),
            }
            outcome
        });
        match task.await {
            Ok(outcome) => Ok(Response::new(outcome?)),
            Err(error) => Err(Status::internal(format!("{name} ended without a result: {error}"))),
        }
    }
}

/// Runs what blocks where it may.
async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> std::result::Result<T, MountError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(Error::new(ErrorKind::Internal, format!("a task ended without a result: {error}"))),
    }
}

impl From<MountError> for Error {
    fn from(error: MountError) -> Error {
        let kind = match &error {
            MountError::Path { .. } | MountError::Unsupported(_) => ErrorKind::InvalidArgument,
            MountError::Occupied(_) | MountError::Damaged(_) | MountError::Refused(_) | MountError::Absent { .. } => {
                ErrorKind::FailedPrecondition
            }
            MountError::Different(_) => ErrorKind::AlreadyExists,
            MountError::Tool { .. } | MountError::Io { .. } => ErrorKind::Internal,
        };
        Error::new(kind, error.to_string())
    }
}

#[tonic::async_trait]
impl csi::node_server::Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> std::result::Result<Response<NodeStageVolumeResponse>, Status> {
        let stage = request::Stage::check(request.into_inner())?;
        let work = stage::stage(self.shared.clone(), stage.clone());
        self.operate("NodeStageVolume", stage.volume.to_string(), work).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> std::result::Result<Response<NodeUnstageVolumeResponse>, Status> {
        let unstage = request::Unstage::check(request.into_inner())?;
        let work = stage::unstage(self.shared.clone(), unstage.clone());
        self.operate("NodeUnstageVolume", unstage.volume, work).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> std::result::Result<Response<NodePublishVolumeResponse>, Status> {
        let publish = request::Publish::check(request.into_inner())?;
        let work = publish::publish(self.shared.clone(), publish.clone());
        self.operate("NodePublishVolume", publish.volume.to_string(), work).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> std::result::Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let unpublish = request::Unpublish::check(request.into_inner())?;
        let work = publish::unpublish(self.shared.clone(), unpublish.clone());
        self.operate("NodeUnpublishVolume", unpublish.volume, work).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> std::result::Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let asked = request::Stats::check(request.into_inner())?;
        Ok(Response::new(stats::stats(self.shared.clone(), asked).await?))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> std::result::Result<Response<NodeExpandVolumeResponse>, Status> {
        let asked = request::Expand::check(request.into_inner())?;
        let work = expand::expand(self.shared.clone(), asked.clone());
        self.operate("NodeExpandVolume", asked.volume.to_string(), work).await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> std::result::Result<Response<NodeGetCapabilitiesResponse>, Status> {
        use node_service_capability::{Rpc, Type, rpc};
        let capability =
            |kind: rpc::Type| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: kind as i32 })) };
        let offered = [
            rpc::Type::StageUnstageVolume,
            rpc::Type::GetVolumeStats,
            rpc::Type::ExpandVolume,
            rpc::Type::VolumeCondition,
            rpc::Type::SingleNodeMultiWriter,
            rpc::Type::VolumeMountGroup,
        ];
        let capabilities = offered.map(capability).to_vec();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> std::result::Result<Response<NodeGetInfoResponse>, Status> {
        let node = (TOPOLOGY_NODE.to_owned(), self.shared.node.to_string());
        let zone = self.shared.zone.as_ref().map(|zone| (TOPOLOGY_ZONE.to_owned(), zone.to_string()));
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.shared.node.to_string(),
            max_volumes_per_node: NODE_VOLUMES_MAX as i64,
            accessible_topology: Some(Topology { segments: [node].into_iter().chain(zone).collect() }),
        }))
    }
}

#[cfg(test)]
mod tests;
