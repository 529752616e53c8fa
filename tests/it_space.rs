//! What is told of the space of a volume and its snapshots, against known amounts, and against what the disks have
//! free when snapshots are deleted.

use anyhow::{Context, Result, ensure};
use ashlar_tests::{NbdClient, Scene, nbd_socket, on_cluster, wait_until};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::{collections::BTreeMap, ops::Range, time::Duration};

const SLOT: u64 = 64 << 10;
const BLOCK: usize = 4096;
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Volume {
    space: Option<Space>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Space {
    replicas: u64,
    used_bytes: u64,
    unique_bytes: u64,
    shared_bytes: u64,
    snapshots_bytes: u64,
    pending_bytes: u64,
    freed_by_all_bytes: u64,
    snapshots: Vec<SnapshotSpace>,
    untold_chunks: u32,
    faults: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct SnapshotSpace {
    name: Option<String>,
    freed_bytes: u64,
}

#[derive(Deserialize)]
struct Disk {
    id: String,
    free_bytes: u64,
}

fn space(scene: &Scene) -> Result<Space> {
    scene.cluster.cli_json::<Volume>(&["volume", "show", "v"])?.space.context("`volume show` tells of space")
}

/// All in slots: unique, shared, of snapshots alone, freed by all; then what each snapshot frees.
fn told(counts: [u64; 4], freed: &[(&str, u64)]) -> Space {
    let [unique_bytes, shared_bytes, snapshots_bytes, freed_by_all_bytes] = counts.map(|count| count * SLOT);
    let snapshot =
        |&(name, slots): &(&str, u64)| SnapshotSpace { name: Some(name.to_owned()), freed_bytes: slots * SLOT };
    Space {
        replicas: 3,
        used_bytes: unique_bytes + shared_bytes + snapshots_bytes,
        unique_bytes,
        shared_bytes,
        snapshots_bytes,
        pending_bytes: 0,
        freed_by_all_bytes,
        snapshots: freed.iter().map(snapshot).collect(),
        untold_chunks: 0,
        faults: vec![],
    }
}

fn expect(scene: &Scene, counts: [u64; 4], freed: &[(&str, u64)]) -> Result<()> {
    let (found, expected) = (space(scene)?, told(counts, freed));
    ensure!(found == expected, "told: {found:#?}\nexpected: {expected:#?}");
    Ok(())
}

fn free(scene: &Scene) -> Result<BTreeMap<String, u64>> {
    let disks: Vec<Disk> = scene.cluster.cli_json(&["disk", "list"])?;
    Ok(disks.into_iter().map(|disk| (disk.id, disk.free_bytes)).collect())
}

fn write_slots(client: &mut NbdClient, slots: Range<u64>, fill: u8) -> Result<()> {
    slots.into_iter().try_for_each(|slot| client.write(slot * SLOT, &vec![fill; SLOT as usize]))
}

fn take(scene: &Scene, name: &str) -> Result<()> {
    scene.cluster.cli(&["snapshot", "create", "v", name]).map(drop)
}

/// A volume with 8 MiB of which more and more changes, and three snapshots.
fn prepare(scene: &Scene) -> Result<NbdClient> {
    scene.cluster.cli(&["volume", "create", "v", "--size", "256M", "--node", "n1"])?;
    expect(scene, [0, 0, 0, 0], &[]).context("never attached")?;
    let mut client = NbdClient::connect(&nbd_socket(&scene.cluster.attach("v", "n1", "nbd")?)?)?;
    write_slots(&mut client, 0..128, 1)?;
    expect(scene, [128, 0, 0, 0], &[]).context("without a snapshot")?;

    take(scene, "a")?;
    expect(scene, [0, 128, 0, 0], &[("a", 0)]).context("a snapshot of what is there")?;
    write_slots(&mut client, 0..32, 2)?;
    // One block takes a slot of its own, and the rest of it is still read from the old one.
    (32..48).try_for_each(|slot| client.write(slot * SLOT, &[2; BLOCK]))?;
    expect(scene, [48, 96, 32, 48], &[("a", 48)]).context("parts are overwritten")?;

    take(scene, "b")?;
    write_slots(&mut client, 0..16, 3)?;
    write_slots(&mut client, 128..136, 3)?;
    let trim = client.submit_trim(64 * SLOT, 16 * SLOT as u32)?;
    let reply = client.next_reply()?;
    ensure!(reply.cookie == trim && reply.error == 0, "the trim is answered with {}", reply.error);
    expect(scene, [24, 112, 64, 80], &[("a", 48), ("b", 16)]).context("more is overwritten, written and trimmed")?;

    take(scene, "c")?;
    expect(scene, [0, 136, 64, 80], &[("a", 48), ("b", 16), ("c", 0)]).context("nothing is written since")?;
    write_slots(&mut client, 0..8, 4)?;
    expect(scene, [8, 128, 72, 88], &[("a", 48), ("b", 16), ("c", 8)]).context("a little is")?;
    Ok(client)
}

/// Deletes it and waits until the disks have as much more free as was told.
fn delete(scene: &Scene, name: &str) -> Result<()> {
    let (before, had) = (space(scene)?, free(scene)?);
    let freed = before.snapshots.iter().find(|snapshot| snapshot.name.as_deref() == Some(name));
    let freed = freed.with_context(|| format!("{name} is told of"))?.freed_bytes;
    scene.cluster.cli(&["snapshot", "delete", name])?;
    wait_until("the space to come back", LIMIT, || {
        let (now, has) = (space(scene)?, free(scene)?);
        let all_have = had.iter().all(|(disk, had)| has.get(disk) == Some(&(had + freed)));
        Ok((now.used_bytes + freed == before.used_bytes && now.pending_bytes == 0 && all_have).then_some(()))
    })
    .with_context(|| format!("{name} gives back {freed} bytes"))
}

#[test]
fn what_each_snapshot_keeps_is_told_exactly_and_comes_back_when_it_is_deleted() -> Result<()> {
    on_cluster("space", |scene| {
        let empty = free(scene)?;
        let client = prepare(scene)?;
        wait_until("the disks to tell what they have", LIMIT, || {
            let has = free(scene)?;
            Ok(empty.iter().all(|(disk, empty)| has.get(disk) == Some(&(empty - 208 * SLOT))).then_some(()))
        })?;
        let shown = scene.cluster.cli(&["volume", "show", "v"])?;
        for line in ["13 MiB on each of 3 replicas", "8 MiB, needed by the present and", "DELETING IT FREES"] {
            ensure!(shown.contains(line), "`volume show` does not say {line:?}:\n{shown}");
        }
        delete(scene, "b")?;
        expect(scene, [8, 128, 56, 72], &[("a", 64), ("c", 8)]).context("without b")?;
        delete(scene, "a")?;
        expect(scene, [8, 112, 8, 8], &[("c", 8)]).context("without a")?;
        delete(scene, "c")?;
        expect(scene, [120, 0, 0, 0], &[]).context("without any")?;
        client.close()?;
        scene.cluster.detach("v")
    })
}

#[test]
fn snapshots_of_a_detached_volume_give_their_space_back_without_an_attach() -> Result<()> {
    on_cluster("space-detached", |scene| {
        let empty = free(scene)?;
        prepare(scene)?.close()?;
        scene.cluster.detach("v")?;
        wait_until("the disks to tell what they have", LIMIT, || {
            let has = free(scene)?;
            Ok(empty.iter().all(|(disk, empty)| has.get(disk) == Some(&(empty - 208 * SLOT))).then_some(()))
        })?;
        delete(scene, "b")?;
        expect(scene, [8, 128, 56, 72], &[("a", 64), ("c", 8)]).context("without b")?;
        // Its point is that of the next one, too, which must keep what it shows.
        take(scene, "d")?;
        scene.cluster.cli(&["snapshot", "delete", "d"])?;
        take(scene, "e")?;
        // One chunkserver hears of it when it is back, and of a control plane that was away.
        scene.cluster.kill("chunkserver-n3", Signal::SIGKILL)?;
        scene.cluster.cli(&["snapshot", "delete", "a"])?;
        scene.cluster.kill("control", Signal::SIGKILL)?;
        scene.cluster.up_again()?;
        wait_until("the space to come back everywhere", LIMIT, || {
            let (now, has) = (space(scene)?, free(scene)?);
            let all_have = has.values().all(|free| Some(free) == has.values().max());
            Ok((now.pending_bytes == 0 && now.used_bytes == 128 * SLOT && all_have).then_some(()))
        })?;
        expect(scene, [0, 120, 8, 8], &[("c", 8), ("e", 0)]).context("without a")?;
        Ok(())
    })
}

#[test]
fn a_chunkserver_that_does_not_answer_is_named_and_another_one_tells() -> Result<()> {
    on_cluster("space-silent", |scene| {
        prepare(scene)?.close()?;
        scene.cluster.detach("v")?;
        let whole = space(scene)?;
        scene.cluster.kill("chunkserver-n1", Signal::SIGKILL)?;
        let found = space(scene)?;
        ensure!(Space { faults: vec![], ..found.clone() } == whole, "another replica tells the same: {found:#?}");
        for node in ["chunkserver-n2", "chunkserver-n3"] {
            scene.cluster.kill(node, Signal::SIGKILL)?;
        }
        let found = space(scene)?;
        ensure!((found.used_bytes, found.untold_chunks) == (0, 4), "nobody is left to tell: {found:#?}");
        for node in ["n1", "n2", "n3"] {
            ensure!(found.faults.iter().any(|fault| fault.contains(&format!("node {node}"))), "{:?}", found.faults);
        }
        let shown = scene.cluster.cli(&["volume", "show", "v"])?;
        ensure!(shown.contains("unknown: no replica tells of its 4 chunks"), "the rest is shown:\n{shown}");
        scene.cluster.up_again()?;
        wait_until("replicas to tell again", LIMIT, || Ok((space(scene)? == whole).then_some(())))
    })
}
