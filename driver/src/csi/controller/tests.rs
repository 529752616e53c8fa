//! The codes and the idempotency that CSI asks for.

mod changes;
mod readers;
mod snapshots;

use super::*;
use crate::control::tests::{GIB, World};
use ashlar_rpc::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode};

async fn controller(nodes: u128) -> (World, ControllerService) {
    let world = World::with_nodes(nodes).await;
    let service = ControllerService::new(world.control.clone());
    (world, service)
}

fn capability(access_type: AccessType, mode: Mode) -> VolumeCapability {
    VolumeCapability { access_type: Some(access_type), access_mode: Some(AccessMode { mode: mode as i32 }) }
}

fn block() -> VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), Mode::SingleNodeWriter)
}

fn mount(fs_type: &str, mode: Mode) -> VolumeCapability {
    capability(AccessType::Mount(MountVolume { fs_type: fs_type.to_owned(), ..Default::default() }), mode)
}

fn create(name: &str, required_bytes: i64, limit_bytes: i64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange { required_bytes, limit_bytes }),
        volume_capabilities: vec![block()],
        ..Default::default()
    }
}

async fn created(service: &ControllerService, name: &str) -> Volume {
    service.create_volume(Request::new(create(name, GIB as i64, 0))).await.unwrap().into_inner().volume.unwrap()
}

fn publish(volume_id: &str, node_id: &str) -> ControllerPublishVolumeRequest {
    ControllerPublishVolumeRequest {
        volume_id: volume_id.to_owned(),
        node_id: node_id.to_owned(),
        volume_capability: Some(block()),
        ..Default::default()
    }
}

fn topology(node: &str) -> Topology {
    Topology { segments: HashMap::from([(TOPOLOGY_NODE.to_owned(), node.to_owned())]) }
}

fn code_of<T>(answer: Answer<T>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn create_is_idempotent_by_name_within_the_capacity_range() {
    let (_world, service) = controller(3).await;
    let first = created(&service, "a").await;
    assert_eq!((first.capacity_bytes, first.accessible_topology.len()), (GIB as i64, 0));
    assert_eq!(created(&service, "a").await.volume_id, first.volume_id);
    let wider = create("a", 1, 2 * GIB as i64);
    assert_eq!(
        service.create_volume(Request::new(wider)).await.unwrap().into_inner().volume.unwrap().volume_id,
        first.volume_id
    );
    assert_eq!(code_of(service.create_volume(Request::new(create("a", 2 * GIB as i64, 0))).await), Code::AlreadyExists);
    assert_eq!(code_of(service.create_volume(Request::new(create("b", 5000, 6000))).await), Code::OutOfRange);
    assert_eq!(code_of(service.create_volume(Request::new(create("b", 101 << 30, 0))).await), Code::ResourceExhausted);
}

#[tokio::test]
async fn everything_wrong_with_a_creation_is_named() {
    let (_world, service) = controller(3).await;
    let request = CreateVolumeRequest {
        name: "a\u{1}".to_owned(),
        capacity_range: Some(CapacityRange { required_bytes: -1, limit_bytes: 0 }),
        volume_capabilities: vec![mount("zfs", Mode::MultiNodeMultiWriter), VolumeCapability::default()],
        parameters: [("speed".to_owned(), "9".to_owned())].into(),
        secrets: [("key".to_owned(), "canary-secret".to_owned())].into(),
        mutable_parameters: [("iops".to_owned(), "9".to_owned())].into(),
        volume_content_source: Some(VolumeContentSource::default()),
        accessibility_requirements: Some(TopologyRequirement {
            requisite: vec![Topology { segments: HashMap::from([("foreign/key".to_owned(), "x".to_owned())]) }],
            preferred: vec![],
        }),
    };
    let status = service.create_volume(Request::new(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let parts = ["name", "negative", "zfs", "MULTI_NODE_MULTI_WRITER", "access_type", "access_mode", "speed", "iops"];
    for part in parts.iter().chain(&["volume_content_source", "foreign/key"]) {
        assert!(status.message().contains(part), "{part}: {}", status.message());
    }
    assert!(!status.message().contains("canary"), "{}", status.message());
    let nothing = CreateVolumeRequest::default();
    assert_eq!(code_of(service.create_volume(Request::new(nothing)).await), Code::InvalidArgument);
}

#[tokio::test]
async fn topology_decides_where_the_first_replica_is() {
    let (world, service) = controller(4).await;
    let all = (1..=4).map(|number| topology(&format!("n{number}"))).collect();
    let asked = TopologyRequirement { requisite: all, preferred: vec![topology("n4")] };
    let request = CreateVolumeRequest { accessibility_requirements: Some(asked), ..create("a", 4096, 0) };
    let volume = service.create_volume(Request::new(request)).await.unwrap().into_inner().volume.unwrap();
    assert!(volume.accessible_topology.is_empty());
    let found = world.control.volume(volume.volume_id.parse().unwrap()).await.unwrap();
    assert_eq!(found.volume.record.members[0].node.as_str(), "n4");
    let strict = TopologyRequirement { requisite: vec![topology("n2")], preferred: vec![topology("n2")] };
    let request = CreateVolumeRequest { accessibility_requirements: Some(strict), ..create("b", 4096, 0) };
    let volume = service.create_volume(Request::new(request)).await.unwrap().into_inner().volume.unwrap();
    assert_eq!(volume.accessible_topology, [topology("n2")]);
    assert_eq!(
        code_of(service.controller_publish_volume(Request::new(publish(&volume.volume_id, "n1"))).await),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn delete_is_idempotent_and_refused_while_published() {
    let (_world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    let delete = |id: &str| {
        service.delete_volume(Request::new(DeleteVolumeRequest { volume_id: id.to_owned(), ..Default::default() }))
    };
    service.controller_publish_volume(Request::new(publish(&id, "n1"))).await.unwrap();
    assert_eq!(code_of(delete(&id).await), Code::FailedPrecondition);
    assert_eq!(code_of(delete("").await), Code::InvalidArgument);
    assert_eq!(code_of(delete("../../etc/passwd").await), Code::Ok);
    let other = created(&service, "b").await.volume_id;
    assert_eq!(code_of(delete(&other).await), Code::Ok);
    assert_eq!(code_of(delete(&other).await), Code::Ok);
}

#[tokio::test]
async fn publish_has_the_codes_of_the_specification() {
    let (_world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    let answer = |request| service.controller_publish_volume(Request::new(request));
    assert_eq!(code_of(answer(ControllerPublishVolumeRequest::default()).await), Code::InvalidArgument);
    let missing = ControllerPublishVolumeRequest { volume_capability: None, ..publish(&id, "n1") };
    assert_eq!(code_of(answer(missing).await), Code::InvalidArgument);
    let long = publish(&"v".repeat(129), &"n".repeat(257));
    let status = answer(long).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("volume_id has 129") && status.message().contains("node_id has 257"));
    assert_eq!(code_of(answer(publish("no such volume", "n1")).await), Code::NotFound);
    assert_eq!(code_of(answer(publish("00000000-0000-0000-0000-000000000001", "n1")).await), Code::NotFound);
    assert_eq!(code_of(answer(publish(&id, "n9")).await), Code::NotFound);
    assert_eq!(code_of(answer(publish(&id, "bad/node")).await), Code::NotFound);
    assert_eq!(code_of(answer(publish(&id, "n1")).await), Code::Ok);
    assert_eq!(code_of(answer(publish(&id, "n1")).await), Code::Ok);
    let second = answer(publish(&id, "n2")).await.unwrap_err();
    assert_eq!(second.code(), Code::FailedPrecondition);
    assert!(second.message().contains("n1"), "{}", second.message());
}

#[tokio::test]
async fn unpublish_is_idempotent_and_touches_the_named_node_only() {
    let (world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    let unpublish = |id: &str, node: &str| {
        let request = ControllerUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            node_id: node.to_owned(),
            ..Default::default()
        };
        service.controller_unpublish_volume(Request::new(request))
    };
    service.controller_publish_volume(Request::new(publish(&id, "n1"))).await.unwrap();
    let holder = || async { world.control.volume(id.parse().unwrap()).await.unwrap().volume.record.holder };
    assert_eq!(code_of(unpublish(&id, "n2").await), Code::Ok);
    assert!(holder().await.is_some());
    assert_eq!(code_of(unpublish(&id, "n1").await), Code::Unavailable, "the datapath reports, but does not answer");
    let control = &world.control;
    let later = tokio::time::Instant::now() + std::time::Duration::from_secs(4);
    control.registry.end_silent(&control.catalog, later).await;
    assert_eq!(code_of(unpublish(&id, "n1").await), Code::Ok, "a silent node does not keep the volume");
    assert!(holder().await.is_none());
    assert_eq!(code_of(unpublish(&id, "").await), Code::Ok);
    assert_eq!(code_of(unpublish("gone", "n1").await), Code::Ok);
    assert_eq!(code_of(unpublish("", "n1").await), Code::InvalidArgument);
}

#[tokio::test]
async fn validate_confirms_what_is_offered_and_explains_what_is_not() {
    let (_world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    let validate = |volume_id: &str, volume_capabilities: Vec<VolumeCapability>| {
        let request = ValidateVolumeCapabilitiesRequest {
            volume_id: volume_id.to_owned(),
            volume_capabilities,
            ..Default::default()
        };
        service.validate_volume_capabilities(Request::new(request))
    };
    let good = vec![block(), mount("", Mode::SingleNodeWriter), mount("xfs", Mode::SingleNodeReaderOnly)];
    assert!(validate(&id, good).await.unwrap().into_inner().confirmed.is_some());
    let bad = validate(&id, vec![block(), mount("ext4", Mode::MultiNodeMultiWriter)]).await.unwrap().into_inner();
    assert!(bad.confirmed.is_none() && bad.message.contains("MULTI_NODE_MULTI_WRITER"), "{}", bad.message);
    assert_eq!(code_of(validate(&id, vec![]).await), Code::InvalidArgument);
    assert_eq!(code_of(validate("", vec![block()]).await), Code::InvalidArgument);
    assert_eq!(code_of(validate("gone", vec![block()]).await), Code::NotFound);
}

#[tokio::test]
async fn listing_pages_show_each_volume_once_with_its_node() {
    let (_world, service) = controller(3).await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(created(&service, name).await.volume_id);
    }
    service.controller_publish_volume(Request::new(publish(&ids[0], "n2"))).await.unwrap();
    let list = |max_entries, token: &str| {
        service.list_volumes(Request::new(ListVolumesRequest { max_entries, starting_token: token.to_owned() }))
    };
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = list(1, &token).await.unwrap().into_inner();
        seen.extend(page.entries);
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 3);
    for entry in seen {
        let published = entry.status.unwrap().published_node_ids;
        let expected: &[&str] = if entry.volume.unwrap().volume_id == ids[0] { &["n2"] } else { &[] };
        assert_eq!(published, expected);
    }
    assert_eq!(code_of(list(0, "no token of ours").await), Code::Aborted);
    assert_eq!(code_of(list(-1, "").await), Code::InvalidArgument);
}

#[tokio::test]
async fn capacity_is_what_can_be_created() {
    let (_world, service) = controller(3).await;
    let capacity = |request| async { service.get_capacity(Request::new(request)).await.unwrap().into_inner() };
    let all = capacity(GetCapacityRequest::default()).await;
    assert_eq!(all.maximum_volume_size, Some(90 << 30), "a tenth stays");
    let there = GetCapacityRequest { accessible_topology: Some(topology("n1")), ..Default::default() };
    assert_eq!(capacity(there).await.available_capacity, 90 << 30);
    let nowhere = GetCapacityRequest { accessible_topology: Some(topology("n9")), ..Default::default() };
    assert_eq!(capacity(nowhere).await.available_capacity, 0);
    let unknown = GetCapacityRequest { parameters: [("x".to_owned(), "y".to_owned())].into(), ..Default::default() };
    assert_eq!(capacity(unknown).await.available_capacity, 0);
    let largest = create("a", all.maximum_volume_size.unwrap(), 0);
    assert_eq!(code_of(service.create_volume(Request::new(largest)).await), Code::Ok);
    assert_eq!(capacity(GetCapacityRequest::default()).await.maximum_volume_size, Some(0));
}

fn modify(volume_id: &str, mutable: &[(&str, &str)]) -> Request<ControllerModifyVolumeRequest> {
    let mutable_parameters = mutable.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    Request::new(ControllerModifyVolumeRequest {
        volume_id: volume_id.to_owned(),
        mutable_parameters,
        ..Default::default()
    })
}

#[tokio::test]
async fn a_volume_is_modified_by_all_of_the_parameters_or_none() {
    let (world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    let settings = || async { world.control.volume(id.parse().unwrap()).await.unwrap().volume.settings };
    let given = [("class", "critical"), ("bandwidthLimit", "200Mi"), ("minReplicas", "1")];
    for _ in 0..2 {
        service.controller_modify_volume(modify(&id, &given)).await.unwrap();
    }
    let modified = settings().await;
    assert_eq!((modified.version, modified.class.name()), (1, "critical"), "asked again, it changes nothing");
    assert_eq!(modified.bytes.map(|limit| limit.per_second), Some(200 << 20));
    assert_eq!(world.control.volume(id.parse().unwrap()).await.unwrap().volume.record.min_replicas, 1);

    let wrong = [("class", "gold"), ("replicas", "2"), ("iopsLimit", "0"), ("speed", "9")];
    let status = service.controller_modify_volume(modify(&id, &wrong)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for part in ["class", "replicas is fixed", "iopsLimit", "\"speed\" is not known"] {
        assert!(status.message().contains(part), "{part}: {}", status.message());
    }
    let in_part = [("class", "low"), ("iopsBurst", "9")];
    assert_eq!(code_of(service.controller_modify_volume(modify(&id, &in_part)).await), Code::InvalidArgument);
    assert_eq!(settings().await, modified);
    assert_eq!(code_of(service.controller_modify_volume(modify("", &[])).await), Code::InvalidArgument);
    assert_eq!(code_of(service.controller_modify_volume(modify("nobody", &[])).await), Code::NotFound);
}

#[tokio::test]
async fn mutable_parameters_of_a_creation_count_before_the_others_and_the_request_is_known_again() {
    let (world, service) = controller(3).await;
    let text = |given: &[(&str, &str)]| given.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    let request = CreateVolumeRequest {
        parameters: text(&[("class", "low"), ("replicas", "2")]),
        mutable_parameters: text(&[("class", "high"), ("iopsLimit", "50")]),
        ..create("a", GIB as i64, 0)
    };
    let create = || service.create_volume(Request::new(request.clone()));
    let id = create().await.unwrap().into_inner().volume.unwrap().volume_id;
    let made = world.control.volume(id.parse().unwrap()).await.unwrap().volume;
    assert_eq!((made.settings.class.name(), made.settings.operations.unwrap().per_second), ("high", 50));
    service.controller_modify_volume(modify(&id, &[("iopsLimit", "none")])).await.unwrap();
    assert_eq!(create().await.unwrap().into_inner().volume.unwrap().volume_id, id, "a change makes it no other volume");
    let other = CreateVolumeRequest { mutable_parameters: text(&[("iopsLimit", "51")]), ..request.clone() };
    assert_eq!(code_of(service.create_volume(Request::new(other)).await), Code::AlreadyExists);
}

#[tokio::test]
async fn min_replicas_of_a_volume_in_use_is_no_matter_of_a_modification() {
    let (_world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    service.controller_publish_volume(Request::new(publish(&id, "n1"))).await.unwrap();
    let status =
        service.controller_modify_volume(modify(&id, &[("minReplicas", "1"), ("class", "low")])).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("detached"), "{}", status.message());
    service.controller_modify_volume(modify(&id, &[("minReplicas", "2"), ("class", "low")])).await.unwrap();
}

#[tokio::test]
async fn validation_looks_at_mutable_parameters_as_a_creation_does() {
    let (_world, service) = controller(3).await;
    let volume_id = created(&service, "a").await.volume_id;
    let validate = |value: &str| {
        service.validate_volume_capabilities(Request::new(ValidateVolumeCapabilitiesRequest {
            volume_id: volume_id.clone(),
            volume_capabilities: vec![block()],
            mutable_parameters: [("bandwidthLimit".to_owned(), value.to_owned())].into(),
            ..Default::default()
        }))
    };
    let confirmed = validate("200Mi").await.unwrap().into_inner().confirmed.unwrap();
    assert_eq!(confirmed.mutable_parameters["bandwidthLimit"], "200Mi");
    let refused = validate("fast").await.unwrap().into_inner();
    assert!(refused.confirmed.is_none() && refused.message.contains("bandwidthLimit"), "{}", refused.message);
}

#[tokio::test]
async fn what_is_offered_is_advertised_once() {
    let (_world, service) = controller(0).await;
    let offered = service.controller_get_capabilities(Request::new(ControllerGetCapabilitiesRequest {})).await.unwrap();
    let rpcs = offered.into_inner().capabilities.into_iter().map(|offered| match offered.r#type {
        Some(controller_service_capability::Type::Rpc(rpc)) => rpc.r#type,
        None => panic!("a capability of no kind"),
    });
    assert_eq!(rpcs.collect::<std::collections::BTreeSet<_>>().len(), OFFERED.len());
}
