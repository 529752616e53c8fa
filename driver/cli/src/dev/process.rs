//! Processes of the daemons: started in sessions of their own, and found again without trusting a pid that was
//! written down.
//!
//! A daemon is recognised by two variables in the environment with which it was started, the directory of its cluster
//! and its name, together with the program that it runs. So neither a pid that was given to another process, nor a
//! daemon whose starter was killed before it could write the pid down, leads astray.

use super::daemon::{Daemon, PROGRAMS, program_path};
use super::layout::Layout;
use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DIR_VARIABLE: &str = "ASHLAR_DEV_DIR";
const NAME_VARIABLE: &str = "ASHLAR_DEV_DAEMON";
const POLL: Duration = Duration::from_millis(20);

/// The running daemons of a cluster: name -> pid.
pub fn running(layout: &Layout) -> anyhow::Result<BTreeMap<String, i32>> {
    let mut found: Vec<(String, i32, i32)> = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A process that ends while it is looked at is not running.
        if let Some((name, parent)) = identify(&layout.dir, pid) {
            found.push((name, pid, parent));
        }
    }
    // A daemon that starts a program is two for a moment: the child is not the daemon.
    let is_child = |name: &str, parent: i32| found.iter().any(|(other, pid, _)| other == name && *pid == parent);
    Ok(found
        .iter()
        .filter(|(name, _, parent)| !is_child(name, *parent))
        .map(|(name, pid, _)| (name.clone(), *pid))
        .collect())
}

/// Name of the daemon of the cluster in `dir` that this process is, and its parent.
fn identify(dir: &Path, pid: i32) -> Option<(String, i32)> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variable = |name: &str| {
        let prefix = format!("{name}=");
        environment.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(prefix.as_bytes()))
    };
    if variable(DIR_VARIABLE)? != dir.as_os_str().as_bytes() {
        return None;
    }
    let name = String::from_utf8(variable(NAME_VARIABLE)?.to_vec()).ok()?;
    let executable = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // A program that was built anew since is shown as `PATH (deleted)`.
    let program = executable.file_name()?.to_str()?.trim_end_matches(" (deleted)").to_owned();
    if !PROGRAMS.contains(&program.as_str()) {
        return None;
    }
    Some((name, parent_of(pid)?))
}

fn parent_of(pid: i32) -> Option<i32> {
    stat_fields(pid)?.split(' ').nth(1)?.parse().ok()
}

/// State, parent and what follows. The name before them may hold spaces and parentheses.
fn stat_fields(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

/// Whether the process that was just started still runs. One that ended and was not waited for does not.
pub fn is_alive(pid: i32) -> bool {
    stat_fields(pid).is_some_and(|fields| !fields.starts_with(['Z', 'X']))
}

/// Starts the daemon in a session of its own, with its output appended to its log. Its old state file is removed
/// first, so that one that exists is of this process.
pub fn start(layout: &Layout, daemon: &Daemon) -> anyhow::Result<i32> {
    let name = daemon.name();
    let state_file = layout.state_file(&name);
    if state_file.exists() {
        fs::remove_file(&state_file).with_context(|| format!("remove {}", state_file.display()))?;
    }
    let log_path = layout.log(&name);
    let log = File::options().create(true).append(true).open(&log_path);
    let log = log.with_context(|| format!("open {}", log_path.display()))?;
    // setsid(1) becomes the program: the pid is the daemon's.
    let mut command = Command::new("setsid");
    command.arg("--").arg(program_path(daemon.program(layout))?).args(daemon.arguments(layout));
    clean_environment(&mut command);
    command.env(DIR_VARIABLE, &layout.dir).env(NAME_VARIABLE, &name);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir(&layout.dir);
    let child = command.spawn().with_context(|| format!("start {name}"))?;
    Ok(i32::try_from(child.id())?)
}

/// What the user's shell sets for `ashlar` must not configure the daemons.
pub fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(b"ASHLAR_") && !name.as_bytes().starts_with(b"ASHLAR_LOG") {
            command.env_remove(name);
        }
    }
}

/// Sends a signal to a daemon that [`running`] has just found.
pub fn signal(name: &str, pid: i32, signal: Signal) -> anyhow::Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        // It ended meanwhile.
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("send {signal} to {name} ({pid})")),
    }
}

/// Waits until none of the daemons runs, and returns those that still do at the deadline.
pub async fn wait_gone(layout: &Layout, names: &[String], timeout: Duration) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + timeout;
    loop {
        let running = running(layout)?;
        let left: Vec<String> = names.iter().filter(|name| running.contains_key(*name)).cloned().collect();
        if left.is_empty() || Instant::now() >= deadline {
            return Ok(left);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The last lines of a daemon's log, for an error message.
pub fn log_tail(layout: &Layout, name: &str) -> String {
    const LINES: usize = 5;
    let text = fs::read(layout.log(name)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
