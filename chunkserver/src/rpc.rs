//! The control API of a chunkserver: what the control plane and people ask it. Never on the path of an I/O.

use crate::serve::{CloneError, CloneOrder, DiskSnapshot, HostGone, HostHandle, ReplicaError};
use crate::smart::{Report, Reports};
use ashlar_engine::{CloneRefusal, Deleted, EngineStatus, ReplicaStatus, Space};
use ashlar_rpc::control::chunkserver_server::Chunkserver;
use ashlar_rpc::control::{
    self, ChunkserverStatus, ChunkserverStatusRequest, CloneReplicaRequest, CloneReplicaResponse, DeleteReplicaRequest,
    DeleteReplicaResponse, DiskState, KeepPointsRequest, KeepPointsResponse, ReplicaSpace, ReplicaSpaceRequest,
};
use ashlar_types::{Base, ByteCount, ChunkIndex, DiskId, Epoch, Geometry, Kept, Lsn, NodeName, SLOT_BYTES, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(crate) struct ChunkserverService {
    pub(crate) node: NodeName,
    pub(crate) address: SocketAddr,
    pub(crate) host: HostHandle,
    pub(crate) smart: Reports,
}

#[tonic::async_trait]
impl Chunkserver for ChunkserverService {
    async fn delete_replica(
        &self,
        request: Request<DeleteReplicaRequest>,
    ) -> Result<Response<DeleteReplicaResponse>, Status> {
        let request = request.into_inner();
        let disk: DiskId = parse("disk", &request.disk)?;
        let volume: VolumeId = parse("volume", &request.volume)?;
        let epoch = parse_epoch(request.epoch)?;
        let deleted = self.host.delete(disk, volume, epoch).await.map_err(refused)?;
        let kept = deleted == Deleted::Kept;
        tracing::info!(%disk, %volume, %epoch, kept, "replica deleted");
        Ok(Response::new(DeleteReplicaResponse { kept }))
    }

    async fn clone_replica(
        &self,
        request: Request<CloneReplicaRequest>,
    ) -> Result<Response<CloneReplicaResponse>, Status> {
        let order = clone_order(&request.into_inner())?;
        self.host.make_clone(order).await.map_err(|error| match error {
            CloneError::NoSuchDisk(_) => Status::not_found(error.to_string()),
            CloneError::Refused(refusal) => refusal_to_status(refusal),
            CloneError::Ending => Status::unavailable(error.to_string()),
        })?;
        let CloneOrder { disk, volume, base, .. } = order;
        tracing::info!(%disk, %volume, source = %base.volume, point = %base.point, "replica of a clone made");
        Ok(Response::new(CloneReplicaResponse {}))
    }

    async fn keep_points(&self, request: Request<KeepPointsRequest>) -> Result<Response<KeepPointsResponse>, Status> {
        let request = request.into_inner();
        let replica: (DiskId, VolumeId) = (parse("disk", &request.disk)?, parse("volume", &request.volume)?);
        let live = request.point_lsns.iter().copied().map(Lsn::from_raw).collect();
        let kept = Kept { live, until: Lsn::from_raw(request.until_lsn) };
        if !kept.is_valid() {
            return Err(Status::invalid_argument("point_lsns: they do not ascend to until_lsn, or are too many"));
        }
        let points = kept.live.len();
        self.host.keep_points(replica, parse_epoch(request.epoch)?, kept).await.map_err(refused)?;
        tracing::info!(disk = %replica.0, volume = %replica.1, points, "points of snapshots kept, others given up");
        Ok(Response::new(KeepPointsResponse {}))
    }

    async fn space(&self, request: Request<ReplicaSpaceRequest>) -> Result<Response<ReplicaSpace>, Status> {
        let request = request.into_inner();
        let replica: (DiskId, VolumeId) = (parse("disk", &request.disk)?, parse("volume", &request.volume)?);
        let live = request.point_lsns.iter().copied().map(Lsn::from_raw).collect();
        let kept = Kept { live, until: Lsn::MAX };
        if !kept.is_valid() {
            return Err(Status::invalid_argument("point_lsns: they do not ascend, or are too many"));
        }
        let points: Arc<[Lsn]> = kept.live.into();
        let mut space = Space { freed_by_each: vec![0; points.len()], ..Space::default() };
        for chunks in &request.chunks {
            let until = chunks.first_chunk.checked_add(chunks.count);
            let until = until.ok_or_else(|| Status::invalid_argument("chunks: there are not so many"))?;
            let span = (ChunkIndex(chunks.first_chunk), ChunkIndex(until));
            space.add(&self.host.space(replica, span, &points).await.map_err(refused)?);
        }
        Ok(Response::new(space_to_proto(&space)))
    }

    async fn status(&self, request: Request<ChunkserverStatusRequest>) -> Result<Response<ChunkserverStatus>, Status> {
        let volumes = request.into_inner().volumes;
        let asked: BTreeSet<VolumeId> =
            volumes.iter().map(|volume| parse("volumes", volume)).collect::<Result<_, _>>()?;
        let snapshot = self.host.snapshot().await.map_err(|HostGone| Status::unavailable(HostGone.to_string()))?;
        let smart = self.smart.borrow().clone();
        let disks = snapshot.disks.iter().map(|disk| disk_to_proto(disk, &self.node, self.address, &smart)).collect();
        let replicas = snapshot.disks.iter().flat_map(replicas_to_proto);
        let replicas = replicas.filter(|(volume, _)| asked.is_empty() || asked.contains(volume));
        let replicas = replicas.map(|(_, replica)| replica).collect();
        Ok(Response::new(ChunkserverStatus { node: self.node.to_string(), disks, replicas }))
    }
}

/// A disk as the control plane knows it. The id is empty when the superblock could not be read.
pub(crate) fn disk_to_proto(
    disk: &DiskSnapshot,
    node: &NodeName,
    address: SocketAddr,
    smart: &BTreeMap<PathBuf, Report>,
) -> control::Disk {
    let state = if disk.failure.is_some() { DiskState::Failed } else { DiskState::Online };
    control::Disk {
        id: disk.id.map(|id| id.to_string()).unwrap_or_default(),
        node: node.to_string(),
        state: state as i32,
        capacity_bytes: disk.capacity.0,
        free_bytes: disk.free.0,
        provisioned_bytes: 0,
        address: address.to_string(),
        failure: disk.failure.clone().unwrap_or_default(),
        last_heartbeat_ms: 0,
        path: disk.path.display().to_string(),
        draining: false,
        scrub: disk.status.as_ref().map(scrub_to_proto),
        smart: smart.get(&disk.path).map(smart_to_proto),
    }
}

fn smart_to_proto(report: &Report) -> control::DiskSmart {
    let device = report.device.clone().unwrap_or_default();
    match &report.health {
        Err(reason) => control::DiskSmart { device, none: reason.clone(), ..control::DiskSmart::default() },
        Ok(health) => control::DiskSmart {
            device,
            none: String::new(),
            failing: health.is_failing,
            temperature_celsius: health.temperature_celsius,
            wear_percent: health.wear_percent,
            media_errors: health.media_errors,
            reallocated_sectors: health.reallocated_sectors,
            pending_sectors: health.pending_sectors,
            power_on_hours: health.power_on_hours,
        },
    }
}

fn scrub_to_proto(status: &EngineStatus) -> control::DiskScrub {
    let scrub = &status.scrub;
    control::DiskScrub {
        period_ms: scrub.period.map_or(0, |period| period.as_millis() as u64),
        elapsed_ms: scrub.elapsed.as_millis() as u64,
        slots_verified: scrub.slots,
        slots_used: u64::from(status.slots_used),
        rounds: scrub.rounds,
        last_ended_ms: scrub.ended_unix_ms,
        found_blocks: scrub.found_blocks,
        found_lately_blocks: scrub.found_lately_blocks,
        repaired_blocks: scrub.repaired_blocks,
        bad_blocks: scrub.bad_blocks,
    }
}

fn replicas_to_proto(disk: &DiskSnapshot) -> impl Iterator<Item = (VolumeId, control::ReplicaStatus)> + '_ {
    let id = disk.id.map(|id| id.to_string()).unwrap_or_default();
    let replicas = disk.status.iter().flat_map(|status| &status.replicas).filter(|replica| !replica.deleted);
    replicas.map(move |replica| (replica.volume, replica_to_proto(id.clone(), replica)))
}

fn replica_to_proto(disk: String, replica: &ReplicaStatus) -> control::ReplicaStatus {
    control::ReplicaStatus {
        disk,
        volume: replica.volume.to_string(),
        promised_epoch: replica.promised.number(),
        commit_lsn: replica.commit.raw(),
        syncing: replica.syncing.is_some(),
        used_bytes: replica.used_bytes.0,
        chunks: replica.chunks,
        stale_slots: u32::try_from(replica.stale_slots).unwrap_or(u32::MAX),
        base_volume: replica.base.map(|base| base.volume.to_string()).unwrap_or_default(),
        base_point_lsn: replica.base.map_or(0, |base| base.point.raw()),
    }
}

fn clone_order(request: &CloneReplicaRequest) -> Result<CloneOrder, Status> {
    let size = ByteCount(request.size_bytes);
    Geometry::new(size).map_err(|error| Status::invalid_argument(format!("size_bytes: {error}")))?;
    let point = Lsn::from_raw(request.base_point_lsn);
    if point == Lsn::ZERO {
        return Err(Status::invalid_argument("base_point_lsn: nothing was written before 0"));
    }
    Ok(CloneOrder {
        disk: parse("disk", &request.disk)?,
        volume: parse("volume", &request.volume)?,
        epoch: parse_epoch(request.epoch)?,
        size,
        base: Base { volume: parse("base_volume", &request.base_volume)?, point },
    })
}

/// What asking again cannot change, and what it can.
fn refusal_to_status(refusal: CloneRefusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        CloneRefusal::NotHere | CloneRefusal::Incomplete => Status::failed_precondition(text),
        CloneRefusal::Exists => Status::already_exists(text),
        CloneRefusal::Size => Status::invalid_argument(text),
        CloneRefusal::TooMany => Status::resource_exhausted(text),
        CloneRefusal::DiskFailed | CloneRefusal::Recovering => Status::unavailable(text),
    }
}

fn parse_epoch(number: u32) -> Result<Epoch, Status> {
    Epoch::new(number).ok_or_else(|| Status::invalid_argument(format!("epoch {number} is above {}", Epoch::MAX)))
}

fn space_to_proto(space: &Space) -> ReplicaSpace {
    let bytes = |slots: u64| slots * SLOT_BYTES;
    ReplicaSpace {
        used_bytes: bytes(space.taken),
        unique_bytes: bytes(space.unique),
        shared_bytes: bytes(space.shared),
        snapshots_bytes: bytes(space.snapshots),
        freed_by_each_bytes: space.freed_by_each.iter().copied().map(bytes).collect(),
        freed_by_all_bytes: bytes(space.freed_by_all),
    }
}

fn refused(error: ReplicaError) -> Status {
    match error {
        ReplicaError::NoSuchDisk(_) => Status::not_found(error.to_string()),
        ReplicaError::Refused(_) => Status::failed_precondition(error.to_string()),
        ReplicaError::Ending => Status::unavailable(error.to_string()),
    }
}

fn parse<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|error: T::Err| Status::invalid_argument(format!("{field}: {error}")))
}
