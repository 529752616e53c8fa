//! The data protocol between a datapath and a chunkserver.
//!
//! ```text
//!  datapath                                              chunkserver
//!     │  Open(e) ─────────────────────────────────────────►  ends older sessions, makes the promise of e durable
//!     │  ◄──────────────────────────────────────── Opened
//!     │  Write(lsn 1) Write(lsn 2) Read … ────────────────►  journals in the order sent
//!     │  ◄────────────────────── Done, Done, Data, Refused   each request is answered once
//! ```
//! A link carries one session over one TCP connection; a frame is a 64-byte header, a body, and data in whole blocks
//! (`header`, `codec`). The bytes of version 2 are fixed by the fixtures in `tests/golden.rs`.
#![forbid(unsafe_code)]

mod codec;
mod error;
mod header;
pub mod limits;
mod message;
mod opcode;

pub use codec::{EncodedFrame, decode_reply, decode_request, encode_reply, encode_request};
pub use error::WireError;
pub use header::{FrameHeader, MAGIC, VERSION};
pub use message::{
    BadBlocks, BlockData, ChangedSlots, ChunkReport, Frame, Held, Open, Opened, Refusal, Reply, ReplyFrame, Request,
    RequestFrame, SlotBlocks, SlotContent, SlotDigest, Status,
};
pub use opcode::Opcode;
