//! CSI with real mounts: ext4, xfs and raw block through a whole life, every call twice; and what must be refused.

use anyhow::{Context, Result, bail, ensure};
use ashlar_rpc::csi::{NodeGetVolumeStatsRequest, volume_usage::Unit};
use ashlar_tests::{Kubelet, MountedVolume, NbdClient, Scene, nbd_socket, on_cluster, run, run_ok};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, FileTypeExt, symlink},
    path::Path,
};
use tonic::{Code, Status};

/// mkfs.xfs makes nothing below 300 MiB.
const SIZE_BYTES: i64 = 320 << 20;

/// The code with which a call was refused.
fn refusal<T>(result: Result<T>) -> Result<Code> {
    match result {
        Ok(_) => bail!("the call was not refused"),
        Err(error) => match error.downcast_ref::<Status>() {
            Some(status) => Ok(status.code()),
            None => Err(error),
        },
    }
}

fn unmount_twice(kubelet: &Kubelet, volume: &MountedVolume) -> Result<()> {
    kubelet.unmount(volume)?;
    kubelet.unmount(volume).context("unmounting again")?;
    ensure!(fs::symlink_metadata(&volume.target).is_err(), "the target path is gone");
    Ok(())
}

fn filesystem_life(scene: &Scene, fs_type: &str) -> Result<()> {
    let kubelet = scene.cluster.kubelet("n1")?;
    let volume = kubelet.create("pvc-1", SIZE_BYTES, Kubelet::mount_capability(fs_type))?;
    let again = kubelet.create("pvc-1", SIZE_BYTES, Kubelet::mount_capability(fs_type))?;
    ensure!(again.id == volume.id, "creating again gives the same volume");
    kubelet.mount(&volume)?;
    kubelet.mount(&volume).context("mounting again")?;
    let mounted = run_ok("findmnt", ["-n", "-o", "FSTYPE", "--mountpoint", path(&volume.target)?])?;
    ensure!(mounted.trim() == fs_type, "mounted is {mounted:?}");
    check_stats(&kubelet, &volume)?;
    let content: Vec<u8> = (0..5_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let file = volume.target.join("data");
    fs::write(&file, &content)?;
    File::open(&file)?.sync_all()?;
    unmount_twice(&kubelet, &volume)?;

    // The pod moves.
    let kubelet = scene.cluster.kubelet("n2")?;
    let moved = volume.on(&kubelet);
    kubelet.mount(&moved)?;
    ensure!(fs::read(moved.target.join("data"))? == content, "the other node reads what the first wrote");
    unmount_twice(&kubelet, &moved)?;
    kubelet.delete(&moved)?;
    kubelet.delete(&moved).context("deleting again")
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn check_stats(kubelet: &Kubelet, volume: &MountedVolume) -> Result<()> {
    let request = NodeGetVolumeStatsRequest {
        volume_id: volume.id.clone(),
        volume_path: path(&volume.target)?.to_owned(),
        ..NodeGetVolumeStatsRequest::default()
    };
    let stats = kubelet
        .block_on(async { kubelet.node().await?.node_get_volume_stats(request).await.context("NodeGetVolumeStats") })?;
    let usage = stats.into_inner().usage;
    let bytes = usage.iter().find(|usage| usage.unit() == Unit::Bytes).context("bytes are reported")?;
    ensure!(bytes.total > 0 && bytes.total <= SIZE_BYTES && bytes.available <= bytes.total, "{bytes:?}");
    ensure!(usage.iter().any(|usage| usage.unit() == Unit::Inodes && usage.total > 0), "inodes are reported");
    Ok(())
}

#[test]
fn ext4_through_a_whole_life() -> Result<()> {
    on_cluster("ext4", |scene| filesystem_life(scene, "ext4"))
}

#[test]
fn xfs_through_a_whole_life() -> Result<()> {
    on_cluster("xfs", |scene| filesystem_life(scene, "xfs"))
}

#[test]
fn raw_block_through_a_whole_life() -> Result<()> {
    on_cluster("block", |scene| {
        let kubelet = scene.cluster.kubelet("n1")?;
        let volume = kubelet.create("pvc-raw", SIZE_BYTES, Kubelet::block_capability())?;
        let content: Vec<u8> = (0..1_048_576u32).map(|at| (at.wrapping_mul(40_503) >> 8) as u8).collect();
        kubelet.mount(&volume)?;
        kubelet.mount(&volume).context("publishing again")?;
        ensure!(fs::metadata(&volume.target)?.file_type().is_block_device(), "the target is a block device");
        let device = OpenOptions::new().read(true).write(true).open(&volume.target)?;
        let size = run_ok("blockdev", ["--getsize64", path(&volume.target)?])?;
        ensure!(size.trim() == SIZE_BYTES.to_string(), "the device has {size} bytes");
        device.write_all_at(&content, 4096 * 1000)?;
        device.sync_all()?;
        drop(device);
        unmount_twice(&kubelet, &volume)?;
        kubelet.mount(&volume)?;
        let mut read = vec![0; content.len()];
        File::open(&volume.target)?.read_exact_at(&mut read, 4096 * 1000)?;
        ensure!(read == content, "the device keeps what was written");
        unmount_twice(&kubelet, &volume)?;
        kubelet.delete(&volume)
    })
}

#[test]
fn a_used_volume_with_a_damaged_superblock_is_refused_and_never_formatted() -> Result<()> {
    for fs_type in ["ext4", "xfs"] {
        on_cluster("damaged", |scene| damage(scene, fs_type)).with_context(|| fs_type.to_owned())?;
    }
    Ok(())
}

fn damage(scene: &Scene, fs_type: &str) -> Result<()> {
    let kubelet = scene.cluster.kubelet("n1")?;
    let volume = kubelet.create("pvc-1", SIZE_BYTES, Kubelet::mount_capability(fs_type))?;
    kubelet.mount(&volume)?;
    fs::write(volume.target.join("precious"), "data")?;
    kubelet.unmount(&volume)?;
    let before = overwrite_superblock(scene, &volume.id)?;
    for attempt in 0..2 {
        let publish_context = kubelet.publish(&volume)?;
        let code = refusal(kubelet.stage(&volume, &publish_context))?;
        ensure!(
            matches!(code, Code::FailedPrecondition | Code::Internal),
            "attempt {attempt} was refused with {code:?}"
        );
        kubelet.unmount(&volume)?;
    }
    let after = whole_content(scene, &volume.id)?;
    ensure!(before == after, "a refused volume is not changed");
    let shown: serde_json::Value = scene.cluster.cli_json(&["volume", "show", &volume.id])?;
    ensure!(shown["use"] == "used", "{shown}");
    kubelet.delete(&volume)
}

/// What was written lies where no probe looks.
#[test]
fn a_volume_that_was_written_by_hand_is_never_formatted() -> Result<()> {
    on_cluster("by-hand", |scene| {
        let kubelet = scene.cluster.kubelet("n1")?;
        let volume = kubelet.create("pvc-1", SIZE_BYTES, Kubelet::mount_capability("ext4"))?;
        let mut client = NbdClient::connect(&nbd_socket(&scene.cluster.attach(&volume.id, "n1", "nbd")?)?)?;
        client.write(SIZE_BYTES as u64 / 2, &vec![7; 65536])?;
        client.close()?;
        scene.cluster.detach(&volume.id)?;
        let before = whole_content(scene, &volume.id)?;
        let publish_context = kubelet.publish(&volume)?;
        let code = refusal(kubelet.stage(&volume, &publish_context))?;
        ensure!(code == Code::FailedPrecondition, "{code:?}");
        kubelet.unmount(&volume)?;
        ensure!(whole_content(scene, &volume.id)? == before, "a refused volume is not changed");
        kubelet.delete(&volume)
    })
}

/// Zeros over the first 64 KiB; gives the whole content after that.
fn overwrite_superblock(scene: &Scene, volume: &str) -> Result<Vec<u8>> {
    let mut client = NbdClient::connect(&nbd_socket(&scene.cluster.attach(volume, "n1", "nbd")?)?)?;
    client.write(0, &vec![0; 65536])?;
    client.close()?;
    scene.cluster.detach(volume)?;
    whole_content(scene, volume)
}

fn whole_content(scene: &Scene, volume: &str) -> Result<Vec<u8>> {
    let mut client = NbdClient::connect(&nbd_socket(&scene.cluster.attach(volume, "n1", "nbd")?)?)?;
    let mut content = vec![];
    for offset in (0..SIZE_BYTES as u64).step_by(1 << 20) {
        content.extend(client.read(offset, 1 << 20)?);
    }
    client.close()?;
    scene.cluster.detach(volume)?;
    Ok(content)
}

#[test]
fn targets_that_lead_elsewhere_or_are_taken_are_refused() -> Result<()> {
    on_cluster("targets", |scene| {
        let kubelet = scene.cluster.kubelet("n1")?;
        let volume = kubelet.create("pvc-1", SIZE_BYTES, Kubelet::mount_capability("ext4"))?;
        let publish_context = kubelet.publish(&volume)?;
        kubelet.stage(&volume, &publish_context)?;
        let publish = |target: &Path| {
            kubelet
                .publish_on_node(&MountedVolume { target: target.to_owned(), ..volume.on(&kubelet) }, &publish_context)
        };
        let pod = volume.target.parent().context("a target has a parent")?.to_owned();
        fs::create_dir_all(&pod)?;

        // A symlink as the target, and one on the way to it.
        let elsewhere = scene.files().join("elsewhere");
        fs::create_dir(&elsewhere)?;
        symlink(&elsewhere, pod.join("link"))?;
        ensure_refused(publish(&pod.join("link")), "a symlink")?;
        ensure_refused(publish(&pod.join("link").join("mount")), "a symlink on the way")?;
        ensure!(fs::read_dir(&elsewhere)?.next().is_none(), "nothing was made behind the symlink");
        fs::remove_file(pod.join("link"))?;

        // A target outside of the kubelet's folder, and one that climbs.
        ensure_refused(publish(&elsewhere.join("mount")), "a path outside of the kubelet's folder")?;
        ensure_refused(publish(&pod.join("../../../../../../../../mount")), "a path that climbs")?;

        // A target on which something else is mounted already.
        fs::create_dir(&volume.target)?;
        run_ok("mount", ["-t", "tmpfs", "none", path(&volume.target)?])?;
        let refused = ensure_refused(publish(&volume.target), "a target that is taken");
        run_ok("umount", [path(&volume.target)?])?;
        refused?;
        kubelet.publish_on_node(&volume, &publish_context).context("a free target")?;
        kubelet.unmount(&volume)
    })
}

fn ensure_refused(result: Result<()>, what: &str) -> Result<()> {
    let code = refusal(result).with_context(|| what.to_owned())?;
    ensure!(matches!(code, Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists), "{what}: {code:?}");
    Ok(())
}

#[test]
fn a_volume_is_published_on_one_node_only() -> Result<()> {
    on_cluster("two-nodes", |scene| {
        let (first, second) = (scene.cluster.kubelet("n1")?, scene.cluster.kubelet("n2")?);
        let volume = first.create("pvc-1", SIZE_BYTES, Kubelet::mount_capability("ext4"))?;
        first.mount(&volume)?;
        let elsewhere = volume.on(&second);
        ensure!(refusal(second.publish(&elsewhere))? == Code::FailedPrecondition, "the second node's publish");
        let attach = scene.cluster.try_cli(&["volume", "attach", "pvc-1", "--node", "n2", "--frontend", "nbd"])?;
        ensure!(!attach.success, "the second node's attach: {}", attach.stdout);
        ensure!(refusal(first.delete(&volume))? == Code::FailedPrecondition, "a volume in use is not deleted");
        let running = run("findmnt", ["-n", "--mountpoint", path(&volume.target)?])?;
        ensure!(running.success, "the first node's mount is untouched");
        first.unmount(&volume)?;
        second.mount(&elsewhere)?;
        second.unmount(&elsewhere)
    })
}
