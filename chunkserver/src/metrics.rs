//! Prometheus metrics at `/metrics`. A scrape takes a snapshot of the host and puts it into words; nothing is
//! counted here.

mod server;

use crate::serve::{DiskSnapshot, HostSnapshot, LinkCounts};
use crate::smart::{Health, Report};
use ashlar_engine::EngineStatus;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub(crate) use server::serve;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfDisk {
    disk: String,
}

struct DiskMetric {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: fn(&DiskSnapshot) -> u64,
}

/// Of a figure that only a disk in service has.
fn of_status(disk: &DiskSnapshot, value: fn(&EngineStatus) -> u64) -> u64 {
    disk.status.as_ref().map_or(0, value)
}

macro_rules! counter {
    ($name:literal, $help:literal, $field:ident) => {
        counter!($name, $help, None, |disk| of_status(disk, |status| status.counters.$field))
    };
    ($name:literal, $help:literal, bytes $field:ident) => {
        counter!($name, $help, Some(Unit::Bytes), |disk| of_status(disk, |status| status.counters.$field))
    };
    ($name:literal, $help:literal, $unit:expr, $value:expr) => {
        DiskMetric { name: $name, help: $help, unit: $unit, value: $value }
    };
}

const COUNTERS: &[DiskMetric] = &[
    counter!("reads", "Read requests", None, |disk| disk.traffic.reads),
    counter!("writes", "Write requests", None, |disk| disk.traffic.writes),
    counter!("discards", "Discard requests", None, |disk| disk.traffic.discards),
    counter!("other_requests", "Requests other than read, write and discard", None, |disk| disk.traffic.others),
    counter!("read_requested", "Bytes asked for by reads", Some(Unit::Bytes), |disk| disk.traffic.read_bytes),
    counter!("written", "Bytes brought by writes", Some(Unit::Bytes), |disk| disk.traffic.written_bytes),
    counter!("index_commits", "Commits of the index", None, |disk| disk.traffic.index_commits),
    counter!("refused_requests", "Requests that were refused", refused),
    counter!("journal_batches", "Journal batches written", batches),
    counter!("journal_records", "Journal records written; by batches: records per batch", records),
    counter!("journal_written", "Bytes written to the journal", bytes journal_bytes),
    counter!("direct_written", "Bytes of whole slots written beside the journal", bytes direct_bytes),
    counter!("applied", "Bytes written in place from the journal", bytes apply_bytes),
    counter!("apply_writes", "Writes in place", apply_writes),
    counter!("checkpoints", "Checkpoints", checkpoints),
    counter!("disk_read", "Bytes read for requests", bytes read_bytes),
    counter!("crc_errors", "Blocks whose content and checksum differed, or that could not be read", bad_blocks),
    counter!("repaired_blocks", "Blocks repaired from another replica", repaired_blocks),
    counter!("filled_blocks", "Blocks copied from another replica", filled_blocks),
    counter!("duplicate_writes", "Writes that were there already", duplicates),
    counter!("replayed_records", "Journal records replayed at the start", replayed_records),
    counter!("scrubbed", "Bytes read by scrub", bytes scrubbed_bytes),
    counter!("scrub_retries", "Blocks that scrub read a second time", scrub_retries),
    counter!("scrub_rounds", "Rounds of scrub that ended since the disk was formatted", None, |disk| {
        of_status(disk, |status| status.scrub.rounds)
    }),
    counter!("found_bad_blocks", "Blocks found bad, by scrub or reads, since the disk was formatted", None, |disk| {
        of_status(disk, |status| status.scrub.found_blocks)
    }),
    counter!("mended_blocks", "Blocks repaired since the disk was formatted", None, |disk| {
        of_status(disk, |status| status.scrub.repaired_blocks)
    }),
    counter!("lost_blocks", "Blocks whose content was found lost", lost_blocks),
];

const GAUGES: &[DiskMetric] = &[
    counter!("disk_capacity", "Room for replicas", Some(Unit::Bytes), |disk| disk.capacity.0),
    counter!("disk_free", "Room that no replica takes", Some(Unit::Bytes), |disk| disk.free.0),
    counter!("disk_failed", "1: the disk's life as a replica has ended", None, |disk| u64::from(
        disk.failure.is_some()
    )),
    counter!("disk_serving", "1: the disk has recovered and serves", None, |disk| {
        of_status(disk, |status| u64::from(status.serving))
    }),
    counter!("replay_milliseconds", "From opening the disk until it served; 0 before that", None, |disk| {
        of_status(disk, |status| u64::try_from(status.replay_took.as_millis()).unwrap_or(u64::MAX))
    }),
    counter!("journal_size", "Size of the journal", Some(Unit::Bytes), |disk| {
        of_status(disk, |status| status.journal_bytes.0)
    }),
    counter!("journal_used", "Part of the journal that a replay would read", Some(Unit::Bytes), |disk| {
        of_status(disk, |status| status.journal_used_bytes.0)
    }),
    counter!("overlay", "Writes in memory that are not yet in place", Some(Unit::Bytes), |disk| {
        of_status(disk, |status| status.overlay_bytes.0)
    }),
    counter!("replicas", "Replicas on the disk", None, |disk| {
        of_status(disk, |status| status.replicas.iter().filter(|replica| !replica.deleted).count() as u64)
    }),
    counter!("bad_blocks", "Blocks that are known to be bad", None, |disk| {
        of_status(disk, |status| status.scrub.bad_blocks)
    }),
    counter!("scrub_round_slots", "Slots that the present round of scrub has verified", None, |disk| {
        of_status(disk, |status| status.scrub.slots)
    }),
    counter!("scrub_round_age", "Time in service since the round began", Some(Unit::Seconds), |disk| {
        of_status(disk, |status| status.scrub.elapsed.as_secs())
    }),
    counter!("stale_slots", "Slots that await a copy", None, |disk| {
        of_status(disk, |status| status.replicas.iter().map(|replica| replica.stale_slots).sum())
    }),
];

/// The snapshot in Prometheus's text format (OpenMetrics).
fn encode(snapshot: &HostSnapshot, smart: &BTreeMap<PathBuf, Report>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("ashlar_chunkserver");
    for metric in COUNTERS {
        let family = Family::<OfDisk, Counter>::default();
        for disk in &snapshot.disks {
            family.get_or_create(&labels(disk)).inc_by((metric.value)(disk));
        }
        register(&mut registry, metric.name, metric.help, metric.unit.clone(), family);
    }
    for metric in GAUGES {
        let family = Family::<OfDisk, Gauge>::default();
        for disk in &snapshot.disks {
            family.get_or_create(&labels(disk)).set(i64::try_from((metric.value)(disk)).unwrap_or(i64::MAX));
        }
        register(&mut registry, metric.name, metric.help, metric.unit.clone(), family);
    }
    register_smart(&mut registry, snapshot, smart);
    register_links(&mut registry, &snapshot.links);
    let failed = Gauge::<i64>::default();
    failed.set(snapshot.disks.iter().filter(|disk| disk.failure.is_some()).count() as i64);
    registry.register("failed_disks", "Disks that failed or could not be opened", failed);
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

type OfHealth = fn(&Health) -> Option<i64>;

const HEALTH: &[(&str, &str, OfHealth)] = &[
    ("smart_failing", "1: the device says that it is about to fail", |health| Some(i64::from(health.is_failing))),
    ("smart_temperature_celsius", "Temperature of the device", |health| health.temperature_celsius.map(i64::from)),
    ("smart_wear_percent", "Used of the endurance that the device was made for", |health| {
        health.wear_percent.map(i64::from)
    }),
    ("smart_media_errors", "Data that the device could not give back", |health| count(health.media_errors)),
    ("smart_reallocated_sectors", "Sectors that the device has replaced", |health| count(health.reallocated_sectors)),
    ("smart_pending_sectors", "Sectors that the device could not read", |health| count(health.pending_sectors)),
    ("smart_power_on_hours", "Hours that the device was on", |health| count(health.power_on_hours)),
];

fn count(number: Option<u64>) -> Option<i64> {
    number.map(|number| i64::try_from(number).unwrap_or(i64::MAX))
}

/// What a device does not tell has no series.
fn register_smart(registry: &mut Registry, snapshot: &HostSnapshot, smart: &BTreeMap<PathBuf, Report>) {
    for (name, help, value) in HEALTH {
        let family = Family::<OfDisk, Gauge>::default();
        for disk in &snapshot.disks {
            let health = smart.get(&disk.path).and_then(|report| report.health.as_ref().ok());
            if let Some(value) = health.and_then(value) {
                family.get_or_create(&labels(disk)).set(value);
            }
        }
        register(registry, name, help, None, family);
    }
}

fn register_links(registry: &mut Registry, links: &LinkCounts) {
    let open = Gauge::<i64>::default();
    open.set(links.open as i64);
    registry.register("links", "Open links", open);
    for (name, help, value) in [
        ("links_accepted", "Links that were accepted", links.accepted),
        ("protocol_errors", "Links that were closed because their peer broke the protocol", links.protocol_errors),
        ("silent_links", "Links that were closed because no first frame came", links.silent),
        ("wrong_disk_sessions", "Sessions that were refused because their disk is not here", links.wrong_disk),
    ] {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
}

fn register(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    metric: impl prometheus_client::registry::Metric,
) {
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric),
        None => registry.register(name, help, metric),
    }
}

fn labels(disk: &DiskSnapshot) -> OfDisk {
    OfDisk { disk: disk.id.map_or_else(|| disk.path.display().to_string(), |id| id.to_string()) }
}

#[cfg(test)]
mod tests;
