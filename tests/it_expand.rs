//! Volumes that grow: under a filesystem that is written to, as raw devices, over NBD, with a replica away, and
//! between two attachments.

use anyhow::{Context, Result, bail, ensure};
use ashlar_rpc::control::MemberState;
use ashlar_tests::{Kubelet, MountedVolume, NbdClient, Scene, nbd_socket, on_cluster, run_ok, wait_until};
use nix::sys::{signal::Signal, statvfs::statvfs};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

/// mkfs.xfs makes nothing below 300 MiB.
const SIZE_BYTES: i64 = 320 << 20;
const LARGER_BYTES: i64 = 512 << 20;
/// Not at a border of chunks.
const LARGEST_BYTES: i64 = (640 << 20) + 12_288;
const LIMIT: Duration = Duration::from_secs(60);

fn content(of: u32, bytes: u32) -> Vec<u8> {
    (0..bytes).map(|at| ((at ^ of).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// CAP_SYS_RESOURCE (24): without it the kernel grows no mounted ext4, whoever asks.
fn may_resize_ext4() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("capabilities")?;
    Ok(u64::from_str_radix(effective.trim(), 16)? >> 24 & 1 == 1)
}

fn total_bytes(path: &Path) -> Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.blocks() * stat.fragment_size())
}

/// Small files, each synced, until told to stop; gives how many. Each is checked afterwards.
fn write_files(folder: &Path, stop: &AtomicBool, written: &AtomicU32) -> Result<u32> {
    while !stop.load(Ordering::Relaxed) {
        let number = written.load(Ordering::Relaxed);
        let path = folder.join(format!("f{number}"));
        fs::write(&path, content(number, 8192))?;
        File::open(&path)?.sync_all()?;
        written.store(number + 1, Ordering::Relaxed);
    }
    Ok(written.load(Ordering::Relaxed))
}

fn filesystem_grows(scene: &Scene, fs_type: &str) -> Result<()> {
    let kubelet = scene.cluster.kubelet("n1")?;
    let volume = kubelet.create("pvc-1", SIZE_BYTES, Kubelet::mount_capability(fs_type))?;
    kubelet.mount(&volume)?;
    let before = total_bytes(&volume.target)?;
    let (stop, written) = (AtomicBool::new(false), AtomicU32::new(0));
    let target = volume.target.clone();
    let files = std::thread::scope(|scope| -> Result<u32> {
        let writer = scope.spawn(|| write_files(&target, &stop, &written));
        let grown = grow_under_load(&kubelet, &volume, &written);
        stop.store(true, Ordering::Relaxed);
        let files = writer.join().expect("the writer does not panic").context("write while the volume grows")?;
        grown.map(|()| files)
    })?;
    let after = total_bytes(&volume.target)?;
    ensure!(after > before + (LARGER_BYTES - SIZE_BYTES) as u64 * 9 / 10, "the filesystem had {before}, has {after}");
    // More than there was room for before.
    let large = content(7, 350 << 20);
    fs::write(volume.target.join("large"), &large)?;
    File::open(volume.target.join("large"))?.sync_all()?;
    kubelet.unmount(&volume)?;

    // Another node, and once more while nobody has it: the next mount is as large.
    let kubelet = scene.cluster.kubelet("n2")?;
    let moved = volume.on(&kubelet);
    scene.cluster.cli(&["volume", "expand", &volume.id, "--size", &LARGEST_BYTES.to_string()])?;
    kubelet.mount(&moved)?;
    ensure!(kubelet.expand(&moved, LARGEST_BYTES)? == LARGEST_BYTES, "the size is what was asked for");
    ensure!(total_bytes(&moved.target)? > after, "the filesystem has grown again");
    ensure!(fs::read(moved.target.join("large"))? == large, "what was written beyond the old end is there");
    for number in 0..files {
        ensure!(fs::read(moved.target.join(format!("f{number}")))? == content(number, 8192), "file {number}");
    }
    kubelet.unmount(&moved)?;
    scene.cluster.cli(&["volume", "compare", &volume.id])?;
    kubelet.delete(&moved)
}

fn grow_under_load(kubelet: &Kubelet, volume: &MountedVolume, written: &AtomicU32) -> Result<()> {
    let goes_on = |from: u32| {
        wait_until("writes to go on", LIMIT, || Ok((written.load(Ordering::Relaxed) >= from + 20).then_some(())))
    };
    goes_on(0)?;
    for attempt in ["first", "again"] {
        let size = kubelet.expand(volume, LARGER_BYTES).with_context(|| attempt.to_owned())?;
        ensure!(size == LARGER_BYTES, "{attempt}: the volume has {size}");
    }
    goes_on(written.load(Ordering::Relaxed))
}

#[test]
fn ext4_grows_while_it_is_written_to() -> Result<()> {
    if may_resize_ext4()? {
        return on_cluster("expand-ext4", |scene| filesystem_grows(scene, "ext4"));
    }
    eprintln!("without CAP_SYS_RESOURCE only the refusal is tested");
    on_cluster("expand-ext4", |scene| {
        let kubelet = scene.cluster.kubelet("n1")?;
        let volume = kubelet.create("pvc-1", SIZE_BYTES, Kubelet::mount_capability("ext4"))?;
        kubelet.mount(&volume)?;
        for _ in 0..2 {
            let refused = kubelet.expand(&volume, LARGER_BYTES).err().context("the kernel refuses")?;
            let status = refused.downcast_ref::<tonic::Status>().context("a refusal by the driver")?;
            ensure!(status.message().contains("CAP_SYS_RESOURCE"), "{status}");
        }
        ensure!(scene.cluster.volume(&volume.id)?.size_bytes == LARGER_BYTES as u64, "the volume has grown");
        fs::write(volume.target.join("data"), content(1, 8192)).context("the filesystem goes on as it was")?;
        kubelet.unmount(&volume)?;
        kubelet.delete(&volume)
    })
}

#[test]
fn xfs_grows_while_it_is_written_to() -> Result<()> {
    on_cluster("expand-xfs", |scene| filesystem_grows(scene, "xfs"))
}

#[test]
fn a_raw_device_grows_with_a_replica_away_which_comes_back_to_the_new_size() -> Result<()> {
    on_cluster("expand-raw", |scene| {
        let cluster = &scene.cluster;
        let kubelet = cluster.kubelet("n1")?;
        let volume = kubelet.create("pvc-raw", SIZE_BYTES, Kubelet::block_capability())?;
        kubelet.mount(&volume)?;
        let device = OpenOptions::new().read(true).write(true).open(&volume.target)?;
        let (old, new) = (content(1, 1 << 20), content(2, 1 << 20));
        let old_end = SIZE_BYTES as u64 - old.len() as u64;
        device.write_all_at(&old, old_end)?;
        device.sync_all()?;
        cluster.kill("chunkserver-n3", Signal::SIGKILL)?;
        cluster.wait_member(&volume.id, "n3", MemberState::Out, LIMIT)?;
        kubelet.expand(&volume, LARGER_BYTES)?;
        let shown = run_ok("blockdev", ["--getsize64", volume.target.to_str().context("a path in UTF-8")?])?;
        ensure!(shown.trim() == LARGER_BYTES.to_string(), "the device has {shown} bytes");
        let (beyond, last) = (SIZE_BYTES as u64 + 4096, LARGER_BYTES as u64 - new.len() as u64);
        for at in [beyond, last] {
            device.write_all_at(&new, at)?;
        }
        device.sync_all()?;
        cluster.start("chunkserver-n3")?;
        cluster.wait_in_sync(&volume.id, LIMIT)?;
        let mut read = vec![0; new.len()];
        for (at, expected) in [(old_end, &old), (beyond, &new), (last, &new)] {
            device.read_exact_at(&mut read, at)?;
            ensure!(read == *expected, "the content at {at}");
        }
        drop(device);
        kubelet.unmount(&volume)?;
        cluster.cli(&["volume", "compare", &volume.id])?;
        kubelet.delete(&volume)
    })
}

#[test]
fn nbd_clients_see_the_new_size_when_they_connect_again() -> Result<()> {
    on_cluster("expand-nbd", |scene| {
        let cluster = &scene.cluster;
        cluster.cli(&["volume", "create", "v", "--size", "64M"])?;
        let socket = nbd_socket(&cluster.attach("v", "n1", "nbd")?)?;
        let mut first = NbdClient::connect(&socket)?;
        first.write(0, &content(3, 8192))?;
        ensure!(cluster.cli(&["volume", "expand", "v", "--size", "160M"])?.trim() == "160 MiB", "the size is printed");
        ensure!(!cluster.try_cli(&["volume", "expand", "v", "--size", "64M"])?.success, "a volume never shrinks");
        let too_large = cluster.try_cli(&["volume", "expand", "v", "--size", "8G"])?;
        ensure!(!too_large.success && too_large.stderr.contains("node n"), "no room: {}", too_large.stderr);
        let mut second = NbdClient::connect(&socket)?;
        let end = (160 << 20) - 8192;
        second.write(end, &content(4, 8192))?;
        if second.read(end, 8192)? != content(4, 8192) || first.read(0, 8192)? != content(3, 8192) {
            bail!("the content is not what was written");
        }
        first.close()?;
        second.close()?;
        cluster.detach("v")?;
        cluster.cli(&["volume", "compare", "v"]).map(drop)
    })
}
