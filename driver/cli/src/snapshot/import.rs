//! `ashlar snapshot import`: a stream into a volume, through its device, attached for as long as it takes.
//!
//! ```text
//!   header ─► plan: may this stream go into this volume? ─► a file: verified to its end ─► attach ─► write ─► flush
//!     ─► detach, clean ─► snapshot `import.VOLUME.SNAPSHOT` of the volume ─► the one before it deleted
//! ```
//! That last snapshot is how a later incremental stream finds its base: the volume holds it, as long as the replicas
//! say that nothing was written since. It exists only when an import came to its end.

mod plan;

use super::source::replicas_of;
use crate::args::SnapshotImport;
use crate::client::explain;
use crate::nbd::{Nbd, socket_of};
use crate::output::{Sheet, print};
use crate::progress::Progress;
use crate::size::format_size;
use anyhow::{Context, ensure};
use ashlar_changes::stream::{Content, Frame, Reader, Totals};
use ashlar_changes::{Scope, Walk};
use ashlar_rpc::control::{self, cluster_client::ClusterClient};
use ashlar_types::{BlockIndex, ByteCount, ByteOffset, Lsn};
use plan::{Plan, Unmet};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read, Seek, SeekFrom};
use tonic::transport::Channel;

type Client = ClusterClient<Channel>;
type Input = Box<dyn Read + Send>;

#[derive(Serialize)]
struct Imported {
    volume: String,
    snapshot: String,
    base: Option<String>,
    data_bytes: u64,
    zeros_bytes: u64,
}

pub(super) async fn run(client: &mut Client, import: SnapshotImport) -> anyhow::Result<()> {
    let progress = Progress::spinner(format!("importing into {}", import.volume));
    let (file, input) = open(&import.file)?;
    let reader = blocking(move || Ok(Reader::open(input)?)).await?;
    let identity = reader.identity();
    let request = control::VolumeRef { volume: import.volume.clone() };
    let volume = client.get_volume(request).await.map_err(explain)?.into_inner();
    let plan = plan(client, &volume, &reader, import.overwrite).await?;
    let check = plan.clone();
    let again = blocking(move || verify(reader, file, check, progress));
    let (reader, progress) = again.await?;
    ensure!(reader.identity() == identity, "{} was changed while it was read", import.file);
    if let Some(marker) = marker(client, &volume.id, &plan::marker_name(&volume.id, identity.snapshot)).await? {
        // An older import of the same snapshot: no longer what the volume holds.
        delete(client, marker.id).await?;
    }
    let node = import.node.map_or_else(|| first_node(&volume), Ok)?;
    let totals = through_the_device(client, &volume.id, node, reader, plan, progress).await?;
    mark(client, &volume.id, &plan::marker_name(&volume.id, identity.snapshot)).await?;
    let imported = Imported {
        volume: volume.name,
        snapshot: identity.snapshot.to_string(),
        base: identity.base.map(|base| base.to_string()),
        data_bytes: totals.data.0,
        zeros_bytes: totals.zeros.0,
    };
    print(import.format, &imported, show)
}

fn show(imported: &Imported) {
    let mut sheet = Sheet::default();
    sheet.line("volume", &imported.volume);
    sheet.line("holds", format!("snapshot {}", imported.snapshot));
    sheet.line("data", format_size(ByteCount(imported.data_bytes)));
    sheet.line("zeros", format_size(ByteCount(imported.zeros_bytes)));
    sheet.print();
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("wait for the import")?
}

/// With the file itself where it can be read twice.
fn open(path: &str) -> anyhow::Result<(Option<File>, Input)> {
    if path == "-" {
        ensure!(!io::stdin().is_terminal(), "the stream is no text: give a file, or a pipe");
        return Ok((None, Box::new(io::stdin())));
    }
    let file = File::open(path).with_context(|| format!("open {path}"))?;
    let again = match file.metadata().with_context(|| format!("look at {path}"))?.is_file() {
        true => Some(file.try_clone().with_context(|| format!("open {path}"))?),
        false => None,
    };
    Ok((again, Box::new(BufReader::new(file))))
}

fn rewound(mut file: &File) -> anyhow::Result<Input> {
    file.seek(SeekFrom::Start(0)).context("go back to the start of the file")?;
    Ok(Box::new(BufReader::new(file.try_clone()?)))
}

async fn plan(
    client: &mut Client,
    volume: &control::Volume,
    reader: &Reader<Input>,
    overwrite: bool,
) -> anyhow::Result<Plan> {
    let identity = reader.identity();
    plan::check_target(volume, &identity)?;
    let Some(base) = identity.base else { return plan::full(volume, &identity, overwrite) };
    let marker = marker(client, &volume.id, &plan::marker_name(&volume.id, base)).await?;
    let marker = marker.with_context(|| plan::no_base(&volume.name, base))?;
    let message = volume.record.as_ref().context("the control plane gave no record of the volume")?;
    let mut replicas = replicas_of(message)?;
    let id = marker.id.parse().context("the snapshot's id")?;
    let point = replicas.record().snapshot(id).with_context(|| plan::no_base(&volume.name, base))?.point;
    let scope = Scope { base: Some(point), target: Lsn::MAX, size: ByteCount(volume.size_bytes) };
    let changed = blocking(move || {
        let mut walk = Walk::new(scope, BlockIndex(0));
        let mut unmet = Unmet::default();
        while let Some(span) = walk.next(&mut replicas)? {
            unmet.add(span)?;
        }
        Ok(unmet)
    });
    plan::incremental(&volume.name, changed.await?, overwrite)
}

/// A snapshot of the volume by which a finished import is known.
async fn marker(client: &mut Client, volume: &str, name: &str) -> anyhow::Result<Option<control::Snapshot>> {
    let found = super::all_messages(client, volume.to_owned()).await?;
    Ok(found.into_iter().find(|snapshot| snapshot.name == name && snapshot.ready))
}

async fn delete(client: &mut Client, snapshot: String) -> anyhow::Result<()> {
    client.delete_snapshot(control::SnapshotRef { snapshot }).await.map_err(explain)?;
    Ok(())
}

/// The volume holds the snapshot now, and no other.
async fn mark(client: &mut Client, volume: &str, name: &str) -> anyhow::Result<()> {
    let request = control::CreateSnapshotRequest { name: name.to_owned(), volume: volume.to_owned() };
    let taken = client.create_snapshot(request).await.map_err(explain);
    taken.context("the import is complete, but no incremental one can follow it: remember what the volume holds")?;
    let prefix = plan::marker_prefix(volume);
    for older in super::all_messages(client, volume.to_owned()).await? {
        if older.name.starts_with(&prefix) && older.name != name {
            delete(client, older.id).await?;
        }
    }
    Ok(())
}

fn first_node(volume: &control::Volume) -> anyhow::Result<String> {
    let members = volume.record.iter().flat_map(|record| &record.members);
    let in_sync = |member: &&control::Member| member.state() == control::MemberState::InSync;
    let first = members.filter(in_sync).map(|member| member.node.clone()).next();
    first.with_context(|| format!("{} has no in-sync replica: name this machine with --node", volume.name))
}

/// Attaches, writes, and detaches whatever came of it.
async fn through_the_device(
    client: &mut Client,
    volume: &str,
    node: String,
    reader: Reader<Input>,
    plan: Plan,
    progress: Progress,
) -> anyhow::Result<Totals> {
    let request = control::AttachVolumeRequest {
        volume: volume.to_owned(),
        node: node.clone(),
        frontend: control::Frontend::Nbd as i32,
        read_only: false,
        keeps_use: false,
        role: control::AttachRole::Writer as i32,
    };
    let device = client.attach_volume(request).await.map_err(explain)?.into_inner();
    let written = blocking(move || {
        let socket = socket_of(&device.path)?;
        let nbd = Nbd::connect(&socket).with_context(|| format!("the device is on {node}: import there"))?;
        write(reader, nbd, plan, &progress)
    });
    let written = written.await;
    let request = control::DetachVolumeRequest { volume: volume.to_owned(), node: String::new(), force: false };
    let detached = client.detach_volume(request).await.map_err(explain);
    match (written, detached) {
        (written, Ok(_)) => written,
        (Ok(_), Err(error)) => Err(error.context("all was written, but the volume is still attached")),
        (Err(error), Err(other)) => Err(error.context(format!("and the volume is still attached ({other:#})"))),
    }
}

/// Every frame of a file, and that it may be written, before the first one is. A pipe cannot be read twice.
fn verify(
    mut reader: Reader<Input>,
    file: Option<File>,
    mut plan: Plan,
    progress: Progress,
) -> anyhow::Result<(Reader<Input>, Progress)> {
    let Some(file) = file else { return Ok((reader, progress)) };
    while let Some(frame) = reader.next_frame()? {
        plan.unmet.meet(&frame)?;
        progress.say(format!("verifying: at {}", format_size(ByteCount(frame.offset.0))));
    }
    plan.unmet.finish()?;
    Ok((Reader::open(rewound(&file)?)?, progress))
}

fn write(mut reader: Reader<Input>, mut nbd: Nbd, mut plan: Plan, progress: &Progress) -> anyhow::Result<Totals> {
    let size = reader.identity().size;
    ensure!(nbd.size() >= size, "the device has {} bytes, the snapshot {size}", nbd.size());
    let mut done = ByteOffset(0);
    while let Some(frame) = reader.next_frame()? {
        plan.unmet.meet(&frame)?;
        if plan.zero_gaps && frame.offset > done {
            nbd.zero(done, ByteCount(frame.offset.0 - done.0))?;
        }
        write_frame(&mut nbd, &frame)?;
        done = ByteOffset(frame.offset.0 + frame.length.0);
        progress.say(format!("importing: at {} of {}", format_size(ByteCount(done.0)), format_size(size)));
    }
    plan.unmet.finish()?;
    if plan.zero_gaps && nbd.size().0 > done.0 {
        nbd.zero(done, ByteCount(nbd.size().0 - done.0))?;
    }
    nbd.flush()?;
    nbd.close()?;
    Ok(reader.totals())
}

fn write_frame(nbd: &mut Nbd, frame: &Frame) -> anyhow::Result<()> {
    match &frame.content {
        Content::Data(data) => nbd.write(frame.offset, data),
        Content::Zeros => nbd.zero(frame.offset, frame.length),
    }
}
