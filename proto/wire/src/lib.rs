//! The data protocol between a datapath and a chunkserver.
#![forbid(unsafe_code)]

pub mod limits;
mod message;

pub use message::{
    BlockData, ChangedSlots, ChunkReport, Frame, Open, Opened, Refusal, Reply, ReplyFrame, Request, RequestFrame, SlotContent, Status,
};
