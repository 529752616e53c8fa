//! `ashlar snapshot export` of what changed since a snapshot, beside that of everything: the program as a user starts
//! it, from its start to its end, into files.

use super::{GIB, Stage};
use crate::guest::{spread, write_once};
use crate::report::{Bar, Figure};
use anyhow::{Context, Result, ensure};
use ashlar_types::{BLOCK_BYTES, SLOT_BYTES};
use serde::Deserialize;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const VOLUME: &str = "changes";
const VOLUME_BYTES: u64 = 64 * GIB;
/// One block in so many that are there is changed.
const CHANGED: u64 = 100;
/// Of the time that everything takes: a start of the program, a question for each of 1,024 chunks, and the reading.
const DELTA_MAX_PERCENT: f64 = 15.0;
const BASE: &str = "changes-base";
const LATER: &str = "changes-later";

pub(super) fn measure(stage: &Stage) -> Result<Figure> {
    let written = stage.plan.exported_slots * SLOT_BYTES;
    let mib = written >> 20;
    eprintln!("exporting what changed: {mib} MiB over a thin volume of 64 GiB");
    let mut client = stage.open(VOLUME, VOLUME_BYTES, stage.plan.exported_slots)?;
    stage.snapshot(VOLUME, BASE)?;
    let changed = changed_blocks(stage.plan.exported_slots);
    write_once(&mut client, &changed)?;
    stage.snapshot(VOLUME, LATER)?;

    let dir = TempDir::new().context("make a directory for the exports")?;
    let (mut ratios, mut detail) = (vec![], String::new());
    for turn in 0..stage.plan.exports {
        stage.rest()?;
        let (delta, delta_took) = export(stage, &dir.path().join(format!("delta-{turn}")), Some(BASE))?;
        let (all, all_took) = export(stage, &dir.path().join(format!("all-{turn}")), None)?;
        ensure!(delta.data_bytes == changed.len() as u64 * BLOCK_BYTES, "{} bytes changed", delta.data_bytes);
        ensure!(all.data_bytes == written, "{} bytes are exported of {written}", all.data_bytes);
        ratios.push(100.0 * delta_took.as_secs_f64() / all_took.as_secs_f64());
        detail = format!(
            "{} KiB in {:.0} ms; all {mib} MiB in {:.0} ms",
            delta.data_bytes >> 10,
            delta_took.as_secs_f64() * 1e3,
            all_took.as_secs_f64() * 1e3
        );
    }
    client.close()?;
    stage.delete(VOLUME)?;
    let name = format!("export 1 % changed of {mib} MiB, thin 64 GiB / all");
    Ok(Figure::of_rounds(&name, "%", ratios, Bar::AtMost(DELTA_MAX_PERCENT), detail))
}

/// One block in `CHANGED`, each in a slot of its own, so no two of them are read together.
fn changed_blocks(slots: u64) -> Vec<u64> {
    let blocks = slots * (SLOT_BYTES / BLOCK_BYTES) / CHANGED;
    let slots = spread(slots, VOLUME_BYTES);
    let at = |number: u64| slots[(number * slots.len() as u64 / blocks) as usize];
    (0..blocks).map(at).collect()
}

#[derive(Deserialize)]
struct Exported {
    data_bytes: u64,
}

fn export(stage: &Stage, to: &Path, since: Option<&str>) -> Result<(Exported, Duration)> {
    let to = to.to_str().context("a path of a temporary directory is text")?;
    let mut command = vec!["snapshot", "export", LATER, to];
    command.extend(since.iter().flat_map(|base| ["--since", base]));
    let began = Instant::now();
    let exported = stage.cluster.cli_json(&command)?;
    Ok((exported, began.elapsed()))
}
