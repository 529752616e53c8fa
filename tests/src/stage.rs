//! A demo's place on the machine: one folder that holds everything, and the promise that nothing of it stays,
//! however the demo ends, on Ctrl-C too.
//!
//! Whatever the demo starts has a path below the folder among its arguments, so the folder is enough to find it
//! again.

use crate::{Leftovers, cluster::scratch_dir_in, on_interrupt, scratch_dir, sweep, wait_until};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// For the last processes to let go of the folder: backends of PostgreSQL end by themselves when their server is gone.
const EXIT_LIMIT: Duration = Duration::from_secs(20);

pub struct Stage {
    label: &'static str,
    dir: PathBuf,
}

impl Stage {
    /// From here on Ctrl-C and SIGTERM end the process at once, and leave no more behind than its own end does.
    pub fn set_up(label: &'static str) -> Result<Stage> {
        Stage::in_dir(label, scratch_dir(label)?)
    }

    /// The same below a folder of one's choice.
    pub fn set_up_in(parent: &Path, label: &'static str) -> Result<Stage> {
        Stage::in_dir(label, scratch_dir_in(parent, label)?)
    }

    fn in_dir(label: &'static str, dir: PathBuf) -> Result<Stage> {
        let stage = Stage { label, dir };
        fs::create_dir(stage.run_dir()).context("make the folder for sockets and logs")?;
        let dir = stage.dir.clone();
        on_interrupt(label, move || clear_stage(&dir))?;
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
        let kept = scratch_dir(&format!("{}-logs", self.label))?;
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
pub fn clear_stage(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    sweep(dir)?;
    let removed = || Ok(Some(fs::remove_dir_all(dir)?));
    wait_until("the folder to be free", EXIT_LIMIT, removed).with_context(|| format!("remove {}", dir.display()))?;
    let left = Leftovers::of(dir)?;
    anyhow::ensure!(left.is_empty(), "what was started there left {left}");
    Ok(())
}
