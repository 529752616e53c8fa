//! Which blocks of a volume a snapshot holds, and which changed between two; their content; and the stream that carries
//! both into a file. Read from the replicas themselves, as an observer: no promise, no lease, nothing is repaired.
//!
//! ```text
//!   VolumeRecord, addresses ──► Replicas ──ListBlocks, a chunk at a time──► Walk ──► spans, ascending
//!                                  │  any in-sync replica that answers,                 │
//!                                  └──Read below a snapshot──► blocks ──► stream ◄──────┘
//! ```
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`observer`] | a session with one chunkserver |
//! | [`replicas`] | which replica is asked, and the next one when it fails |
//! | [`span`] | from the block bitmaps of slots to ranges of the volume |
//! | [`walk`] | the ranges of a snapshot, or between two, in bounded memory |
//! | [`stream`] | `driver/STREAM.md` in code: write, read, verify, go on |
//!
//! What was read of a snapshot is its content only if the catalog still has the snapshot *afterwards*: once it is
//! gone, replicas merge its versions with newer ones. Whoever hands something out asks first.
#![forbid(unsafe_code)]

pub mod error;
pub mod observer;
pub mod replicas;
pub mod span;
pub mod stream;
pub mod walk;

pub use error::ChangesError;
pub use observer::{Content, Observer};
pub use replicas::Replicas;
pub use span::{Span, What};
pub use walk::{Scope, Step, Walk};
