//! Between the control API's messages and the types of `ashlar-types`. What comes from a peer is checked here, once.

use crate::control;
use ashlar_types::{
    Base, ByteCount, Change, ChangeAnswer, ChunkIndex, ChunkRun, ClonePoint, DiskId, Epoch, Geometry, Lsn, Member,
    MemberState, Origin, SNAPSHOTS_MAX, Slip, Snapshot, VolumeRecord,
};
use std::str::FromStr;

/// What is wrong with a message of the control API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    #[error("{field}: {reason}")]
    Field { field: &'static str, reason: String },
    #[error("{0} is missing")]
    Missing(&'static str),
}

fn parse<T: FromStr<Err = impl ToString>>(field: &'static str, text: &str) -> Result<T, ConvertError> {
    text.parse().map_err(|error: T::Err| ConvertError::Field { field, reason: error.to_string() })
}

fn parse_optional<T: FromStr<Err = impl ToString>>(field: &'static str, text: &str) -> Result<Option<T>, ConvertError> {
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

fn epoch(number: u32) -> Result<Epoch, ConvertError> {
    Epoch::new(number)
        .ok_or(ConvertError::Field { field: "epoch", reason: format!("{number} is above {}", Epoch::MAX) })
}

pub fn disks(texts: &[String]) -> Result<Vec<DiskId>, ConvertError> {
    texts.iter().map(|text| parse("disk", text)).collect()
}

/// `address_of` gives the data address of a disk's chunkserver, empty if unknown.
pub fn record_to_proto(record: &VolumeRecord, address_of: impl Fn(DiskId) -> String) -> control::VolumeRecord {
    control::VolumeRecord {
        volume: record.volume.to_string(),
        size_bytes: record.size.0,
        epoch: record.epoch.number(),
        version: record.version,
        holder: record.holder.as_ref().map(ToString::to_string).unwrap_or_default(),
        served_epoch: record.served.number(),
        clean: record.clean,
        min_replicas: u32::from(record.min_replicas),
        members: record.members.iter().map(|member| member_to_proto(member, address_of(member.disk))).collect(),
        chunks: record.chunks.iter().map(run_to_proto).collect(),
        declared_lost: record.declared_lost.iter().map(ToString::to_string).collect(),
        io_timeout_ms: 0,
        cluster: record.cluster.to_string(),
        snapshots: record.snapshots.iter().map(snapshot_to_proto).collect(),
        clones: record.clones.iter().map(clone_to_proto).collect(),
        origin: record.origin.as_ref().map(origin_to_proto),
        settings: None,
    }
}

fn snapshot_to_proto(snapshot: &Snapshot) -> control::SnapshotPoint {
    control::SnapshotPoint { snapshot: snapshot.id.to_string(), point_lsn: snapshot.point.raw() }
}

fn snapshot_from_proto(message: &control::SnapshotPoint) -> Result<Snapshot, ConvertError> {
    Ok(Snapshot { id: parse("snapshot", &message.snapshot)?, point: Lsn::from_raw(message.point_lsn) })
}

fn clone_to_proto(clone: &ClonePoint) -> control::ClonePoint {
    control::ClonePoint { clone: clone.clone.to_string(), point_lsn: clone.point.raw() }
}

fn clone_from_proto(message: &control::ClonePoint) -> Result<ClonePoint, ConvertError> {
    Ok(ClonePoint { clone: parse("clone", &message.clone)?, point: Lsn::from_raw(message.point_lsn) })
}

fn origin_to_proto(origin: &Origin) -> control::Origin {
    let Base { volume, point } = origin.base;
    control::Origin { volume: volume.to_string(), point_lsn: point.raw(), made: origin.is_made }
}

fn origin_from_proto(message: &control::Origin) -> Result<Origin, ConvertError> {
    let base = Base { volume: parse("origin volume", &message.volume)?, point: Lsn::from_raw(message.point_lsn) };
    Ok(Origin { base, is_made: message.made })
}

fn member_to_proto(member: &Member, address: String) -> control::Member {
    let (state, commit) = match member.state {
        MemberState::InSync => (control::MemberState::InSync, Lsn::ZERO),
        MemberState::Syncing { commit } => (control::MemberState::Syncing, commit),
        MemberState::Out { commit } => (control::MemberState::Out, commit),
    };
    control::Member {
        disk: member.disk.to_string(),
        node: member.node.to_string(),
        zone: member.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: state as i32,
        commit_lsn: commit.raw(),
        address,
    }
}

fn run_to_proto(run: &ChunkRun) -> control::ChunkRun {
    let members = run.members.iter().map(|&index| u32::from(index)).collect();
    control::ChunkRun { first_chunk: run.first.0, count: run.count, members }
}

/// The record without `last_change`, which only the catalog keeps.
pub fn record_from_proto(message: &control::VolumeRecord) -> Result<VolumeRecord, ConvertError> {
    let record = VolumeRecord {
        cluster: parse("cluster", &message.cluster)?,
        volume: parse("volume", &message.volume)?,
        size: ByteCount(message.size_bytes),
        epoch: epoch(message.epoch)?,
        version: message.version,
        holder: parse_optional("holder", &message.holder)?,
        served: epoch(message.served_epoch)?,
        clean: message.clean,
        min_replicas: u8::try_from(message.min_replicas)
            .map_err(|_| ConvertError::Field { field: "min_replicas", reason: message.min_replicas.to_string() })?,
        members: message.members.iter().map(member_from_proto).collect::<Result<_, _>>()?,
        chunks: message.chunks.iter().map(run_from_proto).collect::<Result<_, _>>()?,
        declared_lost: disks(&message.declared_lost)?,
        snapshots: message.snapshots.iter().map(snapshot_from_proto).collect::<Result<_, _>>()?,
        clones: message.clones.iter().map(clone_from_proto).collect::<Result<_, _>>()?,
        origin: message.origin.as_ref().map(origin_from_proto).transpose()?,
        last_change: None,
    };
    check_chunks(&record)?;
    check_snapshots(&record)?;
    Ok(record)
}

fn member_from_proto(message: &control::Member) -> Result<Member, ConvertError> {
    let commit = Lsn::from_raw(message.commit_lsn);
    let state = match message.state() {
        control::MemberState::InSync => MemberState::InSync,
        control::MemberState::Syncing => MemberState::Syncing { commit },
        control::MemberState::Out => MemberState::Out { commit },
        control::MemberState::Unspecified => return Err(ConvertError::Missing("member state")),
    };
    Ok(Member {
        disk: parse("disk", &message.disk)?,
        node: parse("node", &message.node)?,
        zone: parse_optional("zone", &message.zone)?,
        state,
    })
}

fn run_from_proto(message: &control::ChunkRun) -> Result<ChunkRun, ConvertError> {
    let index = |&index: &u32| {
        u16::try_from(index).map_err(|_| ConvertError::Field { field: "chunk member", reason: index.to_string() })
    };
    Ok(ChunkRun {
        first: ChunkIndex(message.first_chunk),
        count: message.count,
        members: message.members.iter().map(index).collect::<Result<_, _>>()?,
    })
}

/// Every chunk is covered once, in order, by members that exist.
fn check_chunks(record: &VolumeRecord) -> Result<(), ConvertError> {
    let bad = |reason: String| ConvertError::Field { field: "chunks", reason };
    let geometry = Geometry::new(record.size)
        .map_err(|error| ConvertError::Field { field: "size_bytes", reason: error.to_string() })?;
    let mut next = 0u32;
    for run in &record.chunks {
        if run.first.0 != next || run.count == 0 {
            return Err(bad(format!("run at chunk {} where chunk {next} is due", run.first)));
        }
        if let Some(index) = run
            .members
            .iter()
            .find(|&&index| usize::from(index) >= record.members.len() && !Slip::MemberBelieved.is_on())
        {
            return Err(bad(format!("member {index} of {}", record.members.len())));
        }
        next = next.checked_add(run.count).ok_or_else(|| bad("too many chunks".to_owned()))?;
    }
    if next == geometry.chunk_count() {
        Ok(())
    } else {
        Err(bad(format!("{next} of {} covered", geometry.chunk_count())))
    }
}

/// Their points are read as ascending ones.
fn check_snapshots(record: &VolumeRecord) -> Result<(), ConvertError> {
    let bad = |reason: String| Err(ConvertError::Field { field: "snapshots", reason });
    let count = record.snapshots.len() + record.clones.len();
    if count > SNAPSHOTS_MAX {
        return bad(format!("{count} of them and of clones, at most {SNAPSHOTS_MAX} are allowed"));
    }
    let ascend = record.snapshots.is_sorted_by_key(|snapshot| snapshot.point)
        && record.clones.is_sorted_by_key(|clone| clone.point);
    if !ascend || record.points().contains(&Lsn::ZERO) {
        return bad("their points do not ascend".to_owned());
    }
    Ok(())
}

pub fn proposal_to_proto(volume: String, epoch: Epoch, version: u64, change: &Change) -> control::Proposal {
    use control::proposal::Change as Out;
    let change = match change {
        Change::Eject { disks, commit, reason } => Out::Eject(control::Eject {
            disks: disks.iter().map(ToString::to_string).collect(),
            commit_lsn: commit.raw(),
            reason: reason.clone(),
        }),
        Change::BeginReturn { disk } => Out::BeginReturn(control::BeginReturn { disk: disk.to_string() }),
        Change::Join { disk } => Out::Join(control::Join { disk: disk.to_string() }),
        Change::AbandonReturn { disk } => Out::AbandonReturn(control::AbandonReturn { disk: disk.to_string() }),
        Change::CloseClean => Out::CloseClean(control::CloseClean { commit_lsn: 0 }),
        Change::OpenDirty => Out::OpenDirty(control::OpenDirty {}),
        Change::Snapshot(snapshot) => Out::Snapshot(snapshot_to_proto(snapshot)),
    };
    control::Proposal { volume, epoch: epoch.number(), version, change: Some(change) }
}

/// Epoch, version and change of a proposal.
pub fn proposal_from_proto(message: &control::Proposal) -> Result<(Epoch, u64, Change), ConvertError> {
    use control::proposal::Change as In;
    let change = match message.change.as_ref().ok_or(ConvertError::Missing("change"))? {
        In::Eject(eject) => Change::Eject {
            disks: disks(&eject.disks)?,
            commit: Lsn::from_raw(eject.commit_lsn),
            reason: eject.reason.chars().take(200).collect(),
        },
        In::BeginReturn(change) => Change::BeginReturn { disk: parse("disk", &change.disk)? },
        In::Join(change) => Change::Join { disk: parse("disk", &change.disk)? },
        In::AbandonReturn(change) => Change::AbandonReturn { disk: parse("disk", &change.disk)? },
        In::CloseClean(_) => Change::CloseClean,
        In::OpenDirty(_) => Change::OpenDirty,
        In::Snapshot(snapshot) => Change::Snapshot(snapshot_from_proto(snapshot)?),
    };
    Ok((epoch(message.epoch)?, message.version, change))
}

pub fn answer_to_proto(answer: &ChangeAnswer, address_of: impl Fn(DiskId) -> String) -> control::ProposalAnswer {
    match answer {
        ChangeAnswer::Applied { record } => control::ProposalAnswer {
            applied: true,
            refusal: String::new(),
            fenced: false,
            record: Some(record_to_proto(record, address_of)),
        },
        ChangeAnswer::Refused { reason, record } => control::ProposalAnswer {
            applied: false,
            refusal: reason.clone(),
            fenced: false,
            record: Some(record_to_proto(record, address_of)),
        },
        ChangeAnswer::Fenced { epoch } => control::ProposalAnswer {
            applied: false,
            refusal: format!("epoch {epoch} was granted"),
            fenced: true,
            record: Some(control::VolumeRecord { epoch: epoch.number(), ..Default::default() }),
        },
    }
}

pub fn answer_from_proto(message: &control::ProposalAnswer) -> Result<ChangeAnswer, ConvertError> {
    let record = message.record.as_ref().ok_or(ConvertError::Missing("record"))?;
    if message.fenced {
        return Ok(ChangeAnswer::Fenced { epoch: epoch(record.epoch)? });
    }
    let record = record_from_proto(record)?;
    if message.applied {
        Ok(ChangeAnswer::Applied { record })
    } else {
        Ok(ChangeAnswer::Refused { reason: message.refusal.clone(), record })
    }
}
