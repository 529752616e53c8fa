//! What repair is at, in numbers: taken at each look, for the metrics page. A cluster in good health is looked at every
//! 30 s, so figures are at most that old; while anything is to be done they are of the last second.

use super::seen::Look;
use ashlar_plan::repair::{MemberSeen, Plan, Seen, VolumeSeen};
use ashlar_types::{Class, DiskId, NodeName, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// Volumes whose time of protection is told: the first ones in order.
pub(crate) const FORECASTS_MAX: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) volumes: BTreeMap<(Protection, Class), u64>,
    pub(crate) stuck: BTreeMap<Class, u64>,
    pub(crate) bytes_left: BTreeMap<Class, u64>,
    /// Seconds until a volume has all its replicas again; not those of which that is not known.
    pub(crate) protected_in_s: BTreeMap<VolumeId, u64>,
    /// Measured, by the node that is copied to.
    pub(crate) copied_per_s: BTreeMap<NodeName, u64>,
    /// That still hold something.
    pub(crate) nodes_draining: u64,
    pub(crate) disks_draining: u64,
    pub(crate) replicas_to_drain: u64,
}

/// How much of what it shall have a volume has, in-sync and on disks that answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protection {
    Whole,
    Degraded,
    OneLeft,
    None,
}

impl Protection {
    pub(crate) const ALL: [Protection; 4] =
        [Protection::Whole, Protection::Degraded, Protection::OneLeft, Protection::None];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Protection::Whole => "whole",
            Protection::Degraded => "degraded",
            Protection::OneLeft => "one left",
            Protection::None => "none",
        }
    }

    fn of(seen: &Seen, volume: &VolumeSeen) -> Protection {
        let counted = |member: &MemberSeen| member.state.is_in_sync() && seen.is_alive(member.disk);
        match volume.fewest(counted) {
            safe if safe >= volume.replicas => Protection::Whole,
            0 => Protection::None,
            1 => Protection::OneLeft,
            _ => Protection::Degraded,
        }
    }
}

impl Figures {
    pub(super) fn of(look: &Look, plan: &Plan) -> Figures {
        let (seen, mut figures) = (&look.seen, Figures::default());
        let class_of = |volume: &VolumeId| seen.volumes.get(volume).map(|volume| volume.class);
        for volume in seen.volumes.values() {
            *figures.volumes.entry((Protection::of(seen, volume), volume.class)).or_default() += 1;
            for member in volume.members.iter().filter_map(|member| Some((member, member.copy?.rate?))) {
                *figures.copied_per_s.entry(member.0.node.clone()).or_default() += member.1.0;
            }
        }
        for volume in plan.stuck.iter().map(|stuck| stuck.volume).collect::<BTreeSet<_>>() {
            class_of(&volume).into_iter().for_each(|class| *figures.stuck.entry(class).or_default() += 1);
        }
        for (volume, forecast) in &plan.forecasts {
            if let Some(class) = class_of(volume) {
                *figures.bytes_left.entry(class).or_default() += forecast.remaining.0;
            }
            if let Some(time) = forecast.protected_in.filter(|_| forecast.position < FORECASTS_MAX) {
                figures.protected_in_s.insert(*volume, time.as_secs());
            }
        }
        figures.count_drains(seen);
        figures
    }

    fn count_drains(&mut self, seen: &Seen) {
        let held = seen.volumes.values().flat_map(|volume| volume.held()).map(|(_, member)| member);
        let leaving: Vec<&MemberSeen> = held.filter(|member| seen.is_leaving(member.disk)).collect();
        let is_node = |node: &&NodeName| seen.nodes.get(*node).is_some_and(|known| known.is_draining);
        let nodes: BTreeSet<&NodeName> = leaving.iter().map(|member| &member.node).filter(is_node).collect();
        let disks: BTreeSet<DiskId> = leaving.iter().map(|member| member.disk).collect();
        self.nodes_draining = nodes.len() as u64;
        self.disks_draining = disks.len() as u64;
        self.replicas_to_drain = leaving.len() as u64;
    }
}

#[cfg(test)]
mod tests;
