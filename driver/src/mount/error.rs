//! What can go wrong on the machine, by what the caller has to do about it.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A path of the request that may not be used.
    #[error("{field} {path:?}: {reason}")]
    Path { field: &'static str, path: String, reason: String },
    /// A mount option, a filesystem or a combination that is not let through.
    #[error("{0}")]
    Unsupported(String),
    /// Another mount is where this one belongs, or this one is where it does not belong.
    #[error("{0}")]
    Occupied(String),
    /// Mounted as asked once, but with something else than is asked now.
    #[error("{0}")]
    Different(String),
    /// The filesystem on the device cannot be used. It is never formatted anew.
    #[error("{0}")]
    Damaged(String),
    /// A rule of P8 forbids it, or a step before is missing.
    #[error("{0}")]
    Refused(String),
    #[error("{path} is not there")]
    Absent { path: PathBuf },
    #[error("{program} failed ({status}): {text}")]
    Tool { program: &'static str, status: String, text: String },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl MountError {
    /// For `map_err`: what was tried, in the present tense.
    pub fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> MountError {
        let what = what.into();
        move |source| MountError::Io { what, source: source.into() }
    }
}
