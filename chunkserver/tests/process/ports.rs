//! The ports beside the data port: who may listen where, metrics, control API, heartbeat.

use crate::client::{Client, VOLUME, content, open, write};
use crate::daemon::{CLUSTER, Daemon, Disks};
use ashlar_rpc::control::chunkserver_client::ChunkserverClient;
use ashlar_rpc::control::heartbeat_request::Daemon as Beating;
use ashlar_rpc::control::registry_server::{Registry, RegistryServer};
use ashlar_rpc::control::{
    ChunkSpan, ChunkserverStatus, ChunkserverStatusRequest, DeleteReplicaRequest, DiskState, HeartbeatRequest,
    HeartbeatResponse, ReplicaSpaceRequest,
};
use ashlar_wire::{Request, Status};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;

/// Body and headers of a GET.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn other_addresses_than_loopback_need_the_insecure_flag() {
    let disks = Disks::format(1, 64);
    for flag in ["--listen", "--rpc-listen"] {
        let output = Daemon::start(&disks, &[flag, "0.0.0.0:0"]).err().expect("must not start");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("--insecure-allow-any-address"), "{stderr}");
    }
    let arguments = ["--listen", "0.0.0.0:0", "--insecure-allow-any-address"];
    assert!(Daemon::start(&disks, &arguments).is_ok());
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let disks = Disks::format(1, 64);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--rpc-listen"] {
        let output = Daemon::start(&disks, &[flag, &address]).err().expect("must not start");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(&format!("listen on {address}")), "{stderr}");
    }
}

#[test]
fn metrics_count_what_happens() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let mut client = Client::open(daemon.address("data_address"), disks.ids[0], 1);
    client.done(write(1, 1, 0, &content(1, 2)));
    client.read(0, 2);
    let text = get(daemon.address("metrics_address"), "/metrics");
    for (name, value) in [("writes_total", 1), ("written_bytes_total", 8192), ("reads_total", 1), ("disk_serving", 1)] {
        let line = format!("ashlar_chunkserver_{name}{{disk=\"{}\"}} {value}", disks.ids[0]);
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    assert!(get(daemon.address("metrics_address"), "/").starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_deleted_replica_is_gone_and_its_writer_is_fenced() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let address = daemon.address("data_address");
    let disk = disks.ids[0];
    let mut writer = Client::open(address, disk, 3);
    writer.done(write(3, 1, 0, &content(1, 64)));
    let url = format!("http://{}", daemon.address("rpc_address"));
    let mut control = ChunkserverClient::connect(url).await.unwrap();
    let status = status(&mut control).await;
    assert_eq!((status.node.as_str(), status.replicas.len()), ("node-a", 1));
    assert_eq!((status.replicas[0].volume.clone(), status.replicas[0].promised_epoch), (VOLUME.to_string(), 3));
    assert_eq!(status.disks[0].state(), DiskState::Online);

    let delete = |disk: String, epoch| DeleteReplicaRequest { disk, volume: VOLUME.to_string(), epoch };
    let older = control.delete_replica(delete(disk.to_string(), 2)).await.unwrap_err();
    assert_eq!(older.code(), tonic::Code::FailedPrecondition);
    let elsewhere = control.delete_replica(delete(VOLUME.to_string(), 3)).await.unwrap_err();
    assert_eq!(elsewhere.code(), tonic::Code::NotFound);
    let nonsense = control.delete_replica(delete("../disk".to_owned(), 3)).await.unwrap_err();
    assert_eq!(nonsense.code(), tonic::Code::InvalidArgument);
    control.delete_replica(delete(disk.to_string(), 3)).await.unwrap();
    writer.expect_ended();
    let refused = Client::connect(address, 3).refused(Request::Open(open(CLUSTER, disk)));
    assert!(matches!(refused, Status::Fenced | Status::Deleted), "{refused:?}");
}

/// What a replica does not have is refused, and so are questions that cannot be.
#[tokio::test]
async fn the_space_of_a_replica_is_told_and_nonsense_is_refused() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let disk = disks.ids[0];
    let mut writer = Client::open(daemon.address("data_address"), disk, 3);
    writer.done(write(3, 1, 0, &content(1, 64)));
    let url = format!("http://{}", daemon.address("rpc_address"));
    let mut control = ChunkserverClient::connect(url).await.unwrap();
    let ask = |disk: String, count, point_lsns: &[u64]| ReplicaSpaceRequest {
        disk,
        volume: VOLUME.to_string(),
        chunks: vec![ChunkSpan { first_chunk: 0, count }],
        point_lsns: point_lsns.to_vec(),
    };
    let here = disk.to_string();
    let told = control.space(ask(here.clone(), 1, &[])).await.unwrap().into_inner();
    assert_eq!((told.used_bytes, told.unique_bytes, told.shared_bytes), (4 << 16, 4 << 16, 0));
    let told = control.space(ask(here.clone(), 1, &[1 << 50, 1 << 51])).await.unwrap().into_inner();
    assert_eq!((told.unique_bytes, told.shared_bytes, told.freed_by_each_bytes), (0, 4 << 16, vec![0, 0]));
    assert_eq!(control.space(ask(here.clone(), 0, &[5])).await.unwrap().into_inner().used_bytes, 0);

    let many: Vec<u64> = (1..300).collect();
    let mut beyond = ask(here.clone(), u32::MAX, &[]);
    beyond.chunks[0].first_chunk = 1;
    let nonsense = [ask(here.clone(), 1, &[7, 7]), ask(here.clone(), 1, &[0]), ask(here.clone(), 1, &many), beyond];
    for question in nonsense.into_iter().chain([ask("../disk".to_owned(), 1, &[])]) {
        assert_eq!(control.space(question).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
    let elsewhere = control.space(ask(VOLUME.to_string(), 1, &[])).await.unwrap_err();
    assert_eq!(elsewhere.code(), tonic::Code::NotFound);
    let foreign = ReplicaSpaceRequest { volume: CLUSTER.to_string(), ..ask(here, 1, &[]) };
    assert_eq!(control.space(foreign).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
}

async fn status(control: &mut ChunkserverClient<tonic::transport::Channel>) -> ChunkserverStatus {
    control.status(ChunkserverStatusRequest::default()).await.unwrap().into_inner()
}

/// A control plane that hears.
struct Hearing {
    heard: mpsc::Sender<HeartbeatRequest>,
}

#[tonic::async_trait]
impl Registry for Hearing {
    async fn heartbeat(
        &self,
        request: tonic::Request<HeartbeatRequest>,
    ) -> Result<tonic::Response<HeartbeatResponse>, tonic::Status> {
        // When the test has heard enough, nobody listens any more.
        let _ = self.heard.send(request.into_inner()).await;
        let answer = HeartbeatResponse { cluster: CLUSTER.to_string(), interval_ms: 50, ..Default::default() };
        Ok(tonic::Response::new(answer))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_tell_disks_and_events() {
    let (heard, mut beats) = mpsc::channel(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = format!("http://{}", listener.local_addr().unwrap());
    let hearing = RegistryServer::new(Hearing { heard });
    tokio::spawn(
        tonic::transport::Server::builder().add_service(hearing).serve_with_incoming(TcpListenerStream::new(listener)),
    );

    let disks = Disks::format(1, 64);
    let daemon =
        tokio::task::block_in_place(|| Daemon::start(&disks, &["--control", &control, "--zone", "z-1"]).unwrap());
    let mut kinds = Vec::new();
    let mut beat = beats.recv().await.unwrap();
    while !kinds.contains(&"disk-serves".to_owned()) {
        kinds.extend(beat.events.iter().map(|event| event.kind.clone()));
        beat = beats.recv().await.unwrap();
    }
    assert_eq!((beat.node.as_str(), beat.zone.as_str()), ("node-a", "z-1"));
    let Some(Beating::Chunkserver(told)) = beat.daemon else { panic!("{beat:?}") };
    assert_eq!(told.data_address, daemon.address("data_address").to_string());
    assert_eq!(told.rpc_address, daemon.address("rpc_address").to_string());
    assert_eq!((told.disks.len(), told.disks[0].id.clone()), (1, disks.ids[0].to_string()));
    assert!(told.disks[0].capacity_bytes > 0 && told.disks[0].free_bytes <= told.disks[0].capacity_bytes);
}
