//! `ashlar snapshot ...`

mod diff;
mod export;
mod group;
mod import;
mod source;

use crate::args::SnapshotCommand;
use crate::client::{Endpoint, explain};
use crate::output::{Sheet, Table, line, print};
use crate::size::format_size;
use crate::view;
use anyhow::bail;
use ashlar_rpc::control::{self, cluster_client::ClusterClient};
use ashlar_types::ByteCount;
use tonic::transport::Channel;

/// Snapshots asked for at once when all are listed.
const PAGE_ENTRIES: u32 = 500;

pub async fn run(command: SnapshotCommand, endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut client = endpoint.connect().await?;
    match command {
        SnapshotCommand::Create { volume, name, format } => {
            let request = control::CreateSnapshotRequest { name, volume };
            let snapshot = client.create_snapshot(request).await.map_err(explain)?.into_inner();
            print(format, &view::Snapshot::of(snapshot), |snapshot| line(&snapshot.id))
        }
        SnapshotCommand::List { volume, format } => {
            let snapshots = all(&mut client, volume.unwrap_or_default()).await?;
            print(format, &snapshots, |snapshots| list(snapshots))
        }
        SnapshotCommand::Show { snapshot, format } => {
            let request = control::SnapshotRef { snapshot };
            let snapshot = client.get_snapshot(request).await.map_err(explain)?.into_inner();
            print(format, &view::Snapshot::of(snapshot), show)
        }
        SnapshotCommand::Delete { snapshot } => {
            client.delete_snapshot(control::SnapshotRef { snapshot }).await.map_err(explain)?;
            Ok(())
        }
        SnapshotCommand::Diff { base, target, format } => diff::run(&mut client, base, target, format).await,
        SnapshotCommand::Export { snapshot, since, file, format } => {
            export::run(&mut client, snapshot, since, &file, format).await
        }
        SnapshotCommand::Import(import) => import::run(&mut client, import).await,
        SnapshotCommand::Group(command) => group::run(command, &mut client).await,
    }
}

async fn all(client: &mut ClusterClient<Channel>, volume: String) -> anyhow::Result<Vec<view::Snapshot>> {
    Ok(all_messages(client, volume).await?.into_iter().map(view::Snapshot::of).collect())
}

async fn all_messages(client: &mut ClusterClient<Channel>, volume: String) -> anyhow::Result<Vec<control::Snapshot>> {
    let mut snapshots = Vec::new();
    let mut starting_token = String::new();
    loop {
        let request = control::ListSnapshotsRequest {
            volume: volume.clone(),
            max_entries: PAGE_ENTRIES,
            starting_token: starting_token.clone(),
        };
        let page = client.list_snapshots(request).await.map_err(explain)?.into_inner();
        snapshots.extend(page.snapshots);
        if page.next_token.is_empty() {
            return Ok(snapshots);
        }
        if page.next_token == starting_token {
            bail!("the control plane gave the same page of snapshots twice");
        }
        starting_token = page.next_token;
    }
}

pub(crate) fn list(snapshots: &[view::Snapshot]) {
    let mut table = Table::new(["NAME", "VOLUME", "SIZE", "STATE", "ID"]);
    for snapshot in snapshots {
        table.row([
            snapshot.name.clone(),
            snapshot.volume_name.clone().unwrap_or_else(|| snapshot.volume.clone()),
            format_size(ByteCount(snapshot.size_bytes)),
            snapshot.state().to_owned(),
            snapshot.id.clone(),
        ]);
    }
    table.print();
}

fn show(snapshot: &view::Snapshot) {
    let mut sheet = Sheet::default();
    sheet.line("name", &snapshot.name);
    sheet.line("id", &snapshot.id);
    sheet.line("volume", snapshot.volume_name.as_deref().unwrap_or(&snapshot.volume));
    sheet.line("size", format_size(ByteCount(snapshot.size_bytes)));
    sheet.line("state", snapshot.state());
    sheet.print();
}
