//! Volumes of which points were given up while nobody held them: their replicas are still to hear of it. Whoever holds
//! a volume tells them itself, so nothing is kept then.

use crate::document::encode;
use crate::{Catalog, CatalogError, CatalogErrorKind, KeyRange, Revision, Transaction, keys};
use ashlar_types::{VolumeId, VolumeRecord};
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    pub volume: VolumeId,
    revision: Revision,
}

#[derive(Serialize)]
struct ForgottenDocument {
    /// For people: of the record that has the points no more.
    version: u64,
}

/// What is put beside a record that loses points.
pub(crate) fn note(transaction: Transaction, before: &VolumeRecord, after: &VolumeRecord) -> Transaction {
    let points = after.points();
    let is_lost = before.points().iter().any(|point| !points.contains(point));
    if !is_lost || after.holder.is_some() {
        return transaction;
    }
    transaction.put(keys::forgotten(after.volume), encode(&ForgottenDocument { version: after.version }))
}

impl Catalog {
    /// All of them; and keys that name no volume, and why.
    pub async fn forgotten(&self) -> Result<(Vec<Forgotten>, Vec<(String, CatalogError)>), CatalogError> {
        let found = self.store().read(vec![KeyRange::prefix(keys::FORGOTTEN)]).await?.ranges.remove(0);
        let (mut forgotten, mut unreadable) = (Vec::new(), Vec::new());
        for stored in found {
            match stored.key.trim_start_matches(keys::FORGOTTEN).parse() {
                Ok(volume) => forgotten.push(Forgotten { volume, revision: stored.mod_revision }),
                Err(_) => {
                    let text = format!("{:?} names no volume", stored.key);
                    unreadable.push((stored.key, CatalogError::new(CatalogErrorKind::Corrupt, text)));
                }
            }
        }
        Ok((forgotten, unreadable))
    }

    /// Every replica knows, or will hear it from a writer. False if more was given up since it was read.
    pub async fn drop_forgotten(&self, seen: &Forgotten) -> Result<bool, CatalogError> {
        let key = keys::forgotten(seen.volume);
        let transaction = Transaction::default().expect(&key, seen.revision).delete(&key);
        match self.commit(transaction, Vec::new()).await {
            Err(error) if error.kind() == CatalogErrorKind::Conflict => Ok(false),
            other => other.map(|_| true),
        }
    }
}
