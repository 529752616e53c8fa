//! The control plane on a real catalog, with daemons that this file plays.

mod attachments;
mod clones;
mod forgotten;
mod groups;
mod memberships;
mod placement;
mod readers;
mod removal;
mod repair;
mod services;
mod settings;
mod snapshots;
mod space;
mod volumes;

use super::attachment::{DetachMode, Show};
use super::registry::Report;
use super::service::Service;
use super::volumes::{NewVolume, SizeRange};
use super::*;
use crate::csi::params;
use ashlar_catalog::{MetaStore, RocksStore};
use ashlar_rpc::control::chunkserver_server::{Chunkserver, ChunkserverServer};
use ashlar_rpc::control::datapath_server::{Datapath, DatapathServer};
use ashlar_rpc::control::{self as proto, Frontend, heartbeat_request};
use ashlar_types::{ByteCount, Change, ClusterId, DiskId, Epoch, Lsn, NodeName, Snapshot, VolumeId};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

pub(crate) const BAD_BLOCKS_MAX: u64 = 10;
pub(crate) const GIB: u64 = 1 << 30;
/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";

/// A control plane with nodes that have reported.
pub(crate) struct World {
    pub(crate) control: Arc<Control>,
    directory: tempfile::TempDir,
}

pub(crate) fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub(crate) fn shown(frontend: Frontend) -> Show {
    Show { frontend, read_only: false, keeps_use: false, role: proto::AttachRole::Writer }
}

/// Disk of node `n<number>`.
pub(crate) fn disk(number: u128) -> DiskId {
    DiskId::from_u128(number)
}

async fn open(directory: &Path) -> Arc<Control> {
    let store = MetaStore::Rocks(RocksStore::open(directory).await.unwrap());
    let catalog = Catalog::open(store, None, ClusterId::from_u128(1)).await.unwrap();
    let metrics = Metrics::default();
    let mut control = Control::new(catalog, Duration::from_secs(1), Bounds::default(), metrics).await.unwrap();
    control.drain_beyond(BAD_BLOCKS_MAX);
    Arc::new(control)
}

impl World {
    /// `nodes` nodes n1, n2, ..., each with one disk of 100 GiB and a datapath that nobody answers for.
    pub(crate) async fn with_nodes(nodes: u128) -> World {
        let directory = tempfile::tempdir().unwrap();
        let control = open(directory.path()).await;
        let world = World { control, directory };
        for number in 1..=nodes {
            world.chunkserver_reports(number, NOWHERE).await;
            world.datapath_reports(&format!("n{number}"), NOWHERE).await;
        }
        world
    }

    /// Kills nothing and waits for nothing: a new process on the same catalog.
    pub(crate) async fn restarted(self) -> World {
        let World { control, directory } = self;
        drop(Arc::into_inner(control).expect("nobody else uses the control plane"));
        World { control: open(directory.path()).await, directory }
    }

    pub(crate) async fn report(&self, request: proto::HeartbeatRequest) -> Result<bool> {
        self.control.registry.report(&self.control.catalog, Report::check(request)?).await
    }

    pub(crate) async fn chunkserver_reports(&self, number: u128, rpc: &str) -> bool {
        self.report(chunkserver_beat(number, rpc)).await.unwrap()
    }

    pub(crate) async fn datapath_reports(&self, name: &str, rpc: &str) {
        let beat = proto::DatapathBeat { rpc_address: rpc.to_owned(), volumes: vec![] };
        let daemon = Some(heartbeat_request::Daemon::Datapath(beat));
        self.report(proto::HeartbeatRequest { node: name.to_owned(), daemon, ..Default::default() }).await.unwrap();
    }

    pub(crate) async fn create(&self, name: &str) -> StoredVolume {
        self.control.create_volume(wish(name, GIB)).await.unwrap()
    }

    pub(crate) async fn kinds_of_events(&self) -> Vec<String> {
        let (events, _) = self.control.catalog.events(None, usize::MAX).await.unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }
}

pub(crate) fn chunkserver_beat(number: u128, rpc: &str) -> proto::HeartbeatRequest {
    let reported = proto::Disk {
        id: disk(number).to_string(),
        capacity_bytes: 100 * GIB,
        free_bytes: 100 * GIB,
        state: proto::DiskState::Online as i32,
        ..Default::default()
    };
    let beat = proto::ChunkserverBeat {
        data_address: format!("127.0.0.1:{}", 7000 + number),
        rpc_address: rpc.to_owned(),
        disks: vec![reported],
    };
    let daemon = Some(heartbeat_request::Daemon::Chunkserver(beat));
    proto::HeartbeatRequest { node: format!("n{number}"), daemon, ..Default::default() }
}

pub(crate) fn wish(name: &str, size: u64) -> NewVolume {
    NewVolume {
        name: name.parse().unwrap(),
        size: SizeRange::exactly(ByteCount(size)).unwrap(),
        params: params::parse(&BTreeMap::new()).unwrap(),
        parameters: BTreeMap::new(),
        first_nodes: vec![],
        allowed_nodes: vec![],
        source: None,
    }
}

/// A datapath that takes an epoch on attach and closes cleanly on detach.
pub(crate) struct PlayedDatapath {
    control: Arc<Control>,
    node: NodeName,
    refuses: Option<Status>,
    detached: AtomicUsize,
    holds: AtomicUsize,
    /// Points that come too late from now on.
    lapses: AtomicUsize,
    modified: std::sync::Mutex<Vec<proto::DatapathModifyRequest>>,
    steered: std::sync::Mutex<Vec<proto::VolumeSteer>>,
    pub(crate) expanded_to: AtomicU64,
    address: String,
}

#[tonic::async_trait]
impl Datapath for PlayedDatapath {
    async fn attach(
        &self,
        request: Request<proto::DatapathAttachRequest>,
    ) -> std::result::Result<Response<proto::Device>, Status> {
        if let Some(status) = &self.refuses {
            return Err(status.clone());
        }
        let request = request.into_inner();
        let id = request.volume.parse().unwrap();
        let record = match request.reader {
            true => self.control.read(id, &self.node).await?.volume.record,
            false => self.control.grant(id, &self.node).await?,
        };
        let device =
            proto::Device { path: "/dev/x".to_owned(), frontend: request.frontend, epoch: record.epoch.number() };
        Ok(Response::new(device))
    }

    async fn detach(
        &self,
        request: Request<proto::DatapathDetachRequest>,
    ) -> std::result::Result<Response<proto::DatapathDetachResponse>, Status> {
        self.detached.fetch_add(1, Ordering::SeqCst);
        let id: VolumeId = request.into_inner().volume.parse().unwrap();
        let record = self.control.volume(id).await?.volume.record;
        if record.epoch.number() == 0 {
            return Err(Status::not_found("not attached here"));
        }
        self.control.propose(id, record.epoch, record.version, &Change::CloseClean).await?;
        Ok(Response::new(proto::DatapathDetachResponse {}))
    }

    async fn expand(
        &self,
        request: Request<proto::DatapathExpandRequest>,
    ) -> std::result::Result<Response<proto::DatapathExpandResponse>, Status> {
        if let Some(status) = &self.refuses {
            return Err(status.clone());
        }
        let record = self.control.volume(request.into_inner().volume.parse().unwrap()).await?.volume.record;
        self.expanded_to.store(record.size.0, Ordering::SeqCst);
        Ok(Response::new(proto::DatapathExpandResponse { size_bytes: record.size.0 }))
    }

    async fn snapshot(
        &self,
        request: Request<proto::DatapathSnapshotRequest>,
    ) -> std::result::Result<Response<proto::DatapathSnapshotResponse>, Status> {
        if let Some(status) = &self.refuses {
            return Err(status.clone());
        }
        let request = request.into_inner();
        let record = self.control.volume(request.volume.parse().unwrap()).await?.volume.record;
        if record.epoch == Epoch::NONE {
            return Err(Status::not_found("not attached here"));
        }
        // As many holds as it was told to are over before the point is asked for.
        let lapses = self.lapses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if request.held && lapses {
            return Err(Status::failed_precondition("its writes are no longer held"));
        }
        let point = Lsn::from_raw(Lsn::start_of(record.epoch).raw() + record.version);
        let change = Change::Snapshot(Snapshot { id: request.snapshot.parse().unwrap(), point });
        self.control.propose(record.volume, record.epoch, record.version, &change).await?;
        Ok(Response::new(proto::DatapathSnapshotResponse { point_lsn: point.raw(), held_us: 7 }))
    }

    async fn hold_writes(
        &self,
        request: Request<proto::DatapathHoldRequest>,
    ) -> std::result::Result<Response<proto::DatapathHoldResponse>, Status> {
        if let Some(status) = &self.refuses {
            return Err(status.clone());
        }
        assert!((1..=1000).contains(&request.into_inner().at_most_ms));
        self.holds.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(proto::DatapathHoldResponse {}))
    }

    async fn list(
        &self,
        _request: Request<proto::DatapathListRequest>,
    ) -> std::result::Result<Response<proto::DatapathListResponse>, Status> {
        Ok(Response::new(proto::DatapathListResponse::default()))
    }

    async fn steer(
        &self,
        request: Request<proto::DatapathSteerRequest>,
    ) -> std::result::Result<Response<proto::DatapathSteerResponse>, Status> {
        self.steered.lock().unwrap().extend(request.into_inner().volumes);
        Ok(Response::new(proto::DatapathSteerResponse {}))
    }

    async fn modify(
        &self,
        request: Request<proto::DatapathModifyRequest>,
    ) -> std::result::Result<Response<proto::DatapathModifyResponse>, Status> {
        self.modified.lock().unwrap().push(request.into_inner());
        Ok(Response::new(proto::DatapathModifyResponse {}))
    }
}

impl World {
    /// Plays the datapath of a node, which reports.
    pub(crate) async fn play_datapath(&self, name: &str, refuses: Option<Status>) -> Arc<PlayedDatapath> {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let played = Arc::new(PlayedDatapath {
            control: self.control.clone(),
            node: node(name),
            refuses,
            detached: AtomicUsize::new(0),
            holds: AtomicUsize::new(0),
            lapses: AtomicUsize::new(0),
            modified: Default::default(),
            steered: Default::default(),
            expanded_to: AtomicU64::new(0),
            address: address.clone(),
        });
        let server = tonic::transport::Server::builder().add_service(DatapathServer::from_arc(played.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        self.datapath_reports(name, &address).await;
        played
    }

    pub(crate) async fn datapath_reports_again(&self, name: &str, played: &PlayedDatapath) {
        self.datapath_reports(name, &played.address).await;
    }

    /// Plays the chunkserver of a node, which refuses the first `refusals` calls; tells of each deletion.
    async fn play_chunkserver(
        &self,
        number: u128,
        refusals: usize,
    ) -> mpsc::UnboundedReceiver<proto::DeleteReplicaRequest> {
        let (played, receiver) = PlayedChunkserver::new(refusals);
        self.serve_chunkserver(number, played).await;
        receiver
    }

    async fn serve_chunkserver(&self, number: u128, played: Arc<PlayedChunkserver>) {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(ChunkserverServer::from_arc(played));
        tokio::spawn(server.serve_with_incoming(incoming));
        if self.chunkserver_reports(number, &address).await {
            self.control.reap.notify_one();
        }
    }
}

/// Every chunk on it takes a byte of each kind.
pub(crate) struct PlayedChunkserver {
    refusals: AtomicUsize,
    asked: mpsc::UnboundedSender<proto::DeleteReplicaRequest>,
    /// How it answers who wants a clone's replica made; `None`: it makes it.
    pub(crate) clones_refused: std::sync::Mutex<Option<Status>>,
    /// Replicas that it has made, and has not told of as flat.
    pub(crate) cloned: std::sync::Mutex<Vec<proto::CloneReplicaRequest>>,
    pub(crate) is_flat: AtomicBool,
    /// Clones read what is to be deleted.
    pub(crate) keeps: AtomicBool,
    /// Which points it was told to keep.
    pub(crate) told: std::sync::Mutex<Vec<proto::KeepPointsRequest>>,
}

impl PlayedChunkserver {
    fn new(refusals: usize) -> (Arc<PlayedChunkserver>, mpsc::UnboundedReceiver<proto::DeleteReplicaRequest>) {
        let (asked, receiver) = mpsc::unbounded_channel();
        let played = PlayedChunkserver {
            refusals: AtomicUsize::new(refusals),
            asked,
            clones_refused: Default::default(),
            cloned: Default::default(),
            is_flat: AtomicBool::new(false),
            keeps: AtomicBool::new(false),
            told: Default::default(),
        };
        (Arc::new(played), receiver)
    }
}

impl PlayedChunkserver {
    fn may_refuse(&self) -> std::result::Result<(), Status> {
        let refused =
            self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if refused { Err(Status::unavailable("not now")) } else { Ok(()) }
    }
}

#[tonic::async_trait]
impl Chunkserver for PlayedChunkserver {
    async fn delete_replica(
        &self,
        request: Request<proto::DeleteReplicaRequest>,
    ) -> std::result::Result<Response<proto::DeleteReplicaResponse>, Status> {
        let _test_is_over = self.asked.send(request.into_inner());
        self.may_refuse()?;
        Ok(Response::new(proto::DeleteReplicaResponse { kept: self.keeps.load(Ordering::SeqCst) }))
    }

    async fn space(
        &self,
        request: Request<proto::ReplicaSpaceRequest>,
    ) -> std::result::Result<Response<proto::ReplicaSpace>, Status> {
        self.may_refuse()?;
        let request = request.into_inner();
        let count = request.chunks.iter().map(|span| u64::from(span.count)).sum();
        Ok(Response::new(proto::ReplicaSpace {
            used_bytes: 4 * count,
            unique_bytes: count,
            shared_bytes: count,
            snapshots_bytes: count,
            freed_by_each_bytes: vec![count; request.point_lsns.len()],
            freed_by_all_bytes: count,
        }))
    }

    async fn keep_points(
        &self,
        request: Request<proto::KeepPointsRequest>,
    ) -> std::result::Result<Response<proto::KeepPointsResponse>, Status> {
        self.may_refuse()?;
        self.told.lock().unwrap().push(request.into_inner());
        Ok(Response::new(proto::KeepPointsResponse {}))
    }

    async fn clone_replica(
        &self,
        request: Request<proto::CloneReplicaRequest>,
    ) -> std::result::Result<Response<proto::CloneReplicaResponse>, Status> {
        if let Some(status) = self.clones_refused.lock().unwrap().clone() {
            return Err(status);
        }
        self.cloned.lock().unwrap().push(request.into_inner());
        Ok(Response::new(proto::CloneReplicaResponse {}))
    }

    async fn status(
        &self,
        request: Request<proto::ChunkserverStatusRequest>,
    ) -> std::result::Result<Response<proto::ChunkserverStatus>, Status> {
        let wanted = request.into_inner().volumes;
        let is_flat = self.is_flat.load(Ordering::SeqCst);
        let cloned = self.cloned.lock().unwrap();
        let status = |request: &proto::CloneReplicaRequest| proto::ReplicaStatus {
            disk: request.disk.clone(),
            volume: request.volume.clone(),
            base_volume: if is_flat { String::new() } else { request.base_volume.clone() },
            ..Default::default()
        };
        let replicas = cloned.iter().filter(|request| wanted.contains(&request.volume)).map(status).collect();
        Ok(Response::new(proto::ChunkserverStatus { replicas, ..Default::default() }))
    }
}
