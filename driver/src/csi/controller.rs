//! CSI Controller: volumes from Kubernetes' point of view, over the same functions as the control API.
//!
//! Offered: create, delete, publish, unpublish, validate, list with published nodes, capacity. Everything else answers
//! UNIMPLEMENTED and is not advertised. Secrets and contexts are never looked at, so they cannot be logged.

mod request;

use super::{TOPOLOGY_NODE, status::code};
use crate::control::attachment::{DetachMode, Show};
use crate::control::{Control, to_the_end};
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::StoredVolume;
use ashlar_rpc::csi::controller_server::Controller;
use ashlar_rpc::csi::controller_service_capability::{self, Rpc, rpc::Type};
use ashlar_rpc::csi::*;
use ashlar_types::{BLOCK_BYTES, NodeName, VolumeId};
use std::collections::HashMap;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// Volumes of one answer when the caller sets no limit.
const VOLUMES_PER_PAGE_MAX: usize = 500;

const OFFERED: [Type; 5] = [
    Type::CreateDeleteVolume,
    Type::PublishUnpublishVolume,
    Type::ListVolumes,
    Type::ListVolumesPublishedNodes,
    Type::GetCapacity,
];

#[derive(Clone, Debug)]
pub struct ControllerService {
    control: Arc<Control>,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

impl ControllerService {
    pub fn new(control: Arc<Control>) -> ControllerService {
        ControllerService { control }
    }

    /// Counts and logs what was answered; the request itself is never logged.
    fn answer<T>(&self, method: &'static str, result: Result<T>) -> Answer<T> {
        match result {
            Ok(response) => {
                self.control.metrics.count_csi(method, Code::Ok);
                Ok(Response::new(response))
            }
            Err(error) => {
                self.control.metrics.count_csi(method, code(error.kind));
                tracing::warn!(method, code = ?code(error.kind), %error, "CSI request refused");
                Err(error.into())
            }
        }
    }

    async fn create(&self, request: CreateVolumeRequest) -> Result<CreateVolumeResponse> {
        let known_nodes: Vec<_> = self.control.registry.nodes().await.into_iter().map(|view| view.node).collect();
        let new = request::new_volume(request, &known_nodes)?;
        let created = self.control.create_volume(new).await?;
        Ok(CreateVolumeResponse { volume: Some(present(&created)) })
    }

    async fn delete(&self, request: DeleteVolumeRequest) -> Result<DeleteVolumeResponse> {
        request::required("volume_id", &request.volume_id)?;
        // What is no id of ours names no volume: there is nothing to delete.
        if let Ok(id) = request.volume_id.parse::<VolumeId>() {
            match self.control.delete_volume(id).await {
                Err(error) if error.kind == ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(DeleteVolumeResponse {})
    }

    async fn publish(&self, request: ControllerPublishVolumeRequest) -> Result<ControllerPublishVolumeResponse> {
        let mut faults = Vec::new();
        faults.extend(request::required("volume_id", &request.volume_id).err().map(|fault| fault.message));
        faults.extend(request::required("node_id", &request.node_id).err().map(|fault| fault.message));
        match &request.volume_capability {
            Some(capability) => faults.extend(request::capability_faults(std::slice::from_ref(capability))),
            None => faults.push("volume_capability is missing".to_owned()),
        }
        if request.readonly {
            faults.push("readonly is not offered: publish read-only on the node".to_owned());
        }
        if !faults.is_empty() {
            return Err(Error::invalid_all(&faults));
        }
        let volume = self.find(&request.volume_id).await?;
        let node: NodeName = request
            .node_id
            .parse()
            .map_err(|_| Error::not_found(format_args!("node {}", request::shown(&request.node_id))))?;
        self.control.attach(volume.volume.id(), &node, Show::NOTHING).await?;
        Ok(ControllerPublishVolumeResponse { publish_context: HashMap::new() })
    }

    async fn unpublish(&self, request: ControllerUnpublishVolumeRequest) -> Result<ControllerUnpublishVolumeResponse> {
        request::required("volume_id", &request.volume_id)?;
        // A volume that does not exist is published nowhere.
        let Ok(id) = request.volume_id.parse::<VolumeId>() else { return Ok(ControllerUnpublishVolumeResponse {}) };
        if self.control.catalog.volume(id).await?.is_none() {
            return Ok(ControllerUnpublishVolumeResponse {});
        }
        let node = match request.node_id.as_str() {
            "" => None,
            // What is no name of a node holds nothing.
            name => match name.parse::<NodeName>() {
                Ok(node) => Some(node),
                Err(_) => return Ok(ControllerUnpublishVolumeResponse {}),
            },
        };
        // One that another node holds by now is that node's.
        let control = self.control.clone();
        to_the_end(async move { control.detach(id, node.as_ref(), DetachMode::CleanOrSilent).await }).await?;
        Ok(ControllerUnpublishVolumeResponse {})
    }

    async fn validate(&self, request: ValidateVolumeCapabilitiesRequest) -> Result<ValidateVolumeCapabilitiesResponse> {
        request::required("volume_id", &request.volume_id)?;
        if request.volume_capabilities.is_empty() {
            return Err(Error::invalid("volume_capabilities is empty"));
        }
        self.find(&request.volume_id).await?;
        let mut faults = request::capability_faults(&request.volume_capabilities);
        faults.extend(super::params::parse(&request.parameters).err().unwrap_or_default());
        faults.extend(
            request
                .mutable_parameters
                .keys()
                .map(|key| format!("mutable parameter {:?} is not known", request::shown(key))),
        );
        if !faults.is_empty() {
            return Ok(ValidateVolumeCapabilitiesResponse { confirmed: None, message: faults.join("; ") });
        }
        let confirmed = validate_volume_capabilities_response::Confirmed {
            volume_context: request.volume_context,
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
            mutable_parameters: request.mutable_parameters,
        };
        Ok(ValidateVolumeCapabilitiesResponse { confirmed: Some(confirmed), message: String::new() })
    }

    async fn list(&self, request: ListVolumesRequest) -> Result<ListVolumesResponse> {
        let limit = match request.max_entries {
            ..0 => return Err(Error::invalid("max_entries is negative")),
            0 => VOLUMES_PER_PAGE_MAX,
            some => (some as usize).min(VOLUMES_PER_PAGE_MAX),
        };
        let (page, next) = self.control.list_volumes(&request.starting_token, limit).await?;
        let entry = |seen: &StoredVolume| list_volumes_response::Entry {
            volume: Some(present(seen)),
            status: Some(list_volumes_response::VolumeStatus {
                published_node_ids: seen.volume.record.holder.iter().map(ToString::to_string).collect(),
                volume_condition: None,
            }),
        };
        let next_token = next.map(|id| id.to_string()).unwrap_or_default();
        Ok(ListVolumesResponse { entries: page.volumes.iter().map(entry).collect(), next_token })
    }

    async fn available(&self, request: GetCapacityRequest) -> Result<GetCapacityResponse> {
        let parsed = super::params::parse(&request.parameters);
        // What could not be created has no room: CSI asks for 0 and not for an error.
        let params = parsed.ok().filter(|_| request::capability_faults(&request.volume_capabilities).is_empty());
        let known_nodes: Vec<_> = self.control.registry.nodes().await.into_iter().map(|view| view.node).collect();
        let nodes = match &request.accessible_topology {
            Some(topology) => Some(request::nodes_in(topology, &known_nodes)?),
            None => None,
        };
        let capacity = match (params, &nodes) {
            (None, _) => None,
            (_, Some(nodes)) if nodes.is_empty() => None,
            (Some(params), nodes) => Some(self.control.capacity(params, nodes.as_deref().unwrap_or_default()).await?),
        };
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(GetCapacityResponse {
            available_capacity: capacity.map_or(0, |capacity| bytes(capacity.total.0)),
            maximum_volume_size: Some(capacity.map_or(0, |capacity| bytes(capacity.largest.0))),
            minimum_volume_size: Some(bytes(BLOCK_BYTES)),
        })
    }

    async fn find(&self, volume_id: &str) -> Result<StoredVolume> {
        match volume_id.parse::<VolumeId>() {
            Ok(id) => self.control.volume(id).await,
            Err(_) => Err(Error::not_found(format_args!("volume {}", request::shown(volume_id)))),
        }
    }
}

/// A volume for Kubernetes. Without a limit on its nodes it may be used on every node, also on those that come later.
fn present(seen: &StoredVolume) -> Volume {
    let segment =
        |node: &NodeName| Topology { segments: HashMap::from([(TOPOLOGY_NODE.to_owned(), node.to_string())]) };
    Volume {
        capacity_bytes: i64::try_from(seen.volume.record.size.0).unwrap_or(i64::MAX),
        volume_id: seen.volume.id().to_string(),
        volume_context: HashMap::new(),
        content_source: None,
        accessible_topology: seen.volume.allowed_nodes.iter().map(segment).collect(),
    }
}

/// RPCs that are not offered, and so are answered UNIMPLEMENTED.
macro_rules! not_offered {
    ($($name:ident($request:ty) -> $response:ty, $rpc:literal;)*) => {
        $(
            fn $name<'life, 'future>(
                &'life self,
                _request: Request<$request>,
            ) -> std::pin::Pin<Box<dyn std::future::Future<Output = Answer<$response>> + Send + 'future>>
            where
                'life: 'future,
                Self: 'future,
            {
                let error = Error::new(ErrorKind::Unsupported, concat!($rpc, " is not offered"));
                let answer = self.answer($rpc, Err(error));
                Box::pin(std::future::ready(answer))
            }
        )*
    };
}

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn create_volume(&self, request: Request<CreateVolumeRequest>) -> Answer<CreateVolumeResponse> {
        self.answer("CreateVolume", self.create(request.into_inner()).await)
    }

    async fn delete_volume(&self, request: Request<DeleteVolumeRequest>) -> Answer<DeleteVolumeResponse> {
        self.answer("DeleteVolume", self.delete(request.into_inner()).await)
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Answer<ControllerPublishVolumeResponse> {
        self.answer("ControllerPublishVolume", self.publish(request.into_inner()).await)
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Answer<ControllerUnpublishVolumeResponse> {
        self.answer("ControllerUnpublishVolume", self.unpublish(request.into_inner()).await)
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<ValidateVolumeCapabilitiesResponse> {
        self.answer("ValidateVolumeCapabilities", self.validate(request.into_inner()).await)
    }

    async fn list_volumes(&self, request: Request<ListVolumesRequest>) -> Answer<ListVolumesResponse> {
        self.answer("ListVolumes", self.list(request.into_inner()).await)
    }

    async fn get_capacity(&self, request: Request<GetCapacityRequest>) -> Answer<GetCapacityResponse> {
        self.answer("GetCapacity", self.available(request.into_inner()).await)
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<ControllerGetCapabilitiesResponse> {
        let capability = |offered: Type| ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(Rpc { r#type: offered as i32 })),
        };
        let capabilities = OFFERED.map(capability).to_vec();
        self.answer("ControllerGetCapabilities", Ok(ControllerGetCapabilitiesResponse { capabilities }))
    }

    not_offered! {
        create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse, "CreateSnapshot";
        delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse, "DeleteSnapshot";
        list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse, "ListSnapshots";
        get_snapshot(GetSnapshotRequest) -> GetSnapshotResponse, "GetSnapshot";
        controller_expand_volume(ControllerExpandVolumeRequest) -> ControllerExpandVolumeResponse,
            "ControllerExpandVolume";
        controller_get_volume(ControllerGetVolumeRequest) -> ControllerGetVolumeResponse, "ControllerGetVolume";
        controller_modify_volume(ControllerModifyVolumeRequest) -> ControllerModifyVolumeResponse,
            "ControllerModifyVolume";
    }
}

#[cfg(test)]
mod tests;
