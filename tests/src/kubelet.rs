//! CSI calls in the order and with the fields that the sidecars and a kubelet would send.

use anyhow::{Context, Result};
use ashlar_rpc::csi::{
    self, CapacityRange, ControllerExpandVolumeRequest, ControllerPublishVolumeRequest,
    ControllerUnpublishVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest, NodeExpandVolumeRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, Topology,
    TopologyRequirement, VolumeCapability, VolumeContentSource,
    controller_client::ControllerClient,
    identity_client::IdentityClient,
    node_client::NodeClient,
    snapshot_metadata_client::SnapshotMetadataClient,
    volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode},
    volume_content_source::{SnapshotSource, Type as SourceType},
};
use hyper_util::rt::TokioIo;
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::transport::{Channel, Endpoint};

const TOPOLOGY_KEY: &str = "topology.block.csi.ashlar.io/node";

/// One node's kubelet with the controller's sidecars.
pub struct Kubelet {
    runtime: Runtime,
    node: String,
    /// Every node of the cluster: what the external provisioner knows of its topology.
    nodes: Vec<String>,
    dir: PathBuf,
    controller_socket: PathBuf,
    node_socket: PathBuf,
}

/// A volume on its way to a pod.
pub struct MountedVolume {
    pub id: String,
    pub context: HashMap<String, String>,
    pub capability: VolumeCapability,
    pub staging: PathBuf,
    pub target: PathBuf,
}

impl Kubelet {
    /// `dir` is the kubelet's folder, below which staging and target paths are made.
    pub fn new(
        node: &str,
        nodes: Vec<String>,
        dir: &Path,
        controller_socket: PathBuf,
        node_socket: PathBuf,
    ) -> Result<Kubelet> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Kubelet { runtime, node: node.to_owned(), nodes, dir: dir.to_owned(), controller_socket, node_socket })
    }

    /// Runs calls of one's own against the clients.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub async fn controller(&self) -> Result<ControllerClient<Channel>> {
        Ok(ControllerClient::new(channel(&self.controller_socket).await?))
    }

    pub async fn identity(&self) -> Result<IdentityClient<Channel>> {
        Ok(IdentityClient::new(channel(&self.controller_socket).await?))
    }

    pub async fn snapshot_metadata(&self) -> Result<SnapshotMetadataClient<Channel>> {
        Ok(SnapshotMetadataClient::new(channel(&self.controller_socket).await?))
    }

    pub async fn node(&self) -> Result<NodeClient<Channel>> {
        Ok(NodeClient::new(channel(&self.node_socket).await?))
    }

    /// A filesystem on one node.
    pub fn mount_capability(fs_type: &str) -> VolumeCapability {
        let mount = MountVolume { fs_type: fs_type.to_owned(), ..MountVolume::default() };
        VolumeCapability {
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter as i32 }),
            access_type: Some(AccessType::Mount(mount)),
        }
    }

    /// A raw device on one node.
    pub fn block_capability() -> VolumeCapability {
        VolumeCapability {
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter as i32 }),
            access_type: Some(AccessType::Block(BlockVolume {})),
        }
    }

    /// What the external provisioner sends for a claim of a pod that was scheduled to this node.
    pub fn create_request(&self, name: &str, bytes: i64, capability: &VolumeCapability) -> CreateVolumeRequest {
        let topology = |node: &String| Topology { segments: HashMap::from([(TOPOLOGY_KEY.to_owned(), node.clone())]) };
        let requisite: Vec<Topology> = self.nodes.iter().map(topology).collect();
        let (mut preferred, others): (Vec<&String>, Vec<&String>) =
            self.nodes.iter().partition(|node| **node == self.node);
        preferred.extend(others);
        let preferred = preferred.into_iter().map(topology).collect();
        CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            volume_capabilities: vec![capability.clone()],
            accessibility_requirements: Some(TopologyRequirement { requisite, preferred }),
            ..CreateVolumeRequest::default()
        }
    }

    pub fn create(&self, name: &str, bytes: i64, capability: VolumeCapability) -> Result<MountedVolume> {
        self.create_of(self.create_request(name, bytes, &capability), capability)
    }

    /// With what a snapshot holds.
    pub fn restore(
        &self,
        name: &str,
        bytes: i64,
        capability: VolumeCapability,
        snapshot_id: &str,
    ) -> Result<MountedVolume> {
        let of = SourceType::Snapshot(SnapshotSource { snapshot_id: snapshot_id.to_owned() });
        let source = Some(VolumeContentSource { r#type: Some(of) });
        let request = self.create_request(name, bytes, &capability);
        self.create_of(CreateVolumeRequest { volume_content_source: source, ..request }, capability)
    }

    fn create_of(&self, request: CreateVolumeRequest, capability: VolumeCapability) -> Result<MountedVolume> {
        let volume = self.block_on(async {
            let answer = self.controller().await?.create_volume(request).await.context("CreateVolume")?;
            answer.into_inner().volume.context("CreateVolume answers with a volume")
        })?;
        Ok(self.volume(volume, capability))
    }

    fn volume(&self, volume: csi::Volume, capability: VolumeCapability) -> MountedVolume {
        self.place(volume.volume_id, volume.volume_context, capability)
    }

    fn place(&self, id: String, context: HashMap<String, String>, capability: VolumeCapability) -> MountedVolume {
        let plugin = self.dir.join("plugins/kubernetes.io/csi/block.csi.ashlar.io").join(&id);
        let pod = self.dir.join("pods").join(&id).join("volumes/kubernetes.io~csi").join("data");
        MountedVolume { staging: plugin.join("globalmount"), target: pod.join("mount"), id, context, capability }
    }

    /// ControllerPublish, NodeStage, NodePublish.
    pub fn mount(&self, volume: &MountedVolume) -> Result<()> {
        let publish_context = self.publish(volume)?;
        self.stage(volume, &publish_context)?;
        self.publish_on_node(volume, &publish_context)
    }

    pub fn publish(&self, volume: &MountedVolume) -> Result<HashMap<String, String>> {
        let request = ControllerPublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: self.node.clone(),
            volume_capability: Some(volume.capability.clone()),
            volume_context: volume.context.clone(),
            ..ControllerPublishVolumeRequest::default()
        };
        self.block_on(async {
            let answer = self.controller().await?.controller_publish_volume(request).await;
            Ok(answer.context("ControllerPublishVolume")?.into_inner().publish_context)
        })
    }

    pub fn stage(&self, volume: &MountedVolume, publish_context: &HashMap<String, String>) -> Result<()> {
        fs::create_dir_all(&volume.staging).context("make the staging folder")?;
        let request = NodeStageVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: volume.staging.to_string_lossy().into_owned(),
            volume_capability: Some(volume.capability.clone()),
            volume_context: volume.context.clone(),
            ..NodeStageVolumeRequest::default()
        };
        self.block_on(async { self.node().await?.node_stage_volume(request).await.context("NodeStageVolume") })?;
        Ok(())
    }

    pub fn publish_on_node(&self, volume: &MountedVolume, publish_context: &HashMap<String, String>) -> Result<()> {
        fs::create_dir_all(volume.target.parent().context("target has a parent")?)?;
        let request = NodePublishVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: volume.staging.to_string_lossy().into_owned(),
            target_path: volume.target.to_string_lossy().into_owned(),
            volume_capability: Some(volume.capability.clone()),
            volume_context: volume.context.clone(),
            ..NodePublishVolumeRequest::default()
        };
        self.block_on(async { self.node().await?.node_publish_volume(request).await.context("NodePublishVolume") })?;
        Ok(())
    }

    /// NodeUnpublish, NodeUnstage, ControllerUnpublish.
    pub fn unmount(&self, volume: &MountedVolume) -> Result<()> {
        let unpublish = NodeUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            target_path: volume.target.to_string_lossy().into_owned(),
        };
        let unstage = NodeUnstageVolumeRequest {
            volume_id: volume.id.clone(),
            staging_target_path: volume.staging.to_string_lossy().into_owned(),
        };
        let release = ControllerUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: self.node.clone(),
            ..ControllerUnpublishVolumeRequest::default()
        };
        self.block_on(async {
            let mut node = self.node().await?;
            node.node_unpublish_volume(unpublish).await.context("NodeUnpublishVolume")?;
            node.node_unstage_volume(unstage).await.context("NodeUnstageVolume")?;
            let released = self.controller().await?.controller_unpublish_volume(release).await;
            released.context("ControllerUnpublishVolume")?;
            Ok(())
        })
    }

    /// ControllerExpand, as the resizer does it, then NodeExpand at the pod's path; gives the new size.
    pub fn expand(&self, volume: &MountedVolume, bytes: i64) -> Result<i64> {
        let range = CapacityRange { required_bytes: bytes, limit_bytes: 0 };
        let controller = ControllerExpandVolumeRequest {
            volume_id: volume.id.clone(),
            capacity_range: Some(range),
            volume_capability: Some(volume.capability.clone()),
            ..ControllerExpandVolumeRequest::default()
        };
        let node = NodeExpandVolumeRequest {
            volume_id: volume.id.clone(),
            volume_path: volume.target.to_string_lossy().into_owned(),
            staging_target_path: volume.staging.to_string_lossy().into_owned(),
            capacity_range: Some(range),
            volume_capability: Some(volume.capability.clone()),
            ..NodeExpandVolumeRequest::default()
        };
        self.block_on(async {
            let expanded = self.controller().await?.controller_expand_volume(controller).await;
            let expanded = expanded.context("ControllerExpandVolume")?.into_inner();
            if expanded.node_expansion_required {
                self.node().await?.node_expand_volume(node).await.context("NodeExpandVolume")?;
            }
            Ok(expanded.capacity_bytes)
        })
    }

    pub fn delete(&self, volume: &MountedVolume) -> Result<()> {
        let request = DeleteVolumeRequest { volume_id: volume.id.clone(), ..DeleteVolumeRequest::default() };
        self.block_on(async { self.controller().await?.delete_volume(request).await.context("DeleteVolume") })?;
        Ok(())
    }
}

impl MountedVolume {
    /// The same volume with the paths that another node's kubelet would use.
    pub fn on(&self, kubelet: &Kubelet) -> MountedVolume {
        kubelet.place(self.id.clone(), self.context.clone(), self.capability.clone())
    }
}

async fn channel(socket: &Path) -> Result<Channel> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    // The address is not used: the connector knows the socket.
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await.with_context(|| format!("connect to {}", socket.display()))
}
