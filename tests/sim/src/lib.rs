//! Deterministic simulator of Ashlar: the production cores (volume, engine, membership rules) in one thread, on a
//! simulated clock, network, disks and control plane, under faults that a seed draws; and the checker of the
//! promises P1 to P5 and P7.
//!
//! ```text
//!   guest ──► writer (ashlar-volume) ══ links (net) ══► chunkserver (ashlar-engine) ──► medium: live, durable, index
//!     │            └── calls ──► catalog (ashlar-plan: grant, apply)
//!     └──► history ──► register: every 4 KiB block is linearizable
//! ```
//! Same seed, same binary: the same trace, to the last event; `Outcome::hash` says so.
//!
//! The checker and the random numbers are for others too: `ashlar-torture` checks real daemons with them.
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "parts of one program; what is public beyond it stands below")]

mod agenda;
mod audit;
mod catalog;
mod changes;
mod clock;
mod clones;
mod compare;
pub mod coverage;
mod decay;
mod describe;
mod directed;
mod durable;
mod fault;
mod finish;
mod format;
mod groups;
mod guest;
mod healing;
mod history;
mod keep;
mod layout;
mod link;
mod medium;
mod names;
mod net;
mod pages;
mod register;
mod relocate;
mod rng;
mod run;
mod scenario;
mod scrub;
mod server;
mod site;
mod snapshots;
mod stamp;
mod trace;
mod world;
mod writer;

pub use history::{Begun, History};
pub use names::Writer;
pub use register::{Access, Kind, NEVER, Point};
pub use rng::Rng;
pub use run::{Outcome, Telling, run_scenario, run_seed};
pub use scenario::{Class, Directed, Scenario};
pub use stamp::Stamp;
pub use world::Violation;

/// The checker, for histories that real daemons made.
pub mod checker {
    pub use crate::history::Violation;
    pub use crate::register::check;
}
