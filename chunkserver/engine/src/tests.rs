//! The rules of the engine, each under its name, on a disk in memory.

mod clone_model;
mod clones;
mod crash;
mod digests;
mod headers;
mod keep;
mod model;
mod reach;
mod resume;
mod serve;
mod sessions;
mod snapshots;
mod space;
mod sync;
