//! Condition of a volume: whether it is as it should be, and if not, what is wrong and what a person can do about it.
//! The same words for the CSI services, the CLI and the health of the cluster.

use super::Control;
use super::registry::{DiskHealth, DiskView};
use crate::csi::params::{self, Spread};
use ashlar_catalog::{ContentSource, DataLoss, StoredVolume, Volume};
use ashlar_rpc::control::AttachedVolume;
use ashlar_types::{DiskId, Member, MemberState, Origin, ZoneName};
use std::collections::BTreeMap;
use std::iter;

/// Phases in which a datapath tells that requests do not go on.
const PHASE_FENCED: &str = "fenced";
const PHASE_BELOW_MIN_REPLICAS: &str = "below minReplicas";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) abnormal: bool,
    pub(crate) message: String,
}

/// Disks by id, as they are now.
pub(crate) type Disks = BTreeMap<DiskId, DiskView>;

impl Control {
    pub(crate) async fn disks_by_id(&self) -> Disks {
        self.registry.disks().await.into_iter().map(|view| (view.disk.id, view)).collect()
    }

    /// To be asked with one reading of the disks for many volumes.
    pub(crate) async fn condition(&self, seen: &StoredVolume, disks: &Disks) -> Condition {
        let record = &seen.volume.record;
        let attached = self.registry.attached(record.volume, record.holder.as_ref()).await;
        judge(&seen.volume, disks, attached.as_ref())
    }
}

/// How a volume lost its data, and the next step.
pub(super) fn lost_text(loss: DataLoss) -> String {
    format!(
        "its last replica was on disk {}, which was removed: delete the volume, and restore what it held from \
         elsewhere",
        loss.disk
    )
}

fn judge(volume: &Volume, disks: &Disks, attached: Option<&AttachedVolume>) -> Condition {
    if let Some(loss) = volume.data_lost {
        return Condition { abnormal: true, message: format!("its data is lost: {}", lost_text(loss)) };
    }
    let record = &volume.record;
    let is_online = |disk: &DiskId| disks.get(disk).is_some_and(|view| view.health == DiskHealth::Online);
    let dead: Vec<DiskId> = record.in_sync().map(|member| member.disk).filter(|disk| !is_online(disk)).collect();
    let live = record.fewest_in_sync_without(&dead);
    let replicas = record.chunks.iter().map(|run| run.members.len()).max().unwrap_or(0);
    // One whose chunks another disk has got is of no concern any more.
    let holds = |index: usize| record.chunks.iter().any(|run| run.members.contains(&(index as u16)));
    let members = record.members.iter().enumerate().filter(|&(index, _)| holds(index));
    let members: Vec<&Member> = members.map(|(_, member)| member).collect();
    let faults = members.iter().filter_map(|member| fault_of(member, disks));
    let faults: Vec<String> = faults.chain(fault_of_spread(volume, &members, disks)).collect();
    let writer = attached.and_then(|attached| fault_of_writer(volume, attached));
    let content = attached.and_then(fault_of_content);
    let clone = record.origin.map(|origin| text_of_clone(volume.source, origin));
    let is_made = record.origin.is_none_or(|origin| origin.is_made);
    if faults.is_empty() && writer.is_none() && content.is_none() && is_made {
        let text = format!("{live} of {replicas} replicas are in-sync and alive");
        return Condition { abnormal: false, message: iter::once(text).chain(clone).collect::<Vec<_>>().join("; ") };
    }
    let min = record.min_replicas;
    let effect = match () {
        () if !is_made => "it cannot be attached yet".to_owned(),
        () if live == 0 && !volume.readers.is_empty() => "reads wait: no replica is in-sync and alive".to_owned(),
        () if live < min && volume.readers.is_empty() => {
            format!("writes wait: {live} of {replicas} replicas are in-sync and alive, minReplicas is {min}")
        }
        () => format!("{live} of {replicas} replicas are in-sync and alive, I/O goes on"),
    };
    let message =
        iter::once(effect).chain(clone).chain(writer).chain(content).chain(faults).collect::<Vec<_>>().join("; ");
    Condition { abnormal: true, message }
}

/// How far a clone is that is not flat.
fn text_of_clone(source: Option<ContentSource>, origin: Origin) -> String {
    let of = match source {
        Some(ContentSource::Snapshot(id)) => format!("snapshot {id}"),
        Some(ContentSource::Volume(id)) => format!("volume {id}"),
        None => "a volume".to_owned(),
    };
    let base = origin.base.volume;
    match origin.is_made {
        true => format!("a clone of {of} that still reads from volume {base}, on the same disks"),
        false => {
            format!("a clone of {of} whose replicas are still being made: wait, or look for disks that are silent")
        }
    }
}

/// What the node that holds the volume tells, and the next step.
fn fault_of_writer(volume: &Volume, attached: &AttachedVolume) -> Option<String> {
    let node = volume.record.holder.as_ref()?;
    match attached.phase.as_str() {
        PHASE_FENCED => Some(format!(
            "its device on node {node} was taken over by a newer writer and gives errors: restart the pod"
        )),
        PHASE_BELOW_MIN_REPLICAS => Some(format!(
            "node {node} reaches fewer replicas than minReplicas, its writes wait: look at the links to the others"
        )),
        _ => None,
    }
}

/// What the replicas say of each other's content.
fn fault_of_content(attached: &AttachedVolume) -> Option<String> {
    let slots = attached.comparison.map_or(0, |comparison| comparison.differing_slots);
    (slots > 0).then(|| {
        format!(
            "replicas hold different content in {slots} slots, each with right checksums, and nobody knows which of \
             them is right: see scrub-differs in `ashlar events`, and `ashlar volume compare` when it is detached"
        )
    })
}

/// Replicas that share a zone although the volume was to have them apart.
fn fault_of_spread(volume: &Volume, members: &[&Member], disks: &Disks) -> Option<String> {
    // Parameters were checked when the volume was made.
    let params = params::parse(&volume.parameters).ok()?;
    // One that moves has an extra replica for a while.
    if params.spread == Spread::Node || members.len() > usize::from(params.replicas) {
        return None;
    }
    let mut by_zone: BTreeMap<Option<ZoneName>, Vec<String>> = BTreeMap::new();
    for member in members {
        let zone = disks.get(&member.disk).map_or(&member.zone, |view| &view.zone);
        by_zone.entry(zone.clone()).or_default().push(member.disk.to_string());
    }
    let (zone, shared) = by_zone.into_iter().find(|(_, disks)| disks.len() > 1)?;
    let zone = zone.map_or("none".to_owned(), |zone| zone.to_string());
    Some(format!(
        "disks {} are all in zone {zone}, and parameter spread asks for a zone each: when another zone has room, \
         `ashlar disk drain` one of them",
        shared.join(" and ")
    ))
}

/// What is wrong with one replica, and the next step.
fn fault_of(member: &Member, disks: &Disks) -> Option<String> {
    let (disk, node) = (member.disk, &member.node);
    let health = disks.get(&disk).map(|view| view.health);
    let text = match (health, member.state) {
        (Some(DiskHealth::Online), MemberState::InSync) => return None,
        (Some(DiskHealth::Online), MemberState::Syncing { .. }) => {
            format!("disk {disk} of node {node} is copying what it missed: wait")
        }
        (Some(DiskHealth::Online), MemberState::Out { .. }) => {
            format!("disk {disk} of node {node} is out and comes back while the volume is attached: wait, or attach it")
        }
        (Some(DiskHealth::Failed), _) => format!("disk {disk} of node {node} failed: replace it"),
        (Some(DiskHealth::Lost), _) => format!("disk {disk} of node {node} is declared lost"),
        (Some(DiskHealth::Silent) | None, _) => format!(
            "the chunkserver of node {node} with disk {disk} is silent: start it, or if it is gone for good, \
             `ashlar disk declare-lost {disk}`"
        ),
    };
    Some(text)
}

#[cfg(test)]
mod tests;
