//! CSI Identity: who the driver is and what it offers as a whole. The same on the controller's and on the nodes'
//! socket.

use super::DRIVER_NAME;
use ashlar_rpc::csi::identity_server::Identity;
use ashlar_rpc::csi::plugin_capability::service::Type;
use ashlar_rpc::csi::plugin_capability::{self, Service, VolumeExpansion, volume_expansion};
use ashlar_rpc::csi::*;
use std::collections::HashMap;
use tonic::{Request, Response, Status};

/// Answers for a process that serves only once it is ready: the catalog is open, or the node service is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdentityService;

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: DRIVER_NAME.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: HashMap::new(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let offers = [
            Type::ControllerService,
            Type::VolumeAccessibilityConstraints,
            Type::GroupControllerService,
            Type::SnapshotMetadataService,
        ];
        let capability = |offer: Type| PluginCapability {
            r#type: Some(plugin_capability::Type::Service(Service { r#type: offer as i32 })),
        };
        let online = VolumeExpansion { r#type: volume_expansion::Type::Online as i32 };
        let expansion = PluginCapability { r#type: Some(plugin_capability::Type::VolumeExpansion(online)) };
        let capabilities = offers.map(capability).into_iter().chain([expansion]).collect();
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}
