//! A volume's device over NBD, to be written to: one request at a time, simple replies.
//!
//! Source of the numbers: the NBD project's `doc/proto.md`. All integers are big-endian.
//!
//! ```text
//! greeting    | NBDMAGIC u64 | IHAVEOPT u64 | flags u16 |
//! ours        | flags u32 | IHAVEOPT u64 | option u32 | length u32 |      the default export, whose name is empty
//! answer      | size u64 | flags u16 |
//! request     | magic u32 | flags u16 | type u16 | cookie u64 | offset u64 | length u32 | data of a write |
//! reply       | magic u32 | error u32 | cookie u64 |
//! ```

use anyhow::{Context, ensure};
use ashlar_types::{ByteCount, ByteOffset};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const EXPORT_NAME: u32 = 1;
/// Fixed newstyle, and no zeroes behind the answer.
const CLIENT_FLAGS: u32 = 3;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const WRITE_ZEROES: u16 = 6;
/// Most bytes that are made zeros by one request: a chunk.
const ZEROES_BYTES_MAX: u64 = ashlar_types::CHUNK_BYTES;

#[derive(Debug)]
pub struct Nbd {
    stream: UnixStream,
    size: ByteCount,
    next_cookie: u64,
}

/// Path of the socket in `nbd+unix:///?socket=PATH`.
pub fn socket_of(uri: &str) -> anyhow::Result<PathBuf> {
    let (_, path) = uri.split_once("?socket=").with_context(|| format!("{uri:?} names no socket"))?;
    Ok(PathBuf::from(path.split('&').next().unwrap_or(path)))
}

impl Nbd {
    pub fn connect(socket: &Path) -> anyhow::Result<Nbd> {
        let shown = socket.display();
        let stream = UnixStream::connect(socket).with_context(|| format!("connect to {shown}"))?;
        Nbd::negotiate(stream).with_context(|| format!("negotiate with {shown}"))
    }

    fn negotiate(mut stream: UnixStream) -> anyhow::Result<Nbd> {
        let (server, option, _) = (take_u64(&mut stream)?, take_u64(&mut stream)?, take::<2>(&mut stream)?);
        ensure!(server == SERVER_MAGIC && option == OPTION_MAGIC, "this is no NBD server of the newstyle negotiation");
        let (name, nothing) = (EXPORT_NAME.to_be_bytes(), 0u32.to_be_bytes());
        let ours = [&CLIENT_FLAGS.to_be_bytes()[..], &OPTION_MAGIC.to_be_bytes(), &name, &nothing].concat();
        stream.write_all(&ours)?;
        let (size, _) = (ByteCount(take_u64(&mut stream)?), take::<2>(&mut stream)?);
        Ok(Nbd { stream, size, next_cookie: 1 })
    }

    pub fn size(&self) -> ByteCount {
        self.size
    }

    pub fn write(&mut self, offset: ByteOffset, data: &[u8]) -> anyhow::Result<()> {
        self.ask(WRITE, offset, u32::try_from(data.len())?, data)
    }

    /// The blocks read as zeros from now on.
    pub fn zero(&mut self, offset: ByteOffset, length: ByteCount) -> anyhow::Result<()> {
        let end = offset.0 + length.0;
        for start in (offset.0..end).step_by(ZEROES_BYTES_MAX as usize) {
            let length = (end - start).min(ZEROES_BYTES_MAX) as u32;
            self.ask(WRITE_ZEROES, ByteOffset(start), length, &[])?;
        }
        Ok(())
    }

    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.ask(FLUSH, ByteOffset(0), 0, &[])
    }

    /// Takes leave.
    pub fn close(mut self) -> anyhow::Result<()> {
        self.send(DISCONNECT, ByteOffset(0), 0, &[]).map(drop)
    }

    fn ask(&mut self, kind: u16, offset: ByteOffset, length: u32, data: &[u8]) -> anyhow::Result<()> {
        let cookie = self.send(kind, offset, length, data)?;
        let [magic, error] = [take::<4>(&mut self.stream)?, take::<4>(&mut self.stream)?].map(u32::from_be_bytes);
        let answered = take_u64(&mut self.stream)?;
        ensure!(magic == REPLY_MAGIC && answered == cookie, "the device answered something else than what was asked");
        ensure!(error == 0, "the device refused a write at byte {offset} with error {error}");
        Ok(())
    }

    fn send(&mut self, kind: u16, offset: ByteOffset, length: u32, data: &[u8]) -> anyhow::Result<u64> {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let (flags, offset) = (0u16.to_be_bytes(), offset.0.to_be_bytes());
        let (magic, kind) = (REQUEST_MAGIC.to_be_bytes(), kind.to_be_bytes());
        let head = [&magic[..], &flags, &kind, &cookie.to_be_bytes(), &offset, &length.to_be_bytes()].concat();
        let sent = self.stream.write_all(&head).and_then(|()| self.stream.write_all(data));
        sent.context("write to the device")?;
        Ok(cookie)
    }
}

fn take<const N: usize>(stream: &mut UnixStream) -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).context("wait for the device's answer")?;
    Ok(bytes)
}

fn take_u64(stream: &mut UnixStream) -> anyhow::Result<u64> {
    take(stream).map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_named_by_the_uri() {
        assert_eq!(socket_of("nbd+unix:///?socket=/run/a/v.sock").unwrap(), Path::new("/run/a/v.sock"));
        assert!(socket_of("/dev/loop3").is_err());
    }
}
