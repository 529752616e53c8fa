//! Bit rot on a disk that nobody reads: its chunkserver finds it, the volume's writer mends it, at once or when there
//! is one again, and people are told. A disk of which too much rots is drained. A write that a disk has lost with all
//! that told of it is found by comparing replicas.

use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::Comparison;
use ashlar_tests::{NbdClient, Scene, nbd_socket, on_scrubbing_cluster, wait_until};
use ashlar_types::VolumeId;
use nix::sys::signal::Signal;
use rocksdb::{DB, Options, WriteOptions};
use serde::Deserialize;
use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

const VOLUME: &str = "v";
const BLOCK: usize = 4096;
/// Of the volume, all written once, in whole slots.
const BLOCKS: usize = 2048;
const SLOT_BYTES: usize = 64 << 10;
/// Superblock and journal of the scene's disks.
const DATA_OFFSET: u64 = (1 + 64) << 20;
/// Of a round, and for the writer to ask.
const PERIOD: &str = "8s";
const FOUND_LIMIT: Duration = Duration::from_secs(60);
/// More than a disk may lose before it is drained.
const TOO_MANY: usize = 80;

#[derive(Deserialize)]
struct Disk {
    id: String,
    node: String,
    draining: bool,
    scrub: Option<Scrub>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Scrub {
    period_ms: u64,
    rounds: u64,
    found_blocks: u64,
    repaired_blocks: u64,
    bad_blocks: u64,
}

#[derive(Deserialize)]
struct ToldEvent {
    kind: String,
    volume: Option<String>,
    disk: Option<String>,
    text: String,
}

/// A volume full of blocks that tell their number.
struct Play<'a> {
    scene: &'a Scene,
    id: String,
}

fn content(block: usize) -> Vec<u8> {
    (0..BLOCK / 8).flat_map(|at| ((block as u64) << 32 | at as u64 | 1 << 63).to_le_bytes()).collect()
}

impl<'a> Play<'a> {
    fn begin(scene: &'a Scene) -> Result<Play<'a>> {
        scene.cluster.cli(&["volume", "create", VOLUME, "--size", "64M", "--node", "n1"])?;
        let play = Play { scene, id: scene.cluster.volume(VOLUME)?.id };
        let mut client = play.attach()?;
        let data: Vec<u8> = (0..BLOCKS).flat_map(content).collect();
        for (index, slot) in data.chunks(SLOT_BYTES).enumerate() {
            client.write((index * SLOT_BYTES) as u64, slot)?;
        }
        client.close()?;
        Ok(play)
    }

    fn attach(&self) -> Result<NbdClient> {
        NbdClient::connect(&nbd_socket(&self.scene.cluster.attach(VOLUME, "n1", "nbd")?)?)
    }

    fn disk(&self, node: &str) -> Result<Disk> {
        let disks: Vec<Disk> = self.scene.cluster.cli_json(&["disk", "list"])?;
        let listed = disks.into_iter().find(|disk| disk.node == node).context("the node has a disk")?;
        self.scene.cluster.cli_json(&["disk", "show", &listed.id])
    }

    fn scrub(&self, node: &str) -> Result<Scrub> {
        self.disk(node)?.scrub.context("the disk tells of its scrub")
    }

    /// Until the disk's scrub tells what is expected.
    fn wait_scrub(&self, node: &str, what: &str, holds: impl Fn(&Scrub) -> bool) -> Result<Scrub> {
        let mut last = None;
        let found = wait_until(what, FOUND_LIMIT, || {
            let scrub = self.scrub(node)?;
            last = Some(scrub);
            Ok(holds(&scrub).then_some(scrub))
        });
        found.with_context(|| format!("{node} last told {last:?}"))
    }

    fn path(&self, node: &str) -> Result<PathBuf> {
        let daemon = self.scene.cluster.daemon(&format!("chunkserver-{node}"))?;
        daemon.disks.into_iter().next().context("a chunkserver has a disk")
    }

    fn spoil(&self, node: &str, blocks: impl Iterator<Item = usize>) -> Result<()> {
        let path = self.path(node)?;
        let mut wanted: Vec<Vec<u8>> = blocks.map(content).collect();
        each_block(&path, |file, offset, data| {
            let Some(at) = wanted.iter().position(|content| content == data) else { return Ok(()) };
            wanted.swap_remove(at);
            file.write_all_at(&[!data[100]], offset + 100)?;
            Ok(file.sync_all()?)
        })?;
        ensure!(wanted.is_empty(), "{} blocks are not on the disk", wanted.len());
        Ok(())
    }

    fn events(&self, kind: &str, node: &str) -> Result<Vec<ToldEvent>> {
        let disk = self.disk(node)?.id;
        let printed = self.scene.cluster.cli(&["events", "--last", "5000", "--json"])?;
        let events: Vec<ToldEvent> = printed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(events.into_iter().filter(|event| event.kind == kind && event.disk.as_ref() == Some(&disk)).collect())
    }

    /// Nobody holds it: all replicas have the same, and what was written.
    fn compare(&self) -> Result<()> {
        let compared: serde_json::Value = self.scene.cluster.cli_json(&["volume", "compare", VOLUME])?;
        ensure!(compared["differing"] == 0 && compared["replicas"] == 3, "compared: {compared}");
        Ok(())
    }

    fn stop(&self, daemon: &str) -> Result<()> {
        self.scene.cluster.kill(daemon, Signal::SIGTERM)?;
        wait_until("the chunkserver to be gone", FOUND_LIMIT, || {
            Ok(self.scene.cluster.daemon(daemon)?.pid.is_none().then_some(()))
        })
    }

    /// Until the writer's comparison of the replicas tells what is expected.
    fn wait_comparison(&self, what: &str, holds: impl Fn(&Comparison) -> bool) -> Result<()> {
        let mut last = None;
        let found = wait_until(what, FOUND_LIMIT, || {
            last = self.scene.cluster.attached("n1", &self.id)?.comparison;
            Ok(last.filter(|comparison| holds(comparison)).map(drop))
        });
        found.with_context(|| format!("the writer last told {last:?}"))
    }

    fn volume(&self) -> Result<serde_json::Value> {
        self.scene.cluster.cli_json(&["volume", "show", VOLUME])
    }
}

/// Of the places of a disk, which others may be reading.
fn each_block(path: &Path, mut look: impl FnMut(&std::fs::File, u64, &[u8]) -> Result<()>) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = DATA_OFFSET;
    while offset + buffer.len() as u64 <= file.metadata()?.len() {
        file.read_exact_at(&mut buffer, offset)?;
        for (index, block) in buffer.chunks(BLOCK).enumerate() {
            look(&file, offset + (index * BLOCK) as u64, block)?;
        }
        offset += buffer.len() as u64;
    }
    Ok(())
}

#[test]
fn rot_is_found_without_a_reader_mended_and_told_and_a_disk_that_rots_is_drained() -> Result<()> {
    on_scrubbing_cluster("scrub", PERIOD, |scene| {
        let play = Play::begin(scene)?;
        let fresh = play.wait_scrub("n2", "a first round to end", |scrub| scrub.rounds > 0)?;
        ensure!(fresh.period_ms == 8000 && fresh.found_blocks == 0, "before anything rots: {fresh:?}");
        found_while_attached(&play)?;
        found_while_nobody_holds_it(&play)?;
        too_many(&play)
    })
}

fn found_while_attached(play: &Play<'_>) -> Result<()> {
    play.spoil("n2", [3, 700, 2047].into_iter())?;
    play.wait_scrub("n2", "what has rotted to be mended", |scrub| scrub.repaired_blocks == 3 && scrub.bad_blocks == 0)?;
    let attached = play.scene.cluster.attached("n1", &play.id)?;
    ensure!(attached.reads == 0 && attached.repaired_blocks == 3, "no guest has read: {attached:?}");
    let told = play.events("scrub-found", "n2")?;
    let about_it = |event: &ToldEvent| event.volume.as_ref() == Some(&play.id);
    ensure!(told.len() == 3 && told.iter().all(about_it), "{} events", told.len());
    ensure!(told.iter().any(|event| event.text == "bad in chunk 0: block 700"), "{:?}", told[0].text);
    wait_until("the end of a round that tells of it", FOUND_LIMIT, || {
        let ended = play.events("scrub-ended", "n2")?;
        Ok(ended.iter().any(|event| event.text.ends_with("blocks found bad")).then_some(()))
    })?;
    let metric = |name| play.scene.cluster.metric("chunkserver-n2", &format!("ashlar_chunkserver_{name}"));
    ensure!(metric("found_bad_blocks_total")? == 3.0 && metric("mended_blocks_total")? == 3.0, "metrics of n2");
    ensure!(metric("scrubbed_bytes_total")? > 0.0 && metric("bad_blocks")? == 0.0, "metrics of n2");
    Ok(())
}

/// It is remembered, over a restart too, until there is a writer.
fn found_while_nobody_holds_it(play: &Play<'_>) -> Result<()> {
    let cluster = &play.scene.cluster;
    cluster.detach(VOLUME)?;
    play.compare()?;
    play.spoil("n3", [5, 6].into_iter())?;
    let before = play.wait_scrub("n3", "what has rotted to be found", |scrub| scrub.bad_blocks == 2)?;
    play.stop("chunkserver-n3")?;
    cluster.start("chunkserver-n3")?;
    let after = play.wait_scrub("n3", "the disk to tell of itself again", |scrub| scrub.bad_blocks == 2)?;
    // How far it was may be a second old.
    ensure!(after.rounds + 1 >= before.rounds && after.found_blocks == 2, "{before:?} became {after:?}");
    let client = play.attach()?;
    play.wait_scrub("n3", "the writer to mend it", |scrub| scrub.bad_blocks == 0 && scrub.repaired_blocks == 2)?;
    client.close()?;
    cluster.detach(VOLUME)?;
    play.compare()
}

fn too_many(play: &Play<'_>) -> Result<()> {
    ensure!(!play.disk("n2")?.draining, "a few blocks are no reason");
    play.spoil("n2", 100..100 + TOO_MANY)?;
    wait_until("the disk to be drained", FOUND_LIMIT, || Ok(play.disk("n2")?.draining.then_some(())))?;
    let told = play.events("disk-wears-out", "n2")?;
    ensure!(told.len() == 1 && told[0].text.contains("64 may"), "{} events", told.len());
    let client = play.attach()?;
    play.wait_scrub("n2", "all of it to be mended", |scrub| {
        scrub.bad_blocks == 0 && scrub.repaired_blocks == 3 + TOO_MANY as u64
    })?;
    // Taken back, it is not drained for the same blocks again.
    play.scene.cluster.cli(&["disk", "undrain", &play.disk("n2")?.id])?;
    let rounds = play.scrub("n2")?.rounds;
    play.wait_scrub("n2", "a round more", |scrub| scrub.rounds > rounds)?;
    ensure!(!play.disk("n2")?.draining, "what was judged is judged again");
    client.close()?;
    play.scene.cluster.detach(VOLUME)?;
    play.compare()
}

/// The row of the index that says what a slot of the first chunk holds, of a disk that nobody serves. The disk knows
/// nothing of the slot then, and misses nothing.
fn forget_slot(disk: &Path, volume: &str, slot: u16) -> Result<()> {
    let mut index = disk.as_os_str().to_os_string();
    index.push(".index");
    let volume: VolumeId = volume.parse().context("the volume's id")?;
    let (chunk, floor) = (0u32.to_be_bytes(), 0u64.to_be_bytes());
    let key = [b"s", &volume.as_u128().to_be_bytes()[..], &chunk, &slot.to_be_bytes(), &floor].concat();
    let db = DB::open_cf(&Options::default(), PathBuf::from(index), ["default", "identity"])?;
    ensure!(db.get(&key)?.is_some(), "the index has no row of slot {slot}");
    let mut durable = WriteOptions::default();
    durable.set_sync(true);
    Ok(db.delete_opt(key, &durable)?)
}

#[test]
fn a_write_that_a_disk_lost_without_a_trace_is_found_by_comparing_replicas_and_told() -> Result<()> {
    on_scrubbing_cluster("differs", "4s", |scene| {
        let play = Play::begin(scene)?;
        play.wait_comparison("a first round to end", |compared| compared.rounds > 0)?;
        play.stop("chunkserver-n3")?;
        forget_slot(&play.path("n3")?, &play.id, 7)?;
        scene.cluster.start("chunkserver-n3")?;
        play.wait_comparison("the difference to be found", |compared| compared.differing_slots == 1)?;
        told_of_the_difference(&play)?;
        scene.cluster.detach(VOLUME)?;
        let refused = play.compare().err().context("the replicas are said to be equal")?;
        ensure!(format!("{refused:#}").contains("differ in 16 blocks"), "{refused:#}");
        overwritten(&play)
    })
}

fn told_of_the_difference(play: &Play<'_>) -> Result<()> {
    let cluster = &play.scene.cluster;
    let told = wait_until("the event", FOUND_LIMIT, || {
        let printed = cluster.cli(&["events", "--last", "5000", "--json"])?;
        let events: Vec<ToldEvent> = printed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let about_it = |event: &ToldEvent| event.kind == "scrub-differs" && event.volume.as_ref() == Some(&play.id);
        let told: Vec<ToldEvent> = events.into_iter().filter(about_it).collect();
        Ok((!told.is_empty()).then_some(told))
    })?;
    let disk = play.disk("n3")?.id;
    let text = &told[0].text;
    ensure!(
        told.len() == 1 && text.starts_with("replicas differ in chunk 0, slot 7: "),
        "{} events: {text}",
        told.len()
    );
    ensure!(text.contains(&format!("{disk} zeros")), "it does not say what n3 has: {text}");
    wait_until("the volume to show it", FOUND_LIMIT, || {
        let shown = play.volume()?;
        let told = shown["condition"].as_str().is_some_and(|text| text.contains("different content in 1 slots"));
        Ok((told && shown["abnormal"] == true).then_some(()))
    })?;
    ensure!(cluster.metric("datapath-n1", "ashlar_datapath_differing_slots")? == 1.0, "metrics of the datapath");
    Ok(())
}

/// Whoever knows what belongs there writes it anew.
fn overwritten(play: &Play<'_>) -> Result<()> {
    let mut client = play.attach()?;
    let slot: Vec<u8> = (7 * 16..8 * 16).flat_map(content).collect();
    client.write(7 * SLOT_BYTES as u64, &slot)?;
    client.close()?;
    play.wait_comparison("a round without a difference", |compared| {
        compared.rounds > 1 && compared.differing_slots == 0
    })?;
    ensure!(play.volume()?["abnormal"] == false, "{}", play.volume()?);
    play.scene.cluster.detach(VOLUME)?;
    play.compare()
}
