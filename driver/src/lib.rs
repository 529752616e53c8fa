//! The driver: Ashlar's control plane and its CSI services. Never on the path of a single I/O.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`config`] | flags and environment, checked once |
//! | [`control`] | volumes, membership, registry, events: the catalog's state, and the gRPC services over it |
//! | [`csi`] | the Container Storage Interface: identity, controller, snapshot metadata, node |
//! | [`mount`] | filesystems, mounts and devices of the node service |
//! | [`metrics`] | counters and gauges, and the page that shows them |
//!
//! `ashlar-driver control` is one process per cluster (on the embedded catalog); `ashlar-driver node` runs on each
//! node.
#![forbid(unsafe_code)]

pub mod config;
pub mod control;
pub mod csi;
pub mod error;
pub mod metrics;
pub mod mount;
pub mod node_server;
mod quantity;
pub mod shutdown;
pub mod state_file;
