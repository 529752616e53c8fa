//! Expansion: a volume becomes larger, whether it is attached or not, and never smaller.
//!
//! ```text
//!   catalog: size, chunk table, claims (one transaction) ──► holder's datapath: record, device ──► (node: filesystem)
//! ```
//! The catalog decides: from there on the volume has the new size, and a step that failed after it is made up for by
//! asking again, or by the next attach. New chunks lie where the volume's last chunk lies.

use super::daemons::{EXPAND_TIMEOUT, refused, timed};
use super::membership::event;
use super::publication::{about, reading};
use super::volumes::SizeRange;
use super::{COMMIT_TRIES_MAX, Control, raced};
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::{CatalogErrorKind, Claims, StoredVolume, Volume};
use ashlar_plan::membership;
use ashlar_rpc::control::DatapathExpandRequest;
use ashlar_types::{ByteCount, NodeName, VolumeId};

impl Control {
    /// Gives the volume a size within the range: what it has, if that will do, otherwise the least that does. Returns
    /// when the device, if there is one, has it too.
    pub(crate) async fn expand_volume(&self, id: VolumeId, range: SizeRange) -> Result<StoredVolume> {
        let _permit = self.in_flight.begin(id)?;
        let grown = self.grow_record(id, range).await?;
        if let Some(holder) = &grown.volume.record.holder {
            self.expand_device(id, holder).await?;
        }
        Ok(grown)
    }

    async fn grow_record(&self, id: VolumeId, range: SizeRange) -> Result<StoredVolume> {
        for _ in 0..COMMIT_TRIES_MAX {
            let seen = self.volume(id).await?;
            let record = &seen.volume.record;
            if record.size > range.limit {
                let text = format!(
                    "volume {} has {} bytes, more than limit_bytes ({}): a volume never shrinks",
                    seen.volume.name, record.size, range.limit
                );
                return Err(Error::new(ErrorKind::OutOfRange, text));
            }
            if record.size >= range.size {
                return Ok(seen);
            }
            reading(&seen).allow_change().map_err(|refusal| about(&seen, &refusal))?;
            let next = membership::grow(record, range.size)?;
            let claims = self.catalog.claims().await?;
            let after = Volume { record: next.clone(), ..seen.volume.clone() };
            let more = ByteCount(after.claim().0 - seen.volume.claim().0);
            self.check_room(&after, more, &claims).await?;
            let text = format!("volume {} grows from {} to {} bytes", seen.volume.name, record.size, next.size);
            let event = event("expanded", text, &next).figure("size_bytes", next.size);
            match self.catalog.grow_volume(&seen, next, &claims, vec![event]).await {
                // Its membership changed or the space was taken meanwhile: look again.
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                Err(error) => return Err(error.into()),
                Ok(grown) => {
                    tracing::info!(volume = %id, size_bytes = grown.volume.record.size.0, "volume expanded");
                    return Ok(grown);
                }
            }
        }
        Err(raced(id))
    }

    /// Each disk of the volume must be able to promise so much more.
    pub(super) async fn check_room(&self, volume: &Volume, more: ByteCount, claims: &Claims) -> Result<()> {
        let mut short = Vec::new();
        for member in volume.record.holders() {
            match self.registry.room(member.disk, claims).await {
                Some(room) if room < more => {
                    short.push(format!("disk {} of node {} has {room}", member.disk, member.node));
                }
                _ => {}
            }
        }
        if short.is_empty() {
            return Ok(());
        }
        let text = format!("volume {} needs {more} more bytes on each of its disks: {}", volume.name, short.join(", "));
        Err(Error::new(ErrorKind::Exhausted, text))
    }

    async fn expand_device(&self, id: VolumeId, holder: &NodeName) -> Result<()> {
        let late = |error: Error| {
            let text = format!("the volume has its new size, its device on node {holder} follows: ask again ({error})");
            Error::new(error.kind, text)
        };
        let address = match self.registry.datapath(holder).await {
            Some((address, true)) if !address.is_empty() => address,
            _ => {
                let text = format!("the datapath of node {holder} is silent");
                return Err(late(Error::new(ErrorKind::Unavailable, text)));
            }
        };
        let request = DatapathExpandRequest { volume: id.to_string() };
        match self.daemons.datapath(&address)?.expand(timed(request, EXPAND_TIMEOUT)).await {
            Ok(_) => Ok(()),
            // Reserved and not brought up yet: the device will have the size from the beginning.
            Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
            Err(status) => Err(late(refused(&format!("datapath of node {holder}"), status))),
        }
    }
}
