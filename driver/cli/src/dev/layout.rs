//! The directory of a development cluster: `cluster.json`, and where everything else lies.
//!
//! ```text
//! DIR/cluster.json      id, nodes, ports; written once, then only read; marks the directory as ours
//! DIR/.lock             held by the command that starts or stops daemons
//! DIR/control/catalog/  the control plane's state
//! DIR/control/csi.sock  CSI identity and controller
//! DIR/logs/NAME.log     one per daemon, appended
//! DIR/state/NAME.json   written by a daemon when it listens
//! DIR/nX/disk/disk.img  the node's disk, its index beside it; DIR/nX/formatting/ until it is whole
//! DIR/nX/csi.sock       CSI identity and node
//! DIR/nX/kubelet/       staging and target paths
//! DIR/nX/run/           the datapath's sockets and mounts
//! ```
//!
//! A node whose disk was given to `dev up` has none in DIR, but DIR/nX/formatted once it is formatted, and the index of
//! a device in DIR/nX/disk/. Given disks are not ours: nothing here deletes them.

use super::ports;
use anyhow::{Context, bail, ensure};
use ashlar_types::{ByteCount, ClusterId, VolumeId, ZoneName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

const FORMAT: &str = "ashlar-dev-cluster";
const VERSION: u32 = 1;
const CLUSTER_FILE: &str = "cluster.json";
const LOCK_FILE: &str = ".lock";
const PARTIAL_FILE: &str = "cluster.partial";
/// What is in the directory before its cluster.json.
const OURS: [&str; 2] = [LOCK_FILE, PARTIAL_FILE];
/// Ports of the control plane, and of each node.
const CONTROL_PORTS: usize = 2;
const NODE_PORTS: usize = 6;
/// Bytes of a Unix socket's path without the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    format: String,
    version: u32,
    pub cluster: String,
    pub disk_size_bytes: u64,
    pub journal_size_bytes: Option<u64>,
    #[serde(default)]
    pub rebuild_grace_ms: Option<u64>,
    /// As they stand on the control plane's command line.
    #[serde(default)]
    pub control_options: Vec<String>,
    #[serde(default)]
    pub scrub_period: Option<String>,
    /// Datapath and chunkserver of a node are one process.
    #[serde(default)]
    pub one_process: bool,
    pub control: ControlPorts,
    pub nodes: Vec<NodePorts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPorts {
    pub listen: SocketAddr,
    pub metrics: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePorts {
    pub name: String,
    pub chunkserver_data: SocketAddr,
    pub chunkserver_rpc: SocketAddr,
    pub chunkserver_metrics: SocketAddr,
    pub datapath_rpc: SocketAddr,
    pub datapath_metrics: SocketAddr,
    pub node_metrics: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// `None`: a file in DIR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<GivenDisk>,
}

/// A disk that `dev up` was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenDisk {
    /// Absolute.
    pub path: PathBuf,
    /// A block device has its size, and its index cannot lie beside it.
    pub is_device: bool,
}

/// What `dev up` was asked for; `None` takes the default, or what the existing cluster has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    pub nodes: Option<u16>,
    pub disk_size: Option<ByteCount>,
    pub journal_size: Option<ByteCount>,
    pub rebuild_grace_ms: Option<u64>,
    pub control_options: &'a [String],
    /// Name of a node and of its zone.
    pub zones: &'a [(String, String)],
    pub scrub_period: Option<&'a str>,
    pub one_process: bool,
    /// Name of a node and path of its disk.
    pub disks: &'a [(String, String)],
}

#[derive(Debug)]
pub struct Layout {
    /// Absolute, without symlinks.
    pub dir: PathBuf,
    pub file: ClusterFile,
}

/// Held while daemons are started or stopped; freed when dropped.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "the lock lives as long as the file is open")] File);

impl Layout {
    /// The cluster in `dir`, which must be one.
    pub fn open(dir: &Path) -> anyhow::Result<Layout> {
        let dir = dir.canonicalize().with_context(|| format!("open {}", dir.display()))?;
        let path = dir.join(CLUSTER_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("{} holds no development cluster ({CLUSTER_FILE} is missing)", dir.display())
            }
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let file: ClusterFile = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged or of another version", path.display()))?;
        ensure!(file.format == FORMAT, "{} is not of a development cluster", path.display());
        ensure!(
            file.version == VERSION,
            "{} has version {}, this program knows {VERSION}",
            path.display(),
            file.version
        );
        Ok(Layout { dir, file })
    }

    /// The cluster in `dir`, made as wished if the directory is absent or empty. One that exists must agree with the
    /// wish.
    pub fn open_or_create(dir: &Path, wish: Wish<'_>) -> anyhow::Result<Layout> {
        if dir.join(CLUSTER_FILE).exists() {
            let layout = Layout::open(dir)?;
            layout.check_wish(wish)?;
            layout.make_directories()?;
            return Ok(layout);
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("make {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("open {}", dir.display()))?;
        Layout::refuse_foreign(&dir)?;
        Layout::create(dir, wish)
    }

    /// A directory that holds something else is left as it is. To be asked before anything is written into it.
    pub fn refuse_foreign(dir: &Path) -> anyhow::Result<()> {
        if dir.join(CLUSTER_FILE).exists() || !dir.exists() {
            return Ok(());
        }
        let mut entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?.filter_map(Result::ok);
        // Without cluster.json nothing of ours can be there but what a command leaves that was cut off.
        match entries.find(|entry| !OURS.iter().any(|ours| entry.file_name() == *ours)) {
            Some(entry) => {
                let name = entry.file_name();
                bail!("{} is neither empty nor a development cluster: it holds {name:?}", dir.display())
            }
            None => Ok(()),
        }
    }

    fn create(dir: PathBuf, wish: Wish<'_>) -> anyhow::Result<Layout> {
        let count = usize::from(wish.nodes.unwrap_or(3));
        let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
        let mut disks = given_disks(&names, wish.disks)?;
        let mut zones = given_zones(&names, wish.zones)?;
        let mut ports = ports::choose(CONTROL_PORTS + count * NODE_PORTS)?.into_iter();
        let mut next = || ports.next().expect("as many ports as asked for");
        let file = ClusterFile {
            format: FORMAT.to_owned(),
            version: VERSION,
            cluster: ClusterId::from_u128(uuid::Uuid::new_v4().as_u128()).to_string(),
            disk_size_bytes: wish.disk_size.unwrap_or(ByteCount(8 << 30)).0,
            journal_size_bytes: wish.journal_size.map(|size| size.0),
            rebuild_grace_ms: wish.rebuild_grace_ms,
            control_options: wish.control_options.to_vec(),
            scrub_period: wish.scrub_period.map(str::to_owned),
            one_process: wish.one_process,
            control: ControlPorts { listen: next(), metrics: next() },
            nodes: names
                .into_iter()
                .map(|name| NodePorts {
                    zone: zones.remove(&name),
                    disk: disks.remove(&name),
                    name,
                    chunkserver_data: next(),
                    chunkserver_rpc: next(),
                    chunkserver_metrics: next(),
                    datapath_rpc: next(),
                    datapath_metrics: next(),
                    node_metrics: next(),
                })
                .collect(),
        };
        let layout = Layout { dir, file };
        layout.check_sockets()?;
        layout.write().context("write cluster.json")?;
        layout.make_directories()?;
        Ok(layout)
    }

    /// Those that are missing; only we may enter them.
    fn make_directories(&self) -> anyhow::Result<()> {
        let mut paths = vec![self.dir.join("control"), self.dir.join("logs"), self.dir.join("state")];
        for node in &self.file.nodes {
            paths.extend([self.kubelet_dir(node), self.run_dir(node)]);
            paths.extend(self.index_parent(node));
        }
        for path in paths {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.with_context(|| format!("make {}", path.display()))?;
        }
        Ok(())
    }

    /// First, and whole: from here on the directory is ours.
    fn write(&self) -> io::Result<()> {
        let partial = self.dir.join(PARTIAL_FILE);
        let mut file = File::create(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(&self.file)?)?;
        file.sync_all()?;
        fs::rename(&partial, self.dir.join(CLUSTER_FILE))?;
        File::open(&self.dir)?.sync_all()
    }

    fn check_wish(&self, wish: Wish<'_>) -> anyhow::Result<()> {
        let dir = self.dir.display();
        if let Some(nodes) = wish.nodes.filter(|&nodes| usize::from(nodes) != self.file.nodes.len()) {
            bail!("the cluster in {dir} has {} nodes, not {nodes}", self.file.nodes.len());
        }
        if let Some(size) = wish.disk_size.filter(|size| size.0 != self.file.disk_size_bytes) {
            bail!("the cluster in {dir} has disks of {} bytes, not {size}", self.file.disk_size_bytes);
        }
        if let Some(size) = wish.journal_size.filter(|size| Some(size.0) != self.file.journal_size_bytes) {
            bail!("the cluster in {dir} was made with another journal size than {size} bytes");
        }
        if let Some(grace) = wish.rebuild_grace_ms.filter(|&grace| Some(grace) != self.file.rebuild_grace_ms) {
            bail!("the cluster in {dir} was made with another rebuild grace than {grace} ms");
        }
        let options = wish.control_options;
        if !options.is_empty() && options != self.file.control_options {
            bail!("the cluster in {dir} was made with other control options than {}", options.join(" "));
        }
        ensure!(
            self.file.one_process || !wish.one_process,
            "the cluster in {} was made with a process for each chunkserver and each datapath",
            self.dir.display()
        );
        if let Some(period) = wish.scrub_period.filter(|&period| Some(period) != self.file.scrub_period.as_deref()) {
            bail!("the cluster in {dir} was made with another scrub period than {period}");
        }
        let names: Vec<String> = self.file.nodes.iter().map(|node| node.name.clone()).collect();
        for (name, wanted) in given_zones(&names, wish.zones)? {
            let has = self.file.nodes.iter().find(|node| node.name == name).and_then(|node| node.zone.as_ref());
            if has != Some(&wanted) {
                bail!("the cluster in {dir} was made with another zone of {name} than {wanted}");
            }
        }
        for (name, wanted) in given_disks(&names, wish.disks)? {
            let has = self.file.nodes.iter().find(|node| node.name == name).and_then(|node| node.disk.as_ref());
            if has.is_none_or(|has| has.path != wanted.path) {
                bail!("the cluster in {dir} was made with another disk of {name} than {}", wanted.path.display());
            }
        }
        Ok(())
    }

    fn check_sockets(&self) -> anyhow::Result<()> {
        // The longest is the datapath's, for a volume that is exported by NBD.
        let longest =
            |node| self.run_dir(node).join("nbd").join(VolumeId::from_u128(0).to_string()).with_extension("sock");
        for socket in self.file.nodes.iter().map(longest) {
            let length = socket.as_os_str().len();
            ensure!(
                length <= SOCKET_PATH_BYTES_MAX,
                "a socket like {} would have {length} bytes, and {SOCKET_PATH_BYTES_MAX} are allowed: \
                 use a shorter --dir",
                socket.display()
            );
        }
        Ok(())
    }

    /// Waits for no one: a second command on the same cluster is refused.
    pub fn lock(dir: &Path) -> anyhow::Result<Lock> {
        let path = dir.join(LOCK_FILE);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => {
                bail!("another command is starting or stopping the cluster in {}", dir.display())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }

    pub fn control_url(&self) -> String {
        format!("http://{}", self.file.control.listen)
    }

    pub fn catalog(&self) -> PathBuf {
        self.dir.join("control").join("catalog")
    }

    pub fn control_csi_socket(&self) -> PathBuf {
        self.dir.join("control").join("csi.sock")
    }

    pub fn log(&self, daemon: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{daemon}.log"))
    }

    pub fn state_file(&self, daemon: &str) -> PathBuf {
        self.dir.join("state").join(format!("{daemon}.json"))
    }

    pub fn disk(&self, node: &NodePorts) -> PathBuf {
        match &node.disk {
            Some(given) => given.path.clone(),
            None => self.dir.join(&node.name).join("disk").join("disk.img"),
        }
    }

    /// Where the index of the node's disk is, if not beside the disk.
    pub fn index_parent(&self, node: &NodePorts) -> Option<PathBuf> {
        let is_device = node.disk.as_ref().is_some_and(|given| given.is_device);
        is_device.then(|| self.dir.join(&node.name).join("disk"))
    }

    /// The disk's formatting has ended well.
    pub fn is_formatted(&self, node: &NodePorts) -> bool {
        if node.disk.is_some() { self.formatted_mark(node).exists() } else { self.disk(node).exists() }
    }

    /// Is there once a disk that was given is formatted.
    pub fn formatted_mark(&self, node: &NodePorts) -> PathBuf {
        self.dir.join(&node.name).join("formatted")
    }

    /// Where the disk is until it is whole.
    pub fn unfinished_disk(&self, node: &NodePorts) -> PathBuf {
        self.dir.join(&node.name).join("formatting").join("disk.img")
    }

    pub fn node_csi_socket(&self, node: &NodePorts) -> PathBuf {
        self.dir.join(&node.name).join("csi.sock")
    }

    pub fn kubelet_dir(&self, node: &NodePorts) -> PathBuf {
        self.dir.join(&node.name).join("kubelet")
    }

    pub fn run_dir(&self, node: &NodePorts) -> PathBuf {
        self.dir.join(&node.name).join("run")
    }
}

/// Zones by the names of their nodes.
fn given_zones(nodes: &[String], wished: &[(String, String)]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    for (node, zone) in wished {
        ensure!(nodes.contains(node), "--zone names {node:?}, and the nodes are {}", nodes.join(", "));
        zone.parse::<ZoneName>().map_err(|error| anyhow::anyhow!("--zone of {node}: {error}"))?;
        ensure!(given.insert(node.clone(), zone.clone()).is_none(), "--zone is given twice for {node}");
    }
    Ok(given)
}

/// Disks by the names of their nodes.
fn given_disks(nodes: &[String], wished: &[(String, String)]) -> anyhow::Result<BTreeMap<String, GivenDisk>> {
    let mut given = BTreeMap::new();
    for (node, path) in wished {
        ensure!(nodes.contains(node), "--disk names {node:?}, and the nodes are {}", nodes.join(", "));
        let path = std::path::absolute(path).with_context(|| format!("make absolute the path {path:?}"))?;
        let is_device = fs::metadata(&path).is_ok_and(|metadata| metadata.file_type().is_block_device());
        let twice = given.insert(node.clone(), GivenDisk { path, is_device });
        ensure!(twice.is_none(), "--disk is given twice for {node}");
    }
    Ok(given)
}

#[cfg(test)]
mod tests;
