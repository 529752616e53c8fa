//! The node's volume engine: attaches volumes, shows them as block devices, and replicates what is written to them.
//!
//! ```text
//!   programs ─► front-end ─► volume (pure core) ─► links ─► chunkservers
//!                 └───────── one I/O thread ────────┘
//!                                  │ grants, proposals, heartbeats, events (gRPC thread)
//!                                  ▼
//!                            control plane
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | `runtime` | the I/O thread: reactor, volumes, links |
//! | `companion` | who shares the I/O thread with the volumes |
//! | `guest` | requests in bytes, as operations in blocks (pure) |
//! | `limits` | who waits for the limits of its volume (pure) |
//! | `frontend` | NBD server, FUSE with loop devices |
//! | `attachments` | attach and detach, step by step |
//! | `control`, `rpc` | what is asked of the control plane; what is served to it |
//! | `settings` | how a volume is served, as the control plane says |
//! | `config`, `metrics`, `status`, `daemon` | the process |

mod attachments;
mod companion;
mod config;
mod control;
mod daemon;
mod descriptors;
mod frontend;
mod guest;
mod limits;
mod metrics;
mod rpc;
mod run_dir;
mod runtime;
mod settings;
mod status;

pub use companion::{Companion, MakeCompanion};
pub use config::{Config, ConfigError, RunFlags};
pub use daemon::{State, run, start_logging};
#[cfg(feature = "fuzz")]
pub use frontend::nbd::fuzz as nbd_fuzz;
pub use status::{StatusFlags, run as status};
