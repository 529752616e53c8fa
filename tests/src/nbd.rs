//! A small NBD client (newstyle, simple replies) that knows what was acknowledged to it, also when the server dies
//! under it.
//!
//! Source of the numbers: the NBD project's `doc/proto.md`. All integers are big-endian.

use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const EXPORT_NAME: u32 = 1;
const FIXED_NEWSTYLE_NO_ZEROES: u32 = 3;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
/// A server that does not answer for so long is stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// One connection.
pub struct NbdClient {
    stream: UnixStream,
    input: BufReader<UnixStream>,
    size: u64,
    next_cookie: u64,
}

/// The answer to one request; `error` is an errno, 0 for success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NbdReply {
    pub cookie: u64,
    pub error: u32,
}

/// Path of the socket in `nbd+unix:///?socket=PATH`.
pub fn nbd_socket(uri: &str) -> Result<PathBuf> {
    let (_, path) = uri.split_once("socket=").with_context(|| format!("{uri:?} names no socket"))?;
    Ok(PathBuf::from(path.split('&').next().unwrap_or(path)))
}

impl NbdClient {
    pub fn connect(socket: &Path) -> Result<NbdClient> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let input = BufReader::new(stream.try_clone()?);
        let mut client = NbdClient { stream, input, size: 0, next_cookie: 1 };
        client.negotiate().context("negotiate")?;
        Ok(client)
    }

    fn negotiate(&mut self) -> Result<()> {
        let greeting: [u8; 18] = self.take()?;
        ensure!(
            greeting[..8] == SERVER_MAGIC.to_be_bytes() && greeting[8..16] == OPTION_MAGIC.to_be_bytes(),
            "greeting"
        );
        self.stream.write_all(&FIXED_NEWSTYLE_NO_ZEROES.to_be_bytes())?;
        // The default export, whose name is empty.
        let option = [&OPTION_MAGIC.to_be_bytes()[..], &EXPORT_NAME.to_be_bytes(), &0u32.to_be_bytes()].concat();
        self.stream.write_all(&option)?;
        self.size = u64::from_be_bytes(self.take()?);
        let _transmission_flags: [u8; 2] = self.take()?;
        Ok(())
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Sends a write without waiting; gives its cookie.
    pub fn submit_write(&mut self, offset: u64, data: &[u8]) -> Result<u64> {
        let cookie = self.send(WRITE, offset, data.len() as u32)?;
        self.stream.write_all(data).context("send the data of a write")?;
        Ok(cookie)
    }

    /// Sends a read without waiting; the data follows its answer, to be taken with [`NbdClient::receive_data`].
    pub fn submit_read(&mut self, offset: u64, length: u32) -> Result<u64> {
        self.send(READ, offset, length)
    }

    /// Sends a trim without waiting: whole blocks within it read as zeros once it is answered.
    pub fn submit_trim(&mut self, offset: u64, length: u32) -> Result<u64> {
        self.send(TRIM, offset, length)
    }

    pub fn submit_flush(&mut self) -> Result<u64> {
        self.send(FLUSH, 0, 0)
    }

    /// Whether an answer has begun to come within `limit`.
    pub fn wait_answer(&mut self, limit: Duration) -> Result<bool> {
        self.stream.set_read_timeout(Some(limit))?;
        let begun = self.input.fill_buf().map(|bytes| !bytes.is_empty());
        self.stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        match begun {
            Ok(true) => Ok(true),
            Ok(false) => bail!("the server has closed the connection"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error).context("wait for an answer"),
        }
    }

    /// The data of a read that was answered with success.
    pub fn receive_data(&mut self, length: u32) -> Result<Vec<u8>> {
        let mut data = vec![0; length as usize];
        self.input.read_exact(&mut data).context("read the data of a read")?;
        Ok(data)
    }

    /// The same connection, by which another thread can cut it off.
    pub fn socket(&self) -> Result<UnixStream> {
        self.stream.try_clone().context("clone a socket")
    }

    /// The next answer.
    pub fn next_reply(&mut self) -> Result<NbdReply> {
        let head: [u8; 16] = self.take().context("wait for an answer")?;
        ensure!(head[..4] == REPLY_MAGIC.to_be_bytes(), "an answer begins with {:02x?}", &head[..4]);
        let error = u32::from_be_bytes(head[4..8].try_into().expect("4 bytes"));
        Ok(NbdReply { cookie: u64::from_be_bytes(head[8..].try_into().expect("8 bytes")), error })
    }

    /// Writes and waits; nothing else may be under way.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let cookie = self.submit_write(offset, data)?;
        self.expect_success(cookie)
    }

    /// Reads and waits; nothing else may be under way.
    pub fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>> {
        let cookie = self.send(READ, offset, length)?;
        self.expect_success(cookie)?;
        self.receive_data(length)
    }

    pub fn flush(&mut self) -> Result<()> {
        let cookie = self.send(FLUSH, 0, 0)?;
        self.expect_success(cookie)
    }

    /// Takes leave.
    pub fn close(mut self) -> Result<()> {
        self.disconnect()
    }

    /// Tells the server that nothing more comes.
    pub fn disconnect(&mut self) -> Result<()> {
        self.send(DISCONNECT, 0, 0).map(drop)
    }

    fn expect_success(&mut self, cookie: u64) -> Result<()> {
        let reply = self.next_reply()?;
        ensure!(reply.cookie == cookie, "the answer is to {}, not to {cookie}", reply.cookie);
        if reply.error != 0 {
            bail!("the server answered with error {}", reply.error);
        }
        Ok(())
    }

    fn send(&mut self, command: u16, offset: u64, length: u32) -> Result<u64> {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let mut request = vec![];
        request.extend(REQUEST_MAGIC.to_be_bytes());
        request.extend(0u16.to_be_bytes());
        request.extend(command.to_be_bytes());
        request.extend(cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        self.stream.write_all(&request).context("send a request")?;
        Ok(cookie)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
