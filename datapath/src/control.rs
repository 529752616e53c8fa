//! The control plane as this datapath sees it: grants, proposals, records and heartbeats. Runs on the gRPC thread; a
//! guest's request never waits for any of it (C3), but for an ejection.
//!
//! - Every call has a deadline. A proposal without an answer, for whatever reason, is `Unanswered`: it may or may not
//!   have happened, and the volume proposes it again unchanged.
//! - Events are kept until a heartbeat that carried them was answered; at most [`EVENTS_MAX`], the oldest go first.

use crate::attachments::Attachments;
use crate::config::Config;
use crate::runtime::{Addresses, Ask, Command, Ended, Granted, RuntimeHandle};
use crate::settings::Settings;
use ashlar_rpc::control::membership_client::MembershipClient;
use ashlar_rpc::control::registry_client::RegistryClient;
use ashlar_rpc::control::{self, heartbeat_request::Daemon};
use ashlar_rpc::convert;
use ashlar_types::{Change, ChangeAnswer, Duration, Epoch, VolumeId, VolumeRecord};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Records of large volumes have many chunk runs.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const EVENTS_MAX: usize = 4096;
/// Events that one heartbeat carries.
const EVENTS_PER_BEAT_MAX: usize = 256;
const INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL_MIN: Duration = Duration::from_millis(50);
const INTERVAL_MAX: Duration = Duration::from_secs(10);
/// Events that come together go in one heartbeat.
const GATHER: Duration = Duration::from_millis(10);

#[derive(Clone)]
pub(crate) struct ControlPlane {
    config: Arc<Config>,
    membership: MembershipClient<Channel>,
    registry: RegistryClient<Channel>,
    /// The last proposal had an answer. Proposals are made again several times a second: only the first failure is a
    /// warning.
    is_answering: Arc<AtomicBool>,
}

impl ControlPlane {
    /// Connects when first used, and again whenever the connection was lost.
    pub(crate) fn new(config: Arc<Config>) -> Result<ControlPlane, tonic::transport::Error> {
        let channel = Endpoint::from_shared(config.control_url.clone())?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .tcp_nodelay(true)
            .connect_lazy();
        let membership = MembershipClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (registry, is_answering) = (RegistryClient::new(channel), Arc::new(AtomicBool::new(true)));
        Ok(ControlPlane { config, membership, registry, is_answering })
    }

    /// The next epoch of the volume (name or id), for this node.
    pub(crate) async fn grant(&self, volume: &str) -> Result<Granted, Status> {
        let record = answer(self.membership.clone().grant(self.asking_for(volume))).await?;
        self.understand_grant(&record)
    }

    /// The record of a volume that this node reads beside others: no epoch begins.
    pub(crate) async fn read(&self, volume: &str) -> Result<Granted, Status> {
        let record = answer(self.membership.clone().read(self.asking_for(volume))).await?;
        self.understand_grant(&record)
    }

    fn asking_for(&self, volume: &str) -> control::GrantRequest {
        control::GrantRequest { volume: volume.to_owned(), node: self.config.node.to_string() }
    }

    fn understand_grant(&self, record: &control::VolumeRecord) -> Result<Granted, Status> {
        let granted = self.understand(record)?;
        match fault_of_grant(&granted.record) {
            Some(fault) => Err(Status::internal(format!("the control plane's grant makes no sense: {fault}"))),
            None => Ok(granted),
        }
    }

    /// The record of the volume (name or id).
    pub(crate) async fn record(&self, volume: &str) -> Result<Granted, Status> {
        let request = control::RecordRef { volume: volume.to_owned() };
        let record = answer(self.membership.clone().get_record(request)).await?;
        self.understand(&record)
    }

    async fn propose(
        &self,
        volume: VolumeId,
        epoch: Epoch,
        version: u64,
        change: &Change,
    ) -> Result<(ChangeAnswer, Addresses), Status> {
        let proposal = convert::proposal_to_proto(volume.to_string(), epoch, version, change);
        let reply = answer(self.membership.clone().propose(proposal)).await?;
        let addresses = reply.record.as_ref().map(|record| self.addresses(record)).unwrap_or_default();
        let answer = convert::answer_from_proto(&reply).map_err(|error| Status::internal(error.to_string()))?;
        Ok((answer, addresses))
    }

    fn log_proposal(&self, volume: VolumeId, change: &Change, answered: &Result<(ChangeAnswer, Addresses), Status>) {
        let was_answering = self.is_answering.swap(answered.is_ok(), Ordering::Relaxed);
        match answered {
            Ok((answer, _)) => {
                let applied = matches!(answer, ChangeAnswer::Applied { .. });
                tracing::info!(%volume, ?change, applied, "proposed");
            }
            Err(status) if was_answering => {
                tracing::warn!(%volume, ?change, %status, "a proposal has no answer; it is made again");
            }
            Err(status) => tracing::debug!(%volume, ?change, %status, "a proposal has no answer still"),
        }
    }

    fn understand(&self, record: &control::VolumeRecord) -> Result<Granted, Status> {
        let understood = convert::record_from_proto(record)
            .map_err(|error| Status::internal(format!("the control plane's record makes no sense: {error}")))?;
        let settings = record.settings.as_ref().map(Settings::from_proto).transpose();
        Ok(Granted {
            settings: settings.map_err(|error| Status::internal(error.to_string()))?.unwrap_or_default(),
            record: understood,
            addresses: self.addresses(record),
            io_timeout: (record.io_timeout_ms > 0).then(|| Duration::from_millis(record.io_timeout_ms)),
        })
    }

    /// Addresses that make no sense or are not allowed are left out: the member is then one that cannot be reached.
    fn addresses(&self, record: &control::VolumeRecord) -> Addresses {
        let mut addresses = Addresses::new();
        for member in record.members.iter().filter(|member| !member.address.is_empty()) {
            match (member.disk.parse(), member.address.parse::<SocketAddr>()) {
                (Ok(disk), Ok(address)) if self.config.allows(address) => {
                    addresses.insert(disk, address);
                }
                (Ok(_), Ok(address)) => {
                    tracing::warn!(disk = member.disk, %address, "a chunkserver is not on loopback: not used");
                }
                _ => tracing::warn!(disk = member.disk, address = member.address, "a member's address makes no sense"),
            }
        }
        addresses
    }
}

/// What is wrong with a record as a grant, if anything is: a volume cannot be attached by it.
fn fault_of_grant(record: &VolumeRecord) -> Option<&'static str> {
    match () {
        () if record.epoch == Epoch::NONE => Some("it has no epoch"),
        () if record.min_replicas == 0 => Some("it needs no replica"),
        () if record.members.len() > ashlar_types::MEMBERS_MAX => Some("it has too many members"),
        () => None,
    }
}

async fn answer<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("the control plane does not answer")),
    }
}

/// Things that happened and that the control plane has not confirmed yet.
#[derive(Clone, Default)]
pub(crate) struct EventLog {
    shared: Arc<EventLogShared>,
}

#[derive(Default)]
struct EventLogShared {
    events: Mutex<VecDeque<control::Event>>,
    news: Notify,
}

impl EventLog {
    fn push(&self, event: control::Event) {
        self.with(|events| {
            if events.len() >= EVENTS_MAX {
                events.pop_front();
                tracing::warn!("the oldest event is dropped: the control plane does not take them");
            }
            events.push_back(event);
        });
        self.shared.news.notify_one();
    }

    fn first(&self) -> Vec<control::Event> {
        self.with(|events| events.iter().take(EVENTS_PER_BEAT_MAX).cloned().collect())
    }

    /// Forgets what was confirmed; true if there is more. Only the task that beats removes, except where the log
    /// overflows.
    fn confirm(&self, count: usize) -> bool {
        self.with(|events| {
            events.drain(..count.min(events.len()));
            !events.is_empty()
        })
    }

    fn with<R>(&self, use_events: impl FnOnce(&mut VecDeque<control::Event>) -> R) -> R {
        use_events(&mut self.shared.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Does what the I/O thread asks for, until it ends.
pub(crate) async fn serve_asks(
    control: ControlPlane,
    runtime: RuntimeHandle,
    events: EventLog,
    mut asks: mpsc::Receiver<Ask>,
) {
    while let Some(ask) = asks.recv().await {
        match ask {
            Ask::Event(event) => events.push(event),
            // What bounds the tasks: a volume has few proposals, asks for its record once a second by itself and once
            // for each time that the control plane tells of a newer one, and every call has a deadline.
            Ask::Propose { volume, epoch, version, proposal, change } => {
                let (control, runtime) = (control.clone(), runtime.clone());
                tokio::spawn(async move {
                    let answered = control.propose(volume, epoch, version, &change).await;
                    control.log_proposal(volume, &change, &answered);
                    let command = match answered {
                        Ok((answer, addresses)) => Command::Answered { volume, epoch, proposal, answer, addresses },
                        Err(_) => Command::Unanswered { volume, epoch, proposal },
                    };
                    report(runtime.send(command).await);
                });
            }
            Ask::Record { volume } => {
                let (control, runtime) = (control.clone(), runtime.clone());
                tokio::spawn(async move {
                    match control.record(&volume.to_string()).await {
                        Ok(Granted { record, addresses, .. }) => {
                            report(runtime.send(Command::Record { volume, record, addresses }).await);
                        }
                        Err(status) => tracing::warn!(%volume, %status, "ask for a volume's record"),
                    }
                });
            }
        }
    }
}

fn report(sent: Result<(), Ended>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "an answer of the control plane comes too late");
    }
}

/// Tells the control plane what is attached and what happened: at its interval, and at once when something happened.
pub(crate) async fn heartbeat(
    control: ControlPlane,
    attachments: Attachments,
    events: EventLog,
    rpc_address: SocketAddr,
) {
    let mut interval = INTERVAL;
    let mut is_answered = true;
    loop {
        match beat(&control, &attachments, &events, rpc_address).await {
            Ok((asked, more)) => {
                if !is_answered {
                    tracing::info!("the control plane answers again");
                }
                is_answered = true;
                interval = asked;
                if more {
                    continue;
                }
            }
            Err(status) => {
                if is_answered {
                    tracing::warn!(%status, "the control plane does not answer heartbeats");
                }
                is_answered = false;
                sleep(interval).await;
                continue;
            }
        }
        tokio::select! {
            () = sleep(interval) => {}
            () = events.shared.news.notified() => sleep(GATHER).await,
        }
    }
}

/// Gives the interval that the control plane asks for, and whether more events wait.
async fn beat(
    control: &ControlPlane,
    attachments: &Attachments,
    events: &EventLog,
    rpc_address: SocketAddr,
) -> Result<(Duration, bool), Status> {
    let carried = events.first();
    let count = carried.len();
    let volumes = attachments.report().await.map_err(|error| Status::internal(error.to_string()))?;
    let request = control::HeartbeatRequest {
        node: control.config.node.to_string(),
        zone: control.config.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        daemon: Some(Daemon::Datapath(control::DatapathBeat { rpc_address: rpc_address.to_string(), volumes })),
        events: carried,
    };
    let response = answer(control.registry.clone().heartbeat(request)).await?;
    let more = events.confirm(count);
    modify(attachments, response.modify_volumes).await;
    for volume in response.newer_records {
        attachments.refresh(&volume).await;
    }
    let asked = match response.interval_ms {
        0 => INTERVAL,
        asked_ms => Duration::from_millis(asked_ms).clamp(INTERVAL_MIN, INTERVAL_MAX),
    };
    Ok((asked, more))
}

/// What a `Modify` that did not arrive would have changed.
async fn modify(attachments: &Attachments, asked: Vec<control::DatapathModifyRequest>) {
    for control::DatapathModifyRequest { volume, settings } in asked {
        if let Err(status) = attachments.modify(&volume, settings.as_ref()).await {
            tracing::warn!(volume, %status, "the control plane asks for settings that cannot be had");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_types::{ByteCount, ClusterId, Member, MemberState};

    #[test]
    fn a_grant_by_which_nothing_can_be_attached_is_refused() {
        let member = Member {
            disk: ashlar_types::DiskId::from_u128(1),
            node: "a".parse().unwrap(),
            zone: None,
            state: MemberState::InSync,
        };
        let good = VolumeRecord {
            cluster: ClusterId::from_u128(1),
            volume: VolumeId::from_u128(1),
            size: ByteCount(1 << 30),
            epoch: Epoch::new(1).unwrap(),
            version: 1,
            holder: None,
            served: Epoch::NONE,
            clean: true,
            min_replicas: 1,
            members: vec![member.clone()],
            chunks: vec![],
            declared_lost: vec![],
            snapshots: vec![],
            clones: Vec::new(),
            origin: None,
            last_change: None,
        };
        assert_eq!(fault_of_grant(&good), None);
        assert!(fault_of_grant(&VolumeRecord { epoch: Epoch::NONE, ..good.clone() }).is_some());
        assert!(fault_of_grant(&VolumeRecord { min_replicas: 0, ..good.clone() }).is_some());
        let members = vec![member; ashlar_types::MEMBERS_MAX + 1];
        assert!(fault_of_grant(&VolumeRecord { members, ..good }).is_some());
    }
}
