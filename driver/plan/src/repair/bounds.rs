//! Every bound of the planner, with its default and why.

use ashlar_types::Duration;
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BytesPerSecond(pub u64);

impl BytesPerSecond {
    pub const ZERO: BytesPerSecond = BytesPerSecond(0);

    pub const fn mib(mib: u64) -> BytesPerSecond {
        BytesPerSecond(mib << 20)
    }
}

impl fmt::Debug for BytesPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B/s", self.0)
    }
}

/// Who goes first among volumes that lack replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// As in `order.rs`.
    #[default]
    Urgency,
    /// Whose replica was given up first, then the id: only to be compared with.
    FirstCome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub order: Order,
    /// How long a node may be silent before its replicas are made elsewhere. 60 s: a reboot, not a coffee.
    pub grace: Duration,
    /// The longest time between two looks that is believed; a longer one counts as one second. 5 s: whoever looks every
    /// second is not that late.
    pub tick_max: Duration,
    /// Above this share of its capacity a disk is promised nothing more. 900: a tenth stays for snapshots and copies.
    pub watermark_permille: u16,
    /// With how many other nodes one node may share volumes (scatter width). 6: see DESIGN "Partner sets".
    pub partners_max: usize,
    /// Copies on one node are never slower than this, in sum, if there is something to copy.
    pub node_floor: BytesPerSecond,
    /// Nor faster than this, in sum: what a 10 Gbit/s link carries.
    pub node_ceiling: BytesPerSecond,
    /// One disk may be the only one that copies: as much as its node.
    pub disk_ceiling: BytesPerSecond,
    pub cluster_ceiling: BytesPerSecond,
    /// Foreground latency, in thousandths of its quiet value, from which copies slow down. 1220: the bar is 1300, and
    /// what is seen is late by an interval.
    pub latency_high_permille: u32,
    /// Below which they become faster. Between the two nothing changes: the rate rests there.
    pub latency_low_permille: u32,
    /// How often the rate of a node may change. 1 s: one report.
    pub pace_interval: Duration,
    /// After how long without a copy a volume that needs one is served at the floor whatever its class. 1 h.
    pub wait_max: Duration,
    /// Replicas that one call gives to other disks; each is a transaction (C2).
    pub replaces_max: usize,
    /// Detached volumes that one node attaches for repair at a time.
    pub repairs_per_node_max: usize,
    /// Volumes that are on the move at a time in the whole cluster: drains.
    pub drains_max: usize,
    /// The same for balance and for data that follows its pod.
    pub moves_max: usize,
    /// Disks whose fill differs by less are balanced.
    pub balance_gap_permille: u16,
    /// How long a pod must be on a node before its data follows.
    pub follow_after: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            order: Order::Urgency,
            grace: Duration::from_secs(60),
            tick_max: Duration::from_secs(5),
            watermark_permille: 900,
            partners_max: 6,
            node_floor: BytesPerSecond::mib(8),
            node_ceiling: BytesPerSecond::mib(1192),
            disk_ceiling: BytesPerSecond::mib(1192),
            cluster_ceiling: BytesPerSecond::mib(8192),
            latency_high_permille: 1220,
            latency_low_permille: 1160,
            pace_interval: Duration::from_secs(1),
            wait_max: Duration::from_secs(3600),
            replaces_max: 256,
            repairs_per_node_max: 8,
            drains_max: 16,
            moves_max: 4,
            balance_gap_permille: 100,
            follow_after: Duration::from_secs(600),
        }
    }
}

impl Bounds {
    /// How the bounds relate.
    ///
    /// # Panics
    /// If they do not: a configuration is checked where it is read.
    pub(crate) fn check(&self) {
        assert!(self.node_floor.0 > 0 && self.node_floor <= self.node_ceiling);
        assert!(self.node_floor <= self.disk_ceiling && self.node_floor <= self.cluster_ceiling);
        assert!(1000 < self.latency_low_permille && self.latency_low_permille < self.latency_high_permille);
        assert!(self.watermark_permille <= 1000 && self.tick_max > Duration::ZERO && self.replaces_max > 0);
        assert!(self.repairs_per_node_max > 0 && self.partners_max > 0);
    }
}
