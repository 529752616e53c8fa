//! A PostgreSQL server of one's own on the volume: made with checksums, started, asked, stopped, killed.
//!
//! It runs as the user that Debian's package makes, because PostgreSQL refuses to be root. Durability is the default's:
//! each commit waits for its flush. Little memory and frequent checkpoints, unless told otherwise, make it write its
//! pages, and not its log alone.

use crate::wait_until;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const BINARIES: &str = "/usr/lib/postgresql";
/// Its recovery after a crash is part of this.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(120);
const SMALL: [&str; 3] = ["shared_buffers=32MB", "max_wal_size=64MB", "checkpoint_timeout=30s"];
const OPTIONS: [&str; 5] =
    ["listen_addresses=", "fsync=on", "synchronous_commit=on", "full_page_writes=on", "log_checkpoints=on"];
/// Values alone are printed; the first error ends it.
const CLIENT_OPTIONS: [&str; 5] = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"];

/// Who PostgreSQL's programs run as.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    pub fn postgres() -> Result<User> {
        let user = nix::unistd::User::from_name("postgres").context("look up the user postgres")?;
        let user = user.context("there is no user postgres: install Debian's postgresql (deploy/install.sh test)")?;
        Ok(User { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }
}

/// Where a server's programs and files are.
#[derive(Clone, Debug)]
pub struct Installation {
    binaries: PathBuf,
    user: User,
    data: PathBuf,
    run: PathBuf,
    memory: Vec<String>,
}

impl Installation {
    /// `volume` is where the volume is mounted, `run` a folder of the user's.
    pub fn find(volume: &Path, run: &Path) -> Result<Installation> {
        let versions = fs::read_dir(BINARIES).with_context(|| format!("{BINARIES}: install Debian's postgresql"))?;
        let mut found: Vec<(u32, PathBuf)> = versions
            .filter_map(|entry| {
                let dir = entry.ok()?.path();
                let version = dir.file_name()?.to_str()?.parse().ok()?;
                dir.join("bin/initdb").exists().then(|| (version, dir.join("bin")))
            })
            .collect();
        found.sort();
        let (_, binaries) = found.pop().with_context(|| format!("no initdb below {BINARIES}"))?;
        Ok(Installation {
            binaries,
            user: User::postgres()?,
            data: volume.join("pg"),
            run: run.to_owned(),
            memory: SMALL.map(str::to_owned).into(),
        })
    }

    /// The same, with these settings of memory and checkpoints.
    pub fn with_memory(self, settings: &[&str]) -> Installation {
        Installation { memory: settings.iter().map(|setting| (*setting).to_owned()).collect(), ..self }
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// One of PostgreSQL's programs, as its user.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        // A folder that the user may not enter is in the way of programs that look where they are.
        command.uid(self.user.uid).gid(self.user.gid).current_dir(&self.run).stdin(Stdio::null());
        command
    }

    /// Arguments by which clients find the server.
    pub fn connection(&self) -> [String; 2] {
        [format!("--host={}", self.run.display()), "--username=postgres".to_owned()]
    }

    /// A client for statements that come one after another.
    pub fn client(&self) -> Command {
        let mut command = self.command("psql");
        command.args(self.connection()).args(CLIENT_OPTIONS);
        command
    }

    pub fn log(&self, name: &str) -> Result<File> {
        let path = self.run.join(name);
        File::options().create(true).append(true).open(&path).with_context(|| format!("open {}", path.display()))
    }

    /// Runs to the end and gives what was printed.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
        let output = self.command(program).args(args).output().with_context(|| format!("run {program}"))?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{program} failed ({}): {stdout}{stderr}", output.status);
        Ok(stdout.into_owned())
    }

    /// An empty database with checksums on every page.
    pub fn initialize(&self) -> Result<()> {
        fs::create_dir(&self.data).context("make the data directory")?;
        chown(&self.data, Some(self.user.uid), Some(self.user.gid)).context("give the data directory to postgres")?;
        let data = format!("--pgdata={}", self.data.display());
        self.run("initdb", [&data, "--data-checksums", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])?;
        Ok(())
    }
}

impl Installation {
    /// A restored data directory names the server that wrote to it. Elsewhere nobody has that pid; here it runs, and
    /// PostgreSQL would take the directory for one in use.
    pub fn forget_origin(&self) -> Result<()> {
        fs::remove_file(self.data.join("postmaster.pid")).context("forget the origin's server")
    }
}

/// A running server; killed when dropped.
pub struct Server {
    installation: Installation,
    process: Child,
}

impl Server {
    /// Starts it and waits until it answers.
    pub fn start(installation: &Installation) -> Result<Server> {
        let log = installation.log("postgres.log")?;
        let process = installation
            .command("postgres")
            .arg("-D")
            .arg(&installation.data)
            .arg("-k")
            .arg(&installation.run)
            .args(OPTIONS.iter().flat_map(|option| ["-c", option]))
            .args(installation.memory.iter().flat_map(|option| ["-c", option]))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("run postgres")?;
        let mut server = Server { installation: installation.clone(), process };
        let answers = wait_until("PostgreSQL to answer", START_LIMIT, || server.answers()).flatten();
        answers.with_context(|| server.last_words())?;
        Ok(server)
    }

    /// `None`: not yet. A server that has ended never will.
    fn answers(&mut self) -> Result<Option<Result<()>>> {
        if self.query("SELECT 1").is_ok() {
            return Ok(Some(Ok(())));
        }
        let ended = self.process.try_wait()?;
        Ok(ended.map(|status| Err(anyhow!("postgres ended: {status}"))))
    }

    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Runs statements and gives the rows, one a line, columns parted by `|`.
    pub fn query(&self, statements: &str) -> Result<String> {
        let mut args = self.installation.connection().to_vec();
        args.extend(CLIENT_OPTIONS.map(str::to_owned));
        args.extend(["--command".to_owned(), statements.to_owned()]);
        self.installation.run("psql", args).with_context(|| format!("ask PostgreSQL: {statements}"))
    }

    /// The server and all its backends, as they are now.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        let server = self.process.id() as i32;
        let path = format!("/proc/{server}/task/{server}/children");
        let children = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let children = children.split_whitespace().map(|pid| pid.parse().context("a child's pid"));
        let children: Vec<i32> = children.collect::<Result<_>>()?;
        Ok(std::iter::once(server).chain(children).map(Pid::from_raw).collect())
    }

    /// Shuts down in good order; clients are disconnected.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGINT).context("ask postgres to stop")?;
        let status = wait_until("postgres to stop", STOP_LIMIT, || Ok(self.process.try_wait()?))?;
        if !status.success() {
            bail!("postgres ended with {status}: {}", self.last_words());
        }
        Ok(())
    }

    /// Collects a server that was killed.
    pub fn reap(mut self) -> Result<()> {
        self.process.wait().context("wait for the killed postgres")?;
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.installation.run.join("postgres.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("PostgreSQL's log ends with:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // Both can only fail when it has just ended.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
