//! gRPC to the daemons of the nodes: datapaths and chunkservers. A link is made when first needed and kept; a daemon
//! that moved to another address gets a new one.

use crate::error::{Error, ErrorKind, Result};
use ashlar_rpc::control::chunkserver_client::ChunkserverClient;
use ashlar_rpc::control::datapath_client::DatapathClient;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// An attach may wait out leases (2.5 s) and reconcile; beyond this the caller asks again.
pub(crate) const ATTACH_TIMEOUT: Duration = Duration::from_secs(280);
/// A detach drains what is in flight.
pub(crate) const DETACH_TIMEOUT: Duration = Duration::from_secs(60);
/// The device takes its new size at once, but for one that is under heavy load.
pub(crate) const EXPAND_TIMEOUT: Duration = Duration::from_secs(30);
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Links that are kept; beyond it all are made anew.
const LINKS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Daemons {
    links: Mutex<BTreeMap<String, Channel>>,
}

impl Daemons {
    pub(crate) fn datapath(&self, address: &str) -> Result<DatapathClient<Channel>> {
        self.link(address).map(DatapathClient::new)
    }

    pub(crate) fn chunkserver(&self, address: &str) -> Result<ChunkserverClient<Channel>> {
        self.link(address).map(ChunkserverClient::new)
    }

    fn link(&self, address: &str) -> Result<Channel> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(address) {
            return Ok(link.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Error::new(ErrorKind::Unavailable, format!("daemon address {address:?}: {error}")))?;
        let link = endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy();
        if links.len() == LINKS_MAX {
            links.clear();
        }
        links.insert(address.to_owned(), link.clone());
        Ok(link)
    }
}

/// A call with its bound.
pub(crate) fn timed<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

/// A daemon's refusal, with who refused.
pub(crate) fn refused(daemon: &str, status: Status) -> Error {
    let kind = match status.code() {
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::Aborted => ErrorKind::Busy,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::Internal => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{daemon}: {}", status.message()))
}
