//! `ashlar snapshot diff`: printed as it is found, so that any number of ranges needs no memory.

use super::source::Source;
use crate::args::Format;
use crate::output::line;
use crate::progress::Progress;
use crate::size::format_size;
use anyhow::Context;
use ashlar_changes::{Replicas, Scope, Span, Walk, What};
use ashlar_rpc::control::cluster_client::ClusterClient;
use ashlar_types::{BlockIndex, ByteCount};
use serde_json::json;
use tonic::transport::Channel;

#[derive(Clone, Copy, Default)]
struct Found {
    ranges: u64,
    data: u64,
    zeros: u64,
}

pub(super) async fn run(
    client: &mut ClusterClient<Channel>,
    base: String,
    target: String,
    format: Format,
) -> anyhow::Result<()> {
    let progress = Progress::spinner(format!("listing what changed from {base} to {target}"));
    let (source, replicas) = Source::open(client, target, Some(base)).await?;
    // From here on the answer itself shows how far it is.
    drop(progress);
    let scope = source.scope;
    begin(&source, format);
    let found = tokio::task::spawn_blocking(move || tell(scope, replicas, format)).await;
    let found = found.context("wait for the listing")??;
    source.check_still_there(client).await?;
    end(found, format);
    Ok(())
}

fn tell(scope: Scope, mut replicas: Replicas, format: Format) -> anyhow::Result<Found> {
    let mut walk = Walk::new(scope, BlockIndex(0));
    let mut found = Found::default();
    while let Some(span) = walk.next(&mut replicas)? {
        range(span, found.ranges == 0, format);
        found.ranges += 1;
        match span.what {
            What::Data => found.data += span.length().0,
            What::Zeros => found.zeros += span.length().0,
        }
    }
    Ok(found)
}

fn begin(source: &Source, format: Format) {
    if format.json {
        let text = |id: Option<String>| json!(id).to_string();
        let (base, target) = (text(source.base.map(|id| id.to_string())), text(Some(source.target.to_string())));
        line(&format!("{{\"volume\":{},", json!(source.volume.to_string())));
        line(&format!("\"base\":{base},\"target\":{target},\"size_bytes\":{},", source.scope.size.0));
        line("\"ranges\":[");
    } else {
        line(&row("OFFSET", "BYTES", "CHANGE"));
    }
}

fn range(span: Span, is_first: bool, format: Format) {
    let (offset, length, zeros) = (span.offset().0, span.length().0, span.what == What::Zeros);
    if format.json {
        let comma = if is_first { "" } else { "," };
        line(&format!("{comma}{}", json!({"offset_bytes": offset, "length_bytes": length, "zeros": zeros})));
    } else {
        line(&row(&offset.to_string(), &length.to_string(), if zeros { "zeros" } else { "data" }));
    }
}

fn end(found: Found, format: Format) {
    let changed = found.data + found.zeros;
    if format.json {
        line(&format!("],\"changed_bytes\":{changed},\"zeros_bytes\":{}}}", found.zeros));
    } else {
        let size = |bytes: u64| format_size(ByteCount(bytes));
        line(&format!("changed: {} in {} ranges, {} of it zeros", size(changed), found.ranges, size(found.zeros)));
    }
}

fn row(offset: &str, length: &str, change: &str) -> String {
    format!("{offset:>16}  {length:>14}  {change}")
}
