//! What the CLI's JSON looks like: stable names, states as words, unknown values as null. Made from the control API's
//! messages.

mod choices;
mod nodes;
mod space;

pub use choices::Choices;
pub use nodes::{Disk, Node, SafeToStop, Scrub, Smart, Status};
pub use space::{SnapshotSpace, Space};

use ashlar_rpc::control::{self, content_source::Of};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Serialize)]
pub struct Volume {
    pub id: String,
    pub name: String,
    pub size_bytes: u64,
    /// blank, formatting or used.
    #[serde(rename = "use")]
    pub use_state: &'static str,
    pub fs_type: Option<String>,
    pub parameters: BTreeMap<String, String>,
    pub created_ms: u64,
    /// What it began with.
    pub source: Option<Source>,
    /// Of a clone that still reads from it where it has nothing itself.
    pub origin: Option<Origin>,
    /// Node that holds it.
    pub holder: Option<String>,
    /// Nodes that it is published to for reading by many.
    pub readers: Vec<String>,
    pub epoch: u32,
    pub clean: bool,
    pub min_replicas: u32,
    pub settings: Settings,
    /// Every member is in-sync.
    pub healthy: bool,
    /// Whether something is wrong, and in words what, and what to do.
    pub abnormal: bool,
    pub condition: String,
    pub members: Vec<Member>,
    pub attached: Option<Attached>,
    /// Its holder repairs it, and gives it up to whoever wants to use it.
    pub repaired: bool,
    /// While fewer replicas are in-sync than it should have.
    pub forecast: Option<Forecast>,
    /// What should be done for it and cannot, and why.
    pub stuck: Vec<String>,
    /// How it lost its data.
    pub data_lost: Option<String>,
    /// With `volume show` alone.
    pub space: Option<Space>,
}

#[derive(Debug, Serialize)]
pub struct Forecast {
    /// Volumes that go before it.
    pub position: u32,
    pub remaining_bytes: u64,
    /// None: nothing is being copied.
    pub protected_in_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct Source {
    /// snapshot or volume.
    pub kind: &'static str,
    pub id: String,
    /// None: it is gone.
    pub name: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Origin {
    /// Id of the volume.
    pub volume: String,
    pub point_lsn: u64,
    /// Its replicas exist; before that it cannot be attached.
    pub made: bool,
}

#[derive(Debug, Serialize)]
pub struct Settings {
    pub version: u64,
    /// critical, high, normal or low.
    pub class: &'static str,
    pub iops: Option<Limit>,
    /// In bytes.
    pub bandwidth: Option<Limit>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limit {
    pub per_second: u64,
    pub burst: u64,
}

#[derive(Debug, Serialize)]
pub struct Member {
    pub disk: String,
    pub node: String,
    pub zone: Option<String>,
    /// in-sync, syncing or out.
    pub state: &'static str,
    pub commit_lsn: u64,
    pub address: Option<String>,
    pub connected: Option<bool>,
    pub resync_blocks_copied: Option<u64>,
    pub resync_blocks_total: Option<u64>,
}

/// As its datapath last reported.
#[derive(Debug, Serialize)]
pub struct Attached {
    pub phase: String,
    pub device: Option<String>,
    pub epoch: u32,
    pub reads: u64,
    pub writes: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub longest_gap_ms: u64,
    pub repaired_blocks: u64,
    /// Of the replicas with each other, since it was attached; none: its datapath does not tell.
    pub comparison: Option<Comparison>,
    pub commit_lsn: u64,
    /// Of the settings that it is served by.
    pub settings_version: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Comparison {
    pub rounds: u64,
    /// Looks at a slot with a verdict, and those that ended without one.
    pub compared_slots: u64,
    pub passed_slots: u64,
    pub differing_slots: u64,
}

impl Volume {
    pub fn of(volume: control::Volume) -> Volume {
        let use_state = match volume.r#use() {
            control::Use::Blank => "blank",
            control::Use::Formatting => "formatting",
            control::Use::Used => "used",
            control::Use::Unspecified => "unknown",
        };
        let record = volume.record.unwrap_or_default();
        let replicas = record.chunks.iter().map(|run| run.members.len()).max().unwrap_or(0);
        let condition = volume.condition.unwrap_or_default();
        let live = volume.attached.as_ref().map(|attached| attached.members.as_slice()).unwrap_or_default();
        // One whose chunks another disk has is no member but to a writer that may not have heard.
        let holds = |index: usize| record.chunks.iter().any(|run| run.members.contains(&(index as u32)));
        let holders = record.members.into_iter().enumerate().filter(|&(index, _)| holds(index));
        let members: Vec<Member> = holders.map(|(_, member)| Member::of(member, live)).collect();
        Volume {
            id: volume.id,
            name: volume.name,
            size_bytes: volume.size_bytes,
            use_state,
            fs_type: filled(volume.fs_type),
            parameters: volume.parameters.into_iter().collect(),
            created_ms: volume.created_ms,
            source: volume.source.and_then(Source::of),
            origin: record.origin.map(|origin| Origin {
                volume: origin.volume,
                point_lsn: origin.point_lsn,
                made: origin.made,
            }),
            holder: filled(record.holder),
            readers: volume.readers,
            epoch: record.epoch,
            clean: record.clean,
            min_replicas: record.min_replicas,
            settings: Settings::of(volume.settings.unwrap_or_default()),
            healthy: members.iter().all(|member| member.state == "in-sync"),
            abnormal: condition.abnormal,
            condition: condition.message,
            members,
            attached: volume.attached.map(Attached::of),
            repaired: volume.repaired,
            forecast: volume.forecast.map(|forecast| Forecast {
                position: forecast.position,
                remaining_bytes: forecast.remaining_bytes,
                protected_in_ms: forecast.protected_in_ms,
            }),
            stuck: volume.stuck,
            data_lost: filled(volume.data_lost),
            space: volume.space.map(|space| Space::of(space, replicas)),
        }
    }

    /// Its datapath serves it by others still.
    pub fn settings_pending(&self) -> bool {
        self.attached.as_ref().is_some_and(|attached| attached.settings_version != self.settings.version)
    }

    /// How far a clone is.
    pub fn clone_state(&self) -> &'static str {
        match &self.origin {
            Some(Origin { made: false, .. }) => "its replicas are being made",
            Some(Origin { made: true, .. }) => "reads from its source where it has nothing itself",
            None => "has everything itself",
        }
    }

    /// `3/3`: members in sync of all.
    pub fn in_sync(&self) -> String {
        let in_sync = self.members.iter().filter(|member| member.state == "in-sync").count();
        format!("{in_sync}/{}", self.members.len())
    }
}

impl Source {
    fn of(source: control::ContentSource) -> Option<Source> {
        let (kind, id) = match source.of? {
            Of::Snapshot(id) => ("snapshot", id),
            Of::Volume(id) => ("volume", id),
        };
        Some(Source { kind, id, name: filled(source.name) })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} {name} ({})", self.kind, self.id),
            None => write!(f, "{} {}, which is gone", self.kind, self.id),
        }
    }
}

impl Settings {
    fn of(settings: control::Settings) -> Settings {
        let limit = |limit: control::Limit| Limit { per_second: limit.per_second, burst: limit.burst };
        let class = match settings.class() {
            control::Class::Critical => "critical",
            control::Class::High => "high",
            control::Class::Normal => "normal",
            control::Class::Low => "low",
            control::Class::Unspecified => "unknown",
        };
        Settings {
            version: settings.version,
            class,
            iops: settings.operations.map(limit),
            bandwidth: settings.bytes.map(limit),
        }
    }
}

impl Member {
    fn of(member: control::Member, live: &[control::MemberStatus]) -> Member {
        let state = member_state(member.state());
        let live = live.iter().find(|status| status.disk == member.disk);
        let resync = live.filter(|_| state == "syncing");
        Member {
            state,
            connected: live.map(|status| status.connected),
            resync_blocks_copied: resync.map(|status| status.resync_blocks_copied),
            resync_blocks_total: resync.map(|status| status.resync_blocks_total),
            disk: member.disk,
            node: member.node,
            zone: filled(member.zone),
            commit_lsn: member.commit_lsn,
            address: filled(member.address),
        }
    }
}

impl Attached {
    fn of(attached: control::AttachedVolume) -> Attached {
        Attached {
            device: attached.device.and_then(|device| filled(device.path)),
            phase: attached.phase,
            epoch: attached.epoch,
            reads: attached.reads,
            writes: attached.writes,
            read_bytes: attached.read_bytes,
            written_bytes: attached.written_bytes,
            longest_gap_ms: attached.longest_gap_ms,
            repaired_blocks: attached.repaired_blocks,
            comparison: attached.comparison.map(Comparison::of),
            commit_lsn: attached.commit_lsn,
            settings_version: attached.settings_version,
        }
    }
}

impl Comparison {
    fn of(comparison: control::Comparison) -> Comparison {
        let control::Comparison { rounds, compared_slots, passed_slots, differing_slots } = comparison;
        Comparison { rounds, compared_slots, passed_slots, differing_slots }
    }
}

fn member_state(state: control::MemberState) -> &'static str {
    match state {
        control::MemberState::InSync => "in-sync",
        control::MemberState::Syncing => "syncing",
        control::MemberState::Out => "out",
        control::MemberState::Unspecified => "unknown",
    }
}

#[derive(Debug, Serialize)]
pub struct Snapshot {
    pub id: String,
    pub name: String,
    /// Id of the volume that it was taken of.
    pub volume: String,
    pub volume_name: Option<String>,
    pub size_bytes: u64,
    pub created_ms: u64,
    pub ready: bool,
    /// Id of the group that it is one of.
    pub group: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct SnapshotGroup {
    pub id: String,
    pub name: String,
    pub created_ms: u64,
    /// How long the writes of a volume were held for it, at most.
    pub held_us: u64,
    pub ready: bool,
    pub snapshots: Vec<Snapshot>,
}

impl SnapshotGroup {
    pub fn of(group: control::SnapshotGroup) -> SnapshotGroup {
        SnapshotGroup {
            id: group.id,
            name: group.name,
            created_ms: group.created_ms,
            held_us: group.held_us,
            ready: group.ready,
            snapshots: group.snapshots.into_iter().map(Snapshot::of).collect(),
        }
    }

    pub fn state(&self) -> &'static str {
        if self.ready { "ready" } else { "taking" }
    }
}

impl Snapshot {
    pub fn of(snapshot: control::Snapshot) -> Snapshot {
        Snapshot {
            id: snapshot.id,
            name: snapshot.name,
            volume: snapshot.volume,
            volume_name: filled(snapshot.volume_name),
            size_bytes: snapshot.size_bytes,
            created_ms: snapshot.created_ms,
            ready: snapshot.ready,
            group: filled(snapshot.group),
        }
    }

    pub fn state(&self) -> &'static str {
        if self.ready { "ready" } else { "taking" }
    }
}

#[derive(Debug, Serialize)]
pub struct Event {
    pub sequence: u64,
    pub time_ms: u64,
    pub kind: String,
    pub volume: Option<String>,
    pub disk: Option<String>,
    pub node: Option<String>,
    pub text: String,
    pub figures: BTreeMap<String, String>,
}

impl Event {
    pub fn of(event: control::Event) -> Event {
        Event {
            sequence: event.sequence,
            time_ms: event.time_ms,
            kind: event.kind,
            volume: filled(event.volume),
            disk: filled(event.disk),
            node: filled(event.node),
            text: event.text,
            figures: event.figures.into_iter().collect(),
        }
    }
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> control::Volume {
        let member = |disk: &str, state: control::MemberState| control::Member {
            disk: disk.to_owned(),
            state: state as i32,
            ..Default::default()
        };
        let status = control::MemberStatus {
            disk: "d2".to_owned(),
            connected: true,
            resync_blocks_copied: 5,
            resync_blocks_total: 9,
            ..Default::default()
        };
        control::Volume {
            r#use: control::Use::Used as i32,
            record: Some(control::VolumeRecord {
                members: vec![
                    member("d1", control::MemberState::InSync),
                    member("d2", control::MemberState::Syncing),
                    member("gave its chunks away", control::MemberState::Out),
                ],
                chunks: vec![control::ChunkRun { first_chunk: 0, count: 1, members: vec![0, 1] }],
                ..Default::default()
            }),
            attached: Some(control::AttachedVolume { members: vec![status], ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn members_carry_what_the_datapath_reports() {
        let volume = Volume::of(volume());
        assert_eq!((volume.use_state, volume.healthy, volume.in_sync()), ("used", false, "1/2".to_owned()));
        assert_eq!(volume.members[0].connected, None);
        assert_eq!(volume.members[1].resync_blocks_copied, Some(5));
        assert_eq!(volume.members[1].state, "syncing");
    }

    #[test]
    fn what_is_unknown_is_null_in_json() {
        let json = serde_json::to_value(Volume::of(control::Volume::default())).unwrap();
        assert!(json["holder"].is_null() && json["attached"].is_null() && json["use"] == "unknown");
    }
}
