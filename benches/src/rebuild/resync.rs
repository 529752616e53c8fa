//! How much a replica is sent that was away for a while. What has changed is known slot by slot (64 KiB), so a guest
//! that writes whole slots is judged, and what one costs who writes single blocks is told beside it.

use super::{HOME, LIMIT, RebuildPlan, VOLUME};
use crate::guest::{spread, write_once};
use crate::report::{Bar, Figure};
use anyhow::{Context, Result};
use ashlar_rpc::control::MemberState;
use ashlar_tests::{DevCluster, NbdClient, nbd_socket, wait_until};
use ashlar_types::{BLOCK_BYTES, SLOT_BYTES};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::collections::BTreeMap;

const VOLUME_BYTES: u64 = 1 << 30;
const AWAY: &str = "n3";

#[derive(Deserialize)]
struct Event {
    kind: String,
    #[serde(default)]
    figures: BTreeMap<String, String>,
}

pub(crate) fn measure(cluster: &DevCluster, plan: &RebuildPlan) -> Result<Vec<Figure>> {
    let slots = plan.changed_slots;
    eprintln!("a replica is away while {slots} slots change");
    cluster.cli(&["volume", "create", VOLUME, "--size", &VOLUME_BYTES.to_string(), "--node", HOME])?;
    let mut client = NbdClient::connect(&nbd_socket(&cluster.attach(VOLUME, HOME, "nbd")?)?)?;
    let data = vec![0x5a; SLOT_BYTES as usize];
    // Twice as many as will change.
    spread(2 * slots, VOLUME_BYTES).into_iter().try_for_each(|offset| client.write(offset, &data))?;
    let offsets = spread(slots, VOLUME_BYTES);
    let whole = copied_after(cluster, 1, || offsets.iter().try_for_each(|&offset| client.write(offset, &data)))?;
    let blocks = copied_after(cluster, 2, || write_once(&mut client, &offsets).map(drop))?;
    client.close()?;
    cluster.detach(VOLUME)?;
    let ratio = whole as f64 / (slots * SLOT_BYTES) as f64;
    let detail = format!(
        "{} KiB changed in whole slots, {} KiB copied; {} KiB changed in single blocks, {} KiB copied",
        (slots * SLOT_BYTES) >> 10,
        whole >> 10,
        (slots * BLOCK_BYTES) >> 10,
        blocks >> 10
    );
    Ok(vec![Figure::of_rounds("resync, copied / changed", "x", vec![ratio], Bar::AtMost(1.1), detail)])
}

/// Bytes that were copied to the replica that was away meanwhile, in its return of this number.
fn copied_after(cluster: &DevCluster, number: usize, change: impl FnOnce() -> Result<()>) -> Result<u64> {
    let chunkserver = format!("chunkserver-{AWAY}");
    cluster.kill(&chunkserver, Signal::SIGKILL)?;
    cluster.wait_member(VOLUME, AWAY, MemberState::Out, LIMIT)?;
    change()?;
    cluster.start(&chunkserver)?;
    let returned = wait_until("the writer to tell of the return", LIMIT, || {
        let printed = cluster.cli(&["events", "--volume", VOLUME, "--json"])?;
        let events = printed.lines().map(serde_json::from_str).collect::<Result<Vec<Event>, _>>()?;
        let is_told = |event: &Event| event.kind == "in-sync" && event.figures.contains_key("copied_blocks");
        Ok(events.into_iter().filter(is_told).nth(number - 1))
    })?;
    let blocks: u64 = returned.figures["copied_blocks"].parse().context("copied_blocks")?;
    Ok(blocks * BLOCK_BYTES)
}
