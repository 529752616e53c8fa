//! What can go wrong with the catalog.

use std::fmt;

/// What a caller may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CatalogErrorKind {
    /// What was asked for does not exist.
    NotFound,
    /// A name or an id is taken.
    Exists,
    /// Something changed between reading and writing; read again.
    Conflict,
    /// A watch asks for changes that are no longer kept; read again, then watch.
    Compacted,
    /// Another process has the catalog open.
    InUse,
    /// The catalog, or a record in it, was written by a newer version of Ashlar.
    Newer,
    /// The catalog is another cluster's.
    OtherCluster,
    /// A record cannot be read: the catalog is damaged.
    Corrupt,
    /// The disk below refuses, or the store has stopped.
    Unavailable,
}

/// Shown with its cause, in one line. The cause is therefore not offered as a `source` as well, which would be shown
/// twice.
#[derive(Debug)]
pub struct CatalogError {
    kind: CatalogErrorKind,
    context: String,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CatalogError {
    pub fn new(kind: CatalogErrorKind, context: impl Into<String>) -> CatalogError {
        CatalogError { kind, context: context.into(), cause: None }
    }

    pub(crate) fn because(
        kind: CatalogErrorKind,
        context: impl Into<String>,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CatalogError {
        CatalogError { kind, context: context.into(), cause: Some(cause.into()) }
    }

    pub fn kind(&self) -> CatalogErrorKind {
        self.kind
    }

    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }
}

impl std::error::Error for CatalogError {}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{}: {cause}", self.context),
            None => f.write_str(&self.context),
        }
    }
}
