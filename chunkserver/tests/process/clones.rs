//! Clones through the control API: made, read, flat, and what stays of their source until then.

use crate::client::{Client, VOLUME, content, open, write};
use crate::daemon::{CLUSTER, Disks};
use ashlar_rpc::control::chunkserver_client::ChunkserverClient;
use ashlar_rpc::control::{ChunkserverStatusRequest, CloneReplicaRequest, DeleteReplicaRequest, ReplicaStatus};
use ashlar_types::{Epoch, Lsn, VolumeId};
use ashlar_wire::{Open, Reply, Request};
use std::time::{Duration, Instant};
use tonic::Code;

const CLONE: VolumeId = VolumeId::from_u128(0xC1);

type Control = ChunkserverClient<tonic::transport::Channel>;

#[tokio::test]
async fn a_clone_is_made_once_outlives_its_source_and_becomes_flat() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let (address, disk) = (daemon.address("data_address"), disks.ids[0]);
    let mut control = Control::connect(format!("http://{}", daemon.address("rpc_address"))).await.unwrap();
    let mut writer = Client::open(address, disk, 3);
    let data = content(1, 64);
    writer.done(write(3, 1, 0, &data));
    let point = Lsn::from_raw(Lsn::start_of(Epoch::new(3).unwrap()).raw() + 2);
    let wanted = CloneReplicaRequest {
        disk: disk.to_string(),
        volume: CLONE.to_string(),
        epoch: 3,
        size_bytes: open(CLUSTER, disk).size.0,
        base_volume: VOLUME.to_string(),
        base_point_lsn: point.raw(),
    };
    let code = |answer: Result<_, tonic::Status>| answer.map(|_| ()).unwrap_err().code();
    let elsewhere = CloneReplicaRequest { disk: VOLUME.to_string(), ..wanted.clone() };
    assert_eq!(code(control.clone_replica(elsewhere).await), Code::NotFound);
    let of_nothing = CloneReplicaRequest { base_volume: CLONE.to_string(), ..wanted.clone() };
    assert_eq!(code(control.clone_replica(of_nothing).await), Code::FailedPrecondition);
    for nonsense in [
        CloneReplicaRequest { base_point_lsn: 0, ..wanted.clone() },
        CloneReplicaRequest { size_bytes: 5, ..wanted.clone() },
        CloneReplicaRequest { base_volume: "..".to_owned(), ..wanted.clone() },
    ] {
        assert_eq!(code(control.clone_replica(nonsense).await), Code::InvalidArgument);
    }
    for _ in 0..2 {
        control.clone_replica(wanted.clone()).await.unwrap();
    }
    let other = CloneReplicaRequest { base_point_lsn: point.raw() + 1, ..wanted };
    assert_eq!(code(control.clone_replica(other).await), Code::AlreadyExists);

    let delete = DeleteReplicaRequest { disk: disk.to_string(), volume: VOLUME.to_string(), epoch: 3 };
    control.delete_replica(delete.clone()).await.unwrap();
    let mut reader = Client::connect(address, 4);
    let opened = reader.ask(Request::Open(Open { volume: CLONE, ..open(CLUSTER, disk) })).unwrap();
    assert!(matches!(opened, Reply::Opened(opened) if opened.floor == point), "{opened:?}");
    assert_eq!(reader.read(0, 64), data);
    until_flat(&mut control).await;
    assert_eq!(reader.read(0, 64), data);
    let deleted = control.delete_replica(delete).await.unwrap().into_inner();
    assert!(!deleted.kept, "nobody reads it any more");
}

/// What the chunkserver says of the clone alone.
async fn clone_status(control: &mut Control) -> ReplicaStatus {
    let request = ChunkserverStatusRequest { volumes: vec![CLONE.to_string()] };
    let mut status = control.status(request).await.unwrap().into_inner();
    assert_eq!(status.replicas.len(), 1);
    status.replicas.remove(0)
}

async fn until_flat(control: &mut Control) {
    let begun = Instant::now();
    loop {
        let status = clone_status(control).await;
        match status.base_volume.as_str() {
            "" => return assert_eq!(status.base_point_lsn, 0),
            base => assert_eq!(base, VOLUME.to_string()),
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "the clone does not become flat");
        tokio::task::yield_now().await;
    }
}
