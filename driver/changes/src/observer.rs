//! An observer's session with one chunkserver: blocking, one request after another. Not on any path that must be
//! fast.

use crate::error::{ChangesError, Result};
use ashlar_types::{
    BLOCK_BYTES, BLOCKS_PER_CHUNK, BlockCount, ChunkIndex, ChunkRange, Crc32, DiskId, Epoch, FloorRange, Lsn,
    RequestId, SessionId, VolumeRecord,
};
use ashlar_wire::{
    BlockData, ChangedSlots, Frame, FrameHeader, Open, Opened, Refusal, Reply, Request, SlotBlocks, Status,
    decode_reply, encode_request, limits::HEADER_BYTES,
};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A chunkserver that works answers within milliseconds; one that is stopped never does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Observer {
    stream: TcpStream,
    session: SessionId,
    next_request: u64,
    /// What is read: the present (`Lsn::MAX`), or a snapshot with this point.
    view: Lsn,
}

impl Observer {
    /// Of a replica that was in-sync when the record was read.
    pub fn connect(address: &str, record: &VolumeRecord, disk: DiskId) -> Result<Observer> {
        if address.is_empty() {
            return Err(ChangesError::NoAddress);
        }
        let stream = connect(address).map_err(ChangesError::link("connect to the chunkserver"))?;
        let session = SessionId(uuid::Uuid::new_v4().as_u128() as u64);
        let mut observer = Observer { stream, session, next_request: 1, view: Lsn::MAX };
        let served = Epoch::NONE;
        let open = Open { cluster: record.cluster, disk, volume: record.volume, size: record.size, served };
        match observer.ask(Request::Observe(open))? {
            Reply::Opened(opened) => has_everything(&opened, record).map(|()| observer),
            other => Err(unexpected(other)),
        }
    }

    pub fn look_at(&mut self, view: Lsn) {
        self.view = view;
    }

    /// Every slot of the view that was ever written in the chunks `from..until`.
    pub fn written_slots(&mut self, from: ChunkIndex, until: ChunkIndex) -> Result<Vec<ChangedSlots>> {
        let floors = FloorRange { from: Lsn::ZERO, below: self.view };
        let mut written = vec![];
        let mut next = Some(from);
        while let Some(from) = next {
            match self.ask(Request::ListChanged { from, until, after: Lsn::ZERO, floors })? {
                Reply::Changed { entries, next: following } => {
                    if following.is_some_and(|following| following <= from) {
                        return Err(ChangesError::Nonsense("lists in circles".to_owned()));
                    }
                    written.extend(entries);
                    next = following;
                }
                other => return Err(unexpected(other)),
            }
        }
        Ok(written)
    }

    /// Which blocks of the chunk the versions among `floors` say something of, ascending.
    pub fn list_blocks(&mut self, chunk: ChunkIndex, floors: FloorRange) -> Result<Vec<SlotBlocks>> {
        match self.ask(Request::ListBlocks { chunk, floors })? {
            Reply::Blocks(slots) => {
                let ascending = slots.windows(2).all(|pair| pair[0].slot < pair[1].slot);
                let within = slots.last().is_none_or(|last| last.slot.first_block().0 < u64::from(BLOCKS_PER_CHUNK));
                let valid = slots.iter().all(|slot| slot.valid & !slot.set == 0);
                match ascending && within && valid {
                    true => Ok(slots),
                    false => Err(ChangesError::Nonsense("lists blocks that cannot be".to_owned())),
                }
            }
            other => Err(unexpected(other)),
        }
    }

    /// Asks for blocks; [`Observer::content`] takes the answer.
    pub fn ask_for(&mut self, range: ChunkRange) -> Result<()> {
        self.send(Request::Read { range, below: self.view })
    }

    /// The answer to the last [`Observer::ask_for`]. If a block cannot be read, each is asked for on its own.
    pub fn content(&mut self, range: ChunkRange) -> Result<Content> {
        match self.receive()? {
            Reply::Data(blocks) => checked(blocks, range.count),
            Reply::Refused(Refusal { status: Status::BadBlock | Status::Stale, .. }) => self.content_by_block(range),
            other => Err(unexpected(other)),
        }
    }

    fn content_by_block(&mut self, range: ChunkRange) -> Result<Content> {
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

    fn ask(&mut self, message: Request) -> Result<Reply> {
        self.send(message)?;
        self.receive()
    }

    fn send(&mut self, message: Request) -> Result<()> {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let frame = Frame { session: self.session, request, epoch: Epoch::NONE, commit: Lsn::ZERO, message };
        let encoded = encode_request(&frame);
        let sent = self.stream.write_all(&encoded.head).and_then(|()| self.stream.write_all(&encoded.data));
        sent.map_err(ChangesError::link("send to the chunkserver"))
    }

    fn receive(&mut self) -> Result<Reply> {
        let header = FrameHeader::decode(&self.take::<HEADER_BYTES>()?)?;
        let body = self.take_vec(header.body_bytes as usize)?;
        let data = self.take_vec(header.data_bytes as usize)?;
        let frame = decode_reply(&header, &body, data.into())?;
        // One request is under way at a time.
        match frame.request == RequestId(self.next_request - 1) {
            true => Ok(frame.message),
            false => Err(ChangesError::Nonsense("answered another request".to_owned())),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).map_err(ChangesError::link("wait for the chunkserver's answer"))?;
        Ok(bytes)
    }

    /// The header's decoder keeps lengths within the protocol's bounds.
    fn take_vec(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).map_err(ChangesError::link("wait for the chunkserver's answer"))?;
        Ok(bytes)
    }
}

/// Whether a replica that was in-sync when the record was read has what the record's snapshots hold.
pub fn has_everything(opened: &Opened, record: &VolumeRecord) -> Result<()> {
    match opened {
        _ if opened.syncing => Err(ChangesError::Incomplete),
        _ if opened.agreed < record.served => Err(ChangesError::Older),
        _ => Ok(()),
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address} names no address"));
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Some blocks of one replica; what cannot be read is `None`.
#[derive(Clone, Debug)]
pub struct Content {
    blocks: Vec<Option<(Crc32, bytes::Bytes)>>,
}

impl Content {
    pub fn of(blocks: BlockData) -> Content {
        let size = BLOCK_BYTES as usize;
        let slices = (0..blocks.crcs.len()).map(|at| blocks.data.slice(at * size..(at + 1) * size));
        Content { blocks: blocks.crcs.iter().copied().zip(slices).map(Some).collect() }
    }

    /// Checksum and bytes.
    pub fn block(&self, at: u32) -> Option<&(Crc32, bytes::Bytes)> {
        self.blocks.get(at as usize)?.as_ref()
    }

    /// Makes a block unreadable.
    pub fn lose(&mut self, at: usize) {
        self.blocks[at] = None;
    }
}

fn checked(blocks: BlockData, count: BlockCount) -> Result<Content> {
    if blocks.crcs.len() != count.0 as usize {
        return Err(ChangesError::Nonsense(format!("gave {} blocks of {}", blocks.crcs.len(), count.0)));
    }
    // A chunkserver checks before it answers; what is spoiled on the way counts as unreadable all the same.
    let bad: Vec<usize> = Crc32::of_blocks(&blocks.data)
        .zip(&blocks.crcs)
        .enumerate()
        .filter(|(_, (of, kept))| of != *kept)
        .map(|(at, _)| at)
        .collect();
    let mut content = Content::of(blocks);
    bad.into_iter().for_each(|at| content.lose(at));
    Ok(content)
}

fn unexpected(reply: Reply) -> ChangesError {
    match reply {
        Reply::Refused(refusal) => ChangesError::Refused { status: refusal.status, reason: refusal.reason },
        other => ChangesError::Nonsense(format!("answered {}", name_of(&other))),
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
        Reply::Bad { .. } => "Bad",
        Reply::Digests { .. } => "Digests",
        Reply::Done => "Done",
        Reply::Refused(_) => "Refused",
    }
}

#[cfg(test)]
mod tests;
