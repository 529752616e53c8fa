//! Whether a stream may go into a volume, and what of the volume must be met by it.
//!
//! | volume | full stream | incremental stream |
//! | --- | --- | --- |
//! | attached, or not closed, or too small | refused | refused |
//! | never written to | written | refused: no base |
//! | holds the base, and nothing since | `--overwrite`: gaps become zeros | written |
//! | holds the base, and something since | the same | `--overwrite`, if the stream has every block of it |
//! | anything else | the same | refused: no base |
//!
//! What an import that was cut off has written, the same stream has too: it may be repeated.

use anyhow::{bail, ensure};
use ashlar_changes::Span;
use ashlar_changes::stream::{Frame, Identity};
use ashlar_rpc::control::{self, Use};
use ashlar_types::{BLOCK_BYTES, BlockIndex, SnapshotId};
use std::collections::VecDeque;

/// Ranges that were changed since the base of which so many are remembered: 24 MiB.
const UNMET_MAX: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What no frame names becomes zeros.
    pub(super) zero_gaps: bool,
    pub(super) unmet: Unmet,
}

pub(super) fn marker_prefix(volume: &str) -> String {
    format!("import.{volume}.")
}

pub(super) fn marker_name(volume: &str, snapshot: SnapshotId) -> String {
    format!("{}{snapshot}", marker_prefix(volume))
}

pub(super) fn no_base(volume: &str, base: SnapshotId) -> String {
    format!(
        "the stream has only what changed since snapshot {base}, and {volume} does not hold that one from an import: \
         import a full stream of it first"
    )
}

/// What holds for every stream.
pub(super) fn check_target(volume: &control::Volume, identity: &Identity) -> anyhow::Result<()> {
    let name = &volume.name;
    let Some(record) = &volume.record else { bail!("the control plane gave no record of {name}") };
    if !record.holder.is_empty() {
        bail!("{name} is in use on {}: detach it first", record.holder);
    }
    ensure!(record.clean, "{name} was not detached cleanly: attach it and detach it first");
    ensure!(
        volume.size_bytes >= identity.size.0,
        "{name} has {} bytes, the snapshot {}: expand it to that first",
        volume.size_bytes,
        identity.size
    );
    Ok(())
}

pub(super) fn full(volume: &control::Volume, identity: &Identity, overwrite: bool) -> anyhow::Result<Plan> {
    let is_blank = volume.r#use() == Use::Blank;
    ensure!(
        is_blank || overwrite,
        "{} was written to: import into a new volume, or lose what it holds with --overwrite",
        volume.name
    );
    assert!(identity.base.is_none());
    Ok(Plan { zero_gaps: !is_blank, unmet: Unmet::default() })
}

/// `changed`: since the base was imported.
pub(super) fn incremental(volume: &str, changed: Unmet, overwrite: bool) -> anyhow::Result<Plan> {
    ensure!(
        changed.0.is_empty() || overwrite,
        "{volume} was written to since the stream's base was imported. If that was this import, cut off: repeat it \
         with --overwrite; else import a full stream"
    );
    Ok(Plan { zero_gaps: false, unmet: changed })
}

/// Blocks that the frames still to come must name, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Unmet(VecDeque<Span>);

impl Unmet {
    pub(super) fn add(&mut self, span: Span) -> anyhow::Result<()> {
        ensure!(self.0.len() < UNMET_MAX, "too much was written since the stream's base was imported");
        self.0.push_back(span);
        Ok(())
    }

    pub(super) fn meet(&mut self, frame: &Frame) -> anyhow::Result<()> {
        let start = BlockIndex(frame.offset.0 / BLOCK_BYTES);
        let end = BlockIndex(start.0 + frame.length.0 / BLOCK_BYTES);
        while let Some(first) = self.0.front_mut().filter(|first| first.start < end) {
            if first.start < start {
                return Err(foreign(*first));
            }
            match first.within(end, first.end()) {
                Some(rest) => *first = rest,
                None => drop(self.0.pop_front()),
            }
        }
        Ok(())
    }

    pub(super) fn finish(&self) -> anyhow::Result<()> {
        self.0.front().map_or(Ok(()), |first| Err(foreign(*first)))
    }
}

fn foreign(span: Span) -> anyhow::Error {
    anyhow::anyhow!(
        "byte {} was written since the stream's base was imported, and not by this stream: import a full stream",
        span.offset()
    )
}

#[cfg(test)]
mod tests;
