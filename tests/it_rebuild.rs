//! Self-healing on real daemons: a node that stays away, a volume that nobody uses, a drain under load, and a user who
//! comes while a volume is being repaired.

use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::{MemberState, Volume};
use ashlar_tests::{NbdClient, Scene, StampedGuest, nbd_socket, on_repairing_cluster, wait_until};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const VOLUME: &str = "v";
const SIZE: &str = "64M";
const GUEST_BLOCKS: usize = 4096;
const GRACE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Event {
    kind: String,
    text: String,
}

#[derive(Deserialize)]
struct Disk {
    node: String,
    provisioned_bytes: u64,
}

fn create(scene: &Scene) -> Result<NbdClient> {
    scene.cluster.cli(&["volume", "create", VOLUME, "--size", SIZE, "--node", "n1"])?;
    attach(scene)
}

fn attach(scene: &Scene) -> Result<NbdClient> {
    NbdClient::connect(&nbd_socket(&scene.cluster.attach(VOLUME, "n1", "nbd")?)?)
}

/// Node and state of each member that holds a chunk.
fn holders(volume: &Volume) -> Vec<(String, MemberState)> {
    let record = volume.record.clone().unwrap_or_default();
    let held: BTreeSet<u32> = record.chunks.iter().flat_map(|run| run.members.iter().copied()).collect();
    held.iter()
        .map(|&index| &record.members[index as usize])
        .map(|member| (member.node.clone(), member.state()))
        .collect()
}

fn in_sync(volume: &Volume) -> usize {
    holders(volume).iter().filter(|(_, state)| *state == MemberState::InSync).count()
}

/// Three replicas in-sync, none of them on the node, and nobody there half-way.
fn wait_healed_without(scene: &Scene, node: &str) -> Result<()> {
    wait_until("three replicas elsewhere", LIMIT, || {
        let volume = scene.cluster.volume(VOLUME)?;
        let is_gone = holders(&volume).iter().all(|(holder, _)| holder != node);
        Ok((is_gone && holders(&volume).len() == 3 && in_sync(&volume) == 3).then_some(()))
    })
}

/// A node that holds a replica, and on which the volume is not attached.
fn partner(scene: &Scene) -> Result<String> {
    let holders = holders(&scene.cluster.volume(VOLUME)?);
    holders.into_iter().map(|(node, _)| node).find(|node| node != "n1").context("a replica beside the first")
}

fn events(scene: &Scene) -> Result<Vec<Event>> {
    let printed = scene.cluster.cli(&["events", "--volume", VOLUME, "--json"])?;
    Ok(printed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn wait_event(scene: &Scene, kind: &str) -> Result<Event> {
    wait_until(&format!("the event {kind}"), LIMIT, || Ok(events(scene)?.into_iter().find(|event| event.kind == kind)))
}

/// What the volume no longer has on a disk of the node is given back.
fn wait_emptied(scene: &Scene, node: &str) -> Result<()> {
    wait_until("what was there to be given back", LIMIT, || {
        let disks: Vec<Disk> = scene.cluster.cli_json(&["disk", "list"])?;
        let promised: u64 = disks.iter().filter(|disk| disk.node == node).map(|disk| disk.provisioned_bytes).sum();
        Ok((promised == 0).then_some(()))
    })
}

fn write(client: &mut NbdClient, guest: &mut StampedGuest, count: u64) -> Result<()> {
    guest.write(client, count, &AtomicU64::new(0))
}

fn verify_and_compare(scene: &Scene, mut client: NbdClient, guest: &mut StampedGuest) -> Result<()> {
    guest.verify(&mut client)?;
    client.close()?;
    scene.cluster.detach(VOLUME)?;
    scene.cluster.cli(&["volume", "compare", VOLUME]).map(drop)
}

#[test]
fn a_node_that_stays_away_is_replaced_and_what_it_had_goes_when_it_returns() -> Result<()> {
    on_repairing_cluster("rebuild", 4, GRACE, |scene| {
        let mut client = create(scene)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 11);
        write(&mut client, &mut guest, 500)?;
        let gone = partner(scene)?;
        let chunkserver = format!("chunkserver-{gone}");
        scene.cluster.kill(&chunkserver, Signal::SIGKILL)?;
        write(&mut client, &mut guest, 300).context("writes go on with two")?;
        wait_event(scene, "ejected")?;
        let begun = wait_event(scene, "rebuild-begun")?;
        ensure!(begun.text.contains(&format!("node {gone} has been silent")), "{}", begun.text);
        write(&mut client, &mut guest, 300)?;
        wait_healed_without(scene, &gone)?;
        write(&mut client, &mut guest, 100)?;
        scene.cluster.start(&chunkserver)?;
        wait_emptied(scene, &gone)?;
        verify_and_compare(scene, client, &mut guest)
    })
}

#[test]
fn a_volume_that_nobody_uses_is_repaired_and_is_free_again() -> Result<()> {
    on_repairing_cluster("unused", 4, GRACE, |scene| {
        let mut client = create(scene)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 12);
        write(&mut client, &mut guest, 500)?;
        client.close()?;
        scene.cluster.detach(VOLUME)?;
        let gone = partner(scene)?;
        scene.cluster.kill(&format!("chunkserver-{gone}"), Signal::SIGKILL)?;
        wait_event(scene, "repair-begun")?;
        wait_healed_without(scene, &gone)?;
        wait_event(scene, "repair-ended")?;
        wait_until("the volume to be free", LIMIT, || {
            let record = scene.cluster.volume(VOLUME)?.record.context("a volume has a record")?;
            Ok((record.holder.is_empty() && record.clean).then_some(()))
        })?;
        let mut client = attach(scene)?;
        write(&mut client, &mut guest, 100)?;
        verify_and_compare(scene, client, &mut guest)
    })
}

#[test]
fn whoever_wants_a_volume_that_is_being_repaired_gets_it() -> Result<()> {
    on_repairing_cluster("wanted", 3, GRACE, |scene| {
        let mut client = create(scene)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 13);
        write(&mut client, &mut guest, 500)?;
        client.close()?;
        scene.cluster.detach(VOLUME)?;
        // With three nodes there is no other place: the repair goes on until the node is back.
        let gone = partner(scene)?;
        scene.cluster.kill(&format!("chunkserver-{gone}"), Signal::SIGKILL)?;
        wait_event(scene, "repair-begun")?;
        let mut client = wait_until("the volume to be given up", LIMIT, || Ok(attach(scene).ok()))?;
        write(&mut client, &mut guest, 100)?;
        wait_event(scene, "rebuild-stuck")?;
        scene.cluster.start(&format!("chunkserver-{gone}"))?;
        scene.cluster.wait_in_sync(VOLUME, LIMIT)?;
        verify_and_compare(scene, client, &mut guest)
    })
}

#[test]
fn a_drained_node_is_empty_and_no_copy_was_missing_meanwhile() -> Result<()> {
    on_repairing_cluster("drain", 4, Duration::from_secs(60), |scene| {
        let mut client = create(scene)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 14);
        write(&mut client, &mut guest, 500)?;
        let drained = partner(scene)?;
        let is_over = AtomicBool::new(false);
        let fewest = std::thread::scope(|threads| {
            let load = threads.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    write(&mut client, &mut guest, 50)?;
                }
                Ok::<_, anyhow::Error>((client, guest))
            });
            scene.cluster.cli(&["node", "drain", &drained])?;
            let mut fewest = usize::MAX;
            let emptied = wait_until("the node to be empty", LIMIT, || {
                let volume = scene.cluster.volume(VOLUME)?;
                fewest = fewest.min(in_sync(&volume));
                let holds = holders(&volume).iter().any(|(node, _)| *node == drained);
                Ok((!holds).then_some(()))
            });
            is_over.store(true, Ordering::SeqCst);
            let (client, mut guest) = load.join().expect("the guest does not panic").context("writes go on")?;
            emptied?;
            wait_emptied(scene, &drained)?;
            let answer = scene.cluster.try_cli(&["node", "safe-to-stop", &drained])?;
            ensure!(answer.success, "an empty node may be stopped: {}", answer.stdout);
            scene.cluster.kill(&format!("chunkserver-{drained}"), Signal::SIGKILL)?;
            verify_and_compare(scene, client, &mut guest)?;
            Ok::<_, anyhow::Error>(fewest)
        })?;
        ensure!(fewest == 3, "{fewest} replicas were in-sync at some moment");
        Ok(())
    })
}

#[test]
fn what_must_not_be_stopped_or_drained_is_told_and_why() -> Result<()> {
    on_repairing_cluster("safe", 3, Duration::from_secs(60), |scene| {
        let mut client = create(scene)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 15);
        write(&mut client, &mut guest, 100)?;
        let [gone, other] = ["n2", "n3"];
        ensure!(scene.cluster.try_cli(&["node", "safe-to-stop", other])?.success, "two of three are left");
        let refused = scene.cluster.try_cli(&["node", "drain", other])?;
        ensure!(!refused.success && refused.stderr.contains("cannot be drained"), "{}", refused.stderr);
        scene.cluster.kill(&format!("chunkserver-{gone}"), Signal::SIGKILL)?;
        write(&mut client, &mut guest, 100)?;
        scene.cluster.wait_member(VOLUME, gone, MemberState::Out, LIMIT)?;
        let unsafe_now = scene.cluster.try_cli(&["node", "safe-to-stop", other])?;
        ensure!(
            !unsafe_now.success && unsafe_now.stdout.contains("1 of 3 replicas would be left"),
            "{}",
            unsafe_now.stdout
        );
        scene.cluster.start(&format!("chunkserver-{gone}"))?;
        scene.cluster.wait_in_sync(VOLUME, LIMIT)?;
        wait_until("the node to be safe to stop", LIMIT, || {
            Ok(scene.cluster.try_cli(&["node", "safe-to-stop", other])?.success.then_some(()))
        })?;
        verify_and_compare(scene, client, &mut guest)
    })
}
