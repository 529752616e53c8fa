//! The load: pgbench's transfers between accounts, tellers and branches, each with a row of history.

use anyhow::{Context, Result, bail};
use ashlar_tests::postgres::{Installation, Server};
use ashlar_tests::wait_until;
use nix::unistd::Pid;
use std::{process::Child, time::Duration};

/// 100,000 accounts each.
const SCALE: u32 = 4;
const CLIENTS: u32 = 4;
/// Longer than any round.
const SECONDS_MAX: u32 = 3600;
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

/// Makes and fills the tables.
pub fn prepare(server: &Server) -> Result<()> {
    let mut args = server.installation().connection().to_vec();
    args.extend(["--initialize".to_owned(), format!("--scale={SCALE}"), "--quiet".to_owned()]);
    server.installation().run("pgbench", args).context("fill pgbench's tables").map(drop)
}

/// Transfers ever made.
pub fn transfers(server: &Server) -> Result<u64> {
    server.query("SELECT count(*) FROM pgbench_history")?.trim().parse().context("rows of history")
}

/// A run of pgbench; killed when dropped.
pub struct Load {
    process: Child,
}

impl Load {
    /// Without vacuum: that would empty the history, by which the sums are checked.
    pub fn start(installation: &Installation) -> Result<Load> {
        let log = installation.log("pgbench.log")?;
        let process = installation
            .command("pgbench")
            .args(installation.connection())
            .arg("--no-vacuum")
            .arg(format!("--client={CLIENTS}"))
            .arg(format!("--time={SECONDS_MAX}"))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("run pgbench")?;
        Ok(Load { process })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    /// Waits until so many more transfers are committed than now.
    pub fn wait_for_more(&mut self, server: &Server, count: u64) -> Result<()> {
        let wanted = transfers(server)? + count;
        wait_until("pgbench to go on", PROGRESS_LIMIT, || {
            if self.process.try_wait()?.is_some() {
                return Ok(Some(false));
            }
            Ok((transfers(server)? >= wanted).then_some(true))
        })?
        .then_some(())
        .context("pgbench has ended: an error was shown to it")
    }

    /// Ends it; had it ended by itself, it had met an error.
    pub fn stop(mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("pgbench has ended with {status}: an error was shown to it");
        }
        self.process.kill().context("end pgbench")?;
        self.reap()
    }

    /// Collects a run that was killed.
    pub fn reap(mut self) -> Result<()> {
        self.process.wait().context("wait for pgbench").map(drop)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // Both can only fail when it has just ended.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
