//! The program's place on the machine: one folder that holds everything.

use anyhow::{Context, Result};
use ashlar_tests::scratch_dir;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub struct Stage {
    dir: PathBuf,
}

impl Stage {
    pub fn set_up() -> Result<Stage> {
        Ok(Stage { dir: scratch_dir("torture")? })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn cluster_dir(&self) -> PathBuf {
        self.dir.join("c")
    }

    /// Copies the daemons' logs to a folder that stays.
    pub fn keep_logs(&self, seed: u64) -> Result<PathBuf> {
        let kept = scratch_dir(&format!("torture-logs-{seed}"))?;
        for entry in fs::read_dir(self.cluster_dir().join("logs")).context("list the logs")? {
            let log = entry?;
            fs::copy(log.path(), kept.join(log.file_name())).context("keep a log")?;
        }
        Ok(kept)
    }
}

pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
