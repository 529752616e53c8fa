//! A campaign: the worker, built with coverage counters, run on target after target; and what it says.
//!
//! Everything that grows lies in the target folder of Cargo, below `fuzz/<target>`: `corpus`, `findings`, `log`.

use crate::corpus::{self, BYTES_MAX, FILES_MAX};
use crate::{TARGET_VARIABLE, TARGETS, Target, reach};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

/// What makes stable rustc put libFuzzer's counters and comparisons into everything that is built.
const COVERAGE_FLAGS: &str = "-Cpasses=sancov-module -Ccodegen-units=1 -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// An input that takes longer than this is a finding.
const INPUT_SECONDS_MAX: u32 = 10;
const RESIDENT_MIB_MAX: u32 = 2048;

pub struct Campaign {
    pub worker: PathBuf,
    /// For each target.
    pub seconds: u64,
    /// Of the fuzzer's randomness.
    pub seed: Option<u32>,
}

/// What the worker's last words say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    executions: u64,
    coverage: u64,
    features: u64,
    corpus: u64,
}

pub fn names() -> Vec<&'static str> {
    TARGETS.iter().map(|target| target.name).collect()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Builds for this machine by its name: then Cargo gives the flags to what runs here and not to build scripts. With the
/// deliberate bugs it is another program, in a place of its own.
pub fn build_worker(with_bugs: bool) -> Result<PathBuf> {
    let rustc = Command::new("rustc").arg("-vV").output().context("run rustc")?;
    let text = String::from_utf8(rustc.stdout).context("read the version of rustc")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
    let status = Command::new("cargo")
        .args(["build", "--quiet", "-p", "ashlar-fuzz", "--features"])
        .arg(if with_bugs { "libfuzzer,mutants" } else { "libfuzzer" })
        .args(["--bin", "ashlar-fuzz-worker", "--target", host])
        .env("RUSTFLAGS", COVERAGE_FLAGS)
        .current_dir(workspace())
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "the worker cannot be built");
    let folder = target_folder().join(if with_bugs { "fuzz-slips" } else { "fuzz" });
    fs::create_dir_all(&folder)?;
    let worker = folder.join("worker");
    // What runs is not written over: a new file takes its name.
    let fresh = folder.join("worker.new");
    fs::copy(target_folder().join(host).join("debug/ashlar-fuzz-worker"), &fresh).context("copy the worker")?;
    fs::rename(fresh, &worker)?;
    Ok(worker)
}

/// Calls `work` for each item, `jobs` at a time; counts those of which it says true.
pub(crate) fn for_each<T: Sync>(items: &[T], jobs: usize, work: impl Fn(&T) -> Result<bool> + Sync) -> Result<usize> {
    let (left, count) = (Mutex::new(items.iter()), AtomicUsize::new(0));
    thread::scope(|scope| {
        let job = || -> Result<()> {
            loop {
                let next = left.lock().expect("nobody panics with it").next();
                let Some(item) = next else { return Ok(()) };
                count.fetch_add(usize::from(work(item)?), Ordering::Relaxed);
            }
        };
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(job)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a job does not panic"))
    })?;
    Ok(count.into_inner())
}

/// The worker on one target.
pub(crate) struct Worker<'a> {
    pub(crate) path: &'a Path,
    pub(crate) target: &'a Target,
}

impl Worker<'_> {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.path);
        command
            .env(TARGET_VARIABLE, self.target.name)
            .arg(format!("-max_len={}", self.target.input_bytes_max))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={RESIDENT_MIB_MAX}"))
            .arg("-print_final_stats=1");
        command
    }
}

impl Campaign {
    /// Runs the targets, `jobs` at a time; prints a line for each. Returns how many have found something.
    pub fn run(&self, targets: &[&'static Target], jobs: usize) -> Result<usize> {
        println!(
            "{:<16} {:>11} {:>8} {:>6} {:>9} {:>9}  findings",
            "target", "executions", "exec/s", "corpus", "coverage", "features"
        );
        for_each(targets, jobs, |target| Ok(!self.run_one(target)?))
    }

    /// False if something was found, or if the target did not come as far as it must.
    fn run_one(&self, target: &Target) -> Result<bool> {
        let folder = target_folder().join("fuzz").join(target.name);
        let (grown, findings) = (self.grown(&folder)?, folder.join("findings"));
        fs::create_dir_all(&findings)?;
        let given = corpus::folder(target.name);
        let output = self
            .worker(target)
            .args(self.seed.map(|seed| format!("-seed={seed}")))
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-artifact_prefix={}/", findings.display()))
            .arg(&grown)
            .args(given.exists().then_some(&given))
            .output()
            .with_context(|| format!("run {}", self.worker.display()))?;
        let log = String::from_utf8_lossy(&output.stderr);
        fs::write(folder.join("log"), log.as_bytes())?;
        let figures = Figures::of(&log);
        let per_second = figures.executions / self.seconds.max(1);
        let is_blind = figures.coverage < target.coverage_min;
        let verdict = match output.status.success() {
            false => "FOUND".to_owned(),
            true if is_blind => format!("BLIND: coverage below {}", target.coverage_min),
            true => "none".to_owned(),
        };
        println!(
            "{:<16} {:>11} {per_second:>8} {:>6} {:>9} {:>9}  {verdict}",
            target.name, figures.executions, figures.corpus, figures.coverage, figures.features
        );
        if !output.status.success() {
            print!("{}", story(&log, target));
        }
        Ok(output.status.success() && !is_blind)
    }

    /// Where inputs are collected. With a seed it begins empty, so that a run is like the one before.
    fn grown(&self, folder: &Path) -> Result<PathBuf> {
        let grown = folder.join(if self.seed.is_some() { "seeded" } else { "corpus" });
        if self.seed.is_some() && grown.exists() {
            fs::remove_dir_all(&grown)?;
        }
        fs::create_dir_all(&grown)?;
        Ok(grown)
    }

    /// Brings the repository's corpus up to date: inputs that come to what no kept one does, then others of those that
    /// cover most, small and large ones. What is kept stays.
    pub fn keep(&self, target: &Target) -> Result<usize> {
        let folder = target_folder().join("fuzz").join(target.name);
        let (grown, merged) = (folder.join("corpus"), folder.join("merged"));
        fs::create_dir_all(&grown)?;
        if merged.exists() {
            fs::remove_dir_all(&merged)?;
        }
        fs::create_dir_all(&merged)?;
        let given = corpus::folder(target.name);
        let sources = [&given, &grown].into_iter().filter(|folder| folder.exists());
        let status = self.worker(target).arg("-merge=1").arg(&merged).args(sources).output()?.status;
        ensure!(status.success(), "{}: the corpus cannot be merged", target.name);
        let mut inputs: Vec<Vec<u8>> = corpus::read(&merged)?.into_iter().map(|(_, bytes)| bytes).collect();
        inputs.sort_by_key(Vec::len);
        let present = corpus::inputs(target.name)?;
        let mut reached = reach::during(|| present.iter().for_each(|(_, input)| (target.run)(input)));
        let (deep, rest): (Vec<_>, Vec<_>) = inputs.into_iter().partition(|input| {
            let before = reached.len();
            reached.extend(reach::during(|| (target.run)(input)));
            reached.len() > before
        });
        let room = FILES_MAX.saturating_sub(present.len());
        let mut bytes: usize = present.iter().map(|(_, input)| input.len()).sum();
        let fits = |input: &Vec<u8>| {
            bytes += input.len();
            bytes <= BYTES_MAX
        };
        let spread = rest.len().div_ceil(room.saturating_sub(deep.len()).max(1)).max(1);
        let chosen = deep.into_iter().chain(rest.into_iter().step_by(spread));
        let chosen: Vec<Vec<u8>> = chosen.take(room).take_while(fits).collect();
        corpus::add(target.name, &chosen)?;
        Ok(corpus::inputs(target.name)?.len())
    }

    fn worker(&self, target: &Target) -> Command {
        Worker { path: &self.worker, target }.command()
    }
}

/// How many inputs were run.
pub(crate) fn executions(log: &str) -> u64 {
    Figures::of(log).executions
}

/// What went wrong, in which input, and how to see it again.
fn story(log: &str, target: &Target) -> String {
    let mut story = String::new();
    let mut lines = log.lines();
    while let Some(line) = lines.next() {
        if line.contains("panicked at") {
            story += &format!("  {line}\n  {}\n", lines.next().unwrap_or_default());
        } else if line.contains("ERROR: libFuzzer") || line.contains("memory allocation") {
            story += &format!("  {line}\n");
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            story += &format!("  input:  {path}\n");
            story += &format!("  replay: cargo run -p ashlar-fuzz -- replay {} {path}\n", target.name);
        }
    }
    story
}

impl Figures {
    fn of(log: &str) -> Figures {
        let after = |line: &str, name: &str| {
            let (_, rest) = line.split_once(name)?;
            let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        let status =
            log.lines().rev().find(|line| line.starts_with('#') && line.contains(" cov: ")).unwrap_or_default();
        let total = log.lines().find_map(|line| after(line, "stat::number_of_executed_units:"));
        Figures {
            executions: total.unwrap_or_default(),
            coverage: after(status, " cov: ").unwrap_or_default(),
            features: after(status, " ft: ").unwrap_or_default(),
            corpus: after(status, " corp: ").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "#2\tINITED cov: 9 ft: 12 corp: 1/1b exec/s: 0 rss: 28Mb\n\
        #500\tNEW    cov: 744 ft: 1186 corp: 110/825b lim: 11 exec/s: 0 rss: 30Mb L: 10/11 MS: 1 CMP-\n\
        thread '<unnamed>' (1) panicked at src/a.rs:66:14:\nattempt to add with overflow\n\
        ==7== ERROR: libFuzzer: deadly signal\nTest unit written to /x/crash-1\n\
        stat::number_of_executed_units: 1503\n";

    #[test]
    fn figures_are_the_last_ones_said() {
        let expected = Figures { executions: 1503, coverage: 744, features: 1186, corpus: 110 };
        assert_eq!(Figures::of(LOG), expected);
        assert_eq!(Figures::of(""), Figures::default());
    }

    #[test]
    fn a_finding_is_told_with_its_input_and_how_to_replay_it() {
        let story = story(LOG, &TARGETS[0]);
        for part in ["src/a.rs:66:14", "overflow", "deadly signal", "input:  /x/crash-1", "-- replay wire_stream /x"] {
            assert!(story.contains(part), "{part}: {story}");
        }
    }
}
