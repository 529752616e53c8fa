//! Who holds a volume, and what happens when the holder does not answer.

use super::*;
use crate::control::attachment::Detached;
use ashlar_catalog::UseState;

#[tokio::test]
async fn a_second_node_is_refused_with_the_name_of_the_holder() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    world.play_datapath("n1", None).await;
    world.play_datapath("n2", None).await;
    let control = &world.control;
    let device = control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    assert_eq!((device.path.as_str(), device.epoch), ("/dev/x", 1));
    let second = control.attach(id, &node("n2"), shown(Frontend::Nbd)).await.unwrap_err();
    assert_eq!(second.kind, ErrorKind::FailedPrecondition);
    assert!(second.message.contains("n1"), "{second}");
    assert_eq!(control.grant(id, &node("n2")).await.unwrap_err().kind, ErrorKind::FailedPrecondition);
    assert_eq!(control.grant(id, &node("n1")).await.unwrap().epoch.number(), 2, "after a crash of the datapath");
}

#[tokio::test]
async fn a_clean_detach_frees_the_volume_and_repeats_without_harm() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let datapath = world.play_datapath("n1", None).await;
    let control = &world.control;
    control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    control.detach(id, None, DetachMode::Clean).await.unwrap();
    control.detach(id, None, DetachMode::Clean).await.unwrap();
    assert_eq!(datapath.detached.load(Ordering::SeqCst), 1);
    let record = control.volume(id).await.unwrap().volume.record;
    assert_eq!((record.holder, record.clean), (None, true));
    let kinds = world.kinds_of_events().await;
    let of_volume: Vec<&str> = kinds.iter().map(String::as_str).filter(|kind| !kind.contains("new")).collect();
    assert_eq!(of_volume, ["created", "reserved", "use", "attached", "detached"]);
}

#[tokio::test]
async fn a_reservation_under_which_nothing_was_granted_is_given_back() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    world.play_datapath("n1", Some(Status::resource_exhausted("no loop device"))).await;
    let control = &world.control;
    let failed = control.attach(id, &node("n1"), shown(Frontend::Fuse)).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Exhausted);
    assert!(failed.message.contains("n1") && failed.message.contains("no loop device"), "{failed}");
    assert_eq!(control.volume(id).await.unwrap().volume.record.holder, None);
    control.reserve(id, &node("n1")).await.unwrap();
    control.attach(id, &node("n1"), shown(Frontend::Fuse)).await.unwrap_err();
    assert_eq!(control.volume(id).await.unwrap().volume.record.holder, Some(node("n1")), "it was reserved before");
}

#[tokio::test]
async fn a_silent_holder_is_kept_by_a_clean_detach_and_left_by_force() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let control = &world.control;
    control.reserve(id, &node("n1")).await.unwrap();
    let refused = control.detach(id, None, DetachMode::Clean).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    let alive = control.detach(id, None, DetachMode::CleanOrSilent).await.unwrap_err();
    assert_eq!(alive.kind, ErrorKind::Unavailable, "it reports, so its answer is waited for");
    control.registry.end_silent(&control.catalog, tokio::time::Instant::now() + Duration::from_secs(4)).await;
    let silent = control.detach(id, None, DetachMode::Clean).await.unwrap_err();
    assert!(silent.message.contains("force"), "{silent}");
    control.detach(id, None, DetachMode::CleanOrSilent).await.unwrap();
    assert_eq!(control.volume(id).await.unwrap().volume.record.holder, None);
    control.reserve(id, &node("n2")).await.unwrap();
    control.detach(id, None, DetachMode::Force).await.unwrap();
    assert_eq!(control.volume(id).await.unwrap().volume.record.holder, None);
}

#[tokio::test]
async fn unknown_nodes_and_nodes_that_are_not_allowed_are_refused() {
    let world = World::with_nodes(4).await;
    let limited = NewVolume { allowed_nodes: vec![node("n2")], ..wish("a", GIB) };
    let id = world.control.create_volume(limited).await.unwrap().volume.id();
    let control = &world.control;
    assert_eq!(control.reserve(id, &node("n9")).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(control.reserve(id, &node("n1")).await.unwrap_err().kind, ErrorKind::FailedPrecondition);
    assert_eq!(control.grant(id, &node("n1")).await.unwrap_err().kind, ErrorKind::FailedPrecondition);
    control.reserve(id, &node("n2")).await.unwrap();
}

#[tokio::test]
async fn one_operation_on_a_volume_at_a_time() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let permit = world.control.in_flight.begin(id).unwrap();
    let busy = world.control.attach(id, &node("n1"), shown(Frontend::Unspecified)).await.unwrap_err();
    assert_eq!(busy.kind, ErrorKind::Busy);
    assert_eq!(world.control.delete_volume(id).await.unwrap_err().kind, ErrorKind::Busy);
    drop(permit);
    world.control.attach(id, &node("n1"), shown(Frontend::Unspecified)).await.unwrap();
}

/// P8: what was written through such a device lies anywhere, and no probe would find it.
#[tokio::test]
async fn a_blank_volume_that_is_shown_to_be_written_is_a_used_one() {
    let world = World::with_nodes(3).await;
    world.play_datapath("n1", None).await;
    let control = &world.control;
    let used = |id| async move { control.volume(id).await.unwrap().volume.use_state };
    let id = world.create("a").await.volume.id();
    for show in [Show { read_only: true, ..shown(Frontend::Nbd) }, Show { keeps_use: true, ..shown(Frontend::Fuse) }] {
        control.attach(id, &node("n1"), show).await.unwrap();
        assert_eq!(used(id).await, UseState::Blank, "{show:?}");
    }
    control.attach(id, &node("n9"), shown(Frontend::Nbd)).await.unwrap_err();
    assert_eq!(used(id).await, UseState::Blank, "a node that there is not");
    control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    assert_eq!(used(id).await, UseState::Used);
    control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    let begun = world.create("b").await.volume.id();
    control.set_use(begun, UseState::Blank, UseState::Formatting, "ext4").await.unwrap();
    let refused = control.attach(begun, &node("n1"), shown(Frontend::Nbd)).await.unwrap_err();
    assert!(refused.message.contains("stage it first"), "{refused}");
    assert_eq!(control.volume(begun).await.unwrap().volume.record.holder, None);
}

#[tokio::test]
async fn a_detach_from_a_node_leaves_the_volume_to_another() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let datapath = world.play_datapath("n1", None).await;
    let control = &world.control;
    control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    let left = control.detach(id, Some(&node("n2")), DetachMode::CleanOrSilent).await.unwrap();
    assert_eq!(left, Detached::HeldBy(node("n1")));
    assert_eq!(datapath.detached.load(Ordering::SeqCst), 0);
    assert_eq!(control.detach(id, Some(&node("n1")), DetachMode::Clean).await.unwrap(), Detached::Free);
    assert_eq!(control.volume(id).await.unwrap().volume.record.holder, None);
}
