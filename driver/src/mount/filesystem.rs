//! The filesystems that a volume may hold, and the programs that make and check them.

use super::device::BlockDevice;
use super::error::MountError;
use super::tools;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsType {
    Ext4,
    Xfs,
}

impl FsType {
    pub const DEFAULT: FsType = FsType::Ext4;

    pub fn name(self) -> &'static str {
        match self {
            FsType::Ext4 => "ext4",
            FsType::Xfs => "xfs",
        }
    }
}

impl fmt::Display for FsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FsType {
    type Err = MountError;

    fn from_str(text: &str) -> Result<FsType, MountError> {
        match text {
            "ext4" => Ok(FsType::Ext4),
            "xfs" => Ok(FsType::Xfs),
            other => {
                let shown: String = other.chars().take(64).collect();
                Err(MountError::Unsupported(format!("fs_type {shown:?} is not supported; ext4 and xfs are")))
            }
        }
    }
}

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    pub program: &'static str,
    pub arguments: Vec<OsString>,
}

impl Invocation {
    /// What follows `--` is never taken for an option.
    fn on_device(program: &'static str, options: &[&str], device: &Path) -> Invocation {
        let mut arguments: Vec<OsString> = options.iter().map(Into::into).collect();
        arguments.push("--".into());
        arguments.push(device.into());
        Invocation { program, arguments }
    }

    fn run(&self) -> Result<tools::Output, MountError> {
        tools::run(self.program, &self.arguments)
    }
}

/// Without a force flag: both programs look for another filesystem themselves, and a device that is mounted is
/// refused by the kernel. Without discard: a blank volume has nothing to give back.
pub fn make_invocation(fs_type: FsType, device: &Path) -> Invocation {
    match fs_type {
        FsType::Ext4 => Invocation::on_device("mkfs.ext4", &["-q", "-b", "4096", "-m", "0", "-E", "nodiscard"], device),
        FsType::Xfs => Invocation::on_device("mkfs.xfs", &["-q", "-K"], device),
    }
}

/// May run only where [`super::usage`] says so.
pub fn make(fs_type: FsType, device: &BlockDevice) -> Result<(), MountError> {
    let invocation = make_invocation(fs_type, &device.path);
    invocation.run()?.expect_success(invocation.program)
}

/// Looks over a filesystem before it is mounted for writing.
///
/// ext4: the superblock must be readable and whole, because e2fsck would otherwise take a backup of it and go on as
/// if nothing had been; then `e2fsck -p` replays the journal and repairs what is safe. xfs replays its log in the
/// kernel, and refuses damage there.
pub fn check(fs_type: FsType, device: &BlockDevice) -> Result<(), MountError> {
    if fs_type == FsType::Xfs {
        return Ok(());
    }
    let header = Invocation::on_device("dumpe2fs", &["-h"], &device.path).run()?;
    if header.code != Some(0) {
        return Err(damaged(fs_type, device, &header.text));
    }
    let repair = Invocation::on_device("e2fsck", &["-p"], &device.path).run()?;
    match repair.code {
        Some(0) => Ok(()),
        // 1: repaired; 2: repaired, and a mounted root filesystem would need a reboot.
        Some(1 | 2) => {
            tracing::warn!(device = %device.path.display(), text = repair.text, "filesystem repaired before mounting");
            Ok(())
        }
        // 4 and its sums with others, below the codes for "could not run".
        Some(4..8) => Err(damaged(fs_type, device, &repair.text)),
        _ => Err(repair.into_error("e2fsck")),
    }
}

/// What makes a mounted filesystem as large as its device. Without anything to do both succeed.
pub fn grow_invocation(fs_type: FsType, device: &Path, mounted: &Path) -> Invocation {
    match fs_type {
        FsType::Ext4 => Invocation::on_device("resize2fs", &[], device),
        // Only the data section: there is no other.
        FsType::Xfs => Invocation::on_device("xfs_growfs", &["-d"], mounted),
    }
}

/// Online; `mounted` is one of the places where the filesystem is mounted for writing.
pub fn grow(fs_type: FsType, device: &BlockDevice, mounted: &Path) -> Result<(), MountError> {
    let invocation = grow_invocation(fs_type, &device.path, mounted);
    let output = invocation.run()?;
    if fs_type == FsType::Ext4 && output.code != Some(0) && output.text.contains("Permission denied to resize") {
        let text =
            "the kernel grows a mounted ext4 only for CAP_SYS_RESOURCE: give it to the node service and ask again";
        return Err(MountError::Refused(text.to_owned()));
    }
    output.expect_success(invocation.program)
}

/// For a filesystem that cannot be used as it is.
pub fn damaged(fs_type: FsType, device: &BlockDevice, reason: &str) -> MountError {
    let repair = match fs_type {
        FsType::Ext4 => "e2fsck",
        FsType::Xfs => "xfs_repair",
    };
    MountError::Damaged(format!(
        "the {fs_type} filesystem on {} cannot be used: {reason}. The volume is marked as used and is \
         never formatted anew; repair it with {repair}, or restore it",
        device.path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_filesystems_are_taken() {
        assert_eq!("xfs".parse::<FsType>().unwrap(), FsType::Xfs);
        for bad in ["", "ext3", "EXT4", "ext4 ", "ext4 -F", "../xfs", "btrfs", "nfs"] {
            assert!(bad.parse::<FsType>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn command_lines_have_no_force_and_end_the_options_before_the_device() {
        for fs_type in [FsType::Ext4, FsType::Xfs] {
            let arguments = make_invocation(fs_type, Path::new("-F")).arguments;
            assert_eq!(arguments[arguments.len() - 2..], ["--", "-F"]);
            let grow = grow_invocation(fs_type, Path::new("-f"), Path::new("-f")).arguments;
            assert_eq!(grow[grow.len() - 2..], ["--", "-f"]);
            let options = &arguments[..arguments.len() - 2];
            assert!(options.iter().all(|option| option != "-F" && option != "-f"), "{options:?}");
        }
    }
}
