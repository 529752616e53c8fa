//! Door for the fuzz targets: one client's bytes through negotiation and transmission, as a connection takes them, but
//! without a socket. Only with the feature `fuzz`.

use super::input::Input;
use super::negotiation::{Agreement, Export, Negotiation, Step};
use super::protocol::{OPTION_BYTES_MAX, OPTION_HEADER_BYTES, PAYLOAD_BYTES_MAX, REQUEST_BYTES};
use super::transmission::{self, Command, Parsed};
use ashlar_types::ByteCount;
use bytes::{Bytes, BytesMut};

/// Everything that one client brought about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// What was sent to the client.
    pub output: Vec<u8>,
    /// What was asked of the volume, by its `Debug`.
    pub requests: Vec<String>,
    pub closed: bool,
}

struct Server {
    export: Export,
    input: Input,
    agreement: Option<Agreement>,
    negotiation: Negotiation,
    said: Conversation,
}

/// The client sends these pieces, to the export `vol`. Panics when a request leaves the export, or when more is held
/// back than the longest thing that may still become whole.
pub fn converse<'a>(size: ByteCount, read_only: bool, pieces: impl Iterator<Item = &'a [u8]>) -> Conversation {
    let export = Export { name: "vol".to_owned(), size, read_only };
    let mut greeting = BytesMut::new();
    let negotiation = Negotiation::new(&mut greeting);
    let said = Conversation { output: greeting.to_vec(), ..Conversation::default() };
    let mut server = Server { export, input: Input::default(), agreement: None, negotiation, said };
    for piece in pieces {
        server.input.push(Bytes::copy_from_slice(piece));
        server.work_off();
        if server.said.closed {
            break;
        }
        let whole = match server.agreement {
            Some(_) => REQUEST_BYTES + PAYLOAD_BYTES_MAX as usize,
            None => OPTION_HEADER_BYTES + OPTION_BYTES_MAX as usize,
        };
        assert!(server.input.len() < whole, "what can be understood is");
    }
    server.said
}

impl Server {
    fn work_off(&mut self) {
        if self.agreement.is_none() {
            let mut output = BytesMut::new();
            let step = self.negotiation.advance(&self.export, &mut self.input, &mut output);
            self.said.output.extend(output);
            match step {
                Step::Wait => return,
                Step::Transmission(agreement) => self.agreement = Some(agreement),
                Step::Close(_) => return self.said.closed = true,
            }
        }
        let agreement = self.agreement.expect("agreed above");
        loop {
            match transmission::parse(&self.export, agreement, &mut self.input) {
                Parsed::Wait => return,
                Parsed::Request { cookie, command } => {
                    self.check(agreement, &command);
                    self.said.requests.push(format!("{cookie:?} {command:?}"));
                }
                Parsed::Answer { cookie, result } => {
                    self.said.output.extend(transmission::simple_reply(cookie, result));
                }
                Parsed::ReadRefused { cookie, error } => {
                    self.said.output.extend(transmission::read_error(agreement, cookie, error, "refused"));
                }
                Parsed::Disconnect | Parsed::Close(_) => return self.said.closed = true,
            }
        }
    }

    fn check(&self, agreement: Agreement, command: &Command) {
        let (offset, bytes) = match command {
            Command::Read { offset, bytes } => (offset.0, bytes.0),
            Command::Write { offset, data } => (offset.0, data.len() as u64),
            Command::Zero { offset, bytes } | Command::Trim { offset, bytes } => (offset.0, bytes.0),
            Command::Flush => return,
        };
        assert!(bytes > 0 && offset + bytes <= self.export.size.0, "requests lie within the export");
        let block = ashlar_types::BLOCK_BYTES;
        let aligned = offset.is_multiple_of(block) && bytes.is_multiple_of(block);
        assert!(aligned || !agreement.block_sizes, "who was told of block sizes keeps to them");
        assert!(!self.export.read_only || matches!(command, Command::Read { .. }), "a read-only export is not changed");
    }
}
