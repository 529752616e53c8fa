//! `ashlar-datapath status`: asks a running datapath what it has attached. Reads only.

use crate::daemon::State;
use anyhow::Context;
use ashlar_rpc::control::datapath_client::DatapathClient;
use ashlar_rpc::control::{AttachedVolume, DatapathListRequest, MemberState};
use clap::Args;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Args, Clone, Debug)]
pub struct StatusFlags {
    /// State file of the datapath.
    #[arg(long, env = "ASHLAR_STATE_FILE", required_unless_present = "rpc")]
    pub state_file: Option<PathBuf>,
    /// Its gRPC address, instead of the state file.
    #[arg(long)]
    pub rpc: Option<SocketAddr>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

pub async fn run(flags: StatusFlags) -> anyhow::Result<()> {
    let address = match (flags.rpc, &flags.state_file) {
        (Some(address), _) => address,
        (None, Some(path)) => {
            let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let state: State = serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
            state.rpc_address
        }
        (None, None) => anyhow::bail!("--state-file or --rpc is missing"),
    };
    let mut client = DatapathClient::connect(format!("http://{address}")).await.context("connect to the datapath")?;
    let volumes = client.list(DatapathListRequest {}).await.context("list volumes")?.into_inner().volumes;
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&volumes.iter().map(as_json).collect::<Vec<_>>())?);
    } else {
        volumes.iter().for_each(print);
    }
    Ok(())
}

fn as_json(volume: &AttachedVolume) -> serde_json::Value {
    let members: Vec<_> = volume
        .members
        .iter()
        .map(|member| {
            serde_json::json!({
                "disk": member.disk,
                "state": state_name(member.state()),
                "connected": member.connected,
                "resync_blocks_copied": member.resync_blocks_copied,
                "resync_blocks_total": member.resync_blocks_total,
            })
        })
        .collect();
    serde_json::json!({
        "volume": volume.volume,
        "epoch": volume.epoch,
        "phase": volume.phase,
        "device": volume.device.as_ref().map(|device| &device.path),
        "members": members,
        "reads": volume.reads,
        "writes": volume.writes,
        "read_bytes": volume.read_bytes,
        "written_bytes": volume.written_bytes,
        "longest_gap_ms": volume.longest_gap_ms,
        "repaired_blocks": volume.repaired_blocks,
        "differing_slots": volume.comparison.unwrap_or_default().differing_slots,
        "commit_lsn": volume.commit_lsn,
        "settings_version": volume.settings_version,
    })
}

fn print(volume: &AttachedVolume) {
    let device = volume.device.as_ref().map_or("-", |device| device.path.as_str());
    println!("{}  epoch {}  {}  {device}", volume.volume, volume.epoch, volume.phase);
    for member in &volume.members {
        let link = if member.connected { "connected" } else { "not connected" };
        println!("  disk {}  {}  {link}", member.disk, state_name(member.state()));
    }
}

fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::InSync => "in-sync",
        MemberState::Syncing => "syncing",
        MemberState::Out => "out",
        MemberState::Unspecified => "unknown",
    }
}
