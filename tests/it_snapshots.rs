//! Snapshots on real daemons: taken of volumes with and without a writer, under load, through the deaths of daemons,
//! and deleted again. What each replica keeps for them is compared block by block.

use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::MemberState;
use ashlar_tests::{NbdClient, Scene, StampedGuest, nbd_socket, on_cluster, wait_until};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread::Scope,
    time::Duration,
};

const SIZE: &str = "192M";
const GUEST_BLOCKS: usize = (32 << 20) / 4096;
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Snapshot {
    id: String,
    name: String,
    volume_name: Option<String>,
    ready: bool,
    group: Option<String>,
}

#[derive(Deserialize)]
struct Group {
    id: String,
    held_us: u64,
    ready: bool,
    snapshots: Vec<Snapshot>,
}

#[derive(Deserialize)]
struct Compared {
    replicas: u64,
    views_compared: u64,
    differing: u64,
}

fn create_and_attach(scene: &Scene, volume: &str, node: &str) -> Result<NbdClient> {
    scene.cluster.cli(&["volume", "create", volume, "--size", SIZE, "--node", node])?;
    attach(scene, volume, node)
}

fn attach(scene: &Scene, volume: &str, node: &str) -> Result<NbdClient> {
    NbdClient::connect(&nbd_socket(&scene.cluster.attach(volume, node, "nbd")?)?)
}

fn take(scene: &Scene, volume: &str, name: &str) -> Result<Snapshot> {
    let taken: Snapshot = scene.cluster.cli_json(&["snapshot", "create", volume, name])?;
    ensure!(taken.ready && taken.name == name, "snapshot {name} is ready when it is told of");
    Ok(taken)
}

fn names(scene: &Scene, volume: &str) -> Result<Vec<String>> {
    let mut listed: Vec<Snapshot> = scene.cluster.cli_json(&["snapshot", "list", "--volume", volume])?;
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listed.into_iter().map(|snapshot| snapshot.name).collect())
}

/// All three replicas hold the same, now and in each snapshot.
fn close_and_compare(scene: &Scene, volume: &str, client: NbdClient, snapshots: u64) -> Result<()> {
    client.close()?;
    scene.cluster.wait_in_sync(volume, LIMIT)?;
    scene.cluster.detach(volume)?;
    let compared: Compared = scene.cluster.cli_json(&["volume", "compare", volume])?;
    ensure!(compared.replicas == 3, "{} replicas were compared", compared.replicas);
    ensure!(compared.views_compared == 1 + snapshots, "{} views were compared", compared.views_compared);
    ensure!(compared.differing == 0, "the replicas differ in {} blocks", compared.differing);
    Ok(())
}

/// What refuses a command, and says why.
fn refused(scene: &Scene, args: &[&str], why: &str) -> Result<()> {
    let output = scene.cluster.try_cli(args)?;
    ensure!(!output.success, "ashlar {} was not refused", args.join(" "));
    ensure!(output.stderr.contains(why), "ashlar {} says {:?}, not {why:?}", args.join(" "), output.stderr);
    Ok(())
}

#[test]
fn a_snapshot_is_taken_with_and_without_a_writer_once_by_each_name() -> Result<()> {
    on_cluster("snapshots", |scene| {
        let mut client = create_and_attach(scene, "v", "n1")?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 1);
        guest.write(&mut client, 400, &AtomicU64::new(0))?;
        let first = take(scene, "v", "first")?;
        ensure!(take(scene, "v", "first")?.id == first.id, "asked for again it is the same one");
        guest.write(&mut client, 400, &AtomicU64::new(0))?;
        guest.verify(&mut client)?;
        close_and_compare(scene, "v", client, 1)?;

        take(scene, "v", "second")?;
        scene.cluster.cli(&["volume", "create", "w", "--size", SIZE, "--node", "n1"])?;
        refused(scene, &["snapshot", "create", "w", "first"], "exists, of volume")?;
        ensure!(names(scene, "v")? == ["first", "second"], "{:?}", names(scene, "v")?);
        ensure!(names(scene, "w")?.is_empty(), "of another volume");
        let shown: Snapshot = scene.cluster.cli_json(&["snapshot", "show", "first"])?;
        ensure!(shown.id == first.id && shown.volume_name.as_deref() == Some("v"), "it says what it is of");

        let mut client = attach(scene, "v", "n2")?;
        guest.write(&mut client, 400, &AtomicU64::new(0))?;
        scene.cluster.cli(&["snapshot", "delete", "first"])?;
        refused(scene, &["snapshot", "show", "first"], "does not exist")?;
        refused(scene, &["snapshot", "delete", "first"], "does not exist")?;
        guest.write(&mut client, 400, &AtomicU64::new(0))?;
        guest.verify(&mut client)?;
        close_and_compare(scene, "v", client, 1)
    })
}

/// Writes until told to stop by `enough`, which counts them.
fn load<'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut guest: StampedGuest,
    mut client: NbdClient,
    done: &'scope AtomicU64,
    writes: u64,
) -> std::thread::ScopedJoinHandle<'scope, Result<(StampedGuest, NbdClient)>> {
    scope.spawn(move || guest.write(&mut client, writes, done).map(|()| (guest, client)))
}

fn wait_writes(done: &AtomicU64, more: u64) -> Result<()> {
    let from = done.load(Ordering::SeqCst);
    wait_until("some writes", LIMIT, || Ok((done.load(Ordering::SeqCst) >= from + more).then_some(())))
}

/// A replica dies after the first snapshot, misses the second and the deletion of the first, and returns.
#[test]
fn a_replica_that_was_away_comes_back_with_every_snapshot() -> Result<()> {
    on_cluster("snap-return", |scene| {
        let client = create_and_attach(scene, "v", "n1")?;
        let done = AtomicU64::new(0);
        let (mut guest, mut client) = std::thread::scope(|scope| -> Result<(StampedGuest, NbdClient)> {
            let load = load(scope, StampedGuest::new(GUEST_BLOCKS, 2), client, &done, 6000);
            wait_writes(&done, 500)?;
            take(scene, "v", "first")?;
            take(scene, "v", "second")?;
            wait_writes(&done, 500)?;
            scene.cluster.kill("chunkserver-n2", Signal::SIGKILL)?;
            wait_writes(&done, 500)?;
            take(scene, "v", "third")?;
            scene.cluster.cli(&["snapshot", "delete", "first"])?;
            wait_writes(&done, 500)?;
            load.join().expect("the guest does not panic").context("no write fails")
        })?;
        scene.cluster.wait_member("v", "n2", MemberState::Out, LIMIT)?;
        scene.cluster.start("chunkserver-n2")?;
        guest.write(&mut client, 500, &done)?;
        scene.cluster.wait_in_sync("v", LIMIT)?;
        guest.verify(&mut client)?;
        close_and_compare(scene, "v", client, 2)
    })
}

/// The writer dies, so its successor makes the replicas equal: in every snapshot too.
#[test]
fn snapshots_survive_the_death_of_everything() -> Result<()> {
    on_cluster("snap-crash", |scene| {
        let client = create_and_attach(scene, "v", "n1")?;
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let load = load(scope, StampedGuest::new(GUEST_BLOCKS, 3), client, &done, u64::MAX);
            for name in ["first", "second", "third"] {
                wait_writes(&done, 300)?;
                take(scene, "v", name)?;
            }
            wait_writes(&done, 300)?;
            scene.cluster.kill("all", Signal::SIGKILL)?;
            ensure!(load.join().expect("the guest does not panic").is_err(), "a load without end ends by the crash");
            anyhow::Ok(())
        })?;
        scene.cluster.up_again()?;
        ensure!(names(scene, "v")? == ["first", "second", "third"], "{:?}", names(scene, "v")?);
        let client = attach(scene, "v", "n1").context("attach after the crash")?;
        close_and_compare(scene, "v", client, 3)
    })
}

/// Two volumes on two nodes that are written to, and one that is not attached.
#[test]
fn a_group_is_taken_and_deleted_as_one() -> Result<()> {
    on_cluster("snap-group", |scene| {
        let clients = [create_and_attach(scene, "v1", "n1")?, create_and_attach(scene, "v2", "n2")?];
        scene.cluster.cli(&["volume", "create", "v3", "--size", "64M", "--node", "n3"])?;
        let done = [AtomicU64::new(0), AtomicU64::new(0)];
        let (group, clients) = std::thread::scope(|scope| {
            let loads = clients.into_iter().zip(&done).zip(4..);
            let loads: Vec<_> = loads
                .map(|((client, done), seed)| load(scope, StampedGuest::new(GUEST_BLOCKS, seed), client, done, 3000))
                .collect();
            done.iter().try_for_each(|done| wait_writes(done, 200))?;
            let group: Group = scene.cluster.cli_json(&["snapshot", "group", "create", "g", "v1", "v2", "v3"])?;
            done.iter().try_for_each(|done| wait_writes(done, 200)).context("writes go on")?;
            let ended = loads.into_iter().map(|load| load.join().expect("the guest does not panic").map(|end| end.1));
            Ok::<_, anyhow::Error>((group, ended.collect::<Result<Vec<NbdClient>>>()?))
        })?;
        ensure!(group.ready && group.snapshots.len() == 3, "a snapshot of each volume");
        ensure!(group.held_us > 0, "the time for which writes were held is told");
        ensure!(group.snapshots.iter().all(|member| member.ready && member.group.as_ref() == Some(&group.id)));
        let again: Group = scene.cluster.cli_json(&["snapshot", "group", "create", "g", "v3", "v2", "v1"])?;
        ensure!(again.id == group.id, "asked for again it is the same one");
        refused(scene, &["snapshot", "group", "create", "g", "v1", "v2"], "of other volumes")?;
        refused(scene, &["snapshot", "delete", &group.snapshots[0].id], "delete the group")?;
        for (client, volume) in clients.into_iter().zip(["v1", "v2"]) {
            close_and_compare(scene, volume, client, 1)?;
        }
        scene.cluster.cli(&["snapshot", "group", "delete", "g"])?;
        let left: Vec<Snapshot> = scene.cluster.cli_json(&["snapshot", "list"])?;
        ensure!(left.is_empty(), "{} snapshots are left", left.len());
        Ok(())
    })
}
