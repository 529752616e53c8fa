//! The node service's view of the cluster: the control plane for volumes and their use, this node's datapath for
//! devices.

use crate::error::{Error, ErrorKind, Result};
use crate::mount::FsType;
use crate::mount::usage::Use;
use ashlar_rpc::control::{
    self, AttachRole, AttachVolumeRequest, DatapathDetachRequest, DatapathExpandRequest, DatapathListRequest, Frontend,
    ListNodesRequest, SetSettledRequest, SetUseRequest, VolumeRef, cluster_client::ClusterClient,
    datapath_client::DatapathClient,
};
use ashlar_types::{NodeName, VolumeId};
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// An attach may wait for leases of the writer before, and for a reconcile; a detach drains.
const DEVICE_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Cluster {
    control: Channel,
    node: NodeName,
}

/// A volume as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VolumeState {
    pub(super) size_bytes: u64,
    pub(super) recorded: Use,
    /// Node that holds it; empty: nobody.
    pub(super) holder: String,
    /// The controller published it for reading only.
    pub(super) published_read_only: bool,
    /// Nodes that it is published to for reading by many.
    pub(super) readers: Vec<String>,
    /// One of them has made it ready for the others.
    pub(super) is_settled: bool,
    pub(super) condition: control::VolumeCondition,
    /// It began with what another volume held: its filesystem has that one's identity, and perhaps its size.
    pub(super) is_copy: bool,
}

impl Cluster {
    pub(super) fn new(control: &str, node: NodeName) -> Result<Cluster> {
        let endpoint = endpoint(control)?;
        Ok(Cluster { control: endpoint.connect_lazy(), node })
    }

    fn control(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.control.clone())
    }

    pub(super) async fn volume(&self, id: VolumeId) -> Result<VolumeState> {
        let request = within(CALL_TIMEOUT, VolumeRef { volume: id.to_string() });
        let answer =
            self.control().get_volume(request).await.map_err(|status| explain("look up the volume", status))?;
        state(answer.into_inner())
    }

    /// Brings the device up on this node; repeating it gives the same device.
    pub(super) async fn attach(&self, id: VolumeId, role: AttachRole, read_only: bool) -> Result<PathBuf> {
        let request = AttachVolumeRequest {
            volume: id.to_string(),
            node: self.node.to_string(),
            frontend: Frontend::Fuse as i32,
            read_only,
            keeps_use: true,
            role: role as i32,
        };
        let answer = self.control().attach_volume(within(DEVICE_TIMEOUT, request)).await;
        let path = answer.map_err(|status| explain("attach the volume", status))?.into_inner().path;
        if path.starts_with("/dev/") {
            return Ok(PathBuf::from(path));
        }
        Err(Error::new(
            ErrorKind::Internal,
            format!("the volume was attached as {path:?}, which is not a block device"),
        ))
    }

    /// Moves the use state on; one that is there already is not an error of this call but of the state that it was
    /// planned on.
    pub(super) async fn set_use(
        &self,
        id: VolumeId,
        from: control::Use,
        to: control::Use,
        fs_type: Option<FsType>,
    ) -> Result<()> {
        let fs_type = fs_type.map_or(String::new(), |fs_type| fs_type.name().to_owned());
        let request = SetUseRequest { volume: id.to_string(), from: from as i32, to: to as i32, fs_type };
        let answer = self.control().set_use(within(CALL_TIMEOUT, request)).await;
        answer.map_err(|status| explain("record the volume's use", status))?;
        Ok(())
    }

    /// This node, which has the volume attached as its settler, has made it ready for reading.
    pub(super) async fn set_settled(&self, id: VolumeId) -> Result<()> {
        let request = SetSettledRequest { volume: id.to_string(), node: self.node.to_string() };
        let answer = self.control().set_settled(within(CALL_TIMEOUT, request)).await;
        answer.map_err(|status| explain("record that the volume is ready for reading", status))?;
        Ok(())
    }

    /// The volume's device on this node, as its datapath has it now; `None` if it has none.
    pub(super) async fn device(&self, id: VolumeId) -> Result<Option<PathBuf>> {
        let mut datapath = self.datapath().await?;
        let answer = datapath.list(within(CALL_TIMEOUT, DatapathListRequest {})).await;
        let volumes = answer.map_err(|status| explain("list the node's devices", status))?.into_inner().volumes;
        let volume = volumes.into_iter().find(|volume| volume.volume == id.to_string());
        Ok(volume.and_then(|volume| volume.device).map(|device| PathBuf::from(device.path)))
    }

    /// Makes the device as large as the volume is in the catalog.
    pub(super) async fn expand(&self, id: VolumeId) -> Result<u64> {
        let mut datapath = self.datapath().await?;
        let request = within(CALL_TIMEOUT, DatapathExpandRequest { volume: id.to_string() });
        let answer = datapath.expand(request).await.map_err(|status| explain("expand the device", status))?;
        Ok(answer.into_inner().size_bytes)
    }

    /// Drains and closes the device. Not having one is fine.
    pub(super) async fn detach(&self, id: VolumeId) -> Result<()> {
        let mut datapath = self.datapath().await?;
        let request = DatapathDetachRequest { volume: id.to_string(), force: false };
        match datapath.detach(within(DEVICE_TIMEOUT, request)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(explain("detach the volume", status)),
        }
    }

    /// Its address may change with each start of the datapath, so it is asked for each time.
    async fn datapath(&self) -> Result<DatapathClient<Channel>> {
        let answer = self.control().list_nodes(within(CALL_TIMEOUT, ListNodesRequest {})).await;
        let nodes = answer.map_err(|status| explain("find the node's datapath", status))?.into_inner().nodes;
        let address = nodes.into_iter().find(|node| node.name == self.node.as_str()).map(|node| node.datapath_address);
        let Some(address) = address.filter(|address| !address.is_empty()) else {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("no datapath of node {} has reported yet", self.node),
            ));
        };
        let channel = endpoint(&url(&address))?.connect().await;
        let channel = channel.map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                format!("the datapath of this node at {address} does not answer: {error}"),
            )
        })?;
        Ok(DatapathClient::new(channel))
    }
}

fn url(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

fn endpoint(url: &str) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned());
    let endpoint = endpoint.map_err(|error| Error::invalid(format!("{url:?} is not an address: {error}")))?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT))
}

fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn state(volume: control::Volume) -> Result<VolumeState> {
    let fs_type = Some(volume.fs_type.as_str()).filter(|text| !text.is_empty()).map(str::parse).transpose()?;
    let recorded = match volume.r#use() {
        control::Use::Blank => Use::Blank,
        control::Use::Formatting => match fs_type {
            Some(fs_type) => Use::Formatting { fs_type },
            None => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "the volume is being formatted, but as what is not recorded",
                ));
            }
        },
        control::Use::Used => Use::Used { fs_type },
        // P8: what is not understood is never taken for blank.
        control::Use::Unspecified => {
            return Err(Error::new(ErrorKind::Internal, format!("the control plane gave use {}", volume.r#use)));
        }
    };
    // Whoever repairs it gives it up when it is attached.
    let holder = volume.record.filter(|_| !volume.repaired).map(|record| record.holder).unwrap_or_default();
    Ok(VolumeState {
        size_bytes: volume.size_bytes,
        recorded,
        holder,
        published_read_only: volume.published_read_only,
        readers: volume.readers,
        is_settled: volume.settled,
        condition: volume.condition.unwrap_or_default(),
        is_copy: volume.source.is_some(),
    })
}

/// A refusal keeps its kind; what is about the connection, or nobody's fault but a daemon's, becomes one that a
/// caller may retry.
fn explain(what: &str, status: Status) -> Error {
    let kind = match status.code() {
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::Aborted => ErrorKind::Busy,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("{what}: {}", status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(use_state: control::Use, fs_type: &str) -> control::Volume {
        control::Volume { r#use: use_state as i32, fs_type: fs_type.to_owned(), ..Default::default() }
    }

    #[test]
    fn the_use_is_read_as_recorded_and_never_guessed() {
        let recorded = |use_state, fs_type| state(volume(use_state, fs_type)).map(|state| state.recorded).ok();
        assert_eq!(recorded(control::Use::Blank, ""), Some(Use::Blank));
        assert_eq!(recorded(control::Use::Formatting, "xfs"), Some(Use::Formatting { fs_type: FsType::Xfs }));
        assert_eq!(recorded(control::Use::Used, "xfs"), Some(Use::Used { fs_type: Some(FsType::Xfs) }));
        assert_eq!(recorded(control::Use::Used, ""), Some(Use::Used { fs_type: None }));
        assert_eq!(recorded(control::Use::Used, "zfs"), None);
        assert_eq!(recorded(control::Use::Formatting, ""), None);
        assert_eq!(recorded(control::Use::Unspecified, ""), None);
        assert!(state(control::Volume { r#use: 99, ..Default::default() }).is_err());
    }
}
