//! NodeGetVolumeStats: bytes and inodes of a mounted filesystem, or the size of a raw device.

use super::request::Stats;
use super::{Shared, blocking};
use crate::error::{Error, ErrorKind, Result};
use crate::mount::attach_points::shown_device;
use crate::mount::{BlockDevice, MountError, MountTable, Place};
use ashlar_rpc::control::VolumeCondition as ControlCondition;
use ashlar_rpc::csi::{NodeGetVolumeStatsResponse, VolumeCondition, VolumeUsage, volume_usage::Unit};
use nix::sys::statvfs::{Statvfs, fstatvfs};
use std::sync::Arc;

pub(super) async fn stats(shared: Arc<Shared>, request: Stats) -> Result<NodeGetVolumeStatsResponse> {
    let absent = || {
        let text = format!("volume {} is not at {}", request.volume, request.volume_path);
        Error::new(ErrorKind::NotFound, text)
    };
    let place = match shared.kubelet.place("volume_path", &request.volume_path) {
        Ok(place) => place,
        // Where no volume can be there is none: CSI asks for NOT_FOUND, not for a judgement of the path.
        Err(MountError::Absent { .. } | MountError::Path { .. }) => return Err(absent()),
        Err(error) => return Err(error.into()),
    };
    let state = shared.cluster.volume(request.volume).await?;
    let path = shared.cluster.device(request.volume).await?.ok_or_else(absent)?;
    let usage = blocking(move || measure(&place, &BlockDevice::open(&path)?)).await?.ok_or_else(absent)?;
    let ControlCondition { abnormal, message } = state.condition;
    Ok(NodeGetVolumeStatsResponse { usage, volume_condition: Some(VolumeCondition { abnormal, message }) })
}

/// `None`: the device is not at the place.
fn measure(place: &Place, device: &BlockDevice) -> std::result::Result<Option<Vec<VolumeUsage>>, MountError> {
    if shown_device(place)? == Some(device.number) {
        let total = signed(device.size_bytes()?);
        return Ok(Some(vec![VolumeUsage { total, unit: Unit::Bytes as i32, ..VolumeUsage::default() }]));
    }
    let mounted = MountTable::read()?.top_at(place.real()).is_some_and(|mount| mount.device == device.number);
    let Some(opened) = place.open()?.filter(|opened| mounted && opened.is_dir()) else { return Ok(None) };
    let stat = fstatvfs(opened.fd()).map_err(MountError::io(format!("measure {}", place.real().display())))?;
    Ok(Some(vec![bytes(&stat), inodes(&stat)]))
}

fn bytes(stat: &Statvfs) -> VolumeUsage {
    let size = |blocks: u64| signed(blocks.saturating_mul(stat.fragment_size()));
    VolumeUsage {
        available: size(stat.blocks_available()),
        total: size(stat.blocks()),
        used: size(stat.blocks().saturating_sub(stat.blocks_free())),
        unit: Unit::Bytes as i32,
    }
}

fn inodes(stat: &Statvfs) -> VolumeUsage {
    VolumeUsage {
        available: signed(stat.files_available()),
        total: signed(stat.files()),
        used: signed(stat.files().saturating_sub(stat.files_free())),
        unit: Unit::Inodes as i32,
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
