//! A client that knows what was promised to it: it commits numbered rows, one after another on one connection, and
//! counts each that the server has shown to it after the COMMIT. The count is in this process, out of reach of the
//! crash.

use crate::postgres::{Installation, Server};
use anyhow::{Context, Result, anyhow, bail};
use ashlar_tests::wait_until;
use nix::unistd::Pid;
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

pub fn create(server: &Server) -> Result<()> {
    server.query("CREATE TABLE ledger (n bigint PRIMARY KEY, seal text NOT NULL)").map(drop)
}

/// Every row up to `seen` must be there, whole. Gives the last row: the one after `seen` may have been committed in the
/// moment of a crash.
pub fn verify(server: &Server, seen: u64) -> Result<u64> {
    let rows = server.query("SELECT n FROM ledger WHERE seal = md5(n::text) ORDER BY n")?;
    let rows: BTreeSet<u64> =
        rows.lines().map(|row| row.parse().context("a row of the ledger")).collect::<Result<_>>()?;
    let missing: Vec<u64> = (1..=seen).filter(|row| !rows.contains(row)).collect();
    if let [first, ..] = missing[..] {
        bail!("{} rows that were seen committed are missing, the first is {first} of {seen}", missing.len());
    }
    let last = rows.last().copied().unwrap_or(0);
    if last > seen + 1 {
        bail!("row {last} is there, and {seen} was the last to be seen");
    }
    Ok(last)
}

/// A client at work; killed when dropped.
pub struct Client {
    process: Child,
    seen: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
    writer: Option<JoinHandle<Result<()>>>,
}

impl Client {
    /// Goes on after row `seen`.
    pub fn start(installation: &Installation, seen: u64) -> Result<Client> {
        let mut process = installation
            .command("psql")
            .args(installation.connection())
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run psql")?;
        let input = process.stdin.take().context("the client has an input")?;
        let output = process.stdout.take().context("the client has an output")?;
        let seen = Arc::new(AtomicU64::new(seen));
        let stopping = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (seen, stopping) = (seen.clone(), stopping.clone());
            move || commit_rows(input, output, &seen, &stopping)
        });
        Ok(Client { process, seen, stopping, writer: Some(writer) })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Waits until so many more rows are committed than now.
    pub fn wait_for_more(&self, rows: u64) -> Result<()> {
        let wanted = self.seen() + rows;
        wait_until("the ledger to go on", PROGRESS_LIMIT, || {
            let ended = self.writer.as_ref().is_some_and(JoinHandle::is_finished);
            if self.seen() >= wanted {
                return Ok(Some(Ok(())));
            }
            Ok(ended.then(|| Err(anyhow!("the ledger's client has ended"))))
        })
        .flatten()
        .with_context(|| format!("the ledger stands at row {}", self.seen()))
    }

    /// Ends after the present row; an error that the client met is given now.
    pub fn stop(mut self) -> Result<u64> {
        self.stopping.store(true, Ordering::SeqCst);
        let writer = self.writer.take().context("the ledger has a writer")?;
        writer.join().expect("the ledger's thread does not panic").context("the ledger's client")?;
        self.process.wait().context("wait for the ledger's client")?;
        Ok(self.seen())
    }

    /// Collects a client that was killed: what it had seen. That its connection broke is what was wanted.
    pub fn reap(mut self) -> Result<u64> {
        self.process.wait().context("wait for the ledger's client")?;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join().expect("the ledger's thread does not panic");
        }
        Ok(self.seen())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // Both can only fail when it has just ended.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn commit_rows(mut input: ChildStdin, output: ChildStdout, seen: &AtomicU64, stopping: &AtomicBool) -> Result<()> {
    let mut answers = BufReader::new(output);
    let mut line = String::new();
    while !stopping.load(Ordering::SeqCst) {
        let row = seen.load(Ordering::SeqCst) + 1;
        let commit = format!("BEGIN; INSERT INTO ledger VALUES ({row}, md5('{row}')); COMMIT;");
        writeln!(input, "{commit} SELECT n FROM ledger WHERE n = {row};").context("send a row")?;
        line.clear();
        answers.read_line(&mut line).context("read the answer")?;
        if line.trim() != row.to_string() {
            bail!("row {row} was answered {:?}", line.trim());
        }
        seen.store(row, Ordering::SeqCst);
    }
    Ok(())
}
