//! A database's client that knows what was promised to it: it commits numbered rows, one transaction after another on
//! one connection, and counts each that the server has shown to it after the COMMIT. The count is in this process, out
//! of reach of a crash.

use crate::wait_until;
use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::Pid;
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    ops::RangeInclusive,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

/// A client at work; killed when dropped.
pub struct Ledger {
    process: Child,
    seen: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
    writer: Option<JoinHandle<Result<()>>>,
}

impl Ledger {
    /// Goes on after row `seen`. `client` takes statements and prints values one a line; `statements` commit the row
    /// with this number and then ask for its number.
    pub fn start(
        mut client: Command,
        seen: u64,
        statements: impl Fn(u64) -> String + Send + 'static,
    ) -> Result<Ledger> {
        let spawned = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut process = spawned.context("run the ledger's client")?;
        let input = process.stdin.take().context("the client has an input")?;
        let output = process.stdout.take().context("the client has an output")?;
        let seen = Arc::new(AtomicU64::new(seen));
        let stopping = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (seen, stopping) = (seen.clone(), stopping.clone());
            move || commit_rows(input, output, &statements, &seen, &stopping)
        });
        Ok(Ledger { process, seen, stopping, writer: Some(writer) })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    /// The last row seen committed; rows are numbered from 1 without gaps.
    pub fn seen(&self) -> u64 {
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

/// Gives the last of the rows, whose numbers are printed one a line. Every row up to the first number of `last` must be
/// among them, and none after its second.
pub fn last_row(printed: &str, last: RangeInclusive<u64>) -> Result<u64> {
    let rows: BTreeSet<u64> =
        printed.lines().map(|row| row.parse().context("a row of the ledger")).collect::<Result<_>>()?;
    let seen = *last.start();
    let missing: Vec<u64> = (1..=seen).filter(|row| !rows.contains(row)).collect();
    if let [first, ..] = missing[..] {
        bail!("{} rows that were seen committed are missing, the first is {first} of {seen}", missing.len());
    }
    let found = rows.last().copied().unwrap_or(0);
    if found > *last.end() {
        bail!("row {found} is there, and {} is the last that may be", last.end());
    }
    Ok(found)
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // Both can only fail when it has just ended.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn commit_rows(
    mut input: ChildStdin,
    output: ChildStdout,
    statements: &impl Fn(u64) -> String,
    seen: &AtomicU64,
    stopping: &AtomicBool,
) -> Result<()> {
    let mut answers = BufReader::new(output);
    let mut line = String::new();
    while !stopping.load(Ordering::SeqCst) {
        let row = seen.load(Ordering::SeqCst) + 1;
        writeln!(input, "{}", statements(row)).context("send a row")?;
        line.clear();
        answers.read_line(&mut line).context("read the answer")?;
        if line.trim() != row.to_string() {
            bail!("row {row} was answered {:?}", line.trim());
        }
        seen.store(row, Ordering::SeqCst);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seen_rows_must_be_there_and_later_ones_must_not() {
        assert_eq!(last_row("1\n2\n3\n", 3..=4).unwrap(), 3);
        assert_eq!(last_row("1\n2\n3\n4\n", 3..=4).unwrap(), 4);
        assert_eq!(last_row("", 0..=1).unwrap(), 0);
        assert!(last_row("1\n3\n4\n", 3..=4).is_err(), "a gap");
        assert!(last_row("1\n2\n", 3..=4).is_err(), "the end is missing");
        assert!(last_row("1\n2\n3\n4\n5\n", 3..=4).is_err(), "a row from the future");
    }
}
