//! An observer's session with one chunkserver: blocking, one request after another. Not on any path that must be
//! fast.

use anyhow::{Context, bail, ensure};
use ashlar_types::{
    BLOCK_BYTES, BlockCount, ChunkIndex, ChunkRange, Crc32, DiskId, Epoch, FloorRange, Lsn, RequestId, SessionId,
    VolumeRecord,
};
use ashlar_wire::{
    BlockData, ChangedSlots, Frame, FrameHeader, Open, Refusal, Reply, Request, Status, decode_reply, encode_request,
    limits::HEADER_BYTES,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Observer {
    stream: TcpStream,
    session: SessionId,
    next_request: u64,
    /// What is read: the present (`Lsn::MAX`), or a snapshot with this point.
    view: Lsn,
}

impl Observer {
    pub(super) fn connect(address: &str, record: &VolumeRecord, disk: DiskId) -> anyhow::Result<Observer> {
        ensure!(!address.is_empty(), "its chunkserver has not told its address");
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let session = SessionId(uuid::Uuid::new_v4().as_u128() as u64);
        let mut observer = Observer { stream, session, next_request: 1, view: Lsn::MAX };
        let served = Epoch::NONE;
        let open = Open { cluster: record.cluster, disk, volume: record.volume, size: record.size, served };
        match observer.ask(Request::Observe(open))? {
            Reply::Opened(opened) if opened.syncing => bail!("the replica is incomplete"),
            Reply::Opened(_) => Ok(observer),
            other => Err(unexpected(other)),
        }
    }

    pub(super) fn look_at(&mut self, view: Lsn) {
        self.view = view;
    }

    /// Every slot of the view that was ever written in the chunks `from..until`.
    pub(super) fn written_slots(&mut self, from: ChunkIndex, until: ChunkIndex) -> anyhow::Result<Vec<ChangedSlots>> {
        let floors = FloorRange { from: Lsn::ZERO, below: self.view };
        let mut written = vec![];
        let mut next = Some(from);
        while let Some(from) = next {
            match self.ask(Request::ListChanged { from, until, after: Lsn::ZERO, floors })? {
                Reply::Changed { entries, next: following } => {
                    ensure!(following.is_none_or(|following| following > from), "the chunkserver lists in circles");
                    written.extend(entries);
                    next = following;
                }
                other => return Err(unexpected(other)),
            }
        }
        Ok(written)
    }

    /// Asks for blocks; [`Observer::content`] takes the answer.
    pub(super) fn ask_for(&mut self, range: ChunkRange) -> anyhow::Result<()> {
        self.send(Request::Read { range, below: self.view })
    }

    /// The answer to the last [`Observer::ask_for`]. If a block cannot be read, each is asked for on its own.
    pub(super) fn content(&mut self, range: ChunkRange) -> anyhow::Result<Content> {
        match self.receive()? {
            Reply::Data(blocks) => checked(blocks, range.count),
            Reply::Refused(Refusal { status: Status::BadBlock | Status::Stale, .. }) => self.content_by_block(range),
            other => Err(unexpected(other)),
        }
    }

    fn content_by_block(&mut self, range: ChunkRange) -> anyhow::Result<Content> {
        let mut content = Content { blocks: Vec::with_capacity(range.count.0 as usize) };
        for at in 0..range.count.0 {
            let one = ChunkRange { start: range.start.offset_by(BlockCount(at)), count: BlockCount(1), ..range };
            match self.ask(Request::Read { range: one, below: self.view })? {
                Reply::Data(blocks) => content.blocks.extend(checked(blocks, one.count)?.blocks),
                Reply::Refused(Refusal { status: Status::BadBlock | Status::Stale, .. }) => content.blocks.push(None),
                other => return Err(unexpected(other)),
            }
        }
        Ok(content)
    }

    fn ask(&mut self, message: Request) -> anyhow::Result<Reply> {
        self.send(message)?;
        self.receive()
    }

    fn send(&mut self, message: Request) -> anyhow::Result<()> {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let frame = Frame { session: self.session, request, epoch: Epoch::NONE, commit: Lsn::ZERO, message };
        let encoded = encode_request(&frame);
        self.stream.write_all(&encoded.head).context("send to the chunkserver")?;
        self.stream.write_all(&encoded.data).context("send to the chunkserver")
    }

    fn receive(&mut self) -> anyhow::Result<Reply> {
        let mut head = [0; HEADER_BYTES];
        self.stream.read_exact(&mut head).context("wait for the chunkserver's answer")?;
        let header = FrameHeader::decode(&head).context("the chunkserver's answer")?;
        let mut body = vec![0; header.body_bytes as usize];
        self.stream.read_exact(&mut body).context("wait for the chunkserver's answer")?;
        let mut data = vec![0; header.data_bytes as usize];
        self.stream.read_exact(&mut data).context("wait for the chunkserver's answer")?;
        let frame = decode_reply(&header, &body, data.into()).context("the chunkserver's answer")?;
        // One request is under way at a time.
        ensure!(frame.request == RequestId(self.next_request - 1), "the chunkserver answered another request");
        Ok(frame.message)
    }
}

/// Some blocks of one replica; what cannot be read is `None`.
#[derive(Clone, Debug)]
pub(super) struct Content {
    blocks: Vec<Option<(Crc32, bytes::Bytes)>>,
}

impl Content {
    pub(super) fn of(blocks: BlockData) -> Content {
        let size = BLOCK_BYTES as usize;
        let slices = (0..blocks.crcs.len()).map(|at| blocks.data.slice(at * size..(at + 1) * size));
        Content { blocks: blocks.crcs.iter().copied().zip(slices).map(Some).collect() }
    }

    /// Checksum and bytes.
    pub(super) fn block(&self, at: u32) -> Option<&(Crc32, bytes::Bytes)> {
        self.blocks.get(at as usize)?.as_ref()
    }

    #[cfg(test)]
    pub(super) fn lose(&mut self, at: usize) {
        self.blocks[at] = None;
    }
}

fn checked(blocks: BlockData, count: BlockCount) -> anyhow::Result<Content> {
    ensure!(blocks.crcs.len() == count.0 as usize, "the chunkserver gave {} blocks of {}", blocks.crcs.len(), count.0);
    let bad: Vec<usize> = blocks.first_bad_block().into_iter().collect();
    let mut content = Content::of(blocks);
    // A chunkserver checks before it answers; what is spoiled on the way counts as unreadable all the same.
    for at in bad {
        content.blocks[at] = None;
    }
    Ok(content)
}

fn unexpected(reply: Reply) -> anyhow::Error {
    match reply {
        Reply::Refused(refusal) => anyhow::anyhow!("refused as {:?}: {}", refusal.status, refusal.reason),
        other => anyhow::anyhow!("the chunkserver answered {}", name_of(&other)),
    }
}

fn name_of(reply: &Reply) -> &'static str {
    match reply {
        Reply::Opened(_) => "Opened",
        Reply::Reported { .. } => "Reported",
        Reply::Data(_) => "Data",
        Reply::Changed { .. } => "Changed",
        Reply::Slot(_) => "Slot",
        Reply::Held(_) => "Held",
        Reply::Blocks(_) => "Blocks",
        Reply::Done => "Done",
        Reply::Refused(_) => "Refused",
    }
}
