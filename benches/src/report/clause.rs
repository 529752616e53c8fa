//! The eight bars, clause by clause: what is judged, against what bound, and who would have to measure it.

use super::Bar;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Clause {
    WriteEngineL3,
    WriteEngineL1,
    WriteNbdL3,
    SustainedL1,
    SustainedL3,
    BurstL1,
    Read1,
    Read32,
    Read1P99,
    Read32P99,
    BytesLarge,
    BytesDatabase,
    BytesSmall,
    SequentialL3,
    CpuWrite,
    CpuCeph,
    Idle,
    MariaRead,
    MariaMixed,
    MariaWrite,
    Pgbench,
    MariaCeph,
    Gap,
    GapCeph,
    Replay,
    Chunks,
    Volumes,
    Memory,
}

/// Number of the bar, what is judged, unit, bound, and what has to run for it.
type Row = (u8, &'static str, &'static str, Bar, &'static str);

const SPEED: &str = "PART=speed";
const CEPH: &str = "PART=speed PEERS=ceph";
const DATABASES: &str = "PART=databases";
const GROWTH: &str = "PART=growth";

impl Clause {
    pub(crate) const ALL: [Clause; 28] = [
        Clause::WriteEngineL3,
        Clause::WriteEngineL1,
        Clause::WriteNbdL3,
        Clause::SustainedL1,
        Clause::SustainedL3,
        Clause::BurstL1,
        Clause::Read1,
        Clause::Read32,
        Clause::Read1P99,
        Clause::Read32P99,
        Clause::BytesLarge,
        Clause::BytesDatabase,
        Clause::BytesSmall,
        Clause::SequentialL3,
        Clause::CpuWrite,
        Clause::CpuCeph,
        Clause::Idle,
        Clause::MariaRead,
        Clause::MariaMixed,
        Clause::MariaWrite,
        Clause::Pgbench,
        Clause::MariaCeph,
        Clause::Gap,
        Clause::GapCeph,
        Clause::Replay,
        Clause::Chunks,
        Clause::Volumes,
        Clause::Memory,
    ];

    fn row(self) -> Row {
        use Bar::{AtLeast, AtMost};
        match self {
            Clause::WriteEngineL3 => (1, "4 KiB write, depth 1, latency / L3, engine path", "x", AtMost(1.15), SPEED),
            Clause::WriteEngineL1 => (1, "4 KiB write, depth 1, latency / L1, engine path", "x", AtMost(1.75), SPEED),
            Clause::WriteNbdL3 => (1, "4 KiB write, depth 1, latency / L3, through NBD", "x", AtMost(1.5), SPEED),
            Clause::SustainedL1 => (2, "4 KiB write, depth 32, sustained, IOPS / L1", "x", AtLeast(0.55), SPEED),
            Clause::SustainedL3 => (2, "4 KiB write, depth 32, sustained, IOPS / L3", "x", AtLeast(1.6), SPEED),
            Clause::BurstL1 => (2, "4 KiB write, depth 32, burst, IOPS / L1", "x", AtLeast(0.9), SPEED),
            Clause::Read1 => (3, "4 KiB read, depth 1, IOPS / L1", "x", AtLeast(0.95), SPEED),
            Clause::Read32 => (3, "4 KiB read, depth 32, IOPS / L1", "x", AtLeast(0.85), SPEED),
            Clause::Read1P99 => (3, "4 KiB read, depth 1, p99 / L1", "x", AtMost(1.15), SPEED),
            Clause::Read32P99 => (3, "4 KiB read, depth 32, p99 / L1", "x", AtMost(1.15), SPEED),
            Clause::BytesLarge => (4, "device bytes / (3 x user), 1 MiB sequential write", "x", AtMost(1.03), SPEED),
            Clause::BytesDatabase => (4, "device bytes / (3 x user), sysbench", "x", AtMost(1.4), DATABASES),
            Clause::BytesSmall => (4, "device bytes / (3 x user), uniform 4 KiB write", "x", AtMost(2.1), SPEED),
            Clause::SequentialL3 => (4, "1 MiB sequential write, MiB/s / L3", "x", AtLeast(0.95), SPEED),
            Clause::CpuWrite => (5, "CPU of all processes, 4 KiB write, depth 32", "us", AtMost(30.0), SPEED),
            Clause::CpuCeph => (5, "CPU, 4 KiB write, depth 32, / Ceph RBD", "x", AtMost(1.0 / 12.0), CEPH),
            Clause::Idle => (5, "idle cluster, CPU", "% of a core", AtMost(1.0), SPEED),
            Clause::MariaRead => (6, "sysbench read_only, worst cell / L1", "x", AtLeast(0.97), DATABASES),
            Clause::MariaMixed => (6, "sysbench read_write, 32 threads / L1", "x", AtLeast(0.9), DATABASES),
            Clause::MariaWrite => (6, "sysbench write_only, 32 threads / L1", "x", AtLeast(0.7), DATABASES),
            Clause::Pgbench => (6, "pgbench -c16 / L1", "x", AtLeast(0.8), DATABASES),
            Clause::MariaCeph => {
                (6, "sysbench write_only, 32 threads / Ceph RBD", "x", AtLeast(3.0), "PART=databases PEERS=ceph")
            }
            Clause::Gap => (7, "longest I/O gap, SIGKILL of a chunkserver", "ms", AtMost(250.0), SPEED),
            Clause::GapCeph => (7, "longest I/O gap / Ceph RBD's", "x", AtMost(0.1), CEPH),
            Clause::Replay => (7, "replay of a full journal / raw sequential read", "x", AtLeast(0.5), GROWTH),
            Clause::Chunks => (8, "latency at 1,000,000 chunks / at 1,000", "x", AtMost(1.1), GROWTH),
            Clause::Volumes => (8, "64 volumes together / one", "x", AtLeast(0.9), GROWTH),
            Clause::Memory => (8, "memory per TiB stored", "GiB", AtMost(1.3), GROWTH),
        }
    }

    pub(crate) fn bar_number(self) -> u8 {
        self.row().0
    }

    pub(crate) fn text(self) -> &'static str {
        self.row().1
    }

    pub(crate) fn unit(self) -> &'static str {
        self.row().2
    }

    pub(crate) fn bar(self) -> Bar {
        self.row().3
    }

    /// What has to run, or what is missing, for it to be judged.
    pub(crate) fn needs(self) -> &'static str {
        self.row().4
    }
}

/// What the issue calls each bar.
pub(crate) fn bar_title(number: u8) -> &'static str {
    match number {
        1 => "Durable 4 KiB write",
        2 => "Depth 32, burst and sustained",
        3 => "Local reads",
        4 => "Bytes on the device",
        5 => "Processor time",
        6 => "Databases",
        7 => "A chunkserver killed",
        8 => "Growth",
        _ => unreachable!("there are eight bars"),
    }
}
