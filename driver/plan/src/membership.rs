//! Membership: how a volume record may change. Every rule that keeps two writers apart, or a replica that lacks a
//! write out of the in-sync set, and that the control plane must keep, is in this file; it runs in the driver and in
//! the simulator alike.
//!
//! Invariants of a record that went through here:
//! - epoch and version never decrease, and version grows with every change;
//! - a change on behalf of a writer happens only under the epoch of the latest grant (C1);
//! - no ejection leaves a chunk with fewer than `min_replicas` in-sync members (P7);
//! - members keep their index as long as a writer may know it: they are added at the end and go at a grant only;
//! - a disk loses its chunks only when it is not in-sync, or without a writer to holders that are all in-sync;
//! - a disk becomes in-sync only from syncing, and syncing only from out, by the writer's word;
//! - a commit point of a member that is out never rises, and is at most what the ejecting writer knew;
//! - whomever a writer that was not asked may still read is declared lost until a later one has waited for its leases.

use crate::snapshot;
use ashlar_types::{
    ByteCount, Change, ChangeAnswer, DiskId, Epoch, Geometry, Lsn, MEMBERS_MAX, Member, MemberState, Mutant, NodeName,
    VolumeRecord,
};

/// Most disks that hold one chunk, those that come and go included.
pub const HOLDERS_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("volume is held by node {holder}")]
    Held { holder: NodeName },
    #[error("the clone's replicas are still being made: ask again")]
    NotMade,
    #[error("the epochs of the volume are used up")]
    EpochsUsedUp,
    #[error("disk {disk} is not a member of the volume")]
    NotAMember { disk: DiskId },
    #[error("{in_sync} replicas in-sync would be left, minReplicas is {min}")]
    BelowMinReplicas { in_sync: u8, min: u8 },
    #[error("disk {disk} is a member of the volume already")]
    AlreadyAMember { disk: DiskId },
    #[error("disk {disk} is in-sync: its writer lets go of it first")]
    InSync { disk: DiskId },
    #[error("disk {disk} holds no chunk of the volume")]
    HoldsNothing { disk: DiskId },
    #[error("not every other holder of the chunks of disk {disk} is in-sync")]
    OthersMissing { disk: DiskId },
    #[error("the last writer may live: attach the volume and detach it")]
    NotClosed,
    #[error("no other holder of some chunk of disk {disk} is in-sync")]
    NoOther { disk: DiskId },
    #[error("a chunk has {HOLDERS_MAX} holders already")]
    TooManyHolders,
    #[error("the volume has had {MEMBERS_MAX} members since it was attached: a new attachment forgets those that went")]
    TooManyMembers,
    #[error("a volume of {from} does not become one of {to}: {reason}")]
    Size { from: ByteCount, to: ByteCount, reason: String },
    #[error("minReplicas {min} is not possible with {replicas} replicas")]
    MinReplicas { min: u8, replicas: u8 },
    #[error("minReplicas changes only while the volume is detached: its writer counts leases by it (DESIGN 5.3)")]
    MinReplicasInUse,
    #[error("minReplicas changes only after a clean detach: the last writer may live; attach the volume and detach it")]
    MinReplicasUnclean,
    #[error("without disk {disk} a chunk has {in_sync} replicas in-sync, below minReplicas: prove that it is off")]
    NeedsProof { disk: DiskId, in_sync: u8 },
}

/// Reserves the volume for `node`. Repeating it for the same node changes nothing.
pub fn reserve(record: &VolumeRecord, node: &NodeName) -> Result<VolumeRecord, Refusal> {
    match &record.holder {
        _ if record.origin.is_some_and(|origin| !origin.is_made) => Err(Refusal::NotMade),
        Some(holder) if holder != node => Err(Refusal::Held { holder: holder.clone() }),
        Some(_) => Ok(record.clone()),
        None => Ok(changed(record, |record| record.holder = Some(node.clone()))),
    }
}

/// Grants the next epoch to `node`, which must hold the volume or find it free. From here on every lower epoch's
/// proposal is refused.
pub fn grant(record: &VolumeRecord, node: &NodeName) -> Result<VolumeRecord, Refusal> {
    let reserved = reserve(record, node)?;
    if Mutant::EpochReused.is_on() && record.holder.is_some() {
        return Ok(reserved);
    }
    let epoch = record.epoch.next().ok_or(Refusal::EpochsUsedUp)?;
    Ok(changed(&reserved, |record| {
        record.epoch = epoch;
        forget_replaced(record);
    }))
}

/// Members whose chunks others have: a new writer need not know of them. For whose sake it must wait for the leases of
/// older ones stands apart.
pub(crate) fn forget_replaced(record: &mut VolumeRecord) {
    let held = |index: usize| record.chunks.iter().any(|run| run.members.contains(&(index as u16)));
    let keep: Vec<bool> = (0..record.members.len()).map(held).collect();
    let index_after = |index: u16| keep[..usize::from(index)].iter().filter(|&&kept| kept).count() as u16;
    for run in &mut record.chunks {
        run.members.iter_mut().for_each(|index| *index = index_after(*index));
    }
    let mut kept = keep.iter();
    record.members.retain(|_| *kept.next().expect("one for each member"));
}

/// Below how many in-sync replicas writes wait. Only between two writers, the last of which closed: a writer goes on
/// reading as long as it has leases that meet every set of `min_replicas` that could promise a new epoch, so a lower
/// number that it has not learned would let the next one serve beside it.
pub fn set_min_replicas(record: &VolumeRecord, min: u8) -> Result<VolumeRecord, Refusal> {
    if min == record.min_replicas {
        return Ok(record.clone());
    }
    let replicas = record.chunks.iter().map(|run| run.members.len() as u8).min().unwrap_or(0);
    if !(1..=replicas).contains(&min) {
        return Err(Refusal::MinReplicas { min, replicas });
    }
    if record.holder.is_some() {
        return Err(Refusal::MinReplicasInUse);
    }
    if !record.clean {
        return Err(Refusal::MinReplicasUnclean);
    }
    let in_sync = record.fewest_in_sync_without(&[]);
    if in_sync < min {
        return Err(Refusal::BelowMinReplicas { in_sync, min });
    }
    Ok(changed(record, |record| record.min_replicas = min))
}

/// The volume becomes larger; chunks that are new lie where its last chunk lies. The writer hears of it in the record.
pub fn grow(record: &VolumeRecord, size: ByteCount) -> Result<VolumeRecord, Refusal> {
    let refused = |reason: String| Refusal::Size { from: record.size, to: size, reason };
    let geometry = Geometry::new(size).map_err(|error| refused(error.to_string()))?;
    if size < record.size {
        return Err(refused("it would shrink".to_owned()));
    }
    let more = |record: &mut VolumeRecord| {
        let last = record.chunks.last_mut().expect("a volume has a chunk");
        last.count = geometry.chunk_count() - last.first.0;
        record.size = size;
    };
    Ok(changed(record, more))
}

/// Gives the chunks of a disk that is not in-sync to another disk, which has nothing yet and returns like one that was
/// out from the beginning. One that is syncing may have died on its way: nobody else would end its return. The writer,
/// if there is one, hears of it in the record and keeps its members' indexes.
pub fn replace(record: &VolumeRecord, gone: DiskId, with: Member) -> Result<VolumeRecord, Refusal> {
    let from = index_of(record, gone).ok_or(Refusal::NotAMember { disk: gone })?;
    if record.member(with.disk).is_some() {
        return Err(Refusal::AlreadyAMember { disk: with.disk });
    }
    if record.members[usize::from(from)].state.is_in_sync() {
        return Err(Refusal::InSync { disk: gone });
    }
    room_for_a_member(record)?;
    Ok(changed(record, |record| {
        declare_if_read(record, gone);
        let to = record.members.len() as u16;
        record.members.push(Member { state: MemberState::Out { commit: Lsn::ZERO }, ..with });
        for index in record.chunks.iter_mut().flat_map(|run| &mut run.members) {
            if *index == from {
                *index = to;
            }
        }
    }))
}

/// Another disk comes to hold the chunks of `beside` as well: one that shall go, but not before this one is in-sync.
/// It has nothing yet and returns like one that was out from the beginning.
pub fn widen(record: &VolumeRecord, beside: DiskId, with: Member) -> Result<VolumeRecord, Refusal> {
    let by = index_of(record, beside).ok_or(Refusal::NotAMember { disk: beside })?;
    if record.member(with.disk).is_some() {
        return Err(Refusal::AlreadyAMember { disk: with.disk });
    }
    if !holds_chunks(record, by) {
        return Err(Refusal::HoldsNothing { disk: beside });
    }
    if holders_of(record, by).any(|members| members.len() >= HOLDERS_MAX) {
        return Err(Refusal::TooManyHolders);
    }
    room_for_a_member(record)?;
    Ok(changed(record, |record| {
        let to = record.members.len() as u16;
        record.members.push(Member { state: MemberState::Out { commit: Lsn::ZERO }, ..with });
        let runs = record.chunks.iter_mut().filter(|run| run.members.contains(&by));
        runs.for_each(|run| run.members.push(to));
    }))
}

/// A disk that is not in-sync holds no chunk any more: of what it held enough others are holders, and one at least is
/// in-sync. As with `replace`, what it had is given up; whether that is wise is the planner's matter. It stays a
/// member, without chunks, as long as the writer may know it.
pub fn narrow(record: &VolumeRecord, disk: DiskId) -> Result<VolumeRecord, Refusal> {
    let gone = index_of(record, disk).ok_or(Refusal::NotAMember { disk })?;
    if record.members[usize::from(gone)].state.is_in_sync() {
        return Err(Refusal::InSync { disk });
    }
    if !holds_chunks(record, gone) {
        return Ok(record.clone());
    }
    let in_sync = |index: &u16| *index != gone && record.members[usize::from(*index)].state.is_in_sync();
    if !holders_of(record, gone).all(|members| members.iter().any(in_sync)) {
        return Err(Refusal::NoOther { disk });
    }
    let left = holders_of(record, gone).map(|members| members.len() as u8 - 1).min().unwrap_or(0);
    if left < record.min_replicas {
        return Err(Refusal::BelowMinReplicas { in_sync: left, min: record.min_replicas });
    }
    Ok(changed(record, |record| {
        declare_if_read(record, disk);
        record.chunks.iter_mut().for_each(|run| run.members.retain(|&index| index != gone));
    }))
}

/// A writer reads of a member that returns to its node what has been copied, and nobody asks it when that one goes. The
/// fence of the next writer would not know of it.
fn declare_if_read(record: &mut VolumeRecord, disk: DiskId) {
    let returns = |member: &Member| matches!(member.state, MemberState::Syncing { .. });
    if record.member(disk).is_some_and(returns) && !record.declared_lost.contains(&disk) {
        record.declared_lost.push(disk);
    }
}

/// Whether what a disk has that holds no chunk any more may be deleted: `min_replicas` of each chunk are in-sync and
/// can be counted on; or one is, where repair is stuck for want of a disk. Until then it may be all that is left one
/// day, old as it is.
pub fn may_forget(record: &VolumeRecord, counts: impl Fn(DiskId) -> bool, is_stuck: bool) -> bool {
    let lost: Vec<DiskId> = record.in_sync().map(|member| member.disk).filter(|&disk| !counts(disk)).collect();
    let safe = record.fewest_in_sync_without(&lost);
    safe >= record.min_replicas || is_stuck && safe > 0
}

/// As `narrow`, of a disk that is in-sync, while nobody holds the volume and its last writer closed: no writer has
/// to let go of it, and none counts on its lease.
pub fn retire(record: &VolumeRecord, disk: DiskId) -> Result<VolumeRecord, Refusal> {
    if let Some(holder) = &record.holder {
        return Err(Refusal::Held { holder: holder.clone() });
    }
    if !record.clean {
        return Err(Refusal::NotClosed);
    }
    let gone = index_of(record, disk).ok_or(Refusal::NotAMember { disk })?;
    let in_sync = |index: &u16| record.members[usize::from(*index)].state.is_in_sync();
    if !holders_of(record, gone).all(|members| members.iter().all(in_sync)) {
        return Err(Refusal::OthersMissing { disk });
    }
    let out = changed(record, |record| set_state(record, disk, MemberState::Out { commit: Lsn::ZERO }));
    let narrowed = narrow(&out, disk)?;
    Ok(VolumeRecord { version: record.version + 1, ..narrowed })
}

fn index_of(record: &VolumeRecord, disk: DiskId) -> Option<u16> {
    record.members.iter().position(|member| member.disk == disk).map(|index| index as u16)
}

fn holders_of(record: &VolumeRecord, index: u16) -> impl Iterator<Item = &[u16]> {
    record.chunks.iter().map(|run| &run.members[..]).filter(move |members| members.contains(&index))
}

fn holds_chunks(record: &VolumeRecord, index: u16) -> bool {
    holders_of(record, index).next().is_some()
}

/// A writer knows its members by their indexes, so they only become more while it lives.
fn room_for_a_member(record: &VolumeRecord) -> Result<(), Refusal> {
    if record.members.len() < MEMBERS_MAX { Ok(()) } else { Err(Refusal::TooManyMembers) }
}

/// Takes the volume from whoever holds it. The old writer is not believed dead: the next one fences it (DESIGN §5.1).
pub fn release_by_force(record: &VolumeRecord) -> VolumeRecord {
    changed(record, |record| record.holder = None)
}

/// A disk is lost for good. Where in-sync replicas then fall below `min_replicas`, `proof` that it is off is needed;
/// writes wait until a rebuild has made enough again. The declaration is recorded: a new writer waits out the leases
/// unless the disk itself promises.
pub fn declare_lost(record: &VolumeRecord, disk: DiskId, proof: bool) -> Result<VolumeRecord, Refusal> {
    let member = record.member(disk).ok_or(Refusal::NotAMember { disk })?;
    if member.state != MemberState::InSync {
        return Ok(changed(record, |record| {
            declare_if_read(record, disk);
            set_state(record, disk, MemberState::Out { commit: Lsn::ZERO });
        }));
    }
    let in_sync = record.fewest_in_sync_without(&[disk]);
    if in_sync == 0 || (in_sync < record.min_replicas && !proof) {
        return Err(Refusal::NeedsProof { disk, in_sync });
    }
    Ok(changed(record, |record| {
        set_state(record, disk, MemberState::Out { commit: Lsn::ZERO });
        record.declared_lost.push(disk);
    }))
}

/// A writer's proposal: applied, or refused for good. `epoch` and `version` are what the writer knew.
pub fn apply(record: &VolumeRecord, epoch: Epoch, version: u64, change: &Change) -> ChangeAnswer {
    if epoch != record.epoch {
        return ChangeAnswer::Fenced { epoch: record.epoch };
    }
    if epoch == Epoch::NONE {
        let reason = "no epoch was granted yet".to_owned();
        return ChangeAnswer::Refused { reason, record: record.clone() };
    }
    if let Some(answer) = already_applied(record, version, change) {
        return answer;
    }
    if version != record.version && !Mutant::CatalogComparesNoVersion.is_on() {
        let reason = format!("version is {}, not {version}", record.version);
        return ChangeAnswer::Refused { reason, record: record.clone() };
    }
    match after(record, change) {
        Ok(record) => ChangeAnswer::Applied { record },
        Err(reason) => ChangeAnswer::Refused { reason, record: record.clone() },
    }
}

/// The same proposal asked again after its answer was lost: it was the very next change, and its effect stands.
fn already_applied(record: &VolumeRecord, version: u64, change: &Change) -> Option<ChangeAnswer> {
    let applied = version.checked_add(1) == Some(record.version) && record.last_change.as_ref() == Some(change);
    applied.then(|| ChangeAnswer::Applied { record: record.clone() })
}

fn after(record: &VolumeRecord, change: &Change) -> Result<VolumeRecord, String> {
    // Points of its epoch only go from then on, and replicas may have been told so (`snapshot::kept_detached`).
    if record.clean && record.served == record.epoch && *change != Change::CloseClean {
        return Err("the writer has closed the volume".to_owned());
    }
    let mut next = match change {
        Change::Eject { disks, commit, .. } => eject(record, disks, *commit)?,
        Change::BeginReturn { disk } => {
            let MemberState::Out { commit } = state_of(record, *disk)? else { return Err(wrong_state(record, *disk)) };
            changed(record, |record| set_state(record, *disk, MemberState::Syncing { commit }))
        }
        Change::AbandonReturn { disk } => {
            let MemberState::Syncing { commit } = state_of(record, *disk)? else {
                return Err(wrong_state(record, *disk));
            };
            changed(record, |record| set_state(record, *disk, MemberState::Out { commit }))
        }
        Change::Join { disk } => {
            let MemberState::Syncing { .. } = state_of(record, *disk)? else { return Err(wrong_state(record, *disk)) };
            changed(record, |record| {
                set_state(record, *disk, MemberState::InSync);
                record.declared_lost.retain(|lost| lost != disk);
            })
        }
        Change::CloseClean => changed(record, |record| {
            record.clean = true;
            record.holder = None;
            if record.served == record.epoch {
                // It reads no more, and had waited for those before it.
                record.declared_lost.clear();
            }
        }),
        Change::Snapshot(snapshot) => snapshot::take(record, *snapshot).map_err(|refusal| refusal.to_string())?,
        Change::OpenDirty => changed(record, |record| {
            record.clean = false;
            record.served = record.epoch;
            // This writer waited until no older one could hold a lease, and counts none of them itself.
            record.declared_lost.clear();
        }),
    };
    next.last_change = Some(change.clone());
    Ok(next)
}

fn eject(record: &VolumeRecord, disks: &[DiskId], commit: Lsn) -> Result<VolumeRecord, String> {
    if disks.is_empty() {
        return Err("no disk is named".to_owned());
    }
    if commit.epoch() > record.epoch {
        return Err(format!("commit point {commit} is of an epoch to come"));
    }
    for (index, &disk) in disks.iter().enumerate() {
        if disks[..index].contains(&disk) {
            return Err(format!("disk {disk} is named twice"));
        }
        if state_of(record, disk)? != MemberState::InSync {
            return Err(wrong_state(record, disk));
        }
    }
    let in_sync = record.fewest_in_sync_without(disks);
    if in_sync < record.min_replicas {
        return Err(Refusal::BelowMinReplicas { in_sync, min: record.min_replicas }.to_string());
    }
    Ok(changed(record, |record| disks.iter().for_each(|&disk| set_state(record, disk, MemberState::Out { commit }))))
}

fn state_of(record: &VolumeRecord, disk: DiskId) -> Result<MemberState, String> {
    record.member(disk).map(|member| member.state).ok_or_else(|| Refusal::NotAMember { disk }.to_string())
}

fn wrong_state(record: &VolumeRecord, disk: DiskId) -> String {
    format!("disk {disk} is {:?}", record.member(disk).map(|member| member.state))
}

fn set_state(record: &mut VolumeRecord, disk: DiskId, state: MemberState) {
    let member: Option<&mut Member> = record.members.iter_mut().find(|member| member.disk == disk);
    member.expect("the caller looked the member up").state = state;
}

pub(crate) fn changed(record: &VolumeRecord, change: impl FnOnce(&mut VolumeRecord)) -> VolumeRecord {
    let mut next = VolumeRecord { version: record.version + 1, last_change: None, ..record.clone() };
    change(&mut next);
    next
}

#[cfg(test)]
pub(crate) mod tests;
