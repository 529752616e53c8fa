//! How volumes are served: what a change keeps, and how it reaches the writer whatever is in the way.

use super::*;
use ashlar_rpc::control::cluster_server::Cluster;
use ashlar_rpc::control::membership_server::Membership;
use ashlar_rpc::control::registry_server::Registry;
use tonic::Code;

fn request(given: &[(&str, &str)]) -> Request<proto::ModifyVolumeRequest> {
    let parameters = given.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    Request::new(proto::ModifyVolumeRequest { volume: "a".to_owned(), parameters })
}

impl World {
    async fn modify(&self, given: &[(&str, &str)]) -> std::result::Result<proto::Volume, Status> {
        Service(self.control.clone()).modify_volume(request(given)).await.map(Response::into_inner)
    }

    /// The answer to a heartbeat of n1's datapath, which serves the volume by settings of that version.
    async fn told_by_heartbeat(&self, id: VolumeId, settings_version: u64) -> Vec<proto::DatapathModifyRequest> {
        let attached = proto::AttachedVolume { volume: id.to_string(), settings_version, ..Default::default() };
        let beat = proto::DatapathBeat { rpc_address: NOWHERE.to_owned(), volumes: vec![attached] };
        let daemon = Some(heartbeat_request::Daemon::Datapath(beat));
        let request = proto::HeartbeatRequest { node: "n1".to_owned(), daemon, ..Default::default() };
        Service(self.control.clone()).heartbeat(Request::new(request)).await.unwrap().into_inner().modify_volumes
    }
}

fn operations(per_second: u64, burst: u64) -> Option<proto::Limit> {
    Some(proto::Limit { per_second, burst })
}

#[tokio::test]
async fn a_change_is_kept_shown_told_of_and_survives_a_restart() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let usual = world.modify(&[]).await.unwrap().settings.unwrap();
    assert_eq!((usual.version, usual.class(), usual.operations), (0, proto::Class::Normal, None));
    let given = [("class", "high"), ("iopsLimit", "500"), ("bandwidthLimit", "1Mi"), ("bandwidthBurst", "8Mi")];
    let shown = world.modify(&given).await.unwrap().settings.unwrap();
    assert_eq!((shown.version, shown.class()), (1, proto::Class::High));
    assert_eq!((shown.operations, shown.bytes), (operations(500, 500), operations(1 << 20, 8 << 20)));
    assert_eq!(world.modify(&given).await.unwrap().settings.unwrap().version, 1, "nothing is to be changed");
    assert_eq!(world.kinds_of_events().await.iter().filter(|kind| *kind == "modified").count(), 1);
    let world = world.restarted().await;
    let kept = world.control.volume(id).await.unwrap().volume.settings;
    assert_eq!(crate::control::settings::settings_to_proto(kept), shown);
}

#[tokio::test]
async fn a_writer_is_told_at_once() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let datapath = world.play_datapath("n1", None).await;
    world.control.attach(id, &node("n1"), shown(Frontend::Nbd)).await.unwrap();
    world.modify(&[("iopsLimit", "5")]).await.unwrap();
    world.modify(&[("iopsLimit", "6"), ("iopsBurst", "60")]).await.unwrap();
    let told: Vec<_> = datapath.modified.lock().unwrap().iter().map(|told| told.settings.unwrap()).collect();
    assert_eq!(told.iter().map(|told| told.version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(told[1].operations, operations(6, 60));
}

#[tokio::test]
async fn a_writer_that_could_not_be_told_is_told_with_its_heartbeat_also_after_a_restart() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    world.control.grant(id, &node("n1")).await.unwrap();
    // Nobody answers at the address that n1's datapath has reported.
    world.modify(&[("iopsLimit", "5")]).await.unwrap();
    let world = world.restarted().await;
    for _ in 0..2 {
        let told = world.told_by_heartbeat(id, 0).await;
        assert_eq!((told.len(), told[0].volume.clone()), (1, id.to_string()));
        assert_eq!(told[0].settings.unwrap().operations, operations(5, 5));
    }
    assert_eq!(world.told_by_heartbeat(id, 1).await, [], "it has them");
    assert_eq!(world.told_by_heartbeat(VolumeId::from_u128(9), 0).await, [], "of what is gone nothing is said");
}

#[tokio::test]
async fn a_grant_carries_the_settings() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    world.modify(&[("bandwidthLimit", "4Ki")]).await.unwrap();
    let grant = proto::GrantRequest { volume: id.to_string(), node: "n1".to_owned() };
    let record = Service(world.control.clone()).grant(Request::new(grant)).await.unwrap().into_inner();
    let settings = record.settings.unwrap();
    assert_eq!((settings.version, settings.bytes), (1, operations(4096, 4096)));
}

#[tokio::test]
async fn a_change_is_refused_whole() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    world.control.reserve(id, &node("n1")).await.unwrap();
    let refused = world.modify(&[("class", "low"), ("minReplicas", "1")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("while the volume is detached"), "{}", refused.message());
    let wrong = world.modify(&[("class", "low"), ("replicas", "2"), ("x", "y")]).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(wrong.message().contains("replicas is fixed") && wrong.message().contains("\"x\""), "{}", wrong.message());
    let seen = world.control.volume(id).await.unwrap().volume;
    assert_eq!((seen.settings, seen.record.min_replicas), (Default::default(), 2));
    world.control.detach(id, None, DetachMode::Force).await.unwrap();
    let changed = world.modify(&[("class", "low"), ("minReplicas", "3")]).await.unwrap();
    assert_eq!((changed.settings.unwrap().class(), changed.record.unwrap().min_replicas), (proto::Class::Low, 3));
    let missing = proto::ModifyVolumeRequest { volume: "b".to_owned(), ..Default::default() };
    let missing = Service(world.control.clone()).modify_volume(Request::new(missing)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn of_changes_at_the_same_time_none_is_lost() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let given = [("class", "low"), ("iopsLimit", "5"), ("bandwidthLimit", "1Mi"), ("minReplicas", "1")];
    let tasks: Vec<_> = given
        .map(|given| {
            let service = Service(world.control.clone());
            tokio::spawn(async move { service.modify_volume(request(&[given])).await.map(drop) })
        })
        .into_iter()
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let seen = world.control.volume(id).await.unwrap().volume;
    assert_eq!((seen.settings.version, seen.record.min_replicas), (4, 1));
    assert_eq!((seen.settings.class.name(), seen.settings.operations.is_some()), ("low", true));
    assert!(seen.settings.bytes.is_some());
}
