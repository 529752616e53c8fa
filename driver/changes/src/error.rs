//! Why blocks could not be listed or read.

use ashlar_types::BlockIndex;
use ashlar_wire::{Status, WireError};
use std::error::Error;
use std::io;

pub type Result<T> = std::result::Result<T, ChangesError>;

#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    #[error("{doing}")]
    Link { doing: &'static str, source: io::Error },
    #[error("the chunkserver's answer")]
    Answer(#[from] WireError),
    /// An answer that no honest chunkserver gives.
    #[error("the chunkserver {0}")]
    Nonsense(String),
    #[error("refused as {status:?}: {reason}")]
    Refused { status: Status, reason: String },
    #[error("the replica is incomplete")]
    Incomplete,
    /// It has not agreed in the epoch in which the volume was last served.
    #[error("the replica is an older image of its disk")]
    Older,
    #[error("its chunkserver has not told its address")]
    NoAddress,
    #[error("no in-sync replica {what}: {tried}")]
    NoReplica { what: String, tried: String },
    #[error("block {block} of the volume cannot be read from any in-sync replica: {tried}")]
    Unreadable { block: BlockIndex, tried: String },
}

impl ChangesError {
    pub(crate) fn link(doing: &'static str) -> impl FnOnce(io::Error) -> ChangesError {
        move |source| ChangesError::Link { doing, source }
    }

    /// With its cause, on one line.
    pub(crate) fn whole(&self) -> String {
        match self.source() {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    /// Whether the session goes on: the request was answered.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, ChangesError::Refused { .. })
    }
}
