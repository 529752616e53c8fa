//! The cluster, each of its daemons with a group id of its own: so the firewall knows whose connection a packet belongs
//! to, though all daemons share one loopback.
//!
//! ```text
//!   ashlar dev start datapath-n1, group 7005 ──► connect ──► OUTPUT: SYN of group 7005 marks the connection 7005
//!   every later packet of it, both ways      ──► INPUT ──► CUTS: mark 7005 and --dport P: to the server, or
//!                                                                mark 7005 and --sport P: from the server ──► dropped
//! ```
//! Packets are dropped where they arrive, as a broken wire does: nobody is told. Rules live in the network of the
//! program's own, and go with it.

use anyhow::{Context, Result, ensure};
use ashlar_tests::{Daemon, DevCluster, program, run_ok};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

pub const NODES: [&str; 3] = ["n1", "n2", "n3"];
const DISK_SIZE: &str = "512M";
const JOURNAL_SIZE: &str = "64M";
const FIRST_GROUP: u32 = 7001;
const FIREWALL: &str = "iptables-legacy";
/// Every daemon.
pub const ALL: &str = "all";
/// Chain of the rules that cut.
const CUTS: &str = "CUTS";

/// A one-way piece of wire between two daemons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Who opens connections.
    pub client: String,
    pub server: String,
    pub way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    FromServer,
    Both,
}

pub struct Arena {
    pub cluster: DevCluster,
    pub control_url: String,
    /// In the order in which they are started; their pids are of the beginning.
    daemons: Vec<Daemon>,
    stopped: BTreeSet<String>,
    /// By us: whatever else does not run has died of itself.
    killed: BTreeSet<String>,
}

impl Arena {
    /// To be called in a network of one's own.
    pub fn up(dir: &Path) -> Result<Arena> {
        // Without a slow port there is no reason for small packets.
        run_ok("ip", ["link", "set", "lo", "mtu", "65535"])?;
        let cluster = DevCluster::up(dir, NODES.len() as u16, DISK_SIZE, Some(JOURNAL_SIZE))?;
        let mut arena = Arena {
            control_url: cluster.control_url()?,
            daemons: cluster.daemons()?,
            cluster,
            stopped: BTreeSet::new(),
            killed: BTreeSet::new(),
        };
        arena.mark_connections()?;
        arena.kill(ALL)?;
        arena.start_missing()?;
        Ok(arena)
    }

    fn mark_connections(&self) -> Result<()> {
        firewall(&format!("-N {CUTS}"))?;
        firewall(&format!("-A INPUT -p tcp -j {CUTS}"))?;
        for daemon in &self.daemons {
            let group = self.group(&daemon.name)?;
            let of_group = format!("-m owner --gid-owner {group} -j CONNMARK --set-mark {group}");
            firewall(&format!("-t mangle -A OUTPUT -p tcp --syn {of_group}"))?;
        }
        Ok(())
    }

    fn group(&self, daemon: &str) -> Result<u32> {
        let at = self.daemons.iter().position(|known| known.name == daemon);
        Ok(FIRST_GROUP + at.with_context(|| format!("there is no daemon {daemon}"))? as u32)
    }

    /// A daemon, or [`ALL`]. A second kill of the same changes nothing.
    pub fn kill(&mut self, daemon: &str) -> Result<()> {
        if daemon == ALL {
            self.killed.extend(self.daemons.iter().map(|daemon| daemon.name.clone()));
        } else if !self.killed.insert(daemon.to_owned()) {
            return Ok(());
        }
        self.cluster.kill(daemon, Signal::SIGKILL)
    }

    /// One that was killed cannot be paused.
    pub fn pause(&mut self, daemon: &str) -> Result<()> {
        if self.killed.contains(daemon) {
            return Ok(());
        }
        self.stopped.insert(daemon.to_owned());
        self.cluster.kill(daemon, Signal::SIGSTOP)
    }

    /// All that were paused; one that was killed meanwhile needs nothing.
    pub fn resume_all(&mut self) -> Result<()> {
        let running: BTreeSet<String> = self
            .cluster
            .daemons()?
            .into_iter()
            .filter(|daemon| daemon.pid.is_some())
            .map(|daemon| daemon.name)
            .collect();
        for daemon in std::mem::take(&mut self.stopped).intersection(&running) {
            self.cluster.kill(daemon, Signal::SIGCONT)?;
        }
        Ok(())
    }

    /// Starts what was killed, the control plane first. One that has died of itself is an error.
    pub fn start_missing(&mut self) -> Result<()> {
        let killed = std::mem::take(&mut self.killed);
        for daemon in self.cluster.daemons()?.iter().filter(|daemon| daemon.pid.is_none()) {
            ensure!(killed.contains(&daemon.name), "VIOLATION: {} has died, and nobody killed it", daemon.name);
            let output = Command::new(program("ashlar")?)
                .args(["dev", "start", &daemon.name, "--dir"])
                .arg(self.cluster.dir())
                .gid(self.group(&daemon.name)?)
                .stdin(Stdio::null())
                .output()
                .context("run `ashlar dev start`")?;
            ensure!(output.status.success(), "start {}: {}", daemon.name, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Looks for the last words of a daemon that found itself wrong.
    pub fn check_logs(&self) -> Result<()> {
        for daemon in &self.daemons {
            let log = fs::read(&daemon.log).with_context(|| format!("read {}", daemon.log.display()))?;
            let log = String::from_utf8_lossy(&log);
            let panicked = log.lines().find(|line| line.contains("panicked at"));
            ensure!(panicked.is_none(), "VIOLATION: {}: {}", daemon.name, panicked.unwrap_or_default());
        }
        Ok(())
    }

    pub fn cut(&self, wire: &Wire) -> Result<()> {
        let group = self.group(&wire.client)?;
        for port in self.ports(&wire.server)? {
            for (way, end) in [(Way::ToServer, "--dport"), (Way::FromServer, "--sport")] {
                if wire.way == way || wire.way == Way::Both {
                    firewall(&format!("-A {CUTS} -p tcp {end} {port} -m connmark --mark {group} -j DROP"))?;
                }
            }
        }
        Ok(())
    }

    pub fn mend_wires(&self) -> Result<()> {
        firewall(&format!("-F {CUTS}"))
    }

    /// Those by which daemons talk to each other.
    fn ports(&self, daemon: &str) -> Result<Vec<String>> {
        let known = self.daemons.iter().find(|known| known.name == daemon);
        let addresses = &known.with_context(|| format!("there is no daemon {daemon}"))?.addresses;
        let spoken = addresses.iter().filter(|(purpose, _)| *purpose != "metrics");
        Ok(spoken.filter_map(|(_, address)| Some(address.rsplit_once(':')?.1.to_owned())).collect())
    }
}

fn firewall(rule: &str) -> Result<()> {
    run_ok(FIREWALL, ["-w"].into_iter().chain(rule.split(' ')))
        .with_context(|| format!("this needs {FIREWALL} (Debian: iptables), xt_owner, xt_connmark"))
        .map(drop)
}
