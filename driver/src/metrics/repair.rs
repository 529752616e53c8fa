//! Figures of repair. Gauges are of the planner's last look; counters count what was carried out.

use crate::control::repair::figures::{Figures, Protection};
use ashlar_types::Class;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Default)]
pub(super) struct RepairMetrics {
    volumes: Family<ProtectionLabels, Gauge>,
    stuck: Family<ClassLabel, Gauge>,
    bytes_left: Family<ClassLabel, Gauge>,
    protected_in: Family<VolumeLabel, Gauge>,
    copied: Family<NodeLabel, Gauge>,
    draining: Family<WhatLabel, Gauge>,
    steps: Family<KindLabel, Counter>,
    replicas: Family<ChangeLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtectionLabels {
    protection: &'static str,
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VolumeLabel {
    volume: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatLabel {
    what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabel {
    change: &'static str,
}

/// What became of a replica by its writer's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaChange {
    Ejected,
    /// It was out and has copied what changed.
    Returned,
    /// It had nothing and has copied all.
    Rebuilt,
}

impl RepairMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Volumes by how many of their replicas are in-sync on disks that answer, and by class";
        registry.register("volumes_by_protection", help, self.volumes.clone());
        let help = "Volumes for which something should be done that cannot, by class";
        registry.register("volumes_stuck", help, self.stuck.clone());
        let help = "Bytes still to be copied for volumes that lack replicas, by class";
        registry.register("repair_left_bytes", help, self.bytes_left.clone());
        let help = "Seconds until a volume has all its replicas again: the first 64 in order, where it is known";
        registry.register("protected_again_seconds", help, self.protected_in.clone());
        let help = "Bytes per second that are copied to disks of the node, measured";
        registry.register("copied_bytes_per_second", help, self.copied.clone());
        let help = "Nodes and disks that are being drained and still hold something, and the replicas there";
        registry.register("draining", help, self.draining.clone());
        registry.register("repair_steps", "Steps of repair that were carried out, by kind", self.steps.clone());
        let help = "Replicas by what became of them: ejected, returned, rebuilt";
        registry.register("replica_changes", help, self.replicas.clone());
    }

    pub(super) fn count_step(&self, kind: &'static str) {
        self.steps.get_or_create(&KindLabel { kind }).inc();
    }

    pub(super) fn count_change(&self, change: ReplicaChange) {
        let change = match change {
            ReplicaChange::Ejected => "ejected",
            ReplicaChange::Returned => "returned",
            ReplicaChange::Rebuilt => "rebuilt",
        };
        self.replicas.get_or_create(&ChangeLabel { change }).inc();
    }

    pub(super) fn set(&self, figures: &Figures) {
        for class in Class::ALL {
            let of_class = ClassLabel { class: class.name() };
            for protection in Protection::ALL {
                let labels = ProtectionLabels { protection: protection.name(), class: class.name() };
                let volumes = figures.volumes.get(&(protection, class)).copied();
                self.volumes.get_or_create(&labels).set(signed(volumes.unwrap_or(0)));
            }
            self.stuck.get_or_create(&of_class).set(signed(figures.stuck.get(&class).copied().unwrap_or(0)));
            self.bytes_left.get_or_create(&of_class).set(signed(figures.bytes_left.get(&class).copied().unwrap_or(0)));
        }
        // Who is whole again, and nodes that nothing is copied to, are not told of any more.
        self.protected_in.clear();
        for (volume, seconds) in &figures.protected_in_s {
            self.protected_in.get_or_create(&VolumeLabel { volume: volume.to_string() }).set(signed(*seconds));
        }
        self.copied.clear();
        for (node, rate) in &figures.copied_per_s {
            self.copied.get_or_create(&NodeLabel { node: node.to_string() }).set(signed(*rate));
        }
        let draining = [
            ("nodes", figures.nodes_draining),
            ("disks", figures.disks_draining),
            ("replicas", figures.replicas_to_drain),
        ];
        for (what, count) in draining {
            self.draining.get_or_create(&WhatLabel { what }).set(signed(count));
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
