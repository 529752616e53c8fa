//! Words of Ashlar as types: every id and unit that crosses a function or a process.
//!
//! | noun | type | meaning |
//! | --- | --- | --- |
//! | cluster, volume, disk | [`ClusterId`], [`VolumeId`], [`DiskId`] | 128-bit identities, written as UUIDs |
//! | node, zone | [`NodeName`], [`ZoneName`] | a Kubernetes node, and a failure domain above nodes |
//! | chunk | [`ChunkIndex`] | equal piece of a volume, [`CHUNK_BYTES`], the unit of placement |
//! | slot | [`SlotIndex`] | [`SLOT_BYTES`] of a chunk, the unit of allocation |
//! | block | [`BlockIndex`], [`BlockCount`] | [`BLOCK_BYTES`], the unit of checksum |
//! | snapshot | [`SnapshotId`], [`Snapshot`] | a point in the order of a volume's writes |
//! | class | [`Class`] | whose repair goes first |
//! | epoch, lsn | [`Epoch`], [`Lsn`] | number of an attachment; order of writes within a volume |
//!
//! Nothing here performs I/O, reads a clock or draws random numbers.
#![forbid(unsafe_code)]

mod checksum;
mod class;
mod epoch;
mod floors;
mod geometry;
mod ids;
mod lsn;
mod mutant;
mod period;
mod record;
mod slip;
mod slots;
mod time;
mod units;

pub use checksum::Crc32;
pub use class::Class;
pub use epoch::Epoch;
pub use floors::{FloorRange, Kept, SNAPSHOTS_MAX};
pub use geometry::{
    BLOCK_BYTES, BLOCKS_PER_CHUNK, BLOCKS_PER_SLOT, CHUNK_BYTES, CHUNKS_MAX, ChunkRange, Geometry, GeometryError,
    SLOT_BYTES, SLOTS_PER_CHUNK, VOLUME_BYTES_MAX,
};
pub use ids::{
    ClusterId, DiskId, GroupId, IdError, NodeName, RequestId, SessionId, SnapshotId, VolumeId, VolumeName, ZoneName,
};
pub use lsn::Lsn;
pub use mutant::Mutant;
pub use period::Period;
pub use record::{
    Base, Change, ChangeAnswer, ChunkRun, ClonePoint, MEMBERS_MAX, Member, MemberState, Origin, Snapshot, VolumeRecord,
};
pub use slip::Slip;
pub use slots::SlotSet;
pub use time::{Duration, Instant};
pub use units::{BlockCount, BlockIndex, ByteCount, ByteOffset, ChunkIndex, SlotIndex};
