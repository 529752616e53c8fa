//! Filesystems, mounts and devices on a node: the part of the CSI node service that touches the machine.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`paths`] | the kubelet's directory, pinned; places below it, reached without following a symlink |
//! | [`mountinfo`] | the table of mounts |
//! | [`options`] | which mount options are let through |
//! | [`filesystem`] | ext4 and xfs: their programs and command lines |
//! | [`group`] | the group that owns what is on a volume (VOLUME_MOUNT_GROUP) |
//! | [`usage`] | P8: when a volume is formatted, when it is mounted, when it is refused |
//! | [`probe`] | whether a device is blank where a filesystem would show |
//! | [`device`] | block devices: number, size, read-only or not |
//! | [`attach_points`] | mount, bind, unmount |
//! | [`tools`] | running a program, without a shell |
//!
//! Everything here blocks, and runs on threads that may.

pub mod attach_points;
pub mod device;
pub mod error;
pub mod filesystem;
pub mod group;
pub mod mountinfo;
pub mod options;
pub mod paths;
pub mod probe;
pub mod tools;
pub mod usage;

pub use device::{BlockDevice, DeviceNumber};
pub use error::MountError;
pub use filesystem::FsType;
pub use group::Group;
pub use mountinfo::{Mount, MountTable};
pub use options::MountOptions;
pub use paths::{KubeletDir, Place};
