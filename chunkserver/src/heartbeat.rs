//! Tells the control plane that this chunkserver lives, what its disks are, and what happened to them; deletes
//! what it says should not be here.
//!
//! - A beat is sent only after the host's loop has answered: a chunkserver whose loop stands still falls silent.
//! - An event is told until a beat that carried it was answered; the host keeps the newest ones.

use crate::rpc::disk_to_proto;
use crate::serve::{DiskSnapshot, HostEvent, HostHandle, HostSnapshot};
use crate::smart::Reports;
use ashlar_rpc::control::heartbeat_request::Daemon;
use ashlar_rpc::control::registry_client::RegistryClient;
use ashlar_rpc::control::{ChunkserverBeat, Event, HeartbeatRequest, HeartbeatResponse};
use ashlar_types::{ClusterId, NodeName, ZoneName};
use std::net::SocketAddr;
use std::time::Duration;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
const INTERVAL_MIN: Duration = Duration::from_millis(50);
const INTERVAL_MAX: Duration = Duration::from_secs(60);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// A control plane that comes back hears of every chunkserver within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

pub(crate) struct Heartbeat {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeName,
    pub(crate) zone: Option<ZoneName>,
    pub(crate) data_address: SocketAddr,
    pub(crate) rpc_address: SocketAddr,
    pub(crate) host: HostHandle,
    pub(crate) smart: Reports,
}

/// Why beats do not get through, logged once until one does.
#[derive(PartialEq, Eq)]
enum Reached {
    Unknown,
    Yes,
    No,
}

impl Heartbeat {
    /// Beats until the host ends.
    pub(crate) async fn run(self, control: Endpoint) {
        let channel = control.connect_timeout(CALL_TIMEOUT).timeout(CALL_TIMEOUT).connect_lazy();
        let mut client = RegistryClient::new(channel);
        let mut told = 0;
        let mut reached = Reached::Unknown;
        let mut backoff = BACKOFF_MIN;
        loop {
            let Ok(snapshot) = self.host.snapshot().await else { return };
            let pause = match self.beat(&mut client, &snapshot, &mut told).await {
                Ok(answer) => {
                    if reached != Reached::Yes {
                        tracing::info!("the control plane is reached");
                        reached = Reached::Yes;
                    }
                    backoff = BACKOFF_MIN;
                    self.check_cluster(&answer);
                    interval_of(&answer)
                }
                Err(status) => {
                    if reached != Reached::No {
                        tracing::warn!(%status, "the control plane does not answer; I/O goes on without it");
                        reached = Reached::No;
                    }
                    let pause = backoff;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One beat. `told` is the number of the last event that was told.
    async fn beat(
        &self,
        client: &mut RegistryClient<Channel>,
        snapshot: &HostSnapshot,
        told: &mut u64,
    ) -> Result<HeartbeatResponse, Status> {
        let news = snapshot.events.iter().filter(|event| event.sequence > *told);
        let request = HeartbeatRequest {
            node: self.node.to_string(),
            zone: self.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
            daemon: Some(Daemon::Chunkserver(self.chunkserver_beat(&snapshot.disks))),
            events: news.map(|event| self.event_to_proto(event)).collect(),
        };
        let answer = client.heartbeat(request).await?.into_inner();
        *told = snapshot.events.last().map_or(*told, |event| event.sequence);
        Ok(answer)
    }

    /// A disk whose id is unknown cannot be told of by id; the event of its failure is.
    fn chunkserver_beat(&self, disks: &[DiskSnapshot]) -> ChunkserverBeat {
        let known = disks.iter().filter(|disk| disk.id.is_some());
        ChunkserverBeat {
            data_address: self.data_address.to_string(),
            rpc_address: self.rpc_address.to_string(),
            disks: known.map(|disk| disk_to_proto(disk, &self.node, self.data_address, &self.smart.borrow())).collect(),
        }
    }

    fn event_to_proto(&self, event: &HostEvent) -> Event {
        Event {
            time_ms: event.time_ms,
            kind: event.kind.to_owned(),
            volume: event.volume.map(|volume| volume.to_string()).unwrap_or_default(),
            disk: event.disk.map(|disk| disk.to_string()).unwrap_or_default(),
            node: self.node.to_string(),
            text: event.text.clone(),
            ..Event::default()
        }
    }

    fn check_cluster(&self, answer: &HeartbeatResponse) {
        if !answer.cluster.is_empty() && answer.cluster.parse() != Ok(self.cluster) {
            tracing::error!(ours = %self.cluster, theirs = answer.cluster, "the control plane is of another cluster");
        }
    }
}

fn interval_of(answer: &HeartbeatResponse) -> Duration {
    match answer.interval_ms {
        0 => INTERVAL_DEFAULT,
        ms => Duration::from_millis(ms).clamp(INTERVAL_MIN, INTERVAL_MAX),
    }
}
