//! Questions of operators: may this node be stopped, may it be drained, may this disk be removed? Answered from what is
//! seen, and nothing is changed by asking. Each refusal names volumes, [`SHOWN_MAX`] at most and how many more.
//!
//! A node may be stopped if each chunk keeps `minReplicas` replicas that can be counted on: then no write waits. A pod
//! on the node is no obstacle: it is moved by whoever stops the node.

use super::grace::View;
use super::place::{Going, Places};
use super::{Bounds, Forecast, MemberSeen, Seen, VolumeSeen, clock::Lasting};
use crate::placement::Explanation;
use ashlar_types::{DiskId, Duration, NodeName, VolumeId};
use std::collections::BTreeMap;
use std::fmt;

/// How many volumes an answer names.
pub const SHOWN_MAX: usize = 32;

/// Volumes that stand against something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Against<R> {
    /// Never empty; by volume.
    pub volumes: Vec<(VolumeId, R)>,
    pub more: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    Yes,
    /// `yes_in`: when it will be safe as things go; `None`: not by waiting.
    No {
        against: Against<TooFewLeft>,
        yes_in: Option<Duration>,
    },
}

/// What a volume would have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFewLeft {
    pub left: u8,
    pub min_replicas: u8,
    pub replicas: u8,
    pub yes_in: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drain {
    Yes,
    /// These replicas have no place elsewhere.
    No {
        against: Against<Explanation>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It holds nothing.
    Yes,
    /// Drain it first: these volumes have a replica there.
    NotEmpty { against: Against<NotEmpty> },
    /// Data would be lost: nowhere else is a replica that can be counted on.
    LastCopy { against: Against<LastCopy> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotEmpty;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastCopy;

/// Whether the node may be stopped now. `forecasts`: of the latest plan.
pub fn safe_to_stop(seen: &Seen, node: &NodeName, forecasts: &BTreeMap<VolumeId, Forecast>) -> Stop {
    let counted = |member: &MemberSeen| member.state.is_in_sync() && seen.is_alive(member.disk) && member.node != *node;
    let too_few = |(&id, volume): (&VolumeId, &VolumeSeen)| {
        let left = volume.fewest(counted);
        let hurts = volume.holds_on(node) && left < volume.min_replicas;
        hurts.then(|| (id, TooFewLeft { left, yes_in: yes_in(volume, node, forecasts.get(&id)), ..few(volume) }))
    };
    let found: Vec<(VolumeId, TooFewLeft)> = seen.volumes.iter().filter_map(too_few).collect();
    let yes_in = found.iter().map(|(_, few)| few.yes_in).reduce(|a, b| Some(a?.max(b?))).flatten();
    against(found).map_or(Stop::Yes, |against| Stop::No { against, yes_in })
}

fn few(volume: &VolumeSeen) -> TooFewLeft {
    TooFewLeft { left: 0, min_replicas: volume.min_replicas, replicas: volume.replicas, yes_in: None }
}

/// When the volume has all its replicas again, if it can then be without this one.
fn yes_in(volume: &VolumeSeen, node: &NodeName, forecast: Option<&Forecast>) -> Option<Duration> {
    let left = volume.fewest(|member| member.node != *node);
    forecast?.protected_in.filter(|_| left >= volume.min_replicas)
}

/// Whether every replica on the node has a place elsewhere.
pub fn may_drain(seen: &Seen, bounds: &Bounds, node: &NodeName) -> Drain {
    let mut drained = seen.clone();
    if let Some(known) = drained.nodes.get_mut(node) {
        known.is_draining = true;
    }
    let unreachable = Lasting::default();
    let now = Duration::ZERO;
    let view = View { seen: &drained, bounds, unreachable: &unreachable, now, room_is_wanted: false };
    let mut places = Places::of(&view);
    let mut found = vec![];
    for (&id, volume) in &seen.volumes {
        for (_, member) in volume.held().filter(|(_, member)| member.node == *node) {
            if let Err(explanation) = places.choose(volume, Going::Moves(member.disk), |_| true) {
                found.push((id, explanation));
            }
        }
    }
    against(found).map_or(Drain::Yes, |against| Drain::No { against })
}

/// Whether the disk may be taken out of the cluster.
pub fn may_remove(seen: &Seen, disk: DiskId) -> Removal {
    let holds = |volume: &VolumeSeen| volume.held().any(|(_, member)| member.disk == disk);
    let elsewhere =
        |member: &MemberSeen| member.state.is_in_sync() && seen.is_alive(member.disk) && member.disk != disk;
    let on_disk = || seen.volumes.iter().filter(|(_, volume)| holds(volume));
    let last = on_disk().filter(|(_, volume)| volume.fewest(elsewhere) == 0).map(|(&id, _)| (id, LastCopy));
    if let Some(against) = against(last.collect()) {
        return Removal::LastCopy { against };
    }
    let not_empty = on_disk().map(|(&id, _)| (id, NotEmpty));
    against(not_empty.collect()).map_or(Removal::Yes, |against| Removal::NotEmpty { against })
}

fn against<R>(mut volumes: Vec<(VolumeId, R)>) -> Option<Against<R>> {
    let more = volumes.len().saturating_sub(SHOWN_MAX);
    volumes.truncate(SHOWN_MAX);
    (!volumes.is_empty()).then_some(Against { volumes, more })
}

impl<R: fmt::Display> fmt::Display for Against<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (volume, reason)) in self.volumes.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}volume {volume}: {reason}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl fmt::Display for TooFewLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooFewLeft { left, min_replicas, replicas, yes_in } = self;
        write!(f, "{left} of {replicas} replicas would be left, writes need {min_replicas}")?;
        match yes_in {
            Some(time) => write!(f, "; protected again in {} s", time.as_secs()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for NotEmpty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("has a replica there: drain the disk first")
    }
}

impl fmt::Display for LastCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("has no other replica in-sync: its data would be lost")
    }
}

#[cfg(test)]
mod tests;
