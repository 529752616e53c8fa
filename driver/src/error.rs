//! What the driver can refuse, and why. `csi/status.rs` is the only place that turns a kind into a gRPC code.

use ashlar_catalog::{CatalogError, CatalogErrorKind};
use ashlar_plan::membership::Refusal;
use ashlar_rpc::convert::ConvertError;
use std::fmt;

/// What a caller may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong; repeating it does not help.
    InvalidArgument,
    /// The request is outside of what can be given: a size above the limit, for instance.
    OutOfRange,
    NotFound,
    /// There is such a thing, but with other properties.
    AlreadyExists,
    /// The state does not allow it now: held by another node, attached, below minReplicas.
    FailedPrecondition,
    /// No disk has room, or no node fits.
    Exhausted,
    /// Another operation on the same volume is in progress, or a race was lost too often.
    Busy,
    /// A token that was not given out here.
    BadToken,
    /// A daemon does not answer, or the catalog does not.
    Unavailable,
    Unsupported,
    /// The catalog is damaged or newer than this program.
    Internal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// Everything that is wrong with one request, together.
    pub fn invalid_all(faults: &[String]) -> Error {
        Error::invalid(faults.join("; "))
    }

    pub fn not_found(what: impl fmt::Display) -> Error {
        Error::new(ErrorKind::NotFound, format!("{what} does not exist"))
    }

    pub fn precondition(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::FailedPrecondition, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<CatalogError> for Error {
    fn from(error: CatalogError) -> Error {
        let kind = match error.kind() {
            CatalogErrorKind::NotFound => ErrorKind::NotFound,
            CatalogErrorKind::Exists => ErrorKind::AlreadyExists,
            CatalogErrorKind::Conflict | CatalogErrorKind::Compacted => ErrorKind::Busy,
            CatalogErrorKind::InUse | CatalogErrorKind::Unavailable => ErrorKind::Unavailable,
            CatalogErrorKind::Newer | CatalogErrorKind::OtherCluster | CatalogErrorKind::Corrupt => ErrorKind::Internal,
        };
        Error::new(kind, error.to_string())
    }
}

impl From<ConvertError> for Error {
    fn from(error: ConvertError) -> Error {
        Error::invalid(error.to_string())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        if refusal == Refusal::NotMade {
            return Error::new(ErrorKind::Busy, refusal.to_string());
        }
        Error::precondition(refusal.to_string())
    }
}
