//! The program's place on the machine: one folder that holds everything, and through which PostgreSQL, who is not
//! root, comes to its files.
//!
//! ```text
//! DIR/c/               the cluster, for root only: volumes are mounted far below
//! DIR/origin/data/     the same mount, bound to where its user may go, as a container's runtime does it for a pod
//! DIR/origin/run/      PostgreSQL's socket and logs
//! DIR/restored/        the same of a restored volume
//! DIR/mariadb/         sockets and logs of MariaDB's servers, which are root
//! ```

use anyhow::{Context, Result};
use ashlar_tests::postgres::{Installation, User};
use ashlar_tests::scratch_dir;
use nix::mount::{MsFlags, mount};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

pub struct Stage {
    dir: PathBuf,
}

/// Where one PostgreSQL comes to its volume.
pub struct Berth {
    data: PathBuf,
    run: PathBuf,
}

impl Stage {
    pub fn set_up() -> Result<Stage> {
        let stage = Stage { dir: scratch_dir("databases")? };
        let user = User::postgres()?;
        for berth in [stage.origin(), stage.restored()] {
            for dir in [&berth.data, &berth.run] {
                fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
            }
            chown(&berth.run, Some(user.uid), Some(user.gid)).context("give a folder to postgres")?;
        }
        fs::create_dir(stage.mariadb_dir()).context("make MariaDB's folder")?;
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

    pub fn mariadb_dir(&self) -> PathBuf {
        self.dir.join("mariadb")
    }

    pub fn origin(&self) -> Berth {
        self.berth("origin")
    }

    pub fn restored(&self) -> Berth {
        self.berth("restored")
    }

    fn berth(&self, name: &str) -> Berth {
        let dir = self.dir.join(name);
        Berth { data: dir.join("data"), run: dir.join("run") }
    }
}

impl Berth {
    pub fn installation(&self) -> Result<Installation> {
        Installation::find(&self.data, &self.run)
    }

    /// Shows the mounted volume where PostgreSQL may go.
    pub fn bind(&self, target: &Path) -> Result<()> {
        let none: Option<&str> = None;
        mount(Some(target), &self.data, none, MsFlags::MS_BIND, none).context("bind the volume")
    }

    pub fn unbind(&self) -> Result<()> {
        nix::mount::umount(&self.data).context("take away the bind of the volume")
    }
}
