//! A development cluster of one's own: three daemons on each node and a control plane, on loopback, in a folder that
//! nobody else uses.
//!
//! Started and stopped by `ashlar dev`, as a user would. Whatever happens, when the value is dropped nothing of the
//! cluster is left: no process, mount, loop device or file.

use crate::{Kubelet, Leftovers, Output, holders::members, program, run, sweep, wait_until};
use anyhow::{Context, Result, bail};
use ashlar_rpc::control::{
    AttachedVolume, CreateSnapshotRequest, DatapathListRequest, Device, Member, MemberState, SnapshotRef, Volume,
    VolumeRef, chunkserver_client::ChunkserverClient, cluster_client::ClusterClient, datapath_client::DatapathClient,
};
use nix::{sys::signal::Signal, unistd::Pid};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// A clean end of a healthy cluster takes a second or two; past this it is swept away.
const DOWN_LIMIT: Duration = Duration::from_secs(60);
/// A daemon that does not tell its metrics for so long is stuck.
const SCRAPE_LIMIT: Duration = Duration::from_secs(10);
/// Lines of each daemon's log that explain a failure.
const LOG_TAIL_LINES: usize = 40;

/// What `ashlar dev status --json` says of one daemon.
#[derive(Clone, Debug, Deserialize)]
pub struct Daemon {
    pub name: String,
    pub node: Option<String>,
    /// `None`: not running.
    pub pid: Option<i32>,
    /// Purpose ("data", "rpc", "metrics", "control") -> address.
    pub addresses: BTreeMap<String, String>,
    /// Purpose ("csi") -> path.
    pub sockets: BTreeMap<String, PathBuf>,
    pub disks: Vec<PathBuf>,
    /// Of a node service: staging and target paths lie below it.
    pub kubelet_dir: Option<PathBuf>,
    pub log: PathBuf,
}

/// What `ashlar volume compare --json` says.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Compared {
    pub blocks_compared: u64,
    pub differing: u64,
    pub replicas: u64,
}

#[derive(Deserialize)]
struct Status {
    daemons: Vec<Daemon>,
}

/// A cluster that lives as long as this value.
pub struct DevCluster {
    dir: PathBuf,
    runtime: Runtime,
}

impl DevCluster {
    /// `dir` must not exist or be empty; its parent must exist. Sizes as the CLI takes them, for example `512M`.
    pub fn up(dir: &Path, nodes: u16, disk_size: &str, journal_size: Option<&str>) -> Result<DevCluster> {
        DevCluster::up_with(dir, nodes, disk_size, journal_size, &[])
    }

    /// The same; the named nodes have these disks. They outlive the cluster.
    pub fn up_on(
        dir: &Path,
        nodes: u16,
        disk_size: &str,
        journal_size: Option<&str>,
        disks: &[(&str, &Path)],
    ) -> Result<DevCluster> {
        let disks: Vec<String> = disks.iter().map(|(node, path)| format!("{node}={}", path.display())).collect();
        let options: Vec<&str> = disks.iter().flat_map(|disk| ["--disk", disk.as_str()]).collect();
        DevCluster::up_with(dir, nodes, disk_size, journal_size, &options)
    }

    /// The same, with more options of `ashlar dev up`.
    pub fn up_with(
        dir: &Path,
        nodes: u16,
        disk_size: &str,
        journal_size: Option<&str>,
        options: &[&str],
    ) -> Result<DevCluster> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        // Mounts and loop devices are found by the path as the kernel knows it.
        let cluster = DevCluster { dir: dir.canonicalize()?, runtime };
        let nodes = nodes.to_string();
        let mut args = vec!["dev", "up", "--nodes", &nodes, "--disk-size", disk_size, "--detach"];
        args.extend(journal_size.iter().flat_map(|size| ["--journal-size", size]));
        args.extend(options);
        cluster.cli(&args)?;
        Ok(cluster)
    }

    /// Starts what is not running.
    pub fn up_again(&self) -> Result<()> {
        self.cli(&["dev", "up", "--detach"]).map(drop)
    }

    /// Ends the cluster in good order and deletes its folder; what is left then is an error.
    pub fn down(self) -> Result<()> {
        self.cli(&["dev", "down", "--purge"])?;
        let left = Leftovers::of(&self.dir)?;
        if !left.is_empty() {
            bail!("`dev down` left {left}");
        }
        if self.dir.exists() {
            bail!("`dev down --purge` left {}", self.dir.display());
        }
        Ok(())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs `ashlar ARGS --dir DIR`; a failure is an error.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let output = self.try_cli(args)?;
        if !output.success {
            bail!("ashlar {} failed: {}{}", args.join(" "), output.stdout, output.stderr);
        }
        Ok(output.stdout)
    }

    pub fn try_cli(&self, args: &[&str]) -> Result<Output> {
        let dir = self.dir.to_string_lossy();
        run(program("ashlar")?, args.iter().copied().chain(["--dir", dir.as_ref()]))
    }

    /// What a reading command prints as JSON.
    pub fn cli_json<T: serde::de::DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let text = self.cli(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("read what `ashlar {}` printed: {text}", args.join(" ")))
    }

    pub fn daemons(&self) -> Result<Vec<Daemon>> {
        Ok(self.cli_json::<Status>(&["dev", "status"])?.daemons)
    }

    /// By name: `control`, `chunkserver-n1`, `datapath-n1`, `node-n1`, ...
    pub fn daemon(&self, name: &str) -> Result<Daemon> {
        let found = self.daemons()?.into_iter().find(|daemon| daemon.name == name);
        found.with_context(|| format!("there is no daemon {name}"))
    }

    /// Pids of all daemons that run.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        Ok(self.daemons()?.into_iter().filter_map(|daemon| daemon.pid).map(Pid::from_raw).collect())
    }

    /// After a SIGKILL from outside: a process that is still on its way out would be taken for one that runs.
    pub fn wait_dead(&self) -> Result<()> {
        wait_until("killed daemons to be gone", DOWN_LIMIT, || Ok(self.pids()?.is_empty().then_some(())))
    }

    pub fn kill(&self, name: &str, signal: Signal) -> Result<()> {
        let signal = signal.as_str().trim_start_matches("SIG");
        self.cli(&["dev", "kill", name, "--signal", signal]).map(drop)
    }

    /// Starts a daemon that is not running and waits until it serves.
    pub fn start(&self, name: &str) -> Result<()> {
        self.cli(&["dev", "start", name]).map(drop)
    }

    fn address(&self, daemon: &str, purpose: &str) -> Result<String> {
        let addresses = self.daemon(daemon)?.addresses;
        addresses
            .get(purpose)
            .cloned()
            .with_context(|| format!("{daemon} has no {purpose} address, only {addresses:?}"))
    }

    pub fn control_url(&self) -> Result<String> {
        Ok(format!("http://{}", self.address("control", "control")?))
    }

    /// The whole page of a daemon's metrics.
    pub fn metrics(&self, daemon: &str) -> Result<String> {
        scrape(&self.address(daemon, "metrics")?).with_context(|| format!("metrics of {daemon}"))
    }

    /// A metric of a daemon, summed over its labels.
    pub fn metric(&self, daemon: &str, name: &str) -> Result<f64> {
        let text = self.metrics(daemon)?;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            (series.split('{').next() == Some(name)).then(|| value.parse::<f64>())
        });
        let values = values.collect::<Result<Vec<f64>, _>>().with_context(|| format!("read {name}"))?;
        anyhow::ensure!(!values.is_empty(), "{daemon} has no metric {name}");
        Ok(values.iter().sum())
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The administrators' API of the control plane.
    pub fn client(&self) -> Result<ClusterClient<Channel>> {
        let url = self.control_url()?;
        self.block_on(ClusterClient::connect(url)).context("connect to the control plane")
    }

    pub fn datapath(&self, node: &str) -> Result<DatapathClient<Channel>> {
        let url = format!("http://{}", self.address(&format!("datapath-{node}"), "rpc")?);
        self.block_on(DatapathClient::connect(url)).context("connect to the datapath")
    }

    pub fn chunkserver(&self, node: &str) -> Result<ChunkserverClient<Channel>> {
        let url = format!("http://{}", self.address(&format!("chunkserver-{node}"), "rpc")?);
        self.block_on(ChunkserverClient::connect(url)).context("connect to the chunkserver")
    }

    /// The kubelet of a node, with the sidecars of the controller.
    pub fn kubelet(&self, node: &str) -> Result<Kubelet> {
        let socket = |daemon: &Daemon| daemon.sockets.get("csi").cloned().context("the daemon has a CSI socket");
        let daemons = self.daemons()?;
        let by_name = |name: &str| daemons.iter().find(|daemon| daemon.name == name).context("the daemon exists");
        let service = by_name(&format!("node-{node}"))?;
        let nodes: BTreeSet<String> = daemons.iter().filter_map(|daemon| daemon.node.clone()).collect();
        let dir = service.kubelet_dir.as_deref().context("a node service has a kubelet's folder")?;
        Kubelet::new(node, nodes.into_iter().collect(), dir, socket(by_name("control")?)?, socket(service)?)
    }

    /// By name or id.
    pub fn volume(&self, volume: &str) -> Result<Volume> {
        let mut client = self.client()?;
        let request = VolumeRef { volume: volume.to_owned() };
        Ok(self.block_on(client.get_volume(request)).context("GetVolume")?.into_inner())
    }

    /// The volume as the datapath that holds it sees it now.
    pub fn attached(&self, node: &str, volume_id: &str) -> Result<AttachedVolume> {
        let mut client = self.datapath(node)?;
        let listed = self.block_on(client.list(DatapathListRequest {})).context("List of the datapath")?.into_inner();
        let found = listed.volumes.into_iter().find(|attached| attached.volume == volume_id);
        found.with_context(|| format!("{volume_id} is not attached on {node}"))
    }

    /// Gives the id of a snapshot that is ready.
    pub fn take_snapshot(&self, volume: &str, name: &str) -> Result<String> {
        let mut client = self.client()?;
        let request = CreateSnapshotRequest { name: name.to_owned(), volume: volume.to_owned() };
        let taken = self.block_on(client.create_snapshot(request)).context("CreateSnapshot")?.into_inner();
        anyhow::ensure!(taken.ready, "snapshot {name} is told of before it is ready");
        Ok(taken.id)
    }

    /// By name or id.
    pub fn delete_snapshot(&self, snapshot: &str) -> Result<()> {
        let mut client = self.client()?;
        let request = SnapshotRef { snapshot: snapshot.to_owned() };
        self.block_on(client.delete_snapshot(request)).context("DeleteSnapshot").map(drop)
    }

    /// Those that hold a chunk.
    pub fn members(&self, volume: &str) -> Result<Vec<Member>> {
        Ok(members(&self.volume(volume)?))
    }

    /// Waits until every member of the volume that holds a chunk is in-sync.
    pub fn wait_in_sync(&self, volume: &str, limit: Duration) -> Result<()> {
        self.wait_members(volume, limit, "every member to be in-sync", |member| member.state() == MemberState::InSync)
    }

    /// Waits until the replica on that node is in the given state.
    pub fn wait_member(&self, volume: &str, node: &str, state: MemberState, limit: Duration) -> Result<()> {
        let what = format!("the replica on {node} to be {}", state.as_str_name());
        self.wait_members(volume, limit, &what, |member| member.node != node || member.state() == state)
    }

    fn wait_members(&self, volume: &str, limit: Duration, what: &str, holds: impl Fn(&Member) -> bool) -> Result<()> {
        wait_until(what, limit, || {
            let members = self.members(volume)?;
            Ok((!members.is_empty() && members.iter().all(&holds)).then_some(()))
        })
    }

    /// Path of the block device, or the NBD URI.
    pub fn attach(&self, volume: &str, node: &str, frontend: &str) -> Result<String> {
        let printed = self.cli(&["volume", "attach", volume, "--node", node, "--frontend", frontend])?;
        Ok(printed.trim().to_owned())
    }

    pub fn detach(&self, volume: &str) -> Result<()> {
        self.cli(&["volume", "detach", volume]).map(drop)
    }

    /// Every replica, block by block, past the datapath. The volume must be detached.
    pub fn compare(&self, volume: &str) -> Result<Compared> {
        self.cli_json(&["volume", "compare", volume])
    }

    /// The device that the datapath reports.
    pub fn device(&self, node: &str, volume_id: &str) -> Result<Device> {
        self.attached(node, volume_id)?.device.context("an attached volume has a device")
    }

    /// The end of every daemon's log, to be shown with a failure.
    pub fn log_tails(&self) -> String {
        let mut logs: Vec<PathBuf> = fs::read_dir(self.dir.join("logs"))
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default();
        logs.sort();
        logs.iter().map(|log| format!("---- {}\n{}\n", log.display(), tail(log))).collect()
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        if !self.dir.exists() {
            return;
        }
        if let Err(error) = self.take_down() {
            eprintln!("the cluster in {} was not wholly removed: {error:#}", self.dir.display());
        }
    }
}

impl DevCluster {
    /// In good order if the cluster can still do that, by force if not.
    fn take_down(&self) -> Result<()> {
        let mut child = Command::new(program("ashlar")?)
            .args(["dev", "down", "--purge", "--force", "--dir"])
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("run `ashlar dev down`")?;
        if wait_until("`ashlar dev down`", DOWN_LIMIT, || Ok(child.try_wait()?)).is_err() {
            child.kill()?;
            child.wait()?;
        }
        sweep(&self.dir)?;
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("remove the folder"),
            _ => Ok(()),
        }
    }
}

/// One page of metrics, over HTTP.
fn scrape(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SCRAPE_LIMIT))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

/// A name for a folder of one's own in `$TMPDIR` or else `/var/tmp`, which unlike `/tmp` is on a disk everywhere. It
/// is made, and empty.
pub fn scratch_dir(label: &str) -> Result<PathBuf> {
    scratch_dir_in(&std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from), label)
}

/// The same in a folder of one's choice.
pub(crate) fn scratch_dir_in(parent: &Path, label: &str) -> Result<PathBuf> {
    let dir = tempfile::Builder::new().prefix(&format!("ashlar-{label}-")).tempdir_in(parent);
    let dir = dir.with_context(|| format!("make a folder in {}", parent.display()))?.keep();
    Ok(dir.canonicalize()?)
}
