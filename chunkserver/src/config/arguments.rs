//! The command line and the configuration file, and how they become a configuration.

use super::{
    Command, DISKS_MAX, DiskPaths, FormatConfig, InspectConfig, RunConfig, Size, absolute, any_loopback_port,
    check_address,
};
use crate::Error;
use ashlar_types::{NodeName, Period, VolumeId, ZoneName};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Owns disks and serves the replicas on them.
#[derive(Parser, Debug)]
#[command(name = "ashlar-chunkserver", version, about)]
pub struct Arguments {
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value = "text", env = "ASHLAR_LOG_FORMAT")]
    pub log_format: LogFormat,
    #[command(subcommand)]
    subcommand: Subcommands,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
enum Subcommands {
    /// Serve the disks until SIGTERM.
    Run(Box<RunArguments>),
    /// Make an Ashlar disk of an empty file or device. Never overwrites anything.
    Format(FormatArguments),
    /// Show what is on a disk that no process uses; changes nothing.
    Inspect(InspectArguments),
}

#[derive(Args, Debug, Default)]
struct RunArguments {
    /// TOML file with the same names as the flags.
    #[arg(long, env = "ASHLAR_CHUNKSERVER_CONFIG")]
    config: Option<PathBuf>,
    /// The cluster's id; disks of another cluster are refused.
    #[arg(long, env = "ASHLAR_CLUSTER")]
    cluster: Option<String>,
    /// The Kubernetes node on which this runs.
    #[arg(long, env = "ASHLAR_NODE")]
    node: Option<String>,
    #[arg(long, env = "ASHLAR_ZONE")]
    zone: Option<String>,
    /// A file or block device that was formatted as an Ashlar disk. May be given several times.
    #[arg(long = "disk", value_name = "PATH")]
    disks: Vec<PathBuf>,
    /// Directory that holds the disks' indexes, each as NAME.index; without it an index is beside its disk.
    #[arg(long, value_name = "DIR", env = "ASHLAR_CHUNKSERVER_INDEX")]
    index: Option<PathBuf>,
    /// Data port; port 0: any free one. [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDRESS", env = "ASHLAR_CHUNKSERVER_LISTEN")]
    listen: Option<SocketAddr>,
    /// Port of the control API. [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDRESS", env = "ASHLAR_CHUNKSERVER_RPC_LISTEN")]
    rpc_listen: Option<SocketAddr>,
    /// Port of Prometheus metrics; none without it.
    #[arg(long, value_name = "ADDRESS", env = "ASHLAR_CHUNKSERVER_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// The control plane to report to, as http://ADDRESS.
    #[arg(long, value_name = "URL", env = "ASHLAR_CONTROL")]
    control: Option<String>,
    /// Compare every block with its checksum once in this time: a number with s, m, h or d; 0: never. [default: 14d]
    #[arg(long, value_name = "TIME", env = "ASHLAR_CHUNKSERVER_SCRUB_PERIOD")]
    scrub_period: Option<String>,
    /// The program of smartmontools that tells what a disk's device says of its own health. [default: smartctl]
    #[arg(long, value_name = "PROGRAM", env = "ASHLAR_CHUNKSERVER_SMARTCTL")]
    smartctl: Option<PathBuf>,
    /// Ports are not authenticated: this lets whoever reaches them read and destroy everything.
    #[arg(long)]
    insecure_allow_any_address: bool,
    /// Written, as JSON, when all ports are open.
    #[arg(long, alias = "state-file", value_name = "PATH", env = "ASHLAR_CHUNKSERVER_READY_FILE")]
    ready_file: Option<PathBuf>,
}

/// The configuration file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct RunFile {
    cluster: Option<String>,
    node: Option<String>,
    zone: Option<String>,
    disks: Vec<PathBuf>,
    index: Option<PathBuf>,
    listen: Option<SocketAddr>,
    rpc_listen: Option<SocketAddr>,
    metrics_listen: Option<SocketAddr>,
    control: Option<String>,
    scrub_period: Option<String>,
    smartctl: Option<PathBuf>,
    insecure_allow_any_address: bool,
    ready_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct FormatArguments {
    #[arg(long, env = "ASHLAR_CLUSTER")]
    cluster: String,
    /// Noted in the index, for people.
    #[arg(long, env = "ASHLAR_NODE")]
    node: Option<String>,
    /// The file to make, or an empty file or device.
    #[arg(long, value_name = "PATH")]
    disk: PathBuf,
    #[arg(long, value_name = "DIR", env = "ASHLAR_CHUNKSERVER_INDEX")]
    index: Option<PathBuf>,
    /// Size of the file, such as 8G. Not needed for a device.
    #[arg(long)]
    size: Option<Size>,
    /// Size of the journal. [default: a sixteenth of the disk, 8M to 256M]
    #[arg(long)]
    journal_size: Option<Size>,
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct InspectArguments {
    #[arg(long, value_name = "PATH")]
    disk: PathBuf,
    #[arg(long, value_name = "DIR", env = "ASHLAR_CHUNKSERVER_INDEX")]
    index: Option<PathBuf>,
    /// Show this volume's replica only.
    #[arg(long)]
    volume: Option<String>,
    /// With --volume: checksum of every written block, as read from the disk now.
    #[arg(long, requires = "volume")]
    digest: bool,
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The checked configuration.
    pub fn command(self) -> Result<Command, Error> {
        match self.subcommand {
            Subcommands::Run(arguments) => arguments.config().map(Command::Run),
            Subcommands::Format(arguments) => arguments.config().map(Command::Format),
            Subcommands::Inspect(arguments) => arguments.config().map(Command::Inspect),
        }
    }
}

impl RunArguments {
    fn config(self) -> Result<RunConfig, Error> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let allow_any = self.insecure_allow_any_address || file.insecure_allow_any_address;
        let address = |what, flag: Option<SocketAddr>, file: Option<SocketAddr>| {
            check_address(what, flag.or(file).unwrap_or_else(any_loopback_port), allow_any)
        };
        let index = self.index.or(file.index);
        let disks = if self.disks.is_empty() { file.disks } else { self.disks };
        let metrics = self.metrics_listen.or(file.metrics_listen);
        let scrub = optional("scrub-period", self.scrub_period.or(file.scrub_period))?;
        Ok(RunConfig {
            cluster: required("cluster", self.cluster.or(file.cluster))?,
            node: required("node", self.node.or(file.node))?,
            zone: optional::<ZoneName>("zone", self.zone.or(file.zone))?,
            disks: checked_disks(disks, index.as_deref())?,
            listen: address("the data port", self.listen, file.listen)?,
            rpc_listen: address("the port of the control API", self.rpc_listen, file.rpc_listen)?,
            metrics_listen: metrics.map(|port| check_address("the port of metrics", port, allow_any)).transpose()?,
            control: self.control.or(file.control).map(checked_control).transpose()?,
            scrub_period: scrub.unwrap_or(Period::SCRUB).0,
            smartctl: self.smartctl.or(file.smartctl).unwrap_or_else(|| PathBuf::from("smartctl")),
            ready_file: self.ready_file.or(file.ready_file).as_deref().map(absolute).transpose()?,
        })
    }
}

impl FormatArguments {
    fn config(self) -> Result<FormatConfig, Error> {
        let size = self.size.map(|Size(bytes)| bytes);
        Ok(FormatConfig {
            cluster: required("cluster", Some(self.cluster))?,
            node: optional::<NodeName>("node", self.node)?,
            disk: disk_paths(&self.disk, self.index.as_deref())?,
            size,
            journal: self.journal_size.map(|Size(bytes)| bytes),
            json: self.json,
        })
    }
}

impl InspectArguments {
    fn config(self) -> Result<InspectConfig, Error> {
        Ok(InspectConfig {
            disk: disk_paths(&self.disk, self.index.as_deref())?,
            volume: optional::<VolumeId>("volume", self.volume)?,
            digest: self.digest,
            json: self.json,
        })
    }
}

fn read_file(path: &Path) -> Result<RunFile, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read the configuration", path))?;
    toml::from_str(&text).map_err(|error| Error::Config(format!("{}: {error}", path.display())))
}

fn checked_disks(disks: Vec<PathBuf>, index: Option<&Path>) -> Result<Vec<DiskPaths>, Error> {
    let disks = disks.iter().map(|disk| disk_paths(disk, index)).collect::<Result<Vec<_>, _>>()?;
    if disks.is_empty() || disks.len() > DISKS_MAX {
        return Err(Error::Config(format!("{} disks are given; 1 to {DISKS_MAX} are allowed", disks.len())));
    }
    for (i, paths) in disks.iter().enumerate() {
        let earlier = &disks[..i];
        if earlier.iter().any(|other| other.disk == paths.disk) {
            return Err(Error::Config(format!("disk {} is given twice", paths.disk.display())));
        }
        if earlier.iter().any(|other| other.index() == paths.index()) {
            return Err(Error::Config(format!("two disks would share the index {}", paths.index().display())));
        }
    }
    Ok(disks)
}

fn disk_paths(disk: &Path, index: Option<&Path>) -> Result<DiskPaths, Error> {
    let disk = absolute(disk)?;
    if disk.file_name().is_none() {
        return Err(Error::Config(format!("disk {} is not the path of a file", disk.display())));
    }
    Ok(DiskPaths { disk, index_parent: index.map(absolute).transpose()? })
}

fn checked_control(url: String) -> Result<String, Error> {
    match url.strip_prefix("http://") {
        Some(address) if !address.is_empty() => Ok(url),
        _ => Err(Error::Config(format!("control {url:?} is not of the form http://ADDRESS"))),
    }
}

fn required<T: FromStr<Err: ToString>>(name: &str, text: Option<String>) -> Result<T, Error> {
    optional(name, text)?.ok_or_else(|| Error::Config(format!("--{name} is missing")))
}

fn optional<T: FromStr<Err: ToString>>(name: &str, text: Option<String>) -> Result<Option<T>, Error> {
    let parse =
        |text: String| text.parse().map_err(|error: T::Err| Error::Config(format!("--{name}: {}", error.to_string())));
    text.map(parse).transpose()
}
