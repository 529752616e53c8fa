//! The command line of Ashlar.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`args`] | the grammar |
//! | [`client`] | the way to the control plane, and its errors in one line |
//! | [`volume`], [`cluster`] | commands that ask the control plane |
//! | [`snapshot`] | the same of snapshots; what changed, export, import |
//! | [`compare`] | the replicas of a volume, block by block |
//! | [`nbd`] | a volume's device, to be written to |
//! | [`view`] | what the JSON looks like |
//! | [`dev`] | a whole cluster on this machine |
//! | [`output`], [`progress`], [`size`] | tables and JSON, a spinner, sizes |
//!
//! What a command answers goes to stdout and nothing else does, so that scripts can take it as it is; progress and
//! errors go to stderr. Exit codes: 0 done, 1 refused or failed (one line says why), 2 wrong usage.
#![forbid(unsafe_code)]

pub mod args;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod dev;
pub mod nbd;
pub mod output;
pub mod progress;
pub mod size;
pub mod snapshot;
pub mod view;
pub mod volume;
