//! Requests, checked once: what is missing or malformed is refused here, before anything is looked at. Secrets and
//! the publish and volume contexts are never kept nor logged.

use crate::error::{Error, ErrorKind, Result};
use crate::mount::{FsType, Group, MountOptions};
use ashlar_rpc::csi::volume_capability::{AccessType, access_mode::Mode};
use ashlar_rpc::csi::{
    NodeExpandVolumeRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
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
        /// Whose the files are to be.
        group: Option<Group>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Capability {
    pub(super) access: Access,
    /// The access mode allows no writing.
    pub(super) read_only: bool,
    /// This node is one of many that read (MULTI_NODE_READER_ONLY).
    pub(super) beside_others: bool,
    /// One target path at a time (SINGLE_NODE_SINGLE_WRITER).
    pub(super) exclusive: bool,
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

#[derive(Clone, Debug)]
pub(super) struct Expand {
    pub(super) volume: VolumeId,
    pub(super) volume_path: String,
    /// Zero: not given.
    pub(super) required_bytes: u64,
    pub(super) limit_bytes: u64,
}

/// Everything that is wrong with a request, reported together.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn keep<T>(&mut self, checked: Result<T>) -> Option<T> {
        checked.map_err(|fault| self.0.push(fault.message)).ok()
    }

    fn text(&mut self, field: &'static str, text: String) -> String {
        if text.is_empty() {
            self.0.push(format!("{field} is empty"));
        }
        text
    }

    fn id(&mut self, text: String) -> String {
        if text.len() > ID_BYTES_MAX {
            self.0.push(format!("volume_id has {} bytes, at most {ID_BYTES_MAX} are allowed", text.len()));
        }
        self.text("volume_id", text)
    }

    fn none(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::invalid_all(&self.0)) }
    }
}

impl Stage {
    pub(super) fn check(request: NodeStageVolumeRequest) -> Result<Stage> {
        let mut faults = Faults::default();
        let id = faults.id(request.volume_id);
        let staging_path = faults.text("staging_target_path", request.staging_target_path);
        let capability = faults.keep(Capability::check(request.volume_capability));
        faults.none()?;
        let capability = capability.expect("without a fault there is one");
        Ok(Stage { volume: volume_id(&id)?, staging_path, capability })
    }
}

impl Unstage {
    pub(super) fn check(request: NodeUnstageVolumeRequest) -> Result<Unstage> {
        let mut faults = Faults::default();
        let volume = faults.id(request.volume_id);
        let staging_path = faults.text("staging_target_path", request.staging_target_path);
        faults.none()?;
        Ok(Unstage { volume: canonical(volume), staging_path })
    }
}

impl Publish {
    pub(super) fn check(request: NodePublishVolumeRequest) -> Result<Publish> {
        let mut faults = Faults::default();
        let id = faults.id(request.volume_id);
        let target_path = faults.text("target_path", request.target_path);
        let capability = faults.keep(Capability::check(request.volume_capability));
        faults.none()?;
        let capability = capability.expect("without a fault there is one");
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
        let mut faults = Faults::default();
        let volume = faults.id(request.volume_id);
        let target_path = faults.text("target_path", request.target_path);
        faults.none()?;
        Ok(Unpublish { volume: canonical(volume), target_path })
    }
}

impl Stats {
    pub(super) fn check(request: NodeGetVolumeStatsRequest) -> Result<Stats> {
        let mut faults = Faults::default();
        let id = faults.id(request.volume_id);
        let volume_path = faults.text("volume_path", request.volume_path);
        faults.none()?;
        Ok(Stats { volume: volume_id(&id)?, volume_path })
    }
}

impl Expand {
    pub(super) fn check(request: NodeExpandVolumeRequest) -> Result<Expand> {
        let mut faults = Faults::default();
        let id = faults.id(request.volume_id);
        let volume_path = faults.text("volume_path", request.volume_path);
        let range = request.capacity_range.unwrap_or_default();
        let mut bytes = |field: &str, bytes: i64| {
            let checked =
                u64::try_from(bytes).map_err(|_| Error::invalid(format!("capacity_range.{field} is negative")));
            faults.keep(checked).unwrap_or_default()
        };
        let required_bytes = bytes("required_bytes", range.required_bytes);
        let limit_bytes = bytes("limit_bytes", range.limit_bytes);
        // A node need not be told how the volume is used: it sees that. What is told must make sense.
        if request.volume_capability.is_some() {
            faults.keep(Capability::check(request.volume_capability));
        }
        faults.none()?;
        if limit_bytes > 0 && limit_bytes < required_bytes {
            let text =
                format!("capacity_range: limit_bytes ({limit_bytes}) is below required_bytes ({required_bytes})");
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        Ok(Expand { volume: volume_id(&id)?, volume_path, required_bytes, limit_bytes })
    }
}

impl Capability {
    fn check(capability: Option<VolumeCapability>) -> Result<Capability> {
        let mut faults = Faults::default();
        let capability = capability.ok_or_else(|| Error::invalid("volume_capability is missing"))?;
        let mode = capability.access_mode.map_or(Mode::Unknown, |mode| mode.mode());
        match mode {
            Mode::SingleNodeWriter
            | Mode::SingleNodeReaderOnly
            | Mode::SingleNodeSingleWriter
            | Mode::SingleNodeMultiWriter
            | Mode::MultiNodeReaderOnly => {}
            Mode::Unknown => faults.0.push("volume_capability.access_mode is missing".to_owned()),
            other => {
                let name = other.as_str_name();
                faults.0.push(format!("access mode {name} is not supported: one node writes to a volume at a time"));
            }
        }
        let access = match capability.access_type {
            None => {
                faults.0.push("volume_capability.access_type is missing: neither block nor mount".to_owned());
                None
            }
            Some(AccessType::Block(_)) => Some(Access::Block),
            Some(AccessType::Mount(mount)) => {
                let named = |text: String| text.parse().map_err(Error::from);
                let fs_type = Some(mount.fs_type).filter(|text| !text.is_empty());
                let fs_type = fs_type.and_then(|text| faults.keep(named(text)));
                let flags = mount.mount_flags;
                faults.keep(MountOptions::parse(fs_type.unwrap_or(FsType::DEFAULT), &flags).map_err(Error::from));
                let group = Some(mount.volume_mount_group).filter(|text| !text.is_empty());
                let group = group.and_then(|text| faults.keep(text.parse().map_err(Error::from)));
                Some(Access::Mount { fs_type, flags, group })
            }
        };
        faults.none()?;
        let access = access.expect("without a fault there is one");
        let beside_others = mode == Mode::MultiNodeReaderOnly;
        let read_only = beside_others || mode == Mode::SingleNodeReaderOnly;
        Ok(Capability { access, read_only, beside_others, exclusive: mode == Mode::SingleNodeSingleWriter })
    }
}

impl Access {
    pub(super) fn group(&self) -> Option<Group> {
        match self {
            Access::Block => None,
            Access::Mount { group, .. } => *group,
        }
    }

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

/// T8: ids are UUIDs that the control plane made; any other text names no volume.
fn volume_id(text: &str) -> Result<VolumeId> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Error::new(ErrorKind::NotFound, format!("volume {shown:?} does not exist"))
    })
}

/// The one spelling of an id, so that two spellings do not work on a volume at once.
fn canonical(text: String) -> String {
    text.parse::<VolumeId>().map_or(text, |id| id.to_string())
}
