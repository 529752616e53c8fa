//! The gRPC service of a node's datapath: what is said here, `attachments` does.

use crate::attachments::{Attachments, DetachMode, Wish};
use crate::runtime::Role;
use ashlar_rpc::control;
use ashlar_rpc::control::datapath_server::Datapath;
use tonic::{Request, Response, Status};

pub(crate) struct DatapathService {
    attachments: Attachments,
}

impl DatapathService {
    pub(crate) fn new(attachments: Attachments) -> DatapathService {
        DatapathService { attachments }
    }
}

#[tonic::async_trait]
impl Datapath for DatapathService {
    async fn attach(
        &self,
        request: Request<control::DatapathAttachRequest>,
    ) -> Result<Response<control::Device>, Status> {
        let request = request.into_inner();
        let frontend = match request.frontend() {
            control::Frontend::Unspecified => return Err(Status::invalid_argument("the front-end is missing")),
            frontend => frontend,
        };
        check_volume(&request.volume)?;
        let role = if request.reader { Role::Reader } else { Role::Writer };
        let wish = Wish { frontend, role, read_only: request.read_only || request.reader };
        logged("attach", &request.volume, self.attachments.attach(request.volume.clone(), wish).await)
    }

    async fn detach(
        &self,
        request: Request<control::DatapathDetachRequest>,
    ) -> Result<Response<control::DatapathDetachResponse>, Status> {
        let request = request.into_inner();
        check_volume(&request.volume)?;
        let mode = if request.force { DetachMode::Force } else { DetachMode::Clean };
        let detached = self.attachments.detach(request.volume.clone(), mode).await;
        logged("detach", &request.volume, detached.map(|()| control::DatapathDetachResponse {}))
    }

    async fn modify(
        &self,
        request: Request<control::DatapathModifyRequest>,
    ) -> Result<Response<control::DatapathModifyResponse>, Status> {
        let request = request.into_inner();
        check_volume(&request.volume)?;
        let modified = self.attachments.modify(&request.volume, request.settings.as_ref()).await;
        logged("modify", &request.volume, modified.map(|()| control::DatapathModifyResponse {}))
    }

    async fn expand(
        &self,
        request: Request<control::DatapathExpandRequest>,
    ) -> Result<Response<control::DatapathExpandResponse>, Status> {
        let request = request.into_inner();
        check_volume(&request.volume)?;
        let expanded = self.attachments.expand(request.volume.clone()).await;
        let answer = expanded.map(|size| control::DatapathExpandResponse { size_bytes: size.0 });
        logged("expand", &request.volume, answer)
    }

    async fn snapshot(
        &self,
        request: Request<control::DatapathSnapshotRequest>,
    ) -> Result<Response<control::DatapathSnapshotResponse>, Status> {
        let request = request.into_inner();
        check_volume(&request.volume)?;
        let taken = self.attachments.snapshot(&request.volume, &request.snapshot, request.held).await;
        let answer = taken.map(|taken| control::DatapathSnapshotResponse {
            point_lsn: taken.point.raw(),
            held_us: taken.held.as_micros() as u64,
        });
        logged("snapshot", &request.volume, answer)
    }

    async fn hold_writes(
        &self,
        request: Request<control::DatapathHoldRequest>,
    ) -> Result<Response<control::DatapathHoldResponse>, Status> {
        let request = request.into_inner();
        check_volume(&request.volume)?;
        let held = self.attachments.hold_writes(&request.volume, &request.snapshot, request.at_most_ms).await;
        logged("hold writes", &request.volume, held.map(|()| control::DatapathHoldResponse {}))
    }

    async fn steer(
        &self,
        request: Request<control::DatapathSteerRequest>,
    ) -> Result<Response<control::DatapathSteerResponse>, Status> {
        self.attachments.steer(&request.into_inner().volumes).await?;
        Ok(Response::new(control::DatapathSteerResponse {}))
    }

    async fn list(
        &self,
        _: Request<control::DatapathListRequest>,
    ) -> Result<Response<control::DatapathListResponse>, Status> {
        let volumes = self.attachments.report().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(control::DatapathListResponse { volumes }))
    }
}

/// A name or an id: both are names in form.
fn check_volume(volume: &str) -> Result<(), Status> {
    match volume.parse::<ashlar_types::VolumeName>() {
        Ok(_) => Ok(()),
        Err(error) => Err(Status::invalid_argument(error.to_string())),
    }
}

fn logged<T>(operation: &str, volume: &str, result: Result<T, Status>) -> Result<Response<T>, Status> {
    match result {
        Ok(answer) => {
            tracing::info!(volume, "{operation} is done");
            Ok(Response::new(answer))
        }
        Err(status) => {
            tracing::warn!(volume, %status, "{operation} is refused or failed");
            Err(status)
        }
    }
}
