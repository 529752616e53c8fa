//! The loop on which a core does its input and output: one io_uring for disk, links and byte streams, run to
//! completion.
//!
//! A [`Reactor`] takes calls that name what to do (with a token, or a link) and gives back [`Completion`]s from
//! [`Reactor::wait`]. Calls never block and never call back. Everything that was asked for between two waits goes to
//! the kernel in one system call, together with the wait itself.
//!
//! Unsafe code is in `ring` (entries to the kernel), `operation` (one zeroed C struct) and `aligned` (memory);
//! nothing else needs any.

mod aligned;
mod clock;
mod completion;
mod config;
mod descriptors;
mod error;
mod frames;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod ids;
pub mod limits;
mod link;
mod operation;
mod reactor;
mod ring;
mod slab;
mod spin;
mod staging;
mod waker;

pub use aligned::{AlignedBuf, BufferPool};
pub use clock::now;
pub use completion::{Completion, DownCause, Peer};
pub use config::ReactorConfig;
pub use descriptors::raise_descriptor_limit;
pub use error::ReactorError;
pub use ids::{FileId, LinkId, ListenerId};
pub use link::Framing;
pub use reactor::{Reactor, ReactorStats};
pub use waker::Waker;
