//! What a datapath is told: flags, environment and one TOML file, parsed and checked once, before anything is opened.
//!
//! A flag wins over the environment, the environment over the file. Until ports are authenticated, addresses are
//! loopback, or the operator says by a flag with an ugly name that anything goes.

use ashlar_types::{Duration, NodeName, Period, ZoneName};
use clap::Args;
use serde::Deserialize;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Flags of `run`; each may stand in the file as well, under the same name with underscores.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFlags {
    /// TOML file with the settings that no flag gives.
    #[arg(long, env = "ASHLAR_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Name of the node that this datapath serves.
    #[arg(long, env = "ASHLAR_NODE")]
    pub node: Option<String>,
    /// Failure domain of the node.
    #[arg(long, env = "ASHLAR_ZONE")]
    pub zone: Option<String>,
    /// URL of the control plane, http://ADDRESS:PORT.
    #[arg(long, env = "ASHLAR_CONTROL")]
    pub control: Option<String>,
    /// Where the gRPC service listens; port 0 takes a free one.
    #[arg(long, env = "ASHLAR_RPC_LISTEN")]
    pub rpc_listen: Option<SocketAddr>,
    /// Where /metrics is served.
    #[arg(long, env = "ASHLAR_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Compare the replicas of each attached volume with each other once in this time: a number with s, m, h or d; 0:
    /// never. [default: 14d]
    #[arg(long, value_name = "TIME", env = "ASHLAR_DATAPATH_SCRUB_PERIOD")]
    pub scrub_period: Option<String>,
    /// Directory for NBD sockets and mount points; made with mode 0700.
    #[arg(long, env = "ASHLAR_RUN_DIR")]
    pub run_dir: Option<PathBuf>,
    /// JSON file that gets the addresses once the daemon is up.
    #[arg(long, env = "ASHLAR_STATE_FILE")]
    pub state_file: Option<PathBuf>,
    /// Allow addresses other than loopback although nothing on them is authenticated.
    #[arg(long, env = "ASHLAR_INSECURE_ALLOW_ANY_ADDRESS")]
    #[serde(default)]
    pub insecure_allow_any_address: bool,
}

/// Checked settings of a running datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub node: NodeName,
    pub zone: Option<ZoneName>,
    pub control_url: String,
    pub rpc_listen: SocketAddr,
    pub metrics_listen: SocketAddr,
    pub scrub_period: Option<Duration>,
    pub run_dir: PathBuf,
    pub state_file: PathBuf,
    pub any_address: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read the configuration file {}", path.display())]
    ReadFile { path: PathBuf, source: std::io::Error },
    #[error("parse the configuration file {}", path.display())]
    ParseFile { path: PathBuf, source: toml::de::Error },
    #[error("--{0} is missing")]
    Missing(&'static str),
    #[error("--{flag} {value:?}: {reason}")]
    Invalid { flag: &'static str, value: String, reason: String },
    #[error(
        "--{flag} {address}: only loopback is allowed, as nothing is authenticated; or --insecure-allow-any-address"
    )]
    NotLoopback { flag: &'static str, address: String },
}

impl Config {
    pub fn from_flags(flags: RunFlags) -> Result<Config, ConfigError> {
        let file = match &flags.config {
            Some(path) => read_file(path)?,
            None => RunFlags::default(),
        };
        Config::checked(flags, file)
    }

    fn checked(flags: RunFlags, file: RunFlags) -> Result<Config, ConfigError> {
        let any_address = flags.insecure_allow_any_address || file.insecure_allow_any_address;
        let node = required("node", flags.node, file.node)?;
        let zone = flags.zone.or(file.zone).filter(|zone| !zone.is_empty());
        let control_url = required("control", flags.control, file.control)?;
        check_control_url(&control_url, any_address)?;
        let listen = |flag, address: Option<SocketAddr>| {
            let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
            check_loopback(flag, address, any_address).map(|()| address)
        };
        let scrub = match flags.scrub_period.or(file.scrub_period) {
            Some(text) => text.parse().map_err(|error: String| invalid("scrub-period", &text, error))?,
            None => Period::SCRUB,
        };
        Ok(Config {
            node: node.parse().map_err(|error: ashlar_types::IdError| invalid("node", &node, error))?,
            zone: zone.map(|zone| zone.parse().map_err(|error| invalid("zone", &zone, error))).transpose()?,
            control_url,
            rpc_listen: listen("rpc-listen", flags.rpc_listen.or(file.rpc_listen))?,
            metrics_listen: listen("metrics-listen", flags.metrics_listen.or(file.metrics_listen))?,
            scrub_period: scrub.0,
            run_dir: required("run-dir", flags.run_dir, file.run_dir)?,
            state_file: required("state-file", flags.state_file, file.state_file)?,
            any_address,
        })
    }

    /// Whether a chunkserver's address may be connected to.
    pub fn allows(&self, address: SocketAddr) -> bool {
        self.any_address || address.ip().is_loopback()
    }
}

fn read_file(path: &Path) -> Result<RunFlags, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::ReadFile { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::ParseFile { path: path.to_owned(), source })
}

fn required<T>(flag: &'static str, given: Option<T>, in_file: Option<T>) -> Result<T, ConfigError> {
    given.or(in_file).ok_or(ConfigError::Missing(flag))
}

fn invalid(flag: &'static str, value: &str, reason: impl ToString) -> ConfigError {
    ConfigError::Invalid { flag, value: value.chars().take(100).collect(), reason: reason.to_string() }
}

fn check_loopback(flag: &'static str, address: SocketAddr, any_address: bool) -> Result<(), ConfigError> {
    if any_address || address.ip().is_loopback() {
        return Ok(());
    }
    Err(ConfigError::NotLoopback { flag, address: address.to_string() })
}

/// A host name is not resolved here: only an address can be known to be loopback.
fn check_control_url(url: &str, any_address: bool) -> Result<(), ConfigError> {
    let uri: tonic::transport::Uri = url.parse().map_err(|error| invalid("control", url, error))?;
    let host = uri.host().ok_or_else(|| invalid("control", url, "the host is missing"))?;
    if uri.scheme_str() != Some("http") {
        return Err(invalid("control", url, "the scheme must be http"));
    }
    let is_loopback = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if any_address || is_loopback {
        return Ok(());
    }
    Err(ConfigError::NotLoopback { flag: "control", address: url.to_owned() })
}

#[cfg(test)]
mod tests;
