//! Publication: what ControllerPublishVolume asked for, kept from then until ControllerUnpublishVolume. It reserves the
//! volume for a node, and says whether that node may write.

use super::membership::{event, seen_allows};
use super::{COMMIT_TRIES_MAX, Control, raced};
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::{CatalogErrorKind, StoredVolume};
use ashlar_plan::membership;
use ashlar_rpc::NODE_VOLUMES_MAX;
use ashlar_types::{NodeName, VolumeId};

impl Control {
    /// Repeating it changes nothing; with other access it is an error.
    pub(crate) async fn publish(&self, id: VolumeId, node: &NodeName, read_only: bool) -> Result<StoredVolume> {
        let _permit = self.in_flight.begin(id)?;
        if !self.registry.knows_node(node).await {
            return Err(Error::not_found(format_args!("node {node}")));
        }
        for _ in 0..COMMIT_TRIES_MAX {
            let seen = self.volume(id).await?;
            seen_allows(&seen, node)?;
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
        let held = self.catalog.held_by(node).await?;
        if held < NODE_VOLUMES_MAX {
            return Ok(());
        }
        let text =
            format!("node {node} holds {held} volumes, at most {NODE_VOLUMES_MAX} are possible: use another node");
        Err(Error::new(ErrorKind::Exhausted, text))
    }
}

fn same_access(seen: StoredVolume, read_only: bool) -> Result<StoredVolume> {
    if seen.volume.published_read_only == read_only {
        return Ok(seen);
    }
    let how = if read_only { "for writing" } else { "for reading only" };
    let text = format!("volume {} is published to this node already, {how}: unpublish it first", seen.volume.name);
    Err(Error::new(ErrorKind::AlreadyExists, text))
}
