//! Figures of the limits of volumes: what they are, what went under them, and who waited how long.

use super::VolumeLabel;
use crate::limits::Limits;
use ashlar_types::{ByteCount, Duration};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Resource {
    Operations,
    Bytes,
}

impl EncodeLabelValue for Resource {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let name = match self {
            Resource::Operations => "operations",
            Resource::Bytes => "bytes",
        };
        name.encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabel {
    volume: String,
    resource: Resource,
}

#[derive(Clone)]
pub(super) struct LimitFamilies {
    per_second: Family<ResourceLabel, Gauge>,
    burst: Family<ResourceLabel, Gauge>,
    admitted: Family<ResourceLabel, Counter>,
    held: Family<VolumeLabel, Gauge>,
    held_time: Family<VolumeLabel, Histogram, fn() -> Histogram>,
}

/// Figures of one volume; gone from the output when this is dropped.
pub(crate) struct LimitMetrics {
    all: LimitFamilies,
    volume: String,
    operations: ResourceMetrics,
    bytes: ResourceMetrics,
    held: Gauge,
    held_time: Histogram,
}

struct ResourceMetrics {
    per_second: Gauge,
    burst: Gauge,
    admitted: Counter,
}

impl LimitFamilies {
    pub(super) fn new() -> LimitFamilies {
        LimitFamilies {
            per_second: Family::default(),
            burst: Family::default(),
            admitted: Family::default(),
            held: Family::default(),
            // 100 µs to 100 s.
            held_time: Family::new_with_constructor(|| Histogram::new(exponential_buckets(100e-6, 2.0, 21))),
        }
    }

    pub(super) fn register(&self, all: &mut Registry) {
        let text = "Limit of a volume's guest requests per second by resource; 0: none";
        all.register("limit_per_second", text, self.per_second.clone());
        let text = "What a volume's guest requests may take at once after a pause, by resource; 0: no limit";
        all.register("limit_burst", text, self.burst.clone());
        let text = "What guest requests took under a limit, by resource";
        all.register("limit_admitted", text, self.admitted.clone());
        all.register("limit_held_operations", "Guest requests that wait for a limit", self.held.clone());
        let text = "Time that guest requests which had to wait for a limit were held back";
        all.register_with_unit("limit_held", text, Unit::Seconds, self.held_time.clone());
    }

    pub(super) fn for_volume(&self, volume: &str) -> LimitMetrics {
        let resource = |resource| {
            let label = ResourceLabel { volume: volume.to_owned(), resource };
            ResourceMetrics {
                per_second: self.per_second.get_or_create_owned(&label),
                burst: self.burst.get_or_create_owned(&label),
                admitted: self.admitted.get_or_create_owned(&label),
            }
        };
        let label = VolumeLabel { volume: volume.to_owned() };
        LimitMetrics {
            operations: resource(Resource::Operations),
            bytes: resource(Resource::Bytes),
            held: self.held.get_or_create_owned(&label),
            held_time: self.held_time.get_or_create_owned(&label),
            volume: label.volume,
            all: self.clone(),
        }
    }
}

impl LimitMetrics {
    pub(crate) fn set(&self, limits: Limits) {
        for (metrics, limit) in [(&self.operations, limits.operations), (&self.bytes, limits.bytes)] {
            let figure = |figure: u64| i64::try_from(figure).unwrap_or(i64::MAX);
            metrics.per_second.set(limit.map_or(0, |limit| figure(limit.per_second.get())));
            metrics.burst.set(limit.map_or(0, |limit| figure(limit.burst.get())));
        }
    }

    pub(crate) fn admitted(&self, bytes: ByteCount) {
        self.operations.admitted.inc();
        self.bytes.admitted.inc_by(bytes.0);
    }

    pub(crate) fn set_held(&self, waiting: usize) {
        self.held.set(waiting as i64);
    }

    /// A request has waited.
    pub(crate) fn waited(&self, time: Duration) {
        self.held_time.observe(time.as_secs_f64());
    }
}

impl Drop for LimitMetrics {
    fn drop(&mut self) {
        for resource in [Resource::Operations, Resource::Bytes] {
            let label = ResourceLabel { volume: self.volume.clone(), resource };
            self.all.per_second.remove(&label);
            self.all.burst.remove(&label);
            self.all.admitted.remove(&label);
        }
        let label = VolumeLabel { volume: self.volume.clone() };
        self.all.held.remove(&label);
        self.all.held_time.remove(&label);
    }
}
