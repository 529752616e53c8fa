//! CSI Controller: volumes from Kubernetes' point of view, over the same functions as the control API.
//!
//! Offered: create (also from a snapshot or a volume), delete, publish (also read-only), unpublish, validate, expand,
//! get, list with published nodes and condition, capacity, modify; snapshots, and groups of them. Secrets and contexts
//! are never looked at, so they cannot be logged.

mod groups;
mod request;
mod snapshots;

use super::{TOPOLOGY_NODE, status::code};
use crate::control::attachment::DetachMode;
use crate::control::condition::Disks;
use crate::control::{Control, to_the_end};
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::{ContentSource, StoredVolume};
use ashlar_rpc::csi::controller_server::Controller;
use ashlar_rpc::csi::controller_service_capability::{self, Rpc, rpc::Type};
use ashlar_rpc::csi::volume_content_source::{SnapshotSource, Type as SourceType, VolumeSource};
use ashlar_rpc::csi::*;
use ashlar_types::{BLOCK_BYTES, NodeName, VolumeId};
use std::collections::HashMap;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// Volumes, or snapshots, of one answer when the caller sets no limit.
const PER_PAGE_MAX: usize = 500;

const OFFERED: [Type; 15] = [
    Type::CreateDeleteVolume,
    Type::CloneVolume,
    Type::CreateDeleteSnapshot,
    Type::ListSnapshots,
    Type::GetSnapshot,
    Type::PublishUnpublishVolume,
    Type::PublishReadonly,
    Type::ListVolumes,
    Type::ListVolumesPublishedNodes,
    Type::GetCapacity,
    Type::ModifyVolume,
    Type::ExpandVolume,
    Type::GetVolume,
    Type::VolumeCondition,
    Type::SingleNodeMultiWriter,
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
        let control = self.control.clone();
        let created = to_the_end(async move { control.create_volume(new).await }).await?;
        Ok(CreateVolumeResponse { volume: Some(present(&created)) })
    }

    async fn delete(&self, request: DeleteVolumeRequest) -> Result<DeleteVolumeResponse> {
        request::volume_id(&request.volume_id)?;
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
        faults.extend(request::volume_id(&request.volume_id).err().map(|fault| fault.message));
        faults.extend(request::node_id(&request.node_id).err().map(|fault| fault.message));
        match &request.volume_capability {
            Some(capability) => faults.extend(request::capability_faults(std::slice::from_ref(capability))),
            None => faults.push("volume_capability is missing".to_owned()),
        }
        if !faults.is_empty() {
            return Err(Error::invalid_all(&faults));
        }
        let volume = self.find(&request.volume_id).await?;
        let node: NodeName = request
            .node_id
            .parse()
            .map_err(|_| Error::not_found(format_args!("node {}", request::shown(&request.node_id))))?;
        let id = volume.volume.id();
        if request.volume_capability.as_ref().is_some_and(request::reads_beside_others) {
            self.control.publish_reader(id, &node).await?;
        } else {
            self.control.publish(id, &node, request.readonly).await?;
        }
        Ok(ControllerPublishVolumeResponse { publish_context: HashMap::new() })
    }

    async fn unpublish(&self, request: ControllerUnpublishVolumeRequest) -> Result<ControllerUnpublishVolumeResponse> {
        request::volume_id(&request.volume_id)?;
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

    async fn expand(&self, request: ControllerExpandVolumeRequest) -> Result<ControllerExpandVolumeResponse> {
        let mut faults = Vec::new();
        faults.extend(request::volume_id(&request.volume_id).err().map(|fault| fault.message));
        let capability = request.volume_capability.as_ref();
        faults.extend(request::capability_faults(capability.map_or(&[], std::slice::from_ref)));
        let range = match &request.capacity_range {
            None => Err(Error::invalid("capacity_range is missing: required_bytes is the size to expand to")),
            Some(range) => request::size_after(range),
        };
        let range = match range {
            Err(error) if error.kind == ErrorKind::InvalidArgument => {
                faults.push(error.message.clone());
                Err(error)
            }
            other => other,
        };
        if !faults.is_empty() {
            return Err(Error::invalid_all(&faults));
        }
        let id = self.find(&request.volume_id).await?.volume.id();
        let (control, range) = (self.control.clone(), range?);
        let expanded = to_the_end(async move { control.expand_volume(id, range).await }).await?;
        let capacity_bytes = signed(expanded.volume.record.size.0);
        // The device may have been brought up before, and only the node can grow a filesystem.
        Ok(ControllerExpandVolumeResponse { capacity_bytes, node_expansion_required: true })
    }

    async fn get(&self, request: ControllerGetVolumeRequest) -> Result<ControllerGetVolumeResponse> {
        request::volume_id(&request.volume_id)?;
        let seen = self.find(&request.volume_id).await?;
        let status = controller_get_volume_response::VolumeStatus {
            published_node_ids: published(&seen),
            volume_condition: Some(self.condition(&seen, &self.control.disks_by_id().await).await),
        };
        Ok(ControllerGetVolumeResponse { volume: Some(present(&seen)), status: Some(status) })
    }

    async fn condition(&self, seen: &StoredVolume, disks: &Disks) -> VolumeCondition {
        let condition = self.control.condition(seen, disks).await;
        VolumeCondition { abnormal: condition.abnormal, message: condition.message }
    }

    async fn validate(&self, request: ValidateVolumeCapabilitiesRequest) -> Result<ValidateVolumeCapabilitiesResponse> {
        request::volume_id(&request.volume_id)?;
        if request.volume_capabilities.is_empty() {
            return Err(Error::invalid("volume_capabilities is empty"));
        }
        self.find(&request.volume_id).await?;
        let mut faults = request::capability_faults(&request.volume_capabilities);
        let params = super::params::parse_with(&request.parameters, &request.mutable_parameters);
        faults.extend(params.err().unwrap_or_default());
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
        let limit = limit_of(request.max_entries)?;
        let (page, next) = self.control.list_volumes(&request.starting_token, limit).await?;
        let disks = self.control.disks_by_id().await;
        let mut entries = Vec::new();
        for seen in &page.volumes {
            let status = list_volumes_response::VolumeStatus {
                published_node_ids: published(seen),
                volume_condition: Some(self.condition(seen, &disks).await),
            };
            entries.push(list_volumes_response::Entry { volume: Some(present(seen)), status: Some(status) });
        }
        let next_token = next.map(|id| id.to_string()).unwrap_or_default();
        Ok(ListVolumesResponse { entries, next_token })
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
            (Some(params), nodes) => Some(self.control.capacity(&params, nodes.as_deref().unwrap_or_default()).await?),
        };
        Ok(GetCapacityResponse {
            available_capacity: capacity.map_or(0, |capacity| signed(capacity.total.0)),
            maximum_volume_size: Some(capacity.map_or(0, |capacity| signed(capacity.largest.0))),
            minimum_volume_size: Some(signed(BLOCK_BYTES)),
        })
    }

    async fn modify(&self, request: ControllerModifyVolumeRequest) -> Result<ControllerModifyVolumeResponse> {
        let changes = super::params::parse_changes(&request.mutable_parameters);
        let mut faults = changes.as_ref().err().cloned().unwrap_or_default();
        faults.extend(request::volume_id(&request.volume_id).err().map(|fault| fault.message));
        let (Ok(changes), true) = (changes, faults.is_empty()) else { return Err(Error::invalid_all(&faults)) };
        let id = self.find(&request.volume_id).await?.volume.id();
        self.control.modify_volume(id, &changes).await?;
        Ok(ControllerModifyVolumeResponse {})
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
        capacity_bytes: signed(seen.volume.record.size.0),
        volume_id: seen.volume.id().to_string(),
        volume_context: HashMap::new(),
        content_source: seen.volume.source.map(content_source),
        accessible_topology: seen.volume.allowed_nodes.iter().map(segment).collect(),
    }
}

fn content_source(source: ContentSource) -> VolumeContentSource {
    let of = match source {
        ContentSource::Snapshot(id) => SourceType::Snapshot(SnapshotSource { snapshot_id: id.to_string() }),
        ContentSource::Volume(id) => SourceType::Volume(VolumeSource { volume_id: id.to_string() }),
    };
    VolumeContentSource { r#type: Some(of) }
}

/// Entries of one page of a listing.
fn limit_of(max_entries: i32) -> Result<usize> {
    match max_entries {
        ..0 => Err(Error::invalid("max_entries is negative: give 0 for as many as there is room for")),
        0 => Ok(PER_PAGE_MAX),
        some => Ok((some as usize).min(PER_PAGE_MAX)),
    }
}

fn published(seen: &StoredVolume) -> Vec<String> {
    // Whoever repairs it has not got it published.
    let holder = seen.volume.record.holder.iter().filter(|_| !seen.volume.is_repaired);
    match seen.volume.readers.as_slice() {
        [] => holder.map(ToString::to_string).collect(),
        readers => readers.iter().map(ToString::to_string).collect(),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
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

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Answer<ControllerExpandVolumeResponse> {
        self.answer("ControllerExpandVolume", self.expand(request.into_inner()).await)
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Answer<ControllerGetVolumeResponse> {
        self.answer("ControllerGetVolume", self.get(request.into_inner()).await)
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

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Answer<ControllerModifyVolumeResponse> {
        self.answer("ControllerModifyVolume", self.modify(request.into_inner()).await)
    }

    async fn create_snapshot(&self, request: Request<CreateSnapshotRequest>) -> Answer<CreateSnapshotResponse> {
        self.answer("CreateSnapshot", self.take_snapshot(request.into_inner()).await)
    }

    async fn delete_snapshot(&self, request: Request<DeleteSnapshotRequest>) -> Answer<DeleteSnapshotResponse> {
        self.answer("DeleteSnapshot", self.remove_snapshot(request.into_inner()).await)
    }

    async fn list_snapshots(&self, request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        self.answer("ListSnapshots", self.page_of_snapshots(request.into_inner()).await)
    }

    async fn get_snapshot(&self, request: Request<GetSnapshotRequest>) -> Answer<GetSnapshotResponse> {
        self.answer("GetSnapshot", self.show_snapshot(request.into_inner()).await)
    }
}

#[cfg(test)]
mod tests;
