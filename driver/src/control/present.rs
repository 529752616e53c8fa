//! From the catalog's and the registry's types to the messages of the control API.

use super::Control;
use super::condition::{Disks, lost_text};
use super::publication::reading;
use super::registry::{DiskHealth, DiskView, NodeView};
use super::settings::settings_to_proto;
use crate::error::{Error, Result};
use ashlar_catalog::{Claims, ContentSource, DiskFate, Event, StoredGroup, StoredSnapshot, StoredVolume, UseState};
use ashlar_rpc::control::{self, content_source::Of};
use ashlar_rpc::convert::record_to_proto;
use ashlar_types::{VolumeId, VolumeRecord};

impl Control {
    /// A volume that cannot be read keeps nobody from seeing its snapshots.
    pub(crate) async fn present_snapshot(&self, seen: &StoredSnapshot) -> control::Snapshot {
        let snapshot = &seen.snapshot;
        let volume = self.catalog.volume(snapshot.volume).await.unwrap_or_else(|error| {
            tracing::error!(volume = %snapshot.volume, %error, "the volume of a snapshot cannot be read");
            None
        });
        control::Snapshot {
            id: snapshot.id.to_string(),
            name: snapshot.name.to_string(),
            volume: snapshot.volume.to_string(),
            volume_name: volume.map(|seen| seen.volume.name.to_string()).unwrap_or_default(),
            size_bytes: snapshot.size.0,
            created_ms: snapshot.created_ms,
            ready: snapshot.is_ready,
            group: snapshot.group.map(|group| group.to_string()).unwrap_or_default(),
        }
    }

    pub(crate) async fn present_group(&self, seen: &StoredGroup) -> Result<control::SnapshotGroup> {
        let group = &seen.group;
        let mut snapshots = Vec::new();
        for (_, id) in &group.members {
            // In the middle of a deletion some are gone.
            if let Some(member) = self.catalog.snapshot(*id).await? {
                snapshots.push(self.present_snapshot(&member).await);
            }
        }
        Ok(control::SnapshotGroup {
            id: group.id.to_string(),
            name: group.name.to_string(),
            created_ms: group.created_ms,
            held_us: group.held_us,
            ready: group.is_ready,
            snapshots,
        })
    }

    /// One that cannot be read has no name, as one that is gone.
    async fn present_source(&self, source: ContentSource) -> control::ContentSource {
        let (of, name) = match source {
            ContentSource::Snapshot(id) => {
                let found = self.catalog.snapshot(id).await;
                (Of::Snapshot(id.to_string()), found.map(|found| found.map(|found| found.snapshot.name)))
            }
            ContentSource::Volume(id) => {
                let found = self.catalog.volume(id).await;
                (Of::Volume(id.to_string()), found.map(|found| found.map(|found| found.volume.name)))
            }
        };
        let name = name.unwrap_or_else(|error| {
            tracing::error!(?source, %error, "the source of a clone cannot be read");
            None
        });
        control::ContentSource { of: Some(of), name: name.map(|name| name.to_string()).unwrap_or_default() }
    }

    pub(crate) async fn present_record(&self, record: &VolumeRecord) -> control::VolumeRecord {
        let addresses = self.registry.addresses(record).await;
        record_to_proto(record, |disk| addresses.of(disk))
    }

    pub(crate) async fn present_volume(&self, seen: &StoredVolume) -> control::Volume {
        self.present_volume_on(seen, &self.disks_by_id().await).await
    }

    /// The same, with one reading of the disks for many volumes.
    pub(crate) async fn present_volume_on(&self, seen: &StoredVolume, disks: &Disks) -> control::Volume {
        let condition = self.condition(seen, disks).await;
        let volume = &seen.volume;
        let record = &volume.record;
        let source = match volume.source {
            Some(source) => Some(self.present_source(source).await),
            None => None,
        };
        control::Volume {
            id: volume.id().to_string(),
            name: volume.name.to_string(),
            size_bytes: record.size.0,
            parameters: volume.parameters.clone().into_iter().collect(),
            record: Some(self.present_record(record).await),
            r#use: use_to_proto(volume.use_state) as i32,
            fs_type: volume.fs_type.clone(),
            created_ms: volume.created_ms,
            attached: self.registry.attached(record.volume, record.holder.as_ref()).await,
            allowed_nodes: volume.allowed_nodes.iter().map(ToString::to_string).collect(),
            settings: Some(settings_to_proto(volume.settings)),
            condition: Some(control::VolumeCondition { abnormal: condition.abnormal, message: condition.message }),
            published_read_only: volume.published_read_only,
            readers: volume.readers.iter().map(ToString::to_string).collect(),
            settled: reading(seen).is_settled(),
            source,
            space: None,
            repaired: volume.is_repaired && record.holder.is_some(),
            forecast: self.forecast(volume.id()),
            stuck: self.stuck(volume.id()),
            data_lost: volume.data_lost.map(lost_text).unwrap_or_default(),
        }
    }
}

pub(crate) fn use_to_proto(state: UseState) -> control::Use {
    match state {
        UseState::Blank => control::Use::Blank,
        UseState::Formatting => control::Use::Formatting,
        UseState::Used => control::Use::Used,
    }
}

pub(crate) fn use_from_proto(field: &str, state: control::Use) -> Result<UseState> {
    match state {
        control::Use::Blank => Ok(UseState::Blank),
        control::Use::Formatting => Ok(UseState::Formatting),
        control::Use::Used => Ok(UseState::Used),
        control::Use::Unspecified => Err(Error::invalid(format!("{field} is missing"))),
    }
}

pub(crate) fn node_to_proto(view: NodeView) -> control::Node {
    control::Node {
        name: view.node.name.to_string(),
        zone: view.node.zone.map(|zone| zone.to_string()).unwrap_or_default(),
        chunkserver_alive: view.chunkserver_alive,
        datapath_alive: view.datapath_alive,
        datapath_address: view.node.datapath_rpc,
        last_heartbeat_ms: view.heard_ms,
        disk_count: view.disk_count as u32,
        attached_count: view.attached_count as u32,
        draining: view.node.is_draining,
    }
}

pub(crate) fn disk_to_proto(view: DiskView, claims: &Claims) -> control::Disk {
    let state = match view.health {
        DiskHealth::Online => control::DiskState::Online,
        DiskHealth::Silent => control::DiskState::Silent,
        DiskHealth::Failed => control::DiskState::Failed,
        DiskHealth::Lost => control::DiskState::Lost,
    };
    let failure = match view.disk.fate {
        DiskFate::Failed { reason } => reason,
        DiskFate::Usable | DiskFate::Lost => String::new(),
    };
    control::Disk {
        id: view.disk.id.to_string(),
        node: view.disk.node.to_string(),
        state: state as i32,
        capacity_bytes: view.disk.capacity_bytes,
        free_bytes: view.free.0,
        provisioned_bytes: claims.of(view.disk.id).0,
        address: view.data_address,
        failure,
        last_heartbeat_ms: view.heard_ms,
        path: view.disk.path,
        draining: view.disk.is_draining,
        scrub: view.told.scrub,
        smart: view.told.smart,
    }
}

pub(crate) fn event_to_proto(event: Event) -> control::Event {
    control::Event {
        time_ms: event.time_ms,
        kind: event.kind,
        volume: event.volume.map(|id: VolumeId| id.to_string()).unwrap_or_default(),
        disk: event.disk.map(|id| id.to_string()).unwrap_or_default(),
        node: event.node.map(|name| name.to_string()).unwrap_or_default(),
        text: event.text,
        sequence: event.sequence,
        figures: event.figures.into_iter().collect(),
    }
}
