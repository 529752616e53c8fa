//! Names of the catalog's keys. The only place that makes or takes apart a key.
//!
//! | key | value |
//! | --- | --- |
//! | `cluster` | the cluster's identity |
//! | `volume/<id>` | what a volume was asked to be, and its use |
//! | `record/<id>` | its membership record, without the chunk table |
//! | `chunks/<id>/<page>` | one page of its chunk table |
//! | `name/<name>` | the id of the volume that has this name |
//! | `snapshot/<id>` | a snapshot: of what, when, and whether it was taken; its point is in the volume's record |
//! | `snapshot-name/<name>` | the id of the snapshot that has this name |
//! | `clone-snapshot/<name>` | the id of the snapshot that was taken for the clone of this name, before it exists |
//! | `clone/<id>` | of which volume this clone's replicas are made and read |
//! | `group/<id>` | a group of snapshots: which, when, and whether they show one instant |
//! | `group-name/<name>` | the id of the group that has this name |
//! | `node/<name>`, `disk/<id>` | the registry |
//! | `claim/<disk>` | bytes promised to volumes |
//! | `choice/<volume>` | why its replicas lie where they lie |
//! | `removed/<disk>` | a disk that was taken out for good |
//! | `tombstone/<disk>/<volume>` | a replica that is still to be deleted |
//! | `forgotten/<volume>` | points of this volume were given up, and its replicas are still to hear of it |
//! | `event/<sequence>` and `event-tail` | the newest events, and the sequence of the last |
//!
//! Ids are UUID text, numbers 16 hex digits, so that keys sort as what they name does. Names hold no `/` (checked by
//! their types).

use ashlar_types::{DiskId, GroupId, NodeName, SnapshotId, VolumeId, VolumeName};

pub(crate) const CLUSTER: &str = "cluster";
pub(crate) const VOLUMES: &str = "volume/";
pub(crate) const RECORDS: &str = "record/";
pub(crate) const SNAPSHOTS: &str = "snapshot/";
pub(crate) const CLONE_SNAPSHOTS: &str = "clone-snapshot/";
pub(crate) const CLONES: &str = "clone/";
pub(crate) const GROUPS: &str = "group/";
pub(crate) const NODES: &str = "node/";
pub(crate) const DISKS: &str = "disk/";
pub(crate) const CLAIMS: &str = "claim/";
pub(crate) const REMOVED: &str = "removed/";
pub(crate) const TOMBSTONES: &str = "tombstone/";
pub(crate) const FORGOTTEN: &str = "forgotten/";
pub(crate) const EVENTS: &str = "event/";
pub(crate) const EVENT_TAIL: &str = "event-tail";

pub(crate) fn volume(id: VolumeId) -> String {
    format!("{VOLUMES}{id}")
}

pub(crate) fn record(id: VolumeId) -> String {
    format!("{RECORDS}{id}")
}

/// Prefix of a volume's chunk pages.
pub(crate) fn chunks(id: VolumeId) -> String {
    format!("chunks/{id}/")
}

pub(crate) fn chunk_page(id: VolumeId, page: usize) -> String {
    format!("{}{page:016x}", chunks(id))
}

pub(crate) fn name(name: &VolumeName) -> String {
    format!("name/{name}")
}

pub(crate) fn snapshot(id: SnapshotId) -> String {
    format!("{SNAPSHOTS}{id}")
}

pub(crate) fn snapshot_name(name: &VolumeName) -> String {
    format!("snapshot-name/{name}")
}

pub(crate) fn clone_snapshot(name: &VolumeName) -> String {
    format!("{CLONE_SNAPSHOTS}{name}")
}

pub(crate) fn clone(id: VolumeId) -> String {
    format!("{CLONES}{id}")
}

pub(crate) fn group(id: GroupId) -> String {
    format!("{GROUPS}{id}")
}

pub(crate) fn group_name(name: &VolumeName) -> String {
    format!("group-name/{name}")
}

pub(crate) fn node(name: &NodeName) -> String {
    format!("{NODES}{name}")
}

pub(crate) fn disk(id: DiskId) -> String {
    format!("{DISKS}{id}")
}

pub(crate) fn claim(id: DiskId) -> String {
    format!("{CLAIMS}{id}")
}

pub(crate) fn choices(id: VolumeId) -> String {
    format!("choice/{id}")
}

pub(crate) fn removed(id: DiskId) -> String {
    format!("{REMOVED}{id}")
}

pub(crate) fn tombstone(disk: DiskId, volume: VolumeId) -> String {
    format!("{TOMBSTONES}{disk}/{volume}")
}

pub(crate) fn forgotten(volume: VolumeId) -> String {
    format!("{FORGOTTEN}{volume}")
}

pub(crate) fn event(sequence: u64) -> String {
    format!("{EVENTS}{sequence:016x}")
}
