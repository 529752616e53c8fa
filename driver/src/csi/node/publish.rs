//! NodePublishVolume and NodeUnpublishVolume: a staged volume is shown to a pod, by a bind mount.

use super::request::{Access, Publish, Unpublish};
use super::stage::{check_published, give_to};
use super::{Shared, blocking};
use crate::error::{Error, Result};
use crate::mount::attach_points::{self, Found};
use crate::mount::usage::Use;
use crate::mount::{BlockDevice, FsType, MountError, MountTable, Place};
use ashlar_rpc::control;
use ashlar_rpc::csi::{NodePublishVolumeResponse, NodeUnpublishVolumeResponse};
use std::sync::Arc;

pub(super) async fn publish(shared: Arc<Shared>, mut request: Publish) -> Result<NodePublishVolumeResponse> {
    let target = shared.kubelet.place("target_path", &request.target_path)?;
    let staging = shared.kubelet.place("staging_target_path", &request.staging_path)?;
    let state = shared.cluster.volume(request.volume).await?;
    check_published(&shared, &state, &request.capability)?;
    request.read_only |= state.published_read_only;
    let Some(path) = shared.cluster.device(request.volume).await? else {
        return Err(Error::precondition("the volume has no device on this node: it must be staged first"));
    };
    // Nothing is written through the device of a reader, whatever the volume is used for.
    if request.capability.access == Access::Block && !request.capability.beside_others {
        match state.recorded {
            // From here on a pod may have written anything: mkfs is over for good.
            Use::Blank => shared.cluster.set_use(request.volume, control::Use::Blank, control::Use::Used, None).await?,
            Use::Formatting { .. } => {
                return Err(Error::precondition("the volume is being formatted as a filesystem: stage it as one"));
            }
            Use::Used { .. } => {}
        }
    }
    blocking(move || {
        let device = BlockDevice::open(&path)?;
        if request.capability.exclusive {
            check_alone(&device, &staging, &target)?;
        }
        match request.capability.access {
            Access::Block => publish_device(&shared, &device, &target, request.read_only),
            Access::Mount { .. } => publish_directory(&shared, &device, &staging, &target, &request),
        }
    })
    .await?;
    Ok(NodePublishVolumeResponse {})
}

fn publish_directory(
    shared: &Shared,
    device: &BlockDevice,
    staging: &Place,
    target: &Place,
    request: &Publish,
) -> std::result::Result<(), MountError> {
    let not_staged = || MountError::Refused(format!("the volume is not staged at {}", staging.real().display()));
    let staged = MountTable::read()?.top_at(staging.real()).cloned().filter(|mount| mount.device == device.number);
    let staged = staged.ok_or_else(not_staged)?;
    let fs_type: FsType = staged.fs_type.parse()?;
    let options = request.capability.access.mount_options(fs_type, request.read_only);
    let options = options.map_err(|error| MountError::Unsupported(error.message))?;
    if let Found::Wanted(mount) = attach_points::look(&shared.kubelet, target, device)? {
        return check_same(target, mount.is_read_only(), options.is_read_only());
    }
    let source = staging.open()?.filter(|opened| opened.is_dir()).ok_or_else(not_staged)?;
    if !options.is_read_only() && !staged.is_read_only() {
        give_to(request.capability.access.group(), staging)?;
    }
    attach_points::bind_directory(&source, device.number, &options, target)
}

/// SINGLE_NODE_SINGLE_WRITER: no other path shows the volume.
fn check_alone(device: &BlockDevice, staging: &Place, target: &Place) -> std::result::Result<(), MountError> {
    let known = [staging.real(), target.real()];
    match attach_points::other_use(device, &known)? {
        None => Ok(()),
        Some(used) => Err(MountError::Refused(format!(
            "the volume has access mode SINGLE_NODE_SINGLE_WRITER and is published at {} already: unpublish it there",
            used.point.display()
        ))),
    }
}

/// Read-only is a property of the device and not of its node, so all who share it must agree.
fn publish_device(
    shared: &Shared,
    device: &BlockDevice,
    target: &Place,
    read_only: bool,
) -> std::result::Result<(), MountError> {
    let is_read_only = device.is_read_only()?;
    if let Found::Wanted(_) = attach_points::look(&shared.kubelet, target, device)? {
        return check_same(target, is_read_only, read_only);
    }
    if is_read_only != read_only {
        if let Some(used) = attach_points::other_use(device, &[target.real()])? {
            let text = format!("the device is published at {} with other access", used.point.display());
            return Err(MountError::Refused(text));
        }
        device.set_read_only(read_only)?;
    }
    attach_points::bind_device(device, target)
}

fn check_same(target: &Place, is_read_only: bool, read_only: bool) -> std::result::Result<(), MountError> {
    if is_read_only == read_only {
        return Ok(());
    }
    let how = if is_read_only { "read-only" } else { "for writing" };
    Err(MountError::Different(format!("the volume is published already at {}, {how}", target.real().display())))
}

pub(super) async fn unpublish(shared: Arc<Shared>, request: Unpublish) -> Result<NodeUnpublishVolumeResponse> {
    let place = match shared.kubelet.place("target_path", &request.target_path) {
        Ok(place) => place,
        Err(MountError::Absent { .. }) => return Ok(NodeUnpublishVolumeResponse {}),
        Err(error) => return Err(error.into()),
    };
    blocking(move || {
        attach_points::unmount(&place)?;
        place.remove()
    })
    .await?;
    Ok(NodeUnpublishVolumeResponse {})
}
