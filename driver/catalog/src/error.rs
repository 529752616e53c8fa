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

#[derive(Debug, thiserror::Error)]
pub struct CatalogError {
    kind: CatalogErrorKind,
    context: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CatalogError {
    pub fn new(kind: CatalogErrorKind, context: impl Into<String>) -> CatalogError {
        CatalogError { kind, context: context.into(), source: None }
    }

    pub(crate) fn because(
        kind: CatalogErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CatalogError {
        CatalogError { kind, context: context.into(), source: Some(source.into()) }
    }

    pub fn kind(&self) -> CatalogErrorKind {
        self.kind
    }
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.context),
            None => f.write_str(&self.context),
        }
    }
}
