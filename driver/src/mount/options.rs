//! Mount options: a list of those that are let through, for each filesystem. Whatever is not in the list is refused,
//! so that no request can point a mount at another device, weaken its durability or reach into the options that
//! follow.
//!
//! Every mount has `nosuid` and `nodev`.

use super::error::MountError;
use super::filesystem::FsType;
use nix::mount::MsFlags;

/// Options of one request; no list of flags is longer.
const OPTIONS_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    pub flags: MsFlags,
    /// Options that the filesystem itself reads, separated by commas.
    pub data: String,
}

/// Flags of the mount: name, bits to set, bits to clear.
const FLAGS: [(&str, MsFlags, MsFlags); 14] = [
    ("defaults", MsFlags::empty(), MsFlags::empty()),
    ("ro", MsFlags::MS_RDONLY, MsFlags::empty()),
    ("rw", MsFlags::empty(), MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID, MsFlags::empty()),
    ("nodev", MsFlags::MS_NODEV, MsFlags::empty()),
    ("noexec", MsFlags::MS_NOEXEC, MsFlags::empty()),
    ("exec", MsFlags::empty(), MsFlags::MS_NOEXEC),
    ("noatime", MsFlags::MS_NOATIME, MsFlags::MS_RELATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME, MsFlags::empty()),
    ("relatime", MsFlags::MS_RELATIME, MsFlags::MS_NOATIME),
    ("strictatime", MsFlags::MS_STRICTATIME, MsFlags::MS_NOATIME),
    ("lazytime", MsFlags::MS_LAZYTIME, MsFlags::empty()),
    ("sync", MsFlags::MS_SYNCHRONOUS, MsFlags::empty()),
    ("dirsync", MsFlags::MS_DIRSYNC, MsFlags::empty()),
];

/// Options without a value that go to the filesystem.
const EXT4_WORDS: [&str; 8] = [
    "discard",
    "nodiscard",
    "delalloc",
    "nodelalloc",
    "data=ordered",
    "data=journal",
    "errors=remount-ro",
    "errors=panic",
];
const XFS_WORDS: [&str; 7] = ["discard", "nodiscard", "inode32", "inode64", "largeio", "nolargeio", "swalloc"];

/// Options with a number: name, least, greatest.
const EXT4_NUMBERS: [(&str, u32, u32); 2] = [("commit", 1, 300), ("stripe", 0, 65_536)];
const XFS_NUMBERS: [(&str, u32, u32); 1] = [("logbufs", 2, 8)];

impl MountOptions {
    pub fn parse(fs_type: FsType, flags: &[String]) -> Result<MountOptions, MountError> {
        if flags.len() > OPTIONS_MAX {
            return Err(refuse(format!("{} mount flags are given, at most {OPTIONS_MAX} are allowed", flags.len())));
        }
        let mut options = MountOptions { flags: MsFlags::MS_NOSUID | MsFlags::MS_NODEV, data: String::new() };
        // One entry may hold several, as in fstab.
        for option in flags.iter().flat_map(|flag| flag.split(',')) {
            options.add(fs_type, option)?;
        }
        Ok(options)
    }

    fn add(&mut self, fs_type: FsType, option: &str) -> Result<(), MountError> {
        if let Some((_, set, clear)) = FLAGS.iter().find(|(name, _, _)| *name == option) {
            self.flags.insert(*set);
            self.flags.remove(*clear);
            return Ok(());
        }
        if !is_allowed(fs_type, option) {
            let shown: String = option.chars().take(64).collect();
            return Err(refuse(format!(
                "mount flag {shown:?} is not among those allowed for {fs_type}: {}",
                allowed(fs_type)
            )));
        }
        self.push(option);
        Ok(())
    }

    pub fn is_read_only(&self) -> bool {
        self.flags.contains(MsFlags::MS_RDONLY)
    }

    pub fn read_only(mut self) -> MountOptions {
        self.flags.insert(MsFlags::MS_RDONLY);
        self
    }

    /// For a filesystem that may be a copy of one that is mounted on this node too: xfs takes no second one of the same
    /// identity unless told. Not a flag of requests, because it also lets one device be mounted twice by mistake.
    pub fn of_copy(mut self, fs_type: FsType) -> MountOptions {
        if fs_type == FsType::Xfs {
            self.push("nouuid");
        }
        self
    }

    fn push(&mut self, option: &str) {
        if !self.data.is_empty() {
            self.data.push(',');
        }
        self.data.push_str(option);
    }

    /// The flags that belong to a mount and not to its filesystem: what a bind mount repeats.
    pub fn bind_flags(&self) -> MsFlags {
        let of_the_mount = MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC
            | MsFlags::MS_NOATIME
            | MsFlags::MS_NODIRATIME
            | MsFlags::MS_RELATIME;
        self.flags & of_the_mount
    }
}

fn words(fs_type: FsType) -> &'static [&'static str] {
    match fs_type {
        FsType::Ext4 => &EXT4_WORDS,
        FsType::Xfs => &XFS_WORDS,
    }
}

fn numbers(fs_type: FsType) -> &'static [(&'static str, u32, u32)] {
    match fs_type {
        FsType::Ext4 => &EXT4_NUMBERS,
        FsType::Xfs => &XFS_NUMBERS,
    }
}

fn is_allowed(fs_type: FsType, option: &str) -> bool {
    if words(fs_type).contains(&option) {
        return true;
    }
    let Some((name, value)) = option.split_once('=') else { return false };
    let digits = !value.is_empty() && value.len() <= 6 && value.bytes().all(|byte| byte.is_ascii_digit());
    let in_range =
        |least: u32, greatest: u32| value.parse().is_ok_and(|value: u32| (least..=greatest).contains(&value));
    digits && numbers(fs_type).iter().any(|&(known, least, greatest)| known == name && in_range(least, greatest))
}

fn allowed(fs_type: FsType) -> String {
    let flags = FLAGS.iter().map(|(name, _, _)| (*name).to_owned());
    let words = words(fs_type).iter().map(|word| (*word).to_owned());
    let numbers = numbers(fs_type).iter().map(|(name, least, greatest)| format!("{name}={least}..{greatest}"));
    flags.chain(words).chain(numbers).collect::<Vec<_>>().join(" ")
}

fn refuse(reason: String) -> MountError {
    MountError::Unsupported(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(fs_type: FsType, flags: &[&str]) -> Result<MountOptions, MountError> {
        MountOptions::parse(fs_type, &flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn nosuid_and_nodev_are_always_there() {
        let always = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        assert_eq!(parse(FsType::Ext4, &[]).unwrap(), MountOptions { flags: always, data: String::new() });
        for undo in ["suid", "dev"] {
            assert!(parse(FsType::Ext4, &[undo]).is_err(), "{undo}");
        }
    }

    #[test]
    fn allowed_options_become_flags_and_data() {
        let options = parse(FsType::Ext4, &["noatime,discard", "commit=30", "ro"]).unwrap();
        assert!(options.is_read_only() && options.flags.contains(MsFlags::MS_NOATIME));
        assert_eq!(options.data, "discard,commit=30");
        assert!(!parse(FsType::Xfs, &["ro", "rw"]).unwrap().is_read_only());
    }

    #[test]
    fn a_copy_may_be_mounted_beside_its_origin() {
        let data = |fs_type, flags: &[&str]| parse(fs_type, flags).unwrap().of_copy(fs_type).data;
        assert_eq!([data(FsType::Xfs, &[]), data(FsType::Xfs, &["discard"])], ["nouuid", "discard,nouuid"]);
        assert_eq!(data(FsType::Ext4, &["discard"]), "discard", "ext4 asks for nothing of the kind");
    }

    #[test]
    fn what_could_lose_or_leak_data_is_refused() {
        let hostile = [
            "nobarrier",
            "barrier=0",
            "noload",
            "norecovery",
            "data=writeback",
            "journal_dev=8:1",
            "journal_path=/dev/sda",
            "logdev=/dev/sda",
            "rtdev=/dev/sda",
            "nouuid",
            "loop",
            "bind",
            "remount",
            "commit=0",
            "commit=301",
            "commit=+5",
            "commit=",
            "context=x",
            "uid=0",
            "",
            "ro ",
            "RO",
            "a\0b",
            "errors=continue",
            "discard=x",
            "commit=5\nx",
        ];
        for option in hostile {
            for fs_type in [FsType::Ext4, FsType::Xfs] {
                assert!(parse(fs_type, &[option]).is_err(), "{option:?} on {fs_type}");
            }
        }
        assert!(parse(FsType::Xfs, &["commit=30"]).is_err());
        assert!(parse(FsType::Ext4, &["ro"; OPTIONS_MAX + 1]).is_err());
    }

    proptest! {
        #[test]
        fn data_holds_allowed_options_only(flags in proptest::collection::vec("[a-z=,0-9 \\\\]{0,20}", 0..6)) {
            if let Ok(options) = MountOptions::parse(FsType::Ext4, &flags) {
                let parts = options.data.split_terminator(',').collect::<Vec<_>>();
                prop_assert!(parts.iter().all(|part| is_allowed(FsType::Ext4, part)), "{:?}", parts);
            }
        }
    }
}
