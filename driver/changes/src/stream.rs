//! The stream that carries a snapshot, or what changed between two: `driver/STREAM.md` in code. Pure but for the
//! reader and writer that it is given.
//!
//! ```text
//!   | header 128 | frame head 48 | data | frame head 48 | frame head 48 | data | ... | end 48 |
//!                  `----- data ------´  `--- zeros ---´
//! ```
//! Invariants of what [`Reader`] gives: frames ascend and do not overlap, they lie within the size that the header
//! names, and every byte before and of them was checked before they are given.

mod layout;
mod position;
mod reader;
mod resume;
mod writer;

pub use layout::{DATA_BYTES_MAX, Identity};
pub use position::Totals;
pub use reader::{Content, Frame, Reader};
pub use resume::{Scan, scan};
pub use writer::Writer;

use std::io;

pub type Result<T> = std::result::Result<T, StreamError>;

/// Why a stream is not taken, or cannot be written. Offsets count from its first byte.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("{doing}")]
    Io { doing: &'static str, source: io::Error },
    #[error("this is not a stream of `ashlar snapshot export`")]
    Foreign,
    #[error("the stream has version {0}; this program reads version {known}", known = layout::VERSION)]
    Newer(u16),
    #[error("the stream ends at byte {at}, before its end mark: it was cut off")]
    Truncated { at: u64 },
    #[error("the stream is damaged at byte {at}: {what}")]
    Damaged { at: u64, what: &'static str },
    #[error("something follows the stream's end at byte {at}")]
    Trailing { at: u64 },
    /// When going on with an export.
    #[error("there is another stream already, of snapshot {found}")]
    Other { found: ashlar_types::SnapshotId },
}

impl StreamError {
    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> StreamError {
        move |source| StreamError::Io { doing, source }
    }
}

#[cfg(test)]
mod tests;
