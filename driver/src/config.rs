//! Flags and environment variables, parsed and checked once, before anything is opened.
//!
//! Until ports are authenticated a daemon listens on loopback only; another address needs a flag whose name says what
//! it is.

use ashlar_plan::repair::{Bounds, BytesPerSecond, Order};
use ashlar_types::{ClusterId, NodeName, ZoneName};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// CSI services and control plane of Ashlar.
#[derive(Debug, Parser)]
#[command(name = "ashlar-driver", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub mode: Mode,
}

#[derive(Debug, Subcommand)]
pub enum Mode {
    /// The control plane with the CSI controller: one per cluster.
    Control(ControlConfig),
    /// The CSI node service: one per node.
    Node(NodeConfig),
}

#[derive(Clone, Debug, Args)]
pub struct ControlConfig {
    /// Directory of the embedded catalog; made if absent.
    #[arg(long, env = "ASHLAR_CATALOG")]
    pub catalog: PathBuf,
    /// Where the control API listens.
    #[arg(long, env = "ASHLAR_LISTEN", default_value = "127.0.0.1:7480")]
    pub listen: SocketAddr,
    /// Unix socket of the CSI controller; its directory is made with mode 0700 if absent.
    #[arg(long, env = "ASHLAR_CSI_SOCKET")]
    pub csi_socket: Option<PathBuf>,
    /// Where Prometheus metrics are served.
    #[arg(long, env = "ASHLAR_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// File that gets the addresses in use once everything listens.
    #[arg(long, env = "ASHLAR_STATE_FILE")]
    pub state_file: Option<PathBuf>,
    /// Identity of the cluster; made at the first start and kept in the catalog if not given.
    #[arg(long, env = "ASHLAR_CLUSTER")]
    pub cluster: Option<ClusterId>,
    /// How often daemons report, in milliseconds; three missed reports make a daemon silent.
    #[arg(long, env = "ASHLAR_HEARTBEAT_MS", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub heartbeat_ms: u64,
    /// How long a node may be silent before its replicas are made elsewhere, in milliseconds.
    #[arg(long, env = "ASHLAR_REBUILD_GRACE_MS", default_value_t = 60_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86_400_000))]
    pub rebuild_grace_ms: u64,
    /// How long a volume must be attached on a node before its data follows, in milliseconds.
    #[arg(long, env = "ASHLAR_FOLLOW_AFTER_MS", default_value_t = 600_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86_400_000))]
    pub follow_after_ms: u64,
    /// What all copies of the cluster together may take, in MiB per second.
    #[arg(long, env = "ASHLAR_COPY_LIMIT_MIB", default_value_t = 8192)]
    #[arg(value_parser = clap::value_parser!(u64).range(8..=1_048_576))]
    pub copy_limit_mib: u64,
    /// Disks whose fill differs by more of their capacity are balanced, in percent; 100: none.
    #[arg(long, env = "ASHLAR_BALANCE_GAP_PERCENT", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
    pub balance_gap_percent: u16,
    /// Who is repaired first; anything but `urgency` is there to be compared with.
    #[arg(long, hide = true, value_enum, default_value_t)]
    pub repair_order: RepairOrder,
    /// A disk is drained when more of its blocks than this went bad within two rounds of scrub; 0: none is.
    #[arg(long, env = "ASHLAR_BAD_BLOCKS_MAX", default_value_t = 64)]
    pub bad_blocks_max: u64,
    /// Listen on an address that is not loopback although nobody who connects is authenticated.
    #[arg(long, env = "ASHLAR_INSECURE_ALLOW_ANY_ADDRESS")]
    pub insecure_allow_any_address: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RepairOrder {
    #[default]
    Urgency,
    FirstCome,
}

#[derive(Clone, Debug, Args)]
pub struct NodeConfig {
    /// Name of this node in Kubernetes.
    #[arg(long, env = "ASHLAR_NODE")]
    pub node: NodeName,
    /// Failure domain above the node.
    #[arg(long, env = "ASHLAR_ZONE")]
    pub zone: Option<ZoneName>,
    /// The control plane, for example http://127.0.0.1:7480.
    #[arg(long, env = "ASHLAR_CONTROL")]
    pub control: String,
    /// Unix socket of the CSI node service; its directory is made with mode 0700 if absent.
    #[arg(long, env = "ASHLAR_CSI_SOCKET")]
    pub csi_socket: PathBuf,
    /// The kubelet's directory: staging and target paths lie below it.
    #[arg(long, env = "ASHLAR_KUBELET_DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// Where Prometheus metrics are served.
    #[arg(long, env = "ASHLAR_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// File that gets the addresses in use once everything listens.
    #[arg(long, env = "ASHLAR_STATE_FILE")]
    pub state_file: Option<PathBuf>,
    /// Listen on an address that is not loopback although nobody who connects is authenticated.
    #[arg(long, env = "ASHLAR_INSECURE_ALLOW_ANY_ADDRESS")]
    pub insecure_allow_any_address: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "{flag} {address} is not a loopback address, and nobody who connects is authenticated yet: use 127.0.0.1 \
         or [::1], or accept the risk with --insecure-allow-any-address"
    )]
    NotLoopback { flag: &'static str, address: SocketAddr },
    #[error("--control {0:?} is not an http:// address")]
    ControlAddress(String),
}

impl ControlConfig {
    pub fn check(&self) -> Result<(), ConfigError> {
        check_bind("--listen", Some(self.listen), self.insecure_allow_any_address)?;
        check_bind("--metrics-listen", self.metrics_listen, self.insecure_allow_any_address)
    }

    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// Of self-healing.
    pub fn bounds(&self) -> Bounds {
        let [grace, follow_after] = [self.rebuild_grace_ms, self.follow_after_ms].map(Duration::from_millis);
        let order = match self.repair_order {
            RepairOrder::Urgency => Order::Urgency,
            RepairOrder::FirstCome => Order::FirstCome,
        };
        let cluster_ceiling = BytesPerSecond::mib(self.copy_limit_mib);
        let balance_gap_permille = self.balance_gap_percent * 10;
        Bounds { grace, follow_after, order, cluster_ceiling, balance_gap_permille, ..Bounds::default() }
    }
}

impl NodeConfig {
    pub fn check(&self) -> Result<(), ConfigError> {
        check_bind("--metrics-listen", self.metrics_listen, self.insecure_allow_any_address)?;
        let valid = self.control.starts_with("http://") && self.control.parse::<tonic::transport::Uri>().is_ok();
        if valid { Ok(()) } else { Err(ConfigError::ControlAddress(self.control.clone())) }
    }
}

fn check_bind(flag: &'static str, address: Option<SocketAddr>, any_allowed: bool) -> Result<(), ConfigError> {
    match address {
        Some(address) if !address.ip().is_loopback() && !any_allowed => Err(ConfigError::NotLoopback { flag, address }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(arguments: &[&str]) -> ControlConfig {
        let fixed = ["ashlar-driver", "control", "--catalog", "/c"];
        match Cli::try_parse_from(fixed.iter().chain(arguments)).unwrap().mode {
            Mode::Control(config) => config,
            Mode::Node(_) => unreachable!(),
        }
    }

    #[test]
    fn an_address_that_is_not_loopback_needs_the_insecure_flag() {
        assert_eq!(control(&[]).check(), Ok(()));
        assert_eq!(control(&["--listen", "[::1]:0"]).check(), Ok(()));
        for open in [["--listen", "0.0.0.0:1"], ["--metrics-listen", "10.0.0.1:1"]] {
            assert!(matches!(control(&open).check(), Err(ConfigError::NotLoopback { .. })), "{open:?}");
            let accepted = [open.as_slice(), &["--insecure-allow-any-address"]].concat();
            assert_eq!(control(&accepted).check(), Ok(()));
        }
    }

    #[test]
    fn hostile_node_names_are_refused_while_parsing() {
        for bad in ["", "a/b", "..", "a\nb"] {
            let arguments = ["ashlar-driver", "node", "--control", "http://h:1", "--csi-socket", "/s", "--node", bad];
            assert!(Cli::try_parse_from(arguments).is_err(), "{bad:?}");
        }
    }
}
