//! Figures in the Prometheus text format: what is counted, and the little HTTP server that shows it.
//!
//! The I/O thread only touches atomics here, and a histogram's lock that nobody holds but a scrape that copies it.

mod limits;

use ashlar_types::{Duration, VolumeId};
use ashlar_volume::ComparisonStatus;
use limits::LimitFamilies;
pub(crate) use limits::LimitMetrics;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Scrapes at a time; further ones wait in the listener's backlog.
const SCRAPES_MAX: usize = 8;
const REQUEST_BYTES_MAX: usize = 8 << 10;
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// Kind of a guest's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Read,
    Write,
    Discard,
    Flush,
}

/// State of a member, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    InSync,
    Syncing,
    Out,
}

impl EncodeLabelValue for Operation {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let name = match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Discard => "discard",
            Operation::Flush => "flush",
        };
        name.encode(encoder)
    }
}

impl EncodeLabelValue for State {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let name = match self {
            State::InSync => "in-sync",
            State::Syncing => "syncing",
            State::Out => "out",
        };
        name.encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VolumeLabel {
    volume: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    volume: String,
    operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    volume: String,
    state: State,
}

type Seconds = Gauge<f64, AtomicU64>;
type Latency = Family<OperationLabel, Histogram, fn() -> Histogram>;

/// Every figure of the process.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    operations: Family<OperationLabel, Counter>,
    errors: Family<OperationLabel, Counter>,
    bytes: Family<OperationLabel, Counter>,
    latency: Latency,
    in_flight: Family<VolumeLabel, Gauge>,
    members: Family<StateLabel, Gauge>,
    ejections: Family<VolumeLabel, Counter>,
    repaired: Family<VolumeLabel, Counter>,
    resynced: Family<VolumeLabel, Counter>,
    differing: Family<VolumeLabel, Gauge>,
    compared: Family<VolumeLabel, Gauge>,
    gap: Family<VolumeLabel, Seconds>,
    commit: Family<VolumeLabel, Gauge>,
    limits: LimitFamilies,
}

/// Figures of one kind of request of one volume.
pub(crate) struct OperationMetrics {
    pub(crate) operations: Counter,
    pub(crate) errors: Counter,
    pub(crate) bytes: Counter,
    pub(crate) latency: Histogram,
}

/// Figures of one volume; gone from the output when this is dropped.
pub(crate) struct VolumeMetrics {
    all: Metrics,
    volume: String,
    pub(crate) read: OperationMetrics,
    pub(crate) write: OperationMetrics,
    pub(crate) discard: OperationMetrics,
    pub(crate) flush: OperationMetrics,
    pub(crate) in_flight: Gauge,
    pub(crate) ejections: Counter,
    pub(crate) repaired: Counter,
    pub(crate) resynced: Counter,
    differing: Gauge,
    compared: Gauge,
    pub(crate) gap_seconds: Seconds,
    pub(crate) commit: Gauge,
    pub(crate) limits: LimitMetrics,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Arc::new(Registry::default()),
            operations: Family::default(),
            errors: Family::default(),
            bytes: Family::default(),
            // 10 µs to 10 s.
            latency: Family::new_with_constructor(|| Histogram::new(exponential_buckets(10e-6, 2.0, 21))),
            in_flight: Family::default(),
            members: Family::default(),
            ejections: Family::default(),
            repaired: Family::default(),
            resynced: Family::default(),
            differing: Family::default(),
            compared: Family::default(),
            gap: Family::default(),
            commit: Family::default(),
            limits: LimitFamilies::new(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }

    fn register(&self) -> Registry {
        let mut all = Registry::with_prefix("ashlar_datapath");
        all.register("operations", "Guest requests answered", self.operations.clone());
        all.register("errors", "Guest requests answered with an error", self.errors.clone());
        all.register_with_unit("guest", "Bytes read and written by guests", Unit::Bytes, self.bytes.clone());
        let latency = "From a guest's request to its answer";
        all.register_with_unit("latency", latency, Unit::Seconds, self.latency.clone());
        all.register("inflight_operations", "Guest requests under way", self.in_flight.clone());
        all.register("members", "Members of the volume by state", self.members.clone());
        all.register("ejections", "Members ejected", self.ejections.clone());
        all.register("repaired_blocks", "Blocks repaired from another replica", self.repaired.clone());
        all.register("resynced_blocks", "Blocks copied to members that returned", self.resynced.clone());
        let differing = "Slots in which in-sync replicas hold different content";
        all.register("differing_slots", differing, self.differing.clone());
        let compared = "Rounds in which all replicas were compared, since the volume was attached";
        all.register("comparison_rounds", compared, self.compared.clone());
        let gap = "Longest time in which no write was completed though one was waiting";
        all.register_with_unit("longest_gap", gap, Unit::Seconds, self.gap.clone());
        all.register("commit_lsn", "Commit point: epoch in the upper 24 bits, a counter below", self.commit.clone());
        self.limits.register(&mut all);
        all
    }

    pub(crate) fn for_volume(&self, volume: VolumeId) -> VolumeMetrics {
        let label = VolumeLabel { volume: volume.to_string() };
        let operation = |operation| {
            let label = OperationLabel { volume: label.volume.clone(), operation };
            OperationMetrics {
                operations: self.operations.get_or_create_owned(&label),
                errors: self.errors.get_or_create_owned(&label),
                bytes: self.bytes.get_or_create_owned(&label),
                latency: self.latency.get_or_create_owned(&label),
            }
        };
        VolumeMetrics {
            read: operation(Operation::Read),
            write: operation(Operation::Write),
            discard: operation(Operation::Discard),
            flush: operation(Operation::Flush),
            in_flight: self.in_flight.get_or_create_owned(&label),
            ejections: self.ejections.get_or_create_owned(&label),
            repaired: self.repaired.get_or_create_owned(&label),
            resynced: self.resynced.get_or_create_owned(&label),
            differing: self.differing.get_or_create_owned(&label),
            compared: self.compared.get_or_create_owned(&label),
            gap_seconds: self.gap.get_or_create_owned(&label),
            commit: self.commit.get_or_create_owned(&label),
            limits: self.limits.for_volume(&label.volume),
            volume: label.volume,
            all: self.clone(),
        }
    }

    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Serves GET /metrics until the listener fails.
    pub(crate) async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let slots = Arc::new(Semaphore::new(SCRAPES_MAX));
        loop {
            let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            let (stream, peer) = listener.accept().await?;
            let metrics = self.clone();
            tokio::spawn(async move {
                match tokio::time::timeout(SCRAPE_TIMEOUT, metrics.answer(stream)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "answer a scrape"),
                    Err(_) => tracing::debug!(%peer, "a scrape took too long"),
                }
                drop(slot);
            });
        }
    }

    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece).await?;
            if count == 0 || request.len() + count > REQUEST_BYTES_MAX {
                return Ok(());
            }
            request.extend_from_slice(&piece[..count]);
        }
        let (status, body) = match request.starts_with(b"GET /metrics ") {
            true => ("200 OK", self.text().map_err(std::io::Error::other)?),
            false => ("404 Not Found", "see /metrics\n".to_owned()),
        };
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    }
}

impl VolumeMetrics {
    pub(crate) fn operation(&self, operation: Operation) -> &OperationMetrics {
        match operation {
            Operation::Read => &self.read,
            Operation::Write => &self.write,
            Operation::Discard => &self.discard,
            Operation::Flush => &self.flush,
        }
    }

    pub(crate) fn set_comparison(&self, comparison: ComparisonStatus) {
        self.differing.set(comparison.differing_slots as i64);
        self.compared.set(comparison.rounds as i64);
    }

    pub(crate) fn set_members(&self, state: State, count: usize) {
        let label = StateLabel { volume: self.volume.clone(), state };
        self.all.members.get_or_create(&label).set(count as i64);
    }
}

impl Drop for VolumeMetrics {
    fn drop(&mut self) {
        let label = VolumeLabel { volume: self.volume.clone() };
        for operation in [Operation::Read, Operation::Write, Operation::Discard, Operation::Flush] {
            let label = OperationLabel { volume: self.volume.clone(), operation };
            self.all.operations.remove(&label);
            self.all.errors.remove(&label);
            self.all.bytes.remove(&label);
            self.all.latency.remove(&label);
        }
        for state in [State::InSync, State::Syncing, State::Out] {
            self.all.members.remove(&StateLabel { volume: self.volume.clone(), state });
        }
        self.all.in_flight.remove(&label);
        self.all.ejections.remove(&label);
        self.all.repaired.remove(&label);
        self.all.resynced.remove(&label);
        self.all.differing.remove(&label);
        self.all.compared.remove(&label);
        self.all.gap.remove(&label);
        self.all.commit.remove(&label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_types::ByteCount;

    #[test]
    fn a_volume_is_shown_while_it_is_attached() {
        let metrics = Metrics::new();
        let volume = metrics.for_volume(VolumeId::from_u128(7));
        volume.write.operations.inc();
        volume.write.latency.observe(0.001);
        volume.set_members(State::InSync, 3);
        volume.limits.admitted(ByteCount(4096));
        volume.limits.set_held(2);
        volume.limits.waited(Duration::from_millis(1500));
        let text = metrics.text().unwrap();
        let id = VolumeId::from_u128(7).to_string();
        for expected in [
            format!("ashlar_datapath_operations_total{{volume=\"{id}\",operation=\"write\"}} 1"),
            format!("ashlar_datapath_members{{volume=\"{id}\",state=\"in-sync\"}} 3"),
            format!("ashlar_datapath_latency_seconds_count{{volume=\"{id}\",operation=\"write\"}} 1"),
            format!("ashlar_datapath_limit_per_second{{volume=\"{id}\",resource=\"operations\"}} 0"),
            format!("ashlar_datapath_limit_admitted_total{{volume=\"{id}\",resource=\"bytes\"}} 4096"),
            format!("ashlar_datapath_limit_held_seconds_sum{{volume=\"{id}\"}} 1.5"),
            format!("ashlar_datapath_limit_held_operations{{volume=\"{id}\"}} 2"),
        ] {
            assert!(text.contains(&expected), "{expected} in {text}");
        }
        drop(volume);
        assert!(!metrics.text().unwrap().contains(&id));
    }
}
