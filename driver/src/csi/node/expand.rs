//! NodeExpandVolume: the device, then the filesystem on it, take the size that the volume has in the catalog.
//!
//! ```text
//! look up ─ large enough? ─ device: datapath ─ raw: done
//!                                             └ mounted at the path: resize2fs, xfs_growfs
//! ```

use super::request::Expand;
use super::stage::check_holder;
use super::{Shared, blocking};
use crate::error::{Error, ErrorKind, Result};
use crate::mount::attach_points::shown_device;
use crate::mount::{BlockDevice, MountError, MountTable, Place, filesystem};
use ashlar_rpc::csi::NodeExpandVolumeResponse;
use std::sync::Arc;

pub(super) async fn expand(shared: Arc<Shared>, request: Expand) -> Result<NodeExpandVolumeResponse> {
    let absent = || {
        let text = format!("volume {} is not at volume_path {}", request.volume, request.volume_path);
        Error::new(ErrorKind::NotFound, text)
    };
    let state = shared.cluster.volume(request.volume).await?;
    let place = match shared.kubelet.place("volume_path", &request.volume_path) {
        Err(MountError::Absent { .. }) => return Err(absent()),
        other => other?,
    };
    check_holder(&shared, &state)?;
    if !state.readers.is_empty() {
        let text = "the volume is published for reading by many: it is expanded when no node reads it any more";
        return Err(Error::precondition(text));
    }
    check_range(&request, state.size_bytes)?;
    let path = shared.cluster.device(request.volume).await?.ok_or_else(absent)?;
    let size = shared.cluster.expand(request.volume).await?;
    let is_there = blocking(move || grow(&place, &BlockDevice::open(&path)?, size)).await?;
    if !is_there {
        return Err(absent());
    }
    Ok(NodeExpandVolumeResponse { capacity_bytes: i64::try_from(size).unwrap_or(i64::MAX) })
}

/// The node makes nothing larger than the controller did.
fn check_range(request: &Expand, size_bytes: u64) -> Result<()> {
    let refuse = |text: String| Err(Error::new(ErrorKind::OutOfRange, text));
    if request.required_bytes > size_bytes {
        return refuse(format!(
            "the volume has {size_bytes} bytes and required_bytes is {}: ControllerExpandVolume comes first",
            request.required_bytes
        ));
    }
    if request.limit_bytes > 0 && size_bytes > request.limit_bytes {
        return refuse(format!(
            "the volume has {size_bytes} bytes, more than limit_bytes ({}): a volume never shrinks",
            request.limit_bytes
        ));
    }
    Ok(())
}

/// False: the device is not at the place.
fn grow(place: &Place, device: &BlockDevice, size_bytes: u64) -> std::result::Result<bool, MountError> {
    let has = device.size_bytes()?;
    if has < size_bytes {
        let text = format!("{} has {has} bytes, and the volume has {size_bytes}", device.path.display());
        return Err(MountError::Refused(text));
    }
    let read_only = device.is_read_only()?;
    if shown_device(place)? == Some(device.number) {
        return Ok(true);
    }
    let table = MountTable::read()?;
    if table.top_at(place.real()).is_none_or(|mount| mount.device != device.number) {
        return Ok(false);
    }
    // A pod may have it read-only while it is staged for writing.
    let writable = table.of_device(device.number).find(|mount| !mount.is_read_only());
    let Some(mount) = writable.filter(|_| !read_only) else {
        let text = "the volume is mounted read-only: expand it on the node once it is mounted for writing";
        return Err(MountError::Refused(text.to_owned()));
    };
    filesystem::grow(mount.fs_type.parse()?, device, &mount.point)?;
    Ok(true)
}
