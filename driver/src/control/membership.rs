//! Membership under the writer's epoch: grants, proposals, and disks declared lost. The rules are
//! `ashlar_plan::membership`; here each decision is committed by compare-and-swap and told as an event.

use super::condition::lost_text;
use super::publication::{about, reading};
use super::{Control, Decision, wall_clock_ms};
use crate::error::{Error, Result};
use crate::metrics::ReplicaChange;
use ashlar_catalog::{Event, StoredVolume};
use ashlar_plan::membership;
use ashlar_types::{Change, ChangeAnswer, DiskId, Epoch, Lsn, MemberState, NodeName, VolumeId, VolumeRecord};
use std::collections::BTreeMap;

/// Volumes that are looked at in one reading.
const PAGE_MAX: usize = 256;

impl Control {
    /// Grants the next epoch to the node. To the node that holds the volume already too: its datapath may have died.
    pub(crate) async fn grant(&self, id: VolumeId, node: &NodeName) -> Result<VolumeRecord> {
        let granted = self
            .change_record(id, |seen| {
                seen_allows(seen, node)?;
                reading(seen).allow_grant(node).map_err(|refusal| about(seen, &refusal))?;
                let next = membership::grant(&seen.volume.record, node)?;
                let text = format!("volume {} attached on node {node} with epoch {}", seen.volume.name, next.epoch);
                let event = event("attached", text, &next).of_node(node);
                Ok(Decision::Change(Box::new(next), vec![event]))
            })
            .await?;
        let record = granted.volume.record;
        tracing::info!(volume = %id, %node, epoch = %record.epoch, "epoch granted");
        Ok(record)
    }

    /// A writer's proposal. Asked again unchanged, it is answered as the first time.
    pub(crate) async fn propose(
        &self,
        id: VolumeId,
        epoch: Epoch,
        version: u64,
        change: &Change,
    ) -> Result<ChangeAnswer> {
        let answer = match change {
            Change::Snapshot(snapshot) => self.propose_snapshot(id, epoch, version, *snapshot).await?,
            change => self.propose_membership(id, epoch, version, change).await?,
        };
        match &answer {
            ChangeAnswer::Applied { record } => {
                tracing::info!(volume = %id, %epoch, version = record.version, ?change, "proposal applied");
            }
            ChangeAnswer::Refused { reason, .. } => {
                tracing::info!(volume = %id, %epoch, version, ?change, %reason, "proposal refused");
            }
            ChangeAnswer::Fenced { epoch: newer } => {
                tracing::info!(volume = %id, %epoch, %newer, ?change, "proposal of a fenced writer");
            }
        }
        self.metrics.count_proposal(&answer);
        if matches!(answer, ChangeAnswer::Applied { .. }) {
            self.repair.news.notify_one();
            if matches!(change, Change::Join { .. }) {
                // What a replaced disk still has may have waited for it.
                self.reap.notify_one();
            }
        }
        Ok(answer)
    }

    async fn propose_membership(
        &self,
        id: VolumeId,
        epoch: Epoch,
        version: u64,
        change: &Change,
    ) -> Result<ChangeAnswer> {
        let (mut answer, mut replicas) = (None, Vec::new());
        self.change_record(id, |seen| {
            let record = &seen.volume.record;
            let decided = membership::apply(record, epoch, version, change);
            replicas.clear();
            let decision = match &decided {
                ChangeAnswer::Applied { record: next } if next != record => {
                    replicas = replica_changes(record, change);
                    Decision::Change(Box::new(next.clone()), events_of(seen, change, next))
                }
                _ => Decision::Keep,
            };
            answer = Some(decided);
            Ok(decision)
        })
        .await?;
        replicas.into_iter().for_each(|change| self.metrics.count_replica(change));
        Ok(answer.expect("a change is decided at least once before it is committed"))
    }

    /// Declares a disk lost for every volume that has it. Nothing is changed unless all of them allow it; returns the
    /// volumes concerned.
    pub(crate) async fn declare_disk_lost(&self, disk: DiskId, proof: bool) -> Result<Vec<VolumeId>> {
        self.registry.check_may_be_lost(disk).await?;
        let concerned = self.volumes_with(disk).await?;
        let refusals: Vec<String> = concerned
            .iter()
            .filter(|seen| !is_lost_already(&seen.volume.record, disk))
            .filter_map(|seen| {
                let refusal = membership::declare_lost(&seen.volume.record, disk, proof).err()?;
                Some(format!("volume {}: {refusal}", seen.volume.name))
            })
            .collect();
        if !refusals.is_empty() {
            return Err(Error::precondition(refusals.join("; ")));
        }
        for seen in &concerned {
            self.change_record(seen.volume.id(), |seen| {
                let record = &seen.volume.record;
                if is_lost_already(record, disk) || record.member(disk).is_none() {
                    return Ok(Decision::Keep);
                }
                let next = membership::declare_lost(record, disk, proof)?;
                let event = event("disk-lost", format!("disk {disk} declared lost"), &next).of_disk(disk);
                Ok(Decision::Change(Box::new(next), vec![event]))
            })
            .await?;
        }
        self.registry.mark_lost(&self.catalog, disk).await?;
        self.repair.news.notify_one();
        Ok(concerned.iter().map(|seen| seen.volume.id()).collect())
    }

    /// Those of the reported volumes whose writer knows an older record than the catalog's.
    pub(crate) async fn newer_records(&self, reported: &BTreeMap<VolumeId, u64>) -> Result<Vec<String>> {
        let ids: Vec<VolumeId> = reported.keys().copied().collect();
        let mut newer = Vec::new();
        for (id, version) in self.catalog.record_versions(&ids).await? {
            match version {
                Ok(version) if version > reported[&id] => newer.push(id.to_string()),
                Ok(_) => {}
                Err(error) => tracing::error!(volume = %id, %error, "record cannot be read"),
            }
        }
        Ok(newer)
    }

    pub(super) async fn volumes_with(&self, disk: DiskId) -> Result<Vec<StoredVolume>> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.catalog.volumes(after, PAGE_MAX).await?;
            if let Some((id, error)) = page.unreadable.into_iter().next() {
                return Err(Error::precondition(format!(
                    "volume {id} cannot be read, whether it has the disk is unknown: {error}"
                )));
            }
            after = page.last;
            found.extend(page.volumes.into_iter().filter(|seen| seen.volume.record.member(disk).is_some()));
            if !page.more {
                return Ok(found);
            }
        }
    }
}

/// Refuses a node that the volume must not be used on; all of them where there is nothing to use.
pub(super) fn seen_allows(seen: &StoredVolume, node: &NodeName) -> Result<()> {
    if let Some(loss) = seen.volume.data_lost {
        let text = format!("the data of volume {} is lost: {}", seen.volume.name, lost_text(loss));
        return Err(Error::precondition(text));
    }
    let allowed = &seen.volume.allowed_nodes;
    if allowed.is_empty() || allowed.contains(node) {
        return Ok(());
    }
    let allowed: Vec<&str> = allowed.iter().map(NodeName::as_str).collect();
    Err(Error::precondition(format!("volume {} may be used on {} only", seen.volume.name, allowed.join(", "))))
}

fn is_lost_already(record: &VolumeRecord, disk: DiskId) -> bool {
    record.member(disk).is_some_and(|member| member.state == MemberState::Out { commit: Lsn::ZERO })
}

pub(super) fn event(kind: &str, text: String, next: &VolumeRecord) -> Event {
    Event::new(wall_clock_ms(), kind, text)
        .of_volume(next.volume)
        .figure("epoch", next.epoch)
        .figure("version", next.version)
        .figure("in_sync", next.in_sync().count())
}

/// `record`: as it was before.
fn replica_changes(record: &VolumeRecord, change: &Change) -> Vec<ReplicaChange> {
    match change {
        Change::Eject { disks, .. } => vec![ReplicaChange::Ejected; disks.len()],
        Change::Join { disk } => match record.member(*disk).map(|member| member.state) {
            Some(MemberState::Syncing { commit: Lsn::ZERO }) => vec![ReplicaChange::Rebuilt],
            _ => vec![ReplicaChange::Returned],
        },
        _ => vec![],
    }
}

fn events_of(seen: &StoredVolume, change: &Change, next: &VolumeRecord) -> Vec<Event> {
    let name = &seen.volume.name;
    let of_disk = |kind: &str, disk: DiskId, what: String| {
        let event = event(kind, format!("disk {disk} {what} volume {name}"), next).of_disk(disk);
        match next.member(disk) {
            Some(member) => event.of_node(&member.node),
            None => event,
        }
    };
    match change {
        Change::Eject { disks, commit, reason } => disks
            .iter()
            .map(|&disk| of_disk("ejected", disk, format!("({reason}) is out of")).figure("commit_lsn", commit))
            .collect(),
        Change::BeginReturn { disk } => vec![of_disk("returning", *disk, "comes back to".to_owned())],
        Change::Join { disk } => vec![of_disk("in-sync", *disk, "is in-sync with".to_owned())],
        Change::AbandonReturn { disk } => vec![of_disk("return-abandoned", *disk, "is out again of".to_owned())],
        Change::CloseClean => {
            let event = event("detached", format!("volume {name} detached cleanly"), next);
            vec![seen.volume.record.holder.iter().fold(event, |event, holder| event.of_node(holder))]
        }
        Change::Snapshot(_) => vec![],
        Change::OpenDirty => vec![event("opened", format!("volume {name} opened for writes"), next)],
    }
}
