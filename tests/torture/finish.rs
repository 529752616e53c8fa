//! The end: everything is read once more, every replica is compared, the whole history is checked.

use crate::record::{Ask, Record};
use crate::rounds::Play;
use anyhow::{Context, Result, bail, ensure};
use ashlar_tests::{NbdClient, nbd_socket, wait_until};
use ashlar_types::Epoch;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BLOCK_BYTES: u64 = 4096;
const BLOCKS_PER_READ: u64 = 64;
const ATTACH_LIMIT: Duration = Duration::from_secs(120);

/// With the guests gone and all healthy.
pub fn finish(play: &mut Play, records: &[Arc<Record>]) -> Result<()> {
    for record in records {
        read_all(play, record).with_context(|| format!("read all of {}", record.name))?;
    }
    check(records)?;
    play.arena.start_missing()?;
    play.arena.check_logs()?;
    for record in records {
        let name = record.name.as_str();
        let compared: serde_json::Value = play.arena.cluster.cli_json(&["volume", "compare", name])?;
        ensure!(compared["differing"] == 0 && compared["replicas"] == 3, "VIOLATION: volume {name}: {compared}");
        println!("volume {name}: {} blocks equal on 3 replicas", compared["blocks_compared"]);
    }
    Ok(())
}

/// All histories, by the simulator's checker.
pub fn check(records: &[Arc<Record>]) -> Result<()> {
    let begun = Instant::now();
    for record in records {
        if let Err(story) = record.check() {
            bail!("VIOLATION: {story}");
        }
    }
    let blocks: u64 = records.iter().map(|record| record.summary().blocks).sum();
    println!(
        "every one of {blocks} blocks is a linearizable register, checked in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// On whatever node the volume is; then it is detached, clean.
pub fn read_all(play: &mut Play, record: &Arc<Record>) -> Result<()> {
    let node = wait_until("the volume to be attached", ATTACH_LIMIT, || {
        let volume = play.arena.cluster.volume(&record.name)?;
        let holder = volume.record.map(|record| record.holder).unwrap_or_default();
        Ok(Some(if holder.is_empty() { "n1".to_owned() } else { holder }))
    })?;
    let device = wait_until("the volume to be attached", ATTACH_LIMIT, || {
        Ok(Some(play.api.attach(&record.name, &node).map_err(anyhow::Error::from)?))
    })?;
    let epoch = Epoch::new(device.epoch).context("an attached volume has an epoch")?;
    record.serves(epoch);
    let mut client = NbdClient::connect(&nbd_socket(&device.path)?)?;
    let connection = record.new_connection();
    for start in (0..record.blocks()).step_by(BLOCKS_PER_READ as usize) {
        let read = record.begin(Ask::Read { start, count: BLOCKS_PER_READ as u32 }, connection, epoch);
        let data = client.read(start * BLOCK_BYTES, (BLOCKS_PER_READ * BLOCK_BYTES) as u32)?;
        record.acknowledged(&read, &data);
    }
    client.close()?;
    wait_until("the volume to be detached", ATTACH_LIMIT, || {
        Ok(Some(play.api.detach(&record.name, false).map_err(anyhow::Error::from)?))
    })
}
