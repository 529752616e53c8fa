//! The newstyle negotiation of one connection, from the server's greeting to the transmission phase. Pure: bytes in,
//! bytes out.
//!
//! ```text
//!  greeting ──► ClientFlags ──► Options ──┬─ GO, EXPORT_NAME ──► transmission
//!                                 ▲  │    └─ ABORT, bad bytes ──► closed
//!                                 └──┘ INFO, LIST, STRUCTURED_REPLY, what is not known
//! ```
//!
//! The volume is the default export (the empty name) and can be asked for by its id as well.

use super::input::Input;
use super::protocol::{
    FIXED_NEWSTYLE, Fields, NAME_BYTES_MAX, NO_ZEROES, OPTION_BYTES_MAX, OPTION_HEADER_BYTES, OPTION_MAGIC,
    OPTION_REPLY_MAGIC, PAYLOAD_BYTES_MAX, SERVER_MAGIC, info, option, option_reply, transmission_flag,
};
use ashlar_types::{BLOCK_BYTES, ByteCount};
use bytes::{BufMut, Bytes, BytesMut};

/// What is served.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) size: ByteCount,
    pub(crate) read_only: bool,
}

/// What client and server agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Reads are answered in structured replies.
    pub(crate) structured: bool,
    /// The client asked for the block sizes: it has promised to keep to them.
    pub(crate) block_sizes: bool,
}

/// How far one call of [`Negotiation::advance`] came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More bytes are needed.
    Wait,
    Transmission(Agreement),
    /// Send what is in the output, then close.
    Close(&'static str),
}

pub(crate) struct Negotiation {
    state: State,
    agreed: Agreement,
}

#[derive(Clone, Copy)]
enum State {
    ClientFlags,
    Options { no_zeroes: bool },
}

/// What follows from one option.
enum Next {
    Option,
    Done(Step),
}

impl Negotiation {
    /// Begins with the server's greeting.
    pub(crate) fn new(output: &mut BytesMut) -> Negotiation {
        output.put_u64(SERVER_MAGIC);
        output.put_u64(OPTION_MAGIC);
        output.put_u16(FIXED_NEWSTYLE | NO_ZEROES);
        Negotiation { state: State::ClientFlags, agreed: Agreement::default() }
    }

    /// Takes what it understands from `input` and appends what is to be sent to `output`.
    pub(crate) fn advance(&mut self, export: &Export, input: &mut Input, output: &mut BytesMut) -> Step {
        loop {
            let next = match self.state {
                State::ClientFlags => {
                    let Some(head) = input.take(4) else { return Step::Wait };
                    self.client_flags(Fields(&head).u32())
                }
                State::Options { no_zeroes } => {
                    let Some(head) = input.peek::<OPTION_HEADER_BYTES>() else { return Step::Wait };
                    let mut fields = Fields(&head);
                    let (magic, number, bytes) = (fields.u64(), fields.u32(), fields.u32());
                    if magic != OPTION_MAGIC {
                        return Step::Close("an option without its magic number");
                    }
                    if bytes > OPTION_BYTES_MAX {
                        put_reply(output, number, option_reply::ERR_TOO_BIG, b"the option is too long");
                        return Step::Close("an option that is too long");
                    }
                    if input.len() < OPTION_HEADER_BYTES + bytes as usize {
                        return Step::Wait;
                    }
                    input.take(OPTION_HEADER_BYTES).expect("the length was checked");
                    let data = input.take(bytes as usize).expect("the length was checked");
                    self.option(export, number, &data, no_zeroes, output)
                }
            };
            if let Next::Done(step) = next {
                return step;
            }
        }
    }

    fn client_flags(&mut self, flags: u32) -> Next {
        if flags & u32::from(FIXED_NEWSTYLE) == 0 {
            return Next::Done(Step::Close("a client without the fixed newstyle negotiation"));
        }
        if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
            return Next::Done(Step::Close("handshake flags that are not known"));
        }
        self.state = State::Options { no_zeroes: flags & u32::from(NO_ZEROES) != 0 };
        Next::Option
    }

    fn option(&mut self, export: &Export, number: u32, data: &Bytes, no_zeroes: bool, output: &mut BytesMut) -> Next {
        match number {
            option::EXPORT_NAME => {
                if !export.is_called(data) {
                    // This option has no reply that could say no.
                    return Next::Done(Step::Close("an export that is not known"));
                }
                output.put_u64(export.size.0);
                output.put_u16(export.flags());
                if !no_zeroes {
                    output.put_bytes(0, 124);
                }
                Next::Done(Step::Transmission(self.agreed))
            }
            option::ABORT => {
                put_reply(output, number, option_reply::ACK, b"");
                Next::Done(Step::Close("the client ended the negotiation"))
            }
            option::LIST => self.list(export, data, output),
            option::INFO | option::GO => self.info(export, number, data, output),
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.agreed.structured = true;
                put_reply(output, number, option_reply::ACK, b"");
                Next::Option
            }
            option::STRUCTURED_REPLY => refuse(output, number, option_reply::ERR_INVALID, "the option brings no data"),
            // There are no metadata contexts: an empty answer to a well-formed question.
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT if self.agreed.structured => {
                put_reply(output, number, option_reply::ACK, b"");
                Next::Option
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                refuse(output, number, option_reply::ERR_INVALID, "ask for structured replies first")
            }
            _ => refuse(output, number, option_reply::ERR_UNSUPPORTED, "the option is not offered"),
        }
    }

    fn list(&mut self, export: &Export, data: &Bytes, output: &mut BytesMut) -> Next {
        if !data.is_empty() {
            return refuse(output, option::LIST, option_reply::ERR_INVALID, "the option brings no data");
        }
        let mut entry = BytesMut::new();
        entry.put_u32(export.name.len() as u32);
        entry.put_slice(export.name.as_bytes());
        put_reply(output, option::LIST, option_reply::SERVER, &entry);
        put_reply(output, option::LIST, option_reply::ACK, b"");
        Next::Option
    }

    fn info(&mut self, export: &Export, number: u32, data: &Bytes, output: &mut BytesMut) -> Next {
        let Some((name, asked)) = parse_info(data) else {
            return refuse(output, number, option_reply::ERR_INVALID, "the lengths in the option do not add up");
        };
        if !export.is_called(&name) {
            return refuse(output, number, option_reply::ERR_UNKNOWN, "no such export");
        }
        let mut item = BytesMut::new();
        item.put_u16(info::EXPORT);
        item.put_u64(export.size.0);
        item.put_u16(export.flags());
        put_reply(output, number, option_reply::INFO, &item);

        item.clear();
        item.put_u16(info::BLOCK_SIZE);
        item.put_u32(BLOCK_BYTES as u32);
        item.put_u32(BLOCK_BYTES as u32);
        item.put_u32(PAYLOAD_BYTES_MAX);
        put_reply(output, number, option_reply::INFO, &item);

        if asked.contains(&info::NAME) {
            item.clear();
            item.put_u16(info::NAME);
            item.put_slice(export.name.as_bytes());
            put_reply(output, number, option_reply::INFO, &item);
        }
        put_reply(output, number, option_reply::ACK, b"");
        if number == option::INFO {
            return Next::Option;
        }
        self.agreed.block_sizes = asked.contains(&info::BLOCK_SIZE);
        Next::Done(Step::Transmission(self.agreed))
    }
}

impl Export {
    fn is_called(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.name.as_bytes()
    }

    fn flags(&self) -> u16 {
        use transmission_flag::{
            CAN_MULTI_CONN, HAS_FLAGS, READ_ONLY, SEND_CACHE, SEND_DF, SEND_FLUSH, SEND_FUA, SEND_TRIM,
            SEND_WRITE_ZEROES,
        };
        let always =
            HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | SEND_DF | CAN_MULTI_CONN | SEND_CACHE;
        always | if self.read_only { READ_ONLY } else { 0 }
    }
}

/// `| name length u32 | name | count u16 | info types u16... |`
fn parse_info(data: &Bytes) -> Option<(Bytes, Vec<u16>)> {
    let name_bytes = data.first_chunk::<4>().map(|head| u32::from_be_bytes(*head) as usize)?;
    if name_bytes > NAME_BYTES_MAX || data.len() < 4 + name_bytes + 2 {
        return None;
    }
    let name = data.slice(4..4 + name_bytes);
    let mut rest = Fields(&data[4 + name_bytes..]);
    let count = usize::from(rest.u16());
    if rest.0.len() != count * 2 {
        return None;
    }
    Some((name, (0..count).map(|_| rest.u16()).collect()))
}

fn put_reply(output: &mut BytesMut, number: u32, kind: u32, data: &[u8]) {
    output.put_u64(OPTION_REPLY_MAGIC);
    output.put_u32(number);
    output.put_u32(kind);
    output.put_u32(data.len() as u32);
    output.put_slice(data);
}

fn refuse(output: &mut BytesMut, number: u32, kind: u32, why: &str) -> Next {
    put_reply(output, number, kind, why.as_bytes());
    Next::Option
}

#[cfg(test)]
mod tests;
