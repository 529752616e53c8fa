//! What a volume and its snapshots take on the disks. Chunkservers tell it from their versions of slots, each chunk by
//! one replica that is in-sync: the holder's own node first. Where one does not answer the next is asked; what nobody
//! tells of is left out, and said to be.

use super::Control;
use super::condition::Disks;
use super::daemons::{CALL_TIMEOUT, refused, timed};
use super::registry::DiskHealth;
use crate::error::{Error, ErrorKind, Result};
use ashlar_rpc::control::chunkserver_client::ChunkserverClient;
use ashlar_rpc::control::{ChunkSpan, ReplicaSpace, ReplicaSpaceRequest, SnapshotSpace, VolumeSpace};
use ashlar_types::{ChunkRun, Epoch, Snapshot, VolumeRecord};
use std::collections::{BTreeMap, BTreeSet};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// Indexes of members that may be asked.
type Usable = BTreeSet<u16>;

impl Control {
    /// Of the record as it is given: with other snapshots other things are shared.
    pub(crate) async fn space(&self, record: &VolumeRecord) -> VolumeSpace {
        let disks = self.disks_by_id().await;
        let (mut usable, mut silent) = (Usable::new(), Vec::new());
        for (index, member) in record.members.iter().enumerate().filter(|(_, member)| member.state.is_in_sync()) {
            match disks.get(&member.disk).map(|view| view.health) {
                // One that failed still reads.
                Some(DiskHealth::Online | DiskHealth::Failed) => drop(usable.insert(index as u16)),
                _ => silent.push(format!("disk {} of node {} is silent or lost", member.disk, member.node)),
            }
        }
        let mut told = VolumeSpace::default();
        let mut freed_by_each = vec![0; record.points().len()];
        // Nobody has written what was never served, and its disks may not know of it.
        let mut left = if record.served == Epoch::NONE { Vec::new() } else { record.chunks.clone() };
        while !left.is_empty() {
            let (assigned, nobodys) = assign(record, &left, &usable);
            told.untold_chunks += nobodys.iter().map(|run| run.count).sum::<u32>();
            left.clear();
            for (member, runs, answer) in self.ask(record, &disks, assigned).await {
                match answer {
                    Ok(part) => add(&mut told, &mut freed_by_each, &part),
                    Err(error) => {
                        usable.remove(&member);
                        told.faults.push(error.message);
                        left.extend(runs);
                    }
                }
            }
        }
        if told.untold_chunks > 0 {
            told.faults.extend(silent);
        }
        told.pending_bytes =
            told.used_bytes.saturating_sub(told.unique_bytes + told.shared_bytes + told.snapshots_bytes);
        for snapshot in &record.snapshots {
            told.snapshots.push(self.space_of(record, snapshot, &freed_by_each).await);
        }
        told
    }

    async fn space_of(&self, record: &VolumeRecord, snapshot: &Snapshot, freed_by_each: &[u64]) -> SnapshotSpace {
        let known = self.catalog.snapshot(snapshot.id).await.unwrap_or_else(|error| {
            tracing::error!(snapshot = %snapshot.id, %error, "the name of a snapshot cannot be read");
            None
        });
        SnapshotSpace {
            snapshot: snapshot.id.to_string(),
            name: known.map(|seen| seen.snapshot.name.to_string()).unwrap_or_default(),
            freed_bytes: freed_by(record, snapshot, freed_by_each),
        }
    }

    /// All at the same time.
    async fn ask(
        &self,
        record: &VolumeRecord,
        disks: &Disks,
        assigned: BTreeMap<u16, Vec<ChunkRun>>,
    ) -> Vec<(u16, Vec<ChunkRun>, Result<ReplicaSpace>)> {
        let points: Vec<u64> = record.points().into_iter().map(|point| point.raw()).collect();
        let mut under_way = JoinSet::new();
        for (index, runs) in assigned {
            let member = &record.members[usize::from(index)];
            let request = ReplicaSpaceRequest {
                disk: member.disk.to_string(),
                volume: record.volume.to_string(),
                chunks: runs.iter().map(|run| ChunkSpan { first_chunk: run.first.0, count: run.count }).collect(),
                point_lsns: points.clone(),
            };
            let who = format!("disk {} of node {}", member.disk, member.node);
            let address = disks.get(&member.disk).map(|view| view.chunkserver_rpc.as_str()).unwrap_or_default();
            let client = self.daemons.chunkserver(address);
            under_way.spawn(async move {
                let answer = match client {
                    Ok(client) => ask_one(client, request, &who).await,
                    Err(error) => Err(error),
                };
                (index, runs, answer)
            });
        }
        under_way.join_all().await
    }
}

async fn ask_one(
    mut client: ChunkserverClient<Channel>,
    request: ReplicaSpaceRequest,
    who: &str,
) -> Result<ReplicaSpace> {
    let points = request.point_lsns.len();
    let told = client.space(timed(request, CALL_TIMEOUT)).await.map_err(|status| refused(who, status))?.into_inner();
    match told.freed_by_each_bytes.len() == points {
        true => Ok(told),
        false => Err(Error::new(ErrorKind::Internal, format!("{who} tells of other snapshots than it was asked for"))),
    }
}

/// Who tells of which chunks, and those that nobody can tell of.
fn assign(record: &VolumeRecord, runs: &[ChunkRun], usable: &Usable) -> (BTreeMap<u16, Vec<ChunkRun>>, Vec<ChunkRun>) {
    let is_local = |index: u16| record.holder.as_ref() == Some(&record.members[usize::from(index)].node);
    let (mut assigned, mut nobodys) = (BTreeMap::<u16, Vec<ChunkRun>>::new(), Vec::new());
    for run in runs {
        let able = run.members.iter().copied().filter(|index| usable.contains(index));
        match able.min_by_key(|&index| !is_local(index)) {
            Some(index) => assigned.entry(index).or_default().push(run.clone()),
            None => nobodys.push(run.clone()),
        }
    }
    (assigned, nobodys)
}

fn add(told: &mut VolumeSpace, freed_by_each: &mut [u64], part: &ReplicaSpace) {
    told.used_bytes += part.used_bytes;
    told.unique_bytes += part.unique_bytes;
    told.shared_bytes += part.shared_bytes;
    told.snapshots_bytes += part.snapshots_bytes;
    told.freed_by_all_bytes += part.freed_by_all_bytes;
    freed_by_each.iter_mut().zip(&part.freed_by_each_bytes).for_each(|(sum, freed)| *sum += freed);
}

/// Of several snapshots at one point each other one keeps what this one does; a clone that reads by it does, too.
fn freed_by(record: &VolumeRecord, snapshot: &Snapshot, freed_by_each: &[u64]) -> u64 {
    let is_shared = record.snapshots.iter().filter(|other| other.point == snapshot.point).count() > 1;
    if is_shared || record.clones.iter().any(|clone| clone.point == snapshot.point) {
        return 0;
    }
    let at = record.points().iter().position(|&point| point == snapshot.point);
    freed_by_each[at.expect("the points are those of the snapshots")]
}
