//! Clones: a volume that shows what another one held at a snapshot's point, at once, and is written on its own.
//!
//! ```text
//!   source   ──begin: keeps the point under the clone's name──► ... ──release──► point gone
//!   clone    ──begin: origin, not made──► made ──► attached, written ──► flat: no origin any more
//! ```
//! Invariants of records that went through here:
//! - from before any disk is asked until the clone is flat or gone, the source's record has the clone's point, or the
//!   source is gone and its replicas keep what their clones read;
//! - a clone's replicas lie where the source's in-sync replicas lie; whoever was not in-sync there, or could not make
//!   one, is out with commit point zero, and gets everything when it returns;
//! - until they are made they follow the source's (`laid_anew`);
//! - every lsn that the clone's writers give is above the point: it goes on with the source's epochs;
//! - the clone goes on with the source's history (`served`, not clean): its first writer compares the replicas, so a
//!   disk that lacks something of the source is noticed as it would be there.

use crate::membership::{changed, forget_replaced};
use ashlar_types::{
    Base, ByteCount, ChunkIndex, ChunkRun, ClonePoint, DiskId, Epoch, Geometry, Lsn, Member, MemberState, Origin,
    SNAPSHOTS_MAX, SnapshotId, VolumeId, VolumeRecord,
};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("snapshot {id} is not in the record of its volume")]
    NoSnapshot { id: SnapshotId },
    #[error("the volume has {SNAPSHOTS_MAX} snapshots already, those that clones still read from among them")]
    TooMany,
    #[error("the source is a clone whose replicas are still being made: ask again")]
    NotMade,
    #[error("{size} is no size for a clone: {reason}")]
    Size { size: ByteCount, reason: String },
    #[error("{made} replicas of the clone can be made, minReplicas is {min}")]
    TooFew { made: u8, min: u8 },
}

/// The source's record, with the point that the clone reads by, and the clone's, of which no replica exists yet. The
/// caller has compared `size` with the snapshot's; `min_replicas` is the clone's own. A source that nobody ever wrote
/// to is left as it is: it may have no replica to read from, and its clone is a new volume like any other.
pub fn begin(
    source: &VolumeRecord,
    snapshot: SnapshotId,
    clone: VolumeId,
    size: ByteCount,
    min_replicas: u8,
) -> Result<(VolumeRecord, VolumeRecord), Refusal> {
    let taken = source.snapshot(snapshot).ok_or(Refusal::NoSnapshot { id: snapshot })?;
    if source.origin.is_some_and(|origin| !origin.is_made) {
        return Err(Refusal::NotMade);
    }
    if source.snapshots.len() + source.clones.len() >= SNAPSHOTS_MAX {
        return Err(Refusal::TooMany);
    }
    let (in_sync, min) = (source.fewest_in_sync_without(&[]), source.min_replicas.max(min_replicas));
    if in_sync < min {
        return Err(Refusal::TooFew { made: in_sync, min });
    }
    let geometry = Geometry::new(size).map_err(|error| Refusal::Size { size, reason: error.to_string() })?;
    let point = taken.point;
    let was_written = source.served != Epoch::NONE;
    let kept = if was_written { keep(source, ClonePoint { clone, point }) } else { source.clone() };
    let base = Base { volume: source.volume, point };
    let mut record = VolumeRecord {
        volume: clone,
        size,
        version: 1,
        holder: None,
        clean: !was_written,
        min_replicas,
        members: source.members.iter().map(member_of_clone).collect(),
        chunks: runs_for(&source.chunks, geometry.chunk_count()),
        declared_lost: Vec::new(),
        snapshots: Vec::new(),
        clones: Vec::new(),
        origin: was_written.then_some(Origin { base, is_made: false }),
        last_change: None,
        ..source.clone()
    };
    forget_replaced(&mut record);
    Ok((kept, record))
}

fn keep(source: &VolumeRecord, point: ClonePoint) -> VolumeRecord {
    changed(source, |source| {
        source.clones.push(point);
        source.clones.sort_by_key(|clone| clone.point);
    })
}

fn member_of_clone(of_source: &Member) -> Member {
    let state = match of_source.state {
        MemberState::InSync => MemberState::InSync,
        MemberState::Syncing { .. } | MemberState::Out { .. } => MemberState::Out { commit: Lsn::ZERO },
    };
    Member { state, ..of_source.clone() }
}

/// The source's table for so many chunks: cut, or with the last run longer.
fn runs_for(runs: &[ChunkRun], chunks: u32) -> Vec<ChunkRun> {
    let mut kept: Vec<ChunkRun> = runs.iter().filter(|run| run.first < ChunkIndex(chunks)).cloned().collect();
    let last = kept.last_mut().expect("a volume has a chunk");
    last.count = chunks - last.first.0;
    kept
}

/// A clone that is not made yet, laid where its source lies now: some disk that was to make a replica holds the source
/// no more, and never can. `None`: it lies where its source does, or the source has too few replicas now.
pub fn laid_anew(clone: &VolumeRecord, source: &VolumeRecord) -> Option<VolumeRecord> {
    clone.origin.filter(|origin| !origin.is_made)?;
    let lies_there = |disk: DiskId| source.holders().any(|member| member.disk == disk);
    if clone.holders().all(|member| lies_there(member.disk)) {
        return None;
    }
    let mut next = changed(clone, |clone| {
        let chunks = clone.chunks.iter().map(|run| run.count).sum();
        clone.members = source.members.iter().map(member_of_clone).collect();
        clone.chunks = runs_for(&source.chunks, chunks);
    });
    forget_replaced(&mut next);
    (next.fewest_in_sync_without(&[]) >= next.min_replicas).then_some(next)
}

/// These disks have made their replicas; the others in-sync have not, and are out. Repeating it changes nothing.
pub fn made(clone: &VolumeRecord, disks: &[DiskId]) -> Result<VolumeRecord, Refusal> {
    let Some(origin) = clone.origin.filter(|origin| !origin.is_made) else { return Ok(clone.clone()) };
    let next = changed(clone, |clone| {
        clone.origin = Some(Origin { is_made: true, ..origin });
        for member in clone.members.iter_mut().filter(|member| !disks.contains(&member.disk)) {
            member.state = MemberState::Out { commit: Lsn::ZERO };
        }
    });
    // Where all that are left have made theirs, more will come by their return only, under a writer.
    let (made, wanted) = (next.fewest_in_sync_without(&[]), clone.fewest_in_sync_without(&[]).min(next.min_replicas));
    if made == 0 || made < wanted { Err(Refusal::TooFew { made, min: next.min_replicas }) } else { Ok(next) }
}

/// Whose replicas must be flat before the clone is: all but those that are out.
pub fn awaited(clone: &VolumeRecord) -> impl Iterator<Item = &Member> {
    clone.members.iter().filter(|member| !matches!(member.state, MemberState::Out { .. }))
}

/// Each replica that is in-sync or returns has everything itself. Who is out gets everything when it returns: once the
/// source forgets the point, what such a replica still reads there is worth nothing. Repeating it changes nothing.
pub fn flat(clone: &VolumeRecord) -> VolumeRecord {
    if clone.origin.is_none() {
        return clone.clone();
    }
    changed(clone, |clone| {
        clone.origin = None;
        let out = clone.members.iter_mut().filter(|member| matches!(member.state, MemberState::Out { .. }));
        out.for_each(|member| member.state = MemberState::Out { commit: Lsn::ZERO });
    })
}

/// The clone is flat or gone: its source need not keep the point for it. Repeating it changes nothing.
pub fn release(source: &VolumeRecord, clone: VolumeId) -> VolumeRecord {
    if source.clones.iter().all(|point| point.clone != clone) {
        return source.clone();
    }
    changed(source, |source| source.clones.retain(|point| point.clone != clone))
}

#[cfg(test)]
mod tests;
