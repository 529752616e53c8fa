//! A peer of a chunkserver that may misbehave: whole frames, frames of its own making, and raw bytes, over one TCP
//! connection.

use anyhow::{Context, Result};
use ashlar_types::{ByteCount, ClusterId, DiskId, Epoch, Lsn, RequestId, SessionId, VolumeId};
use ashlar_wire::{
    FrameHeader, Open, Reply, ReplyFrame, Request, RequestFrame, decode_reply, encode_request, limits::HEADER_BYTES,
};
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// One link, with the numbers that its frames carry.
pub struct Peer {
    stream: TcpStream,
    pub session: SessionId,
    pub epoch: Epoch,
    pub commit: Lsn,
    next_request: u64,
}

impl Peer {
    pub fn connect(address: &str, session: SessionId, epoch: Epoch) -> Result<Peer> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Peer { stream, session, epoch, commit: Lsn::ZERO, next_request: 1 })
    }

    /// What `Open` and `Observe` need to know, from the ids as the control API gives them.
    pub fn open(cluster: &str, disk: &str, volume: &str, size_bytes: u64) -> Result<Open> {
        Ok(Open {
            cluster: cluster.parse::<ClusterId>()?,
            disk: disk.parse::<DiskId>()?,
            volume: volume.parse::<VolumeId>()?,
            size: ByteCount(size_bytes),
            served: Epoch::NONE,
        })
    }

    pub fn frame(&mut self, message: Request) -> RequestFrame {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        RequestFrame { session: self.session, request, epoch: self.epoch, commit: self.commit, message }
    }

    /// The bytes of a frame, to be sent as they are or spoiled first.
    pub fn bytes(frame: &RequestFrame) -> Vec<u8> {
        let encoded = encode_request(frame);
        [&encoded.head[..], &encoded.data[..]].concat()
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("send")
    }

    /// No more will be sent; answers may still come.
    pub fn finish_sending(&mut self) -> Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write).context("shut down")
    }

    /// One request and its answer.
    pub fn ask(&mut self, message: Request) -> Result<Reply> {
        let frame = self.frame(message);
        self.send_raw(&Peer::bytes(&frame))?;
        Ok(self.receive()?.context("the chunkserver closed the link")?.message)
    }

    /// The next answer; `None` when the chunkserver has closed the link.
    pub fn receive(&mut self) -> Result<Option<ReplyFrame>> {
        let mut head = [0; HEADER_BYTES];
        if let Err(error) = self.stream.read_exact(&mut head) {
            let closed =
                matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
            return if closed { Ok(None) } else { Err(error).context("wait for an answer") };
        }
        let header = FrameHeader::decode(&head).context("header of an answer")?;
        let mut body = vec![0; header.body_bytes as usize];
        self.stream.read_exact(&mut body).context("body of an answer")?;
        let mut data = vec![0; header.data_bytes as usize];
        self.stream.read_exact(&mut data).context("data of an answer")?;
        Ok(Some(decode_reply(&header, &body, data.into()).context("answer")?))
    }

    /// Waits until the chunkserver closes the link; answers on the way are given.
    pub fn receive_to_the_end(&mut self) -> Result<Vec<ReplyFrame>> {
        let mut replies = vec![];
        while let Some(reply) = self.receive()? {
            replies.push(reply);
        }
        Ok(replies)
    }
}
