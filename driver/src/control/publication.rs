//! Publication: what ControllerPublishVolume asked for, kept from then until ControllerUnpublishVolume. It reserves the
//! volume for a node and says whether that node may write, or adds the node to those that read the volume.

use super::membership::{event, seen_allows};
use super::{COMMIT_TRIES_MAX, Control, raced};
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::{CatalogErrorKind, StoredVolume};
use ashlar_plan::membership;
use ashlar_plan::readers::{self, Reading};
use ashlar_rpc::NODE_VOLUMES_MAX;
use ashlar_types::{NodeName, VolumeId};

impl Control {
    /// Repeating it changes nothing; with other access it is an error.
    pub(crate) async fn publish(&self, id: VolumeId, node: &NodeName, read_only: bool) -> Result<StoredVolume> {
        let _permit = self.in_flight.begin(id)?;
        if !self.registry.knows_node(node).await {
            return Err(Error::not_found(format_args!("node {node}")));
        }
        self.end_repair(id).await?;
        for _ in 0..COMMIT_TRIES_MAX {
            let seen = self.volume(id).await?;
            seen_allows(&seen, node)?;
            if seen.volume.readers.contains(node) {
                return Err(published_otherwise(&seen, "for reading by many"));
            }
            reading(&seen).allow_change().map_err(|refusal| about(&seen, &refusal))?;
            let record = &seen.volume.record;
            let next = membership::reserve(record, node)?;
            if next == *record {
                return same_access(seen, read_only);
            }
            self.check_limit(node).await?;
            let access = if read_only { " for reading" } else { "" };
            let text = format!("volume {} reserved for node {node}{access}", seen.volume.name);
            let event = event("reserved", text, &next).of_node(node);
            match self.catalog.publish(&seen, next, read_only, vec![event]).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                other => return Ok(other?),
            }
        }
        Err(raced(id))
    }

    /// Adds the node to those that read the volume. Repeating it changes nothing.
    pub(crate) async fn publish_reader(&self, id: VolumeId, node: &NodeName) -> Result<StoredVolume> {
        let _permit = self.in_flight.begin(id)?;
        if !self.registry.knows_node(node).await {
            return Err(Error::not_found(format_args!("node {node}")));
        }
        self.end_repair(id).await?;
        for _ in 0..COMMIT_TRIES_MAX {
            let seen = self.volume(id).await?;
            seen_allows(&seen, node)?;
            if seen.volume.readers.contains(node) {
                return Ok(seen);
            }
            if seen.volume.record.holder.as_ref() == Some(node) && seen.volume.readers.is_empty() {
                return Err(published_otherwise(&seen, "for itself alone"));
            }
            let more = reading(&seen).add(node).map_err(|refusal| about(&seen, &refusal))?;
            self.check_limit(node).await?;
            let text = format!("volume {} published to node {node} for reading by many", seen.volume.name);
            let event = event("reader-added", text, &seen.volume.record).of_node(node).figure("readers", more.len());
            match self.catalog.change_readers(&seen, more, vec![event]).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                other => return Ok(other?),
            }
        }
        Err(raced(id))
    }

    /// The node has made the volume ready for reading. Repeating it changes nothing.
    pub(crate) async fn set_settled(&self, id: VolumeId, node: &NodeName) -> Result<StoredVolume> {
        for _ in 0..COMMIT_TRIES_MAX {
            let seen = self.volume(id).await?;
            let settled = reading(&seen).settle(node).map_err(|refusal| about(&seen, &refusal))?;
            if settled == seen.volume.settled {
                return Ok(seen);
            }
            let text = format!("volume {} was made ready for reading by node {node}", seen.volume.name);
            let event = event("settled", text, &seen.volume.record).of_node(node);
            match self.catalog.settle(&seen, settled, vec![event]).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                other => return Ok(other?),
            }
        }
        Err(raced(id))
    }

    /// Takes the node, or all of them, from those that read the volume. Their devices are gone, or give errors from the
    /// next writer's first word on.
    pub(super) async fn forget_readers(&self, id: VolumeId, node: Option<&NodeName>) -> Result<()> {
        for _ in 0..COMMIT_TRIES_MAX {
            let Some(seen) = self.catalog.volume(id).await? else { return Ok(()) };
            let left = reading(&seen).remove(node);
            if left == seen.volume.readers {
                return Ok(());
            }
            let who = node.map_or("no node".to_owned(), |node| format!("node {node} no more"));
            let text = format!("volume {} is published to {who} for reading by many", seen.volume.name);
            let event = event("reader-removed", text, &seen.volume.record).figure("readers", left.len());
            let event = node.into_iter().fold(event, |event, node| event.of_node(node));
            match self.catalog.change_readers(&seen, left, vec![event]).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                other => return Ok(other.map(|_| ())?),
            }
        }
        Err(raced(id))
    }

    /// Forgets what the volume was published for. The caller has the volume's permit, so nobody publishes it meanwhile.
    pub(super) async fn forget_publication(&self, id: VolumeId) -> Result<()> {
        for _ in 0..COMMIT_TRIES_MAX {
            let Some(seen) = self.catalog.volume(id).await? else { return Ok(()) };
            if !seen.volume.published_read_only {
                return Ok(());
            }
            match self.catalog.unpublish(&seen).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                other => return Ok(other.map(|_| ())?),
            }
        }
        Err(raced(id))
    }

    /// Told early, where the scheduler can still choose another node. Two publications at once may both pass: the
    /// datapath takes no more in any case.
    async fn check_limit(&self, node: &NodeName) -> Result<()> {
        let used = self.catalog.used_by(node).await?;
        if used < NODE_VOLUMES_MAX {
            return Ok(());
        }
        let text =
            format!("node {node} holds {used} volumes, at most {NODE_VOLUMES_MAX} are possible: use another node");
        Err(Error::new(ErrorKind::Exhausted, text))
    }
}

fn same_access(seen: StoredVolume, read_only: bool) -> Result<StoredVolume> {
    if seen.volume.published_read_only == read_only {
        return Ok(seen);
    }
    Err(published_otherwise(&seen, if read_only { "for writing" } else { "for reading only" }))
}

fn published_otherwise(seen: &StoredVolume, how: &str) -> Error {
    let text = format!("volume {} is published to this node already, {how}: unpublish it first", seen.volume.name);
    Error::new(ErrorKind::AlreadyExists, text)
}

/// The volume as its readers see it.
pub(super) fn reading(seen: &StoredVolume) -> Reading<'_> {
    Reading { record: &seen.volume.record, readers: &seen.volume.readers, settled: seen.volume.settled }
}

/// A refusal with the volume's name.
pub(super) fn about(seen: &StoredVolume, refusal: &readers::Refusal) -> Error {
    use readers::Refusal;
    let kind = match refusal {
        Refusal::Held { .. } | Refusal::Read { .. } | Refusal::NotPublished { .. } => ErrorKind::FailedPrecondition,
        Refusal::TooMany => ErrorKind::Exhausted,
        Refusal::BeingSettled { .. } | Refusal::NotSettled | Refusal::Settled => ErrorKind::Busy,
    };
    Error::new(kind, format!("volume {}: {refusal}", seen.volume.name))
}
