//! What changes a volume that is there: expansion, publication for reading, and what is told of its condition.

use super::*;
use crate::control::attachment::Show;
use crate::control::tests::{disk, node, shown};
use ashlar_rpc::NODE_VOLUMES_MAX;
use ashlar_rpc::control::Frontend;
use std::sync::atomic::Ordering;

fn expand(volume_id: &str, required_bytes: i64, limit_bytes: i64) -> ControllerExpandVolumeRequest {
    ControllerExpandVolumeRequest {
        volume_id: volume_id.to_owned(),
        capacity_range: Some(CapacityRange { required_bytes, limit_bytes }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_volume_is_expanded_once_and_never_shrinks() {
    let (world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    let gib = GIB as i64;
    let size = |answer: Answer<ControllerExpandVolumeResponse>| answer.unwrap().into_inner().capacity_bytes;
    let ask = |required, limit| service.controller_expand_volume(Request::new(expand(&id, required, limit)));
    let grown = ask(2 * gib, 0).await.unwrap().into_inner();
    assert_eq!((grown.capacity_bytes, grown.node_expansion_required), (2 * gib, true));
    assert_eq!(size(ask(2 * gib, 0).await), 2 * gib, "asked again");
    assert_eq!(size(ask(gib, 0).await), 2 * gib, "it has that much already");
    assert_eq!(size(ask(0, 3 * gib).await), 2 * gib, "what it has is within the limit");
    assert_eq!(size(ask(2 * gib + 1, 0).await), 2 * gib + 4096, "rounded up to whole blocks");
    let shrink = ask(0, gib).await.unwrap_err();
    assert_eq!(shrink.code(), Code::OutOfRange);
    assert!(shrink.message().contains("limit_bytes") && shrink.message().contains("never shrinks"), "{shrink}");
    let record = world.control.volume(id.parse().unwrap()).await.unwrap().volume.record;
    assert_eq!((record.size.0, record.chunks[0].count), (2 * GIB + 4096, 33));
    let claims = world.control.catalog.claims().await.unwrap();
    assert_eq!(claims.of(disk(1)).0, 2 * GIB + (64 << 10), "whole slots are promised");
    let kinds = world.kinds_of_events().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "expanded").count(), 2);
}

#[tokio::test]
async fn an_expansion_that_makes_no_sense_is_refused_with_its_code() {
    let (_world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    let ask = |request| service.controller_expand_volume(Request::new(request));
    let everything = ControllerExpandVolumeRequest {
        volume_id: String::new(),
        capacity_range: None,
        volume_capability: Some(mount("zfs", Mode::MultiNodeMultiWriter)),
        secrets: [("key".to_owned(), "canary-secret".to_owned())].into(),
    };
    let status = ask(everything).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for part in ["volume_id", "capacity_range", "zfs", "MULTI_NODE_MULTI_WRITER"] {
        assert!(status.message().contains(part), "{part}: {status}");
    }
    assert!(!status.message().contains("canary"), "{status}");
    assert_eq!(code_of(ask(expand(&id, 0, 0)).await), Code::InvalidArgument);
    assert_eq!(code_of(ask(expand(&id, -1, 0)).await), Code::InvalidArgument);
    assert_eq!(code_of(ask(expand(&id, 8192, 4096)).await), Code::OutOfRange);
    assert_eq!(code_of(ask(expand(&id, i64::MAX, 0)).await), Code::OutOfRange);
    assert_eq!(code_of(ask(expand(&"x".repeat(200), 8192, 0)).await), Code::InvalidArgument);
    assert_eq!(code_of(ask(expand("no such volume", 8192, 0)).await), Code::NotFound);
    let status = ask(expand(&id, 101 << 30, 0)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("n1") && status.message().contains("n3"), "{status}");
}

#[tokio::test]
async fn the_holder_s_device_follows_and_an_expansion_that_it_missed_is_asked_again() {
    let (world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    let datapath = world.play_datapath("n1", None).await;
    let ask = |bytes: u64| service.controller_expand_volume(Request::new(expand(&id, bytes as i64, 0)));
    world.control.attach(id.parse().unwrap(), &node("n1"), shown(Frontend::Fuse)).await.unwrap();
    ask(2 * GIB).await.unwrap();
    assert_eq!(datapath.expanded_to.load(Ordering::SeqCst), 2 * GIB);
    let control = &world.control;
    let later = tokio::time::Instant::now() + std::time::Duration::from_secs(4);
    control.registry.end_silent(&control.catalog, later).await;
    let status = ask(3 * GIB).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("node n1") && status.message().contains("ask again"), "{status}");
    let datapath = world.play_datapath("n1", None).await;
    assert_eq!(ask(3 * GIB).await.unwrap().into_inner().capacity_bytes, 3 * GIB as i64);
    assert_eq!(datapath.expanded_to.load(Ordering::SeqCst), 3 * GIB);
}

#[tokio::test]
async fn a_publication_for_reading_is_kept_until_it_is_unpublished() {
    let (world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    let reading = || ControllerPublishVolumeRequest { readonly: true, ..publish(&id, "n1") };
    let ask = |request| service.controller_publish_volume(Request::new(request));
    ask(reading()).await.unwrap();
    ask(reading()).await.unwrap();
    let other = ask(publish(&id, "n1")).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    assert!(other.message().contains("for reading only"), "{other}");
    world.play_datapath("n1", None).await;
    let control = &world.control;
    let writing = control.attach(id.parse().unwrap(), &node("n1"), shown(Frontend::Fuse)).await.unwrap_err();
    assert_eq!(writing.kind, ErrorKind::FailedPrecondition);
    control.attach(id.parse().unwrap(), &node("n1"), Show { read_only: true, ..shown(Frontend::Fuse) }).await.unwrap();
    let request =
        ControllerUnpublishVolumeRequest { volume_id: id.clone(), node_id: "n1".to_owned(), ..Default::default() };
    service.controller_unpublish_volume(Request::new(request)).await.unwrap();
    ask(publish(&id, "n2")).await.unwrap();
    assert_eq!(
        code_of(ask(ControllerPublishVolumeRequest { readonly: true, ..publish(&id, "n2") }).await),
        Code::AlreadyExists
    );
}

#[tokio::test]
async fn a_node_is_given_no_more_volumes_than_it_takes() {
    let (_world, service) = controller(3).await;
    let make = |name: String| {
        let service = &service;
        async move {
            let volume = service.create_volume(Request::new(create(&name, 4096, 0))).await.unwrap().into_inner().volume;
            volume.unwrap().volume_id
        }
    };
    let ask = |id: String, node: &'static str| {
        let service = &service;
        async move { service.controller_publish_volume(Request::new(publish(&id, node))).await }
    };
    for number in 0..NODE_VOLUMES_MAX {
        ask(make(format!("v{number}")).await, "n1").await.unwrap();
    }
    let last = make("last".to_owned()).await;
    let status = ask(last.clone(), "n1").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("node n1"), "{status}");
    ask(last, "n2").await.unwrap();
}

#[tokio::test]
async fn a_volume_is_shown_with_its_node_and_condition() {
    let (world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    service.controller_publish_volume(Request::new(publish(&id, "n2"))).await.unwrap();
    let get = |volume_id: &str| {
        service.controller_get_volume(Request::new(ControllerGetVolumeRequest { volume_id: volume_id.to_owned() }))
    };
    let status = get(&id).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.published_node_ids, ["n2"]);
    assert!(!status.volume_condition.unwrap().abnormal);
    let control = &world.control;
    let later = tokio::time::Instant::now() + std::time::Duration::from_secs(4);
    control.registry.end_silent(&control.catalog, later).await;
    let condition = get(&id).await.unwrap().into_inner().status.unwrap().volume_condition.unwrap();
    assert!(condition.abnormal && condition.message.contains("writes wait"), "{condition:?}");
    let listed = service.list_volumes(Request::new(ListVolumesRequest::default())).await.unwrap().into_inner();
    assert_eq!(listed.entries[0].status.as_ref().unwrap().volume_condition.as_ref(), Some(&condition));
    assert_eq!(code_of(get("").await), Code::InvalidArgument);
    assert_eq!(code_of(get("gone").await), Code::NotFound);
    assert_eq!(code_of(get("00000000-0000-0000-0000-000000000001").await), Code::NotFound);
}
