//! The program's place on the machine: one folder that holds everything, and through which PostgreSQL, who is not
//! root, comes to its files.
//!
//! ```text
//! DIR/c/     the cluster, for root only: the volume is mounted far below
//! DIR/data/  the same mount, bound to where its user may go, as a container's runtime does it for a pod
//! DIR/run/   PostgreSQL's socket and logs
//! ```

use crate::postgres::User;
use anyhow::{Context, Result, ensure};
use ashlar_tests::{Leftovers, scratch_dir, sweep, wait_until};
use nix::mount::{MsFlags, mount};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

/// Backends end by themselves when their server is gone.
const EXIT_LIMIT: Duration = Duration::from_secs(20);

pub struct Stage {
    dir: PathBuf,
}

impl Stage {
    pub fn set_up() -> Result<Stage> {
        let stage = Stage { dir: scratch_dir("databases")? };
        let user = User::postgres()?;
        for dir in [stage.run_dir(), stage.data_dir()] {
            fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        chown(stage.run_dir(), Some(user.uid), Some(user.gid)).context("give a folder to postgres")?;
        // Others may pass through, and see nothing.
        fs::set_permissions(&stage.dir, Permissions::from_mode(0o711)).context("open the folder")?;
        Ok(stage)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn cluster_dir(&self) -> PathBuf {
        self.dir.join("c")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Shows the mounted volume where PostgreSQL may go.
    pub fn bind(&self, target: &Path) -> Result<()> {
        let none: Option<&str> = None;
        mount(Some(target), &self.data_dir(), none, MsFlags::MS_BIND, none).context("bind the volume")
    }

    pub fn unbind(&self) -> Result<()> {
        nix::mount::umount(&self.data_dir()).context("take away the bind of the volume")
    }
}

/// Takes away whatever there is of a stage; fine when there is nothing.
pub fn clear(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    sweep(dir)?;
    let removed = || Ok(Some(fs::remove_dir_all(dir)?));
    wait_until("the folder to be free", EXIT_LIMIT, removed).with_context(|| format!("remove {}", dir.display()))?;
    let left = Leftovers::of(dir)?;
    ensure!(left.is_empty(), "the program left {left}");
    Ok(())
}
