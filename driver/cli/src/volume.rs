//! `ashlar volume ...`

mod space;
mod why;

use crate::args::{FrontendName, VolumeCommand};
use crate::client::{Endpoint, explain};
use crate::compare::compare;
use crate::output::{Sheet, Table, line, or_dash, print};
use crate::progress::Progress;
use crate::size::format_size;
use crate::view;
use anyhow::bail;
use ashlar_rpc::control::{self, cluster_client::ClusterClient, content_source::Of};
use ashlar_types::ByteCount;
use tonic::transport::Channel;

/// Volumes asked for at once when all are listed.
const PAGE_ENTRIES: u32 = 500;

pub async fn run(command: VolumeCommand, endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut client = endpoint.connect().await?;
    match command {
        VolumeCommand::Create { name, size, from_snapshot, from_volume, node, parameters, format } => {
            let of = from_snapshot.map(Of::Snapshot).or(from_volume.map(Of::Volume));
            let request = control::CreateVolumeRequest {
                name,
                size_bytes: size.unwrap_or_default().0,
                parameters: parameters.into_iter().collect(),
                node: node.unwrap_or_default(),
                allowed_nodes: Vec::new(),
                source: of.map(|of| control::ContentSource { of: Some(of), name: String::new() }),
            };
            let volume = client.create_volume(request).await.map_err(explain)?.into_inner();
            print(format, &view::Volume::of(volume), |volume| line(&volume.id))
        }
        VolumeCommand::List(format) => print(format, &all(&mut client).await?, |volumes| list(volumes)),
        VolumeCommand::Show { volume, why: true, format } => {
            let asked = client.get_volume_choices(control::VolumeRef { volume }).await;
            print(format, &view::Choices::of(asked.map_err(explain)?.into_inner()), why::show)
        }
        VolumeCommand::Show { volume, why: false, format } => {
            let asked = client.get_volume_space(control::VolumeRef { volume }).await;
            print(format, &view::Volume::of(asked.map_err(explain)?.into_inner()), show)
        }
        VolumeCommand::Attach { volume, node, frontend, read_only } => {
            attach(&mut client, volume, node, frontend, read_only).await
        }
        VolumeCommand::Detach { volume, force } => {
            let _progress = Progress::spinner(format!("detaching {volume}"));
            let request = control::DetachVolumeRequest { volume, node: String::new(), force };
            client.detach_volume(request).await.map_err(explain)?;
            Ok(())
        }
        VolumeCommand::Modify(modify) => {
            let parameters = modify.parameters().into_iter().collect();
            let request = control::ModifyVolumeRequest { volume: modify.volume, parameters };
            let volume = client.modify_volume(request).await.map_err(explain)?.into_inner();
            print(modify.format, &view::Volume::of(volume), settings)
        }
        VolumeCommand::Expand { volume, size, format } => {
            let request = control::ExpandVolumeRequest { volume, size_bytes: size.0 };
            let volume = client.expand_volume(request).await.map_err(explain)?.into_inner();
            print(format, &view::Volume::of(volume), |volume| line(&format_size(ByteCount(volume.size_bytes))))
        }
        VolumeCommand::Compare { volume, format } => compare(&mut client, volume, format).await,
        VolumeCommand::Delete { volume } => {
            client.delete_volume(control::VolumeRef { volume }).await.map_err(explain)?;
            Ok(())
        }
    }
}

async fn attach(
    client: &mut ClusterClient<Channel>,
    volume: String,
    node: String,
    frontend: FrontendName,
    read_only: bool,
) -> anyhow::Result<()> {
    let progress = Progress::spinner(format!("attaching {volume} on {node}"));
    let frontend = match frontend {
        FrontendName::Fuse => control::Frontend::Fuse,
        FrontendName::Nbd => control::Frontend::Nbd,
    };
    let frontend = frontend as i32;
    let request = control::AttachVolumeRequest { volume, node, frontend, read_only, ..Default::default() };
    let device = client.attach_volume(request).await.map_err(explain)?.into_inner();
    drop(progress);
    if device.path.is_empty() {
        bail!("the control plane answered without a device");
    }
    line(&device.path);
    Ok(())
}

async fn all(client: &mut ClusterClient<Channel>) -> anyhow::Result<Vec<view::Volume>> {
    let mut volumes = Vec::new();
    let mut starting_token = String::new();
    loop {
        let request = control::ListVolumesRequest { max_entries: PAGE_ENTRIES, starting_token: starting_token.clone() };
        let page = client.list_volumes(request).await.map_err(explain)?.into_inner();
        volumes.extend(page.volumes.into_iter().map(view::Volume::of));
        if page.next_token.is_empty() {
            return Ok(volumes);
        }
        if page.next_token == starting_token {
            bail!("the control plane gave the same page of volumes twice");
        }
        starting_token = page.next_token;
    }
}

fn list(volumes: &[view::Volume]) {
    let mut table = Table::new(["NAME", "SIZE", "USE", "IN-SYNC", "NODE", "PHASE", "DEVICE", "ID"]);
    for volume in volumes {
        let attached = volume.attached.as_ref();
        table.row([
            volume.name.clone(),
            format_size(ByteCount(volume.size_bytes)),
            use_text(volume),
            volume.in_sync(),
            or_dash(volume.holder.as_deref().unwrap_or_default()),
            or_dash(attached.map(|attached| attached.phase.as_str()).unwrap_or_default()),
            or_dash(attached.and_then(|attached| attached.device.as_deref()).unwrap_or_default()),
            volume.id.clone(),
        ]);
    }
    table.print();
}

fn use_text(volume: &view::Volume) -> String {
    match &volume.fs_type {
        Some(fs_type) => format!("{} ({fs_type})", volume.use_state),
        None => volume.use_state.to_owned(),
    }
}

fn show(volume: &view::Volume) {
    let mut sheet = Sheet::default();
    sheet.line("name", &volume.name);
    sheet.line("id", &volume.id);
    sheet.line("size", format_size(ByteCount(volume.size_bytes)));
    sheet.line("use", use_text(volume));
    if let Some(source) = &volume.source {
        sheet.line("source", source);
        sheet.line("clone", volume.clone_state());
    }
    sheet.line("condition", &volume.condition);
    if let Some(forecast) = &volume.forecast {
        sheet.line("protected again", protected_again(forecast));
    }
    volume.stuck.iter().for_each(|stuck| sheet.line("repair is stuck", stuck));
    let repaired = if volume.repaired { " (for repair)" } else { "" };
    sheet.line("node", format!("{}{repaired}", or_dash(volume.holder.as_deref().unwrap_or_default())));
    if !volume.readers.is_empty() {
        sheet.line("read by nodes", volume.readers.join(", "));
    }
    sheet.line("epoch", volume.epoch);
    sheet.line("clean", volume.clean);
    sheet.line("minReplicas", volume.min_replicas);
    settings_lines(volume, &mut sheet);
    for (key, value) in &volume.parameters {
        sheet.line(&format!("parameter {key}"), value);
    }
    if let Some(attached) = &volume.attached {
        sheet.line("phase", &attached.phase);
        sheet.line("device", or_dash(attached.device.as_deref().unwrap_or_default()));
        sheet.line("reads", format!("{} ({})", attached.reads, format_size(ByteCount(attached.read_bytes))));
        sheet.line("writes", format!("{} ({})", attached.writes, format_size(ByteCount(attached.written_bytes))));
        sheet.line("longest gap", format!("{} ms", attached.longest_gap_ms));
        sheet.line("repaired blocks", attached.repaired_blocks);
        if let Some(view::Comparison { rounds, differing_slots, .. }) = attached.comparison {
            sheet.line("replicas compared", format!("{rounds} times, {differing_slots} slots differ"));
        }
    }
    if let Some(space) = &volume.space {
        space::lines(space, &mut sheet);
    }
    sheet.print();
    line("");
    members(&volume.members);
    if let Some(space) = volume.space.as_ref().filter(|space| space.used_bytes > 0 && !space.snapshots.is_empty()) {
        line("");
        space::snapshots(space);
    }
}

fn protected_again(forecast: &view::Forecast) -> String {
    let left = format_size(ByteCount(forecast.remaining_bytes));
    let before = match forecast.position {
        0 => String::new(),
        more => format!(", {more} volumes go first"),
    };
    match forecast.protected_in_ms {
        Some(ms) => format!("in about {} s: {left} to be copied{before}", ms.div_ceil(1000)),
        None => format!("not known: {left} to be copied{before}"),
    }
}

fn settings(volume: &view::Volume) {
    let mut sheet = Sheet::default();
    sheet.line("minReplicas", volume.min_replicas);
    settings_lines(volume, &mut sheet);
    sheet.print();
}

fn settings_lines(volume: &view::Volume, sheet: &mut Sheet) {
    let settings = &volume.settings;
    let text = |limit: Option<view::Limit>, show: fn(u64) -> String| match limit {
        Some(limit) => format!("{} per second, burst {}", show(limit.per_second), show(limit.burst)),
        None => "none".to_owned(),
    };
    sheet.line("class", settings.class);
    sheet.line("IOPS limit", text(settings.iops, |number| number.to_string()));
    sheet.line("bandwidth limit", text(settings.bandwidth, |bytes| format_size(ByteCount(bytes))));
    if volume.settings_pending() {
        sheet.line("", "these settings have not reached the volume's datapath yet");
    }
}

fn members(members: &[view::Member]) {
    let mut table = Table::new(["DISK", "NODE", "STATE", "LINK", "RESYNC", "ADDRESS"]);
    for member in members {
        let link = match member.connected {
            Some(true) => "up",
            Some(false) => "down",
            None => "-",
        };
        let resync = match (member.resync_blocks_copied, member.resync_blocks_total) {
            (Some(copied), Some(total)) => format!("{copied} of {total} blocks"),
            _ => "-".to_owned(),
        };
        table.row([
            member.disk.clone(),
            member.node.clone(),
            member.state.to_owned(),
            link.to_owned(),
            resync,
            or_dash(member.address.as_deref().unwrap_or_default()),
        ]);
    }
    table.print();
}
