//! A volume that many nodes read is made ready by the first of them that stages it.
//!
//! ```text
//! settled? ─yes─► (attach as a reader)
//!    └─no─► attach as its writer ─ filesystem: check ─ mount ─ unmount ─ say settled ─ detach cleanly
//! ```
//! A snapshot of a mounted filesystem has a journal to replay, and who reads alone cannot. A crash on the way, or an
//! end but the clean one, leaves a volume that is not settled: the next stage begins again. Whoever comes meanwhile is
//! told to come again.

use super::cluster::VolumeState;
use super::stage::{grow_copy, look};
use super::{Shared, blocking};
use crate::error::{Error, ErrorKind, Result};
use crate::mount::attach_points::{self, Found};
use crate::mount::usage::Use;
use crate::mount::{BlockDevice, FsType, MountError, MountOptions, Place, filesystem};
use ashlar_rpc::control::AttachRole;
use ashlar_types::VolumeId;
use std::sync::Arc;

/// Nothing is to be done for who attaches it in another role. `staging` is where a filesystem is mounted meanwhile; it
/// comes back.
pub(super) async fn make_ready(
    shared: &Arc<Shared>,
    volume: VolumeId,
    state: &VolumeState,
    role: AttachRole,
    mut staging: Place,
) -> Result<Place> {
    if role != AttachRole::Reader || state.is_settled {
        return Ok(staging);
    }
    if !state.holder.is_empty() && state.holder != shared.node.as_str() {
        let text = format!("the volume is being made ready for reading on node {}: ask again", state.holder);
        return Err(Error::new(ErrorKind::Busy, text));
    }
    let device = shared.attached(volume, state, AttachRole::Settler, false).await?;
    if let Use::Used { fs_type: Some(fs_type) } = state.recorded {
        let found;
        (staging, found) = look(shared.clone(), staging, device.clone()).await?;
        staging = blocking(move || replay(fs_type, &device, staging, &found)).await?;
    }
    shared.cluster.set_settled(volume).await?;
    shared.cluster.detach(volume).await?;
    tracing::info!(%volume, "made ready for reading by many");
    Ok(staging)
}

/// What is found mounted is of a try that was cut off.
fn replay(
    fs_type: FsType,
    device: &BlockDevice,
    staging: Place,
    found: &Found,
) -> std::result::Result<Place, MountError> {
    if matches!(found, Found::Nothing) {
        filesystem::check(fs_type, device)?;
        let options = MountOptions::parse(fs_type, &[])?.of_copy(fs_type);
        attach_points::mount_filesystem(device, fs_type, &options, &staging)?;
        grow_copy(fs_type, device, &staging);
    }
    attach_points::unmount(&staging)?;
    Ok(staging)
}
