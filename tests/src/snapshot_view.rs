//! A snapshot as one replica keeps it: read straight from the chunkserver by an observer, past the datapath, while the
//! volume may be written.

use crate::Peer;
use anyhow::{Context, Result, bail, ensure};
use ashlar_rpc::control::{Member, VolumeRecord};
use ashlar_types::{BLOCKS_PER_CHUNK, BlockCount, BlockIndex, ChunkIndex, ChunkRange, Epoch, Lsn, SessionId};
use ashlar_wire::{Reply, Request};

/// One observer's session.
pub struct SnapshotView {
    peer: Peer,
    point: Lsn,
}

impl SnapshotView {
    /// `session` must be new to that chunkserver.
    pub fn open(record: &VolumeRecord, member: &Member, snapshot: &str, session: SessionId) -> Result<SnapshotView> {
        let point = record.snapshots.iter().find(|point| point.snapshot == snapshot);
        let point = point.with_context(|| format!("the record knows the snapshot {snapshot}"))?;
        let mut peer = Peer::connect(&member.address, session, Epoch::NONE)?;
        let open = Peer::open(&record.cluster, &member.disk, &record.volume, record.size_bytes)?;
        match peer.ask(Request::Observe(open))? {
            Reply::Opened(_) => Ok(SnapshotView { peer, point: Lsn::from_raw(point.point_lsn) }),
            other => bail!("Observe was answered {other:?}"),
        }
    }

    /// So many blocks of the first chunk, from the volume's start on, checked against their checksums.
    pub fn read(&mut self, start: u64, count: u32) -> Result<Vec<u8>> {
        assert!(start + u64::from(count) <= u64::from(BLOCKS_PER_CHUNK));
        let range = ChunkRange { chunk: ChunkIndex(0), start: BlockIndex(start), count: BlockCount(count) };
        match self.peer.ask(Request::Read { range, below: self.point })? {
            Reply::Data(blocks) => {
                ensure!(blocks.first_bad_block().is_none(), "a block from {start} on has another checksum");
                Ok(blocks.data.to_vec())
            }
            other => bail!("a read of blocks from {start} on was answered {other:?}"),
        }
    }
}
