//! `dev status`: every daemon with what it takes to find it.

use super::daemon::{self, Daemon, Kind};
use super::layout::Layout;
use super::process;
use crate::args::Format;
use crate::output::{Sheet, Table, print};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize)]
struct ClusterView {
    dir: PathBuf,
    cluster: String,
    /// URL of the control API.
    control: String,
    /// CSI identity and controller.
    csi_socket: PathBuf,
    daemons: Vec<DaemonView>,
}

#[derive(Debug, Serialize)]
struct DaemonView {
    name: String,
    kind: Kind,
    node: Option<String>,
    /// Null when it does not run.
    pid: Option<i32>,
    alive: bool,
    /// By purpose: control, data, rpc, metrics.
    addresses: BTreeMap<&'static str, SocketAddr>,
    /// By purpose: csi.
    sockets: BTreeMap<&'static str, PathBuf>,
    disks: Vec<PathBuf>,
    /// Of the node service: below it lie staging and target paths.
    kubelet_dir: Option<PathBuf>,
    /// Of the datapath: its sockets and mounts.
    run_dir: Option<PathBuf>,
    log: PathBuf,
}

pub fn status(dir: &Path, format: Format) -> anyhow::Result<()> {
    let layout = Layout::open(dir)?;
    let running = process::running(&layout)?;
    let daemons = daemon::all(&layout).iter().map(|daemon| view(&layout, daemon, &running)).collect();
    let cluster = ClusterView {
        cluster: layout.file.cluster.clone(),
        control: layout.control_url(),
        csi_socket: layout.control_csi_socket(),
        daemons,
        dir: layout.dir,
    };
    print(format, &cluster, |cluster| {
        let mut table = Table::new(["DAEMON", "PID", "ADDRESSES", "SOCKET", "LOG"]);
        for daemon in &cluster.daemons {
            let addresses: Vec<String> =
                daemon.addresses.iter().map(|(purpose, address)| format!("{purpose} {address}")).collect();
            table.row([
                daemon.name.clone(),
                daemon.pid.map_or_else(|| "not running".to_owned(), |pid| pid.to_string()),
                addresses.join(", "),
                daemon.sockets.get("csi").map_or_else(|| "-".to_owned(), |path| path.display().to_string()),
                daemon.log.display().to_string(),
            ]);
        }
        table.print();
    })
}

fn view(layout: &Layout, daemon: &Daemon<'_>, running: &BTreeMap<String, i32>) -> DaemonView {
    let name = daemon.name();
    let pid = running.get(&name).copied();
    DaemonView {
        kind: daemon.kind,
        node: daemon.node.map(|node| node.name.clone()),
        pid,
        alive: pid.is_some(),
        addresses: daemon.addresses(layout).into_iter().collect(),
        sockets: daemon.csi_socket(layout).map(|path| ("csi", path)).into_iter().collect(),
        disks: daemon.disk(layout).into_iter().collect(),
        kubelet_dir: daemon.node.filter(|_| daemon.kind == Kind::Node).map(|node| layout.kubelet_dir(node)),
        run_dir: daemon.node.filter(|_| daemon.kind == Kind::Datapath).map(|node| layout.run_dir(node)),
        log: layout.log(&name),
        name,
    }
}

/// After `dev up`, for a person: what to do next.
pub fn print_summary(layout: &Layout) {
    let mut sheet = Sheet::default();
    sheet.line("cluster", format!("{} with {} nodes", layout.file.cluster, layout.file.nodes.len()));
    sheet.line("control", layout.control_url());
    sheet.line("csi", layout.control_csi_socket().display());
    sheet.line("next", format!("export ASHLAR_DIR={}", layout.dir.display()));
    sheet.print();
}
