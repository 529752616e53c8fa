//! The program's place on the machine: one folder that holds everything, and how it goes away again.

use anyhow::{Context, Result, ensure};
use ashlar_tests::{Leftovers, scratch_dir, sweep, wait_until};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const EXIT_LIMIT: Duration = Duration::from_secs(20);

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

/// Ctrl-C and SIGTERM end the program at once and leave no more behind than its own end does.
pub fn clear_on_signal(dir: PathBuf) -> Result<()> {
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
            eprintln!("ashlar-torture: cannot hear of signals: {error}");
            return;
        }
        eprintln!("\nashlar-torture: interrupted, clearing away");
        if let Err(error) = clear(&dir) {
            eprintln!("ashlar-torture: {error:#}");
        }
        std::process::exit(130);
    });
    Ok(())
}
