//! Volumes that many nodes read: who is let in, who makes them ready, who is kept out meanwhile.

use super::*;
use ashlar_rpc::control::AttachRole;
use ashlar_rpc::control::membership_server::Membership;

fn as_role(role: AttachRole) -> Show {
    Show { read_only: role == AttachRole::Reader, keeps_use: true, role, ..shown(Frontend::Fuse) }
}

/// A volume that n1 and n2 read, made ready by n1.
async fn settled(world: &World) -> VolumeId {
    let id = world.create("a").await.volume.id();
    let control = &world.control;
    control.publish_reader(id, &node("n1")).await.unwrap();
    control.publish_reader(id, &node("n2")).await.unwrap();
    control.attach(id, &node("n1"), as_role(AttachRole::Settler)).await.unwrap();
    opened(world, id).await;
    control.set_settled(id, &node("n1")).await.unwrap();
    let record = control.volume(id).await.unwrap().volume.record;
    control.propose(id, record.epoch, record.version, &Change::CloseClean).await.unwrap();
    id
}

async fn opened(world: &World, id: VolumeId) {
    let record = world.control.volume(id).await.unwrap().volume.record;
    world.control.propose(id, record.epoch, record.version, &Change::OpenDirty).await.unwrap();
}

#[tokio::test]
async fn one_reader_makes_the_volume_ready_while_the_others_are_told_to_come_again() {
    let world = World::with_nodes(3).await;
    let (n1, n2) = (node("n1"), node("n2"));
    world.play_datapath("n1", None).await;
    world.play_datapath("n2", None).await;
    let control = &world.control;
    let id = world.create("a").await.volume.id();
    let settler = as_role(AttachRole::Settler);
    let stranger = control.attach(id, &n1, settler).await.unwrap_err();
    assert_eq!(stranger.kind, ErrorKind::FailedPrecondition, "{stranger}");
    for node in [&n1, &n2, &n1] {
        control.publish_reader(id, node).await.unwrap();
    }
    let early = control.attach(id, &n2, as_role(AttachRole::Reader)).await.unwrap_err();
    assert_eq!(early.kind, ErrorKind::Busy, "{early}");
    control.attach(id, &n1, settler).await.unwrap();
    control.attach(id, &n1, settler).await.expect("after a crash of the node service");
    let second = control.attach(id, &n2, settler).await.unwrap_err();
    assert!(second.kind == ErrorKind::Busy && second.message.contains("n1"), "{second}");
    assert_eq!(control.grant(id, &n2).await.unwrap_err().kind, ErrorKind::FailedPrecondition);
    let unserved = control.set_settled(id, &n1).await.unwrap_err();
    assert_eq!(unserved.kind, ErrorKind::Busy, "{unserved}");
    opened(&world, id).await;
    control.set_settled(id, &n1).await.unwrap();
    control.set_settled(id, &n1).await.unwrap();
    assert_eq!(control.attach(id, &n2, as_role(AttachRole::Reader)).await.unwrap_err().kind, ErrorKind::Busy);
    let record = control.volume(id).await.unwrap().volume.record;
    control.propose(id, record.epoch, record.version, &Change::CloseClean).await.unwrap();
    assert_eq!(control.attach(id, &n2, settler).await.unwrap_err().kind, ErrorKind::Busy, "it is ready");
    let before = control.volume(id).await.unwrap().volume.record;
    for node in [&n1, &n2] {
        control.read(id, node).await.unwrap();
    }
    assert_eq!(control.read(id, &node("n3")).await.unwrap_err().kind, ErrorKind::FailedPrecondition);
    assert_eq!(control.volume(id).await.unwrap().volume.record, before, "reading changes no record");
}

#[tokio::test]
async fn with_readers_nobody_writes_deletes_or_expands() {
    let world = World::with_nodes(3).await;
    world.play_datapath("n1", None).await;
    let id = settled(&world).await;
    let (control, n3) = (&world.control, node("n3"));
    let refused = |what: &str, error: Error| {
        let named = error.message.contains("n1, n2") && error.message.contains("unpublish");
        assert!(error.kind == ErrorKind::FailedPrecondition && named, "{what}: {error}");
    };
    refused("publish", control.publish(id, &n3, false).await.unwrap_err());
    refused("publish for reading", control.publish(id, &n3, true).await.unwrap_err());
    refused("reserve", control.reserve(id, &n3).await.unwrap_err());
    refused("attach", control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap_err());
    refused("grant", control.grant(id, &node("n1")).await.unwrap_err());
    refused("delete", control.delete_volume(id).await.unwrap_err());
    let larger = SizeRange::exactly(ByteCount(2 * GIB)).unwrap();
    refused("expand", control.expand_volume(id, larger).await.unwrap_err());
    let other = control.publish(id, &node("n1"), false).await.unwrap_err();
    assert_eq!(other.kind, ErrorKind::AlreadyExists, "published to this node with other access");
    let name = "s".parse().unwrap();
    control.create_snapshot(&name, id).await.expect("a snapshot changes no content");
    assert!(control.read(id, &node("n2")).await.is_ok());
}

#[tokio::test]
async fn a_volume_that_is_held_gets_no_readers() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let control = &world.control;
    control.publish(id, &node("n1"), false).await.unwrap();
    let same = control.publish_reader(id, &node("n1")).await.unwrap_err();
    assert_eq!(same.kind, ErrorKind::AlreadyExists, "{same}");
    let other = control.publish_reader(id, &node("n2")).await.unwrap_err();
    assert!(other.kind == ErrorKind::FailedPrecondition && other.message.contains("n1"), "{other}");
    assert_eq!(control.publish_reader(id, &node("n9")).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn readers_leave_one_by_one_or_all_and_then_the_volume_is_as_any_other() {
    let world = World::with_nodes(3).await;
    let n1 = world.play_datapath("n1", None).await;
    let n2 = world.play_datapath("n2", None).await;
    let id = settled(&world).await;
    let control = &world.control;
    let readers = async || control.volume(id).await.unwrap().volume.readers;
    let gone = control.detach(id, Some(&node("n3")), DetachMode::CleanOrSilent).await.unwrap();
    assert_eq!((gone, readers().await.len()), (crate::control::attachment::Detached::Free, 2));
    control.detach(id, Some(&node("n1")), DetachMode::CleanOrSilent).await.unwrap();
    control.detach(id, Some(&node("n1")), DetachMode::CleanOrSilent).await.unwrap();
    assert_eq!((readers().await, n1.detached.load(Ordering::SeqCst)), (vec![node("n2")], 1));
    assert_eq!(control.delete_volume(id).await.unwrap_err().kind, ErrorKind::FailedPrecondition);
    control.publish_reader(id, &node("n3")).await.unwrap();
    control.registry.end_silent(&control.catalog, tokio::time::Instant::now() + Duration::from_secs(4)).await;
    control.detach(id, None, DetachMode::CleanOrSilent).await.expect("what is silent keeps nothing");
    assert_eq!((readers().await, n2.detached.load(Ordering::SeqCst)), (vec![], 0));
    control.publish(id, &node("n3"), false).await.unwrap();
}

#[tokio::test]
async fn a_reader_that_dies_while_it_makes_the_volume_ready_is_replaced_by_the_next() {
    let world = World::with_nodes(3).await;
    world.play_datapath("n1", None).await;
    let id = world.create("a").await.volume.id();
    let control = &world.control;
    control.publish_reader(id, &node("n1")).await.unwrap();
    control.publish_reader(id, &node("n2")).await.unwrap();
    control.attach(id, &node("n1"), as_role(AttachRole::Settler)).await.unwrap();
    opened(&world, id).await;
    control.registry.end_silent(&control.catalog, tokio::time::Instant::now() + Duration::from_secs(4)).await;
    control.detach(id, Some(&node("n1")), DetachMode::CleanOrSilent).await.unwrap();
    let seen = control.volume(id).await.unwrap().volume;
    assert_eq!((seen.readers, seen.record.holder, seen.record.clean), (vec![node("n2")], None, false));
    world.datapath_reports("n2", NOWHERE).await;
    world.play_datapath("n2", None).await;
    assert_eq!(control.attach(id, &node("n2"), as_role(AttachRole::Reader)).await.unwrap_err().kind, ErrorKind::Busy);
    control.attach(id, &node("n2"), as_role(AttachRole::Settler)).await.unwrap();
}

#[tokio::test]
async fn a_reader_gets_the_record_and_the_settings_and_no_epoch() {
    let world = World::with_nodes(3).await;
    world.play_datapath("n1", None).await;
    let id = settled(&world).await;
    let request = |node: &str| Request::new(proto::GrantRequest { volume: id.to_string(), node: node.to_owned() });
    let service = Service(world.control.clone());
    let record = Membership::read(&service, request("n2")).await.unwrap().into_inner();
    assert_eq!((record.epoch, record.served_epoch, record.holder.as_str()), (1, 1, ""));
    assert!(record.settings.is_some() && record.members.iter().all(|member| !member.address.is_empty()));
    let stranger = Membership::read(&service, request("n3")).await.unwrap_err();
    assert_eq!(stranger.code(), tonic::Code::FailedPrecondition);
}
