//! Fuzz targets: for every decoder that reads bytes from a peer, a disk or a person, and for sequences of events into
//! the pure cores. A target is a plain function of bytes that panics when something is wrong; who calls it (libFuzzer,
//! a test that replays the corpus) is no matter of its own.
//!
//! ```text
//!   corpus/<target>/*  ──► tests/replay.rs          every input, in `cargo test`
//!          │  ▲
//!          ▼  │ minimized by hand: `ashlar-fuzz keep`
//!   ashlar-fuzz ──► ashlar-fuzz-worker (libFuzzer, counters) ──► findings, figures
//! ```
#![forbid(unsafe_code)]

mod attachment;
pub mod campaign;
pub mod corpus;
mod disk;
mod draw;
pub mod reach;
pub mod seeds;
mod site;
pub mod slips;
mod target;
mod targets;

pub use target::{TARGET_VARIABLE, TARGETS, Target};
