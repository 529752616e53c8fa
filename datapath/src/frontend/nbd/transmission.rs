//! The transmission phase: requests out of a client's bytes, and replies as bytes. Pure.
//!
//! A request that cannot be understood ends the connection, because where the next one begins is then unknown; one
//! that is understood but not allowed is answered with an error.

use super::input::Input;
use super::negotiation::{Agreement, Export};
use super::protocol::{
    CHUNK_MAGIC, Fields, NbdError, PAYLOAD_BYTES_MAX, REQUEST_BYTES, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, chunk, command,
    command_flag,
};
use ashlar_types::{BLOCK_BYTES, ByteCount, ByteOffset, Slip};
use bytes::{BufMut, Bytes, BytesMut};

/// The client's name for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cookie(pub(crate) u64);

/// What to do for a client. FUA needs nothing: every write is durable when it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read {
        offset: ByteOffset,
        bytes: ByteCount,
    },
    Write {
        offset: ByteOffset,
        data: Bytes,
    },
    /// Write-zeroes: all of it reads as zeros afterwards.
    Zero {
        offset: ByteOffset,
        bytes: ByteCount,
    },
    /// Trim: whole blocks within it read as zeros afterwards.
    Trim {
        offset: ByteOffset,
        bytes: ByteCount,
    },
    Flush,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// More bytes are needed.
    Wait,
    Request {
        cookie: Cookie,
        command: Command,
    },
    /// Answered at once, without the volume: an error, or nothing to do.
    Answer {
        cookie: Cookie,
        result: Result<(), NbdError>,
    },
    /// A read, whose error has a form of its own.
    ReadRefused {
        cookie: Cookie,
        error: NbdError,
    },
    Disconnect,
    /// The client does not keep to the protocol.
    Close(&'static str),
}

struct Header {
    flags: u16,
    kind: u16,
    cookie: Cookie,
    offset: u64,
    length: u32,
}

/// Takes the next request from the front of `input`.
pub(crate) fn parse(export: &Export, agreement: Agreement, input: &mut Input) -> Parsed {
    let Some(head) = input.peek::<REQUEST_BYTES>() else { return Parsed::Wait };
    let mut fields = Fields(&head);
    if fields.u32() != REQUEST_MAGIC {
        return Parsed::Close("a request without its magic number");
    }
    let (flags, kind, cookie) = (fields.u16(), fields.u16(), Cookie(fields.u64()));
    let header = Header { flags, kind, cookie, offset: fields.u64(), length: fields.u32() };
    let data_bytes = match kind {
        command::WRITE if header.length > PAYLOAD_BYTES_MAX => {
            return Parsed::Close("a write above the largest payload");
        }
        command::WRITE => header.length as usize,
        _ => 0,
    };
    if input.len() < REQUEST_BYTES + data_bytes {
        return Parsed::Wait;
    }
    input.take(REQUEST_BYTES).expect("the length was checked");
    let data = input.take(data_bytes).expect("the length was checked");
    header.judge(export, agreement, data)
}

impl Header {
    fn judge(&self, export: &Export, agreement: Agreement, data: Bytes) -> Parsed {
        let cookie = self.cookie;
        if self.kind == command::DISCONNECT {
            return Parsed::Disconnect;
        }
        if let Err(error) = self.check(export, agreement) {
            return match self.kind {
                command::READ => Parsed::ReadRefused { cookie, error },
                _ => Parsed::Answer { cookie, result: Err(error) },
            };
        }
        let (offset, bytes) = (ByteOffset(self.offset), ByteCount(u64::from(self.length)));
        let command = match self.kind {
            command::READ => Command::Read { offset, bytes },
            command::WRITE => Command::Write { offset, data },
            command::TRIM => Command::Trim { offset, bytes },
            command::WRITE_ZEROES => Command::Zero { offset, bytes },
            command::FLUSH => Command::Flush,
            command::CACHE => return Parsed::Answer { cookie, result: Ok(()) },
            _ => unreachable!("check lets known commands pass"),
        };
        Parsed::Request { cookie, command }
    }

    fn check(&self, export: &Export, agreement: Agreement) -> Result<(), NbdError> {
        let allowed_flags = match self.kind {
            command::READ => command_flag::DF | command_flag::FUA,
            command::WRITE | command::TRIM | command::FLUSH | command::CACHE => command_flag::FUA,
            command::WRITE_ZEROES => command_flag::FUA | command_flag::NO_HOLE,
            _ => return Err(NbdError::Invalid),
        };
        if self.flags & !allowed_flags != 0 {
            return Err(NbdError::Invalid);
        }
        if self.kind == command::FLUSH {
            return if self.offset == 0 && self.length == 0 { Ok(()) } else { Err(NbdError::Invalid) };
        }
        let changes = matches!(self.kind, command::WRITE | command::TRIM | command::WRITE_ZEROES);
        if changes && export.read_only {
            return Err(NbdError::NotPermitted);
        }
        self.check_range(export, agreement, changes)
    }

    fn check_range(&self, export: &Export, agreement: Agreement, changes: bool) -> Result<(), NbdError> {
        let bytes = u64::from(self.length);
        let end = match Slip::EndWraps.is_on() {
            true => self.offset.wrapping_add(bytes),
            false => self.offset.checked_add(bytes).ok_or(NbdError::Invalid)?,
        };
        let aligned = self.offset.is_multiple_of(BLOCK_BYTES) && bytes.is_multiple_of(BLOCK_BYTES);
        let too_long = self.kind == command::READ && self.length > PAYLOAD_BYTES_MAX;
        if self.length == 0 || too_long || (agreement.block_sizes && !aligned) {
            return Err(NbdError::Invalid);
        }
        match end <= export.size.0 {
            true => Ok(()),
            // What the protocol asks for: a write beyond the end is out of space, a read there makes no sense.
            false if changes => Err(NbdError::NoSpace),
            false => Err(NbdError::Invalid),
        }
    }
}

/// Answer to anything but a read.
pub(crate) fn simple_reply(cookie: Cookie, result: Result<(), NbdError>) -> Bytes {
    let mut reply = BytesMut::with_capacity(16);
    put_simple(&mut reply, cookie, result.err());
    reply.freeze()
}

/// What precedes the data of a read.
pub(crate) fn read_head(agreement: Agreement, cookie: Cookie, offset: ByteOffset, bytes: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(28);
    if agreement.structured {
        put_chunk(&mut head, chunk::OFFSET_DATA, cookie, 8 + bytes);
        head.put_u64(offset.0);
    } else {
        put_simple(&mut head, cookie, None);
    }
    head.freeze()
}

/// Answer to a read that failed.
pub(crate) fn read_error(agreement: Agreement, cookie: Cookie, error: NbdError, why: &str) -> Bytes {
    let mut reply = BytesMut::new();
    if agreement.structured {
        let why = &why.as_bytes()[..why.len().min(usize::from(u16::MAX))];
        put_chunk(&mut reply, chunk::ERROR, cookie, 6 + why.len());
        reply.put_u32(error as u32);
        reply.put_u16(why.len() as u16);
        reply.put_slice(why);
    } else {
        put_simple(&mut reply, cookie, Some(error));
    }
    reply.freeze()
}

fn put_simple(reply: &mut BytesMut, cookie: Cookie, error: Option<NbdError>) {
    reply.put_u32(SIMPLE_REPLY_MAGIC);
    reply.put_u32(error.map_or(0, |error| error as u32));
    reply.put_u64(cookie.0);
}

/// Every reply is one chunk, so each is the last of its request.
fn put_chunk(reply: &mut BytesMut, kind: u16, cookie: Cookie, payload_bytes: usize) {
    reply.put_u32(CHUNK_MAGIC);
    reply.put_u16(chunk::FLAG_DONE);
    reply.put_u16(kind);
    reply.put_u64(cookie.0);
    reply.put_u32(payload_bytes as u32);
}

#[cfg(test)]
mod tests;
