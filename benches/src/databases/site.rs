//! Where a database's files are: a folder of the local filesystem, or ext4 on a block device of one of the candidates.

use crate::ceph::CephDevice;
use crate::front::Front;
use anyhow::{Context, Result};
use ashlar_tests::{run_ok, wait_until};
use nix::mount::{MsFlags, mount, umount};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// What stands behind a site's device, for as long as the site is there.
pub(super) enum Behind {
    /// The host's own filesystem: no device.
    Nothing,
    /// Somebody else holds it.
    Attached,
    Front(Front),
    Ceph(CephDevice),
}

pub(super) struct Site {
    pub(super) candidate: &'static str,
    pub(super) root: PathBuf,
    device: Option<PathBuf>,
    behind: Behind,
}

impl Site {
    pub(super) fn folder(candidate: &'static str, root: &Path) -> Result<Site> {
        fs::create_dir(root).with_context(|| format!("make {}", root.display()))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        Ok(Site { candidate, root: root.to_owned(), device: None, behind: Behind::Nothing })
    }

    /// Makes ext4 on the device and mounts it; whose every block is written already.
    pub(super) fn on_device(candidate: &'static str, root: &Path, device: &Path, behind: Behind) -> Result<Site> {
        let site = Site { device: Some(device.to_owned()), behind, ..Site::folder(candidate, root)? };
        let options = ["-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"];
        run_ok("mkfs.ext4", options.iter().map(Path::new).chain([device])).context("make ext4")?;
        let none: Option<&str> = None;
        mount(Some(device), root, Some("ext4"), MsFlags::MS_NOATIME, none)
            .with_context(|| format!("mount {} at {}", device.display(), root.display()))?;
        Ok(site)
    }

    /// Bytes that were written to its device since it is there.
    pub(super) fn device_bytes_written(&self) -> Result<Option<u64>> {
        let Some(name) = self.device.as_ref().and_then(|device| device.file_name()) else { return Ok(None) };
        let path = Path::new("/sys/block").join(name).join("stat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let sectors = text.split_whitespace().nth(6).context("sectors written")?;
        Ok(Some(512 * sectors.parse::<u64>()?))
    }

    /// Puts a copy of an image in the place of what is there, on stable media.
    pub(super) fn restore(&self, image: &Path, name: &str) -> Result<()> {
        let place = self.root.join(name);
        if place.exists() {
            fs::remove_dir_all(&place).with_context(|| format!("remove {}", place.display()))?;
        }
        run_ok("cp", [Path::new("--archive"), Path::new("--reflink=never"), image, &place])?;
        run_ok("sync", [Path::new("--file-system"), &place]).map(drop)
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        fs::remove_dir_all(self.root.join(name)).with_context(|| format!("remove {name}"))
    }

    pub(super) fn take_down(self) -> Result<()> {
        if self.device.is_some() {
            wait_until("a database's filesystem to be free", LIMIT, || Ok(Some(umount(&self.root)?)))?;
        }
        match self.behind {
            Behind::Front(front) => front.stop(),
            Behind::Ceph(device) => device.close(),
            Behind::Nothing | Behind::Attached => Ok(()),
        }
    }
}
