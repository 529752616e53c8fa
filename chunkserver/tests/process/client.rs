//! The smallest peer: one blocking connection, one request at a time or several.

use crate::daemon::CLUSTER;
use ashlar_types::{
    BLOCK_BYTES, BlockCount, BlockIndex, ByteCount, ChunkIndex, ChunkRange, ClusterId, Crc32, DiskId, Epoch, Lsn,
    RequestId, SessionId, VolumeId,
};
use ashlar_wire::limits::HEADER_BYTES;
use ashlar_wire::{
    BlockData, FrameHeader, Open, Opened, Reply, ReplyFrame, Request, RequestFrame, Status, decode_reply,
    encode_request,
};
use bytes::Bytes;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) const VOLUME: VolumeId = VolumeId::from_u128(0xa1);
pub(crate) const VOLUME_BYTES: ByteCount = ByteCount(1 << 30);

pub(crate) struct Client {
    stream: TcpStream,
    session: SessionId,
    epoch: Epoch,
    next_request: u64,
}

impl Client {
    /// A connection that has sent nothing.
    pub(crate) fn connect(address: SocketAddr, epoch: u32) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_nodelay(true).unwrap();
        let session = SessionId(u64::from(stream.local_addr().unwrap().port()) << 8);
        Client { stream, session, epoch: Epoch::new(epoch).unwrap(), next_request: 1 }
    }

    /// A writer's session that must be granted.
    pub(crate) fn open(address: SocketAddr, disk: DiskId, epoch: u32) -> Client {
        let mut client = Client::connect(address, epoch);
        client.opened(disk);
        client
    }

    pub(crate) fn opened(&mut self, disk: DiskId) -> Opened {
        match self.ask(Request::Open(open(CLUSTER, disk))).unwrap() {
            Reply::Opened(opened) => opened,
            other => panic!("{other:?}"),
        }
    }

    /// Sends, and waits for the one answer. An error when the chunkserver ended the link.
    pub(crate) fn ask(&mut self, message: Request) -> io::Result<Reply> {
        let request = self.send(message)?;
        let reply = self.receive()?;
        assert_eq!(reply.request, request);
        Ok(reply.message)
    }

    /// Must be done.
    pub(crate) fn done(&mut self, message: Request) {
        match self.ask(message).unwrap() {
            Reply::Done => {}
            other => panic!("{other:?}"),
        }
    }

    /// Must be refused.
    pub(crate) fn refused(&mut self, message: Request) -> Status {
        match self.ask(message).unwrap() {
            Reply::Refused(refusal) => refusal.status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn read(&mut self, start: u64, blocks: u32) -> Bytes {
        match self.ask(Request::Read { range: range(0, start, blocks), below: Lsn::MAX }).unwrap() {
            Reply::Data(BlockData { crcs, data }) => {
                assert!(Crc32::of_blocks(&data).eq(crcs));
                data
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn send(&mut self, message: Request) -> io::Result<RequestId> {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let frame = RequestFrame { session: self.session, request, epoch: self.epoch, commit: Lsn::ZERO, message };
        let encoded = encode_request(&frame);
        self.stream.write_all(&encoded.head)?;
        self.stream.write_all(&encoded.data)?;
        Ok(request)
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(crate) fn receive(&mut self) -> io::Result<ReplyFrame> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header)?;
        let header = FrameHeader::decode(&header).unwrap();
        let mut body = vec![0; header.body_bytes as usize];
        self.stream.read_exact(&mut body)?;
        let mut data = vec![0; header.data_bytes as usize];
        self.stream.read_exact(&mut data)?;
        Ok(decode_reply(&header, &body, data.into()).unwrap())
    }

    /// Nothing comes for so long.
    pub(crate) fn expect_silence(&mut self, duration: Duration) {
        self.stream.set_read_timeout(Some(duration)).unwrap();
        let error = self.stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
    }

    /// Whether anything comes in time.
    pub(crate) fn is_answered_within(&mut self, duration: Duration) -> bool {
        self.stream.set_read_timeout(Some(duration)).unwrap();
        matches!(self.stream.read(&mut [0]), Ok(1))
    }

    /// The chunkserver ends the link, with no further answer.
    pub(crate) fn expect_ended(&mut self) {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("an answer came"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

pub(crate) fn open(cluster: ClusterId, disk: DiskId) -> Open {
    Open { cluster, disk, volume: VOLUME, size: VOLUME_BYTES, served: Epoch::NONE }
}

pub(crate) fn range(chunk: u32, start: u64, blocks: u32) -> ChunkRange {
    ChunkRange { chunk: ChunkIndex(chunk), start: BlockIndex(start), count: BlockCount(blocks) }
}

/// Blocks whose every byte tells `seed` and the block's place.
pub(crate) fn content(seed: u64, blocks: u32) -> Bytes {
    let block = |number: u32| {
        let word = (seed << 32 | u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        word.to_le_bytes().repeat(BLOCK_BYTES as usize / 8)
    };
    (0..blocks).flat_map(block).collect::<Vec<u8>>().into()
}

/// A write to chunk 0, the `counter`th of the epoch.
pub(crate) fn write(epoch: u32, counter: u64, start: u64, data: &Bytes) -> Request {
    let blocks = BlockData { crcs: Crc32::of_blocks(data).collect(), data: data.clone() };
    let lsn = Lsn::from_raw(Lsn::start_of(Epoch::new(epoch).unwrap()).raw() + counter);
    Request::Write { range: range(0, start, blocks.crcs.len() as u32), lsn, floor: Lsn::ZERO, blocks }
}
