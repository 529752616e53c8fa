//! `ashlar volume compare`: reads a detached volume, and each of its snapshots, from every in-sync replica, straight
//! from the chunkservers, and compares block by block.
//!
//! Takes no part: observers' sessions, no promise, no lease, and nothing is repaired. For each run of chunks with the
//! same members: which slots does any of them have at all (a slot that nobody ever wrote is zeros everywhere), then
//! those slots from all of them, in pieces of [`PIECE_SLOTS`], data and checksums. All are asked before the first
//! answer is awaited, so a piece takes as long as the slowest replica, and memory holds one piece for each.

use crate::args::Format;
use crate::client::explain;
use crate::output::{Sheet, print};
use crate::progress::Progress;
use anyhow::{Context, bail, ensure};
use ashlar_changes::{Content, Observer};
use ashlar_rpc::control::{self, cluster_client::ClusterClient};
use ashlar_rpc::convert::record_from_proto;
use ashlar_types::{
    BLOCK_BYTES, BLOCKS_PER_SLOT, BlockCount, ByteCount, ChunkIndex, ChunkRange, ChunkRun, Lsn, SlotIndex, SlotSet,
    VolumeRecord,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tonic::transport::Channel;

/// 1 MiB: the largest frame.
const PIECE_SLOTS: u16 = 16;

#[derive(Debug, Default, Serialize)]
struct Comparison {
    volume: String,
    /// Replicas that were compared: the fewest of any chunk.
    replicas: usize,
    /// The present, and each snapshot.
    views_compared: usize,
    /// Blocks that were read from each of its replicas.
    blocks_compared: u64,
    /// Of them, those that are not the same everywhere, or not readable everywhere.
    differing: u64,
    /// The first of them, counted from the start of the volume.
    first_differing: Option<u64>,
    /// Disks that are not in-sync, and so are not compared.
    skipped: Vec<String>,
}

pub async fn compare(client: &mut ClusterClient<Channel>, name: String, format: Format) -> anyhow::Result<()> {
    let progress = Progress::spinner(format!("comparing {name}"));
    let volume = client.get_volume(control::VolumeRef { volume: name.clone() }).await.map_err(explain)?.into_inner();
    let message = volume.record.context("the control plane gave no record of the volume")?;
    let record = record_from_proto(&message).context("the volume's record")?;
    if let Some(holder) = &record.holder {
        bail!("{name} is attached on {holder}; replicas are compared when nobody writes: detach it first");
    }
    ensure!(record.clean, "{name} was not detached cleanly, so its replicas may differ: attach it and detach it first");
    let addresses = message.members.into_iter().map(|member| member.address).collect();
    let version = record.version;
    let found = tokio::task::spawn_blocking(move || Run::new(record, addresses)?.compare(&progress)).await;
    let found = found.context("wait for the comparison")??;
    let after = client.get_volume(control::VolumeRef { volume: name.clone() }).await.map_err(explain)?.into_inner();
    ensure!(
        after.record.is_some_and(|record| record.version == version),
        "{name} was used while it was compared, so what was read is of different moments: compare it again"
    );
    let differing = found.differing;
    print(format, &Comparison { volume: name.clone(), ..found }, show)?;
    ensure!(differing == 0, "the replicas of {name} differ in {differing} blocks");
    Ok(())
}

fn show(found: &Comparison) {
    let mut sheet = Sheet::default();
    sheet.line("volume", &found.volume);
    sheet.line("replicas", found.replicas);
    sheet.line("snapshots", found.views_compared - 1);
    sheet.line("compared", format!("{} blocks", found.blocks_compared));
    sheet.line("differing", format!("{} blocks", found.differing));
    if let Some(first) = found.first_differing {
        sheet.line("first", format!("block {first}"));
    }
    if !found.skipped.is_empty() {
        sheet.line("skipped", found.skipped.join(", "));
    }
    sheet.print();
}

/// One comparison under way.
struct Run {
    record: VolumeRecord,
    /// One for each in-sync member, by its index in the record.
    observers: BTreeMap<u16, Observer>,
    found: Comparison,
}

impl Run {
    fn new(record: VolumeRecord, addresses: Vec<String>) -> anyhow::Result<Run> {
        let mut run = Run { record, observers: BTreeMap::new(), found: Comparison::default() };
        for (index, member) in run.record.members.iter().enumerate() {
            if run.record.in_sync().any(|other| other.disk == member.disk) {
                let observer = Observer::connect(&addresses[index], &run.record, member.disk);
                let observer = observer.with_context(|| format!("observe disk {} on {}", member.disk, member.node))?;
                run.observers.insert(index as u16, observer);
            } else {
                run.found.skipped.push(member.disk.to_string());
            }
        }
        Ok(run)
    }

    fn compare(mut self, progress: &Progress) -> anyhow::Result<Comparison> {
        let chunks: Vec<ChunkRun> = self.record.chunks.clone();
        let compared = |run: &ChunkRun| run.members.iter().filter(|index| self.observers.contains_key(index)).count();
        self.found.replicas = chunks.iter().map(compared).min().unwrap_or(0);
        ensure!(self.found.replicas >= 2, "there are chunks with fewer than two in-sync replicas: nothing to compare");
        for view in self.record.points().into_iter().chain([Lsn::MAX]) {
            self.observers.values_mut().for_each(|observer| observer.look_at(view));
            self.found.views_compared += 1;
            self.compare_view(&chunks, progress)?;
        }
        Ok(self.found)
    }

    fn compare_view(&mut self, chunks: &[ChunkRun], progress: &Progress) -> anyhow::Result<()> {
        for run in chunks {
            let members: Vec<u16> =
                run.members.iter().copied().filter(|index| self.observers.contains_key(index)).collect();
            for (chunk, slots) in self.written_slots(run, &members)? {
                progress.say(format!(
                    "comparing chunk {chunk} of {}",
                    self.record.chunks.iter().map(|run| run.count).sum::<u32>()
                ));
                for range in pieces(chunk, &slots) {
                    let Some(range) = within(range, self.record.size) else { continue };
                    self.compare_piece(range, &members)?;
                }
            }
        }
        Ok(())
    }

    /// The slots that any of the members has, by chunk.
    fn written_slots(&mut self, run: &ChunkRun, members: &[u16]) -> anyhow::Result<BTreeMap<ChunkIndex, SlotSet>> {
        let until = ChunkIndex(run.first.0 + run.count);
        let mut written: BTreeMap<ChunkIndex, SlotSet> = BTreeMap::new();
        for member in members {
            for entry in observer(&mut self.observers, *member).written_slots(run.first, until)? {
                ensure!(
                    entry.chunk >= run.first && entry.chunk < until,
                    "a chunkserver lists a chunk that was not asked for"
                );
                let slots = written.entry(entry.chunk).or_default();
                *slots = slots.union(&entry.slots);
            }
        }
        Ok(written)
    }

    fn compare_piece(&mut self, range: ChunkRange, members: &[u16]) -> anyhow::Result<()> {
        for member in members {
            observer(&mut self.observers, *member).ask_for(range)?;
        }
        let mut contents = Vec::with_capacity(members.len());
        for member in members {
            contents.push(observer(&mut self.observers, *member).content(range)?);
        }
        self.found.blocks_compared += u64::from(range.count.0);
        let differing = differing_blocks(&contents, range.count);
        self.found.differing += differing.len() as u64;
        if let Some(&first) = differing.first() {
            self.found.first_differing.get_or_insert(range.volume_start().0 + u64::from(first));
        }
        Ok(())
    }
}

fn observer(observers: &mut BTreeMap<u16, Observer>, member: u16) -> &mut Observer {
    observers.get_mut(&member).expect("only observed members are asked")
}

/// Adjoining slots together, at most [`PIECE_SLOTS`] at once.
fn pieces(chunk: ChunkIndex, slots: &SlotSet) -> Vec<ChunkRange> {
    let mut runs: Vec<(SlotIndex, u16)> = vec![];
    for slot in slots.iter() {
        match runs.last_mut() {
            Some((first, count)) if first.0 + *count == slot.0 && *count < PIECE_SLOTS => *count += 1,
            _ => runs.push((slot, 1)),
        }
    }
    let range = |(first, count): (SlotIndex, u16)| ChunkRange {
        chunk,
        start: first.first_block(),
        count: BlockCount(u32::from(count) * BLOCKS_PER_SLOT),
    };
    runs.into_iter().map(range).collect()
}

/// The part of the range that lies in the volume: its last slot may reach beyond.
fn within(range: ChunkRange, size: ByteCount) -> Option<ChunkRange> {
    let blocks_left = (size.0 / BLOCK_BYTES).saturating_sub(range.volume_start().0);
    let count = blocks_left.min(u64::from(range.count.0)) as u32;
    (count > 0).then_some(ChunkRange { count: BlockCount(count), ..range })
}

/// Positions at which not all have the same, readable content.
fn differing_blocks(contents: &[Content], count: BlockCount) -> BTreeSet<u32> {
    let Some((first, others)) = contents.split_first() else { return BTreeSet::new() };
    let same = |at: &u32| first.block(*at).is_some() && others.iter().all(|other| other.block(*at) == first.block(*at));
    (0..count.0).filter(|at| !same(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_types::BlockIndex;
    use ashlar_wire::BlockData;

    #[test]
    fn adjoining_slots_are_read_together_up_to_a_frame() {
        let slots: SlotSet = (0..20).chain([30, 1023]).map(SlotIndex).collect();
        let ranges = pieces(ChunkIndex(3), &slots);
        let shape: Vec<(u64, u32)> = ranges.iter().map(|range| (range.start.0, range.count.0)).collect();
        assert_eq!(shape, [(0, 256), (256, 64), (480, 16), (16368, 16)]);
        assert!(ranges.iter().all(|range| range.is_valid()));
        assert_eq!(ranges[3].end(), BlockIndex(16384));
    }

    #[test]
    fn nothing_is_read_beyond_the_end_of_the_volume() {
        let range = ChunkRange { chunk: ChunkIndex(0), start: BlockIndex(16), count: BlockCount(32) };
        let count = |blocks: u64| within(range, ByteCount(blocks * BLOCK_BYTES)).map(|range| range.count.0);
        assert_eq!([count(16), count(17), count(48), count(1000)], [None, Some(1), Some(32), Some(32)]);
    }

    #[test]
    fn other_bytes_and_unreadable_blocks_differ() {
        let whole = |byte: u8| Content::of(BlockData::seal(vec![byte; 8192].into()));
        assert!(differing_blocks(&[whole(1), whole(1), whole(1)], BlockCount(2)).is_empty());
        assert_eq!(differing_blocks(&[whole(1), whole(2)], BlockCount(2)).len(), 2);
        let mut damaged = whole(1);
        damaged.lose(1);
        assert_eq!(differing_blocks(&[damaged.clone(), whole(1)], BlockCount(2)), BTreeSet::from([1]));
        assert_eq!(differing_blocks(&[damaged.clone(), damaged], BlockCount(2)), BTreeSet::from([1]));
    }
}
