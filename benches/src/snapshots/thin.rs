//! Volumes larger than the disks below them. The control plane promises space in full, so for the moment of a creation
//! it is told of larger disks, by heartbeats in the name of the chunkservers; what is written must fit all the same.

use anyhow::{Context, Result};
use ashlar_rpc::control::{
    ChunkserverBeat, Disk, HeartbeatRequest, ListDisksRequest, ListNodesRequest, heartbeat_request::Daemon,
    registry_client::RegistryClient,
};
use ashlar_tests::{DevCluster, wait_until};
use std::time::Duration;

/// Room for some volumes of one TiB.
const CLAIMED_BYTES: u64 = 16 << 40;
/// The next true heartbeat comes within a second, and may come between the word and the creation.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn create(cluster: &DevCluster, name: &str, bytes: u64, node: &str) -> Result<()> {
    let size = bytes.to_string();
    wait_until("a thin volume to be created", LIMIT, || {
        tell_of_large_disks(cluster)?;
        let output = cluster.try_cli(&["volume", "create", name, "--size", &size, "--node", node])?;
        if !output.success {
            anyhow::bail!("create {name}: {}", output.stderr);
        }
        Ok(Some(()))
    })
}

fn tell_of_large_disks(cluster: &DevCluster) -> Result<()> {
    let mut client = cluster.client()?;
    let nodes = cluster.block_on(client.list_nodes(ListNodesRequest {})).context("ListNodes")?.into_inner().nodes;
    let disks = cluster.block_on(client.list_disks(ListDisksRequest {})).context("ListDisks")?.into_inner().disks;
    let url = cluster.control_url()?;
    let mut registry = cluster.block_on(RegistryClient::connect(url)).context("connect to the registry")?;
    for node in nodes {
        let own = disks.iter().filter(|disk| disk.node == node.name);
        let large = |disk: &Disk| Disk { capacity_bytes: CLAIMED_BYTES, free_bytes: CLAIMED_BYTES, ..disk.clone() };
        let disks: Vec<Disk> = own.map(large).collect();
        let chunkserver = cluster.daemon(&format!("chunkserver-{}", node.name))?;
        let address =
            |purpose: &str| chunkserver.addresses.get(purpose).cloned().context("a chunkserver has addresses");
        let beat = ChunkserverBeat { data_address: address("data")?, rpc_address: address("rpc")?, disks };
        let daemon = Some(Daemon::Chunkserver(beat));
        let request = HeartbeatRequest { node: node.name, zone: node.zone, daemon, ..Default::default() };
        cluster.block_on(registry.heartbeat(request)).context("Heartbeat")?;
    }
    Ok(())
}
