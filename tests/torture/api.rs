//! The control plane's API, as far as a guest's keeper and the rounds need it. Each call has a bound, for a control
//! plane that is stopped answers nothing.

use anyhow::{Context, Result, anyhow};
use ashlar_rpc::control::{
    AttachVolumeRequest, DetachVolumeRequest, Device, Frontend, ListNodesRequest, Member, MemberState, VolumeRef,
    cluster_client::ClusterClient,
};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

const CALL_LIMIT: Duration = Duration::from_secs(5);
/// The datapath itself gives up when it has stood still for 30 s.
const ATTACH_LIMIT: Duration = Duration::from_secs(40);

pub struct Api {
    runtime: Runtime,
    client: ClusterClient<Channel>,
}

/// Why a call failed; whether it was refused because of the state in which the volume is.
pub struct Refusal {
    pub is_precondition: bool,
    pub text: String,
}

impl Api {
    pub fn new(url: &str) -> Result<Api> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
        let endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(CALL_LIMIT);
        let client = runtime.block_on(async { ClusterClient::new(endpoint.connect_lazy()) });
        Ok(Api { runtime, client })
    }

    fn call<T>(
        &self,
        limit: Duration,
        call: impl AsyncFnOnce(&mut ClusterClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Refusal> {
        let mut client = self.client.clone();
        match self.runtime.block_on(async { tokio::time::timeout(limit, call(&mut client)).await }) {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Refusal {
                is_precondition: status.code() == Code::FailedPrecondition,
                text: format!("{:?}: {}", status.code(), status.message()),
            }),
            Err(_) => Err(Refusal { is_precondition: false, text: format!("no answer in {limit:?}") }),
        }
    }

    pub fn attach(&self, volume: &str, node: &str) -> Result<Device, Refusal> {
        let (volume, node) = (volume.to_owned(), node.to_owned());
        let request = AttachVolumeRequest { volume, node, frontend: Frontend::Nbd as i32, ..Default::default() };
        self.call(ATTACH_LIMIT, async |client| client.attach_volume(request).await)
    }

    pub fn detach(&self, volume: &str, force: bool) -> Result<(), Refusal> {
        let request = DetachVolumeRequest { volume: volume.to_owned(), node: String::new(), force };
        self.call(ATTACH_LIMIT, async |client| client.detach_volume(request).await).map(drop)
    }

    pub fn members(&self, volume: &str) -> Result<Vec<Member>> {
        let request = VolumeRef { volume: volume.to_owned() };
        let volume = self.call(CALL_LIMIT, async |client| client.get_volume(request).await)?;
        Ok(volume.record.context("a volume has a record")?.members)
    }

    pub fn is_in_sync(&self, volume: &str) -> Result<bool> {
        let members = self.members(volume)?;
        Ok(members.len() == 3 && members.iter().all(|member| member.state() == MemberState::InSync))
    }

    /// Whether the control plane has heard of the node's datapath lately.
    pub fn hears_datapath(&self, node: &str) -> Result<bool> {
        let nodes = self.call(CALL_LIMIT, async |client| client.list_nodes(ListNodesRequest {}).await)?.nodes;
        Ok(nodes.iter().any(|listed| listed.name == node && listed.datapath_alive))
    }
}

impl From<Refusal> for anyhow::Error {
    fn from(refusal: Refusal) -> anyhow::Error {
        anyhow!(refusal.text)
    }
}
