//! Why a reactor cannot be made, or cannot go on.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum ReactorError {
    /// The kernel has no io_uring, or it is not allowed here.
    #[error("create the ring")]
    Ring(#[source] io::Error),
    #[error("create the wake-up descriptor")]
    Wake(#[source] io::Error),
    /// The ring is broken: nothing more will complete. The process should end.
    #[error("enter the ring")]
    Enter(#[source] io::Error),
}
