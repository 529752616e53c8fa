//! Taking a disk out of the cluster for good: only one that holds nothing, or nothing but last replicas that were given
//! up by name. A removed disk never comes back under its id (`registry/report.rs` refuses it): what it holds is of
//! volumes that have gone on without it. Formatted anew it has another id.

use super::{COMMIT_TRIES_MAX, Control, raced, wall_clock_ms};
use crate::error::{Error, Result};
use ashlar_catalog::{CatalogErrorKind, Claims, DataLoss, Event, GIVEN_UP_MAX, StoredVolume, Volume};
use ashlar_plan::membership;
use ashlar_plan::repair::{Removal, may_remove};
use ashlar_types::{DiskId, VolumeId, VolumeName};
use std::collections::BTreeSet;

/// Volumes that an answer names.
const SHOWN_MAX: usize = 32;

/// What stands on a disk that may go.
struct Judged {
    claims: Claims,
    /// As they were seen, and as they become.
    given_up: Vec<(StoredVolume, Volume)>,
}

impl Control {
    /// Returns the volumes that were given up. Repeating it changes nothing.
    pub(crate) async fn remove_disk(&self, disk: DiskId, accepted: &BTreeSet<VolumeName>) -> Result<Vec<VolumeName>> {
        for _ in 0..COMMIT_TRIES_MAX {
            if self.registry.is_removed(disk).await {
                return Ok(Vec::new());
            }
            let Judged { claims, given_up } = self.judge_removal(disk, accepted).await?;
            let names: Vec<VolumeName> = given_up.iter().map(|(_, next)| next.name.clone()).collect();
            match self.registry.remove_disk(&self.catalog, disk, &claims, &given_up, events(disk, &given_up)).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    tracing::info!(%disk, given_up = names.len(), "disk removed");
                    // Nothing is left there to be deleted.
                    self.reap.notify_one();
                    self.repair.news.notify_one();
                    return Ok(names);
                }
            }
        }
        Err(raced(format_args!("disk {disk}")))
    }

    async fn judge_removal(&self, disk: DiskId, accepted: &BTreeSet<VolumeName>) -> Result<Judged> {
        if self.registry.disks().await.iter().all(|view| view.disk.id != disk) {
            return Err(Error::not_found(format_args!("disk {disk}")));
        }
        // Before the volumes: a replica that comes after they were looked at changes the claim.
        let claims = self.catalog.claims().await?;
        let seen = self.seen_now().await?;
        let holds = |seen: &&StoredVolume| seen.volume.record.holders().any(|member| member.disk == disk);
        let held = self.volumes_with(disk).await?;
        let held: Vec<&StoredVolume> =
            held.iter().filter(holds).filter(|seen| seen.volume.data_lost.is_none()).collect();
        let last: BTreeSet<VolumeId> = match may_remove(&seen, disk) {
            Removal::LastCopy { against } if against.more > 0 || against.volumes.len() > GIVEN_UP_MAX => {
                let text = format!("disk {disk} has the last replica of more than {GIVEN_UP_MAX} volumes: {against}");
                return Err(Error::precondition(text));
            }
            Removal::LastCopy { against } => against.volumes.into_iter().map(|(id, _)| id).collect(),
            Removal::NotEmpty { .. } | Removal::Yes => BTreeSet::new(),
        };
        let (last, others): (Vec<&StoredVolume>, Vec<&StoredVolume>) =
            held.into_iter().partition(|seen| last.contains(&seen.volume.id()));
        if !others.is_empty() {
            let text = format!(
                "disk {disk} holds replicas of volumes {}: `ashlar disk drain {disk}` moves them",
                names_of(others.iter().map(|seen| &seen.volume.name))
            );
            return Err(Error::precondition(text));
        }
        check_accepted(disk, &last, accepted)?;
        let mut given_up = Vec::new();
        for seen in last {
            let _permit = self.in_flight.begin(seen.volume.id())?;
            self.end_repair(seen.volume.id()).await?;
            let seen = self.volume(seen.volume.id()).await?;
            given_up.push((seen.clone(), without(&seen, disk)?));
        }
        Ok(Judged { claims, given_up })
    }
}

/// Each volume that loses its last replica is named, and no other.
fn check_accepted(disk: DiskId, last: &[&StoredVolume], accepted: &BTreeSet<VolumeName>) -> Result<()> {
    let missing: Vec<&VolumeName> =
        last.iter().map(|seen| &seen.volume.name).filter(|name| !accepted.contains(*name)).collect();
    if !missing.is_empty() {
        let options = missing.iter().take(SHOWN_MAX).map(|name| format!(" --accept-data-loss {name}"));
        let text = format!(
            "disk {disk} has the last replica of volumes {}: their data would be lost; wait for the others, or give it \
             up by name:{}",
            names_of(missing.iter().copied()),
            options.collect::<String>()
        );
        return Err(Error::precondition(text));
    }
    let too_many = accepted.iter().filter(|name| last.iter().all(|seen| seen.volume.name != **name));
    match names_of(too_many) {
        none if none.is_empty() => Ok(()),
        names => Err(Error::precondition(format!(
            "disk {disk} does not have the last replica of volumes {names}: leave out what is not to be lost"
        ))),
    }
}

/// The volume without its replica there. Where another disk has everything, and only cannot be reached now, it can
/// come back; else the data is lost.
fn without(seen: &StoredVolume, disk: DiskId) -> Result<Volume> {
    let volume = &seen.volume;
    let user = volume.record.holder.iter().chain(&volume.readers).next();
    if let Some(node) = user {
        let text = format!("volume {} is used on node {node}: detach it before its last replica goes", volume.name);
        return Err(Error::precondition(text));
    }
    if volume.record.fewest_in_sync_without(&[disk]) > 0 {
        return Ok(Volume { record: membership::declare_lost(&volume.record, disk, true)?, ..volume.clone() });
    }
    Ok(Volume { data_lost: Some(DataLoss { disk, at_ms: wall_clock_ms() }), ..volume.clone() })
}

fn events(disk: DiskId, given_up: &[(StoredVolume, Volume)]) -> Vec<Event> {
    let of_volume = |(_, next): &(StoredVolume, Volume)| {
        let (kind, what) = match next.data_lost {
            Some(_) => ("data-lost", "its data is lost"),
            None => ("replica-given-up", "the others cannot be reached now"),
        };
        let text = format!("the last replica of volume {} was given up with disk {disk}: {what}", next.name);
        Event::new(wall_clock_ms(), kind, text).of_volume(next.id()).of_disk(disk)
    };
    let removed = Event::new(wall_clock_ms(), "disk-removed", format!("disk {disk} was taken out of the cluster"));
    given_up.iter().map(of_volume).chain([removed.of_disk(disk)]).collect()
}

fn names_of<'a>(names: impl Iterator<Item = &'a VolumeName>) -> String {
    let names: Vec<&str> = names.map(VolumeName::as_str).collect();
    let shown = names[..names.len().min(SHOWN_MAX)].join(", ");
    match names.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
