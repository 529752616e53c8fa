//! Nodes and disks.

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
