//! The README's tour, typed line by line as a reader would.

use anyhow::{Context, Result, bail, ensure};
use ashlar_tests::{Leftovers, program, scratch_dir, sweep, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

const HEADING: &str = "## A short tour";
const LIMIT: Duration = Duration::from_secs(120);

/// Lines of the tour that are not typed here: what they do is done, or set, in another way.
const PREPARED: [&str; 2] = ["make build", "export PATH="];

/// What lines of the tour promise in their comments, and show as soon as it has happened.
const SHOWN: [(&str, &str); 2] = [("ashlar events", "ejected"), ("ashlar events --follow", "in-sync")];

/// Commands of the first block of code below the heading, without their comments.
fn tour(readme: &str) -> Vec<&str> {
    let below = readme.split_once(HEADING).map_or("", |(_, below)| below);
    let indented = |line: &&str| line.starts_with("    ");
    let block = below.lines().skip_while(|line| !indented(line)).take_while(indented);
    block.map(|line| line.split(" # ").next().unwrap_or(line).trim()).collect()
}

struct Reader {
    dir: PathBuf,
    path: OsString,
}

impl Reader {
    fn bash(&self, line: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.args(["-euc", &format!("exec {line}")]).env("ASHLAR_DIR", &self.dir).env("PATH", &self.path);
        bash.stdin(Stdio::null());
        bash
    }

    fn type_line(&self, line: &str) -> Result<()> {
        let shown = SHOWN.iter().find(|(command, _)| *command == line).map(|(_, shown)| *shown);
        match shown {
            None => self.run(line).map(drop),
            Some(shown) if line.ends_with("--follow") => self.follow(line, shown),
            Some(shown) => wait_until(&format!("{line:?} to show {shown:?}"), LIMIT, || {
                Ok(self.run(line)?.contains(shown).then_some(()))
            }),
        }
    }

    fn run(&self, line: &str) -> Result<String> {
        let output = self.bash(line).output().context("run bash")?;
        let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{printed}{said}");
        Ok(printed.into_owned())
    }

    /// Until it has printed what is promised; then it is ended as with Ctrl-C.
    fn follow(&self, line: &str, shown: &str) -> Result<()> {
        let mut child = self.bash(line).stdout(Stdio::piped()).spawn().context("run bash")?;
        let printed = BufReader::new(child.stdout.take().context("its output")?);
        let (told, lines) = mpsc::channel();
        let reading = std::thread::spawn(move || printed.lines().map_while(Result::ok).try_for_each(|l| told.send(l)));
        let end = Instant::now() + LIMIT;
        let found = loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(shown) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).context("interrupt it")?;
        drop(lines);
        child.wait().context("wait for its end")?;
        // It ends when the child's output ends, or at the line that nobody takes.
        let _ = reading.join().expect("the reader of the output does not panic");
        ensure!(found, "{shown:?} was not shown within {LIMIT:?}");
        Ok(())
    }
}

fn walk(dir: &Path) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?;
    let readme = fs::read_to_string(root.join("README.md")).context("read README.md")?;
    let lines = tour(&readme);
    ensure!(lines.len() > 10, "the tour was found: {lines:?}");
    for (command, _) in SHOWN {
        ensure!(lines.contains(&command), "{command:?} is a line of the tour");
    }
    let programs = program("ashlar")?.parent().context("its folder")?.to_owned();
    let known = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&known)))?;
    let reader = Reader { dir: dir.join("tour"), path };
    for line in lines.iter().filter(|line| !PREPARED.iter().any(|prepared| line.starts_with(prepared))) {
        reader.type_line(line).with_context(|| format!("the README's `{line}`"))?;
    }
    if reader.dir.exists() {
        bail!("the tour's last line left {}", reader.dir.display());
    }
    Ok(())
}

#[test]
fn every_line_of_the_tour_does_what_it_says() -> Result<()> {
    let dir = scratch_dir("readme-tour")?;
    let walked = walk(&dir);
    let left = Leftovers::of(&dir)?;
    sweep(&dir)?;
    fs::remove_dir_all(&dir)?;
    walked?;
    ensure!(left.is_empty(), "the tour left {left}");
    Ok(())
}
