//! Replication on real daemons: what a guest was told is kept, whoever dies, and all replicas end up equal.

use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::MemberState;
use ashlar_tests::{NbdClient, Scene, StampedGuest, nbd_socket, on_cluster, on_single_process_nodes, wait_until};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const VOLUME: &str = "v";
const SIZE: &str = "192M";
/// Blocks that the guest uses: a third of the volume, so that a whole copy is told from one of what changed.
const GUEST_BLOCKS: usize = (64 << 20) / 4096;
const EJECT_LIMIT: Duration = Duration::from_secs(30);
const RESYNC_LIMIT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Compared {
    blocks_compared: u64,
    differing: u64,
    replicas: u64,
}

#[derive(Deserialize)]
struct Event {
    kind: String,
    figures: BTreeMap<String, String>,
}

fn create_and_attach(scene: &Scene) -> Result<NbdClient> {
    scene.cluster.cli(&["volume", "create", VOLUME, "--size", SIZE, "--node", "n1"])?;
    attach(scene)
}

fn attach(scene: &Scene) -> Result<NbdClient> {
    NbdClient::connect(&nbd_socket(&scene.cluster.attach(VOLUME, "n1", "nbd")?)?)
}

/// Ends the use of the volume: everything that was written is there, and the three replicas are equal.
fn verify_detach_and_compare(scene: &Scene, mut client: NbdClient, guest: &mut StampedGuest) -> Result<()> {
    guest.verify(&mut client)?;
    client.close()?;
    scene.cluster.wait_in_sync(VOLUME, RESYNC_LIMIT)?;
    scene.cluster.detach(VOLUME)?;
    let compared: Compared = scene.cluster.cli_json(&["volume", "compare", VOLUME])?;
    ensure!(compared.replicas == 3, "{} replicas were compared", compared.replicas);
    ensure!(compared.blocks_compared > 0, "nothing was compared");
    ensure!(compared.differing == 0, "the replicas differ in {} blocks", compared.differing);
    Ok(())
}

#[test]
fn replicas_are_equal_and_content_survives_a_detach() -> Result<()> {
    on_cluster("plain", |scene| {
        let mut client = create_and_attach(scene)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 1);
        guest.write(&mut client, 500, &AtomicU64::new(0))?;
        guest.verify(&mut client)?;
        client.close()?;
        scene.cluster.detach(VOLUME)?;
        let client = attach(scene)?;
        verify_detach_and_compare(scene, client, &mut guest)
    })
}

#[test]
fn a_killed_chunkserver_is_ejected_and_gets_back_only_what_changed() -> Result<()> {
    on_cluster("eject", |scene| {
        let mut client = create_and_attach(scene)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 2);
        guest.write(&mut client, 1500, &AtomicU64::new(0))?;
        let done = AtomicU64::new(0);
        std::thread::scope(|threads| {
            let load = threads.spawn(|| guest.write(&mut client, 2000, &done).map(|()| (guest, client)));
            wait_until("some writes", RESYNC_LIMIT, || Ok((done.load(Ordering::SeqCst) > 500).then_some(())))?;
            scene.cluster.kill("chunkserver-n2", Signal::SIGKILL)?;
            let (mut guest, mut client) = load.join().expect("the guest does not panic").context("writes go on")?;
            // An idle volume need not notice; this one has something to write.
            guest.write(&mut client, 50, &done)?;
            scene.cluster.wait_member(VOLUME, "n2", MemberState::Out, EJECT_LIMIT)?;
            guest.write(&mut client, 50, &done)?;
            guest.verify(&mut client)?;
            scene.cluster.start("chunkserver-n2")?;
            guest.write(&mut client, 500, &done)?;
            scene.cluster.wait_in_sync(VOLUME, RESYNC_LIMIT)?;
            verify_detach_and_compare(scene, client, &mut guest)
        })?;
        let (copied, changed) = resynced(scene)?;
        ensure!(changed > 0, "the replica that was away had missed something");
        ensure!(copied <= changed, "{copied} blocks were copied where {changed} had changed");
        Ok(())
    })
}

/// Blocks copied and blocks changed, as the datapath tells of the volume's return to in-sync.
fn resynced(scene: &Scene) -> Result<(u64, u64)> {
    wait_until("the event that tells of the return", EJECT_LIMIT, || {
        let printed = scene.cluster.cli(&["events", "--volume", VOLUME, "--json"])?;
        let events: Vec<Event> = printed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let figure = |event: &Event, name: &str| event.figures.get(name)?.parse().ok();
        let joined = events.iter().filter(|event| event.kind == "in-sync");
        Ok(joined.rev().find_map(|event| Some((figure(event, "copied_blocks")?, figure(event, "changed_blocks")?))))
    })
}

#[test]
fn a_stopped_chunkserver_is_ejected_and_returns() -> Result<()> {
    on_cluster("stop", |scene| {
        let mut client = create_and_attach(scene)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 3);
        guest.write(&mut client, 200, &AtomicU64::new(0))?;
        scene.cluster.kill("chunkserver-n3", Signal::SIGSTOP)?;
        guest.write(&mut client, 200, &AtomicU64::new(0)).context("writes go on without it")?;
        scene.cluster.wait_member(VOLUME, "n3", MemberState::Out, EJECT_LIMIT)?;
        scene.cluster.kill("chunkserver-n3", Signal::SIGCONT)?;
        scene.cluster.wait_in_sync(VOLUME, RESYNC_LIMIT)?;
        verify_detach_and_compare(scene, client, &mut guest)
    })
}

#[test]
fn below_min_replicas_writes_wait_and_are_not_lost() -> Result<()> {
    on_cluster("wait", |scene| {
        let mut client = create_and_attach(scene)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 4);
        guest.write(&mut client, 100, &AtomicU64::new(0))?;
        scene.cluster.kill("chunkserver-n2", Signal::SIGKILL)?;
        guest.write(&mut client, 100, &AtomicU64::new(0)).context("writes go on with two")?;
        scene.cluster.kill("chunkserver-n3", Signal::SIGKILL)?;
        let done = AtomicU64::new(0);
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| guest.write(&mut client, 100, &done).map(|()| (guest, client)));
            let id = scene.cluster.volume(VOLUME)?.id;
            wait_until("the volume to say that it waits", EJECT_LIMIT, || {
                Ok((scene.cluster.attached("n1", &id)?.phase == "below minReplicas").then_some(()))
            })?;
            ensure!(!waiting.is_finished(), "writes neither fail nor succeed with one replica");
            scene.cluster.start("chunkserver-n3")?;
            let (mut guest, client) =
                waiting.join().expect("the guest does not panic").context("writes that waited")?;
            scene.cluster.start("chunkserver-n2")?;
            scene.cluster.wait_in_sync(VOLUME, RESYNC_LIMIT)?;
            verify_detach_and_compare(scene, client, &mut guest)
        })
    })
}

#[test]
fn reconcile_after_the_death_of_the_datapath_under_load_keeps_what_was_acknowledged() -> Result<()> {
    on_cluster("reconcile", |scene| crash_under_load(scene, 5, writer_dies))
}

#[test]
fn the_death_of_everything_under_load_keeps_what_was_acknowledged() -> Result<()> {
    on_cluster("crash", |scene| crash_under_load(scene, 6, everything_dies))
}

#[test]
fn the_death_of_a_node_that_is_one_process_under_load_keeps_what_was_acknowledged() -> Result<()> {
    on_single_process_nodes("one-process", |scene| crash_under_load(scene, 7, writer_dies))
}

#[test]
fn the_death_of_all_nodes_of_one_process_under_load_keeps_what_was_acknowledged() -> Result<()> {
    on_single_process_nodes("one-process-all", |scene| crash_under_load(scene, 8, everything_dies))
}

/// Where the datapath and the chunkserver are one process the node's own disk is on no socket; the other two are.
#[test]
fn the_replica_on_the_own_node_is_reached_without_a_socket() -> Result<()> {
    on_single_process_nodes("no-socket", |scene| {
        let mut client = create_and_attach(scene)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 9);
        guest.write(&mut client, 500, &AtomicU64::new(0))?;
        let mut connected = BTreeMap::new();
        for node in ["n1", "n2", "n3"] {
            let daemon = scene.cluster.daemon(&format!("datapath-{node}"))?;
            let data = daemon.addresses.get("data").context("one process has a data port")?.parse::<SocketAddr>()?;
            connected.insert(node, established_to(data.port())?);
        }
        ensure!(connected == BTreeMap::from([("n1", 0), ("n2", 1), ("n3", 1)]), "connections: {connected:?}");
        verify_detach_and_compare(scene, client, &mut guest)
    })
}

/// Connections to a port of this machine that stand.
fn established_to(port: u16) -> Result<usize> {
    const ESTABLISHED: &str = "01";
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp")?;
    let stands = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(2).is_some_and(|to| to.ends_with(&remote)) && fields.get(3) == Some(&ESTABLISHED)
    };
    Ok(table.lines().filter(stands).count())
}

/// With its chunkserver, where they are one process.
fn writer_dies(scene: &Scene) -> Result<()> {
    scene.cluster.kill("datapath-n1", Signal::SIGKILL)?;
    scene.cluster.start("datapath-n1")
}

fn everything_dies(scene: &Scene) -> Result<()> {
    scene.cluster.kill("all", Signal::SIGKILL)?;
    scene.cluster.up_again()
}

/// Three times: load, crash, attach, verify.
fn crash_under_load(scene: &Scene, seed: u64, crash: impl Fn(&Scene) -> Result<()>) -> Result<()> {
    let mut client = create_and_attach(scene)?;
    let mut guest = StampedGuest::new(GUEST_BLOCKS, seed);
    for round in 0..3 {
        let done = AtomicU64::new(0);
        let enough = 300 + 200 * round;
        (guest, client) = std::thread::scope(|threads| {
            let load = threads.spawn(|| {
                let broken = guest.write(&mut client, u64::MAX, &done);
                (broken, guest)
            });
            wait_until("some writes", RESYNC_LIMIT, || {
                let stuck = load.is_finished() && done.load(Ordering::SeqCst) < enough;
                ensure!(!stuck, "the load ended early");
                Ok((done.load(Ordering::SeqCst) >= enough).then_some(()))
            })?;
            crash(scene)?;
            let (broken, mut guest) = load.join().expect("the guest does not panic");
            ensure!(broken.is_err(), "a load without end ends by the crash");
            let mut client = attach(scene).context("attach after the crash")?;
            guest.verify(&mut client).with_context(|| format!("after crash {round}"))?;
            guest.verify(&mut client).context("reads are stable")?;
            anyhow::Ok((guest, client))
        })?;
    }
    verify_detach_and_compare(scene, client, &mut guest)
}
