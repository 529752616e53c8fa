//! Snapshots of several volumes at one instant.
//!
//! ```text
//!   begin (new ids) ─► read records ─► hold writes of the attached ─► points, all at once ─► ready
//!         ▲                                 │ one refuses                  │ one fails
//!         └──── the attempt's snapshots are deleted: no point of it comes any more ◄────────┘
//! ```
//! Each attempt has snapshots of its own, and only if all of them get their points is the group ready. So whoever dies
//! in between, no group is put together from points of different instants. A writer gives a point only while it has
//! held its writes since before the last of the others did; the record of a detached volume gets one only if nobody
//! has touched it since before the first hold.

use super::daemons::{refused, timed};
use super::{COMMIT_TRIES_MAX, Control, raced, wall_clock_ms};
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::{
    CatalogErrorKind, Event, GROUP_VOLUMES_MAX, GroupInfo, GroupPage, SnapshotInfo, StoredGroup, StoredSnapshot,
    StoredVolume,
};
use ashlar_plan::snapshot::{self, Refusal};
use ashlar_rpc::control::datapath_client::DatapathClient;
use ashlar_rpc::control::{DatapathHoldRequest, DatapathSnapshotRequest};
use ashlar_types::{GroupId, NodeName, SnapshotId, VolumeId, VolumeName, VolumeRecord};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// Writes are held for two round trips of the control plane, and no longer than this whatever happens to it.
const HOLD_MAX: Duration = Duration::from_millis(500);
const HOLD_TIMEOUT: Duration = Duration::from_secs(2);
/// A point waits for the writes before it.
const POINT_TIMEOUT: Duration = Duration::from_secs(20);
/// A hold that lapsed, or a volume that was attached meanwhile, is no reason to tell anybody.
const ATTEMPTS_MAX: usize = 3;

/// One volume of an attempt, as it was before anything was held.
struct Member {
    begun: StoredSnapshot,
    seen: StoredVolume,
    way: Way,
}

enum Way {
    /// The record that has the point.
    Detached(VolumeRecord),
    Attached(DatapathClient<Channel>, NodeName),
}

impl Control {
    /// Takes the group, or finds the one of this name. One of the name with other volumes is an error.
    pub(crate) async fn create_group(&self, name: &VolumeName, volumes: &[VolumeId]) -> Result<StoredGroup> {
        let _permit = self.in_flight.begin(format!("snapshot group {name}"))?;
        check_volumes(volumes)?;
        let mut failure = raced(name);
        for _ in 0..ATTEMPTS_MAX {
            let group = match self.begin_group(name, volumes).await? {
                found if found.group.is_ready => return Ok(found),
                begun => begun,
            };
            match self.take_group(&group).await {
                Ok(held) => return self.complete_group(&group, held).await,
                Err(error) => failure = error,
            }
            self.delete_members(&group).await?;
            if !matches!(failure.kind, ErrorKind::Busy) {
                break;
            }
        }
        if !matches!(failure.kind, ErrorKind::Busy | ErrorKind::Unavailable) {
            self.delete_group_named(name).await?;
        }
        Err(failure)
    }

    /// With snapshots that nobody has asked anybody for. Those of an earlier attempt are deleted first.
    async fn begin_group(&self, name: &VolumeName, volumes: &[VolumeId]) -> Result<StoredGroup> {
        for _ in 0..COMMIT_TRIES_MAX {
            let found = self.catalog.group_by_name(name).await?;
            if let Some(found) = &found {
                let of: BTreeSet<VolumeId> = found.group.members.iter().map(|(volume, _)| *volume).collect();
                if of != volumes.iter().copied().collect() {
                    let text = format!("a snapshot group named {name} exists, of other volumes");
                    return Err(Error::new(ErrorKind::AlreadyExists, text));
                }
                if found.group.is_ready {
                    return Ok(found.clone());
                }
                self.delete_members(found).await?;
            }
            let id = found.as_ref().map_or_else(new_group_id, |found| found.group.id);
            let (next, snapshots) = self.new_members(id, name, volumes).await?;
            let begun = match &found {
                Some(found) => self.catalog.restart_group(found, &next, &snapshots).await,
                None => self.catalog.begin_group(&next, &snapshots).await,
            };
            match begun {
                Err(error) if error.kind() == CatalogErrorKind::Exists => {}
                other => return Ok(other?),
            }
        }
        Err(Error::new(ErrorKind::AlreadyExists, format!("{name} or the name of one of its snapshots is taken")))
    }

    async fn new_members(
        &self,
        id: GroupId,
        name: &VolumeName,
        volumes: &[VolumeId],
    ) -> Result<(GroupInfo, Vec<SnapshotInfo>)> {
        let created_ms = wall_clock_ms();
        let mut snapshots = Vec::new();
        for (index, &volume) in volumes.iter().enumerate() {
            let size = self.volume(volume).await?.volume.record.size;
            let name = member_name(id, name, index + 1)?;
            let id_of = SnapshotId::from_u128(uuid::Uuid::new_v4().as_u128());
            let group = Some(id);
            snapshots.push(SnapshotInfo {
                id: id_of,
                name,
                volume,
                group,
                size,
                created_ms,
                is_ready: false,
                content: None,
                for_clone: false,
            });
        }
        let members = snapshots.iter().map(|snapshot| (snapshot.volume, snapshot.id)).collect();
        let group = GroupInfo { id, name: name.clone(), created_ms, members, held_us: 0, is_ready: false };
        Ok((group, snapshots))
    }

    /// Every snapshot of the group gets its point, at one instant. Gives the longest time that writes were held for.
    async fn take_group(&self, group: &StoredGroup) -> Result<Duration> {
        let mut members = Vec::new();
        for &(volume, id) in &group.group.members {
            members.push(self.member(volume, id).await?);
        }
        let holds = members.iter().filter_map(|member| match &member.way {
            Way::Attached(client, node) => Some((client.clone(), node.clone(), hold_request(member))),
            Way::Detached(_) => None,
        });
        let mut held = JoinSet::new();
        for (mut client, node, request) in holds {
            held.spawn(async move {
                let answer = client.hold_writes(timed(request, HOLD_TIMEOUT)).await;
                answer.map(drop).map_err(|status| refused(&format!("datapath of node {node}"), status))
            });
        }
        all(held).await?;
        let mut points = JoinSet::new();
        let mut detached = Vec::new();
        for Member { begun, seen, way } in members {
            match way {
                Way::Attached(mut client, node) => {
                    let (volume, snapshot) = (seen.volume.id().to_string(), begun.snapshot.id.to_string());
                    let request = DatapathSnapshotRequest { volume, snapshot, held: true };
                    points.spawn(async move {
                        let answer = client.snapshot(timed(request, POINT_TIMEOUT)).await;
                        let answer = answer.map_err(|status| point_refused(&node, status))?;
                        Ok(Duration::from_micros(answer.into_inner().held_us))
                    });
                }
                Way::Detached(next) => detached.push((begun, seen, next)),
            }
        }
        for (begun, seen, next) in detached {
            if !self.record_snapshot(&begun, &seen, next).await? {
                let text = format!("volume {} was used while the group was taken", seen.volume.name);
                return Err(Error::new(ErrorKind::Busy, text));
            }
        }
        let held = all(points).await?.into_iter().max().unwrap_or_default();
        for &(_, id) in &group.group.members {
            let is_ready = self.catalog.snapshot(id).await?.is_some_and(|member| member.snapshot.is_ready);
            if !is_ready {
                return Err(Error::new(ErrorKind::Busy, format!("snapshot {id} of the group was given up")));
            }
        }
        Ok(held)
    }

    async fn member(&self, volume: VolumeId, id: SnapshotId) -> Result<Member> {
        let begun = self.catalog.snapshot(id).await?;
        let begun = begun.ok_or_else(|| Error::new(ErrorKind::Busy, format!("snapshot {id} was given up")))?;
        let seen = self.volume(volume).await?;
        let way = match snapshot::take_detached(&seen.volume.record, id) {
            Ok(next) => Way::Detached(next),
            Err(Refusal::Held { holder }) => match self.registry.datapath(&holder).await {
                Some((address, true)) if !address.is_empty() => Way::Attached(self.daemons.datapath(&address)?, holder),
                _ => {
                    let text = format!("the datapath of node {holder}, which holds a volume of the group, is silent");
                    return Err(Error::new(ErrorKind::Unavailable, text));
                }
            },
            Err(refusal @ Refusal::TooMany) => return Err(Error::new(ErrorKind::Exhausted, refusal.to_string())),
            Err(refusal) => {
                return Err(Error::precondition(format!("volume {}: {refusal}", seen.volume.name)));
            }
        };
        Ok(Member { begun, seen, way })
    }

    async fn complete_group(&self, group: &StoredGroup, held: Duration) -> Result<StoredGroup> {
        let GroupInfo { id, name, members, .. } = &group.group;
        let held_us = held.as_micros() as u64;
        let text = format!("snapshots of {} volumes taken at one instant: {name}", members.len());
        let event = Event::new(wall_clock_ms(), "snapshot-group", text).figure("group", id).figure("held_us", held_us);
        let ready = self.catalog.complete_group(group, wall_clock_ms(), held_us, event).await?;
        tracing::info!(group = %id, %name, volumes = members.len(), ?held, "snapshot group taken");
        Ok(ready)
    }

    /// Gone at once, with its snapshots. Deleting what is not there changes nothing.
    pub(crate) async fn delete_group(&self, id: GroupId) -> Result<()> {
        let Some(found) = self.catalog.group(id).await? else { return Ok(()) };
        let name = &found.group.name;
        let _permit = self.in_flight.begin(format!("snapshot group {name}"))?;
        self.delete_group_named(name).await
    }

    /// The caller has the group's permit.
    async fn delete_group_named(&self, name: &VolumeName) -> Result<()> {
        let Some(found) = self.catalog.group_by_name(name).await? else { return Ok(()) };
        self.delete_members(&found).await?;
        let event = Event::new(wall_clock_ms(), "snapshot-group-deleted", format!("snapshot group {name} deleted"));
        Ok(self.catalog.delete_group(&found, event.figure("group", found.group.id)).await?)
    }

    /// What of them is still under way at a datapath is refused when it is proposed.
    async fn delete_members(&self, group: &StoredGroup) -> Result<()> {
        for &(_, id) in &group.group.members {
            self.remove_snapshot(id).await?;
        }
        Ok(())
    }

    /// By id or by name, as people write it.
    pub(crate) async fn find_group(&self, reference: &str) -> Result<StoredGroup> {
        if let Ok(id) = reference.parse::<GroupId>()
            && let Some(found) = self.catalog.group(id).await?
        {
            return Ok(found);
        }
        let name: VolumeName = reference.parse().map_err(|error| Error::invalid(format!("group: {error}")))?;
        let found = self.catalog.group_by_name(&name).await?;
        found.ok_or_else(|| Error::not_found(format_args!("snapshot group {name}")))
    }

    /// A page of groups, and the token of the next one: the id of the last one shown.
    pub(crate) async fn list_groups(&self, token: &str, limit: usize) -> Result<(GroupPage, Option<GroupId>)> {
        let after = match token {
            "" => None,
            token => {
                Some(token.parse().map_err(|_| Error::new(ErrorKind::BadToken, "starting_token is not one of ours"))?)
            }
        };
        let page = self.catalog.groups(after, limit).await?;
        for (key, error) in &page.unreadable {
            tracing::error!(%key, %error, "snapshot group left out of a listing");
        }
        let next = page.last.filter(|_| page.more);
        Ok((page, next))
    }
}

fn new_group_id() -> GroupId {
    GroupId::from_u128(uuid::Uuid::new_v4().as_u128())
}

/// A group's name may be as long as any; then its members have theirs of its id.
fn member_name(id: GroupId, name: &VolumeName, number: usize) -> Result<VolumeName> {
    let named = format!("{name}.{number}").parse().or_else(|_| format!("group-{id}.{number}").parse());
    named.map_err(|error| Error::invalid(format!("name: {error}")))
}

fn check_volumes(volumes: &[VolumeId]) -> Result<()> {
    let different: BTreeSet<VolumeId> = volumes.iter().copied().collect();
    if volumes.is_empty() || volumes.len() > GROUP_VOLUMES_MAX {
        return Err(Error::invalid(format!("a group has 1 to {GROUP_VOLUMES_MAX} volumes, not {}", volumes.len())));
    }
    if different.len() < volumes.len() {
        return Err(Error::invalid("a volume is named twice"));
    }
    Ok(())
}

fn hold_request(member: &Member) -> DatapathHoldRequest {
    DatapathHoldRequest {
        volume: member.seen.volume.id().to_string(),
        snapshot: member.begun.snapshot.id.to_string(),
        at_most_ms: HOLD_MAX.as_millis() as u32,
    }
}

/// A hold that is over may be had again.
fn point_refused(node: &NodeName, status: tonic::Status) -> Error {
    let lapsed = status.code() == tonic::Code::FailedPrecondition;
    let error = refused(&format!("datapath of node {node}"), status);
    if lapsed { Error::new(ErrorKind::Busy, error.message) } else { error }
}

/// What all of them give, or the first failure, when all have ended.
async fn all<T: 'static>(mut under_way: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut given = Vec::new();
    let mut failure = None;
    while let Some(ended) = under_way.join_next().await {
        match ended {
            Ok(Ok(value)) => given.push(value),
            Ok(Err(error)) => failure = failure.or(Some(error)),
            Err(error) => {
                return Err(Error::new(ErrorKind::Internal, format!("a call ended without a result: {error}")));
            }
        }
    }
    failure.map_or(Ok(given), Err)
}
