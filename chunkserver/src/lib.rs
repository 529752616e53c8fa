//! The chunkserver: one process that owns several disks and serves the replicas on them.
#![forbid(unsafe_code)]

pub mod config;
mod control;
mod descriptors;
pub mod disk;
mod error;
pub mod format;
mod heartbeat;
pub mod index;
pub mod inspect;
mod metrics;
pub mod process;
mod rpc;
pub mod serve;
mod smart;

pub use error::Error;
