//! A demo's place on the machine: one folder that holds everything, and the promise that nothing of it stays,
//! however the demo ends, on Ctrl-C too.
//!
//! Whatever the demo starts has a path below the folder among its arguments, so the folder is enough to find it
//! again.

use crate::{Leftovers, scratch_dir, sweep};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub struct Stage {
    label: &'static str,
    dir: PathBuf,
}

impl Stage {
    /// From here on Ctrl-C and SIGTERM end the process at once, and leave no more behind than its own end does.
    pub fn set_up(label: &'static str) -> Result<Stage> {
        let stage = Stage { label, dir: scratch_dir(label)? };
        fs::create_dir(stage.run_dir()).context("make the folder for sockets and logs")?;
        clear_on_signal(label, stage.dir.clone())?;
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
    fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    let left = Leftovers::of(dir)?;
    anyhow::ensure!(left.is_empty(), "the demo left {left}");
    Ok(())
}

fn clear_on_signal(label: &'static str, dir: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    std::thread::spawn(move || {
        let waited = runtime.block_on(async {
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::select! {
                signal = tokio::signal::ctrl_c() => signal,
                _ = terminate.recv() => Ok(()),
            }
        });
        if let Err(error) = waited {
            eprintln!("{label}: cannot hear of signals: {error}");
            return;
        }
        eprintln!("\n{label}: interrupted, clearing away");
        if let Err(error) = clear_stage(&dir) {
            eprintln!("{label}: {error:#}");
        }
        std::process::exit(130);
    });
    Ok(())
}
