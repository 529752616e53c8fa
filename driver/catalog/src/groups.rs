//! Groups of snapshots: which snapshots show the same instant.
//!
//! ```text
//!   (none) ──begin──► taking ──every member has its point, of one attempt──► ready
//!                     │    ▲ restart: new members in the place of those that show another instant
//!                     └────┴───────────────────► gone, after its members ◄─────┘
//! ```
//! The snapshots of an attempt are begun in one transaction with the group that names them.

use crate::document::{decode, encode, text};
use crate::{
    Catalog, CatalogError, CatalogErrorKind, Event, KeyRange, KeyValue, Revision, SnapshotInfo, Transaction, keys,
};
use ashlar_types::{GroupId, SnapshotId, VolumeId, VolumeName};
use serde::{Deserialize, Serialize};

/// Volumes of one group: their snapshots are begun in one transaction.
pub const GROUP_VOLUMES_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    pub id: GroupId,
    pub name: VolumeName,
    /// When it was taken, or asked for; milliseconds since 1970, UTC.
    pub created_ms: u64,
    /// In the order asked for.
    pub members: Vec<(VolumeId, SnapshotId)>,
    /// How long the writes of a volume were held for it, at most.
    pub held_us: u64,
    pub is_ready: bool,
}

/// A group as it was read: a change compares with this revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    pub group: GroupInfo,
    revision: Revision,
}

/// Groups in the order of their ids.
#[derive(Debug, Default)]
pub struct GroupPage {
    pub groups: Vec<StoredGroup>,
    /// Whose values cannot be read, and why.
    pub unreadable: Vec<(String, CatalogError)>,
    pub last: Option<GroupId>,
    pub more: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupDocument {
    #[serde(with = "text")]
    name: VolumeName,
    created_ms: u64,
    members: Vec<MemberDocument>,
    held_us: u64,
    ready: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberDocument {
    #[serde(with = "text")]
    volume: VolumeId,
    #[serde(with = "text")]
    snapshot: SnapshotId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameDocument {
    #[serde(with = "text")]
    group: GroupId,
}

impl GroupInfo {
    fn document(&self) -> Vec<u8> {
        let member = |&(volume, snapshot): &(VolumeId, SnapshotId)| MemberDocument { volume, snapshot };
        encode(&GroupDocument {
            name: self.name.clone(),
            created_ms: self.created_ms,
            members: self.members.iter().map(member).collect(),
            held_us: self.held_us,
            ready: self.is_ready,
        })
    }
}

impl Catalog {
    /// Keeps a group that is to be taken, takes its name, and begins its snapshots. A name that is taken, of the group
    /// or of one of them, is a [`CatalogErrorKind::Exists`].
    pub async fn begin_group(
        &self,
        group: &GroupInfo,
        snapshots: &[SnapshotInfo],
    ) -> Result<StoredGroup, CatalogError> {
        let (key, name) = (keys::group(group.id), keys::group_name(&group.name));
        let transaction = Transaction::default()
            .expect_absent(&name)
            .expect_absent(&key)
            .put(&name, encode(&NameDocument { group: group.id }))
            .put(&key, group.document());
        self.begin_members(transaction, group, snapshots).await
    }

    /// Puts other members in the place of those that `seen` has, which are gone, and begins their snapshots.
    pub async fn restart_group(
        &self,
        seen: &StoredGroup,
        next: &GroupInfo,
        snapshots: &[SnapshotInfo],
    ) -> Result<StoredGroup, CatalogError> {
        assert!(next.id == seen.group.id && next.name == seen.group.name && !seen.group.is_ready);
        let key = keys::group(next.id);
        let transaction = Transaction::default().expect(&key, seen.revision).put(&key, next.document());
        self.begin_members(transaction, next, snapshots).await
    }

    async fn begin_members(
        &self,
        transaction: Transaction,
        group: &GroupInfo,
        snapshots: &[SnapshotInfo],
    ) -> Result<StoredGroup, CatalogError> {
        assert!(snapshots.len() == group.members.len() && snapshots.len() <= GROUP_VOLUMES_MAX);
        let transaction = snapshots.iter().fold(transaction, |transaction, snapshot| snapshot.begun(transaction));
        match self.commit(transaction, Vec::new()).await {
            Ok(revision) => Ok(StoredGroup { group: group.clone(), revision }),
            Err(error) if error.kind() == CatalogErrorKind::Conflict => {
                let text = format!("the name {} is taken, or one of its snapshots'", group.name);
                Err(CatalogError::new(CatalogErrorKind::Exists, text))
            }
            Err(error) => Err(error),
        }
    }

    /// Every member has its point, and all of them show one instant.
    pub async fn complete_group(
        &self,
        seen: &StoredGroup,
        created_ms: u64,
        held_us: u64,
        event: Event,
    ) -> Result<StoredGroup, CatalogError> {
        let group = GroupInfo { is_ready: true, created_ms, held_us, ..seen.group.clone() };
        let key = keys::group(group.id);
        let transaction = Transaction::default().expect(&key, seen.revision).put(&key, group.document());
        let revision = self.commit(transaction, vec![event]).await?;
        Ok(StoredGroup { group, revision })
    }

    /// Its members are gone.
    pub async fn delete_group(&self, seen: &StoredGroup, event: Event) -> Result<(), CatalogError> {
        let (key, name) = (keys::group(seen.group.id), keys::group_name(&seen.group.name));
        let transaction = Transaction::default().expect(&key, seen.revision).delete(&key).delete(name);
        self.commit(transaction, vec![event]).await?;
        Ok(())
    }

    pub async fn group(&self, id: GroupId) -> Result<Option<StoredGroup>, CatalogError> {
        self.read_one(keys::group(id)).await?.map(|stored| assemble(&stored)).transpose()
    }

    pub async fn group_by_name(&self, name: &VolumeName) -> Result<Option<StoredGroup>, CatalogError> {
        match self.read_one(keys::group_name(name)).await? {
            // One that was deleted between the two readings does not exist.
            Some(stored) => self.group(decode::<NameDocument>(&stored)?.group).await,
            None => Ok(None),
        }
    }

    /// Groups whose ids sort after `after`, at most `limit`.
    pub async fn groups(&self, after: Option<GroupId>, limit: usize) -> Result<GroupPage, CatalogError> {
        let range = match after {
            Some(id) => KeyRange::after(keys::GROUPS, &keys::group(id)),
            None => KeyRange::prefix(keys::GROUPS),
        };
        let found = self.store().read(vec![range.limited(limit.saturating_add(1))]).await?.ranges.remove(0);
        let mut page = GroupPage { more: found.len() > limit, ..GroupPage::default() };
        for stored in found.iter().take(limit) {
            if let Ok(id) = id_of(stored) {
                page.last = Some(id);
            }
            match assemble(stored) {
                Ok(group) => page.groups.push(group),
                Err(error) => page.unreadable.push((stored.key.clone(), error)),
            }
        }
        Ok(page)
    }
}

fn id_of(stored: &KeyValue) -> Result<GroupId, CatalogError> {
    let id = stored.key.trim_start_matches(keys::GROUPS);
    let corrupt = || CatalogError::new(CatalogErrorKind::Corrupt, format!("{:?} is no group's key", stored.key));
    id.parse().map_err(|_| corrupt())
}

fn assemble(stored: &KeyValue) -> Result<StoredGroup, CatalogError> {
    let document: GroupDocument = decode(stored)?;
    let group = GroupInfo {
        id: id_of(stored)?,
        name: document.name,
        created_ms: document.created_ms,
        members: document.members.into_iter().map(|member| (member.volume, member.snapshot)).collect(),
        held_us: document.held_us,
        is_ready: document.ready,
    };
    Ok(StoredGroup { group, revision: stored.mod_revision })
}

#[cfg(test)]
mod tests;
