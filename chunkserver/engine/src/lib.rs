//! The disk side of a replica.
#![forbid(unsafe_code)]

mod action;
mod event;

pub use action::{Action, IndexEdit};
pub use event::{DiskError, Event, LinkId, OpToken};
