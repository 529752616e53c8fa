//! The state file: where a daemon listens, for whoever started it. Written whole (temporary file, then rename) once
//! everything listens, so that its presence means "ready"; removed on a clean exit.

use ashlar_types::ClusterId;
use serde::Serialize;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

#[derive(Debug, Default, Serialize)]
pub struct State {
    pub pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The control API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csi_socket: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
}

/// A state file on disk; removed when dropped.
#[derive(Debug)]
pub struct StateFile(PathBuf);

impl State {
    pub fn of_this_process(cluster: Option<ClusterId>) -> State {
        State { pid: std::process::id(), cluster: cluster.map(|id| id.to_string()), ..State::default() }
    }

    pub fn write(&self, path: &Path) -> io::Result<StateFile> {
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&partial, path)?;
        Ok(StateFile(path.to_owned()))
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "remove state file");
        }
    }
}
