//! GroupController: snapshots of several volumes at one instant. Its rules are those of `control/groups.rs`.

use super::snapshots::{present, time};
use super::{Answer, ControllerService, request};
use crate::control::to_the_end;
use crate::csi::params;
use crate::error::{Error, Result};
use ashlar_catalog::{GROUP_VOLUMES_MAX, StoredGroup};
use ashlar_rpc::csi::group_controller_server::GroupController;
use ashlar_rpc::csi::group_controller_service_capability::{self, Rpc, rpc::Type};
use ashlar_rpc::csi::*;
use ashlar_types::GroupId;
use std::collections::BTreeSet;
use tonic::{Request, Response};

impl ControllerService {
    async fn take_group(&self, request: CreateVolumeGroupSnapshotRequest) -> Result<CreateVolumeGroupSnapshotResponse> {
        let mut faults = Vec::new();
        let name = request::name(&request.name).map_err(|fault| faults.push(fault.message)).ok();
        let ids = &request.source_volume_ids;
        if ids.is_empty() || ids.len() > GROUP_VOLUMES_MAX {
            faults.push(format!("source_volume_ids has {} ids: give 1 to {GROUP_VOLUMES_MAX}", ids.len()));
        }
        let checked = ids.iter().map(|id| request::required_id("source_volume_ids", id));
        faults.extend(checked.filter_map(Result::err).map(|fault| fault.message));
        faults.extend(request::map_fault("parameters", &request.parameters));
        faults.extend(params::refuse_all(&request.parameters));
        let (Some(name), true) = (name, faults.is_empty()) else { return Err(Error::invalid_all(&faults)) };
        let mut volumes = Vec::new();
        for id in ids {
            volumes.push(self.find(id).await?.volume.id());
        }
        let control = self.control.clone();
        let taken = to_the_end(async move { control.create_group(&name, &volumes).await }).await?;
        Ok(CreateVolumeGroupSnapshotResponse { group_snapshot: Some(self.present_group(&taken).await?) })
    }

    async fn remove_group(
        &self,
        request: DeleteVolumeGroupSnapshotRequest,
    ) -> Result<DeleteVolumeGroupSnapshotResponse> {
        request::required_id("group_snapshot_id", &request.group_snapshot_id)?;
        // One that is not there is deleted already.
        if let Some(found) = self.group(&request.group_snapshot_id).await? {
            check_members(&found, &request.snapshot_ids)?;
            let (control, id) = (self.control.clone(), found.group.id);
            to_the_end(async move { control.delete_group(id).await }).await?;
        }
        Ok(DeleteVolumeGroupSnapshotResponse {})
    }

    async fn show_group(&self, request: GetVolumeGroupSnapshotRequest) -> Result<GetVolumeGroupSnapshotResponse> {
        request::required_id("group_snapshot_id", &request.group_snapshot_id)?;
        let found = self.group(&request.group_snapshot_id).await?;
        let shown = request::shown(&request.group_snapshot_id);
        let found = found.ok_or_else(|| Error::not_found(format_args!("group snapshot {shown}")))?;
        check_members(&found, &request.snapshot_ids)?;
        Ok(GetVolumeGroupSnapshotResponse { group_snapshot: Some(self.present_group(&found).await?) })
    }

    async fn group(&self, id: &str) -> Result<Option<StoredGroup>> {
        let Ok(id) = id.parse::<GroupId>() else { return Ok(None) };
        Ok(self.control.catalog.group(id).await?)
    }

    async fn present_group(&self, seen: &StoredGroup) -> Result<VolumeGroupSnapshot> {
        let mut snapshots = Vec::new();
        for &(_, id) in &seen.group.members {
            // In the middle of a deletion some are gone.
            snapshots.extend(self.control.catalog.snapshot(id).await?.as_ref().map(present));
        }
        Ok(VolumeGroupSnapshot {
            group_snapshot_id: seen.group.id.to_string(),
            snapshots,
            creation_time: Some(time(seen.group.created_ms)),
            ready_to_use: seen.group.is_ready,
        })
    }
}

/// The snapshots that the caller takes for the group's must be the group's. Named none, nothing is compared.
fn check_members(found: &StoredGroup, named: &[String]) -> Result<()> {
    let named: BTreeSet<&str> = named.iter().map(String::as_str).collect();
    let members: BTreeSet<String> = found.group.members.iter().map(|(_, id)| id.to_string()).collect();
    if named.is_empty() || members.iter().map(String::as_str).eq(named.iter().copied()) {
        return Ok(());
    }
    let members = members.into_iter().collect::<Vec<_>>().join(", ");
    Err(Error::invalid(format!("snapshot_ids are not those of the group: name {members}")))
}

#[tonic::async_trait]
impl GroupController for ControllerService {
    async fn group_controller_get_capabilities(
        &self,
        _request: Request<GroupControllerGetCapabilitiesRequest>,
    ) -> Answer<GroupControllerGetCapabilitiesResponse> {
        let rpc = Rpc { r#type: Type::CreateDeleteGetVolumeGroupSnapshot as i32 };
        let offered = group_controller_service_capability::Type::Rpc(rpc);
        let capabilities = vec![GroupControllerServiceCapability { r#type: Some(offered) }];
        Ok(Response::new(GroupControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<CreateVolumeGroupSnapshotRequest>,
    ) -> Answer<CreateVolumeGroupSnapshotResponse> {
        self.answer("CreateVolumeGroupSnapshot", self.take_group(request.into_inner()).await)
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<DeleteVolumeGroupSnapshotRequest>,
    ) -> Answer<DeleteVolumeGroupSnapshotResponse> {
        self.answer("DeleteVolumeGroupSnapshot", self.remove_group(request.into_inner()).await)
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<GetVolumeGroupSnapshotRequest>,
    ) -> Answer<GetVolumeGroupSnapshotResponse> {
        self.answer("GetVolumeGroupSnapshot", self.show_group(request.into_inner()).await)
    }
}
