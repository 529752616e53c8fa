//! Which blocks changed since a snapshot, listed over an observer's link to one replica, beside listing and reading
//! everything. What an incremental export begins with; its own way of listing belongs in [`list`].

use super::guest::{spread, write_once};
use super::{GIB, Stage};
use crate::report::{Bar, Figure};
use anyhow::{Context, Result, bail, ensure};
use ashlar_rpc::control::Volume;
use ashlar_tests::Peer;
use ashlar_types::{
    BLOCKS_PER_SLOT, BlockCount, CHUNK_BYTES, ChunkIndex, ChunkRange, Epoch, FloorRange, Lsn, SLOT_BYTES, SessionId,
    SlotSet,
};
use ashlar_wire::{Reply, Request};
use std::time::{Duration, Instant};

const VOLUME: &str = "changes";
const VOLUME_BYTES: u64 = 64 * GIB;
/// Of the slots that are there one in so many is changed.
const CHANGED: usize = 100;

pub(super) fn measure(stage: &Stage) -> Result<Figure> {
    let slots = stage.plan.listed_slots;
    let mib = (slots * SLOT_BYTES) >> 20;
    eprintln!("listing what changed: {mib} MiB over a thin volume of 64 GiB");
    let mut client = stage.open(VOLUME, VOLUME_BYTES, 1)?;
    let offsets = spread(slots, VOLUME_BYTES);
    offsets.iter().try_for_each(|&offset| client.write(offset, &vec![0x5a; SLOT_BYTES as usize]))?;
    stage.snapshot(VOLUME, "base")?;
    let changed: Vec<u64> = offsets.iter().step_by(CHANGED).copied().collect();
    write_once(&mut client, &changed)?;
    let volume = stage.cluster.volume(VOLUME)?;
    let record = volume.record.as_ref().context("a volume has a record")?;
    let point = Lsn::from_raw(record.snapshots.first().context("the record has the snapshot")?.point_lsn);
    let since = FloorRange { from: point, below: Lsn::MAX };

    let mut link = observe(&volume)?;
    let (mut of_reading, mut detail) = (vec![], String::new());
    for _ in 0..stage.plan.listings {
        stage.rest()?;
        let ((delta, delta_took), (all, all_took)) = (list(&mut link, since)?, list(&mut link, FloorRange::ALL)?);
        ensure!(delta.blocks == changed.len() as u64, "{} blocks changed, {} are listed", changed.len(), delta.blocks);
        ensure!(all.blocks == slots * u64::from(BLOCKS_PER_SLOT), "{} blocks are listed of all", all.blocks);
        let read_took = read(&mut link, &all)?;
        of_reading.push(100.0 * delta_took.as_secs_f64() / read_took.as_secs_f64());
        detail = format!(
            "{} changed blocks listed in {:.1} ms; all {} in {:.1} ms, read in {:.0} ms",
            delta.blocks,
            delta_took.as_secs_f64() * 1e3,
            all.blocks,
            all_took.as_secs_f64() * 1e3,
            read_took.as_secs_f64() * 1e3
        );
    }
    client.close()?;
    stage.delete(VOLUME)?;
    let name = format!("list 1 % changed of {mib} MiB, thin 64 GiB / read all");
    Ok(Figure::of_rounds(&name, "%", of_reading, Bar::AtMost(5.0), detail))
}

/// What was found: how many blocks, and in which slots.
struct Listed {
    blocks: u64,
    slots: Vec<(ChunkIndex, SlotSet)>,
}

/// The chunks that have something among the floors, then the blocks of each of them.
fn list(link: &mut Peer, floors: FloorRange) -> Result<(Listed, Duration)> {
    let began = Instant::now();
    let mut listed = Listed { blocks: 0, slots: vec![] };
    let mut next = Some(ChunkIndex(0));
    while let Some(from) = next {
        let until = ChunkIndex((VOLUME_BYTES / CHUNK_BYTES) as u32);
        let Reply::Changed { entries, next: following } =
            link.ask(Request::ListChanged { from, until, after: floors.from, floors })?
        else {
            bail!("the chunkserver lists no slots");
        };
        listed.slots.extend(entries.into_iter().filter(|entry| !entry.slots.is_empty()).map(|e| (e.chunk, e.slots)));
        next = following;
    }
    for &(chunk, _) in &listed.slots {
        let Reply::Blocks(slots) = link.ask(Request::ListBlocks { chunk, floors })? else {
            bail!("the chunkserver lists no blocks");
        };
        listed.blocks += slots.iter().map(|slot| u64::from(slot.set.count_ones())).sum::<u64>();
    }
    Ok((listed, began.elapsed()))
}

/// Everything that was listed, a slot at a time.
fn read(link: &mut Peer, listed: &Listed) -> Result<Duration> {
    let began = Instant::now();
    for (chunk, slots) in &listed.slots {
        for slot in slots.iter() {
            let range = ChunkRange { chunk: *chunk, start: slot.first_block(), count: BlockCount(BLOCKS_PER_SLOT) };
            match link.ask(Request::Read { range, below: Lsn::MAX })? {
                Reply::Data(blocks) => ensure!(blocks.crcs.len() == BLOCKS_PER_SLOT as usize, "a slot is read whole"),
                other => bail!("the chunkserver answers {other:?}"),
            }
        }
    }
    Ok(began.elapsed())
}

/// A link to the volume's first replica.
fn observe(volume: &Volume) -> Result<Peer> {
    let record = volume.record.as_ref().context("a volume has a record")?;
    let member = record.members.first().context("a volume has members")?;
    let mut link = Peer::connect(&member.address, SessionId(0xbe), Epoch::NONE)?;
    let open = Peer::open(&record.cluster, &member.disk, &record.volume, record.size_bytes)?;
    match link.ask(Request::Observe(open))? {
        Reply::Opened(_) => Ok(link),
        other => bail!("the chunkserver answers {other:?}"),
    }
}
