//! The disk side of a replica: journal, slots, checksums, replay. Pure: [`Engine`] takes events and returns actions.
//!
//! ```text
//!             Request                 admit                 seal                  durable, in order
//!  link ───────────────► session ──────────────► open batch ──────► journal ring ───────────────► store ──► Reply
//!                           │                        │ whole slots of large writes                  │  ▲
//!                           │                        └──────────────► fresh places ─────────────────┘  │ replay
//!                           └── Read ◄── overlay (RAM) + places ◄── checkpoint: apply, flush, commit, trim
//! ```
//! The picture of the disk, every structure on it, the invariants and the decisions are in `chunkserver/DESIGN.md`.
#![forbid(unsafe_code)]

mod action;
mod admit;
mod batch;
mod checkpoint;
mod codec;
mod config;
mod direct;
mod engine;
mod event;
mod flatten;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod index;
mod journal;
mod listing;
mod overlay;
mod pending;
mod place;
mod queue;
mod read;
mod reclaim;
mod record;
mod recover;
mod replica;
mod request;
mod ring;
mod scrub;
mod session;
mod space;
mod status;
mod store;
mod superblock;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod versions;

pub use action::{Action, CloneRefusal, Deleted, IndexEdit};
pub use config::EngineConfig;
pub use engine::{Engine, RecoverError};
pub use event::{DiskError, Event, LinkId, OpToken};
pub use index::load::IndexLoad;
pub use space::Space;
pub use status::{Counters, EngineStatus, ReplicaStatus, ScrubStatus};
pub use superblock::{DiskLayout, LayoutError, SUPERBLOCK_BYTES, Superblock, SuperblockError};
