//! Numbers and layouts of the NBD protocol, as far as Ashlar speaks it. All integers are big-endian.
//!
//! Source: the NBD project's `doc/proto.md`. Spoken: the fixed newstyle negotiation, simple and structured replies.
//!
//! ```text
//! request            | magic u32 | flags u16 | type u16 | cookie u64 | offset u64 | length u32 | data of a write
//! simple reply       | magic u32 | error u32 | cookie u64 | data of a read
//! structured chunk   | magic u32 | flags u16 | type u16 | cookie u64 | length u32 | payload
//! option             | IHAVEOPT u64 | option u32 | length u32 | data
//! reply to an option | magic u64 | option u32 | type u32 | length u32 | data
//! ```

/// First words of a server: "NBDMAGIC".
pub(super) const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// "IHAVEOPT": newstyle, and the head of every option.
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(super) const CHUNK_MAGIC: u32 = 0x668e_33ef;

pub(super) const OPTION_HEADER_BYTES: usize = 16;
pub(super) const REQUEST_BYTES: usize = 28;

/// Most data bytes of one read or write: the payload that every client may use without asking.
pub(super) const PAYLOAD_BYTES_MAX: u32 = 32 << 20;
/// Most bytes that an option may bring: an export name, and a list of queries, each at most 4096 bytes long.
pub(super) const OPTION_BYTES_MAX: u32 = 64 << 10;
/// Longest name of an export.
pub(super) const NAME_BYTES_MAX: usize = 4096;

// Flags of the handshake: the same bits from the server and from the client.
pub(super) const FIXED_NEWSTYLE: u16 = 1;
pub(super) const NO_ZEROES: u16 = 2;

pub(super) mod option {
    pub(crate) const EXPORT_NAME: u32 = 1;
    pub(crate) const ABORT: u32 = 2;
    pub(crate) const LIST: u32 = 3;
    pub(crate) const INFO: u32 = 6;
    pub(crate) const GO: u32 = 7;
    pub(crate) const STRUCTURED_REPLY: u32 = 8;
    pub(crate) const LIST_META_CONTEXT: u32 = 9;
    pub(crate) const SET_META_CONTEXT: u32 = 10;
}

pub(super) mod option_reply {
    pub(crate) const ACK: u32 = 1;
    pub(crate) const SERVER: u32 = 2;
    pub(crate) const INFO: u32 = 3;
    pub(crate) const ERR_UNSUPPORTED: u32 = 0x8000_0001;
    pub(crate) const ERR_INVALID: u32 = 0x8000_0003;
    pub(crate) const ERR_UNKNOWN: u32 = 0x8000_0006;
    pub(crate) const ERR_TOO_BIG: u32 = 0x8000_0009;
}

pub(super) mod info {
    pub(crate) const EXPORT: u16 = 0;
    pub(crate) const NAME: u16 = 1;
    pub(crate) const BLOCK_SIZE: u16 = 3;
}

pub(super) mod transmission_flag {
    pub(crate) const HAS_FLAGS: u16 = 1;
    pub(crate) const READ_ONLY: u16 = 1 << 1;
    pub(crate) const SEND_FLUSH: u16 = 1 << 2;
    pub(crate) const SEND_FUA: u16 = 1 << 3;
    pub(crate) const SEND_TRIM: u16 = 1 << 5;
    pub(crate) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// A read is one chunk in any case, so "do not fragment" costs nothing.
    pub(crate) const SEND_DF: u16 = 1 << 7;
    pub(crate) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(crate) const SEND_CACHE: u16 = 1 << 10;
}

pub(super) mod command {
    pub(crate) const READ: u16 = 0;
    pub(crate) const WRITE: u16 = 1;
    pub(crate) const DISCONNECT: u16 = 2;
    pub(crate) const FLUSH: u16 = 3;
    pub(crate) const TRIM: u16 = 4;
    pub(crate) const CACHE: u16 = 5;
    pub(crate) const WRITE_ZEROES: u16 = 6;
}

pub(super) mod command_flag {
    pub(crate) const FUA: u16 = 1;
    pub(crate) const NO_HOLE: u16 = 1 << 1;
    pub(crate) const DF: u16 = 1 << 2;
}

pub(super) mod chunk {
    pub(crate) const FLAG_DONE: u16 = 1;
    pub(crate) const OFFSET_DATA: u16 = 1;
    pub(crate) const ERROR: u16 = 0x8001;
}

/// Errors of a request, with the numbers of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum NbdError {
    NotPermitted = 1,
    Io = 5,
    Invalid = 22,
    NoSpace = 28,
    ShuttingDown = 108,
}

/// Reads the big-endian integers of a fixed layout from the front of a slice that is known to be long enough.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk().expect("the caller has checked the length");
        self.0 = rest;
        *head
    }
}
