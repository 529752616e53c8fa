//! The Container Storage Interface on a Unix socket: Identity with Controller and SnapshotMetadata (control mode) or
//! with Node (node mode).
//!
//! The socket has mode 0600 in a directory of mode 0700, and a peer that is neither root nor our own user is
//! disconnected before a byte of it is read.

pub mod controller;
pub mod identity;
pub mod inflight;
pub mod metadata;
pub mod node;
pub mod params;
pub mod status;

use anyhow::Context;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Router;

/// Name of the driver in Kubernetes.
pub const DRIVER_NAME: &str = "block.csi.ashlar.io";
pub const TOPOLOGY_NODE: &str = "topology.block.csi.ashlar.io/node";
pub const TOPOLOGY_ZONE: &str = "topology.block.csi.ashlar.io/zone";

/// A CSI socket that listens; the file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
}

impl Socket {
    /// Binds the socket, in place of one that a killed process left. One that somebody answers on is refused.
    pub async fn bind(path: &Path) -> anyhow::Result<Socket> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        make_private_directory(directory).with_context(|| format!("make socket directory {}", directory.display()))?;
        remove_stale(path).await?;
        let listener = UnixListener::bind(path).with_context(|| format!("bind CSI socket {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context("restrict CSI socket")?;
        Ok(Socket { listener: Some(listener), path: path.to_owned() })
    }

    /// Serves until `shutdown` completes; calls in progress are finished.
    pub async fn serve(mut self, services: Router, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let listener = self.listener.take().expect("a socket is served once");
        services.serve_with_incoming_shutdown(trusted_peers(listener), shutdown).await.context("serve CSI socket")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "remove CSI socket");
        }
    }
}

/// Makes what is missing with mode 0700. A directory that exists, such as one of the kubelet's, keeps its mode: there
/// the socket's own mode and the check of its peers protect it.
fn make_private_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

async fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
    };
    anyhow::ensure!(kind.is_socket(), "{} exists and is not a socket", path.display());
    anyhow::ensure!(UnixStream::connect(path).await.is_err(), "another process serves {}", path.display());
    fs::remove_file(path).with_context(|| format!("remove stale socket {}", path.display()))
}

fn trusted_peers(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    let own = nix::unistd::geteuid().as_raw();
    UnixListenerStream::new(listener).filter(move |accepted| {
        let Ok(stream) = accepted else { return true };
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 || peer.uid() == own => true,
            Ok(peer) => {
                tracing::warn!(uid = peer.uid(), "CSI connection of another user refused");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "CSI connection without credentials refused");
                false
            }
        }
    })
}
