//! `ashlar snapshot export`: the stream of `driver/STREAM.md`, from any in-sync replicas into a file or a pipe.
//!
//! The end mark is written when the catalog has said, after everything was read, that the snapshot is still there: a
//! stream with an end mark is the snapshot's content. Which frames there are depends on the snapshot alone, so one that
//! was interrupted goes on to the same bytes.

use super::source::Source;
use crate::args::Format;
use crate::output::{Sheet, print};
use crate::progress::Progress;
use crate::size::format_size;
use anyhow::{Context, bail, ensure};
use ashlar_changes::stream::{DATA_BYTES_MAX, Identity, Totals, Writer, scan};
use ashlar_changes::{Replicas, Scope, Span, Walk, What};
use ashlar_rpc::control::cluster_client::ClusterClient;
use ashlar_types::{BLOCK_BYTES, BlockCount, ByteCount, ChunkRange};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, IsTerminal, Seek, SeekFrom, Write};
use tonic::transport::Channel;

#[derive(Serialize)]
struct Exported {
    volume: String,
    snapshot: String,
    base: Option<String>,
    frames: u64,
    data_bytes: u64,
    zeros_bytes: u64,
}

/// Where the stream goes.
enum Output {
    File(File),
    Pipe(io::Stdout),
}

/// What is left to be done.
enum Begun {
    Complete(Totals),
    Open(Writer<Output>),
}

pub(super) async fn run(
    client: &mut ClusterClient<Channel>,
    snapshot: String,
    since: Option<String>,
    file: &str,
    format: Format,
) -> anyhow::Result<()> {
    let progress = Progress::spinner(format!("exporting {snapshot}"));
    let (source, replicas) = Source::open(client, snapshot, since).await?;
    let Source { volume, target, base, scope, .. } = source;
    let identity = Identity { volume, snapshot: target, base, size: scope.size };
    let to = file.to_owned();
    let totals = match blocking(move || begin(identity, &to)).await? {
        Begun::Complete(totals) => totals,
        Begun::Open(writer) => {
            let writer = blocking(move || copy(scope, replicas, writer, &progress)).await?;
            source.check_still_there(client).await?;
            blocking(move || finish(writer)).await?
        }
    };
    if file == "-" {
        return Ok(());
    }
    let exported = Exported {
        volume: source.volume_name,
        snapshot: target.to_string(),
        base: base.map(|base| base.to_string()),
        frames: totals.frames,
        data_bytes: totals.data.0,
        zeros_bytes: totals.zeros.0,
    };
    print(format, &exported, show)
}

fn show(exported: &Exported) {
    let mut sheet = Sheet::default();
    sheet.line("volume", &exported.volume);
    sheet.line("snapshot", &exported.snapshot);
    if let Some(base) = &exported.base {
        sheet.line("since", base);
    }
    sheet.line("data", format_size(ByteCount(exported.data_bytes)));
    sheet.line("zeros", format_size(ByteCount(exported.zeros_bytes)));
    sheet.print();
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("wait for the export")?
}

fn begin(identity: Identity, path: &str) -> anyhow::Result<Begun> {
    if path == "-" {
        ensure!(!io::stdout().is_terminal(), "the stream is no text: give a file, or a pipe");
        return Ok(Begun::Open(Writer::begin(identity, Output::Pipe(io::stdout()))?));
    }
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = opened.with_context(|| format!("open {path}"))?;
    if !file.metadata().with_context(|| format!("look at {path}"))?.is_file() {
        bail!("{path} is not a file: for a pipe give `-`");
    }
    file.try_lock().with_context(|| format!("lock {path}: does another export write it?"))?;
    let found = scan(identity, BufReader::new(&file)).with_context(|| format!("go on with {path}"))?;
    let kept = found.as_ref().map_or(0, |scan| scan.bytes());
    if let Some(scan) = found.as_ref().filter(|scan| scan.is_complete()) {
        return Ok(Begun::Complete(scan.totals()));
    }
    file.set_len(kept).and_then(|()| file.seek(SeekFrom::Start(kept))).with_context(|| format!("cut {path}"))?;
    let output = Output::File(file);
    Ok(Begun::Open(match found {
        Some(scan) => Writer::go_on(scan, output),
        None => Writer::begin(identity, output)?,
    }))
}

fn copy(
    scope: Scope,
    mut replicas: Replicas,
    mut writer: Writer<Output>,
    progress: &Progress,
) -> anyhow::Result<Writer<Output>> {
    let mut walk = Walk::new(scope, writer.next_block());
    while let Some(span) = walk.next(&mut replicas)? {
        if span.what == What::Zeros {
            writer.zeros(span.offset(), span.length())?;
            continue;
        }
        for piece in span.cut(DATA_BYTES_MAX / BLOCK_BYTES) {
            writer.data(piece.offset(), &replicas.read(range_of(piece), scope.target)?)?;
            let (done, of) = (ByteCount(piece.offset().0 + piece.length().0), scope.size);
            progress.say(format!("exporting: at {} of {}", format_size(done), format_size(of)));
        }
    }
    Ok(writer)
}

/// A frame's data is of one chunk, as frames are cut where chunks end too.
fn range_of(piece: Span) -> ChunkRange {
    let count = BlockCount(u32::try_from(piece.blocks).expect("a frame's blocks"));
    ChunkRange { chunk: piece.start.chunk(), start: piece.start.within_chunk(), count }
}

const _: () = assert!(ashlar_types::CHUNK_BYTES.is_multiple_of(DATA_BYTES_MAX), "no frame is of two chunks");

fn finish(writer: Writer<Output>) -> anyhow::Result<Totals> {
    let (output, totals) = writer.finish()?;
    if let Output::File(file) = output {
        file.sync_all().context("make the file durable")?;
    }
    Ok(totals)
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::File(file) => file.write(bytes),
            Output::Pipe(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::File(file) => file.flush(),
            Output::Pipe(stdout) => stdout.flush(),
        }
    }
}
