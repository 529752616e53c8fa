//! NodeStageVolume and NodeUnstageVolume.
//!
//! ```text
//! stage:   look up ─ held by this node? ─ plan (P8) ─ (one of many readers: make ready) ─ attach ─ raw: done
//!                                                       └ mounted already? done
//!                                                         blank: formatting ─ mkfs ─ used ─┐
//!                                                         used: check ────────────────────┴─ mount ─ (clone: grow)
//! unstage: unmount ─ detach
//! ```

use super::cluster::VolumeState;
use super::request::{Access, Capability, Stage, Unstage};
use super::{Shared, blocking, readers};
use crate::error::{Error, Result};
use crate::mount::attach_points::{self, Found};
use crate::mount::paths::Opened;
use crate::mount::usage::{self, Plan, Step, Use};
use crate::mount::{BlockDevice, FsType, Group, Mount, MountError, MountOptions, Place, filesystem, probe};
use ashlar_rpc::control::{self, AttachRole};
use ashlar_rpc::csi::{NodeStageVolumeResponse, NodeUnstageVolumeResponse};
use ashlar_types::VolumeId;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) async fn stage(shared: Arc<Shared>, request: Stage) -> Result<NodeStageVolumeResponse> {
    let Stage { volume, capability, staging_path } = request;
    let place = shared.kubelet.place("staging_target_path", &staging_path)?;
    let state = shared.cluster.volume(volume).await?;
    check_published(&shared, &state, &capability)?;
    let read_only = capability.read_only || state.published_read_only;
    let role = if capability.beside_others { AttachRole::Reader } else { AttachRole::Writer };
    let Access::Mount { fs_type: asked, group, .. } = &capability.access else {
        readers::make_ready(&shared, volume, &state, role, place).await?;
        shared.attached(volume, &state, role, read_only).await?;
        return Ok(NodeStageVolumeResponse {});
    };
    let (asked, group) = (*asked, *group);
    let plan = usage::plan(&state.recorded, asked, read_only)?;
    let (Plan::Prepare(fs_type) | Plan::Mount(fs_type)) = plan;
    let options = capability.access.mount_options(fs_type, read_only)?;
    let is_copy = state.is_copy;
    let options = if is_copy { options.of_copy(fs_type) } else { options };
    let place = readers::make_ready(&shared, volume, &state, role, place).await?;
    let device = shared.attached(volume, &state, role, read_only).await?;
    // This process may have been stopped since it read the state.
    let now = shared.cluster.volume(volume).await?;
    check_published(&shared, &now, &capability)?;
    usage::check_unchanged(&state.recorded, &now.recorded)?;

    let (place, found) = look(shared.clone(), place, device.clone()).await?;
    match (found, plan) {
        (Found::Wanted(mount), Plan::Mount(_)) => {
            check_same(&mount, fs_type, &options)?;
            return Ok(NodeStageVolumeResponse {});
        }
        (Found::Wanted(_), Plan::Prepare(_)) => {
            return Err(Error::precondition("the volume is mounted although it was never formatted; it is left alone"));
        }
        (Found::Nothing, Plan::Prepare(_)) => shared.format(volume, &state.recorded, fs_type, &device).await?,
        (Found::Nothing, Plan::Mount(_)) => {}
    }
    blocking(move || {
        if !options.is_read_only() {
            filesystem::check(fs_type, &device)?;
        }
        attach_points::mount_filesystem(&device, fs_type, &options, &place)?;
        if options.is_read_only() {
            return Ok(());
        }
        if is_copy {
            grow_copy(fs_type, &device, &place);
        }
        give_to(group, &place)
    })
    .await?;
    Ok(NodeStageVolumeResponse {})
}

/// A clone may be larger than its source, whose filesystem it has. Without it the volume is as good as its source was,
/// so it is mounted all the same.
pub(super) fn grow_copy(fs_type: FsType, device: &BlockDevice, place: &Place) {
    if let Err(error) = filesystem::grow(fs_type, device, place.real()) {
        tracing::warn!(device = %device.path.display(), %fs_type, %error, "the filesystem of a clone keeps its size");
    }
}

/// Gives what is mounted at the place to the group that is to have it.
pub(super) fn give_to(group: Option<Group>, place: &Place) -> std::result::Result<(), MountError> {
    let (Some(group), Some(root)) = (group, place.open()?.filter(Opened::is_dir)) else { return Ok(()) };
    group.take_over(root.fd())
}

/// Whether this node may use the volume in this way.
pub(super) fn check_published(shared: &Shared, state: &VolumeState, capability: &Capability) -> Result<()> {
    if !capability.beside_others {
        return check_holder(shared, state);
    }
    if state.readers.iter().any(|reader| reader == shared.node.as_str()) {
        return Ok(());
    }
    let text = format!("the volume is not published to node {} for reading by many", shared.node);
    Err(Error::precondition(text))
}

/// A volume that nobody holds is taken by attaching it: Kubernetes stages again without publishing again when a pod
/// comes back to its node.
pub(super) fn check_holder(shared: &Shared, state: &VolumeState) -> Result<()> {
    if state.holder.is_empty() || state.holder == shared.node.as_str() {
        return Ok(());
    }
    let text = format!("the volume is published to node {} and not to {}", state.holder, shared.node);
    Err(Error::precondition(text))
}

pub(super) async fn look(shared: Arc<Shared>, place: Place, device: BlockDevice) -> Result<(Place, Found)> {
    blocking(move || {
        let found = attach_points::look(&shared.kubelet, &place, &device)?;
        Ok((place, found))
    })
    .await
}

/// A repeated request must ask for what is there.
fn check_same(mount: &Mount, fs_type: FsType, options: &MountOptions) -> std::result::Result<(), MountError> {
    if mount.fs_type == fs_type.name() && mount.is_read_only() == options.is_read_only() {
        return Ok(());
    }
    Err(MountError::Different(format!(
        "the volume is staged already as {} ({}), which is not what is asked for now",
        mount.fs_type, mount.options
    )))
}

pub(super) async fn device_size(path: PathBuf) -> Result<u64> {
    blocking(move || BlockDevice::open(&path)?.size_bytes()).await
}

impl Shared {
    /// Attaches the volume here and makes sure that the device is the volume's.
    pub(super) async fn attached(
        &self,
        volume: VolumeId,
        state: &VolumeState,
        role: AttachRole,
        read_only: bool,
    ) -> Result<BlockDevice> {
        let path = self.cluster.attach(volume, role, read_only).await?;
        let expected = state.size_bytes;
        if device_size(path.clone()).await? < expected {
            // The volume has grown while this device was up.
            self.cluster.expand(volume).await?;
        }
        blocking(move || {
            let device = BlockDevice::open(&path)?;
            let size = device.size_bytes()?;
            if size == expected {
                return Ok(device);
            }
            Err(MountError::Refused(format!("{} has {size} bytes, and the volume has {expected}", path.display())))
        })
        .await
    }

    /// P8: blank -> formatting -> used. The catalog knows before the device does.
    async fn format(&self, volume: VolumeId, recorded: &Use, fs_type: FsType, device: &BlockDevice) -> Result<()> {
        let step = {
            let (recorded, path) = (recorded.clone(), device.path.clone());
            blocking(move || usage::decide_format(&recorded, &probe::probe(&path))).await?
        };
        if *recorded == Use::Blank {
            self.cluster.set_use(volume, control::Use::Blank, control::Use::Formatting, Some(fs_type)).await?;
        }
        tracing::info!(%volume, %fs_type, device = %device.path.display(), ?step, "formatting");
        let device = device.clone();
        blocking(move || {
            if step == Step::WipeAndFormat {
                probe::wipe(&device.path)?;
            }
            filesystem::make(fs_type, &device)
        })
        .await?;
        self.cluster.set_use(volume, control::Use::Formatting, control::Use::Used, Some(fs_type)).await
    }
}

pub(super) async fn unstage(shared: Arc<Shared>, request: Unstage) -> Result<NodeUnstageVolumeResponse> {
    let place = match shared.kubelet.place("staging_target_path", &request.staging_path) {
        Ok(place) => Some(place),
        Err(MountError::Absent { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    // What is no id of ours has no device.
    let id = request.volume.parse::<VolumeId>().ok();
    let device = match id {
        Some(id) => shared.cluster.device(id).await?,
        None => None,
    };
    blocking(move || unmount(place, device)).await?;
    if let Some(id) = id {
        shared.cluster.detach(id).await?;
    }
    Ok(NodeUnstageVolumeResponse {})
}

fn unmount(place: Option<Place>, device: Option<PathBuf>) -> std::result::Result<(), MountError> {
    let staging = place.as_ref().map(|place| place.real().to_owned()).unwrap_or_default();
    if let Some(path) = device.filter(|path| path.starts_with("/dev")) {
        let device = BlockDevice::open(&path)?;
        if let Some(used) = attach_points::other_use(&device, &[&staging])? {
            return Err(MountError::Refused(format!("the volume is still published at {}", used.point.display())));
        }
    }
    place.map_or(Ok(()), |place| attach_points::unmount(&place))
}
