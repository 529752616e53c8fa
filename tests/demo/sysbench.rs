//! The load: sysbench `oltp_read_write` on 8 connections, and what it says each second.

use anyhow::{Context, Result, anyhow, bail};
use ashlar_tests::{Clock, run_ok, wait_until};
use nix::unistd::Pid;
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

const THREADS: u32 = 8;
const TABLES: u32 = 4;
const ROWS_PER_TABLE: u32 = 50_000;
/// How much longer than asked for a run may take until it is called stuck.
const OVERRUN_LIMIT: Duration = Duration::from_secs(90);

/// One second of load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Second {
    /// Since sysbench began to count.
    pub at: u64,
    /// On the demo's clock.
    pub clock: f64,
    pub transactions: f64,
    pub errors: f64,
    pub reconnects: f64,
}

/// Fills the tables.
pub fn prepare(socket: &Path) -> Result<()> {
    let mut args = options(socket);
    args.push("prepare".to_owned());
    run_ok("sysbench", args).context("fill sysbench's tables")?;
    Ok(())
}

pub fn table_names() -> impl Iterator<Item = String> {
    (1..=TABLES).map(|table| format!("sbtest{table}"))
}

fn options(socket: &Path) -> Vec<String> {
    vec![
        "oltp_read_write".to_owned(),
        "--db-driver=mysql".to_owned(),
        format!("--mysql-socket={}", socket.display()),
        "--mysql-user=root".to_owned(),
        "--mysql-db=sbtest".to_owned(),
        format!("--tables={TABLES}"),
        format!("--table-size={ROWS_PER_TABLE}"),
        format!("--threads={THREADS}"),
        // Rows are drawn evenly: with hot rows the transactions would wait for each other and not for the volume.
        "--rand-type=uniform".to_owned(),
    ]
}

/// A run of sysbench; killed when dropped.
pub struct Load {
    process: Child,
    seconds: Arc<Mutex<Vec<Second>>>,
    /// Gives everything that was printed.
    reader: Option<JoinHandle<String>>,
    printed: String,
    errors: PathBuf,
    length: Duration,
}

impl Load {
    /// `errors` takes what sysbench complains of.
    pub fn start(socket: &Path, length: Duration, errors: &Path, clock: Clock) -> Result<Load> {
        let mut args = options(socket);
        args.push(format!("--time={}", length.as_secs()));
        args.push("--report-interval=1".to_owned());
        args.push("run".to_owned());
        let mut process = Command::new("sysbench")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(errors).context("make a file for sysbench's errors")?)
            .spawn()
            .context("run sysbench")?;
        let output = process.stdout.take().context("sysbench has an output")?;
        let seconds = Arc::new(Mutex::new(vec![]));
        let reader = std::thread::spawn({
            let seconds = seconds.clone();
            move || read(output, &seconds, clock)
        });
        Ok(Load { process, seconds, reader: Some(reader), printed: String::new(), errors: errors.to_owned(), length })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    pub fn seconds(&self) -> Vec<Second> {
        self.seconds.lock().expect("no reader panics").clone()
    }

    /// Waits until sysbench has reported that second of its run.
    pub fn wait_for_second(&mut self, second: u64) -> Result<()> {
        wait_until(&format!("second {second} of the load"), self.length + OVERRUN_LIMIT, || {
            if self.seconds().last().is_some_and(|last| last.at >= second) {
                return Ok(Some(Ok(())));
            }
            let ended = self.process.try_wait()?;
            Ok(ended.map(|status| Err(anyhow!("sysbench ended with {status}: {}", self.last_words()))))
        })?
    }

    /// Waits for the end. Anything but a run without an error is one.
    pub fn finish(mut self) -> Result<Finished> {
        let status = wait_until("sysbench to end", self.length + OVERRUN_LIMIT, || Ok(self.process.try_wait()?))?;
        let printed = self.printed();
        let words = self.last_words();
        if !status.success() || words.contains("FATAL") {
            bail!("sysbench ended with {status}: {words}");
        }
        let reconnects = total(&printed, "reconnects:")?;
        if reconnects > 0 {
            bail!("sysbench had to connect again {reconnects} times");
        }
        Ok(Finished {
            seconds: self.seconds(),
            transactions: total(&printed, "transactions:")?,
            retried: total(&printed, "ignored errors:")?,
        })
    }

    /// Collects a run that was killed.
    pub fn reap(mut self) -> Result<()> {
        self.process.wait().context("wait for the killed sysbench")?;
        Ok(())
    }

    /// Everything that was printed by a run that has ended.
    fn printed(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            self.printed = reader.join().expect("no reader panics");
        }
        self.printed.clone()
    }

    fn last_words(&mut self) -> String {
        let complaints = std::fs::read_to_string(&self.errors).unwrap_or_default();
        format!("{complaints}{}", tail(&self.printed()))
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

/// A run that ended well.
pub struct Finished {
    pub seconds: Vec<Second>,
    pub transactions: u64,
    /// Transactions that two rows' locks made the server roll back, and that sysbench ran again.
    pub retried: u64,
}

fn read(output: ChildStdout, seconds: &Mutex<Vec<Second>>, clock: Clock) -> String {
    let mut printed = String::new();
    for line in BufReader::new(output).lines() {
        // The pipe of a killed process just ends.
        let Ok(line) = line else { break };
        if let Some(second) = second_of(&line, clock.seconds()) {
            seconds.lock().expect("no user panics").push(second);
        }
        printed.push_str(&line);
        printed.push('\n');
    }
    printed
}

/// `[ 3s ] thds: 8 tps: 211.98 qps: 4243.62 (r/w/o: 2970.74/848.92/423.96) lat (ms,95%): 55.82 err/s: 0.00 reconn/s:
/// 0.00`
fn second_of(line: &str, clock: f64) -> Option<Second> {
    let (at, rest) = line.strip_prefix("[ ")?.split_once("s ]")?;
    let figure = |name: &str| rest.split_once(name)?.1.split_whitespace().next()?.parse::<f64>().ok();
    Some(Second {
        at: at.trim().parse().ok()?,
        clock,
        transactions: figure(" tps:")?,
        errors: figure(" err/s:")?,
        reconnects: figure(" reconn/s:")?,
    })
}

/// `    transactions:                        1234   (20.55 per sec.)`
fn total(printed: &str, name: &str) -> Result<u64> {
    let line = printed.lines().find_map(|line| line.trim().strip_prefix(name));
    let figure = line.and_then(|rest| rest.split_whitespace().next()).and_then(|figure| figure.parse().ok());
    figure.with_context(|| format!("sysbench's summary has no {name:?}: {}", tail(printed)))
}

fn tail(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
