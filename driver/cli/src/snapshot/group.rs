//! `ashlar snapshot group ...`

use super::list;
use crate::args::GroupCommand;
use crate::client::explain;
use crate::output::{Sheet, Table, line, print};
use crate::view;
use anyhow::bail;
use ashlar_rpc::control::{self, cluster_client::ClusterClient};
use tonic::transport::Channel;

/// Groups asked for at once when all are listed.
const PAGE_ENTRIES: u32 = 500;

pub(super) async fn run(command: GroupCommand, client: &mut ClusterClient<Channel>) -> anyhow::Result<()> {
    match command {
        GroupCommand::Create { name, volumes, format } => {
            let request = control::CreateSnapshotGroupRequest { name, volumes };
            let group = client.create_snapshot_group(request).await.map_err(explain)?.into_inner();
            print(format, &view::SnapshotGroup::of(group), |group| line(&group.id))
        }
        GroupCommand::List { format } => {
            let groups = all(client).await?;
            print(format, &groups, |groups| table(groups))
        }
        GroupCommand::Show { group, format } => {
            let request = control::SnapshotGroupRef { group };
            let group = client.get_snapshot_group(request).await.map_err(explain)?.into_inner();
            print(format, &view::SnapshotGroup::of(group), show)
        }
        GroupCommand::Delete { group } => {
            client.delete_snapshot_group(control::SnapshotGroupRef { group }).await.map_err(explain)?;
            Ok(())
        }
    }
}

async fn all(client: &mut ClusterClient<Channel>) -> anyhow::Result<Vec<view::SnapshotGroup>> {
    let mut groups = Vec::new();
    let mut starting_token = String::new();
    loop {
        let request =
            control::ListSnapshotGroupsRequest { max_entries: PAGE_ENTRIES, starting_token: starting_token.clone() };
        let page = client.list_snapshot_groups(request).await.map_err(explain)?.into_inner();
        groups.extend(page.groups.into_iter().map(view::SnapshotGroup::of));
        if page.next_token.is_empty() {
            return Ok(groups);
        }
        if page.next_token == starting_token {
            bail!("the control plane gave the same page of groups twice");
        }
        starting_token = page.next_token;
    }
}

fn table(groups: &[view::SnapshotGroup]) {
    let mut table = Table::new(["NAME", "VOLUMES", "HELD", "STATE", "ID"]);
    for group in groups {
        let (volumes, held) = (group.snapshots.len().to_string(), held(group));
        table.row([group.name.clone(), volumes, held, group.state().to_owned(), group.id.clone()]);
    }
    table.print();
}

fn show(group: &view::SnapshotGroup) {
    let mut sheet = Sheet::default();
    sheet.line("name", &group.name);
    sheet.line("id", &group.id);
    sheet.line("state", group.state());
    sheet.line("writes held", held(group));
    sheet.print();
    list(&group.snapshots);
}

fn held(group: &view::SnapshotGroup) -> String {
    format!("{:.3} ms", group.held_us as f64 / 1000.0)
}
