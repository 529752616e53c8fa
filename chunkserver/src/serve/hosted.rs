//! One disk of a host: its engine, its file, and the numbers by which operations find back to it.
//!
//! ```text
//!   63  62           48 47                                             0
//!  +---+---------------+------------------------------------------------+
//!  | 1 | disk (15)     | the engine's number of the operation (48)      |
//!  +---+---------------+------------------------------------------------+
//! ```
//! The top bit says that a reactor's token is a host's; a runtime that shares the reactor keeps its own tokens below.

use super::handle::{DiskSnapshot, Traffic};
use crate::config::DISKS_MAX;
use ashlar_engine::{Engine, OpToken};
use ashlar_reactor::FileId;
use ashlar_types::{ByteCount, DiskId, SLOT_BYTES};
use ashlar_wire::Request;
use std::path::PathBuf;

const HOST_TOKEN: u64 = 1 << 63;
const OP_BITS: u32 = 48;
const DISK_MASK: u64 = (1 << 15) - 1;

const _: () = assert!(DISKS_MAX as u64 <= DISK_MASK);

/// A disk in service (or failed in service).
pub(crate) struct HostedDisk {
    pub(crate) id: DiskId,
    pub(crate) path: PathBuf,
    pub(crate) capacity: ByteCount,
    pub(crate) engine: Engine,
    pub(crate) file: FileId,
    /// Reads, writes, flushes and commits that have not ended.
    pub(crate) operations: usize,
    pub(crate) traffic: Traffic,
}

/// A disk that could not be opened.
#[derive(Clone, Debug)]
pub struct FailedDisk {
    pub id: Option<DiskId>,
    pub path: PathBuf,
    pub reason: String,
}

pub(crate) fn token_of(disk: usize, op: OpToken) -> u64 {
    assert!(op.0 < 1 << OP_BITS, "an engine counts its operations from 0");
    HOST_TOKEN | (disk as u64) << OP_BITS | op.0
}

pub(crate) fn is_host_token(token: u64) -> bool {
    token & HOST_TOKEN != 0
}

/// Disk and operation of a host's token.
pub(crate) fn operation_of(token: u64) -> (usize, OpToken) {
    assert!(is_host_token(token));
    let disk = (token >> OP_BITS) & DISK_MASK;
    (disk as usize, OpToken(token & ((1 << OP_BITS) - 1)))
}

impl HostedDisk {
    /// Nothing is under way and nothing is planned.
    pub(crate) fn is_idle(&self) -> bool {
        self.operations == 0 && self.engine.is_idle()
    }

    pub(crate) fn snapshot(&self) -> DiskSnapshot {
        let status = self.engine.status();
        DiskSnapshot {
            id: Some(self.id),
            path: self.path.clone(),
            capacity: self.capacity,
            free: ByteCount(u64::from(status.slots_total.saturating_sub(status.slots_used)) * SLOT_BYTES),
            failure: status.failed.clone(),
            status: Some(status),
            traffic: self.traffic,
        }
    }

    pub(crate) fn count(&mut self, request: &Request) {
        let traffic = &mut self.traffic;
        match request {
            Request::Read { range, .. } => {
                traffic.reads += 1;
                traffic.read_bytes += range.count.bytes().0;
            }
            Request::Write { blocks, .. } => {
                traffic.writes += 1;
                traffic.written_bytes += blocks.data.len() as u64;
            }
            Request::Discard { .. } => traffic.discards += 1,
            _ => traffic.others += 1,
        }
    }
}

impl FailedDisk {
    pub(crate) fn snapshot(&self) -> DiskSnapshot {
        DiskSnapshot {
            id: self.id,
            path: self.path.clone(),
            capacity: ByteCount(0),
            free: ByteCount(0),
            failure: Some(self.reason.clone()),
            status: None,
            traffic: Traffic::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_find_back_to_disk_and_operation() {
        for (disk, op) in [(0, 0), (DISKS_MAX, 17), (3, (1 << OP_BITS) - 1)] {
            assert_eq!(operation_of(token_of(disk, OpToken(op))), (disk, OpToken(op)));
        }
        assert!(!is_host_token(17));
    }
}
