//! The front-end over a local file, as a process (`front/`): the product's own front-end, and nothing behind it.

use anyhow::{Context, Result, ensure};
use ashlar_tests::{program, wait_until};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A running front-end; it ends with this value, or with this process.
pub(crate) struct Front {
    process: Child,
    /// The socket, or the block device.
    place: PathBuf,
}

impl Front {
    pub(crate) fn nbd(file: &Path, socket: &Path) -> Result<Front> {
        Front::start(file, "--nbd", socket)
    }

    pub(crate) fn device(file: &Path, mount_point: &Path) -> Result<Front> {
        Front::start(file, "--mount", mount_point)
    }

    fn start(file: &Path, option: &str, place: &Path) -> Result<Front> {
        let mut process = Command::new(program("ashlar-bench-front")?)
            .arg("--file")
            .arg(file)
            .arg(option)
            .arg(place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run ashlar-bench-front")?;
        let mut line = String::new();
        let output = process.stdout.take().context("a front-end has an output")?;
        BufReader::new(output).read_line(&mut line).context("wait for the front-end")?;
        let front = Front { process, place: PathBuf::from(line.trim()) };
        ensure!(!line.is_empty(), "the front-end has ended before it served");
        Ok(front)
    }

    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// Ends it, and waits for it: its device is gone then.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.process.stdin.take());
        let status = wait_until("the front-end to end", STOP_LIMIT, || Ok(self.process.try_wait()?))?;
        ensure!(status.success(), "the front-end ended with {status}");
        Ok(())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let ended = wait_until("the front-end to end", STOP_LIMIT, || Ok(self.process.try_wait()?));
        if ended.is_err() {
            // Both can only fail when it has just ended.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
