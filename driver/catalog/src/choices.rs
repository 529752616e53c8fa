//! Choices: why each replica of a volume lies where it lies, as it was when it was placed. For people: nothing is
//! decided on it, so it is a value of its own, `choice/<volume>`, which no change of membership has to carry.
//!
//! It changes only in transactions that compare the volume's record: with the creation, and when other disks come to
//! hold chunks. A volume that nobody placed (a clone lies where its source lies) has none.

use crate::document::{decode, encode, text};
use crate::{Catalog, CatalogError, CatalogErrorKind, Transaction, keys};
use ashlar_types::{DiskId, NodeName, VolumeId};
use serde::{Deserialize, Serialize};

/// Disks that a choice tells of beside its own; more are counted.
pub const LEFT_OUT_MAX: usize = 16;

/// One disk that was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    #[serde(with = "text")]
    pub disk: DiskId,
    /// Milliseconds since 1970, UTC.
    pub chosen_ms: u64,
    /// What the replica was made for.
    pub occasion: String,
    /// What spoke for the disk.
    pub taken: String,
    /// At most [`LEFT_OUT_MAX`].
    pub left_out: Vec<LeftOut>,
    /// How many more there were.
    pub more: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    #[serde(with = "text")]
    pub disk: DiskId,
    #[serde(with = "text")]
    pub node: NodeName,
    pub reason: String,
}

/// `choices` in the place of those that there were.
pub(crate) fn put(transaction: Transaction, volume: VolumeId, choices: &[Choice]) -> Transaction {
    assert!(choices.iter().all(|choice| choice.left_out.len() <= LEFT_OUT_MAX));
    match choices {
        [] => transaction.delete(keys::choices(volume)),
        some => transaction.put(keys::choices(volume), encode(&some)),
    }
}

impl Catalog {
    /// Of those disks that were chosen, in no order.
    pub async fn choices(&self, volume: VolumeId) -> Result<Vec<Choice>, CatalogError> {
        match self.read_one(keys::choices(volume)).await? {
            Some(stored) => decode(&stored),
            None => Ok(Vec::new()),
        }
    }

    /// Those of the disks that stay, and of the one that comes.
    pub(crate) async fn choices_after(
        &self,
        volume: VolumeId,
        stays: impl Fn(DiskId) -> bool,
        came: Option<Choice>,
    ) -> Result<Vec<Choice>, CatalogError> {
        let before = match self.choices(volume).await {
            // A value that only people read holds up no repair: what it said is lost.
            Err(error) if matches!(error.kind(), CatalogErrorKind::Corrupt | CatalogErrorKind::Newer) => {
                tracing::error!(%volume, %error, "why replicas lie where they lie cannot be read");
                Vec::new()
            }
            read => read?,
        };
        Ok(before.into_iter().filter(|choice| stays(choice.disk)).chain(came).collect())
    }
}

#[cfg(test)]
mod tests;
