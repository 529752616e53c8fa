//! The demo's place on the machine: one folder that holds everything, and the promise that nothing of it stays,
//! however the demo ends.
//!
//! Whatever the demo starts has a path below the folder among its arguments, so the folder is enough to find it
//! again.

use anyhow::{Context, Result};
use ashlar_tests::{Leftovers, scratch_dir, sweep};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub struct Stage {
    dir: PathBuf,
}

impl Stage {
    pub fn set_up() -> Result<Stage> {
        let stage = Stage { dir: scratch_dir("demo")? };
        fs::create_dir(stage.run_dir()).context("make the folder for sockets and logs")?;
        Ok(stage)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The dev cluster's own folder.
    pub fn cluster_dir(&self) -> PathBuf {
        self.dir.join("c")
    }

    /// For what belongs to the demo and not to the cluster: sockets and logs.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Copies the logs to a folder that stays.
    pub fn keep_logs(&self) -> Result<PathBuf> {
        let kept = scratch_dir("demo-logs")?;
        for dir in [self.cluster_dir().join("logs"), self.run_dir()] {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    fs::copy(&path, kept.join(path.file_name().context("a log has a name")?)).context("copy a log")?;
                }
            }
        }
        Ok(kept)
    }
}

/// Takes away whatever there is of a stage; fine when there is nothing.
pub fn clear(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    sweep(dir)?;
    fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    let left = Leftovers::of(dir)?;
    anyhow::ensure!(left.is_empty(), "the demo left {left}");
    Ok(())
}
