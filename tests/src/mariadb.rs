//! A MariaDB server of one's own on the volume: made, started, asked, stopped.
//!
//! Everything durable is on the volume. Socket and pid file are beside it, because a socket's path must be short and
//! a reboot would lose both. Durability is as a careful administrator sets it: each commit flushes the redo log and
//! the binary log.

use crate::{run, run_ok, wait_until};
use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// InnoDB's recovery after a crash is part of this.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// Where a server keeps what.
#[derive(Clone)]
pub struct MariaPaths {
    /// On the volume.
    pub data: PathBuf,
    /// On the volume: for large sorts.
    pub scratch: PathBuf,
    pub socket: PathBuf,
    pub log: PathBuf,
}

impl MariaPaths {
    pub fn new(volume: &Path, run: &Path) -> MariaPaths {
        MariaPaths {
            data: volume.join("mysql"),
            scratch: volume.join("tmp"),
            socket: run.join("mariadb.sock"),
            log: run.join("mariadb.log"),
        }
    }
}

/// A running server; killed when dropped.
pub struct MariaDb {
    paths: MariaPaths,
    process: Child,
}

impl MariaDb {
    /// Makes the system tables in an empty data directory.
    pub fn initialize(paths: &MariaPaths) -> Result<()> {
        fs::create_dir_all(&paths.data).context("make the data directory")?;
        fs::create_dir_all(&paths.scratch).context("make the directory for temporary files")?;
        let args = [
            "--no-defaults".to_owned(),
            "--user=root".to_owned(),
            "--skip-test-db".to_owned(),
            "--auth-root-authentication-method=normal".to_owned(),
            format!("--datadir={}", paths.data.display()),
            format!("--tmpdir={}", paths.scratch.display()),
        ];
        run_ok("mariadb-install-db", args).context("make the system tables")?;
        Ok(())
    }

    /// Starts the server and waits until it answers.
    pub fn start(paths: &MariaPaths) -> Result<MariaDb> {
        let log = File::options().create(true).append(true).open(&paths.log).context("open MariaDB's log")?;
        let process = Command::new("mariadbd")
            .args(MariaDb::options(paths))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("run mariadbd")?;
        let mut server = MariaDb { paths: paths.clone(), process };
        let answers = wait_until("MariaDB to answer", START_LIMIT, || server.answers()).flatten();
        answers.with_context(|| server.last_words())?;
        Ok(server)
    }

    fn options(paths: &MariaPaths) -> Vec<String> {
        let fixed = [
            "--no-defaults",
            "--user=root",
            "--skip-networking",
            "--innodb_flush_log_at_trx_commit=1",
            "--sync_binlog=1",
            "--log-bin=binlog",
            "--server-id=1",
            "--innodb_flush_method=O_DIRECT",
            "--innodb_buffer_pool_size=256M",
            "--innodb_log_file_size=256M",
            "--max_connections=64",
        ];
        let mut options: Vec<String> = fixed.map(str::to_owned).into();
        options.push(format!("--datadir={}", paths.data.display()));
        options.push(format!("--tmpdir={}", paths.scratch.display()));
        options.push(format!("--socket={}", paths.socket.display()));
        options.push(format!("--pid-file={}", paths.socket.with_extension("pid").display()));
        options
    }

    /// `None`: not yet. A server that has ended never will.
    fn answers(&mut self) -> Result<Option<Result<()>>> {
        let output = run("mariadb-admin", ["--no-defaults", "--user=root", &self.socket_option(), "ping"])?;
        if output.success {
            return Ok(Some(Ok(())));
        }
        let ended = self.process.try_wait()?;
        Ok(ended.map(|status| Err(anyhow!("mariadbd ended: {status}"))))
    }

    /// A client for statements that come one after another.
    pub fn client(&self, database: &str) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--user=root", "-N", "-B", "--unbuffered", "--skip-reconnect"]);
        command.args([&self.socket_option(), database]);
        command
    }

    pub fn socket(&self) -> &Path {
        &self.paths.socket
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    fn socket_option(&self) -> String {
        format!("--socket={}", self.paths.socket.display())
    }

    /// Runs statements and gives the rows, one a line, columns parted by tabs.
    pub fn query(&self, statements: &str) -> Result<String> {
        let args = ["--no-defaults", "--user=root", &self.socket_option(), "-N", "-B", "-e", statements];
        run_ok("mariadb", args).context("ask MariaDB")
    }

    /// CHECK TABLE of each must find nothing.
    pub fn check_tables(&self, tables: impl IntoIterator<Item = String>) -> Result<()> {
        for table in tables {
            let answer = self.query(&format!("CHECK TABLE {table}"))?;
            if !answer.lines().all(|line| line.ends_with("\tOK")) {
                bail!("CHECK TABLE {table}: {answer}");
            }
        }
        Ok(())
    }

    /// Shuts down in good order.
    pub fn stop(mut self) -> Result<()> {
        kill(self.pid(), Signal::SIGTERM).context("ask mariadbd to stop")?;
        let status = wait_until("mariadbd to stop", STOP_LIMIT, || Ok(self.process.try_wait()?))?;
        if !status.success() {
            bail!("mariadbd ended with {status}: {}", self.last_words());
        }
        Ok(())
    }

    /// Collects a server that was killed.
    pub fn reap(mut self) -> Result<()> {
        self.process.wait().context("wait for the killed mariadbd")?;
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.paths.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("MariaDB's log ends with:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // Both can only fail when it has just ended.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
