//! Clones on real daemons: they show what their sources held, are written beside them, and outlive them.

use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::{GetStatusRequest, MemberState};
use ashlar_rpc::csi::{CreateSnapshotRequest, Snapshot};
use ashlar_tests::{
    Kubelet, MountedVolume, NbdClient, Scene, StampedGuest, nbd_socket, on_cluster, on_cluster_with, run_ok, wait_until,
};
use nix::sys::{signal::Signal, statvfs::statvfs};
use serde::Deserialize;
use std::{
    fs::{self, File},
    path::Path,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};
use tonic::{Code, Status};

const SIZE: &str = "192M";
const GUEST_BLOCKS: usize = (32 << 20) / 4096;
const LIMIT: Duration = Duration::from_secs(120);
/// mkfs.xfs makes nothing below 300 MiB.
const FILESYSTEM_BYTES: i64 = 320 << 20;
/// Room for an origin and its clones, promised in full.
const DISK_SIZE: &str = "2G";
const LARGER_BYTES: i64 = 512 << 20;

#[derive(Deserialize)]
struct Shown {
    id: String,
    source: Option<Source>,
    origin: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Source {
    kind: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Compared {
    replicas: u64,
    differing: u64,
}

fn attach(scene: &Scene, volume: &str, node: &str) -> Result<NbdClient> {
    NbdClient::connect(&nbd_socket(&scene.cluster.attach(volume, node, "nbd")?)?)
}

fn show(scene: &Scene, volume: &str) -> Result<Shown> {
    scene.cluster.cli_json(&["volume", "show", volume])
}

/// A volume and its guest, which was quiet for as long as nothing else is said.
struct Guest {
    name: &'static str,
    node: &'static str,
    stamps: StampedGuest,
    client: NbdClient,
}

impl Guest {
    fn write(&mut self, writes: u64) -> Result<()> {
        self.stamps.write(&mut self.client, writes, &AtomicU64::new(0)).with_context(|| format!("write {}", self.name))
    }

    fn verify(&mut self) -> Result<()> {
        self.stamps.verify(&mut self.client).with_context(|| format!("verify {}", self.name))
    }

    /// Another volume with what this one's guest knows.
    fn cloned(&self, scene: &Scene, name: &'static str, node: &'static str, source: [&str; 2]) -> Result<Guest> {
        scene.cluster.cli(&["volume", "create", name, source[0], source[1]])?;
        let client = attach(scene, name, node)?;
        let mut guest = Guest { name, node, stamps: self.stamps.clone(), client };
        guest.verify()?;
        Ok(guest)
    }

    fn close(self, scene: &Scene) -> Result<()> {
        self.client.close()?;
        scene.cluster.wait_in_sync(self.name, LIMIT)?;
        scene.cluster.detach(self.name)?;
        let compared: Compared = scene.cluster.cli_json(&["volume", "compare", self.name])?;
        ensure!((compared.replicas, compared.differing) == (3, 0), "replicas of {} differ", self.name);
        Ok(())
    }
}

fn free_bytes(scene: &Scene) -> Result<u64> {
    let mut client = scene.cluster.client()?;
    let status = scene.cluster.block_on(client.get_status(GetStatusRequest {})).context("status")?;
    Ok(status.into_inner().free_bytes)
}

fn restart_chunkservers(scene: &Scene, guests: &mut [Guest]) -> Result<()> {
    for node in ["n1", "n2", "n3"] {
        let name = format!("chunkserver-{node}");
        scene.cluster.kill(&name, Signal::SIGKILL)?;
        scene.cluster.start(&name)?;
        for guest in &mut *guests {
            guest.write(50)?;
            scene.cluster.wait_in_sync(guest.name, LIMIT)?;
        }
    }
    Ok(())
}

/// Of a snapshot, of a volume that is attached, of a clone; each is written, as is the source.
#[test]
fn clones_are_volumes_of_their_own_and_outlive_their_sources() -> Result<()> {
    on_cluster("clones", |scene| {
        let free = free_bytes(scene)?;
        scene.cluster.cli(&["volume", "create", "v", "--size", SIZE, "--node", "n1"])?;
        let client = attach(scene, "v", "n1")?;
        let mut v = Guest { name: "v", node: "n1", stamps: StampedGuest::new(GUEST_BLOCKS, 1), client };
        v.write(600)?;
        scene.cluster.cli(&["snapshot", "create", "v", "s"])?;
        let at_s = v.stamps.clone();
        v.write(600)?;
        let now = std::mem::replace(&mut v.stamps, at_s);
        let restored = v.cloned(scene, "restored", "n2", ["--from-snapshot", "s"])?;
        v.stamps = now;
        let shown = show(scene, "restored")?;
        let source = shown.source.context("it says what it is of")?;
        ensure!((source.kind.as_str(), source.name.as_deref()) == ("snapshot", Some("s")), "{}", shown.id);
        let mut of_volume = v.cloned(scene, "of-volume", "n1", ["--from-volume", "v"])?;
        of_volume.write(200)?;
        let of_clone = of_volume.cloned(scene, "of-clone", "n3", ["--from-volume", "of-volume"])?;
        let mut guests = [v, restored, of_volume, of_clone];
        for guest in &mut guests {
            guest.write(300)?;
        }
        guests.iter_mut().try_for_each(Guest::verify).context("written beside each other")?;

        let [mut v, restored, of_volume, of_clone] = guests;
        v.verify()?;
        scene.cluster.cli(&["snapshot", "delete", "s"])?;
        v.close(scene)?;
        scene.cluster.cli(&["volume", "delete", "v"])?;
        let mut left = [restored, of_volume, of_clone];
        left.iter_mut().try_for_each(Guest::verify).context("without snapshot and source")?;
        restart_chunkservers(scene, &mut left)?;
        left.iter_mut().try_for_each(Guest::verify).context("after restarts of every chunkserver")?;
        for guest in left {
            let (name, node) = (guest.name, guest.node);
            let mut stamps = guest.stamps.clone();
            guest.close(scene)?;
            let mut client = attach(scene, name, node)?;
            stamps.verify(&mut client).with_context(|| format!("{name}, attached again"))?;
            client.close()?;
            scene.cluster.detach(name)?;
            scene.cluster.cli(&["volume", "delete", name])?;
        }
        wait_until("all space to return", LIMIT, || Ok((free_bytes(scene)? >= free).then_some(())))
    })
}

#[test]
fn a_clone_is_made_without_a_chunkserver_that_is_dead_and_gives_it_everything_later() -> Result<()> {
    on_cluster("clone-dead", |scene| {
        scene.cluster.cli(&["volume", "create", "v", "--size", SIZE, "--node", "n1"])?;
        let client = attach(scene, "v", "n1")?;
        let mut v = Guest { name: "v", node: "n1", stamps: StampedGuest::new(GUEST_BLOCKS, 5), client };
        v.write(800)?;
        scene.cluster.cli(&["snapshot", "create", "v", "s"])?;
        scene.cluster.kill("chunkserver-n3", Signal::SIGKILL)?;
        let mut clone = v.cloned(scene, "clone", "n2", ["--from-snapshot", "s"])?;
        scene.cluster.wait_member("clone", "n3", MemberState::Out, LIMIT)?;
        clone.write(300)?;
        scene.cluster.start("chunkserver-n3")?;
        for guest in [&mut v, &mut clone] {
            guest.write(100)?;
            scene.cluster.wait_in_sync(guest.name, LIMIT)?;
            guest.verify()?;
        }
        wait_until("the clone to have everything itself", LIMIT, || {
            Ok(show(scene, "clone")?.origin.is_none().then_some(()))
        })?;
        clone.verify()?;
        clone.close(scene)?;
        v.close(scene)
    })
}

fn csi_snapshot(kubelet: &Kubelet, volume_id: &str) -> Result<Snapshot> {
    let (name, source_volume_id) = ("s".to_owned(), volume_id.to_owned());
    let request = CreateSnapshotRequest { name, source_volume_id, ..CreateSnapshotRequest::default() };
    let answer = kubelet.block_on(async { Ok(kubelet.controller().await?.create_snapshot(request).await?) });
    answer.and_then(|answer| answer.into_inner().snapshot.context("a snapshot"))
}

/// Writes before it cannot be acknowledged, so there is no point yet: the call says so and does not hang.
#[test]
fn a_snapshot_below_min_replicas_ends_in_time_and_is_taken_when_asked_again() -> Result<()> {
    on_cluster("snap-below", |scene| {
        scene.cluster.cli(&["volume", "create", "v", "--size", SIZE, "--node", "n1"])?;
        let mut client = attach(scene, "v", "n1")?;
        client.write(0, &[1; 4096])?;
        let (kubelet, id) = (scene.cluster.kubelet("n1")?, scene.cluster.volume("v")?.id);
        let dead = ["chunkserver-n2", "chunkserver-n3"];
        dead.iter().try_for_each(|name| scene.cluster.kill(name, Signal::SIGKILL))?;
        client.submit_write(4096, &[2; 4096])?;
        let asked = Instant::now();
        let refused = csi_snapshot(&kubelet, &id).err().context("below minReplicas there is no snapshot")?;
        let status = refused.downcast_ref::<Status>().context("a refusal by the driver")?;
        ensure!(status.code() == Code::Unavailable && status.message().contains("ask again"), "{status}");
        ensure!(asked.elapsed() < Duration::from_secs(25), "it took {:?}", asked.elapsed());
        dead.iter().try_for_each(|name| scene.cluster.start(name))?;
        ensure!(client.wait_answer(LIMIT)? && client.next_reply()?.error == 0, "the write goes on");
        ensure!(csi_snapshot(&kubelet, &id)?.ready_to_use, "asked again it is taken");
        client.close()
    })
}

fn total_bytes(path: &Path) -> Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.blocks() * stat.fragment_size())
}

/// CAP_SYS_RESOURCE (24): without it the kernel grows no mounted ext4, whoever asks.
fn may_resize_ext4() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("capabilities")?;
    Ok(u64::from_str_radix(effective.trim(), 16)? >> 24 & 1 == 1)
}

fn write_synced(volume: &MountedVolume, name: &str, content: &[u8]) -> Result<()> {
    fs::write(volume.target.join(name), content)?;
    Ok(File::open(volume.target.join(name))?.sync_all()?)
}

fn restored_beside_its_origin(scene: &Scene, fs_type: &str) -> Result<()> {
    let kubelet = scene.cluster.kubelet("n1")?;
    let capability = || Kubelet::mount_capability(fs_type);
    let origin = kubelet.create("origin", FILESYSTEM_BYTES, capability())?;
    kubelet.mount(&origin)?;
    let precious: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    write_synced(&origin, "precious", &precious)?;
    let taken: serde_json::Value = scene.cluster.cli_json(&["snapshot", "create", &origin.id, "s"])?;
    let snapshot = taken["id"].as_str().context("an id")?;
    write_synced(&origin, "precious", b"spoiled")?;
    for (name, bytes) in [("same", FILESYSTEM_BYTES), ("larger", LARGER_BYTES)] {
        let restored = kubelet.restore(name, bytes, capability(), snapshot)?;
        kubelet.mount(&restored).with_context(|| format!("mount {name} beside its origin"))?;
        ensure!(fs::read(restored.target.join("precious"))? == precious, "{name} has what was there at the snapshot");
        write_synced(&restored, "own", name.as_bytes())?;
        ensure!(!origin.target.join("own").exists() && fs::read(origin.target.join("precious"))? == b"spoiled");
        let (has, before) = (total_bytes(&restored.target)?, total_bytes(&origin.target)?);
        let grows = bytes > FILESYSTEM_BYTES && (fs_type == "xfs" || may_resize_ext4()?);
        ensure!((has > before) == grows, "the filesystem of {name} has {has}, its origin's {before}");
        kubelet.unmount(&restored)?;
        kubelet.mount(&restored).with_context(|| format!("mount {name} again"))?;
        ensure!(fs::read(restored.target.join("own"))? == name.as_bytes());
        kubelet.unmount(&restored)?;
        kubelet.delete(&restored)?;
    }
    run_ok("findmnt", ["-n", "--mountpoint", origin.target.to_str().context("a path in UTF-8")?])?;
    kubelet.unmount(&origin)
}

#[test]
fn ext4_is_restored_and_mounted_beside_its_origin() -> Result<()> {
    on_cluster_with("clone-ext4", DISK_SIZE, |scene| restored_beside_its_origin(scene, "ext4"))
}

#[test]
fn xfs_is_restored_and_mounted_beside_its_origin() -> Result<()> {
    on_cluster_with("clone-xfs", DISK_SIZE, |scene| restored_beside_its_origin(scene, "xfs"))
}
