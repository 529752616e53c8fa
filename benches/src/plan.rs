//! How much each part does: in full, and in a few minutes.

use crate::databases::DatabasesPlan;
use crate::growth::GrowthPlan;
use crate::rebuild::RebuildPlan;
use crate::snapshots::SnapshotPlan;
use crate::speed::SpeedPlan;
use std::time::Duration;

pub(crate) struct Plan {
    pub(crate) speed: SpeedPlan,
    pub(crate) databases: DatabasesPlan,
    pub(crate) growth: GrowthPlan,
    pub(crate) snapshots: SnapshotPlan,
    pub(crate) rebuild: RebuildPlan,
}

impl Plan {
    pub(crate) fn of(quick: bool) -> Plan {
        if quick { Plan::quick() } else { Plan::full() }
    }

    fn quick() -> Plan {
        let seconds = Duration::from_secs;
        Plan {
            speed: SpeedPlan {
                rounds: 3,
                cell: seconds(1),
                burst: seconds(2),
                sustained: seconds(15),
                sentinel: Duration::from_millis(200),
                span_bytes: 512 << 20,
                disk_size: "1536M",
                idle: seconds(10),
                only: None,
            },
            databases: DatabasesPlan {
                rounds: 2,
                cell: seconds(5),
                volume_bytes: 1 << 30,
                disk_size: "2G",
                rows_per_table: 50_000,
                pgbench_scale: 4,
                all: false,
            },
            growth: GrowthPlan {
                rounds: 2,
                cell: seconds(1),
                disk_size: "3G",
                chunkservers: &[3, 12],
                snapshots: &[0, 1, 8, 64],
                journals: &[64, 1024],
                stored_mib: [256, 2048],
            },
            snapshots: SnapshotPlan {
                disk_size: "2G",
                snapshots: 21,
                turns: 21,
                groups: 7,
                exported_slots: 4096,
                exports: 3,
            },
            rebuild: RebuildPlan {
                disk_size: "2G",
                volume_bytes: 1 << 30,
                rounds: 1,
                quiet: seconds(10),
                changed_slots: 256,
                mixed_mib: 128,
            },
        }
    }

    fn full() -> Plan {
        let seconds = Duration::from_secs;
        Plan {
            speed: SpeedPlan {
                rounds: 7,
                cell: seconds(4),
                burst: seconds(10),
                sustained: seconds(300),
                sentinel: seconds(1),
                span_bytes: 2 << 30,
                disk_size: "4G",
                idle: seconds(30),
                only: None,
            },
            databases: DatabasesPlan {
                rounds: 3,
                cell: seconds(30),
                volume_bytes: 3 << 30,
                disk_size: "5G",
                rows_per_table: 600_000,
                pgbench_scale: 40,
                all: true,
            },
            growth: GrowthPlan {
                rounds: 5,
                cell: seconds(4),
                disk_size: "4G",
                chunkservers: &[3, 6, 9, 12],
                snapshots: &[0, 1, 8, 64],
                journals: &[64, 256, 1024],
                stored_mib: [256, 3072],
            },
            snapshots: SnapshotPlan {
                disk_size: "4G",
                snapshots: 61,
                turns: 61,
                groups: 21,
                exported_slots: 16384,
                exports: 5,
            },
            rebuild: RebuildPlan {
                disk_size: "5G",
                volume_bytes: 3 << 30,
                rounds: 3,
                quiet: seconds(20),
                changed_slots: 2048,
                mixed_mib: 192,
            },
        }
    }
}
