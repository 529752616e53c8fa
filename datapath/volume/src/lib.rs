//! The replication core of one attached volume.
#![forbid(unsafe_code)]

mod action;
mod event;

pub use action::{Action, Ending, GuestError, Notice};
pub use event::{Event, GuestOp, ProposalId, Tag};
