//! The way to the control plane: where it is, the connection, and its errors in one line.

use crate::dev::layout::Layout;
use anyhow::{Context, anyhow, bail};
use ashlar_rpc::control::cluster_client::ClusterClient;
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An attach may wait for a lease to run out and for a reconcile; everything else answers at once.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);

/// Where the user says the control plane is.
pub struct Endpoint {
    pub control: Option<String>,
    pub dir: Option<PathBuf>,
}

impl Endpoint {
    pub async fn connect(&self) -> anyhow::Result<ClusterClient<Channel>> {
        connect(&self.url()?).await
    }

    /// The same, for a stream that has no end.
    pub async fn connect_without_timeout(&self) -> anyhow::Result<ClusterClient<Channel>> {
        let url = self.url()?;
        let channel = endpoint(&url)?.connect().await.with_context(|| unreachable(&url))?;
        Ok(ClusterClient::new(channel))
    }

    fn url(&self) -> anyhow::Result<String> {
        if let Some(control) = &self.control {
            return Ok(normalize(control));
        }
        let Some(dir) = &self.dir else {
            bail!(
                "which cluster? Give --control URL (or ASHLAR_CONTROL), \
                 or --dir DIR of a development cluster (or ASHLAR_DIR)"
            );
        };
        Ok(Layout::open(dir)?.control_url())
    }
}

pub async fn connect(url: &str) -> anyhow::Result<ClusterClient<Channel>> {
    let channel = endpoint(url)?.timeout(CALL_TIMEOUT).connect().await.with_context(|| unreachable(url))?;
    Ok(ClusterClient::new(channel))
}

fn endpoint(url: &str) -> anyhow::Result<tonic::transport::Endpoint> {
    let endpoint = Channel::from_shared(url.to_owned()).with_context(|| format!("{url:?} is not a URL"))?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT))
}

fn unreachable(url: &str) -> String {
    format!("the control plane at {url} does not answer")
}

/// `host:port` is taken as a URL.
fn normalize(control: &str) -> String {
    if control.contains("://") { control.to_owned() } else { format!("http://{control}") }
}

/// The server's message, and its code where the message alone would puzzle.
pub fn explain(status: Status) -> anyhow::Error {
    let message = if status.message().is_empty() { "no reason given" } else { status.message() };
    match status.code() {
        Code::NotFound
        | Code::AlreadyExists
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted => anyhow!("{message}"),
        Code::Unavailable => anyhow!("not available now: {message}"),
        Code::DeadlineExceeded | Code::Cancelled => anyhow!("no answer in time: {message}"),
        Code::Aborted => anyhow!("{message}; try again"),
        code => anyhow!("{message} ({code:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_without_scheme_is_http() {
        assert_eq!(normalize("127.0.0.1:7100"), "http://127.0.0.1:7100");
        assert_eq!(normalize("https://x:1"), "https://x:1");
    }

    #[test]
    fn without_any_address_the_error_says_what_to_give() {
        let error = Endpoint { control: None, dir: None }.url().unwrap_err().to_string();
        assert!(error.contains("--control") && error.contains("--dir"), "{error}");
    }
}
