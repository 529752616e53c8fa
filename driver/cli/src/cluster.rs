//! `ashlar node`, `ashlar disk`, `ashlar cluster` and `ashlar events`.

use crate::args::{ClusterCommand, DiskCommand, EventsArguments, Format, NodeCommand};
use crate::client::{Endpoint, explain};
use crate::output::{Sheet, Table, line, or_dash, print, print_json_line};
use crate::size::format_size;
use crate::view;
use anyhow::{Context, bail};
use ashlar_rpc::control;
use ashlar_types::ByteCount;
use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_stream::StreamExt;

pub async fn nodes(command: NodeCommand, endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut client = endpoint.connect().await?;
    let (node, drain, format) = match command {
        NodeCommand::List(format) => {
            let nodes = client.list_nodes(control::ListNodesRequest {}).await.map_err(explain)?.into_inner().nodes;
            let nodes: Vec<view::Node> = nodes.into_iter().map(view::Node::of).collect();
            return print(format, &nodes, |nodes| list_nodes(nodes));
        }
        NodeCommand::SafeToStop { node, format } => {
            let request = control::SafeToStopRequest { node: node.clone() };
            let answer = client.safe_to_stop(request).await.map_err(explain)?.into_inner();
            let answer = view::SafeToStop::of(answer);
            print(format, &answer, |answer| show_safe_to_stop(&node, answer))?;
            if answer.safe {
                return Ok(());
            }
            bail!("node {node} is not safe to stop");
        }
        NodeCommand::Drain { node, format } => (node, true, format),
        NodeCommand::Undrain { node, format } => (node, false, format),
    };
    let answer = client.drain_node(control::DrainNodeRequest { node, drain }).await.map_err(explain)?.into_inner();
    print(format, &view::Node::of(answer), |node| list_nodes(std::slice::from_ref(node)))
}

fn list_nodes(nodes: &[view::Node]) {
    let mut table = Table::new(["NODE", "ZONE", "CHUNKSERVER", "DATAPATH", "DISKS", "ATTACHED", "LAST HEARTBEAT"]);
    for node in nodes {
        let drained = if node.draining { ", draining" } else { "" };
        table.row([
            node.name.clone(),
            or_dash(node.zone.as_deref().unwrap_or_default()),
            format!("{}{drained}", alive(node.chunkserver_alive)),
            alive(node.datapath_alive),
            node.disks.to_string(),
            node.attached.to_string(),
            since(node.last_heartbeat_ms),
        ]);
    }
    table.print();
}

fn show_safe_to_stop(node: &str, answer: &view::SafeToStop) {
    match (answer.safe, answer.safe_in_ms) {
        (true, _) => line(&format!("yes: no volume's writes wait while node {node} is off")),
        (false, Some(ms)) => line(&format!("no, in about {} s:", ms.div_ceil(1000))),
        (false, None) => line("no:"),
    }
    answer.reasons.iter().for_each(|reason| line(&format!("  {reason}")));
}

fn alive(alive: bool) -> String {
    if alive { "alive".to_owned() } else { "silent".to_owned() }
}

pub async fn disks(command: DiskCommand, endpoint: &Endpoint) -> anyhow::Result<()> {
    match command {
        DiskCommand::List(format) => {
            let mut client = endpoint.connect().await?;
            let disks = client.list_disks(control::ListDisksRequest {}).await.map_err(explain)?.into_inner().disks;
            let disks: Vec<view::Disk> = disks.into_iter().map(view::Disk::of).collect();
            print(format, &disks, |disks| list_disks(disks))
        }
        DiskCommand::Show { disk, format } => {
            let mut client = endpoint.connect().await?;
            let disks = client.list_disks(control::ListDisksRequest {}).await.map_err(explain)?.into_inner().disks;
            let found = disks.into_iter().find(|other| other.id == disk);
            let found = found.with_context(|| format!("there is no disk {disk}"))?;
            print(format, &view::Disk::of(found), show_disk)
        }
        DiskCommand::Drain { disk, format } => drain_disk(endpoint, disk, true, format).await,
        DiskCommand::Undrain { disk, format } => drain_disk(endpoint, disk, false, format).await,
        DiskCommand::Remove { disk, accept_data_loss } => {
            let mut client = endpoint.connect().await?;
            let request = control::RemoveDiskRequest { disk, accept_data_loss };
            let answer = client.remove_disk(request).await.map_err(explain)?.into_inner();
            answer.lost_volumes.iter().for_each(|volume| line(volume));
            Ok(())
        }
        DiskCommand::DeclareLost { disk, proof_that_it_is_off, yes } => {
            if !yes {
                confirm(&disk)?;
            }
            let mut client = endpoint.connect().await?;
            let request = control::DeclareDiskLostRequest { disk, proof_that_it_is_off };
            let answer = client.declare_disk_lost(request).await.map_err(explain)?.into_inner();
            for volume in answer.volumes {
                line(&volume);
            }
            Ok(())
        }
    }
}

async fn drain_disk(endpoint: &Endpoint, disk: String, drain: bool, format: Format) -> anyhow::Result<()> {
    let mut client = endpoint.connect().await?;
    let answer = client.drain_disk(control::DrainDiskRequest { disk, drain }).await.map_err(explain)?.into_inner();
    print(format, &view::Disk::of(answer), |disk| list_disks(std::slice::from_ref(disk)))
}

/// The one command that gives up data asks for the disk's id once more.
fn confirm(disk: &str) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("declaring a disk lost gives up its data for good: confirm with --yes");
    }
    eprint!("Disk {disk} will never count again, and its data is given up. Type its id to go on: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).context("read the answer")?;
    if answer.trim() == disk { Ok(()) } else { bail!("not confirmed; nothing was changed") }
}

fn state_of(disk: &view::Disk) -> String {
    if disk.draining { format!("{}, draining", disk.state) } else { disk.state.to_owned() }
}

fn show_disk(disk: &view::Disk) {
    let mut sheet = Sheet::default();
    sheet.line("id", &disk.id);
    sheet.line("node", &disk.node);
    sheet.line("state", state_of(disk));
    sheet.line("capacity", format_size(ByteCount(disk.capacity_bytes)));
    sheet.line("free", format_size(ByteCount(disk.free_bytes)));
    sheet.line("promised", format_size(ByteCount(disk.provisioned_bytes)));
    sheet.line("address", or_dash(disk.address.as_deref().unwrap_or_default()));
    sheet.line("path", or_dash(disk.path.as_deref().unwrap_or_default()));
    sheet.line("failure", or_dash(disk.failure.as_deref().unwrap_or_default()));
    sheet.line("heard of", since(disk.last_heartbeat_ms));
    match &disk.scrub {
        None => sheet.line("scrub", "not told yet"),
        Some(scrub) => show_scrub(&mut sheet, scrub),
    }
    match &disk.smart {
        None => sheet.line("SMART", "not told yet"),
        Some(smart) => show_smart(&mut sheet, smart),
    }
    sheet.print();
}

fn show_smart(sheet: &mut Sheet, smart: &view::Smart) {
    let device = smart.device.as_deref().unwrap_or_default();
    match &smart.none {
        Some(reason) => sheet.line("SMART", format!("none: {reason}")),
        None if smart.failing => sheet.line("SMART", format!("{device} says that it is about to fail")),
        None => sheet.line("SMART", format!("{device} says that it is well")),
    }
    if !smart.figures().is_empty() {
        sheet.line("", smart.figures().join(", "));
    }
}

fn show_scrub(sheet: &mut Sheet, scrub: &view::Scrub) {
    let time = |ms: u64| humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
    match scrub.period_ms {
        0 => sheet.line("scrub", "off"),
        period => sheet.line("scrub", format!("each block within {}", time(period))),
    }
    let (verified, slots, elapsed) = (scrub.slots_verified, scrub.slots_used, time(scrub.elapsed_ms));
    sheet.line("", format!("this round: {} %, {verified} of {slots} slots in {elapsed}", scrub.percent()));
    sheet.line("", format!("rounds: {}, the last one ended {}", scrub.rounds, since(scrub.last_ended_ms.unwrap_or(0))));
    let (found, lately, repaired) = (scrub.found_blocks, scrub.found_lately_blocks, scrub.repaired_blocks);
    sheet.line(
        "bad blocks",
        format!("{} now; {found} found ever, {lately} lately, {repaired} repaired", scrub.bad_blocks),
    );
}

/// How much of the present round is done, and the blocks that were found bad.
fn scrub_columns(disk: &view::Disk) -> [String; 2] {
    match &disk.scrub {
        Some(scrub) if scrub.period_ms > 0 => [format!("{} %", scrub.percent()), scrub.found_blocks.to_string()],
        Some(scrub) => ["off".to_owned(), scrub.found_blocks.to_string()],
        None => ["-", "-"].map(str::to_owned),
    }
}

fn list_disks(disks: &[view::Disk]) {
    let mut table = Table::new([
        "ID",
        "NODE",
        "STATE",
        "CAPACITY",
        "FREE",
        "PROMISED",
        "SCRUB",
        "BAD BLOCKS",
        "ADDRESS",
        "PATH",
        "FAILURE",
    ]);
    for disk in disks {
        let [scrub, bad] = scrub_columns(disk);
        table.row([
            disk.id.clone(),
            disk.node.clone(),
            state_of(disk),
            format_size(ByteCount(disk.capacity_bytes)),
            format_size(ByteCount(disk.free_bytes)),
            format_size(ByteCount(disk.provisioned_bytes)),
            scrub,
            bad,
            or_dash(disk.address.as_deref().unwrap_or_default()),
            or_dash(disk.path.as_deref().unwrap_or_default()),
            or_dash(disk.failure.as_deref().unwrap_or_default()),
        ]);
    }
    table.print();
}

pub async fn status(command: ClusterCommand, endpoint: &Endpoint) -> anyhow::Result<()> {
    let ClusterCommand::Status(format) = command;
    let mut client = endpoint.connect().await?;
    let status = client.get_status(control::GetStatusRequest {}).await.map_err(explain)?.into_inner();
    print(format, &view::Status::of(status), |status| {
        let mut sheet = Sheet::default();
        sheet.line("cluster", &status.cluster);
        sheet.line("health", &status.health);
        for reason in &status.reasons {
            sheet.line("", reason);
        }
        sheet.line("nodes", format!("{} of {} alive", status.nodes_alive, status.nodes));
        sheet.line("disks", format!("{} of {} online", status.disks_online, status.disks));
        sheet.line("volumes", format!("{}, {} degraded", status.volumes, status.volumes_degraded));
        let free = format_size(ByteCount(status.free_bytes));
        sheet.line("space", format!("{free} free of {}", format_size(ByteCount(status.capacity_bytes))));
        if let Some(three) = status.three_failures.as_ref().filter(|three| three.combinations > 0) {
            sheet.line("three disks fail", three.text());
        }
        sheet.print();
    })
}

pub async fn events(arguments: EventsArguments, endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut client = endpoint.connect_without_timeout().await?;
    let request = control::EventsRequest {
        volume: arguments.volume.unwrap_or_default(),
        max_entries: arguments.last,
        follow: arguments.follow,
    };
    let mut stream = client.events(request).await.map_err(explain)?.into_inner();
    while let Some(event) = stream.next().await {
        let event = view::Event::of(event.map_err(explain)?);
        if arguments.format.json {
            print_json_line(&event)?;
        } else {
            line(&event_line(&event));
        }
    }
    if arguments.follow {
        bail!("the control plane ended the stream of events");
    }
    Ok(())
}

fn event_line(event: &view::Event) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(event.time_ms);
    let mut line = format!("{} {:<12}", humantime::format_rfc3339_millis(time), event.kind);
    for (name, value) in [("volume", &event.volume), ("disk", &event.disk), ("node", &event.node)] {
        if let Some(value) = value {
            line.push_str(&format!(" {name}={value}"));
        }
    }
    for (name, value) in &event.figures {
        line.push_str(&format!(" {name}={value}"));
    }
    if !event.text.is_empty() {
        line.push_str(&format!(" {}", event.text));
    }
    line
}

/// How long ago, in whole seconds.
fn since(time_ms: u64) -> String {
    if time_ms == 0 {
        return "never".to_owned();
    }
    let then = UNIX_EPOCH + Duration::from_millis(time_ms);
    let seconds = SystemTime::now().duration_since(then).unwrap_or_default().as_secs();
    format!("{} ago", humantime::format_duration(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = view::Event::of(control::Event {
            time_ms: 1_700_000_000_123,
            kind: "ejected".to_owned(),
            disk: "d1".to_owned(),
            text: "silent".to_owned(),
            figures: [("commit".to_owned(), "7".to_owned())].into(),
            ..Default::default()
        });
        assert_eq!(event_line(&event), "2023-11-14T22:13:20.123Z ejected      disk=d1 commit=7 silent");
    }
}
