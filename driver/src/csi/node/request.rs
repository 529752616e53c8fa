//! Requests, checked once: what is missing or malformed is refused here, before anything is looked at. Secrets and
//! the publish and volume contexts are never kept nor logged.

use crate::error::{Error, ErrorKind, Result};
use crate::mount::{FsType, MountOptions};
use ashlar_rpc::csi::volume_capability::{AccessType, access_mode::Mode};
use ashlar_rpc::csi::{
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, VolumeCapability,
};
use ashlar_types::VolumeId;

/// Longest volume id that CSI allows.
const ID_BYTES_MAX: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Block,
    /// `fs_type`: `None` where the request leaves it open.
    Mount {
        fs_type: Option<FsType>,
        flags: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Capability {
    pub(super) access: Access,
    /// The access mode allows no writing.
    pub(super) read_only: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) volume: VolumeId,
    pub(super) staging_path: String,
    pub(super) capability: Capability,
}

#[derive(Clone, Debug)]
pub(super) struct Unstage {
    /// Any text: what was never there is not there now.
    pub(super) volume: String,
    pub(super) staging_path: String,
}

#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) volume: VolumeId,
    pub(super) staging_path: String,
    pub(super) target_path: String,
    pub(super) capability: Capability,
    pub(super) read_only: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Unpublish {
    pub(super) volume: String,
    pub(super) target_path: String,
}

#[derive(Clone, Debug)]
pub(super) struct Stats {
    pub(super) volume: VolumeId,
    pub(super) volume_path: String,
}

impl Stage {
    pub(super) fn check(request: NodeStageVolumeRequest) -> Result<Stage> {
        let id = given("volume_id", request.volume_id)?;
        let staging_path = given("staging_target_path", request.staging_target_path)?;
        let capability = Capability::check(request.volume_capability)?;
        Ok(Stage { volume: volume_id(&id)?, staging_path, capability })
    }
}

impl Unstage {
    pub(super) fn check(request: NodeUnstageVolumeRequest) -> Result<Unstage> {
        let volume = given("volume_id", request.volume_id)?;
        let staging_path = given("staging_target_path", request.staging_target_path)?;
        Ok(Unstage { volume: canonical(volume)?, staging_path })
    }
}

impl Publish {
    pub(super) fn check(request: NodePublishVolumeRequest) -> Result<Publish> {
        let id = given("volume_id", request.volume_id)?;
        let target_path = given("target_path", request.target_path)?;
        let capability = Capability::check(request.volume_capability)?;
        if request.staging_target_path.is_empty() {
            // CSI asks for this code: the volume must be staged first.
            return Err(Error::precondition("staging_target_path is empty: the volume must be staged first"));
        }
        let read_only = request.readonly || capability.read_only;
        let staging_path = request.staging_target_path;
        Ok(Publish { volume: volume_id(&id)?, staging_path, target_path, capability, read_only })
    }
}

impl Unpublish {
    pub(super) fn check(request: NodeUnpublishVolumeRequest) -> Result<Unpublish> {
        let volume = given("volume_id", request.volume_id)?;
        let target_path = given("target_path", request.target_path)?;
        Ok(Unpublish { volume: canonical(volume)?, target_path })
    }
}

impl Stats {
    pub(super) fn check(request: NodeGetVolumeStatsRequest) -> Result<Stats> {
        let id = given("volume_id", request.volume_id)?;
        let volume_path = given("volume_path", request.volume_path)?;
        Ok(Stats { volume: volume_id(&id)?, volume_path })
    }
}

impl Capability {
    fn check(capability: Option<VolumeCapability>) -> Result<Capability> {
        let capability = capability.ok_or_else(|| Error::invalid("volume_capability is missing"))?;
        let mode = capability.access_mode.map(|mode| mode.mode());
        let read_only = match mode.unwrap_or(Mode::Unknown) {
            Mode::SingleNodeWriter => false,
            Mode::SingleNodeReaderOnly => true,
            Mode::Unknown => return Err(Error::invalid("volume_capability.access_mode is missing")),
            other => {
                let name = other.as_str_name();
                return Err(Error::invalid(format!(
                    "access mode {name} is not supported: one node uses a volume at a time"
                )));
            }
        };
        let access = match capability.access_type {
            None => return Err(Error::invalid("volume_capability.access_type is missing: neither block nor mount")),
            Some(AccessType::Block(_)) => Access::Block,
            Some(AccessType::Mount(mount)) => {
                if !mount.volume_mount_group.is_empty() {
                    return Err(Error::invalid("volume_mount_group is not supported"));
                }
                let fs_type =
                    Some(mount.fs_type).filter(|text| !text.is_empty()).map(|text| text.parse()).transpose()?;
                Access::Mount { fs_type, flags: mount.mount_flags }
            }
        };
        Ok(Capability { access, read_only })
    }
}

impl Access {
    /// The options for the filesystem that the volume has or gets.
    pub(super) fn mount_options(&self, fs_type: FsType, read_only: bool) -> Result<MountOptions> {
        let flags: &[String] = match self {
            Access::Block => &[],
            Access::Mount { flags, .. } => flags,
        };
        let options = MountOptions::parse(fs_type, flags)?;
        Ok(if read_only { options.read_only() } else { options })
    }
}

fn given(field: &'static str, text: String) -> Result<String> {
    if text.is_empty() { Err(Error::invalid(format!("{field} is empty"))) } else { Ok(text) }
}

/// T8: ids are UUIDs that the control plane made; any other text names no volume.
fn volume_id(text: &str) -> Result<VolumeId> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Error::new(ErrorKind::NotFound, format!("volume {shown:?} does not exist"))
    })
}

/// The one spelling of an id, so that two spellings do not work on a volume at once.
fn canonical(text: String) -> Result<String> {
    if text.len() > ID_BYTES_MAX {
        return Err(Error::invalid(format!("volume_id has {} bytes, at most {ID_BYTES_MAX} are allowed", text.len())));
    }
    Ok(text.parse::<VolumeId>().map_or(text, |id| id.to_string()))
}
