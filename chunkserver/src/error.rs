//! What can go wrong outside of the engine, with what was being done when it did.

use crate::disk::DiskRefusal;
use ashlar_engine::{LayoutError, RecoverError};
use ashlar_reactor::ReactorError;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Flags, environment and file do not make a configuration.
    #[error("configuration: {0}")]
    Config(String),
    /// A port would be reachable by others, and ports are not authenticated.
    #[error(
        "{what} {address} is not a loopback address, and nothing on this port is authenticated: \
         --insecure-allow-any-address allows it"
    )]
    NotLoopback { what: &'static str, address: String },
    #[error("{doing} {}", path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("disk {}: {reason}", path.display())]
    Disk { path: PathBuf, reason: DiskRefusal },
    #[error("disk {}: {source}", path.display())]
    Layout { path: PathBuf, source: LayoutError },
    #[error("disk {}: {source}", path.display())]
    Recover { path: PathBuf, source: RecoverError },
    #[error("none of the disks can be used: {0}")]
    NoDisk(String),
    #[error("index {}: {reason}", path.display())]
    Index { path: PathBuf, reason: String },
    #[error("format {}: {reason}", path.display())]
    WouldOverwrite { path: PathBuf, reason: String },
    #[error("listen on {address}")]
    Listen { address: String, source: io::Error },
    #[error("io_uring")]
    Reactor(#[from] ReactorError),
    #[error("set the limit of open files")]
    Descriptors(#[source] io::Error),
    #[error("start thread {name}")]
    Thread { name: &'static str, source: io::Error },
    #[error("inspect: {0}")]
    Inspect(String),
}

impl Error {
    /// For `map_err` of an operation on a file.
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::File { doing, path: path.to_path_buf(), source }
    }
}
