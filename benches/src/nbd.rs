//! The client's side of NBD, as much as a load needs: the default export, simple replies. Source: the NBD protocol
//! document, "fixed newstyle".

use crate::job::Access;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};
use std::{
    collections::HashMap,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

const SERVER_MAGIC: &[u8; 8] = b"NBDMAGIC";
const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const FIXED_NEWSTYLE_NO_ZEROES: u32 = 0b11;
const EXPORT_NAME: u32 = 1;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const READ: u16 = 0;
const WRITE: u16 = 1;
const REPLY_BYTES: usize = 16;
/// What a server says before the first reply: its greeting, and the export's size and flags.
const PREFACE_BYTES: usize = 18 + 10;
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// A connection in its transmission phase.
pub(crate) fn negotiate(socket: &Path) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    // A write of 1 MiB should not wait for the server between its pieces: the default holds 208 KiB.
    setsockopt(&stream, sockopt::SndBuf, &SEND_BUFFER_BYTES).context("size the send buffer")?;
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).context("read the greeting")?;
    ensure!(&greeting[..8] == SERVER_MAGIC && &greeting[8..16] == OPTION_MAGIC, "not a newstyle NBD server");
    stream.write_all(&FIXED_NEWSTYLE_NO_ZEROES.to_be_bytes())?;
    stream.write_all(&[&OPTION_MAGIC[..], &EXPORT_NAME.to_be_bytes(), &0u32.to_be_bytes()].concat())?;
    let mut export = [0; 10];
    stream.read_exact(&mut export).context("read the export's size and flags")?;
    Ok(stream)
}

/// What leads to the transmission phase, for who cannot wait in between: the answers are passed over by
/// [`Replies::after_negotiation`].
pub(crate) fn negotiation() -> Bytes {
    [&FIXED_NEWSTYLE_NO_ZEROES.to_be_bytes(), &OPTION_MAGIC[..], &EXPORT_NAME.to_be_bytes(), &0u32.to_be_bytes()]
        .concat()
        .into()
}

pub(crate) fn request(access: Access, cookie: u64, offset: u64, bytes: u32) -> Bytes {
    let command = if access == Access::Read { READ } else { WRITE };
    let mut head = Vec::with_capacity(28);
    head.extend(REQUEST_MAGIC.to_be_bytes());
    head.extend(0u16.to_be_bytes());
    head.extend(command.to_be_bytes());
    head.extend(cookie.to_be_bytes());
    head.extend(offset.to_be_bytes());
    head.extend(bytes.to_be_bytes());
    head.into()
}

/// Takes the server's bytes apart, in whatever pieces they come.
#[derive(Default)]
pub(crate) struct Replies {
    head: Vec<u8>,
    /// Data of a read that is still to come, and whose it is.
    skipping: Option<(u64, usize)>,
    reads: HashMap<u64, usize>,
    /// Bytes of the negotiation that are still to come.
    preface: usize,
}

impl Replies {
    pub(crate) fn after_negotiation() -> Replies {
        Replies { preface: PREFACE_BYTES, ..Replies::default() }
    }

    pub(crate) fn expect_data(&mut self, cookie: u64, bytes: usize) {
        self.reads.insert(cookie, bytes);
    }

    /// Cookies of the requests that are answered whole by now.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Result<Vec<u64>> {
        let mut done = vec![];
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if let Some((cookie, left)) = self.skipping.take() {
                let taken = left.min(bytes.len());
                bytes = &bytes[taken..];
                if taken == left {
                    done.push(cookie);
                } else {
                    self.skipping = Some((cookie, left - taken));
                }
                continue;
            }
            let taken = (REPLY_BYTES - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.head.len() == REPLY_BYTES {
                let cookie = check_reply(&self.head)?;
                self.head.clear();
                match self.reads.remove(&cookie) {
                    Some(data) => self.skipping = Some((cookie, data)),
                    None => done.push(cookie),
                }
            }
        }
        Ok(done)
    }
}

fn check_reply(head: &[u8]) -> Result<u64> {
    ensure!(head[..4] == REPLY_MAGIC.to_be_bytes(), "a reply begins with {:02x?}", &head[..4]);
    let error = u32::from_be_bytes(head[4..8].try_into()?);
    if error != 0 {
        bail!("the server answers with error {error}");
    }
    Ok(u64::from_be_bytes(head[8..16].try_into()?))
}
