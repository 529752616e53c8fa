//! What an engine says about itself, for metrics and for people. Nothing decides by it.

use crate::engine::Engine;
use crate::replica::Replica;
use ashlar_types::{BLOCK_BYTES, Base, ByteCount, Duration, Epoch, Lsn, SLOT_BYTES, VolumeId};

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EngineStatus {
    /// Recovery has ended and the disk takes writes or, once failed, reads.
    pub serving: bool,
    /// What recovery took; zero until it has ended.
    pub replay_took: Duration,
    /// Why the disk's life as a replica ended.
    pub failed: Option<String>,
    pub slots_total: u32,
    pub slots_used: u32,
    /// Can be given out now; the rest waits for a checkpoint.
    pub slots_free: u32,
    pub journal_bytes: ByteCount,
    pub journal_used_bytes: ByteCount,
    /// Small writes that are in RAM and in the journal, not yet in place.
    pub overlay_bytes: ByteCount,
    pub replicas: Vec<ReplicaStatus>,
    pub scrub: ScrubStatus,
    pub counters: Counters,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    pub volume: VolumeId,
    pub promised: Epoch,
    pub commit: Lsn,
    /// The commit point at which a return began that is not finished.
    pub syncing: Option<Lsn>,
    pub deleted: bool,
    pub size: ByteCount,
    pub used_bytes: ByteCount,
    pub chunks: u32,
    pub stale_slots: u64,
    /// Highest lsn of a write.
    pub last: Lsn,
    /// It says that it lacks something: in the middle of a return, or after damage.
    pub incomplete: bool,
    /// Of a clone that is not flat: what it shows where it has nothing itself.
    pub base: Option<Base>,
}

/// How far scrub is, and what it has found. But for the present round it is since the disk was formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ScrubStatus {
    /// None: it is switched off.
    pub period: Option<Duration>,
    /// Time in service since the round began, and slots that it has looked at.
    pub elapsed: Duration,
    pub slots: u64,
    /// Rounds that ended, and when the last one did, in milliseconds since 1970.
    pub rounds: u64,
    pub ended_unix_ms: u64,
    /// Blocks that were found bad, by scrub or by reads; that were repaired; and that are known to be bad now.
    pub found_blocks: u64,
    /// Of them, in this round and the one before.
    pub found_lately_blocks: u64,
    pub repaired_blocks: u64,
    pub bad_blocks: u64,
}

/// Since the engine was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    pub requests: u64,
    pub refused: u64,
    pub batches: u64,
    pub records: u64,
    /// Into the journal, headers and payload.
    pub journal_bytes: u64,
    /// Whole slots, beside the journal.
    pub direct_bytes: u64,
    /// In place, from RAM.
    pub apply_bytes: u64,
    pub apply_writes: u64,
    pub checkpoints: u64,
    pub read_bytes: u64,
    pub read_retries: u64,
    pub bad_blocks: u64,
    pub repaired_blocks: u64,
    pub filled_blocks: u64,
    /// Pairs of versions that became one.
    pub merges: u64,
    /// Read by scrub.
    pub scrubbed_bytes: u64,
    /// Blocks that were bad when they were read once and good when they were read again.
    pub scrub_retries: u64,
    /// Slots of clones that got what their base shows.
    pub flattened_slots: u64,
    pub duplicates: u64,
    pub links_closed: u64,
    pub replayed_records: u64,
    /// Records of replay that were dropped because data beside the journal was not there.
    pub dropped_records: u64,
    pub lost_blocks: u64,
}

impl Engine {
    pub fn status(&self) -> EngineStatus {
        let replica = |(&volume, replica): (&VolumeId, &Replica)| ReplicaStatus {
            volume,
            promised: replica.promised,
            commit: replica.commit,
            last: replica.last(),
            incomplete: replica.incomplete,
            syncing: replica.syncing,
            deleted: replica.deleted,
            size: replica.size,
            used_bytes: ByteCount(replica.placed_slots() * SLOT_BYTES),
            chunks: replica.chunks.len() as u32,
            stale_slots: replica.stale_slots,
            base: replica.base(),
        };
        let places = &self.store.places;
        EngineStatus {
            serving: self.recovery.is_none(),
            replay_took: self.replay_took,
            failed: self.failed.clone(),
            slots_total: places.count(),
            slots_used: places.count() - places.free() - places.waiting(),
            slots_free: places.free(),
            journal_bytes: ByteCount(self.ring.bytes()),
            journal_used_bytes: ByteCount(self.ring.used()),
            overlay_bytes: ByteCount(self.store.overlay.len() as u64 * BLOCK_BYTES),
            replicas: self.store.volumes.iter().map(replica).collect(),
            scrub: self.scrub_status(),
            counters: Counters {
                lost_blocks: self.store.lost_blocks,
                repaired_blocks: self.store.repaired_blocks,
                filled_blocks: self.store.filled_blocks,
                ..self.counters
            },
        }
    }
}
