//! Self-healing on real daemons: a node that stays away, a volume that nobody uses, a drain under load, and a user who
//! comes while a volume is being repaired.

use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::{ChunkserverStatusRequest, MemberState, MemberStatus};
use ashlar_tests::{
    NbdClient, Scene, StampedGuest, holders, in_sync, nbd_socket, on_placing_cluster, on_repairing_cluster,
    on_repairing_cluster_with, wait_until,
};
use nix::sys::signal::Signal;
use serde::Deserialize;
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

#[derive(Deserialize)]
struct Shown {
    forecast: Option<Forecast>,
    stuck: Vec<String>,
}

#[derive(Deserialize)]
struct Forecast {
    protected_in_ms: Option<u64>,
}

fn create(scene: &Scene) -> Result<NbdClient> {
    scene.cluster.cli(&["volume", "create", VOLUME, "--size", SIZE, "--node", "n1"])?;
    attach(scene)
}

fn attach(scene: &Scene) -> Result<NbdClient> {
    NbdClient::connect(&nbd_socket(&scene.cluster.attach(VOLUME, "n1", "nbd")?)?)
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

/// A volume with 500 writes, and a node beside n1 that has a replica.
fn with_writes(scene: &Scene, seed: u64) -> Result<(NbdClient, StampedGuest, String)> {
    let mut client = create(scene)?;
    let mut guest = StampedGuest::new(GUEST_BLOCKS, seed);
    write(&mut client, &mut guest, 500)?;
    Ok((client, guest, partner(scene)?))
}

fn kill(scene: &Scene, node: &str) -> Result<()> {
    scene.cluster.kill(&format!("chunkserver-{node}"), Signal::SIGKILL)
}

fn start(scene: &Scene, node: &str) -> Result<()> {
    scene.cluster.start(&format!("chunkserver-{node}"))
}

/// The same that nobody uses, while it is attached for repair because the node has gone.
fn under_repair(scene: &Scene, seed: u64) -> Result<(StampedGuest, String)> {
    let (client, guest, gone) = with_writes(scene, seed)?;
    client.close()?;
    scene.cluster.detach(VOLUME)?;
    kill(scene, &gone)?;
    wait_event(scene, "repair-begun")?;
    Ok((guest, gone))
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
        let (mut client, mut guest, gone) = with_writes(scene, 11)?;
        kill(scene, &gone)?;
        write(&mut client, &mut guest, 300).context("writes go on with two")?;
        wait_event(scene, "ejected")?;
        let begun = wait_event(scene, "rebuild-begun")?;
        ensure!(begun.text.contains(&format!("node {gone} has been silent")), "{}", begun.text);
        write(&mut client, &mut guest, 300)?;
        wait_healed_without(scene, &gone)?;
        write(&mut client, &mut guest, 100)?;
        start(scene, &gone)?;
        wait_emptied(scene, &gone)?;
        verify_and_compare(scene, client, &mut guest)
    })
}

/// The node of the replica that only takes new writes, once it does.
fn wait_temporary(scene: &Scene, away: &str) -> Result<String> {
    wait_event(scene, "temporary-begun")?;
    let holders = holders(&scene.cluster.volume(VOLUME)?);
    let in_sync = |state: MemberState| state == MemberState::InSync;
    let temporary = holders.into_iter().find(|(node, state)| node != away && !in_sync(*state));
    let (node, _) = temporary.context("a member that is neither in-sync nor the missing one")?;
    scene.cluster.wait_member(VOLUME, &node, MemberState::Syncing, LIMIT)?;
    Ok(node)
}

/// What a node's disk has of the volume, and how many blocks were copied there.
fn used_and_copied(scene: &Scene, node: &str) -> Result<(u64, u64)> {
    let id = scene.cluster.volume(VOLUME)?.id;
    let request = ChunkserverStatusRequest { volumes: vec![id.clone()] };
    let mut chunkserver = scene.cluster.chunkserver(node)?;
    let status = scene.cluster.block_on(chunkserver.status(request))?.into_inner();
    let attached = scene.cluster.attached("n1", &id)?;
    let on_node = |member: &&MemberStatus| status.replicas.iter().any(|replica| replica.disk == member.disk);
    let copied = attached.members.iter().filter(on_node).map(|member| member.resync_blocks_copied).sum();
    Ok((status.replicas.iter().map(|replica| replica.used_bytes).sum(), copied))
}

#[test]
fn while_a_node_is_away_new_writes_have_a_third_copy_and_old_content_stays_where_it_is() -> Result<()> {
    on_repairing_cluster("away", 4, Duration::from_secs(600), |scene| {
        let (mut client, mut guest, away) = with_writes(scene, 16)?;
        kill(scene, &away)?;
        let temporary = wait_temporary(scene, &away)?;
        let (used, copied) = wait_until("new writes to come to the temporary replica", LIMIT, || {
            write(&mut client, &mut guest, 50)?;
            let (used, copied) = used_and_copied(scene, &temporary)?;
            Ok((used > 0).then_some((used, copied)))
        })?;
        ensure!(copied == 0, "{copied} blocks of old content were copied beside {used} bytes of new writes");
        start(scene, &away)?;
        wait_event(scene, "temporary-ended")?;
        wait_healed_without(scene, &temporary)?;
        wait_emptied(scene, &temporary)?;
        ensure!(holders(&scene.cluster.volume(VOLUME)?).iter().any(|(node, _)| *node == away), "it was replaced");
        verify_and_compare(scene, client, &mut guest)
    })
}

#[test]
fn with_a_second_node_gone_the_temporary_replica_is_filled_at_once_and_writes_go_on() -> Result<()> {
    on_repairing_cluster("two", 4, Duration::from_secs(600), |scene| {
        let (mut client, mut guest, away) = with_writes(scene, 17)?;
        kill(scene, &away)?;
        let temporary = wait_temporary(scene, &away)?;
        write(&mut client, &mut guest, 100)?;
        let is_partner = |node: &&str| *node != "n1" && *node != away && *node != temporary;
        let second = ["n2", "n3", "n4"].into_iter().find(is_partner).context("four nodes")?;
        kill(scene, second)?;
        write(&mut client, &mut guest, 200).context("writes wait for the second copy, and go on")?;
        ensure!(in_sync(&scene.cluster.volume(VOLUME)?) >= 2, "two replicas are in-sync");
        for node in [away.as_str(), second] {
            start(scene, node)?;
        }
        scene.cluster.wait_in_sync(VOLUME, LIMIT)?;
        verify_and_compare(scene, client, &mut guest)
    })
}

#[test]
fn a_replica_whose_disk_dies_while_it_is_filled_is_made_elsewhere_under_its_writer() -> Result<()> {
    // Slow enough to be met on its way.
    on_repairing_cluster_with("filled", 5, GRACE, &["--control-option=--copy-limit-mib=8"], |scene| {
        let mut client = create(scene)?;
        let mut guest = StampedGuest::new(2 * GUEST_BLOCKS, 17);
        guest.fill(&mut client)?;
        let gone = partner(scene)?;
        kill(scene, &gone)?;
        let filled = wait_until("a replica to be filled", LIMIT, || {
            let of_volume = holders(&scene.cluster.volume(VOLUME)?);
            let is_replaced = of_volume.iter().all(|(node, _)| *node != gone);
            let filled = of_volume.into_iter().find(|(_, state)| *state == MemberState::Syncing);
            Ok(filled.filter(|_| is_replaced).map(|(node, _)| node))
        })?;
        kill(scene, &filled)?;
        write(&mut client, &mut guest, 100).context("writes go on with two")?;
        wait_healed_without(scene, &filled)?;
        verify_and_compare(scene, client, &mut guest)
    })
}

#[test]
fn with_a_zone_goes_one_replica_and_no_other_zone_takes_a_second() -> Result<()> {
    on_placing_cluster("zone", 5, GRACE, &["a", "b", "b", "c", "c"], |scene| {
        let size = ["--size", SIZE, "--node", "n1", "--param", "spread=zone"];
        scene.cluster.cli(&[&["volume", "create", VOLUME], &size[..]].concat())?;
        let mut client = attach(scene)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 18);
        write(&mut client, &mut guest, 300)?;
        for node in ["n4", "n5"] {
            kill(scene, node)?;
        }
        write(&mut client, &mut guest, 200).context("writes go on with the other zones")?;
        let stuck = wait_event(scene, "rebuild-stuck")?;
        ensure!(stuck.text.contains("no disk can take a replica"), "{}", stuck.text);
        write(&mut client, &mut guest, 100)?;
        ensure!(in_sync(&scene.cluster.volume(VOLUME)?) == 2, "one in each zone that is left");
        for node in ["n4", "n5"] {
            start(scene, node)?;
        }
        scene.cluster.wait_in_sync(VOLUME, LIMIT)?;
        verify_and_compare(scene, client, &mut guest)
    })
}

#[test]
fn a_volume_that_nobody_uses_is_repaired_and_is_free_again() -> Result<()> {
    on_repairing_cluster("unused", 4, GRACE, |scene| {
        let (mut guest, gone) = under_repair(scene, 12)?;
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
        // With three nodes there is no other place: the repair goes on until the node is back.
        let (mut guest, gone) = under_repair(scene, 13)?;
        let mut client = wait_until("the volume to be given up", LIMIT, || Ok(attach(scene).ok()))?;
        write(&mut client, &mut guest, 100)?;
        wait_event(scene, "rebuild-stuck")?;
        let seen = wait_until("people to be told", LIMIT, || {
            let seen: Shown = scene.cluster.cli_json(&["volume", "show", VOLUME])?;
            Ok((!seen.stuck.is_empty()).then_some(seen))
        })?;
        ensure!(seen.stuck[0].contains("no other disk takes its replica"), "{:?}", seen.stuck);
        ensure!(seen.forecast.is_some_and(|forecast| forecast.protected_in_ms.is_none()), "no time is known");
        start(scene, &gone)?;
        scene.cluster.wait_in_sync(VOLUME, LIMIT)?;
        wait_until("nothing to be told any more", LIMIT, || {
            let seen: Shown = scene.cluster.cli_json(&["volume", "show", VOLUME])?;
            Ok((seen.stuck.is_empty() && seen.forecast.is_none()).then_some(()))
        })?;
        verify_and_compare(scene, client, &mut guest)
    })
}

#[test]
fn a_drained_node_is_empty_and_no_copy_was_missing_meanwhile() -> Result<()> {
    on_repairing_cluster("drain", 4, Duration::from_secs(60), |scene| {
        let (mut client, mut guest, drained) = with_writes(scene, 14)?;
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
            kill(scene, &drained)?;
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
        kill(scene, gone)?;
        write(&mut client, &mut guest, 100)?;
        scene.cluster.wait_member(VOLUME, gone, MemberState::Out, LIMIT)?;
        let unsafe_now = scene.cluster.try_cli(&["node", "safe-to-stop", other])?;
        ensure!(
            !unsafe_now.success && unsafe_now.stdout.contains("1 of 3 replicas would be left"),
            "{}",
            unsafe_now.stdout
        );
        start(scene, gone)?;
        scene.cluster.wait_in_sync(VOLUME, LIMIT)?;
        wait_until("the node to be safe to stop", LIMIT, || {
            Ok(scene.cluster.try_cli(&["node", "safe-to-stop", other])?.success.then_some(()))
        })?;
        verify_and_compare(scene, client, &mut guest)
    })
}
