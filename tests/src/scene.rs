//! The frame of one test on real daemons: a small cluster of its own, a folder for files, and everything gone
//! afterwards.

use crate::{DevCluster, Leftovers, scratch_dir, sweep};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Three of these are written in full for each test, so they are as small as the volumes of the tests allow.
const DISK_SIZE: &str = "1G";
const JOURNAL_SIZE: &str = "64M";

/// What a test has.
pub struct Scene {
    pub cluster: DevCluster,
    files: PathBuf,
}

impl Scene {
    /// A folder for the test's own files.
    pub fn files(&self) -> &Path {
        &self.files
    }
}

/// Runs a test on three nodes. A failure shows the end of each daemon's log; a success includes that nothing was left
/// behind.
pub fn on_cluster(label: &str, test: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    on_cluster_with(label, DISK_SIZE, test)
}

/// The same, with disks of another size.
pub fn on_cluster_with(label: &str, disk_size: &str, test: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    let dir = ScratchDir(scratch_dir(label)?);
    let files = dir.0.join("files");
    fs::create_dir(&files).context("make a folder for files")?;
    let cluster = DevCluster::up(&dir.0.join("c"), 3, disk_size, Some(JOURNAL_SIZE)).context("start a cluster")?;
    let scene = Scene { cluster, files };
    if let Err(error) = test(&scene) {
        eprintln!("{}", scene.cluster.log_tails());
        return Err(error);
    }
    scene.cluster.down().context("stop the cluster")?;
    let left = Leftovers::of(&dir.0)?;
    ensure!(left.is_empty(), "the test left {left}");
    Ok(())
}

/// Emptied and removed however the test ends.
struct ScratchDir(PathBuf);

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let gone = sweep(&self.0).and_then(|()| fs::remove_dir_all(&self.0).context("remove the folder"));
        if let Err(error) = gone {
            eprintln!("{} was not wholly removed: {error:#}", self.0.display());
        }
    }
}
