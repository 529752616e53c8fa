//! Crash points: the chunkserver's engine on a disk whose power goes at every boundary of its work.
//!
//! ```text
//!   work ──► rig (engine, disk) ── after each operation sent or ended ──► cut: every subset of what was not flushed
//!     │                                                                    │
//!     └──► the same work without cuts: what is seen after each operation   ▼
//!                             └───────── must equal ──────────── recover (cut as well), look, go on, start again
//! ```
//! See DESIGN.md.
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "parts of one program; what is public beyond it stands below")]

mod disk;
mod explore;
mod observe;
mod rig;
mod subsets;
mod work;

pub use disk::Lie;
pub use explore::{Depth, Figures, Violation, explore};
pub use work::{Op, Pace, Work, exhaustive, fixed};
