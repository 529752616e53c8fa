//! Nodes, disks, and the cluster as a whole.

use super::filled;
use ashlar_rpc::control;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Node {
    pub name: String,
    pub zone: Option<String>,
    pub chunkserver_alive: bool,
    pub datapath_alive: bool,
    pub datapath_address: Option<String>,
    pub last_heartbeat_ms: u64,
    pub disks: u32,
    pub attached: u32,
    pub draining: bool,
}

impl Node {
    pub fn of(node: control::Node) -> Node {
        Node {
            name: node.name,
            zone: filled(node.zone),
            chunkserver_alive: node.chunkserver_alive,
            datapath_alive: node.datapath_alive,
            datapath_address: filled(node.datapath_address),
            last_heartbeat_ms: node.last_heartbeat_ms,
            disks: node.disk_count,
            attached: node.attached_count,
            draining: node.draining,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Disk {
    pub id: String,
    pub node: String,
    /// online, silent, failed or lost.
    pub state: &'static str,
    pub capacity_bytes: u64,
    pub free_bytes: u64,
    pub provisioned_bytes: u64,
    pub address: Option<String>,
    pub path: Option<String>,
    pub failure: Option<String>,
    pub last_heartbeat_ms: u64,
    pub draining: bool,
    /// None: its chunkserver has not reported since the control plane started.
    pub scrub: Option<Scrub>,
    /// None: likewise.
    pub smart: Option<Smart>,
}

/// The verification of a disk's blocks, and what was found bad, by it or by reads.
#[derive(Debug, Serialize)]
pub struct Scrub {
    /// 0: switched off.
    pub period_ms: u64,
    /// Of the present round; its time is that in which the disk was in service.
    pub elapsed_ms: u64,
    pub slots_verified: u64,
    pub slots_used: u64,
    pub rounds: u64,
    pub last_ended_ms: Option<u64>,
    pub found_blocks: u64,
    /// In this round and the one before.
    pub found_lately_blocks: u64,
    pub repaired_blocks: u64,
    pub bad_blocks: u64,
}

/// What a disk's device says of its own health; what it does not tell is none.
#[derive(Debug, Serialize)]
pub struct Smart {
    /// Why nothing is told, if nothing is.
    pub none: Option<String>,
    pub device: Option<String>,
    pub failing: bool,
    pub temperature_celsius: Option<i32>,
    pub wear_percent: Option<u32>,
    pub media_errors: Option<u64>,
    pub reallocated_sectors: Option<u64>,
    pub pending_sectors: Option<u64>,
    pub power_on_hours: Option<u64>,
}

impl Smart {
    fn of(smart: control::DiskSmart) -> Smart {
        Smart {
            none: filled(smart.none),
            device: filled(smart.device),
            failing: smart.failing,
            temperature_celsius: smart.temperature_celsius,
            wear_percent: smart.wear_percent,
            media_errors: smart.media_errors,
            reallocated_sectors: smart.reallocated_sectors,
            pending_sectors: smart.pending_sectors,
            power_on_hours: smart.power_on_hours,
        }
    }

    /// What is told, with its name.
    pub fn figures(&self) -> Vec<String> {
        let count = |name: &str, number: Option<u64>| number.map(|number| format!("{name} {number}"));
        let told = [
            self.temperature_celsius.map(|degrees| format!("{degrees} °C")),
            self.wear_percent.map(|percent| format!("{percent} % worn")),
            count("media errors", self.media_errors),
            count("reallocated sectors", self.reallocated_sectors),
            count("pending sectors", self.pending_sectors),
            count("hours on", self.power_on_hours),
        ];
        told.into_iter().flatten().collect()
    }
}

impl Scrub {
    fn of(scrub: control::DiskScrub) -> Scrub {
        Scrub {
            period_ms: scrub.period_ms,
            elapsed_ms: scrub.elapsed_ms,
            slots_verified: scrub.slots_verified,
            slots_used: scrub.slots_used,
            rounds: scrub.rounds,
            last_ended_ms: Some(scrub.last_ended_ms).filter(|ended| *ended != 0),
            found_blocks: scrub.found_blocks,
            found_lately_blocks: scrub.found_lately_blocks,
            repaired_blocks: scrub.repaired_blocks,
            bad_blocks: scrub.bad_blocks,
        }
    }

    /// Of the present round.
    pub fn percent(&self) -> u64 {
        (100 * self.slots_verified).checked_div(self.slots_used).unwrap_or(0).min(100)
    }
}

impl Disk {
    pub fn of(disk: control::Disk) -> Disk {
        let state = match disk.state() {
            control::DiskState::Online => "online",
            control::DiskState::Silent => "silent",
            control::DiskState::Failed => "failed",
            control::DiskState::Lost => "lost",
            control::DiskState::Unspecified => "unknown",
        };
        Disk {
            state,
            id: disk.id,
            node: disk.node,
            capacity_bytes: disk.capacity_bytes,
            free_bytes: disk.free_bytes,
            provisioned_bytes: disk.provisioned_bytes,
            address: filled(disk.address),
            path: filled(disk.path),
            failure: filled(disk.failure),
            last_heartbeat_ms: disk.last_heartbeat_ms,
            draining: disk.draining,
            scrub: disk.scrub.map(Scrub::of),
            smart: disk.smart.map(Smart::of),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct SafeToStop {
    pub safe: bool,
    pub reasons: Vec<String>,
    pub safe_in_ms: Option<u64>,
}

impl SafeToStop {
    pub fn of(answer: control::SafeToStopResponse) -> SafeToStop {
        SafeToStop { safe: answer.safe, reasons: answer.reasons, safe_in_ms: answer.safe_in_ms }
    }
}

#[derive(Debug, Serialize)]
pub struct Status {
    pub cluster: String,
    pub health: String,
    pub reasons: Vec<String>,
    pub nodes_alive: u32,
    pub nodes: u32,
    pub disks_online: u32,
    pub disks: u32,
    pub volumes: u32,
    pub volumes_degraded: u32,
    pub capacity_bytes: u64,
    pub free_bytes: u64,
    pub three_failures: Option<ThreeFailures>,
}

/// Three disks that fail at once: of all combinations, so many take every replica of something.
#[derive(Debug, Serialize)]
pub struct ThreeFailures {
    pub combinations: u64,
    /// As replicas lie.
    pub losing: u64,
    /// Were each volume on three disks at random.
    pub losing_random_volumes: u64,
    /// Were each chunk.
    pub losing_random_chunks: u64,
}

impl ThreeFailures {
    pub fn text(&self) -> String {
        let percent = |losing: u64| format!("{:.4} %", losing as f64 * 100.0 / self.combinations as f64);
        format!(
            "{} of {} combinations lose data ({}); with volumes placed at random {}, with chunks {}",
            self.losing,
            self.combinations,
            percent(self.losing),
            percent(self.losing_random_volumes),
            percent(self.losing_random_chunks)
        )
    }
}

impl Status {
    pub fn of(status: control::ClusterStatus) -> Status {
        Status {
            cluster: status.cluster,
            health: status.health,
            reasons: status.reasons,
            nodes_alive: status.nodes_alive,
            nodes: status.nodes,
            disks_online: status.disks_online,
            disks: status.disks,
            volumes: status.volumes,
            volumes_degraded: status.volumes_degraded,
            capacity_bytes: status.capacity_bytes,
            free_bytes: status.free_bytes,
            three_failures: status.three_failures.map(|three| ThreeFailures {
                combinations: three.combinations,
                losing: three.losing,
                losing_random_volumes: three.losing_random_volumes,
                losing_random_chunks: three.losing_random_chunks,
            }),
        }
    }
}
