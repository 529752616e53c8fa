//! Requests as they are read and refused, and the service as far as it goes without a cluster.

use super::request::{Access, Capability, Expand, Publish, Stage, Stats, Unpublish, Unstage};
use super::*;
use crate::mount::FsType;
use ashlar_rpc::csi::node_server::Node;
use ashlar_rpc::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode};
use ashlar_rpc::csi::{CapacityRange, VolumeCapability, node_service_capability::Type};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

const ID: &str = "6b1f7c2e-0d6f-4f4e-9a52-0a4f6c1d2e3f";

fn mount(fs_type: &str) -> MountVolume {
    MountVolume { fs_type: fs_type.to_owned(), ..MountVolume::default() }
}

fn capability(mode: Mode, access: Option<AccessType>) -> Option<VolumeCapability> {
    Some(VolumeCapability { access_mode: Some(AccessMode { mode: mode as i32 }), access_type: access })
}

fn writer(access: AccessType) -> Option<VolumeCapability> {
    capability(Mode::SingleNodeWriter, Some(access))
}

fn stage_request() -> NodeStageVolumeRequest {
    NodeStageVolumeRequest {
        volume_id: ID.to_owned(),
        staging_target_path: "/k/staging".to_owned(),
        volume_capability: writer(AccessType::Mount(mount("ext4"))),
        ..NodeStageVolumeRequest::default()
    }
}

fn publish_request() -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        volume_id: ID.to_owned(),
        staging_target_path: "/k/staging".to_owned(),
        target_path: "/k/target".to_owned(),
        volume_capability: writer(AccessType::Block(BlockVolume {})),
        ..NodePublishVolumeRequest::default()
    }
}

fn stage_with(change: impl FnOnce(&mut NodeStageVolumeRequest)) -> Result<Stage> {
    let mut request = stage_request();
    change(&mut request);
    Stage::check(request)
}

fn publish_with(change: impl FnOnce(&mut NodePublishVolumeRequest)) -> Result<Publish> {
    let mut request = publish_request();
    change(&mut request);
    Publish::check(request)
}

fn kind<T: std::fmt::Debug>(outcome: Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind
}

#[test]
fn requests_are_read_as_they_are_meant() {
    let stage = stage_with(|_| {}).unwrap();
    let expected = Access::Mount { fs_type: Some(FsType::Ext4), flags: Vec::new(), group: None };
    assert_eq!(
        stage.capability,
        Capability { access: expected, read_only: false, beside_others: false, exclusive: false }
    );
    let publish = publish_with(|request| request.readonly = true).unwrap();
    assert_eq!((publish.capability.access, publish.read_only), (Access::Block, true));
    let reader = capability(Mode::SingleNodeReaderOnly, Some(AccessType::Mount(mount(""))));
    let publish = publish_with(|request| request.volume_capability = reader).unwrap();
    assert!(publish.read_only && publish.capability.read_only);
    let group = MountVolume { volume_mount_group: "1000".to_owned(), ..mount("xfs") };
    let alone = capability(Mode::SingleNodeSingleWriter, Some(AccessType::Mount(group)));
    let publish = publish_with(|request| request.volume_capability = alone).unwrap();
    assert!(publish.capability.exclusive && !publish.read_only);
    assert_eq!(publish.capability.access.group(), Some("1000".parse().unwrap()));
    let shared = capability(Mode::SingleNodeMultiWriter, Some(AccessType::Block(BlockVolume {})));
    assert!(!publish_with(|request| request.volume_capability = shared).unwrap().capability.exclusive);
}

#[test]
fn what_is_missing_is_an_invalid_argument() {
    let invalid = [
        kind(stage_with(|request| request.volume_id.clear())),
        kind(stage_with(|request| request.staging_target_path.clear())),
        kind(stage_with(|request| request.volume_capability = None)),
        kind(stage_with(|request| request.volume_capability = capability(Mode::SingleNodeWriter, None))),
        kind(stage_with(|request| request.volume_capability.as_mut().unwrap().access_mode = None)),
        kind(publish_with(|request| request.volume_id.clear())),
        kind(publish_with(|request| request.target_path.clear())),
        kind(publish_with(|request| request.volume_capability = None)),
        kind(Unstage::check(NodeUnstageVolumeRequest::default())),
        kind(Unpublish::check(NodeUnpublishVolumeRequest::default())),
        kind(Stats::check(NodeGetVolumeStatsRequest::default())),
        kind(Expand::check(NodeExpandVolumeRequest::default())),
    ];
    assert_eq!(invalid, [ErrorKind::InvalidArgument; 12]);
    // CSI asks for another code where the staging path is missing in a publish.
    assert_eq!(kind(publish_with(|request| request.staging_target_path.clear())), ErrorKind::FailedPrecondition);
}

#[test]
fn everything_wrong_with_a_request_is_named_at_once() {
    let bad = MountVolume {
        fs_type: "zfs".to_owned(),
        volume_mount_group: "wheel".to_owned(),
        mount_flags: vec!["suid".to_owned()],
    };
    let request = NodePublishVolumeRequest {
        volume_id: "x".repeat(129),
        target_path: String::new(),
        volume_capability: capability(Mode::MultiNodeMultiWriter, Some(AccessType::Mount(bad))),
        secrets: [("key".to_owned(), "canary-secret".to_owned())].into(),
        ..publish_request()
    };
    let fault = Publish::check(request).unwrap_err();
    assert_eq!(fault.kind, ErrorKind::InvalidArgument);
    let parts = ["volume_id has 129", "target_path", "zfs", "wheel", "suid", "MULTI_NODE_MULTI_WRITER"];
    for part in parts {
        assert!(fault.message.contains(part), "{part}: {fault}");
    }
    assert!(!fault.message.contains("canary"), "{fault}");
}

#[test]
fn an_expansion_has_a_range_that_makes_sense() {
    let with = |required_bytes, limit_bytes| {
        let request = NodeExpandVolumeRequest {
            volume_id: ID.to_owned(),
            volume_path: "/k/target".to_owned(),
            capacity_range: Some(CapacityRange { required_bytes, limit_bytes }),
            ..NodeExpandVolumeRequest::default()
        };
        Expand::check(request)
    };
    let negative = with(-1, -1).unwrap_err();
    assert_eq!(negative.kind, ErrorKind::InvalidArgument);
    assert!(negative.message.contains("required_bytes") && negative.message.contains("limit_bytes"), "{negative}");
    assert_eq!(kind(with(8192, 4096)), ErrorKind::OutOfRange);
    let asked = with(4096, 0).unwrap();
    assert_eq!((asked.required_bytes, asked.limit_bytes), (4096, 0));
}

/// T8: an id that the control plane did not make names nothing, whatever is in it.
#[test]
fn hostile_ids_name_no_volume() {
    for id in ["../../etc", "a/b", "x\0y", "%2e%2e", &"9".repeat(128), "6b1f7c2e,ro"] {
        assert_eq!(kind(stage_with(|request| request.volume_id = id.to_owned())), ErrorKind::NotFound, "{id:?}");
    }
    let long = NodeUnstageVolumeRequest { volume_id: "x".repeat(4096), staging_target_path: "/k/s".to_owned() };
    assert_eq!(kind(Unstage::check(long)), ErrorKind::InvalidArgument);
}

#[test]
fn two_spellings_of_an_id_are_one_volume() {
    let unstage = |id: String| {
        let request = NodeUnstageVolumeRequest { volume_id: id, staging_target_path: "/k/s".to_owned() };
        Unstage::check(request).unwrap().volume
    };
    assert_eq!(unstage(ID.to_uppercase()), unstage(ID.to_owned()));
}

#[test]
fn access_that_is_not_offered_is_refused() {
    for mode in [Mode::MultiNodeMultiWriter, Mode::MultiNodeSingleWriter] {
        let asked = capability(mode, Some(AccessType::Block(BlockVolume {})));
        assert_eq!(
            kind(stage_with(|request| request.volume_capability = asked)),
            ErrorKind::InvalidArgument,
            "{mode:?}"
        );
    }
    let group = MountVolume { volume_mount_group: "postgres".to_owned(), ..mount("ext4") };
    let flags = MountVolume { mount_flags: vec!["nobarrier".to_owned()], ..mount("ext4") };
    for access in [mount("btrfs"), mount("ext4 -F"), group, flags] {
        let asked = writer(AccessType::Mount(access));
        assert_eq!(kind(stage_with(|request| request.volume_capability = asked)), ErrorKind::InvalidArgument);
    }
}

fn service(kubelet: &std::path::Path) -> NodeService {
    let settings = NodeSettings {
        node: "n1".parse().unwrap(),
        zone: Some("z1".parse().unwrap()),
        // Nobody listens there.
        control: "http://127.0.0.1:1".to_owned(),
        kubelet_dir: kubelet.to_owned(),
    };
    NodeService::open(settings, Metrics::default()).unwrap()
}

#[tokio::test]
async fn info_tells_the_place_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let info = service(dir.path()).node_get_info(Request::new(NodeGetInfoRequest {})).await.unwrap().into_inner();
    let segments = info.accessible_topology.unwrap().segments;
    assert_eq!(
        (info.node_id.as_str(), segments[TOPOLOGY_NODE].as_str(), segments[TOPOLOGY_ZONE].as_str()),
        ("n1", "n1", "z1")
    );
    assert_eq!(info.max_volumes_per_node, NODE_VOLUMES_MAX as i64);
}

#[tokio::test]
async fn nothing_is_offered_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path());
    let offered =
        service.node_get_capabilities(Request::new(NodeGetCapabilitiesRequest {})).await.unwrap().into_inner();
    let offered: Vec<_> = offered
        .capabilities
        .into_iter()
        .map(|capability| match capability.r#type {
            Some(Type::Rpc(rpc)) => rpc.r#type().as_str_name(),
            None => "",
        })
        .collect();
    let expected = [
        "STAGE_UNSTAGE_VOLUME",
        "GET_VOLUME_STATS",
        "EXPAND_VOLUME",
        "VOLUME_CONDITION",
        "SINGLE_NODE_MULTI_WRITER",
        "VOLUME_MOUNT_GROUP",
    ];
    assert_eq!(offered, expected);
}

#[tokio::test]
async fn a_control_plane_that_is_away_is_unavailable_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let staging = dir.path().join("staging");
    let path = staging.to_string_lossy().into_owned();
    let request = NodeStageVolumeRequest { staging_target_path: path, ..stage_request() };
    let error = service(dir.path()).node_stage_volume(Request::new(request)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(!staging.exists());
}

#[tokio::test]
async fn a_path_outside_the_kubelet_directory_is_an_invalid_argument() {
    let dir = tempfile::tempdir().unwrap();
    let error = service(dir.path()).node_stage_volume(Request::new(stage_request())).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}

#[tokio::test]
async fn a_volume_is_not_found_where_none_can_be() {
    let dir = tempfile::tempdir().unwrap();
    for volume_path in ["some/path", "/etc", "/no/such/path"] {
        let volume_path = volume_path.to_owned();
        let request = NodeGetVolumeStatsRequest { volume_id: ID.to_owned(), volume_path, ..Default::default() };
        let error = service(dir.path()).node_get_volume_stats(Request::new(request)).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{error}");
    }
}

#[tokio::test]
async fn a_target_that_never_was_is_unpublished_already() {
    let dir = tempfile::tempdir().unwrap();
    for below in ["target", "no/such/parent"] {
        let target_path = dir.path().join(below).to_string_lossy().into_owned();
        let request = NodeUnpublishVolumeRequest { volume_id: ID.to_owned(), target_path };
        service(dir.path()).node_unpublish_volume(Request::new(request)).await.unwrap();
    }
}

/// A caller that gives up does not end the operation, and the next try is told to wait.
#[tokio::test]
async fn an_operation_outlives_its_caller() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path());
    let (release, released) = oneshot::channel::<()>();
    let (ended, end) = oneshot::channel();
    let done = Arc::new(AtomicBool::new(false));
    let work = {
        let done = done.clone();
        async move {
            released.await.unwrap();
            done.store(true, Ordering::SeqCst);
            ended.send(()).unwrap();
            Ok(())
        }
    };
    let mut call = Box::pin(service.operate("test", ID.to_owned(), work));
    assert!(std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context).is_pending())).await);
    drop(call);
    let second = service.operate("test", ID.to_owned(), async { Ok(()) }).await.unwrap_err();
    assert_eq!(second.code(), Code::Aborted);
    release.send(()).unwrap();
    end.await.unwrap();
    assert!(done.load(Ordering::SeqCst));
}

#[test]
fn one_of_many_readers_never_writes() {
    for access in [AccessType::Block(BlockVolume {}), AccessType::Mount(mount("xfs"))] {
        let asked = capability(Mode::MultiNodeReaderOnly, Some(access));
        let stage = stage_with(|request| request.volume_capability = asked.clone()).unwrap();
        assert!(stage.capability.read_only && stage.capability.beside_others && !stage.capability.exclusive);
        assert!(publish_with(|request| request.volume_capability = asked).unwrap().read_only);
    }
    let alone = capability(Mode::SingleNodeReaderOnly, Some(AccessType::Mount(mount("xfs"))));
    let stage = stage_with(|request| request.volume_capability = alone).unwrap();
    assert!(stage.capability.read_only && !stage.capability.beside_others);
}
