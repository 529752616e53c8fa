//! The gRPC services of the control plane: requests are checked field by field, handed to the functions beside this
//! file, and answered.

use super::attachment::{DetachMode, Detached, Show};
use super::present::{disk_to_proto, event_to_proto, node_to_proto, use_from_proto};
use super::registry::Report;
use super::settings::settings_to_proto;
use super::volumes::{NewVolume, SizeRange};
use super::{Control, to_the_end};
use crate::csi::params;
use crate::error::{Error, Result};
use ashlar_catalog::{ContentSource, Event, EventFeed, GROUP_VOLUMES_MAX};
use ashlar_rpc::control::cluster_server::Cluster;
use ashlar_rpc::control::membership_server::Membership;
use ashlar_rpc::control::registry_server::Registry;
use ashlar_rpc::control::*;
use ashlar_rpc::convert::{answer_to_proto, proposal_from_proto};
use ashlar_types::{ByteCount, ClusterId, DiskId, NodeName, VolumeId, VolumeName};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

const VOLUMES_PER_PAGE_MAX: usize = 1000;
const EVENTS_DEFAULT: usize = 100;
/// Events that wait for a slow reader; then it loses its stream and begins again.
const EVENT_QUEUE_MAX: usize = 64;

/// All three services over one control plane.
#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Arc<Control>);

type Answer<T> = std::result::Result<Response<T>, Status>;

fn field<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| Error::invalid(format!("{name}: {error}")))
}

/// The fields of a request that creates a volume; everything that is wrong with them is reported together.
fn new_volume(request: CreateVolumeRequest, source: Option<ContentSource>) -> Result<NewVolume> {
    let mut faults = Vec::new();
    let mut keep = |fault: Error| faults.push(fault.message);
    let name = field("name", &request.name).map_err(&mut keep).ok();
    let size = match request.size_bytes {
        0 if source.is_some() => Ok(SizeRange::of_source()),
        bytes => SizeRange::exactly(ByteCount(bytes)),
    };
    let size = size.map_err(&mut keep).ok();
    let node =
        (!request.node.is_empty()).then(|| field::<NodeName>("node", &request.node).map_err(&mut keep).ok()).flatten();
    let mut allowed_nodes: Vec<NodeName> =
        request.allowed_nodes.iter().filter_map(|node| field("allowed_nodes", node).map_err(&mut keep).ok()).collect();
    allowed_nodes.sort();
    allowed_nodes.dedup();
    if let Some(node) = node.as_ref().filter(|node| !allowed_nodes.is_empty() && !allowed_nodes.contains(node)) {
        keep(Error::invalid(format!("node {node} is not one of allowed_nodes")));
    }
    let params = params::parse(&request.parameters).map_err(|more| faults.extend(more)).ok();
    match (name, size, params) {
        (Some(name), Some(size), Some(params)) if faults.is_empty() => Ok(NewVolume {
            name,
            size,
            params,
            parameters: request.parameters.into_iter().collect(),
            first_nodes: node.into_iter().collect(),
            allowed_nodes,
            source,
        }),
        _ => Err(Error::invalid_all(&faults)),
    }
}

impl Service {
    async fn find_source(&self, source: &content_source::Of) -> Result<ContentSource> {
        Ok(match source {
            content_source::Of::Snapshot(snapshot) => {
                ContentSource::Snapshot(self.0.find_snapshot(snapshot).await?.snapshot.id)
            }
            content_source::Of::Volume(volume) => ContentSource::Volume(self.0.find_volume(volume).await?.volume.id()),
        })
    }

    /// Placement takes nodes as wishes; but one that nobody has heard of is a slip of the pen, not to be passed over.
    async fn refuse_unknown_nodes<'a>(&self, nodes: impl Iterator<Item = &'a NodeName>) -> Result<()> {
        let known = self.0.registry.nodes().await;
        for node in nodes {
            if !known.iter().any(|view| view.node.name == *node) {
                return Err(Error::not_found(format!("node {node}")));
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn create_volume(&self, request: Request<CreateVolumeRequest>) -> Answer<Volume> {
        let mut request = request.into_inner();
        let source = match request.source.take().and_then(|source| source.of) {
            Some(of) => Some(self.find_source(&of).await?),
            None => None,
        };
        let new = new_volume(request, source)?;
        self.refuse_unknown_nodes(new.first_nodes.iter().chain(&new.allowed_nodes)).await?;
        let control = self.0.clone();
        let created = to_the_end(async move { control.create_volume(new).await }).await?;
        Ok(Response::new(self.0.present_volume(&created).await))
    }

    async fn get_volume(&self, request: Request<VolumeRef>) -> Answer<Volume> {
        let found = self.0.find_volume(&request.into_inner().volume).await?;
        Ok(Response::new(self.0.present_volume(&found).await))
    }

    async fn get_volume_space(&self, request: Request<VolumeRef>) -> Answer<Volume> {
        let found = self.0.find_volume(&request.into_inner().volume).await?;
        let space = Some(self.0.space(&found.volume.record).await);
        Ok(Response::new(Volume { space, ..self.0.present_volume(&found).await }))
    }

    async fn list_volumes(&self, request: Request<ListVolumesRequest>) -> Answer<ListVolumesResponse> {
        let request = request.into_inner();
        let mut response = ListVolumesResponse { volumes: Vec::new(), next_token: request.starting_token };
        let wanted = match request.max_entries {
            0 => usize::MAX,
            some => some as usize,
        };
        loop {
            let limit = (wanted - response.volumes.len()).min(VOLUMES_PER_PAGE_MAX);
            let (page, next) = self.0.list_volumes(&response.next_token, limit).await?;
            let disks = self.0.disks_by_id().await;
            for seen in &page.volumes {
                response.volumes.push(self.0.present_volume_on(seen, &disks).await);
            }
            response.next_token = next.map(|id| id.to_string()).unwrap_or_default();
            if response.next_token.is_empty() || response.volumes.len() >= wanted {
                return Ok(Response::new(response));
            }
        }
    }

    async fn delete_volume(&self, request: Request<VolumeRef>) -> Answer<DeleteVolumeResponse> {
        let found = self.0.find_volume(&request.into_inner().volume).await?;
        self.0.delete_volume(found.volume.id()).await?;
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn attach_volume(&self, request: Request<AttachVolumeRequest>) -> Answer<Device> {
        let request = request.into_inner();
        let node: NodeName = field("node", &request.node)?;
        let frontend =
            Frontend::try_from(request.frontend).map_err(|_| Error::invalid("frontend is not one of ours"))?;
        let id = self.0.find_volume(&request.volume).await?.volume.id();
        let control = self.0.clone();
        let role = AttachRole::try_from(request.role).map_err(|_| Error::invalid("role is not one of ours"))?;
        if role != AttachRole::Writer && frontend == Frontend::Unspecified {
            return Err(Error::invalid("frontend is missing: only a writer reserves without one").into());
        }
        let read_only = request.read_only || role == AttachRole::Reader;
        let show = Show { frontend, read_only, keeps_use: request.keeps_use, role };
        let attach = async move { control.attach(id, &node, show).await };
        Ok(Response::new(to_the_end(attach).await?))
    }

    async fn detach_volume(&self, request: Request<DetachVolumeRequest>) -> Answer<DetachVolumeResponse> {
        let request = request.into_inner();
        let seen = self.0.find_volume(&request.volume).await?;
        let node = match request.node.as_str() {
            "" => None,
            name => Some(field::<NodeName>("node", name)?),
        };
        let mode = if request.force { DetachMode::Force } else { DetachMode::Clean };
        let (control, id) = (self.0.clone(), seen.volume.id());
        let freed = to_the_end(async move { control.detach(id, node.as_ref(), mode).await }).await?;
        if let Detached::HeldBy(holder) = freed {
            let text = format!("volume {} is held by node {holder}, not {}", seen.volume.name, request.node);
            return Err(Error::precondition(text).into());
        }
        Ok(Response::new(DetachVolumeResponse {}))
    }

    async fn set_settled(&self, request: Request<SetSettledRequest>) -> Answer<Volume> {
        let request = request.into_inner();
        let node: NodeName = field("node", &request.node)?;
        let id = self.0.find_volume(&request.volume).await?.volume.id();
        let settled = self.0.set_settled(id, &node).await?;
        Ok(Response::new(self.0.present_volume(&settled).await))
    }

    async fn expand_volume(&self, request: Request<ExpandVolumeRequest>) -> Answer<Volume> {
        let request = request.into_inner();
        let size = ByteCount(request.size_bytes);
        let range = SizeRange::exactly(size).map_err(|error| Error::invalid(format!("size_bytes: {error}")))?;
        let seen = self.0.find_volume(&request.volume).await?;
        let has = seen.volume.record.size;
        if size < has {
            let text = format!("size_bytes: volume {} has {has} bytes and never shrinks", seen.volume.name);
            return Err(Error::invalid(text).into());
        }
        let (control, id) = (self.0.clone(), seen.volume.id());
        let expanded = to_the_end(async move { control.expand_volume(id, range).await }).await?;
        Ok(Response::new(self.0.present_volume(&expanded).await))
    }

    async fn set_use(&self, request: Request<SetUseRequest>) -> Answer<Volume> {
        let request = request.into_inner();
        let (from, to) = (use_from_proto("from", request.from())?, use_from_proto("to", request.to())?);
        let id = self.0.find_volume(&request.volume).await?.volume.id();
        let changed = self.0.set_use(id, from, to, &request.fs_type).await?;
        Ok(Response::new(self.0.present_volume(&changed).await))
    }

    async fn modify_volume(&self, request: Request<ModifyVolumeRequest>) -> Answer<Volume> {
        let request = request.into_inner();
        let changes = params::parse_changes(&request.parameters).map_err(|faults| Error::invalid_all(&faults))?;
        let id = self.0.find_volume(&request.volume).await?.volume.id();
        let changed = self.0.modify_volume(id, &changes).await?;
        Ok(Response::new(self.0.present_volume(&changed).await))
    }

    async fn create_snapshot(&self, request: Request<CreateSnapshotRequest>) -> Answer<Snapshot> {
        let request = request.into_inner();
        let name: VolumeName = field("name", &request.name)?;
        let (control, id) = (self.0.clone(), self.0.find_volume(&request.volume).await?.volume.id());
        let taken = to_the_end(async move { control.create_snapshot(&name, id).await }).await?;
        Ok(Response::new(self.0.present_snapshot(&taken).await))
    }

    async fn get_snapshot(&self, request: Request<SnapshotRef>) -> Answer<Snapshot> {
        let found = self.0.find_snapshot(&request.into_inner().snapshot).await?;
        Ok(Response::new(self.0.present_snapshot(&found).await))
    }

    async fn list_snapshots(&self, request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        let request = request.into_inner();
        let of = match request.volume.as_str() {
            "" => None,
            volume => Some(self.0.find_volume(volume).await?.volume.id()),
        };
        let mut response = ListSnapshotsResponse { snapshots: Vec::new(), next_token: request.starting_token };
        let wanted = match request.max_entries {
            0 => usize::MAX,
            some => some as usize,
        };
        loop {
            let limit = (wanted - response.snapshots.len()).min(VOLUMES_PER_PAGE_MAX);
            let (page, next) = self.0.list_snapshots(&response.next_token, limit).await?;
            for seen in page.snapshots.iter().filter(|seen| of.is_none_or(|id| id == seen.snapshot.volume)) {
                response.snapshots.push(self.0.present_snapshot(seen).await);
            }
            response.next_token = next.map(|id| id.to_string()).unwrap_or_default();
            if response.next_token.is_empty() || response.snapshots.len() >= wanted {
                return Ok(Response::new(response));
            }
        }
    }

    async fn delete_snapshot(&self, request: Request<SnapshotRef>) -> Answer<DeleteSnapshotResponse> {
        let found = self.0.find_snapshot(&request.into_inner().snapshot).await?;
        let (control, id) = (self.0.clone(), found.snapshot.id);
        to_the_end(async move { control.delete_snapshot(id).await }).await?;
        Ok(Response::new(DeleteSnapshotResponse {}))
    }

    async fn create_snapshot_group(&self, request: Request<CreateSnapshotGroupRequest>) -> Answer<SnapshotGroup> {
        let request = request.into_inner();
        let name: VolumeName = field("name", &request.name)?;
        let mut volumes = Vec::new();
        for volume in request.volumes.iter().take(GROUP_VOLUMES_MAX + 1) {
            volumes.push(self.0.find_volume(volume).await?.volume.id());
        }
        let control = self.0.clone();
        let taken = to_the_end(async move { control.create_group(&name, &volumes).await }).await?;
        Ok(Response::new(self.0.present_group(&taken).await?))
    }

    async fn get_snapshot_group(&self, request: Request<SnapshotGroupRef>) -> Answer<SnapshotGroup> {
        let found = self.0.find_group(&request.into_inner().group).await?;
        Ok(Response::new(self.0.present_group(&found).await?))
    }

    async fn list_snapshot_groups(
        &self,
        request: Request<ListSnapshotGroupsRequest>,
    ) -> Answer<ListSnapshotGroupsResponse> {
        let request = request.into_inner();
        let mut response = ListSnapshotGroupsResponse { groups: Vec::new(), next_token: request.starting_token };
        let wanted = match request.max_entries {
            0 => usize::MAX,
            some => some as usize,
        };
        loop {
            let limit = (wanted - response.groups.len()).min(VOLUMES_PER_PAGE_MAX);
            let (page, next) = self.0.list_groups(&response.next_token, limit).await?;
            for seen in &page.groups {
                response.groups.push(self.0.present_group(seen).await?);
            }
            response.next_token = next.map(|id| id.to_string()).unwrap_or_default();
            if response.next_token.is_empty() || response.groups.len() >= wanted {
                return Ok(Response::new(response));
            }
        }
    }

    async fn delete_snapshot_group(&self, request: Request<SnapshotGroupRef>) -> Answer<DeleteSnapshotGroupResponse> {
        let found = self.0.find_group(&request.into_inner().group).await?;
        let (control, id) = (self.0.clone(), found.group.id);
        to_the_end(async move { control.delete_group(id).await }).await?;
        Ok(Response::new(DeleteSnapshotGroupResponse {}))
    }

    async fn list_nodes(&self, _request: Request<ListNodesRequest>) -> Answer<ListNodesResponse> {
        let nodes = self.0.registry.nodes().await.into_iter().map(node_to_proto).collect();
        Ok(Response::new(ListNodesResponse { nodes }))
    }

    async fn list_disks(&self, _request: Request<ListDisksRequest>) -> Answer<ListDisksResponse> {
        let claims = self.0.catalog.claims().await.map_err(Error::from)?;
        let disks = self.0.registry.disks().await.into_iter().map(|view| disk_to_proto(view, &claims)).collect();
        Ok(Response::new(ListDisksResponse { disks }))
    }

    async fn get_status(&self, _request: Request<GetStatusRequest>) -> Answer<ClusterStatus> {
        let health = self.0.health().await?;
        Ok(Response::new(health.into_status(self.0.catalog.cluster().to_string())))
    }

    type EventsStream = Pin<Box<dyn Stream<Item = std::result::Result<ashlar_rpc::control::Event, Status>> + Send>>;

    async fn events(&self, request: Request<EventsRequest>) -> Answer<Self::EventsStream> {
        let request = request.into_inner();
        let volume = match request.volume.as_str() {
            "" => None,
            // A deleted volume still has events: an id need not exist.
            text => match text.parse::<VolumeId>() {
                Ok(id) => Some(id),
                Err(_) => Some(self.0.find_volume(text).await?.volume.id()),
            },
        };
        let limit = if request.max_entries == 0 { EVENTS_DEFAULT } else { request.max_entries as usize };
        let (newest, feed) = self.0.catalog.events(volume, limit).await.map_err(Error::from)?;
        if !request.follow {
            let newest = newest.into_iter().map(|event| Ok(event_to_proto(event)));
            return Ok(Response::new(Box::pin(tokio_stream::iter(newest.collect::<Vec<_>>()))));
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(EVENT_QUEUE_MAX);
        tokio::spawn(follow(newest, feed, volume, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn declare_disk_lost(&self, request: Request<DeclareDiskLostRequest>) -> Answer<DeclareDiskLostResponse> {
        let request = request.into_inner();
        let disk: DiskId = field("disk", &request.disk)?;
        let volumes = self.0.declare_disk_lost(disk, request.proof_that_it_is_off).await?;
        Ok(Response::new(DeclareDiskLostResponse { volumes: volumes.iter().map(ToString::to_string).collect() }))
    }

    async fn drain_node(&self, request: Request<DrainNodeRequest>) -> Answer<Node> {
        let request = request.into_inner();
        let node: NodeName = field("node", &request.node)?;
        self.0.drain_node(&node, request.drain).await?;
        let view = self.0.registry.nodes().await.into_iter().find(|view| view.node.name == node);
        let view = view.ok_or_else(|| Error::not_found(format_args!("node {node}")))?;
        Ok(Response::new(node_to_proto(view)))
    }

    async fn drain_disk(&self, request: Request<DrainDiskRequest>) -> Answer<Disk> {
        let request = request.into_inner();
        let disk: DiskId = field("disk", &request.disk)?;
        self.0.drain_disk(disk, request.drain).await?;
        let claims = self.0.catalog.claims().await.map_err(Error::from)?;
        let view = self.0.registry.disks().await.into_iter().find(|view| view.disk.id == disk);
        let view = view.ok_or_else(|| Error::not_found(format_args!("disk {disk}")))?;
        Ok(Response::new(disk_to_proto(view, &claims)))
    }

    async fn remove_disk(&self, request: Request<RemoveDiskRequest>) -> Answer<RemoveDiskResponse> {
        let request = request.into_inner();
        let disk: DiskId = field("disk", &request.disk)?;
        let accepted = request.accept_data_loss.iter().map(|name| field("accept_data_loss", name));
        let accepted = accepted.collect::<Result<BTreeSet<VolumeName>>>()?;
        let control = self.0.clone();
        let lost = to_the_end(async move { control.remove_disk(disk, &accepted).await }).await?;
        Ok(Response::new(RemoveDiskResponse { lost_volumes: lost.iter().map(ToString::to_string).collect() }))
    }

    async fn get_volume_choices(&self, request: Request<VolumeRef>) -> Answer<VolumeChoices> {
        let found = self.0.find_volume(&request.into_inner().volume).await?;
        Ok(Response::new(self.0.volume_choices(&found).await?))
    }

    async fn safe_to_stop(&self, request: Request<SafeToStopRequest>) -> Answer<SafeToStopResponse> {
        let node: NodeName = field("node", &request.into_inner().node)?;
        Ok(Response::new(self.0.safe_to_stop(&node).await?))
    }
}

type EventSender = tokio::sync::mpsc::Sender<std::result::Result<ashlar_rpc::control::Event, Status>>;

/// Sends the newest events, then each as it comes, until the reader goes away.
async fn follow(newest: Vec<Event>, mut feed: EventFeed, volume: Option<VolumeId>, sender: EventSender) {
    for event in newest {
        if sender.send(Ok(event_to_proto(event))).await.is_err() {
            return;
        }
    }
    loop {
        let next = tokio::select! {
            next = feed.next() => next,
            () = sender.closed() => return,
        };
        let message = match next {
            Ok(Some(event)) if volume.is_some() && event.volume != volume => continue,
            Ok(Some(event)) => Ok(event_to_proto(event)),
            Ok(None) => return,
            Err(error) => Err(Error::from(error).into()),
        };
        let ends = message.is_err();
        if sender.send(message).await.is_err() || ends {
            return;
        }
    }
}

#[tonic::async_trait]
impl Membership for Service {
    async fn grant(&self, request: Request<GrantRequest>) -> Answer<VolumeRecord> {
        let request = request.into_inner();
        let (id, node): (VolumeId, NodeName) = (field("volume", &request.volume)?, field("node", &request.node)?);
        let record = self.0.grant(id, &node).await?;
        // Read after the grant: who changes them from now on sees the holder, and tells it.
        let settings = self.0.volume(id).await?.volume.settings;
        let record = self.0.present_record(&record).await;
        Ok(Response::new(VolumeRecord { settings: Some(settings_to_proto(settings)), ..record }))
    }

    async fn propose(&self, request: Request<Proposal>) -> Answer<ProposalAnswer> {
        let request = request.into_inner();
        let id: VolumeId = field("volume", &request.volume)?;
        let (epoch, version, change) = proposal_from_proto(&request).map_err(Error::from)?;
        let answer = self.0.propose(id, epoch, version, &change).await?;
        let addresses = match &answer {
            ashlar_types::ChangeAnswer::Applied { record } | ashlar_types::ChangeAnswer::Refused { record, .. } => {
                Some(self.0.registry.addresses(record).await)
            }
            ashlar_types::ChangeAnswer::Fenced { .. } => None,
        };
        let address_of = |disk| addresses.as_ref().map(|addresses| addresses.of(disk)).unwrap_or_default();
        Ok(Response::new(answer_to_proto(&answer, address_of)))
    }

    async fn read(&self, request: Request<GrantRequest>) -> Answer<VolumeRecord> {
        let request = request.into_inner();
        let (id, node): (VolumeId, NodeName) = (field("volume", &request.volume)?, field("node", &request.node)?);
        let seen = self.0.read(id, &node).await?;
        let settings = Some(settings_to_proto(seen.volume.settings));
        Ok(Response::new(VolumeRecord { settings, ..self.0.present_record(&seen.volume.record).await }))
    }

    async fn get_record(&self, request: Request<RecordRef>) -> Answer<VolumeRecord> {
        let id: VolumeId = field("volume", &request.into_inner().volume)?;
        let seen = self.0.volume(id).await?;
        Ok(Response::new(self.0.present_record(&seen.volume.record).await))
    }
}

#[tonic::async_trait]
impl Registry for Service {
    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Answer<HeartbeatResponse> {
        let report = Report::check(request.into_inner())?;
        let (settings, records) = (report.settings_versions(), report.record_versions());
        if self.0.registry.report(&self.0.catalog, report).await? {
            self.0.reap.notify_one();
            self.0.clones.notify_one();
            self.0.forgotten.notify_one();
            self.0.repair.news.notify_one();
        }
        let cluster: ClusterId = self.0.catalog.cluster();
        let interval_ms = self.0.registry.interval().as_millis() as u64;
        let modify_volumes = self.0.volumes_to_modify(&settings).await?;
        let newer_records = self.0.newer_records(&records).await?;
        let cluster = cluster.to_string();
        Ok(Response::new(HeartbeatResponse { cluster, interval_ms, modify_volumes, newer_records }))
    }
}
