//! The gRPC services: hostile requests, streams, status.

use super::*;
use ashlar_rpc::control::cluster_server::Cluster;
use ashlar_rpc::control::membership_server::Membership;
use ashlar_rpc::control::registry_server::Registry;
use tokio_stream::StreamExt;
use tonic::Code;

fn service(world: &World) -> Service {
    Service(world.control.clone())
}

#[tokio::test]
async fn everything_wrong_with_a_creation_is_reported_together() {
    let world = World::with_nodes(3).await;
    let request = proto::CreateVolumeRequest {
        name: "../etc".to_owned(),
        size_bytes: 4097,
        parameters: [("fast".to_owned(), "yes".to_owned()), ("replicas".to_owned(), "7".to_owned())].into(),
        node: "no/node".to_owned(),
        allowed_nodes: vec!["n\0".to_owned()],
        source: None,
    };
    let status = service(&world).create_volume(Request::new(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for part in ["name", "4097", "\"fast\"", "replicas", "node", "allowed_nodes"] {
        assert!(status.message().contains(part), "{part}: {}", status.message());
    }
}

#[tokio::test]
async fn a_volume_for_a_node_that_nobody_knows_is_refused() {
    let world = World::with_nodes(3).await;
    let create = |node: &str, allowed: &[&str]| proto::CreateVolumeRequest {
        name: "a".to_owned(),
        size_bytes: GIB,
        node: node.to_owned(),
        allowed_nodes: allowed.iter().map(|&node| node.to_owned()).collect(),
        ..Default::default()
    };
    for request in [create("n9", &[]), create("", &["n1", "n9"])] {
        let status = service(&world).create_volume(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains("n9"), "{}", status.message());
    }
    assert!(service(&world).create_volume(Request::new(create("n1", &["n1"]))).await.is_ok());
}

#[tokio::test]
async fn hostile_names_and_ids_get_an_error_and_nothing_else() {
    let world = World::with_nodes(3).await;
    let service = service(&world);
    for bad in ["", "/", "..", "a/b", "a\0b", &"x".repeat(300), "volume/..", "é"] {
        let reference = || Request::new(proto::VolumeRef { volume: bad.to_owned() });
        assert_eq!(service.get_volume(reference()).await.unwrap_err().code(), Code::InvalidArgument, "{bad:?}");
        assert_eq!(service.delete_volume(reference()).await.unwrap_err().code(), Code::InvalidArgument, "{bad:?}");
        let request = proto::CreateVolumeRequest { name: bad.to_owned(), size_bytes: GIB, ..Default::default() };
        assert_eq!(service.create_volume(Request::new(request)).await.unwrap_err().code(), Code::InvalidArgument);
        let grant = proto::GrantRequest { volume: bad.to_owned(), node: "n1".to_owned() };
        assert_eq!(service.grant(Request::new(grant)).await.unwrap_err().code(), Code::InvalidArgument);
        let proposal = proto::Proposal { volume: bad.to_owned(), epoch: 1, version: 1, change: None };
        assert_eq!(service.propose(Request::new(proposal)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    for size_bytes in [0, 1, 4095, u64::MAX] {
        let request = proto::CreateVolumeRequest { name: "a".to_owned(), size_bytes, ..Default::default() };
        assert_eq!(service.create_volume(Request::new(request)).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn volumes_are_listed_page_by_page_and_by_name_or_id() {
    let world = World::with_nodes(3).await;
    for name in ["a", "b", "c"] {
        world.create(name).await;
    }
    let service = service(&world);
    let list = |max_entries, token: &str| {
        service.list_volumes(Request::new(proto::ListVolumesRequest { max_entries, starting_token: token.to_owned() }))
    };
    let first = list(2, "").await.unwrap().into_inner();
    assert_eq!(first.volumes.len(), 2);
    let second = list(2, &first.next_token).await.unwrap().into_inner();
    assert_eq!((second.volumes.len(), second.next_token.as_str()), (1, ""));
    assert_eq!(list(0, "").await.unwrap().into_inner().volumes.len(), 3);
    assert_eq!(list(0, "nonsense").await.unwrap_err().code(), Code::Aborted);
    let by_id = proto::VolumeRef { volume: second.volumes[0].id.clone() };
    let found = service.get_volume(Request::new(by_id)).await.unwrap().into_inner();
    assert_eq!(found.name, second.volumes[0].name);
    assert_eq!(found.record.unwrap().members[0].address.split(':').next(), Some("127.0.0.1"));
}

#[tokio::test]
async fn followed_events_come_as_they_happen_and_only_those_asked_for() {
    let world = World::with_nodes(3).await;
    let a = world.create("a").await.volume.id();
    let request = proto::EventsRequest { volume: "a".to_owned(), max_entries: 10, follow: true };
    let mut stream = service(&world).events(Request::new(request)).await.unwrap().into_inner();
    world.create("b").await;
    world.control.reserve(a, &node("n1")).await.unwrap();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let event = stream.next().await.unwrap().unwrap();
        assert_eq!(event.volume, a.to_string());
        kinds.push(event.kind);
    }
    assert_eq!(kinds, ["created", "reserved"]);
}

#[tokio::test]
async fn status_gives_a_reason_for_everything_that_is_wrong() {
    let world = World::with_nodes(3).await;
    world.create("a").await;
    let status =
        || async { service(&world).get_status(Request::new(proto::GetStatusRequest {})).await.unwrap().into_inner() };
    let well = status().await;
    assert_eq!((well.health.as_str(), well.reasons.len(), well.disks_online, well.volumes), ("healthy", 0, 3, 1));
    let control = &world.control;
    control.registry.end_silent(&control.catalog, tokio::time::Instant::now() + Duration::from_secs(4)).await;
    world.chunkserver_reports(1, NOWHERE).await;
    world.chunkserver_reports(2, NOWHERE).await;
    let degraded = status().await;
    assert_eq!((degraded.health.as_str(), degraded.volumes_degraded), ("degraded", 1), "{:?}", degraded.reasons);
    assert!(degraded.reasons.iter().any(|reason| reason.contains("volume a has 2 of 3")), "{:?}", degraded.reasons);
    control.registry.end_silent(&control.catalog, tokio::time::Instant::now() + Duration::from_secs(4)).await;
    assert_eq!(status().await.health, "unavailable");
}

#[tokio::test]
async fn a_heartbeat_is_answered_with_the_cluster() {
    let world = World::with_nodes(3).await;
    let answer = service(&world).heartbeat(Request::new(chunkserver_beat(1, NOWHERE))).await.unwrap().into_inner();
    assert_eq!(answer.cluster, ClusterId::from_u128(1).to_string());
    assert_eq!(answer.interval_ms, 1000);
    let stranger = proto::HeartbeatRequest { node: "a b".to_owned(), ..chunkserver_beat(1, NOWHERE) };
    assert_eq!(service(&world).heartbeat(Request::new(stranger)).await.unwrap_err().code(), Code::InvalidArgument);
    let empty = proto::HeartbeatRequest { daemon: None, ..chunkserver_beat(1, NOWHERE) };
    assert_eq!(service(&world).heartbeat(Request::new(empty)).await.unwrap_err().code(), Code::InvalidArgument);
}
