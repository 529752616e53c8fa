//! Who may use a mounted volume, and how: access modes, reading only, the group, and the condition that is told.

use anyhow::{Context, Result, bail, ensure};
use ashlar_rpc::csi::{
    ControllerGetVolumeRequest, ControllerPublishVolumeRequest, NodeGetVolumeStatsRequest, VolumeCapability,
    VolumeCondition,
    volume_capability::{AccessMode, AccessType, access_mode::Mode},
};
use ashlar_tests::{Kubelet, MountedVolume, on_cluster, wait_until};
use nix::sys::signal::Signal;
use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::Duration,
};
use tonic::{Code, Status};

const SIZE_BYTES: i64 = 128 << 20;
const GROUP: u32 = 4242;
const LIMIT: Duration = Duration::from_secs(60);

fn with_mode(capability: VolumeCapability, mode: Mode) -> VolumeCapability {
    VolumeCapability { access_mode: Some(AccessMode { mode: mode as i32 }), ..capability }
}

fn with_group(mut capability: VolumeCapability, group: u32) -> VolumeCapability {
    if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
        mount.volume_mount_group = group.to_string();
    }
    capability
}

/// The same volume at another pod's path.
fn second_pod(kubelet: &Kubelet, volume: &MountedVolume) -> MountedVolume {
    let target = volume.target.with_file_name("second");
    MountedVolume { target, ..volume.on(kubelet) }
}

fn code<T>(result: Result<T>) -> Result<Code> {
    match result {
        Ok(_) => bail!("the call was not refused"),
        Err(error) => Ok(error.downcast_ref::<Status>().context("a refusal by the driver")?.code()),
    }
}

fn one_writer(kubelet: &Kubelet, name: &str, capability: VolumeCapability) -> Result<()> {
    let none = HashMap::new();
    let alone = with_mode(capability.clone(), Mode::SingleNodeSingleWriter);
    let volume = kubelet.create(name, SIZE_BYTES, alone)?;
    kubelet.mount(&volume)?;
    let second = second_pod(kubelet, &volume);
    let refused = code(kubelet.publish_on_node(&second, &none))?;
    ensure!(refused == Code::FailedPrecondition, "the second path: {refused:?}");
    kubelet.publish_on_node(&volume, &none).context("the same path again")?;
    kubelet.unmount(&volume)?;
    kubelet.delete(&volume)?;

    let shared = with_mode(capability, Mode::SingleNodeMultiWriter);
    let volume = kubelet.create(&format!("{name}-shared"), SIZE_BYTES, shared)?;
    kubelet.mount(&volume)?;
    let second = second_pod(kubelet, &volume);
    kubelet.publish_on_node(&second, &none).context("the second path of a volume for many")?;
    ensure!(code(kubelet.unmount(&volume))? == Code::FailedPrecondition, "it is published elsewhere still");
    kubelet.unmount(&second)?;
    kubelet.unmount(&volume)?;
    kubelet.delete(&volume)
}

#[test]
fn a_volume_for_one_writer_is_published_at_one_path_only() -> Result<()> {
    on_cluster("one-writer", |scene| {
        let kubelet = scene.cluster.kubelet("n1")?;
        one_writer(&kubelet, "fs", Kubelet::mount_capability("ext4"))?;
        one_writer(&kubelet, "raw", Kubelet::block_capability())
    })
}

#[test]
fn what_the_controller_published_for_reading_cannot_be_written_to() -> Result<()> {
    on_cluster("reading", |scene| {
        let kubelet = scene.cluster.kubelet("n1")?;
        let volume = kubelet.create("pvc-1", SIZE_BYTES, Kubelet::mount_capability("ext4"))?;
        kubelet.mount(&volume)?;
        fs::write(volume.target.join("data"), "kept")?;
        kubelet.unmount(&volume)?;
        let request = ControllerPublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: "n1".to_owned(),
            volume_capability: Some(volume.capability.clone()),
            readonly: true,
            ..ControllerPublishVolumeRequest::default()
        };
        kubelet.block_on(async {
            let published = kubelet.controller().await?.controller_publish_volume(request).await;
            published.context("ControllerPublishVolume for reading").map(drop)
        })?;
        ensure!(code(kubelet.publish(&volume))? == Code::AlreadyExists, "publishing it for writing as well");
        let none = HashMap::new();
        kubelet.stage(&volume, &none)?;
        kubelet.publish_on_node(&volume, &none)?;
        ensure!(fs::read(volume.target.join("data"))? == b"kept", "it is read");
        ensure!(fs::write(volume.target.join("data"), "changed").is_err(), "it is not written to");
        ensure!(fs::write(volume.staging.join("data"), "changed").is_err(), "nor where it is staged");
        kubelet.unmount(&volume)?;
        kubelet.mount(&volume)?;
        fs::write(volume.target.join("data"), "changed").context("write once it is published for that")?;
        kubelet.unmount(&volume)
    })
}

#[test]
fn the_files_of_a_volume_belong_to_the_group_that_mounts_it() -> Result<()> {
    on_cluster("group", |scene| {
        let kubelet = scene.cluster.kubelet("n1")?;
        for fs_type in ["ext4", "xfs"] {
            // mkfs.xfs makes nothing below 300 MiB.
            let bytes = if fs_type == "xfs" { 320 << 20 } else { SIZE_BYTES };
            let plain = Kubelet::mount_capability(fs_type);
            let volume = kubelet.create(fs_type, bytes, plain.clone())?;
            kubelet.mount(&volume)?;
            fs::create_dir(volume.target.join("folder"))?;
            let file = volume.target.join("folder/file");
            fs::write(&file, "x")?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            kubelet.unmount(&volume)?;
            let owned = MountedVolume { capability: with_group(plain, GROUP), ..volume.on(&kubelet) };
            kubelet.mount(&owned)?;
            let (root, inner) = (fs::metadata(&owned.target)?, fs::metadata(&file)?);
            ensure!((root.gid(), root.mode() & 0o2070) == (GROUP, 0o2070), "the root: {:o}", root.mode());
            ensure!((inner.gid(), inner.mode() & 0o777) == (GROUP, 0o660), "a file: {:o}", inner.mode());
            fs::write(owned.target.join("new"), "x")?;
            ensure!(fs::metadata(owned.target.join("new"))?.gid() == GROUP, "what is made there is the group's");
            kubelet.unmount(&owned)?;
            kubelet.delete(&owned)?;
        }
        Ok(())
    })
}

#[test]
fn a_replica_that_is_away_makes_the_volume_s_condition_abnormal() -> Result<()> {
    on_cluster("condition", |scene| {
        let kubelet = scene.cluster.kubelet("n1")?;
        let volume = kubelet.create("pvc-1", SIZE_BYTES, Kubelet::mount_capability("ext4"))?;
        kubelet.mount(&volume)?;
        let told = || -> Result<[VolumeCondition; 2]> {
            let get = ControllerGetVolumeRequest { volume_id: volume.id.clone() };
            let stats = NodeGetVolumeStatsRequest {
                volume_id: volume.id.clone(),
                volume_path: volume.target.to_string_lossy().into_owned(),
                ..NodeGetVolumeStatsRequest::default()
            };
            kubelet.block_on(async {
                let got = kubelet.controller().await?.controller_get_volume(get).await?.into_inner();
                let measured = kubelet.node().await?.node_get_volume_stats(stats).await?.into_inner();
                let by_controller = got.status.and_then(|status| status.volume_condition);
                Ok([by_controller.context("a condition")?, measured.volume_condition.context("a condition")?])
            })
        };
        ensure!(told()?.iter().all(|condition| !condition.abnormal), "{:?}", told()?);
        scene.cluster.kill("chunkserver-n3", Signal::SIGKILL)?;
        let conditions = wait_until("the condition to be abnormal", LIMIT, || {
            let told = told()?;
            Ok(told.iter().all(|condition| condition.message.contains("silent")).then_some(told))
        })?;
        for VolumeCondition { abnormal, message } in conditions {
            ensure!(abnormal && message.contains("node n3") && message.contains("I/O goes on"), "{message}");
        }
        scene.cluster.start("chunkserver-n3")?;
        wait_until("the condition to be normal again", LIMIT, || {
            Ok(told()?.iter().all(|condition| !condition.abnormal).then_some(()))
        })?;
        kubelet.unmount(&volume)
    })
}
