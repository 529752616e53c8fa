//! Prometheus metrics of the driver, and the page that shows them. Gauges are read from the control plane when the
//! page is asked for, so an idle driver does nothing.

mod page;
mod repair;

use crate::control::health::Health;
use crate::control::registry::DiskHealth;
use crate::control::repair::figures::Figures;
use ashlar_plan::placement::loss::Loss;
use ashlar_types::ChangeAnswer;
pub use page::Page;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;
pub(crate) use repair::ReplicaChange;
use std::sync::{Arc, Mutex, PoisonError};
use tonic::Code;

#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    csi_requests: Family<CsiLabels, Counter>,
    proposals: Family<ResultLabel, Counter>,
    volumes: Gauge,
    volumes_degraded: Gauge,
    volumes_unavailable: Gauge,
    nodes: Gauge,
    nodes_alive: Gauge,
    disks: Family<StateLabel, Gauge>,
    loss: Family<PlacementLabel, Gauge>,
    repair: repair::RepairMetrics,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CsiLabels {
    method: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlacementLabel {
    placement: &'static str,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("ashlar_driver");
        let metrics = Metrics {
            registry: Arc::default(),
            csi_requests: Family::default(),
            proposals: Family::default(),
            volumes: Gauge::default(),
            volumes_degraded: Gauge::default(),
            volumes_unavailable: Gauge::default(),
            nodes: Gauge::default(),
            nodes_alive: Gauge::default(),
            disks: Family::default(),
            loss: Family::default(),
            repair: repair::RepairMetrics::default(),
        };
        registry.register(
            "csi_requests",
            "CSI requests answered, by method and gRPC code",
            metrics.csi_requests.clone(),
        );
        registry.register("proposals", "Membership changes proposed by writers, by result", metrics.proposals.clone());
        registry.register("volumes", "Volumes", metrics.volumes.clone());
        let help = "Volumes with fewer live in-sync replicas than they should have, but at least minReplicas";
        registry.register("volumes_degraded", help, metrics.volumes_degraded.clone());
        let help = "Volumes with fewer live in-sync replicas than minReplicas: their writes wait";
        registry.register("volumes_unavailable", help, metrics.volumes_unavailable.clone());
        registry.register("nodes", "Nodes that ever reported", metrics.nodes.clone());
        registry.register("nodes_alive", "Nodes all of whose daemons report", metrics.nodes_alive.clone());
        registry.register("disks", "Disks by state", metrics.disks.clone());
        let help = "Of all combinations of three disks, in parts per billion, those whose loss loses something";
        registry.register("three_failures_losing_ppb", help, metrics.loss.clone());
        metrics.repair.register(&mut registry);
        Metrics { registry: Arc::new(Mutex::new(registry)), ..metrics }
    }
}

impl Metrics {
    /// Counts an answered CSI request.
    pub fn count_csi(&self, method: &'static str, code: Code) {
        self.csi_requests.get_or_create(&CsiLabels { method, code: format!("{code:?}") }).inc();
    }

    pub(crate) fn count_proposal(&self, answer: &ChangeAnswer) {
        let result = match answer {
            ChangeAnswer::Applied { .. } => "applied",
            ChangeAnswer::Refused { .. } => "refused",
            ChangeAnswer::Fenced { .. } => "fenced",
        };
        self.proposals.get_or_create(&ResultLabel { result }).inc();
    }

    /// A step of repair was carried out.
    pub(crate) fn count_step(&self, kind: &'static str) {
        self.repair.count_step(kind);
    }

    pub(crate) fn count_replica(&self, change: ReplicaChange) {
        self.repair.count_change(change);
    }

    pub(crate) fn set_repair(&self, figures: &Figures) {
        self.repair.set(figures);
    }

    pub(crate) fn set_health(&self, health: &Health) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.volumes.set(count(health.volumes));
        self.volumes_degraded.set(count(health.volumes_degraded));
        self.volumes_unavailable.set(count(health.volumes_unavailable));
        self.nodes.set(count(health.nodes));
        self.nodes_alive.set(count(health.nodes_alive));
        let states = [
            (DiskHealth::Online, "online"),
            (DiskHealth::Silent, "silent"),
            (DiskHealth::Failed, "failed"),
            (DiskHealth::Lost, "lost"),
        ];
        for (health_state, state) in states {
            let disks = health.disks.get(&health_state).copied().unwrap_or(0);
            self.disks.get_or_create(&StateLabel { state }).set(count(disks));
        }
        let losses = health.three_failures();
        let placements = [
            ("actual", losses.losing),
            ("random volumes", losses.losing_random_volumes),
            ("random chunks", losses.losing_random_chunks),
        ];
        for (placement, losing) in placements {
            let loss = Loss { losing, of: losses.combinations }.per_billion();
            self.loss.get_or_create(&PlacementLabel { placement }).set(i64::try_from(loss).unwrap_or(i64::MAX));
        }
    }

    /// The page in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut page = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        text::encode(&mut page, &registry).expect("writing to a string does not fail");
        page
    }
}
