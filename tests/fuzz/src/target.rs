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
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const fn target(name: &'static str, run: fn(&[u8]), input_bytes_max: usize, memory_bytes_max: usize) -> Target {
    Target { name, run, input_bytes_max, memory_bytes_max }
}

/// Every target there is. The name is the file's, and the corpus folder's.
pub const TARGETS: &[Target] = &[
    target("wire_stream", wire_stream::run, 12 * KIB, 8 * MIB),
    target("wire_message", wire_message::run, 4 * KIB, 8 * MIB),
    target("superblock", superblock::run, 4 * KIB, MIB),
    target("journal_batch", journal_batch::run, 4 * KIB, MIB),
    target("index_row", index_row::run, 256, MIB),
    target("engine_recover", engine_recover::run, 8 * KIB, 64 * MIB),
    target("engine_events", engine_events::run, 4 * KIB, 128 * MIB),
    target("volume_events", volume_events::run, 4 * KIB, 256 * MIB),
    target("nbd", nbd::run, 4 * KIB, 8 * MIB),
    target("control_api", control_api::run, 4 * KIB, 8 * MIB),
    target("names", names::run, 512, MIB),
];

impl Target {
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }
}
