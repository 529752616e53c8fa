//! Where the replicas of a new volume go, and why each replica lies where it lies.
//!
//! The rules are `ashlar_plan::placement`, over what the planner of repair sees of nodes and disks. Which sets of nodes
//! share volumes is taken from repair's last look, with what has been made since: a set that comes or goes while a look
//! is under way may be missing until the next one, and the bound on partners is soft. Space is never taken from there:
//! claims are read, and compared by the creation.

use super::volumes::NewVolume;
use super::{Control, wall_clock_ms};
use crate::csi::params::{Params, Spread};
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::{Choice, Claims, LEFT_OUT_MAX, LeftOut, StoredVolume, Volume};
use ashlar_plan::placement::{self, Ask, Candidate, Capacity, Explanation, Need, PlacementError, Surroundings};
use ashlar_plan::repair;
use ashlar_rpc::control::{LeftOutDisk, ReplicaChoice, VolumeChoices};
use ashlar_types::{ByteCount, DiskId, NodeName, SLOT_BYTES, VOLUME_BYTES_MAX, VolumeRecord, ZoneName};
use std::collections::BTreeSet;

const _: () = assert!(Explanation::SHOWN_MAX <= LEFT_OUT_MAX);

impl Control {
    /// The disks for a new volume, the first one first, and why each.
    pub(super) async fn place(&self, new: &NewVolume, claims: &Claims) -> Result<Vec<(Candidate, Explanation)>> {
        let candidates = self.candidates(claims).await;
        let surroundings = self.surroundings().await?;
        let (params, strict) = (&new.params, !new.allowed_nodes.is_empty());
        let first_nodes = if new.first_nodes.is_empty() { &new.allowed_nodes } else { &new.first_nodes };
        let (size, first_nodes) = (new.size.size, first_nodes.clone());
        let ask = Ask { size, replicas: params.replicas, first_nodes, strict };
        let placed = placement::place_among(&ask, &need_of(params), &candidates, &surroundings);
        let placed = placed.map_err(|error| explain(&error, params))?;
        Ok(placed.into_iter().map(|(candidate, explanation)| (candidate.clone(), explanation)).collect())
    }

    /// Room for more volumes with these parameters, with the first replica on one of the nodes (any if empty).
    pub(crate) async fn capacity(&self, params: &Params, first_nodes: &[NodeName]) -> Result<Capacity> {
        let candidates = self.candidates(&self.catalog.claims().await?).await;
        let capacity = placement::capacity(params.replicas, first_nodes, &need_of(params), &candidates);
        let whole = |bytes: ByteCount| ByteCount(bytes.0.min(VOLUME_BYTES_MAX) / SLOT_BYTES * SLOT_BYTES);
        Ok(Capacity { largest: whole(capacity.largest), ..capacity })
    }

    async fn candidates(&self, claims: &Claims) -> Vec<Candidate> {
        let cluster = self.see_cluster(claims, self.repair_clock()).await;
        repair::candidates(&cluster, self.repair.bounds.watermark_permille)
    }

    /// Before the first look all volumes are looked at.
    async fn surroundings(&self) -> Result<Surroundings> {
        let known = self.repair.last().surroundings.clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let seen = repair::surroundings(&self.seen_now().await?, self.repair.bounds.partners_max);
        Ok(self.repair.last().surroundings.get_or_insert(seen).clone())
    }

    /// The next placement knows of this one.
    pub(super) fn note_placed(&self, record: &VolumeRecord) {
        let nodes: Vec<&NodeName> = record.holders().map(|member| &member.node).collect();
        if let Some(known) = &mut self.repair.last().surroundings {
            known.partners.add(&nodes);
        }
    }

    /// Of each disk that holds chunks of the volume, in the order of its record.
    pub(crate) async fn volume_choices(&self, seen: &StoredVolume) -> Result<VolumeChoices> {
        let choices = self.catalog.choices(seen.volume.id()).await?;
        let of = |member: &ashlar_types::Member| {
            let kept = choices.iter().find(|choice| choice.disk == member.disk).cloned();
            let choice = kept.unwrap_or_else(|| unchosen(&seen.volume, member.disk));
            to_proto(choice, &member.node)
        };
        Ok(VolumeChoices { replicas: seen.volume.record.holders().map(of).collect() })
    }
}

fn need_of(params: &Params) -> Need<'_> {
    Need { zones: &params.zones, spread_zones: params.spread == Spread::Zone, ..Need::default() }
}

/// With the parameter that stands in the way, where one does, and the way out.
fn explain(error: &PlacementError, params: &Params) -> Error {
    let text = match error {
        PlacementError::TooFewZones { .. } => {
            format!("parameter spread is zone: {error}; add disks in other zones, or set spread to zone-preferred")
        }
        _ if !params.zones.is_empty() => {
            let zones = params.zones.iter().map(ZoneName::as_str).collect::<Vec<_>>().join(",");
            format!("parameter zones is {zones}: {error}; add disks in these zones, or name more of them")
        }
        _ => error.to_string(),
    };
    Error::new(ErrorKind::Exhausted, text)
}

/// A clone lies where its source lies, so it cannot be wished elsewhere.
pub(super) fn check_clone_wish(params: &Params, source: &VolumeRecord) -> Result<()> {
    let of_disks: Vec<&Option<ZoneName>> = source.holders().map(|member| &member.zone).collect();
    let is_asked = |zone: &Option<ZoneName>| zone.as_ref().is_some_and(|zone| params.zones.contains(zone));
    let wrong = match params.spread {
        _ if !params.zones.is_empty() && !of_disks.iter().all(|zone| is_asked(zone)) => "zones",
        Spread::Zone if of_disks.iter().collect::<BTreeSet<_>>().len() < of_disks.len() => "spread",
        _ => return Ok(()),
    };
    let text = format!(
        "a clone lies where its source lies, and that is not as parameter {wrong} asks: leave {wrong} out, or have the \
         source elsewhere first"
    );
    Err(Error::new(ErrorKind::Exhausted, text))
}

pub(super) fn choice_of(disk: DiskId, occasion: String, explanation: &Explanation) -> Choice {
    let left_out = explanation.left_out.iter().map(|left| LeftOut {
        disk: left.disk,
        node: left.node.clone(),
        reason: left.reason.to_string(),
    });
    Choice {
        disk,
        chosen_ms: wall_clock_ms(),
        occasion,
        taken: explanation.taken.as_ref().map(ToString::to_string).unwrap_or_default(),
        left_out: left_out.collect(),
        more: explanation.more,
    }
}

fn unchosen(volume: &Volume, disk: DiskId) -> Choice {
    let occasion = match volume.source {
        Some(_) => "a clone lies where its source lies: nobody chose",
        None => "not known: it was chosen by a version that did not keep why",
    };
    let occasion = occasion.to_owned();
    Choice { disk, chosen_ms: 0, occasion, taken: String::new(), left_out: Vec::new(), more: 0 }
}

fn to_proto(choice: Choice, node: &NodeName) -> ReplicaChoice {
    let left_out = choice.left_out.into_iter().map(|left| LeftOutDisk {
        disk: left.disk.to_string(),
        node: left.node.to_string(),
        reason: left.reason,
    });
    ReplicaChoice {
        disk: choice.disk.to_string(),
        node: node.to_string(),
        chosen_ms: choice.chosen_ms,
        occasion: choice.occasion,
        taken: choice.taken,
        left_out: left_out.collect(),
        more: choice.more as u32,
    }
}
