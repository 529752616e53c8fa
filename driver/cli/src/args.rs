//! The grammar of the command line.

mod dev;

use crate::size::parse_size;
use ashlar_types::ByteCount;
use clap::{Args, Parser, Subcommand, ValueEnum};
pub use dev::{DevDown, DevUp};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Replicated block storage for databases on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "ashlar", version, propagate_version = true, arg_required_else_help = true)]
pub struct Arguments {
    /// Control plane, for example http://127.0.0.1:7100; otherwise the one of the development cluster in DIR.
    #[arg(long, global = true, env = "ASHLAR_CONTROL", value_name = "URL")]
    pub control: Option<String>,
    /// Directory of a development cluster.
    #[arg(long, global = true, env = "ASHLAR_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine, on loopback.
    #[command(subcommand)]
    Dev(DevCommand),
    /// Create, show, attach, detach and delete volumes.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Take, show and delete snapshots.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Look at nodes.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Look at disks, drain, remove, or give one up.
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Look at the cluster as a whole.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// What happened, oldest first.
    Events(EventsArguments),
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Format {
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum DevCommand {
    /// Start the cluster in --dir; makes it when there is none, and starts what is not running when there is one.
    Up(DevUp),
    /// Every daemon with its pid, addresses, sockets, disks and log.
    Status(Format),
    /// Unmount, detach and stop everything.
    Down(DevDown),
    /// Send a signal to one daemon, or to `all`.
    Kill {
        /// Daemon as `dev status` names it, or `all`.
        name: String,
        /// Signal by name, for example KILL, TERM, STOP, CONT.
        #[arg(long, default_value = "KILL")]
        signal: String,
    },
    /// Start one daemon that is not running, and wait until it serves.
    Start {
        /// Daemon as `dev status` names it.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Take snapshots of several volumes, attached or not; new writes are held for a moment.
    Create {
        /// Of the group.
        name: String,
        /// Volumes, by name or id.
        #[arg(required = true)]
        volumes: Vec<String>,
        #[command(flatten)]
        format: Format,
    },
    /// All groups.
    List {
        #[command(flatten)]
        format: Format,
    },
    /// One group, and its snapshots.
    Show {
        /// Name or id.
        group: String,
        #[command(flatten)]
        format: Format,
    },
    /// Delete a group with its snapshots.
    Delete {
        /// Name or id.
        group: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Take a snapshot of a volume, attached or not; no I/O waits for it.
    Create {
        /// Volume, by name or id.
        volume: String,
        /// Of the snapshot.
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// All snapshots, or those of a volume.
    List {
        /// Name or id.
        #[arg(long)]
        volume: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// One snapshot.
    Show {
        /// Name or id.
        snapshot: String,
        #[command(flatten)]
        format: Format,
    },
    /// Delete a snapshot; its space comes back in the background.
    Delete {
        /// Name or id.
        snapshot: String,
    },
    /// Which ranges of a volume changed between two of its snapshots.
    Diff {
        /// The older one, by name or id.
        base: String,
        /// The newer one.
        target: String,
        #[command(flatten)]
        format: Format,
    },
    /// Write a snapshot, or what changed since another one, into a file; one that was interrupted goes on.
    Export {
        /// Name or id.
        snapshot: String,
        /// Only what changed since this older snapshot of the same volume.
        #[arg(long, value_name = "SNAPSHOT")]
        since: Option<String>,
        /// A file, or `-` for the standard output.
        file: String,
        #[command(flatten)]
        format: Format,
    },
    /// Write an exported file into a volume that is not attached.
    Import(SnapshotImport),
    /// Snapshots of several volumes at one instant.
    #[command(subcommand)]
    Group(GroupCommand),
}

#[derive(Debug, Args)]
pub struct SnapshotImport {
    /// Name or id; at least as large as the snapshot was.
    pub volume: String,
    /// A file, or `-` for the standard input.
    pub file: String,
    /// This machine, whose datapath writes. [default: the node of the volume's first replica]
    #[arg(long)]
    pub node: Option<String>,
    /// Also into a volume that was written to: what it holds is lost.
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create a volume: empty, or with what a snapshot or another volume holds, at once and without a copy of it.
    Create {
        name: String,
        /// Size, for example 4G or 512M (powers of 1024); of a clone at least the source's, which is the default.
        #[arg(long, value_parser = parse_size, required_unless_present_any = ["from_snapshot", "from_volume"])]
        size: Option<ByteCount>,
        /// Begin with what this snapshot holds; name or id.
        #[arg(long, value_name = "SNAPSHOT", conflicts_with_all = ["from_volume", "node"])]
        from_snapshot: Option<String>,
        /// Begin with what this volume holds now, attached or not; name or id.
        #[arg(long, value_name = "VOLUME", conflicts_with = "node")]
        from_volume: Option<String>,
        /// Node that gets the first replica; otherwise the control plane chooses. A clone lies where its source lies.
        #[arg(long)]
        node: Option<String>,
        /// A parameter as a StorageClass would give it; may be repeated.
        #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_parameter)]
        parameters: Vec<(String, String)>,
        #[command(flatten)]
        format: Format,
    },
    /// All volumes.
    List(Format),
    /// One volume with its replicas.
    Show {
        /// Name or id.
        volume: String,
        /// Only why each replica lies where it lies, and not on another disk.
        #[arg(long)]
        why: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Bring up the volume's device on a node, and print its path or NBD URI.
    Attach {
        /// Name or id.
        volume: String,
        #[arg(long)]
        node: String,
        #[arg(long, value_enum, default_value_t = FrontendName::Fuse)]
        frontend: FrontendName,
        #[arg(long)]
        read_only: bool,
    },
    /// Take the device down: drained, closed and marked clean.
    Detach {
        /// Name or id.
        volume: String,
        /// Take it from a node that does not answer; its writes since then are refused.
        #[arg(long)]
        force: bool,
    },
    /// Change how a volume is served; what is not named stays as it is.
    Modify(VolumeModify),
    /// Make a volume larger, also while it is attached; a mounted filesystem is grown by its own tool afterwards.
    Expand {
        /// Name or id.
        volume: String,
        /// What it is to have, for example 8G; never less than it has.
        #[arg(long, value_parser = parse_size)]
        size: ByteCount,
        #[command(flatten)]
        format: Format,
    },
    /// Read a detached volume from every replica and compare, block by block.
    Compare {
        /// Name or id.
        volume: String,
        #[command(flatten)]
        format: Format,
    },
    /// Delete the volume and all its data.
    Delete {
        /// Name or id.
        volume: String,
    },
}

#[derive(Debug, Args)]
#[group(id = "changes", required = true, multiple = true, args = [
    "class", "iops_limit", "iops_burst", "bandwidth_limit", "bandwidth_burst", "min_replicas",
])]
pub struct VolumeModify {
    /// Name or id.
    pub volume: String,
    /// Which volume goes first: critical, high, normal or low.
    #[arg(long)]
    pub class: Option<String>,
    /// Reads, writes and discards per second, or `none`.
    #[arg(long, value_name = "NUMBER")]
    pub iops_limit: Option<String>,
    /// How many of them may go at once after a pause; `none`: those of a second.
    #[arg(long, value_name = "NUMBER")]
    pub iops_burst: Option<String>,
    /// Bytes read and written per second, for example 200M (powers of 1024), or `none`.
    #[arg(long, value_name = "SIZE", value_parser = parse_bandwidth)]
    pub bandwidth_limit: Option<String>,
    /// How many of them may go at once after a pause; `none`: those of a second.
    #[arg(long, value_name = "SIZE", value_parser = parse_bandwidth)]
    pub bandwidth_burst: Option<String>,
    /// Below this many in-sync replicas writes wait. Only while the volume is detached.
    #[arg(long)]
    pub min_replicas: Option<u8>,
    #[command(flatten)]
    pub format: Format,
}

impl VolumeModify {
    /// As a VolumeAttributesClass names them.
    pub fn parameters(&self) -> BTreeMap<String, String> {
        let given = [
            ("class", self.class.clone()),
            ("iopsLimit", self.iops_limit.clone()),
            ("iopsBurst", self.iops_burst.clone()),
            ("bandwidthLimit", self.bandwidth_limit.clone()),
            ("bandwidthBurst", self.bandwidth_burst.clone()),
            ("minReplicas", self.min_replicas.map(|number| number.to_string())),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FrontendName {
    /// A kernel block device: a file served by FUSE with a loop device on it.
    Fuse,
    /// An NBD export on a Unix socket.
    Nbd,
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// All nodes.
    List(Format),
    /// Have every replica elsewhere; data keeps all its copies meanwhile.
    Drain {
        node: String,
        #[command(flatten)]
        format: Format,
    },
    /// Let the node take replicas again.
    Undrain {
        node: String,
        #[command(flatten)]
        format: Format,
    },
    /// Whether the node may be stopped without any volume's writes waiting. Exit code 1 if not.
    SafeToStop {
        node: String,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// All disks.
    List(Format),
    /// One disk, with what the verification of its blocks has come to.
    Show {
        /// Id of the disk.
        disk: String,
        #[command(flatten)]
        format: Format,
    },
    /// Have every replica elsewhere; data keeps all its copies meanwhile.
    Drain {
        /// Id of the disk.
        disk: String,
        #[command(flatten)]
        format: Format,
    },
    /// Let the disk take replicas again.
    Undrain {
        /// Id of the disk.
        disk: String,
        #[command(flatten)]
        format: Format,
    },
    /// Take a disk out of the cluster; it holds nothing, and comes back only formatted anew.
    Remove {
        /// Id of the disk.
        disk: String,
        /// Name of a volume whose last replica it has, and whose data is given up; may be repeated.
        #[arg(long, value_name = "VOLUME")]
        accept_data_loss: Vec<String>,
    },
    /// Give a disk up for good: its replicas never count again.
    DeclareLost {
        /// Id of the disk.
        disk: String,
        /// You have made sure that the disk or its node is off; needed where a volume would fall below minReplicas.
        #[arg(long)]
        proof_that_it_is_off: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Health, nodes, disks, volumes and space.
    Status(Format),
}

#[derive(Debug, Args)]
pub struct EventsArguments {
    /// Only of this volume (name or id).
    #[arg(long)]
    pub volume: Option<String>,
    /// At most this many of the past.
    #[arg(long, default_value_t = 100)]
    pub last: u32,
    /// Stay, and print each as it comes.
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    pub format: Format,
}

/// In bytes, which mean the same everywhere.
fn parse_bandwidth(text: &str) -> Result<String, String> {
    if text == "none" { Ok(text.to_owned()) } else { parse_size(text).map(|size| size.to_string()) }
}

fn parse_parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn grammar_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_may_follow_the_command() {
        let arguments = Arguments::try_parse_from(["ashlar", "dev", "up", "--dir", "/x", "--nodes", "5"]).unwrap();
        assert_eq!(arguments.dir, Some(PathBuf::from("/x")));
        assert!(matches!(arguments.command, Command::Dev(DevCommand::Up(DevUp { nodes: Some(5), .. }))));
    }

    #[test]
    fn wrong_values_are_refused() {
        for line in [
            &["ashlar", "volume", "create", "v", "--size", "4X"][..],
            &["ashlar", "volume", "create", "v", "--size", "1G", "--param", "=x"],
            &["ashlar", "volume", "create", "v"],
            &["ashlar", "volume", "attach", "v", "--node", "n1", "--frontend", "scsi"],
            &["ashlar", "dev", "up", "--nodes", "0"],
            &["ashlar", "volume", "modify", "v"],
            &["ashlar", "volume", "modify", "v", "--json"],
            &["ashlar", "volume", "modify", "v", "--bandwidth-limit", "fast"],
            &["ashlar", "volume", "modify", "v", "--min-replicas", "-1"],
        ] {
            assert!(Arguments::try_parse_from(line).is_err(), "{line:?}");
        }
    }
    #[test]
    fn what_is_to_be_modified_is_named_as_in_a_volume_attributes_class() {
        let line = ["ashlar", "volume", "modify", "v", "--iops-limit", "500", "--bandwidth-limit", "1.5M"];
        let arguments = Arguments::try_parse_from(line.iter().chain(&["--bandwidth-burst", "none"])).unwrap();
        let Command::Volume(VolumeCommand::Modify(modify)) = arguments.command else { panic!("it is another command") };
        let given = [("bandwidthBurst", "none"), ("bandwidthLimit", "1572864"), ("iopsLimit", "500")];
        assert!(modify.parameters().iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(given));
    }
}
