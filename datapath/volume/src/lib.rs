//! The replication core of one attached volume: events in, actions out. No clock, socket, file, thread or random
//! source: the same code runs on io_uring in production and in the simulator.
//!
//! ```text
//!   guest ops ─┐                                             ┌─► Send to chunkservers
//!   links     ─┤   handle(now, event) → Volume → actions ────┼─► Complete to the guest
//!   replies   ─┤        then maintain()                      ├─► Propose to the control plane
//!   answers   ─┘        next_deadline() → Tick               └─► Notice for people
//! ```
//! One file a concern: `fence` and `reconcile` before it serves; `guest`, `overlap`, `write`, `read` while it does;
//! `links` and `member` for the other side; `membership`, `resync`, `copy`, `pace` and `leave` for who takes part.
//! Rules by number: DESIGN.md §5 and §6.
#![forbid(unsafe_code)]

mod action;
mod compare;
mod config;
mod copy;
mod core;
mod event;
mod fence;
mod guest;
mod heal;
mod heat;
mod history;
mod hold;
mod latency;
mod layout;
mod leave;
mod links;
mod member;
mod membership;
mod near;
mod overlap;
mod pace;
mod read;
mod reader;
mod reconcile;
mod resync;
mod snapshot;
mod status;
mod tail;
#[cfg(test)]
mod testing;
mod volume;
mod write;

pub use action::{Action, Ending, GuestError, Notice, SnapshotError};
pub use config::Config;
pub use core::Core;
pub use event::{Event, GuestOp, ProposalId, Tag};
pub use leave::LEAVE_REASON;
pub use reader::Reader;
pub use status::{ComparisonStatus, MemberStatus, VolumeStatus};
pub use volume::Volume;
