//! The daemons of a development cluster: their names, in the order in which they are started, and their command lines.

use super::layout::{Layout, NodePorts};
use anyhow::{Context, bail};
use serde::Serialize;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Control plane with the CSI controller.
    Control,
    Chunkserver,
    /// With the chunkserver in its process, where the cluster is made so.
    Datapath,
    /// CSI node service.
    Node,
}

impl Kind {
    pub const START_ORDER: [Kind; 4] = [Kind::Control, Kind::Chunkserver, Kind::Datapath, Kind::Node];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Control => "control",
            Kind::Chunkserver => "chunkserver",
            Kind::Datapath => "datapath",
            Kind::Node => "node",
        }
    }
}

const DRIVER: &str = "ashlar-driver";
pub const CHUNKSERVER: &str = "ashlar-chunkserver";
const DATAPATH: &str = "ashlar-datapath";
const NODE: &str = "ashlar-node";
/// File names of the programs.
pub const PROGRAMS: [&str; 4] = [DRIVER, CHUNKSERVER, DATAPATH, NODE];

/// One daemon: `control`, or `KIND-NODE`.
#[derive(Clone, Copy, Debug)]
pub struct Daemon<'a> {
    pub kind: Kind,
    /// `None` for the control plane.
    pub node: Option<&'a NodePorts>,
}

impl Daemon<'_> {
    pub fn name(&self) -> String {
        match self.node {
            Some(node) => format!("{}-{}", self.kind.name(), node.name),
            None => self.kind.name().to_owned(),
        }
    }

    /// File name of the program.
    pub fn program(&self, layout: &Layout) -> &'static str {
        match self.kind {
            Kind::Control | Kind::Node => DRIVER,
            Kind::Chunkserver => CHUNKSERVER,
            Kind::Datapath if layout.file.one_process => NODE,
            Kind::Datapath => DATAPATH,
        }
    }

    /// The disk of the node is served by it.
    pub fn has_disk(&self, layout: &Layout) -> bool {
        let kind = if layout.file.one_process { Kind::Datapath } else { Kind::Chunkserver };
        self.kind == kind
    }

    /// Its addresses by purpose.
    pub fn addresses(&self, layout: &Layout) -> Vec<(&'static str, SocketAddr)> {
        let control = &layout.file.control;
        match (self.kind, self.node) {
            (Kind::Chunkserver, Some(node)) => vec![
                ("data", node.chunkserver_data),
                ("rpc", node.chunkserver_rpc),
                ("metrics", node.chunkserver_metrics),
            ],
            (Kind::Datapath, Some(node)) => {
                let mut addresses = vec![("rpc", node.datapath_rpc), ("metrics", node.datapath_metrics)];
                if self.has_disk(layout) {
                    addresses.extend([
                        ("data", node.chunkserver_data),
                        ("chunkserver rpc", node.chunkserver_rpc),
                        ("chunkserver metrics", node.chunkserver_metrics),
                    ]);
                }
                addresses
            }
            (Kind::Node, Some(node)) => vec![("metrics", node.node_metrics)],
            _ => vec![("control", control.listen), ("metrics", control.metrics)],
        }
    }

    pub fn csi_socket(&self, layout: &Layout) -> Option<PathBuf> {
        match (self.kind, self.node) {
            (Kind::Control, _) => Some(layout.control_csi_socket()),
            (Kind::Node, Some(node)) => Some(layout.node_csi_socket(node)),
            _ => None,
        }
    }

    pub fn disk(&self, layout: &Layout) -> Option<PathBuf> {
        self.node.filter(|_| self.has_disk(layout)).map(|node| layout.disk(node))
    }

    /// The arguments after the program's name.
    pub fn arguments(&self, layout: &Layout) -> Vec<OsString> {
        let own = self.own_arguments(layout);
        if self.kind == Kind::Datapath && layout.file.one_process {
            // What follows the verb, of either.
            let chunkserver = Daemon { kind: Kind::Chunkserver, ..*self }.own_arguments(layout);
            let between = [OsString::from("--")];
            return own.into_iter().skip(1).chain(between).chain(chunkserver.into_iter().skip(1)).collect();
        }
        own
    }

    fn own_arguments(&self, layout: &Layout) -> Vec<OsString> {
        let mut line = CommandLine::default();
        let state_file = layout.state_file(&self.name());
        match (self.kind, self.node) {
            (Kind::Chunkserver, Some(node)) => line
                .word("run")
                .option("--cluster", &layout.file.cluster)
                .option("--node", &node.name)
                .maybe("--zone", node.zone.as_ref())
                .option("--disk", layout.disk(node))
                .maybe("--index", layout.index_parent(node))
                .option("--listen", node.chunkserver_data.to_string())
                .option("--rpc-listen", node.chunkserver_rpc.to_string())
                .option("--metrics-listen", node.chunkserver_metrics.to_string())
                .maybe("--scrub-period", layout.file.scrub_period.clone())
                .option("--control", layout.control_url()),
            (Kind::Datapath, Some(node)) => line
                .word("run")
                .option("--node", &node.name)
                .maybe("--zone", node.zone.as_ref())
                .option("--control", layout.control_url())
                .option("--rpc-listen", node.datapath_rpc.to_string())
                .option("--metrics-listen", node.datapath_metrics.to_string())
                .maybe("--scrub-period", layout.file.scrub_period.clone())
                .option("--run-dir", layout.run_dir(node)),
            (Kind::Node, Some(node)) => line
                .word("node")
                .option("--node", &node.name)
                .maybe("--zone", node.zone.as_ref())
                .option("--control", layout.control_url())
                .option("--csi-socket", layout.node_csi_socket(node))
                .option("--kubelet-dir", layout.kubelet_dir(node))
                .option("--metrics-listen", node.node_metrics.to_string()),
            _ => line
                .word("control")
                .option("--cluster", &layout.file.cluster)
                .option("--catalog", layout.catalog())
                .option("--listen", layout.file.control.listen.to_string())
                .option("--csi-socket", layout.control_csi_socket())
                .option("--metrics-listen", layout.file.control.metrics.to_string())
                .maybe("--rebuild-grace-ms", layout.file.rebuild_grace_ms.map(|grace| grace.to_string()))
                .words(&layout.file.control_options),
        };
        line.option("--state-file", state_file);
        line.0
    }
}

/// All daemons in the order in which they are started.
pub fn all(layout: &Layout) -> Vec<Daemon<'_>> {
    let on_nodes = |kind| layout.file.nodes.iter().map(move |node| Daemon { kind, node: Some(node) });
    let mut daemons = vec![Daemon { kind: Kind::Control, node: None }];
    for kind in [Kind::Chunkserver, Kind::Datapath, Kind::Node] {
        if kind == Kind::Chunkserver && layout.file.one_process {
            continue;
        }
        daemons.extend(on_nodes(kind));
    }
    daemons
}

pub fn by_name<'a>(layout: &'a Layout, name: &str) -> anyhow::Result<Daemon<'a>> {
    let daemons = all(layout);
    match daemons.iter().find(|daemon| daemon.name() == name) {
        Some(daemon) => Ok(*daemon),
        None => {
            let names: Vec<String> = daemons.iter().map(Daemon::name).collect();
            bail!("there is no daemon {name:?}; there are {}", names.join(", "))
        }
    }
}

/// `ashlar-chunkserver format` for a disk that is still to be made at `disk`. A device has its size.
pub fn format_arguments(layout: &Layout, node: &NodePorts, disk: &Path) -> Vec<OsString> {
    let is_device = node.disk.as_ref().is_some_and(|given| given.is_device);
    let size = (!is_device).then(|| layout.file.disk_size_bytes.to_string());
    let mut line = CommandLine::default();
    line.word("format")
        .option("--cluster", &layout.file.cluster)
        .option("--node", &node.name)
        .option("--disk", disk)
        .maybe("--index", layout.index_parent(node))
        .maybe("--size", size)
        .maybe("--journal-size", layout.file.journal_size_bytes.map(|size| size.to_string()));
    line.0
}

/// The program, which lies beside this one.
pub fn program_path(program: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find the path of this program")?;
    let path = own.parent().unwrap_or(Path::new("/")).join(program);
    if !path.is_file() {
        bail!("{} is missing; the daemons' programs must lie beside `ashlar`", path.display());
    }
    Ok(path)
}

#[derive(Default)]
struct CommandLine(Vec<OsString>);

impl CommandLine {
    fn word(&mut self, word: &str) -> &mut CommandLine {
        self.0.push(word.into());
        self
    }

    fn words(&mut self, words: &[String]) -> &mut CommandLine {
        self.0.extend(words.iter().map(OsString::from));
        self
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) -> &mut CommandLine {
        self.0.push(name.into());
        self.0.push(value.into());
        self
    }

    fn maybe(&mut self, name: &str, value: Option<impl Into<OsString>>) -> &mut CommandLine {
        match value {
            Some(value) => self.option(name, value),
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::layout::{GivenDisk, Wish};

    #[test]
    fn daemons_are_started_from_the_control_plane_to_the_node_services() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(dir.path(), Wish { nodes: Some(2), ..Wish::default() }).unwrap();
        let names: Vec<String> = all(&layout).iter().map(Daemon::name).collect();
        let expected =
            ["control", "chunkserver-n1", "chunkserver-n2", "datapath-n1", "datapath-n2", "node-n1", "node-n2"];
        assert_eq!(names, expected);
        assert!(by_name(&layout, "node-n2").is_ok());
        assert!(by_name(&layout, "node-n3").unwrap_err().to_string().contains("chunkserver-n1"));
    }

    #[test]
    fn where_a_node_has_one_process_it_has_the_options_and_the_disk_of_both() {
        let dir = tempfile::tempdir().unwrap();
        let wish = Wish { nodes: Some(1), one_process: true, ..Wish::default() };
        let layout = Layout::open_or_create(dir.path(), wish).unwrap();
        let names: Vec<String> = all(&layout).iter().map(Daemon::name).collect();
        assert_eq!(names, ["control", "datapath-n1", "node-n1"]);
        let node = by_name(&layout, "datapath-n1").unwrap();
        assert_eq!(node.program(&layout), NODE);
        let arguments = node.arguments(&layout);
        let between = arguments.iter().position(|word| word == "--").expect("two lists");
        let [datapath, chunkserver] = [&arguments[..between], &arguments[between + 1..]];
        assert!(datapath.contains(&"--run-dir".into()) && chunkserver.contains(&"--disk".into()));
        assert!(!arguments.contains(&"run".into()));
        assert_eq!(node.disk(&layout), Some(layout.disk(node.node.unwrap())));
        // Later commands need not say it again; a cluster that was made otherwise cannot become one.
        assert!(Layout::open_or_create(dir.path(), Wish::default()).unwrap().file.one_process);
        let other = tempfile::tempdir().unwrap();
        Layout::open_or_create(other.path(), Wish { nodes: Some(1), ..Wish::default() }).unwrap();
        assert!(Layout::open_or_create(other.path(), wish).is_err());
    }

    #[test]
    fn a_device_keeps_its_size_and_has_its_index_in_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = Layout::open_or_create(dir.path(), Wish { nodes: Some(1), ..Wish::default() }).unwrap();
        let path = Path::new("/dev/x");
        layout.file.nodes[0].disk = Some(GivenDisk { path: path.to_owned(), is_device: true });
        let node = &layout.file.nodes[0];
        let index = layout.dir.join("n1").join("disk").into_os_string();
        for line in
            [format_arguments(&layout, node, path), by_name(&layout, "chunkserver-n1").unwrap().arguments(&layout)]
        {
            let at = line.iter().position(|word| word == "--index").expect("an index is named");
            assert_eq!(line[at + 1], index);
            assert!(line.contains(&path.as_os_str().to_owned()) && !line.contains(&"--size".into()));
        }
    }

    #[test]
    fn a_daemon_is_given_the_addresses_that_status_shows() {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = Layout::open_or_create(dir.path(), Wish { nodes: Some(1), ..Wish::default() }).unwrap();
        for one_process in [false, true] {
            layout.file.one_process = one_process;
            for daemon in all(&layout) {
                let arguments = daemon.arguments(&layout);
                for (purpose, address) in daemon.addresses(&layout) {
                    assert!(arguments.contains(&address.to_string().into()), "{} {purpose}", daemon.name());
                }
                for path in daemon.csi_socket(&layout).into_iter().chain(daemon.disk(&layout)) {
                    assert!(arguments.contains(&path.into_os_string()), "{}", daemon.name());
                }
            }
        }
    }
}
