//! The report of `inspect`, as text and as JSON.

use super::offline::{Block, Offline};
use ashlar_engine::{ReplicaStatus, Superblock};
use ashlar_types::{BlockIndex, Crc32, VolumeId};
use serde::Serialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize)]
pub(crate) struct DiskReport {
    path: PathBuf,
    disk: String,
    cluster: String,
    size_bytes: u64,
    journal_bytes: u64,
    /// What a start would replay.
    journal_used_bytes: u64,
    replayed_records: u64,
    /// Records that were cut off because data beside the journal was not there: they were never acknowledged.
    dropped_records: u64,
    lost_blocks: u64,
    index_entries: u64,
    slots: u32,
    slots_used: u32,
    failed: Option<String>,
    pub(crate) replicas: Vec<ReplicaReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ReplicaReport {
    volume: String,
    size_bytes: u64,
    promised_epoch: u32,
    commit_lsn: u64,
    /// Commit point at which a return began that is not finished.
    syncing_after_lsn: Option<u64>,
    deleted: bool,
    chunks: u32,
    used_bytes: u64,
    stale_slots: u64,
    /// Of a clone that is not flat: the volume that it reads where it has nothing itself, and below which point.
    base_volume: Option<String>,
    base_point_lsn: Option<u64>,
}

/// The content of one replica. A block of zeros reads like one that was never written, so it is left out:
/// replicas that read the same have the same digest.
#[derive(Debug, Serialize)]
pub(crate) struct VolumeDigest {
    volume: String,
    block_count: u64,
    /// CRC-32 over number (8 bytes, little-endian) and checksum (4 bytes, little-endian) of every block listed.
    digest: String,
    unreadable_blocks: Vec<u64>,
    /// Number of the block within the volume, and CRC-32 of its 4096 bytes.
    blocks: Vec<(u64, String)>,
    #[serde(skip)]
    hashed: Vec<u8>,
}

impl DiskReport {
    pub(crate) fn new(
        path: &Path,
        superblock: &Superblock,
        index_entries: u64,
        offline: &Offline,
        only: Option<VolumeId>,
    ) -> DiskReport {
        let status = offline.status();
        let wanted = |replica: &&ReplicaStatus| only.is_none_or(|volume| volume == replica.volume);
        DiskReport {
            path: path.to_path_buf(),
            disk: superblock.disk.to_string(),
            cluster: superblock.cluster.to_string(),
            size_bytes: superblock.layout.total.0,
            journal_bytes: superblock.layout.journal.0,
            journal_used_bytes: status.journal_used_bytes.0,
            replayed_records: offline.replayed_records,
            dropped_records: status.counters.dropped_records,
            lost_blocks: offline.lost_blocks,
            index_entries,
            slots: superblock.layout.slot_count,
            slots_used: status.slots_used,
            failed: status.failed,
            replicas: status.replicas.iter().filter(wanted).map(ReplicaReport::new).collect(),
        }
    }

    pub(crate) fn write_json(&self, digest: Option<&VolumeDigest>, out: &mut impl Write) -> io::Result<()> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            disk: &'a DiskReport,
            #[serde(skip_serializing_if = "Option::is_none")]
            content: Option<&'a VolumeDigest>,
        }
        serde_json::to_writer(&mut *out, &Whole { disk: self, content: digest }).map_err(io::Error::from)?;
        writeln!(out)
    }

    pub(crate) fn write_text(&self, digest: Option<&VolumeDigest>, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "disk      {} ({})", self.disk, self.path.display())?;
        writeln!(out, "cluster   {}", self.cluster)?;
        writeln!(out, "size      {} bytes, {} of {} slots used", self.size_bytes, self.slots_used, self.slots)?;
        writeln!(out, "journal   {} bytes, {} to be replayed", self.journal_bytes, self.journal_used_bytes)?;
        let cut = self.dropped_records;
        writeln!(out, "replay    {} records, {cut} cut off, {} blocks lost", self.replayed_records, self.lost_blocks)?;
        writeln!(out, "index     {} entries", self.index_entries)?;
        if let Some(reason) = &self.failed {
            writeln!(out, "failed    {reason}")?;
        }
        for replica in &self.replicas {
            replica.write_text(out)?;
        }
        digest.map_or(Ok(()), |digest| digest.write_text(out))
    }
}

impl ReplicaReport {
    fn new(status: &ReplicaStatus) -> ReplicaReport {
        ReplicaReport {
            volume: status.volume.to_string(),
            size_bytes: status.size.0,
            promised_epoch: status.promised.number(),
            commit_lsn: status.commit.raw(),
            syncing_after_lsn: status.syncing.map(|commit| commit.raw()),
            deleted: status.deleted,
            chunks: status.chunks,
            used_bytes: status.used_bytes.0,
            stale_slots: status.stale_slots,
            base_volume: status.base.map(|base| base.volume.to_string()),
            base_point_lsn: status.base.map(|base| base.point.raw()),
        }
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let state = match (self.deleted, self.syncing_after_lsn) {
            (true, _) => "deleted",
            (false, Some(_)) => "syncing",
            (false, None) => "replica",
        };
        writeln!(
            out,
            "{state:<9} {}: {} bytes, {} used in {} chunks, {} stale slots, epoch {}, commit {}",
            self.volume,
            self.size_bytes,
            self.used_bytes,
            self.chunks,
            self.stale_slots,
            self.promised_epoch,
            ashlar_types::Lsn::from_raw(self.commit_lsn),
        )?;
        if let (Some(base), Some(point)) = (&self.base_volume, self.base_point_lsn) {
            writeln!(out, "          reads volume {base} below {}", ashlar_types::Lsn::from_raw(point))?;
        }
        Ok(())
    }
}

impl VolumeDigest {
    pub(crate) fn new(volume: VolumeId) -> VolumeDigest {
        VolumeDigest {
            volume: volume.to_string(),
            block_count: 0,
            digest: hex(Crc32::of(&[])),
            unreadable_blocks: Vec::new(),
            blocks: Vec::new(),
            hashed: Vec::new(),
        }
    }

    /// Blocks come in ascending order.
    pub(crate) fn add(&mut self, block: BlockIndex, content: Block) {
        match content {
            Block::Unreadable => self.unreadable_blocks.push(block.0),
            Block::Content(Crc32::ZERO_BLOCK) => {}
            Block::Content(crc) => {
                self.blocks.push((block.0, hex(crc)));
                self.block_count += 1;
                self.hashed.extend_from_slice(&block.0.to_le_bytes());
                self.hashed.extend_from_slice(&crc.0.to_le_bytes());
            }
        }
    }

    /// To be called after the last block.
    pub(crate) fn finish(&mut self) {
        self.digest = hex(Crc32::of(&self.hashed));
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "digest    {} of {} blocks", self.digest, self.block_count)?;
        for block in &self.unreadable_blocks {
            writeln!(out, "block     {block} unreadable")?;
        }
        for (block, crc) in &self.blocks {
            writeln!(out, "block     {block} {crc}")?;
        }
        Ok(())
    }
}

fn hex(crc: Crc32) -> String {
    format!("{:08x}", crc.0)
}
