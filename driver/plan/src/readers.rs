//! Readers: the nodes that a volume is published to for reading by many. Its content does not change while there are
//! any.
//!
//! ```text
//!   free ──add──► readers ──► one of them holds it, as its writer ──► it says: settled ──► closed: all attach
//!     ▲                            └─ any other end: the next one does it again                        │
//!     └── the last one is removed ◄────────────────────────────────────────────────────────────────────┘
//! ```
//! Invariants:
//! - while a volume has readers, nobody is granted an epoch but a reader that settles it, and that only while no
//!   reader may attach: `settled` ∧ readers ≠ ∅ ⇒ no grant;
//! - a settled volume has no holder, and the epoch of its record is the one under which it was served, so every replica
//!   in-sync has promised that one, and none a higher one.
//!
//! A clean close is not enough to be settled: it says nothing of a filesystem that was mounted when a snapshot was
//! taken, or whose node service was stopped before it had mounted it once.

use ashlar_types::{Epoch, NodeName, VolumeRecord};
use std::fmt;

/// Most nodes that read a volume at once.
pub const READERS_MAX: usize = 256;
/// Nodes that a refusal names; the rest is counted.
const NAMED_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it is held by node {holder}: detach it there before others read it")]
    Held { holder: NodeName },
    #[error("it has {READERS_MAX} readers, the most that are possible: unpublish it from one of them")]
    TooMany,
    #[error("it is published for reading to {readers}: unpublish it there first")]
    Read { readers: Readers },
    #[error("it is not published to node {node} for reading")]
    NotPublished { node: NodeName },
    #[error("it is being made ready for reading on node {holder}: ask again")]
    BeingSettled { holder: NodeName },
    #[error("it is not ready for reading: one of its readers makes it ready, ask again")]
    NotSettled,
    #[error("it is ready for reading: ask again")]
    Settled,
}

/// Names of nodes, as a message shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readers(Vec<NodeName>);

impl fmt::Display for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<&str> = self.0.iter().take(NAMED_MAX).map(NodeName::as_str).collect();
        let nodes = if self.0.len() == 1 { "node" } else { "nodes" };
        write!(f, "{nodes} {}", named.join(", "))?;
        match self.0.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A volume as its readers see it.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    pub record: &'a VolumeRecord,
    pub readers: &'a [NodeName],
    /// The epoch under which a reader made it ready; `NONE`: none did.
    pub settled: Epoch,
}

impl Reading<'_> {
    /// Its content is final as it stands: the writer that made it ready closed, so its replicas are equal, and nobody
    /// was granted an epoch since.
    pub fn is_settled(&self) -> bool {
        let Reading { record, settled, .. } = *self;
        let is_closed = record.holder.is_none() && record.clean;
        is_closed && settled != Epoch::NONE && [record.served, record.epoch] == [settled; 2]
    }

    /// The readers with `node` among them. Repeating it changes nothing.
    pub fn add(&self, node: &NodeName) -> Result<Vec<NodeName>, Refusal> {
        match &self.record.holder {
            _ if self.readers.contains(node) => return Ok(self.readers.to_vec()),
            // A reader that holds it makes it ready.
            Some(holder) if !self.readers.contains(holder) => return Err(Refusal::Held { holder: holder.clone() }),
            _ if self.readers.len() >= READERS_MAX => return Err(Refusal::TooMany),
            _ => {}
        }
        let mut more = self.readers.to_vec();
        more.push(node.clone());
        more.sort();
        Ok(more)
    }

    /// The readers without `node`, or without any. Repeating it changes nothing.
    pub fn remove(&self, node: Option<&NodeName>) -> Vec<NodeName> {
        self.readers.iter().filter(|reader| node.is_some_and(|node| node != *reader)).cloned().collect()
    }

    /// Whether the volume may be written to, deleted or expanded.
    pub fn allow_change(&self) -> Result<(), Refusal> {
        match self.readers {
            [] => Ok(()),
            some => Err(Refusal::Read { readers: Readers(some.to_vec()) }),
        }
    }

    /// Whether `node` may be granted an epoch. With readers, only one that holds the volume already: as
    /// [`Reading::allow_settling`] let it.
    pub fn allow_grant(&self, node: &NodeName) -> Result<(), Refusal> {
        match &self.record.holder {
            Some(holder) if holder == node => Ok(()),
            _ => self.allow_change(),
        }
    }

    /// Whether `node`, a reader, may hold the volume to make it ready for reading.
    pub fn allow_settling(&self, node: &NodeName) -> Result<(), Refusal> {
        match &self.record.holder {
            _ if !self.readers.contains(node) => Err(Refusal::NotPublished { node: node.clone() }),
            Some(holder) if holder != node => Err(Refusal::BeingSettled { holder: holder.clone() }),
            _ if self.is_settled() => Err(Refusal::Settled),
            _ => Ok(()),
        }
    }

    /// The epoch under which the volume is ready, by the word of `node`, which holds it and serves it.
    pub fn settle(&self, node: &NodeName) -> Result<Epoch, Refusal> {
        self.allow_settling(node)?;
        let Reading { record, .. } = *self;
        let serves = record.holder.is_some() && record.served == record.epoch && record.served != Epoch::NONE;
        if serves { Ok(record.epoch) } else { Err(Refusal::NotSettled) }
    }

    /// Whether `node` may attach the volume as a reader.
    pub fn allow_reading(&self, node: &NodeName) -> Result<(), Refusal> {
        match &self.record.holder {
            _ if !self.readers.contains(node) => Err(Refusal::NotPublished { node: node.clone() }),
            Some(holder) => Err(Refusal::BeingSettled { holder: holder.clone() }),
            None if !self.is_settled() => Err(Refusal::NotSettled),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
