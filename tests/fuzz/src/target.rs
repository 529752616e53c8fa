//! The list of targets, with the bounds of each.

use crate::targets::*;

/// Names the target that the worker runs.
pub const TARGET_VARIABLE: &str = "ASHLAR_FUZZ_TARGET";

/// One thing that takes foreign bytes.
pub struct Target {
    pub name: &'static str,
    /// Panics when a rule is broken.
    pub run: fn(&[u8]),
    /// Longest input that is tried.
    pub input_bytes_max: usize,
    /// What one run may allocate beyond what was allocated before it.
    pub memory_bytes_max: usize,
    /// Edges that the repository's corpus alone reaches, less a tenth: where a run ends below, something keeps the
    /// fuzzer out, and that it finds nothing means nothing.
    pub coverage_min: u64,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    input_bytes_max: usize,
    memory_bytes_max: usize,
    coverage_min: u64,
) -> Target {
    Target { name, run, input_bytes_max, memory_bytes_max, coverage_min }
}

/// Every target there is. The name is the file's, and the corpus folder's.
pub const TARGETS: &[Target] = &[
    target("wire_stream", wire_stream::run, 12 * KIB, 8 * MIB, 640),
    target("wire_message", wire_message::run, 4 * KIB, 8 * MIB, 515),
    target("superblock", superblock::run, 4 * KIB, MIB, 95),
    target("journal_batch", journal_batch::run, 9 * KIB, MIB, 370),
    target("index_row", index_row::run, 256, MIB, 240),
    target("engine_recover", engine_recover::run, 8 * KIB, 64 * MIB, 2510),
    target("engine_events", engine_events::run, 4 * KIB, 128 * MIB, 2570),
    target("volume_events", volume_events::run, 4 * KIB, 256 * MIB, 2800),
    target("nbd", nbd::run, 4 * KIB, 8 * MIB, 360),
    target("control_api", control_api::run, 4 * KIB, 8 * MIB, 1090),
    target("names", names::run, 512, MIB, 160),
    target("export_stream", export_stream::run, 16 * KIB, 4 * MIB, 120),
];

impl Target {
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }
}
