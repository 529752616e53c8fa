//! From the names of snapshots to what is read of which replicas.

use crate::client::explain;
use anyhow::{Context, ensure};
use ashlar_changes::{Replicas, Scope};
use ashlar_rpc::control::{self, cluster_client::ClusterClient};
use ashlar_rpc::convert::record_from_proto;
use ashlar_types::{ByteCount, Lsn, SnapshotId, VolumeId, VolumeRecord};
use tonic::transport::Channel;

/// A snapshot, or what changed since another one of its volume.
pub(super) struct Source {
    pub(super) target: SnapshotId,
    pub(super) base: Option<SnapshotId>,
    pub(super) scope: Scope,
    pub(super) volume: VolumeId,
    pub(super) volume_name: String,
}

/// The record, and whom to ask.
pub(super) fn replicas_of(message: &control::VolumeRecord) -> anyhow::Result<Replicas> {
    let record = record_from_proto(message).context("the volume's record")?;
    let addresses = message.members.iter().map(|member| member.address.clone()).collect();
    Ok(Replicas::new(record, addresses))
}

impl Source {
    pub(super) async fn open(
        client: &mut ClusterClient<Channel>,
        target: String,
        base: Option<String>,
    ) -> anyhow::Result<(Source, Replicas)> {
        let target = snapshot(client, target).await?;
        let base = match base {
            Some(base) => Some(snapshot(client, base).await?),
            None => None,
        };
        if let Some(base) = base.as_ref().filter(|base| base.volume != target.volume) {
            let (one, other) = (&base.name, &target.name);
            anyhow::bail!("{one} and {other} are snapshots of different volumes: only those of one can be compared");
        }
        let message = record_message(client, &target.volume).await?;
        let replicas = replicas_of(&message)?;
        let record = replicas.record();
        let (target_id, to) = point(record, &target)?;
        let base_point = base.as_ref().map(|base| point(record, base)).transpose()?;
        if let (Some(base), Some((_, from))) = (&base, base_point) {
            let (one, other) = (&base.name, &target.name);
            ensure!(from <= to, "{one} was taken after {other}: give the older one first");
        }
        let scope = Scope { base: base_point.map(|(_, from)| from), target: to, size: ByteCount(target.size_bytes) };
        let (volume, volume_name) = (record.volume, target.volume_name);
        Ok((Source { target: target_id, base: base_point.map(|(id, _)| id), scope, volume, volume_name }, replicas))
    }

    /// To be asked after the last byte was read: what is read of a snapshot that is gone may be newer.
    pub(super) async fn check_still_there(&self, client: &mut ClusterClient<Channel>) -> anyhow::Result<()> {
        let message = record_message(client, &self.volume.to_string()).await?;
        for id in self.base.iter().chain([&self.target]) {
            let is_there = message.snapshots.iter().any(|kept| kept.snapshot == id.to_string());
            ensure!(is_there, "snapshot {id} was deleted meanwhile, so what was read of it counts for nothing");
        }
        Ok(())
    }
}

async fn snapshot(client: &mut ClusterClient<Channel>, name: String) -> anyhow::Result<control::Snapshot> {
    let found = client.get_snapshot(control::SnapshotRef { snapshot: name }).await.map_err(explain)?.into_inner();
    ensure!(found.ready, "snapshot {} is still being taken: create it once more", found.name);
    Ok(found)
}

pub(super) async fn record_message(
    client: &mut ClusterClient<Channel>,
    volume: &str,
) -> anyhow::Result<control::VolumeRecord> {
    let request = control::VolumeRef { volume: volume.to_owned() };
    let volume = client.get_volume(request).await.map_err(explain)?.into_inner();
    volume.record.context("the control plane gave no record of the volume")
}

fn point(record: &VolumeRecord, snapshot: &control::Snapshot) -> anyhow::Result<(SnapshotId, Lsn)> {
    let id: SnapshotId = snapshot.id.parse().context("the snapshot's id")?;
    let kept = record.snapshot(id).with_context(|| format!("snapshot {} is gone", snapshot.name))?;
    Ok((id, kept.point))
}
