//! Attachment: which node holds a volume, and bringing its device up and down by way of the node's datapath.
//!
//! The holder is reserved in the catalog first; safety does not hang on it but on the epoch and the fence (DESIGN
//! §5.1), so taking a volume from a node that does not answer is always possible.

use super::daemons::{ATTACH_TIMEOUT, DETACH_TIMEOUT, refused, timed};
use super::membership::{event, seen_allows};
use super::publication::{about, reading};
use super::{Control, Decision};
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::{StoredVolume, Volume};
use ashlar_plan::{membership, readers};
use ashlar_rpc::control::{AttachRole, DatapathAttachRequest, DatapathDetachRequest, Device, Frontend};
use ashlar_types::{Epoch, NodeName, VolumeId, VolumeRecord};

/// How much a detach may take upon itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DetachMode {
    /// Only with the holder's datapath, which drains and closes.
    Clean,
    /// As `Clean`; without the datapath if that is silent or gone.
    CleanOrSilent,
    /// Whatever the datapath says.
    Force,
}

/// How the device is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Show {
    /// `Unspecified`: the volume is reserved for the node, and the device is brought up by the node.
    pub(crate) frontend: Frontend,
    pub(crate) read_only: bool,
    /// The caller records the volume's use.
    pub(crate) keeps_use: bool,
    pub(crate) role: AttachRole,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Detached {
    Free,
    /// Another node than the one that was named; nothing was changed.
    HeldBy(NodeName),
}

impl Control {
    /// Reserves the volume for the node, as its writer. Repeating it changes nothing.
    pub(crate) async fn reserve(&self, id: VolumeId, node: &NodeName) -> Result<StoredVolume> {
        self.reserve_if(id, node, |seen| reading(seen).allow_change()).await
    }

    async fn reserve_if(
        &self,
        id: VolumeId,
        node: &NodeName,
        allows: impl Fn(&StoredVolume) -> std::result::Result<(), readers::Refusal>,
    ) -> Result<StoredVolume> {
        if !self.registry.knows_node(node).await {
            return Err(Error::not_found(format_args!("node {node}")));
        }
        self.change_record(id, |seen| {
            seen_allows(seen, node)?;
            allows(seen).map_err(|refusal| about(seen, &refusal))?;
            let next = membership::reserve(&seen.volume.record, node)?;
            if next == seen.volume.record {
                return Ok(Decision::Keep);
            }
            let text = format!("volume {} reserved for node {node}", seen.volume.name);
            let event = event("reserved", text, &next).of_node(node);
            Ok(Decision::Change(Box::new(next), vec![event]))
        })
        .await
    }

    /// Reserves the volume and has the node's datapath bring up its device. Repeating it gives the same device. A
    /// reader reserves nothing, so many may attach at once.
    pub(crate) async fn attach(&self, id: VolumeId, node: &NodeName, show: Show) -> Result<Device> {
        if show.role == AttachRole::Reader {
            seen_allows(&self.read(id, node).await?, node)?;
            return self.attach_device(id, node, show).await;
        }
        let _permit = self.in_flight.begin(id)?;
        self.end_repair(id).await?;
        let seen = self.volume(id).await?;
        if seen.volume.published_read_only && !show.read_only {
            let text = format!("volume {} is published for reading only", seen.volume.name);
            return Err(Error::precondition(text));
        }
        let before = seen.volume.record;
        let reserved = match show.role {
            AttachRole::Settler => {
                self.reserve_if(id, node, |seen| reading(seen).allow_settling(node)).await?.volume.record
            }
            AttachRole::Writer | AttachRole::Reader => self.reserve(id, node).await?.volume.record,
        };
        if show.frontend == Frontend::Unspecified {
            return Ok(Device { path: String::new(), frontend: show.frontend as i32, epoch: reserved.epoch.number() });
        }
        let attached = self.attach_device(id, node, show).await;
        if attached.is_err() && before.holder.is_none() {
            self.release_unused(id, node, before.epoch).await?;
        }
        attached
    }

    pub(super) async fn attach_device(&self, id: VolumeId, node: &NodeName, show: Show) -> Result<Device> {
        if !show.read_only && !show.keeps_use {
            self.use_raw(id).await?;
        }
        let Show { frontend, read_only, role, .. } = show;
        let address = match self.registry.datapath(node).await {
            Some((address, true)) => address,
            _ => return Err(Error::new(ErrorKind::Unavailable, format!("the datapath of node {node} is silent"))),
        };
        let reader = role == AttachRole::Reader;
        let request = DatapathAttachRequest { volume: id.to_string(), frontend: frontend as i32, read_only, reader };
        let answer = self.daemons.datapath(&address)?.attach(timed(request, ATTACH_TIMEOUT)).await;
        answer.map(|device| device.into_inner()).map_err(|status| refused(&format!("datapath of node {node}"), status))
    }

    /// The volume, for a node that reads it beside others.
    pub(crate) async fn read(&self, id: VolumeId, node: &NodeName) -> Result<StoredVolume> {
        let seen = self.volume(id).await?;
        reading(&seen).allow_reading(node).map_err(|refusal| about(&seen, &refusal))?;
        Ok(seen)
    }

    /// Takes back a reservation under which no epoch was granted.
    async fn release_unused(&self, id: VolumeId, node: &NodeName, epoch: Epoch) -> Result<()> {
        let unused = |seen: &StoredVolume| {
            let record = &seen.volume.record;
            record.holder.as_ref() == Some(node) && record.epoch == epoch
        };
        self.release(id, "released", unused).await
    }

    /// Has the node's datapath drain and close the device, and frees the volume; with `node`, only if that one holds
    /// or reads it. A volume that nobody holds is no error.
    pub(crate) async fn detach(&self, id: VolumeId, node: Option<&NodeName>, mode: DetachMode) -> Result<Detached> {
        let _permit = self.in_flight.begin(id)?;
        let Volume { record, readers, .. } = self.volume(id).await?.volume;
        let leaving = readers.iter().filter(|reader| node.is_none_or(|node| node == *reader));
        let others = leaving.clone().filter(|reader| record.holder.as_ref() != Some(*reader));
        for reader in others {
            self.detach_from(id, reader, mode).await?;
        }
        let is_reader = leaving.count() > 0;
        let detached = self.detach_holder(id, record, node, mode).await?;
        if !is_reader {
            return Ok(detached);
        }
        self.forget_readers(id, node).await?;
        Ok(Detached::Free)
    }

    async fn detach_holder(
        &self,
        id: VolumeId,
        record: VolumeRecord,
        node: Option<&NodeName>,
        mode: DetachMode,
    ) -> Result<Detached> {
        let Some(holder) = record.holder else {
            self.forget_publication(id).await?;
            return Ok(Detached::Free);
        };
        if node.is_some_and(|node| *node != holder) {
            return Ok(Detached::HeldBy(holder));
        }
        self.detach_from(id, &holder, mode).await?;
        // After a clean close nobody holds the volume any more, unless it was attached again meanwhile, under a higher
        // epoch.
        let kind = if mode == DetachMode::Force { "force-detached" } else { "released" };
        let same = |seen: &StoredVolume| {
            let now = &seen.volume.record;
            now.holder.as_ref() == Some(&holder) && now.epoch == record.epoch
        };
        self.release(id, kind, same).await?;
        self.forget_publication(id).await?;
        Ok(Detached::Free)
    }

    /// A node that does not let go keeps the volume, unless the mode says otherwise: what it has is then fenced by the
    /// next writer.
    pub(super) async fn detach_from(&self, id: VolumeId, node: &NodeName, mode: DetachMode) -> Result<()> {
        match (self.detach_device(id, node, mode).await, mode) {
            (Ok(()), _) => Ok(()),
            (Err(error), DetachMode::CleanOrSilent) if error.kind == ErrorKind::Unavailable => {
                let silent = self.registry.datapath(node).await.is_none_or(|(_, alive)| !alive);
                if !silent {
                    return Err(error);
                }
                tracing::warn!(volume = %id, %node, "volume taken from a silent node");
                Ok(())
            }
            (Err(error), DetachMode::Force) => {
                tracing::warn!(volume = %id, %node, %error, "volume taken by force");
                Ok(())
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn detach_device(&self, id: VolumeId, holder: &NodeName, mode: DetachMode) -> Result<()> {
        let silent = || {
            let text = format!("the datapath of node {holder} is silent: take the volume from it with force");
            Error::new(ErrorKind::Unavailable, text)
        };
        let (address, alive) = self.registry.datapath(holder).await.ok_or_else(silent)?;
        if address.is_empty() || !alive {
            return Err(silent());
        }
        let request = DatapathDetachRequest { volume: id.to_string(), force: mode == DetachMode::Force };
        match self.daemons.datapath(&address)?.detach(timed(request, DETACH_TIMEOUT)).await {
            Ok(_) => Ok(()),
            // It was reserved and never brought up there, or the datapath has restarted since.
            Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
            Err(status) => Err(refused(&format!("datapath of node {holder}"), status)),
        }
    }

    /// Frees the volume if `wanted` still holds for it.
    async fn release(&self, id: VolumeId, kind: &str, wanted: impl Fn(&StoredVolume) -> bool) -> Result<()> {
        self.change_record(id, |seen| {
            if !wanted(seen) {
                return Ok(Decision::Keep);
            }
            let next = membership::release_by_force(&seen.volume.record);
            let text = format!("volume {} is free", seen.volume.name);
            let event = event(kind, text, &next);
            let event = seen.volume.record.holder.iter().fold(event, |event, holder| event.of_node(holder));
            Ok(Decision::Change(Box::new(next), vec![event]))
        })
        .await
        .map(|_| ())
    }
}
