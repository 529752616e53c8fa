//! A real `ashlar-chunkserver` with disks of its own in a directory of its own; killed when it is dropped.

use ashlar_types::{ClusterId, DiskId};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const CLUSTER: ClusterId = ClusterId::from_u128(0xc1);
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with formatted disks.
pub(crate) struct Disks {
    pub(crate) dir: TempDir,
    pub(crate) ids: Vec<DiskId>,
}

pub(crate) struct Daemon {
    child: Child,
    pub(crate) ready: serde_json::Value,
}

impl Disks {
    /// So many disks of so many MiB.
    pub(crate) fn format(count: usize, mib: u64) -> Disks {
        let dir = tempfile::tempdir().unwrap();
        let mut disks = Disks { dir, ids: vec![] };
        for number in 0..count {
            let path = disks.path(number);
            let size = format!("{mib}M");
            let output =
                run(&["format", "--json", "--cluster", &CLUSTER.to_string(), "--size", &size, "--disk", text(&path)]);
            assert!(output.status.success(), "{output:?}");
            let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            disks.ids.push(made["disk"].as_str().unwrap().parse().unwrap());
        }
        disks
    }

    pub(crate) fn path(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("disk-{number}"))
    }

    /// Starts a chunkserver on all disks.
    pub(crate) fn serve(&self) -> Daemon {
        Daemon::start(self, &[]).unwrap_or_else(|output| panic!("{output:?}"))
    }

    pub(crate) fn inspect(&self, number: usize, more: &[&str]) -> serde_json::Value {
        let path = self.path(number);
        let arguments: Vec<&str> = ["inspect", "--json", "--disk", text(&path)].iter().chain(more).copied().collect();
        let output = run(&arguments);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Daemon {
    /// `Err`: it ended before it was ready.
    pub(crate) fn start(disks: &Disks, more: &[&str]) -> Result<Daemon, Output> {
        Daemon::start_as(program(), disks, more)
    }

    /// With so many descriptors, and so many more if it takes them.
    pub(crate) fn start_with_descriptors(disks: &Disks, soft: u32, hard: u32) -> Daemon {
        let mut command = without_environment(Command::new("sh"));
        let script = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(program().get_program());
        Daemon::start_as(command, disks, &[]).unwrap_or_else(|output| panic!("{output:?}"))
    }

    fn start_as(mut command: Command, disks: &Disks, more: &[&str]) -> Result<Daemon, Output> {
        let ready_file = disks.dir.path().join("ready.json");
        command.args(["run", "--cluster", &CLUSTER.to_string(), "--node", "node-a", "--metrics-listen", "127.0.0.1:0"]);
        command.arg("--ready-file").arg(&ready_file);
        for number in 0..disks.ids.len() {
            command.arg("--disk").arg(disks.path(number));
        }
        let _ = std::fs::remove_file(&ready_file);
        let mut child = command.args(more).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(text) = std::fs::read_to_string(&ready_file) {
                return Ok(Daemon { child, ready: serde_json::from_str(&text).unwrap() });
            }
            if child.try_wait().unwrap().is_some() {
                return Err(child.wait_with_output().unwrap());
            }
            assert!(Instant::now() < deadline, "the chunkserver is not ready");
            std::thread::yield_now();
        }
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.ready[name].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit that follows.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn program() -> Command {
    without_environment(Command::new(env!("CARGO_BIN_EXE_ashlar-chunkserver")))
}

/// Of whoever runs the tests.
fn without_environment(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ASHLAR_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
