//! What `ashlar dev` is told.

use super::parse_parameter;
use crate::size::parse_size;
use ashlar_types::ByteCount;
use clap::Args;

#[derive(Debug, Args)]
pub struct DevUp {
    /// Number of nodes; each has a disk, a chunkserver, a datapath and a CSI node service. [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nodes: Option<u16>,
    /// Size of each node's disk file, written in full. [default: 8G]
    #[arg(long, value_parser = parse_size)]
    pub disk_size: Option<ByteCount>,
    /// Size of each disk's journal; otherwise the chunkserver's own default.
    #[arg(long, value_parser = parse_size)]
    pub journal_size: Option<ByteCount>,
    /// How long a node may be silent before its replicas are made elsewhere, in milliseconds; otherwise the control
    /// plane's own default.
    #[arg(long, value_name = "MILLISECONDS")]
    pub rebuild_grace_ms: Option<u64>,
    /// Another option of `ashlar-driver control`, for example --control-option=--copy-limit-mib=64; may be repeated.
    #[arg(long = "control-option", value_name = "OPTION", allow_hyphen_values = true)]
    pub control_options: Vec<String>,
    /// The zone of one node, for example n1=a; may be repeated.
    #[arg(long = "zone", value_name = "NODE=ZONE", value_parser = parse_parameter)]
    pub zones: Vec<(String, String)>,
    /// In what time chunkservers verify every block and datapaths compare replicas, for example 10s; otherwise their
    /// own default.
    #[arg(long, value_name = "TIME")]
    pub scrub_period: Option<String>,
    /// Datapath and chunkserver of each node are one process, in which the node's own replica is written and read
    /// without a socket. To be said when the cluster is made.
    #[arg(long)]
    pub one_process: bool,
    /// A block device, or a file to be made, as the disk of one node (n1, n2, ...), for example n2=/dev/sdb; may be
    /// repeated. It must hold nothing but zeros, it keeps its own size if it has one, and no command deletes it.
    #[arg(long = "disk", value_name = "NODE=PATH", value_parser = parse_parameter)]
    pub disks: Vec<(String, String)>,
    /// Leave the daemons running and return, instead of staying until Ctrl-C.
    #[arg(long)]
    pub detach: bool,
    /// How long to wait until every node and disk is online.
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    pub timeout: std::time::Duration,
}

#[derive(Debug, Args)]
pub struct DevDown {
    /// Also delete the directory with all its data.
    #[arg(long)]
    pub purge: bool,
    /// Kill the datapaths first, so that nothing can wait for a volume that does not answer; unwritten data is lost.
    #[arg(long)]
    pub force: bool,
}
