//! The registry: nodes and disks that have ever reported, with what must be known of them while they are silent, and
//! the claims on disks. Who is alive is not here: liveness is kept in memory by the control plane.

use crate::document::{decode, decode_as, encode, encode_as, text};
use crate::{Catalog, CatalogError, Event, KeyRange, MetaStore, Revision, Transaction, keys};
use ashlar_types::{ByteCount, DiskId, NodeName, ZoneName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of nodes and disks: 2 has `is_draining`, 3 `judged_blocks`, 4 `judged_failing`.
const REGISTRY_FORMAT: u32 = 4;

/// A node and the addresses of its daemons, as last reported; empty if never.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    #[serde(with = "text")]
    pub name: NodeName,
    #[serde(with = "text::optional")]
    pub zone: Option<ZoneName>,
    /// gRPC of the node's datapath.
    pub datapath_rpc: String,
    /// gRPC of the node's chunkserver.
    pub chunkserver_rpc: String,
    /// Frames of the node's chunkserver.
    pub chunkserver_data: String,
    /// An operator wants every replica elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_draining: bool,
}

/// What became of a disk, as far as it must be remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiskFate {
    /// In use, or silent.
    Usable,
    /// A write or sync failed: refuses writes for good. The first reason.
    Failed { reason: String },
    /// Declared lost by an administrator, and not heard of in good health since.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    #[serde(with = "text")]
    pub id: DiskId,
    #[serde(with = "text")]
    pub node: NodeName,
    /// On its node, for people.
    pub path: String,
    pub capacity_bytes: u64,
    pub fate: DiskFate,
    /// An operator wants every replica elsewhere, or too many of its blocks went bad.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_draining: bool,
    /// Blocks that had gone bad when it was last drained for that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub judged_blocks: u64,
    /// Its device said that it is about to fail, and it was drained for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub judged_failing: bool,
}

/// Bytes promised to volumes on each disk, as read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Claims(BTreeMap<DiskId, (ByteCount, Revision)>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimDocument {
    #[serde(with = "text")]
    disk: DiskId,
    bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Claims {
    pub fn of(&self, disk: DiskId) -> ByteCount {
        self.0.get(&disk).map_or(ByteCount(0), |(bytes, _)| *bytes)
    }

    /// Adds to the transaction that `more` is promised on the disk, if nothing else was meanwhile.
    pub(crate) fn add(&self, transaction: Transaction, disk: DiskId, more: ByteCount) -> Transaction {
        self.set(transaction, disk, self.of(disk).0.saturating_add(more.0))
    }

    pub(crate) fn subtract(&self, transaction: Transaction, disk: DiskId, less: ByteCount) -> Transaction {
        self.set(transaction, disk, self.of(disk).0.saturating_sub(less.0))
    }

    pub(crate) fn clear(&self, transaction: Transaction, disk: DiskId) -> Transaction {
        self.set(transaction, disk, 0)
    }

    fn set(&self, transaction: Transaction, disk: DiskId, bytes: u64) -> Transaction {
        let key = keys::claim(disk);
        let compared = match self.0.get(&disk) {
            Some((_, revision)) => transaction.expect(&key, *revision),
            None => transaction.expect_absent(&key),
        };
        compared.put(&key, encode(&ClaimDocument { disk, bytes }))
    }
}

pub(crate) async fn read_claims(store: &MetaStore) -> Result<Claims, CatalogError> {
    let mut claims = Claims::default();
    for stored in &store.read(vec![KeyRange::prefix(keys::CLAIMS)]).await?.ranges[0] {
        let document: ClaimDocument = decode(stored)?;
        claims.0.insert(document.disk, (ByteCount(document.bytes), stored.mod_revision));
    }
    Ok(claims)
}

impl Catalog {
    /// By name.
    pub async fn nodes(&self) -> Result<Vec<Node>, CatalogError> {
        let found = self.store().read(vec![KeyRange::prefix(keys::NODES)]).await?;
        found.ranges[0].iter().map(|stored| decode_as(REGISTRY_FORMAT, stored)).collect()
    }

    /// By id.
    pub async fn disks(&self) -> Result<Vec<Disk>, CatalogError> {
        let found = self.store().read(vec![KeyRange::prefix(keys::DISKS)]).await?;
        found.ranges[0].iter().map(|stored| decode_as(REGISTRY_FORMAT, stored)).collect()
    }

    /// Keeps what a daemon reported of its node, in one transaction with the events that tell of it. Only the one that
    /// owns the registry in memory calls this, so the newest report wins and nothing is compared.
    pub async fn register(&self, node: &Node, disks: &[Disk], events: Vec<Event>) -> Result<(), CatalogError> {
        let transaction = Transaction::default().put(keys::node(&node.name), encode_as(REGISTRY_FORMAT, node));
        let put_disk = |transaction: Transaction, disk: &Disk| {
            transaction.put(keys::disk(disk.id), encode_as(REGISTRY_FORMAT, disk))
        };
        self.commit(disks.iter().fold(transaction, put_disk), events).await.map(|_| ())
    }

    pub async fn put_disk(&self, disk: &Disk, events: Vec<Event>) -> Result<(), CatalogError> {
        let transaction = Transaction::default().put(keys::disk(disk.id), encode_as(REGISTRY_FORMAT, disk));
        self.commit(transaction, events).await.map(|_| ())
    }
}
