//! Snapshots for CSI: as people's, by the same functions. Nothing is answered before the point is in the catalog, so
//! every snapshot that is answered is ready.

use super::{ControllerService, limit_of, request, signed};
use crate::control::to_the_end;
use crate::csi::params;
use crate::error::{Error, Result};
use ashlar_catalog::StoredSnapshot;
use ashlar_rpc::csi::*;
use ashlar_types::{SnapshotId, VolumeId};

impl ControllerService {
    pub(super) async fn take_snapshot(&self, request: CreateSnapshotRequest) -> Result<CreateSnapshotResponse> {
        let mut faults = Vec::new();
        let name = request::name(&request.name).map_err(|fault| faults.push(fault.message)).ok();
        faults.extend(request::required_id("source_volume_id", &request.source_volume_id).err().map(|f| f.message));
        faults.extend(request::map_fault("parameters", &request.parameters));
        faults.extend(params::refuse_all(&request.parameters));
        let (Some(name), true) = (name, faults.is_empty()) else { return Err(Error::invalid_all(&faults)) };
        let volume = self.find(&request.source_volume_id).await?.volume.id();
        let control = self.control.clone();
        let taken = to_the_end(async move { control.create_snapshot(&name, volume).await }).await?;
        Ok(CreateSnapshotResponse { snapshot: Some(present(&taken)) })
    }

    pub(super) async fn remove_snapshot(&self, request: DeleteSnapshotRequest) -> Result<DeleteSnapshotResponse> {
        request::required_id("snapshot_id", &request.snapshot_id)?;
        // What is no id of ours names no snapshot: there is nothing to delete.
        if let Ok(id) = request.snapshot_id.parse::<SnapshotId>() {
            let control = self.control.clone();
            to_the_end(async move { control.delete_snapshot(id).await }).await?;
        }
        Ok(DeleteSnapshotResponse {})
    }

    pub(super) async fn show_snapshot(&self, request: GetSnapshotRequest) -> Result<GetSnapshotResponse> {
        request::required_id("snapshot_id", &request.snapshot_id)?;
        let found = self.snapshot(&request.snapshot_id).await?;
        let shown = request::shown(&request.snapshot_id);
        let found = found.ok_or_else(|| Error::not_found(format_args!("snapshot {shown}")))?;
        Ok(GetSnapshotResponse { snapshot: Some(present(&found)) })
    }

    /// What is not there is an empty list.
    pub(super) async fn page_of_snapshots(&self, request: ListSnapshotsRequest) -> Result<ListSnapshotsResponse> {
        let limit = limit_of(request.max_entries)?;
        let (volume, token) = (request.source_volume_id.as_str(), request.starting_token.as_str());
        let (snapshots, next) = match request.snapshot_id.as_str() {
            "" if volume.is_empty() => {
                let (page, next) = self.control.list_snapshots(token, limit).await?;
                (page.snapshots, next)
            }
            "" => match volume.parse::<VolumeId>() {
                Ok(volume) => self.control.list_snapshots_of(volume, token, limit).await?,
                Err(_) => (Vec::new(), None),
            },
            id => {
                let found = self.snapshot(id).await?;
                let of_volume =
                    |found: &StoredSnapshot| volume.is_empty() || found.snapshot.volume.to_string() == volume;
                (found.into_iter().filter(of_volume).collect(), None)
            }
        };
        let ready = snapshots.iter().filter(|seen| seen.snapshot.is_ready);
        let entries = ready.map(|seen| list_snapshots_response::Entry { snapshot: Some(present(seen)) }).collect();
        Ok(ListSnapshotsResponse { entries, next_token: next.map(|id| id.to_string()).unwrap_or_default() })
    }

    /// By id only: names are for people.
    async fn snapshot(&self, id: &str) -> Result<Option<StoredSnapshot>> {
        let Ok(id) = id.parse::<SnapshotId>() else { return Ok(None) };
        let found = self.control.catalog.snapshot(id).await?;
        Ok(found.filter(|found| found.snapshot.is_ready && !found.snapshot.for_clone))
    }
}

pub(super) fn present(seen: &StoredSnapshot) -> Snapshot {
    let snapshot = &seen.snapshot;
    Snapshot {
        size_bytes: signed(snapshot.size.0),
        snapshot_id: snapshot.id.to_string(),
        source_volume_id: snapshot.volume.to_string(),
        creation_time: Some(time(snapshot.created_ms)),
        ready_to_use: snapshot.is_ready,
        group_snapshot_id: snapshot.group.map(|group| group.to_string()).unwrap_or_default(),
    }
}

pub(super) fn time(since_1970_ms: u64) -> prost_types::Timestamp {
    let nanos = (since_1970_ms % 1000) as i32 * 1_000_000;
    prost_types::Timestamp { seconds: signed(since_1970_ms / 1000), nanos }
}
