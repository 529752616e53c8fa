//! Mounts, binds and unmounts, each verified against the table of mounts before it counts as done.

use super::device::{BlockDevice, DeviceNumber};
use super::error::MountError;
use super::filesystem::{FsType, damaged};
use super::mountinfo::{Mount, MountTable};
use super::options::MountOptions;
use super::paths::{KubeletDir, Opened, Place};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::SFlag;
use std::path::Path;

/// So many mounts on top of each other are unmounted; more are an error.
const STACK_MAX: usize = 16;
const NONE: Option<&Path> = None;

/// Mounts the filesystem on a directory, which is made if need be.
pub fn mount_filesystem(
    device: &BlockDevice,
    fs_type: FsType,
    options: &MountOptions,
    place: &Place,
) -> Result<(), MountError> {
    let target = place.open_or_make_dir()?;
    let data = (!options.data.is_empty()).then_some(options.data.as_str());
    mount(Some(&device.path), &target.path(), Some(fs_type.name()), options.flags, data)
        .map_err(|error| explain_mount(error, device, fs_type, place))?;
    verify(place, device.number)
}

fn explain_mount(error: Errno, device: &BlockDevice, fs_type: FsType, place: &Place) -> MountError {
    let path = place.real().display();
    match error {
        // What the kernel says of a superblock that is not there, damaged or beyond repair by replay.
        Errno::EINVAL | Errno::EUCLEAN | Errno::EBADMSG | Errno::EIO | Errno::ENODATA | Errno::EOVERFLOW => {
            damaged(fs_type, device, &format!("mount fails: {}", error.desc()))
        }
        Errno::EBUSY => MountError::Occupied(format!("{} or {path} is in use by another mount", device.path.display())),
        Errno::ENODEV => MountError::Refused(format!("the kernel of this node does not know {fs_type}")),
        Errno::EROFS | Errno::EACCES => {
            MountError::Refused(format!("{} is read-only and cannot be mounted for writing", device.path.display()))
        }
        error => MountError::io(format!("mount {} on {path}", device.path.display()))(error),
    }
}

/// The mount must be seen where it was asked for: otherwise the path was changed meanwhile, and what was mounted is
/// taken away again.
fn verify(place: &Place, device: DeviceNumber) -> Result<(), MountError> {
    let table = MountTable::read()?;
    if table.top_at(place.real()).is_some_and(|top| top.device == device) {
        return Ok(());
    }
    if let Some(stray) = table.of_device(device).last() {
        umount2(&stray.point, MntFlags::UMOUNT_NOFOLLOW)
            .map_err(MountError::io(format!("unmount the stray {}", stray.point.display())))?;
    }
    Err(MountError::Occupied(format!("{} was changed while it was being mounted on", place.real().display())))
}

/// Shows a staged directory at another place, with flags of its own.
pub fn bind_directory(
    source: &Opened,
    device: DeviceNumber,
    options: &MountOptions,
    place: &Place,
) -> Result<(), MountError> {
    let target = place.open_or_make_dir()?;
    bind(source.path().as_path(), &target, place)?;
    drop(target);
    let done = remount(place, options.bind_flags()).and_then(|()| verify(place, device));
    done.inspect_err(|_| undo(place))
}

/// Shows a device node at a file, which is made if need be.
pub fn bind_device(device: &BlockDevice, place: &Place) -> Result<(), MountError> {
    let target = place.open_or_make_file()?;
    bind(&device.path, &target, place)?;
    drop(target);
    match shown_device(place)? {
        Some(number) if number == device.number => Ok(()),
        _ => {
            undo(place);
            Err(MountError::Occupied(format!("{} was changed while it was being mounted on", place.real().display())))
        }
    }
}

fn bind(source: &Path, target: &Opened, place: &Place) -> Result<(), MountError> {
    mount(Some(source), &target.path(), NONE, MsFlags::MS_BIND, NONE).map_err(MountError::io(format!(
        "bind {} to {}",
        source.display(),
        place.real().display()
    )))
}

/// The flags of a bind mount are taken only by a second call.
fn remount(place: &Place, flags: MsFlags) -> Result<(), MountError> {
    mount(NONE, &place.path(), NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags, NONE)
        .map_err(MountError::io(format!("set the mount flags of {}", place.real().display())))
}

/// Takes back a bind that is not as it must be. The error that led here is the one to report.
fn undo(place: &Place) {
    if let Err(error) = unmount(place) {
        tracing::error!(%error, path = %place.real().display(), "unmount what was half mounted");
    }
}

/// The block device whose node is at the place.
pub fn shown_device(place: &Place) -> Result<Option<DeviceNumber>, MountError> {
    let opened = place.open()?;
    let device = opened.filter(|opened| opened.kind() == SFlag::S_IFBLK);
    Ok(device.map(|opened| DeviceNumber::from_raw(opened.stat.st_rdev)))
}

/// Unmounts everything at the place. Nothing mounted there is fine; what is in use stays, and is an error.
pub fn unmount(place: &Place) -> Result<(), MountError> {
    for _ in 0..STACK_MAX {
        if MountTable::read()?.top_at(place.real()).is_none() {
            return Ok(());
        }
        match umount2(&place.path(), MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EBUSY) => {
                return Err(MountError::Refused(format!(
                    "{} is in use and cannot be unmounted",
                    place.real().display()
                )));
            }
            Err(error) => return Err(MountError::io(format!("unmount {}", place.real().display()))(error)),
        }
    }
    Err(MountError::Occupied(format!("more than {STACK_MAX} mounts are on {}", place.real().display())))
}

/// What is mounted at a place where `wanted` belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// The device itself is mounted, or its node is shown.
    Wanted(Mount),
}

/// Looks at a place before something is mounted there. A mount whose device no longer answers (its datapath was
/// killed) is taken away together with all others of that device in the kubelet's directory; any other mount is an
/// error.
pub fn look(kubelet: &KubeletDir, place: &Place, wanted: &BlockDevice) -> Result<Found, MountError> {
    let table = MountTable::read()?;
    let Some(top) = table.top_at(place.real()) else { return Ok(Found::Nothing) };
    let shown = shown_device(place)?;
    if top.device == wanted.number || shown == Some(wanted.number) {
        return Ok(Found::Wanted(top.clone()));
    }
    let path = shown.map_or_else(|| top.source.clone().into(), |_| place.path());
    let dead = BlockDevice::open(&path).is_ok_and(|device| {
        // A source is a name only: it counts if it is the mounted device.
        (shown.is_some() || device.number == top.device) && device.is_dead()
    });
    if !dead {
        let what = if shown.is_some() { "another device" } else { top.source.as_str() };
        return Err(MountError::Occupied(format!("{} is already mounted: {what}", place.real().display())));
    }
    let stale: Vec<&Mount> = match shown {
        Some(_) => vec![top],
        None => table.of_device(top.device).filter(|mount| mount.point.starts_with(kubelet.real())).collect(),
    };
    for mount in stale.into_iter().rev() {
        tracing::warn!(path = %mount.point.display(), source = mount.source, "unmounting what a dead device left");
        umount2(&mount.point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .map_err(MountError::io(format!("unmount {}", mount.point.display())))?;
    }
    if MountTable::read()?.top_at(place.real()).is_some() {
        return look(kubelet, place, wanted);
    }
    Ok(Found::Nothing)
}

/// Where the device is used besides `except`: its filesystem is mounted, or its node is shown.
pub fn other_use(device: &BlockDevice, except: &[&Path]) -> Result<Option<Mount>, MountError> {
    let table = MountTable::read()?;
    let node = device.path.strip_prefix("/dev").ok().map(|name| Path::new("/").join(name));
    let uses = |mount: &&Mount| {
        let shown = mount.fs_type == "devtmpfs" && Some(&mount.root) == node.as_ref();
        !except.contains(&mount.point.as_path()) && (mount.device == device.number || shown)
    };
    Ok(table.iter().find(uses).cloned())
}
